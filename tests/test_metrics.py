"""Scores against scikit-learn, SciPy and hand-worked numbers."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from kfusion import metrics

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(2, size=60)
SMOOTH_SCORES = RANDOM.random(60)
SCORES = {"smooth": SMOOTH_SCORES, "ties": SMOOTH_SCORES.round(1), "constant": np.full(60, 0.3)}
CLASSES = RANDOM.integers(4, size=60)
PROBABILITIES = RANDOM.dirichlet(np.ones(4), size=60)
VALUES = RANDOM.normal(size=60)
PREDICTED = VALUES + RANDOM.normal(size=60)


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
def test_auc_is_the_share_of_pairs_ranked_right_as_in_the_mann_whitney_test(scores):
    positive, negative = scores[LABELS == 1], scores[LABELS == 0]
    statistic = stats.mannwhitneyu(positive, negative).statistic
    expected = statistic / (positive.size * negative.size)
    assert metrics.roc_auc(LABELS, scores) == pytest.approx(expected, abs=1e-12)


def test_auc_of_four_rows_worked_by_hand():
    # Positives 0.6 and 0.8 against negatives 0.4 and 0.6: three pairs right, one a tie.
    assert metrics.roc_auc(np.array([0, 1, 0, 1]), np.array([0.4, 0.6, 0.6, 0.8])) == 3.5 / 4


@pytest.mark.parametrize("decimals", [1, 12])
def test_macro_auc_is_that_of_scikit_learn(decimals):
    rounded = PROBABILITIES.round(decimals)
    areas = [sklearn_metrics.roc_auc_score(k == CLASSES, rounded[:, k]) for k in range(4)]
    assert metrics.macro_roc_auc(CLASSES, rounded) == pytest.approx(np.mean(areas), abs=1e-12)


def test_macro_auc_leaves_out_classes_without_rows():
    y = np.where(CLASSES == 3, 0, CLASSES)
    areas = [sklearn_metrics.roc_auc_score(y == k, PROBABILITIES[:, k]) for k in range(3)]
    assert metrics.macro_roc_auc(y, PROBABILITIES) == pytest.approx(np.mean(areas), abs=1e-12)


def test_auc_of_one_class_is_not_a_number():
    assert np.isnan(metrics.roc_auc(np.ones(3), np.arange(3)))


@pytest.mark.parametrize(
    ("ours", "theirs", "y", "predicted"),
    [
        (metrics.accuracy, sklearn_metrics.accuracy_score, CLASSES, PROBABILITIES.argmax(1)),
        (metrics.log_loss, sklearn_metrics.log_loss, CLASSES, PROBABILITIES),
        (
            metrics.root_mean_squared_error,
            sklearn_metrics.root_mean_squared_error,
            VALUES,
            PREDICTED,
        ),
        (metrics.mean_absolute_error, sklearn_metrics.mean_absolute_error, VALUES, PREDICTED),
        (metrics.r2, sklearn_metrics.r2_score, VALUES, PREDICTED),
    ],
    ids=["accuracy", "log_loss", "rmse", "mae", "r2"],
)
def test_scores_are_those_of_scikit_learn(ours, theirs, y, predicted):
    assert ours(y, predicted) == pytest.approx(theirs(y, predicted), abs=1e-12)


def test_a_wrong_certainty_costs_the_bound_that_keras_uses():
    certain = np.array([[1.0, 0.0]])
    assert metrics.log_loss(np.array([1]), certain) == pytest.approx(-np.log(1e-7))


def test_r2_of_a_constant_target_is_not_a_number():
    # The mean of these differs from each of them in the last bit.
    assert np.isnan(metrics.r2(np.full(3, 0.1), np.array([0.1, 0.2, 0.3])))
