"""What the doctor says of outputs, losses and labels."""

import keras
import numpy as np
import pytest
from doctor_cases import findings, make_case, reasons
from keras import layers

from kfusion.doctor.output_checks import (
    check_activations,
    check_broadcasting,
    check_labels,
    check_watched_metrics,
)

ROWS = 40
X = np.random.default_rng(0).normal(size=(ROWS, 5)).astype("float32")
CLASSES = np.arange(ROWS) % 3
SPARSE = "sparse_categorical_crossentropy"


def model_of(units, activation, loss, metrics=()):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(units, activation, name="answer")])
    model.compile("adam", loss, metrics=list(metrics))
    return model


class TestLabels:
    @pytest.mark.parametrize(
        ("y", "units", "loss"),
        [
            (np.eye(3)[CLASSES], 3, SPARSE),
            (CLASSES, 3, "categorical_crossentropy"),
            (CLASSES, 3, keras.losses.CategoricalCrossentropy()),
            (np.eye(3)[CLASSES], 4, "categorical_crossentropy"),
            (CLASSES % 2, 2, "binary_crossentropy"),
            (X[:, :2], 1, "mse"),
            (X[:, 0], 3, "mae"),
        ],
    )
    def test_of_a_shape_that_the_loss_does_not_take(self, y, units, loss):
        task = "regression" if loss in ("mse", "mae") else "multiclass"
        case = make_case(model_of(units, "softmax", loss), X, y, task)
        assert list(findings(check_labels, case)) == ["labels_do_not_fit_loss"]

    @pytest.mark.parametrize(
        ("y", "units", "loss"),
        [
            (np.eye(3)[CLASSES], 3, "categorical_crossentropy"),
            (CLASSES, 3, SPARSE),
            (CLASSES[:, None], 3, keras.losses.SparseCategoricalCrossentropy()),
            (CLASSES % 2, 1, "binary_crossentropy"),
            (np.eye(3)[CLASSES], 3, "binary_crossentropy"),
            (X[:, 0], 1, "mse"),
            (X[:, :2], 2, keras.losses.Huber()),
        ],
    )
    def test_that_fit(self, y, units, loss):
        case = make_case(model_of(units, "softmax", loss), X, y, "binary")
        assert not list(check_labels(case))

    def test_outside_of_the_units_are_counted(self):
        found = findings(
            check_labels, make_case(model_of(3, "softmax", SPARSE), X, CLASSES + 1, "multiclass")
        )
        said = found["labels_out_of_range"]
        assert said.values["count"] == np.sum(CLASSES + 1 > 2)
        assert "np.unique" in said.cure

    def test_more_classes_than_units_ask_for_more_units(self):
        case = make_case(model_of(2, "softmax", SPARSE), X, CLASSES, "multiclass")
        assert "Dense(3" in findings(check_labels, case)["labels_out_of_range"].cure

    def test_of_minus_one_and_one_under_a_binary_loss(self):
        y = np.where(CLASSES == 0, -1, 1)
        case = make_case(model_of(1, "sigmoid", "binary_crossentropy"), X, y, "binary")
        assert findings(check_labels, case)["labels_out_of_range"].values["lowest"] == -1

    def test_of_every_place_of_a_map_are_left_alone(self):
        model = keras.Sequential([keras.Input((8, 5)), layers.Dense(3, "softmax")])
        model.compile("adam", SPARSE)
        case = make_case(model, np.zeros((ROWS, 8, 5)), np.ones((ROWS, 8), int), "multiclass")
        assert not list(check_labels(case))


