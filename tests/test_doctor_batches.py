"""What the doctor says of batches and of answers that depend on them."""

import keras
import numpy as np
import pytest
from doctor_cases import findings, make_case, reasons
from keras import layers

import kfusion
from kfusion.doctor.batch_checks import check_batches, check_rows_are_independent

X = np.random.default_rng(0).normal(size=(100, 6)).astype("float32")
Y = np.arange(100) % 2


class Standardized(layers.Layer):
    """Brings each column to mean 0 over the batch, which it must not at inference."""

    def call(self, inputs):
        return inputs - keras.ops.mean(inputs, axis=0, keepdims=True)


class RandomProjection(layers.Layer):
    """Another projection in each call, as a neighbour's fuser makes."""

    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(0)

    def call(self, inputs):
        return inputs @ keras.random.normal((6, 6), seed=self.seed)


def model_with(*inner):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), *inner, layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy")
    return model


def case_of(model, rows=100, **keywords):
    return make_case(model, X[:rows], Y[:rows], "binary", **keywords)


class TestRowsAreIndependent:
    def test_a_mean_over_the_batch_is_found_and_measured(self):
        model = model_with(Standardized())
        said = findings(check_rows_are_independent, case_of(model))["rows_depend_on_each_other"]
        rows = np.sort(np.random.default_rng(0).choice(100, 32, replace=False))
        alone, together = (model.predict(X[rows[:n]], verbose=0) for n in (1, 32))
        assert said.values["alone"] == pytest.approx(abs(alone[0, 0] - together[0, 0]), rel=1e-3)
        assert said.values["permuted"] < 1e-5

    def test_chance_at_inference_is_found(self):
        found = findings(check_rows_are_independent, case_of(model_with(RandomProjection())))
        assert list(found) == ["random_at_inference"]

    def test_normalisation_and_dropout_are_silent(self):
        model = model_with(layers.Dense(8), layers.BatchNormalization(), layers.Dropout(0.5))
        assert not list(check_rows_are_independent(case_of(model)))


class TestBatches:
    NORMALIZED = model_with(layers.Dense(8), layers.BatchNormalization())

    def test_of_few_rows(self):
        found = findings(check_batches, case_of(self.NORMALIZED, batch_size=4, epochs=100))
        assert list(found) == ["small_batch_for_normalization"]

    def test_whose_last_has_one_row(self):
        found = findings(check_batches, case_of(self.NORMALIZED, 97, batch_size=32, epochs=100))
        assert list(found) == ["last_batch_of_one_row"]
        assert "batch_size=33" in found["last_batch_of_one_row"].cure

    def test_too_few_to_forget_the_start(self):
        case = case_of(self.NORMALIZED, batch_size=32, epochs=10)
        said = findings(check_batches, case)["statistics_of_the_start"]
        assert said.values["steps"] == 40
        assert said.values["share"] == pytest.approx(0.99**40)
        # The momentum of the cure leaves a twentieth after a quarter of the steps.
        momentum = float(said.cure.split("=")[1].rstrip(")"))
        assert momentum**10 == pytest.approx(0.05, rel=0.2)

    def test_enough_of_them(self):
        assert not list(check_batches(case_of(self.NORMALIZED, batch_size=32, epochs=100)))

    def test_without_epochs_it_is_not_decided(self):
        case = case_of(self.NORMALIZED, batch_size=32)
        assert "epochs" in reasons(check_batches, case)["statistics_of_the_start"]

    def test_without_normalisation_or_with_a_frozen_one_there_is_nothing_to_say(self):
        frozen = kfusion.freeze(self.NORMALIZED)
        again = keras.Model(frozen.inputs, frozen.outputs)
        for model in (model_with(layers.Dense(8)), again):
            assert not list(check_batches(case_of(model, 97, batch_size=4, epochs=1)))
