"""Tasks: heads, starting biases, scores and checks of targets."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics

from kfusion.tasks import Task, as_task, check_variety, infer_task, task


@pytest.mark.parametrize(
    ("made", "units", "activation", "loss", "objective"),
    [
        (task("binary"), 1, "sigmoid", "binary_crossentropy", ("val_auc", "max")),
        (
            task("multiclass", num_classes=3),
            3,
            "softmax",
            "sparse_categorical_crossentropy",
            ("val_auc", "max"),
        ),
        (task("regression"), 1, "linear", "mean_squared_error", ("val_rmse", "min")),
    ],
    ids=["binary", "multiclass", "regression"],
)
def test_the_kind_decides_head_loss_and_objective(made, units, activation, loss, objective):
    assert (made.units, made.activation, made.loss) == (units, activation, loss)
    assert made.objective == objective


@pytest.mark.parametrize(
    ("made", "bias"),
    [
        (task("binary", y=[0, 0, 0, 1]), [np.log(1 / 3)]),
        (task("binary", y=[0, 1]), [0]),
        (task("multiclass", y=[0, 1, 1, 2]), np.log([0.25, 0.5, 0.25])),
        (task("multiclass", y=[0, 1], num_classes=3), np.log([0.5, 0.5, 1e-4])),
        (task("binary"), [0]),
        (task("multiclass", num_classes=2), [0, 0]),
        (task("regression", y=[1.0, 2.0]), [0]),
    ],
)
def test_the_head_starts_at_the_log_odds_of_the_classes(made, bias):
    np.testing.assert_allclose(made.output_bias, bias, rtol=1e-6)


def test_a_head_at_its_starting_bias_predicts_the_class_rates():
    made = task("multiclass", y=[0] * 6 + [1] * 3 + [2])
    exponentials = np.exp(made.output_bias)
    np.testing.assert_allclose(exponentials / exponentials.sum(), [0.6, 0.3, 0.1], rtol=1e-6)


def test_a_regression_knows_the_mean_and_the_standard_deviation_of_its_target():
    made = task("regression", y=[1.0, 3.0, 5.0])
    assert made.center == 3
    assert made.spread == pytest.approx(np.sqrt(8 / 3))
    assert made.loss_weight == pytest.approx(3 / 8)


def test_class_names_are_the_labels_unless_given():
    assert task("multiclass", y=[0, 2, 1]).class_names == ("0", "1", "2")
    assert task("binary", class_names=["no", "yes"]).class_names == ("no", "yes")


def test_a_target_with_one_column_is_read_as_rows():
    assert task("binary").check_targets(np.array([[0], [1]])).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("kind", "y", "dtype"),
    [
        ("binary", [True, False], np.int32),
        ("binary", pd.Series([0.0, 1.0]), np.int32),
        ("regression", [1, 2], np.float32),
    ],
)
def test_targets_become_int32_labels_or_float32_values(kind, y, dtype):
    checked = task(kind).check_targets(y)
    assert checked.dtype == dtype
    np.testing.assert_array_equal(checked, y)


@pytest.mark.parametrize(
    ("kind", "y", "message"),
    [
        ("multiclass", np.eye(3), r"shape=\(3, 3\); turn one-hot labels into `y.argmax\(axis=1\)`"),
        ("regression", np.ones((3, 2)), r"must have shape \(rows,\). Received: shape=\(3, 2\)\.$"),
        ("binary", 1, r"must have shape \(rows,\). Received: shape=\(\)"),
        ("binary", ["cat", "dog"], "`y` must hold numbers: labels 0, 1, .* dtype=<U3"),
        ("binary", [0, np.nan, np.nan], r"`y` is nan in row 1 \(2 in all\)"),
        ("regression", [1.0, -np.inf], r"`y` is -inf in row 1 \(1 in all\)"),
        ("regression", [1.0, 1e300], r"`y` is 1e\+300 in row 1 .*too large for float32"),
        ("binary", [0, 1, 2], r"labels 0 to 1, .*\['0', '1'\]. Received: 2 in row 2"),
        ("multiclass", [0, -1], "labels 0 to 2, .*Received: -1 in row 1"),
        ("multiclass", [0, 0.5], "labels 0 to 2, .*Received: 0.5 in row 1"),
    ],
)
def test_targets_that_do_not_fit_the_task_are_refused_by_row(kind, y, message):
    made = task(kind, num_classes=3 if kind == "multiclass" else None)
    with pytest.raises(ValueError, match=message):
        made.check_targets(y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "ranking"}, "`kind` must be one of .* kind='ranking'"),
        ({"kind": "regression", "num_classes": 2}, "A regression has no classes"),
        ({"kind": "regression", "y": [2.0, 2.0]}, r"one class or value only \(2.0 in all 2 rows\)"),
        ({"kind": "regression", "y": []}, "`y` has no rows"),
        ({"kind": "binary", "y": [1, 1]}, r"one class or value only \(1 in all 2 rows\)"),
        ({"kind": "binary", "num_classes": 3}, '"binary" task has 2 classes'),
        ({"kind": "binary", "class_names": ["a"]}, r'"binary" task has 2 classes. .*\[\'a\'\]'),
        ({"kind": "binary", "class_names": ["a", "a"]}, "Class names must be unique"),
        ({"kind": "multiclass"}, "needs `class_names`, `num_classes` or `y`"),
        ({"kind": "multiclass", "num_classes": 1}, "at least 2 classes"),
        ({"kind": "multiclass", "y": []}, "at least 2 classes"),
        ({"kind": "multiclass", "y": [2001, 2003]}, r"each label from 0 up .*\[2001, 2003\]"),
        (
            {"kind": "multiclass", "class_names": "abc", "num_classes": 2},
            "3 class names but num_classes=2",
        ),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        task(**arguments)


def test_the_scores_of_a_binary_task_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    y, probability = random.integers(2, size=50), random.random(50)
    scores = task("binary").scores(y, probability[:, None])
    assert scores == pytest.approx(
        {
            "loss": sklearn_metrics.log_loss(y, probability),
            "auc": sklearn_metrics.roc_auc_score(y, probability),
            "accuracy": sklearn_metrics.accuracy_score(y, probability > 0.5),
        },
        abs=1e-12,
    )


def test_the_scores_of_a_multiclass_task_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    y, probabilities = random.integers(3, size=50), random.dirichlet(np.ones(3), size=50)
    scores = task("multiclass", num_classes=3).scores(y, probabilities)
    assert scores == pytest.approx(
        {
            "loss": sklearn_metrics.log_loss(y, probabilities),
            "auc": sklearn_metrics.roc_auc_score(y, probabilities, multi_class="ovr"),
            "accuracy": sklearn_metrics.accuracy_score(y, probabilities.argmax(axis=1)),
        },
        abs=1e-12,
    )


def test_the_scores_of_a_regression_are_those_of_scikit_learn_and_its_loss_has_no_unit():
    random = np.random.default_rng(0)
    y = 1000 * random.normal(size=50)
    predicted = y + random.normal(size=50)
    scores = Task("regression", spread=1000.0).scores(y, predicted[:, None])
    assert scores == pytest.approx(
        {
            "loss": sklearn_metrics.mean_squared_error(y, predicted) / 1e6,
            "rmse": sklearn_metrics.root_mean_squared_error(y, predicted),
            "mae": sklearn_metrics.mean_absolute_error(y, predicted),
            "r2": sklearn_metrics.r2_score(y, predicted),
        },
        abs=1e-12,
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_a_prediction_that_is_not_finite_has_no_score(kind, value):
    scores = task(kind).scores(np.array([0, 1]), np.array([[value], [0.5]]))
    assert np.isnan(list(scores.values())).all()


def test_the_two_probabilities_of_a_binary_prediction_sum_to_one():
    probabilities = task("binary").probabilities(np.array([[0.2], [0.7]]))
    np.testing.assert_allclose(probabilities, [[0.8, 0.2], [0.3, 0.7]])


def test_a_kind_stands_for_its_task_and_other_objects_are_refused():
    assert as_task("binary") == Task("binary", ("0", "1"))
    with pytest.raises(TypeError, match=r"`task` must be a Task or one of .* Received: 3"):
        as_task(3)


def test_targets_without_variety_are_refused():
    with pytest.raises(ValueError, match=r"one class or value only \(4 in all 2 rows\)"):
        check_variety(np.array([4, 4]))


class TestCheckPredictions:
    def test_forms_of_a_binary_task_come_out_alike(self):
        positive = np.array([0.1, 0.7, 1.0])
        forms = [positive, positive[:, None], np.stack([1 - positive, positive], axis=1)]
        for form in forms:
            checked = task("binary").check_predictions(form, 3)
            np.testing.assert_allclose(checked, positive[:, None])

    def test_scores_of_any_size_rank_rows(self):
        logits = np.array([-3.0, 5.0])
        checked = task("binary").check_predictions(logits, 2, by_rank=True)
        assert checked[:, 0].tolist() == [-3.0, 5.0]

    @pytest.mark.parametrize(
        ("kind", "predictions", "message"),
        [
            (
                "binary",
                [[0.5, 0.5, 0.0]] * 2,
                r"\(2,\) or \(2, 1\) or \(2, 2\). Received: \(2, 3\)",
            ),
            ("binary", [0.5], r"Received: \(1,\)"),
            ("binary", [0.5, 1.5], r"probabilities in 0-1. Received: \[1.5\] in row 1"),
            ("binary", [[0.5, 0.5], [0.5, 0.6]], "sum to 1.1 in row 1"),
            ("binary", [0.5, np.nan], "is not finite in row 1"),
            ("regression", [[1.0, 2.0]] * 2, r"shape \(2,\) or \(2, 1\)"),
            ("regression", [np.inf, 1.0], "is not finite in row 0"),
        ],
    )
    def test_what_is_wrong_is_named_with_its_row(self, kind, predictions, message):
        with pytest.raises(ValueError, match=message):
            task(kind).check_predictions(predictions, 2)


class TestInferTask:
    @pytest.mark.parametrize(
        ("y", "kind"),
        [
            ([0, 1, 1], "binary"),
            ([True, False], "binary"),
            ([0.0, 2.0, 1.0], "multiclass"),
            ([0.5, 1.0], "regression"),
            (range(100), "regression"),
        ],
    )
    def test_few_whole_numbers_are_labels(self, y, kind):
        assert infer_task(list(y)).kind == kind

    def test_labels_that_skip_one_must_be_explained(self):
        with pytest.raises(
            ValueError, match=r"not the labels 0, 1, ...: \[1.0, 3.0\]. Pass `task=`"
        ):
            infer_task([1, 3])

    def test_many_labels_must_be_explained(self):
        with pytest.raises(ValueError, match="whole numbers 0 to 89, each several times: pass"):
            infer_task(np.arange(270) % 90)


@pytest.mark.parametrize("name", task("binary").score_names)
def test_every_score_of_a_perfect_prediction_is_the_best_there_is(name):
    y = np.array([0, 1, 1, 0])
    perfect, worst = y[:, None].astype(float), 1.0 - y[:, None]
    best = task("binary").scores(y, perfect, names=[name])[name]
    bad = task("binary").scores(y, worst, names=[name])[name]
    if task("binary").score(name).direction == "max":
        assert best == 1 > bad
    else:
        assert best == pytest.approx(0, abs=1e-6)
        assert bad > 0.9


def test_an_unknown_score_lists_those_there_are():
    with pytest.raises(
        ValueError, match=r"`score` must be one of \['auc', .* Received: score='mcc'"
    ):
        task("binary").score("mcc")


def test_labels_alone_are_told_where_they_go():
    for labels in (np.array([0, 1, 1]), [0, 1, 1]):
        with pytest.raises(TypeError, match=r'given by name: `task\("binary", y=y\)`'):
            task(labels)