class PlainSquares(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


def test_a_loss_that_broadcasts_is_measured():
    y = X[:, 0]
    model = model_of(1, "linear", PlainSquares())
    said = findings(check_broadcasting, make_case(model, X, y, "regression"))["targets_broadcast"]
    rows = np.random.default_rng(0).choice(ROWS, 32, replace=False)
    rows.sort()
    predictions = model.predict(X[rows], verbose=0)
    assert said.values["flat"] == pytest.approx(np.mean((y[rows] - predictions) ** 2), rel=1e-5)
    assert said.values["column"] == pytest.approx(
        np.mean((y[rows, None] - predictions) ** 2), rel=1e-5
    )
    for loss, targets in ((PlainSquares(), y[:, None]), ("mse", y)):
        model = model_of(1, "linear", loss)
        assert not list(check_broadcasting(make_case(model, X, targets, "regression")))


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1")
class TestActivations:
    @pytest.mark.parametrize(
        ("units", "activation", "loss", "y", "name"),
        [
            (
                3,
                "softmax",
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                CLASSES,
                "probabilities_taken_as_logits",
            ),
            (
                1,
                "sigmoid",
                keras.losses.BinaryCrossentropy(from_logits=True),
                CLASSES % 2,
                "probabilities_taken_as_logits",
            ),
            (3, "linear", SPARSE, CLASSES, "logits_taken_as_probabilities"),
            (1, "relu", "binary_crossentropy", CLASSES % 2, "logits_taken_as_probabilities"),
            (3, "sigmoid", SPARSE, CLASSES, "sigmoid_on_exclusive_classes"),
            (1, "softmax", "binary_crossentropy", CLASSES % 2, "softmax_over_one_unit"),
            (3, "softmax", "binary_crossentropy", np.eye(3)[CLASSES], "binary_loss_of_a_softmax"),
        ],
    )
    def test_that_do_not_go_with_the_loss(self, units, activation, loss, y, name):
        case = make_case(model_of(units, activation, loss), X, y, "multiclass")
        assert list(findings(check_activations, case)) == [name]

    @pytest.mark.parametrize(
        ("units", "activation", "loss", "y"),
        [
            (3, "softmax", SPARSE, CLASSES),
            (3, "linear", keras.losses.SparseCategoricalCrossentropy(from_logits=True), CLASSES),
            (1, "sigmoid", "binary_crossentropy", CLASSES % 2),
            (1, "linear", keras.losses.BinaryCrossentropy(from_logits=True), CLASSES % 2),
            (3, "sigmoid", "binary_crossentropy", np.eye(3)[CLASSES]),
        ],
    )
    def test_that_do(self, units, activation, loss, y):
        kind = "binary" if units == 1 or activation == "sigmoid" else "multiclass"
        case = make_case(model_of(units, activation, loss), X, y, kind)
        assert not list(check_activations(case))

    def test_the_bound_of_a_softmax_taken_as_logits(self):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        case = make_case(model_of(3, "softmax", loss), X, CLASSES, "multiclass")
        said = findings(check_activations, case)["probabilities_taken_as_logits"]
        # Logits of 1, 0, 0 are the best that a softmax can give.
        assert f"{-np.log(np.e / (np.e + 2)):.3g}" in said.effect

    def test_a_relu_cannot_give_negative_targets(self):
        y = X[:, 0]
        case = make_case(model_of(1, "relu", "mse"), X, y, "regression")
        said = findings(check_activations, case)["targets_outside_of_output"]
        assert said.values["outside"] == np.mean(y < 0)
        case = make_case(model_of(1, "relu", "mse"), X, np.abs(y), "regression")
        assert not list(check_activations(case))

    def test_of_a_subclassed_model_are_measured(self):
        class Soft(keras.Model):
            def __init__(self):
                super().__init__()
                self.dense = layers.Dense(3, "softmax")

            def call(self, x):
                return self.dense(x)

        model = Soft()
        model(X)
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        case = make_case(model, X, CLASSES, "multiclass")
        assert list(findings(check_activations, case)) == ["probabilities_taken_as_logits"]
        assert "subclassed" in reasons(check_labels, case)["labels_for_the_loss"]


class TestRareClasses:
    RARE = (np.arange(ROWS) < 2).astype(int)

    def test_accuracy_alone_says_nothing_of_them(self):
        model = model_of(1, "sigmoid", "binary_crossentropy", ["accuracy"])
        said = findings(check_watched_metrics, make_case(model, X, self.RARE, "binary"))
        assert said["accuracy_of_rare_classes"].values["rarest_share"] == 0.05
        assert said["accuracy_of_rare_classes"].values["most_frequent_share"] == 0.95

    @pytest.mark.parametrize("metrics", [[], ["accuracy", keras.metrics.AUC()]])
    def test_other_scores_do(self, metrics):
        model = model_of(1, "sigmoid", "binary_crossentropy", metrics)
        assert not list(check_watched_metrics(make_case(model, X, self.RARE, "binary")))

    def test_a_tenth_each_of_ten_classes_is_not_rare(self):
        y = np.r_[np.arange(ROWS) % 10]
        y[0] = 1
        model = model_of(10, "softmax", SPARSE, ["accuracy"])
        assert not list(check_watched_metrics(make_case(model, X, y, "multiclass")))
