"""How the doctor draws rows and runs models: few enough, by name, and the model as it was."""

import keras
import numpy as np
import pytest
from doctor_cases import make_case
from keras import layers

import kfusion
from kfusion.doctor.answers import answers
from kfusion.doctor.drawn_rows import batches, few_rows
from kfusion.doctor.model_runs import name_outputs, predict, prediction_name


class TestRows:
    def test_of_large_images_are_few(self):
        # Without memory of their own: every row is the same one.
        large = {"x": np.broadcast_to(np.zeros((1024, 1024)), (50, 1024, 1024))}
        assert len(few_rows(large)) == 16
        assert len(few_rows(large, fewest=20)) == 20
        assert len(few_rows(large, most=5)) == 5
        assert [len(batch["x"]) for batch in batches(large)] == [16, 16, 16, 2]

    def test_are_the_same_for_a_seed_and_none_twice(self):
        x = {"x": np.zeros((1000, 3))}
        drawn = few_rows(x, 100, seed=3)
        assert len(set(drawn)) == 100
        np.testing.assert_array_equal(drawn, few_rows(x, 100, seed=3))
        assert set(drawn) != set(few_rows(x, 100, seed=4))


def heads(structure):
    inputs = layers.Input((4,), name="row")
    made = {name: layers.Dense(1, "sigmoid", name=name)(inputs) for name in ("first", "second")}
    return keras.Model(inputs, structure(made))


class Pair(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, x):
        return self.dense(x), -self.dense(x)


class TestOutputs:
    @pytest.mark.parametrize(
        ("structure", "names", "own"),
        [
            (dict, ["first", "second"], "first"),
            (lambda made: list(made.values()), ["first", "second"], "first"),
            (lambda made: made["second"], ["second"], "second"),
            (
                lambda made: {"first": made["first"], "prediction": made["second"]},
                ["first", "prediction"],
                "prediction",
            ),
        ],
    )
    def test_of_functional_models_have_their_names(self, structure, names, own):
        found = predict(heads(structure), {"row": np.zeros((3, 4))})
        assert sorted(found) == names
        assert prediction_name(found) == own

    def test_of_a_subclassed_model_are_numbered(self):
        model = Pair()
        found = predict_built(model, np.ones((2, 4)))
        assert list(found) == ["output_1", "output_2"]
        np.testing.assert_array_equal(found["output_1"], -found["output_2"])
        assert list(name_outputs(model, np.ones(3))) == ["prediction"]

    def test_each_head_of_a_list_answers_once(self):
        x = np.random.default_rng(0).normal(size=(300, 4)).astype("float32")
        model = heads(lambda made: list(made.values()))
        case = make_case(model, x, np.arange(300) % 2, kfusion.task("binary"))
        found = answers(case, case.train.x)
        assert set(found) == {"prediction", "second"}
        expected = model.predict(x, verbose=0)[0]
        np.testing.assert_allclose(found["prediction"], expected, atol=1e-6)


def predict_built(model, x):
    model(x)
    return predict(model, {"input_1": x})
