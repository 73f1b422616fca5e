"""What the doctor says of parts that are meant to stay as they are."""

import keras
import numpy as np
import pytest
from doctor_cases import findings, make_case
from keras import layers

import kfusion
from kfusion.doctor.frozen_checks import check_frozen_parts, check_trainable_after_compile

ROWS = 64
X = np.random.default_rng(0).normal(size=(ROWS, 10)).astype("float32")
Y = np.arange(ROWS) % 2


def trained_part(name, rate=0.0, normalize=False):
    keras.utils.set_random_seed(len(name))
    inner = [keras.Input((10,)), layers.Dense(32, "relu", name=f"{name}_first")]
    if normalize:
        inner.append(layers.BatchNormalization(name=f"{name}_normalization"))
    if rate:
        inner.append(layers.Dropout(rate, name=f"{name}_dropout"))
    inner.append(layers.Dense(16, "relu", name=f"{name}_second"))
    return keras.Sequential(inner, name=name)


def joined(parts, **flags):
    """Two trained sub-models joined by a small network, as in the question that began this."""
    keras.utils.set_random_seed(0)
    inputs = layers.Input((10,), name="row")
    features = layers.Concatenate()([part(inputs, **flags) for part in parts])
    answer = layers.Dense(1, "sigmoid")(layers.Dense(16, "relu")(features))
    model = keras.Model(inputs, answer)
    model.compile("adam", "binary_crossentropy")
    return model


def case_of(model):
    return make_case(model, X, Y, "binary")


class TestFrozenParts:
    def test_dropout_stays_on_in_a_part_that_does_not_train(self):
        parts = [trained_part("one", rate=0.5), trained_part("two")]
        for part in parts:
            part.trainable = False
        found = findings(check_frozen_parts, case_of(joined(parts)))
        assert list(found) == ["dropout_in_frozen_part"]
        assert found["dropout_in_frozen_part"].subject == "one"
        assert found["dropout_in_frozen_part"].values["lost"][0] == pytest.approx(0.5, abs=0.08)

    def test_one_held_by_freeze_is_silent(self):
        parts = [trained_part("one", rate=0.5, normalize=True), trained_part("two")]
        model = joined([kfusion.freeze(part) for part in parts])
        assert not list(check_frozen_parts(case_of(model)))

    def test_dropout_in_a_part_that_trains_is_silent(self):
        model = joined([trained_part("one", rate=0.5, normalize=True), trained_part("two")])
        assert not list(check_frozen_parts(case_of(model)))

    @pytest.mark.parametrize("keywords", [{"rate": 0.5}, {"normalize": True}])
    def test_training_false_in_a_graph_has_no_effect(self, keywords):
        parts = [trained_part("one", **keywords), trained_part("two")]
        found = findings(check_frozen_parts, case_of(joined(parts, training=False)))
        assert list(found) == ["training_flag_without_effect"]
        assert found["training_flag_without_effect"].subject == "one"

    def test_statistics_move_between_frozen_weights(self):
        part = trained_part("one", normalize=True)
        model = joined([part, trained_part("two")])
        part.get_layer("one_first").trainable = False
        part.get_layer("one_second").trainable = False
        found = findings(check_frozen_parts, case_of(model))
        assert found["frozen_part_moves"].values["layers"] == ["one/one_normalization"]
        # What was said, done: one step moves them.
        before = part.get_layer("one_normalization").moving_mean.numpy()
        model.compile("adam", "binary_crossentropy")
        model.train_on_batch(X, Y)
        assert np.any(part.get_layer("one_normalization").moving_mean.numpy() != before)

    def test_new_normalisation_behind_a_frozen_part_may_move(self):
        part = trained_part("one")
        part.trainable = False
        inputs = layers.Input((10,))
        hidden = layers.BatchNormalization()(part(inputs))
        model = keras.Model(inputs, layers.Dense(1, "sigmoid")(hidden))
        assert not list(check_frozen_parts(case_of(model)))


class TestTrainableAfterCompile:
    def test_a_part_frozen_too_late(self):
        part = trained_part("one")
        model = joined([part, trained_part("two")])
        model.train_on_batch(X, Y)
        assert not list(check_trainable_after_compile(case_of(model)))
        part.trainable = False
        found = findings(check_trainable_after_compile, case_of(model))
        assert found["trainable_changed_after_compile"].values == {
            "no_longer_train": 4,
            "now_train": 0,
        }
        model.compile("adam", "binary_crossentropy")
        model.train_on_batch(X, Y)
        assert not list(check_trainable_after_compile(case_of(model)))

    def test_a_part_that_was_to_train_again(self):
        part = trained_part("one")
        part.trainable = False
        model = joined([part, trained_part("two")])
        model.train_on_batch(X, Y)
        part.trainable = True
        found = findings(check_trainable_after_compile, case_of(model))
        assert found["trainable_changed_after_compile"].values["now_train"] == 4
