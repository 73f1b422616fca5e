"""Curves and tables against scikit-learn, SciPy and hand-worked numbers."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from kfusion import metrics
from kfusion.evidence.curves import confusion, precision_recall_curve, reliability_curve, roc_curve

SEEDS = range(12)
WEIGHTINGS = ["none", "counts", "fractions"]
Y = np.array([0, 1, 0, 1])
SCORES = np.array([0.1, 0.4, 0.4, 0.8])
OF_SCORES = pytest.mark.parametrize("trace", [roc_curve, precision_recall_curve, reliability_curve])


def draw_case(seed, weighting, decimals=1):
    """Few rows, both classes among those that count: labels, scores in 0-1, weights."""
    random = np.random.default_rng(seed)
    rows = int(random.integers(4, 40))
    y = np.append([0, 1], random.integers(2, size=rows - 2))
    scores = random.random(rows).round(decimals)
    if weighting == "none":
        return y, scores, None
    weights = random.poisson(1, rows).astype(float)
    if weighting == "fractions":
        weights *= random.random(rows)
    weights[:2] += 1
    return y, scores, weights


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our, their, atol=1e-12)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("decimals", [1, 12])
def test_roc_curve_is_that_of_scikit_learn(decimals, weighting):
    for seed in SEEDS:
        y, scores, weights = draw_case(seed, weighting, decimals)
        theirs = sklearn_metrics.roc_curve(
            y, scores, sample_weight=weights, drop_intermediate=False
        )
        assert_same(roc_curve(y, scores, weights), theirs)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("decimals", [1, 12])
def test_precision_recall_curve_is_that_of_scikit_learn(decimals, weighting):
    for seed in SEEDS:
        y, scores, weights = draw_case(seed, weighting, decimals)
        theirs = sklearn_metrics.precision_recall_curve(y, scores, sample_weight=weights)
        assert_same(precision_recall_curve(y, scores, weights), theirs)


def test_areas_under_the_curves_are_the_scores():
    for seed in SEEDS:
        y, scores, weights = draw_case(seed, "fractions")
        roc = roc_curve(y, scores, weights)
        area = sklearn_metrics.auc(roc.false_positive_rates, roc.true_positive_rates)
        assert metrics.roc_auc(y, scores, weights) == pytest.approx(area, abs=1e-12)
        steps = precision_recall_curve(y, scores, weights)
        area = -np.diff(steps.recall) @ steps.precision[:-1]
        assert metrics.average_precision(y, scores, weights) == pytest.approx(area, abs=1e-12)


def test_precision_needs_no_negatives():
    assert precision_recall_curve([1, 1], [0.2, 0.7]).precision.tolist() == [1, 1, 1]


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("num_bins", [1, 4, 10])
@pytest.mark.parametrize("decimals", [1, 12])
def test_reliability_is_that_of_scikit_learn(decimals, num_bins, strategy):
    for seed in SEEDS:
        y, scores, _ = draw_case(seed, "none", decimals)
        curve = reliability_curve(y, scores, num_bins=num_bins, strategy=strategy)
        theirs = calibration_curve(y, scores, n_bins=num_bins, strategy=strategy)
        assert_same([curve.observed, curve.predicted], theirs)
        assert curve.counts.sum() == len(y)


def test_reliability_intervals_are_those_of_wilson_in_scipy():
    curve = reliability_curve([0] * 9 + [1] * 3 + [1] * 4, [0.3] * 12 + [1] * 4)
    for point, (hits, rows) in enumerate([(3, 12), (4, 4)]):
        expected = stats.binomtest(hits, rows).proportion_ci(method="wilson")
        assert curve.low[point] == pytest.approx(expected.low, abs=1e-12)
        assert curve.high[point] == pytest.approx(expected.high, abs=1e-12)
        assert curve.counts[point] == rows


def test_a_reliability_bin_includes_its_upper_edge():
    assert reliability_curve(Y, [0, 0.5, 0.51, 1], num_bins=2).counts.tolist() == [2, 2]


@OF_SCORES
def test_weights_are_numbers_of_rows(trace):
    for seed in SEEDS:
        y, scores, counts = draw_case(seed, "counts")
        times = counts.astype(int)
        repeated = trace(np.repeat(y, times), np.repeat(scores, times))
        assert_same(trace(y, scores, weights=counts), repeated)


def test_weights_are_numbers_of_rows_in_quantile_bins():
    for seed in SEEDS:
        y, scores, counts = draw_case(seed, "counts", decimals=12)
        times = counts.astype(int)
        repeated = reliability_curve(
            np.repeat(y, times), np.repeat(scores, times), num_bins=4, strategy="quantile"
        )
        ours = reliability_curve(y, scores, num_bins=4, strategy="quantile", weights=counts)
        assert_same(ours, repeated)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_confusion_is_that_of_scikit_learn(weighting):
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        y, predicted = random.integers(5, size=(2, 30))
        weights = draw_case(seed, weighting)[2]
        rows = slice(None) if weights is None else slice(min(30, len(weights)))
        weights = None if weights is None else weights[rows]
        theirs = sklearn_metrics.confusion_matrix(
            y[rows], predicted[rows], labels=range(6), sample_weight=weights
        )
        ours = confusion(y[rows], predicted[rows], 6, weights)
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
        assert ours.dtype.kind == ("i" if weights is None else "f")


def test_columns_lists_and_true_or_false_are_taken_as_they_are_meant():
    expected = roc_curve(Y, SCORES)
    assert_same(roc_curve(Y[:, None], SCORES[:, None]), expected)
    assert_same(roc_curve(Y.astype(bool).tolist(), SCORES.tolist(), [1, 1, 1, 1]), expected)


@OF_SCORES
@pytest.mark.parametrize(
    ("y", "scores", "weights", "message"),
    [
        (Y, SCORES[:3], None, "same number of rows: y has 4, .* has 3"),
        (Y, [0.1, 0.2, np.nan, 0.3], None, "finite. Received: nan in row 2"),
        (Y, [0.1, np.inf, np.nan, 0.3], None, r"Received: inf in row 1 \(2 in all\)"),
        (Y, np.ones((4, 2)), None, r"shape \(rows,\). Received: shape=\(4, 2\)"),
        (Y, ["a", "b", "c", "d"], None, "must be numbers"),
        ([0, 1, 2, 1], SCORES, None, "labels 0 to 1.* Received: 2 in row 2"),
        ([0, 1, np.nan, 1], SCORES, None, "`y` is nan in row 2"),
        ([], [], None, "no rows"),
        (Y, SCORES, [1, 1], "y has 4, weights has 2"),
        (Y, SCORES, [1, -1, 1, 1], "0 or more. Received: -1.0 in row 1"),
        (Y, SCORES, [1, np.nan, 1, 1], "`weights` must be finite. Received: nan in row 1"),
        (Y, SCORES, [0, 0, 0, 0], "no row is left"),
    ],
)
def test_bad_rows_are_named(trace, y, scores, weights, message):
    with pytest.raises(ValueError, match=message):
        trace(y, scores, weights=weights)


@pytest.mark.parametrize("weights", [None, [1, 0, 1, 0]])
def test_curves_of_one_class_are_refused(weights):
    y = np.zeros(4) if weights is None else Y
    with pytest.raises(ValueError, match="rows of both classes. `y` has none of 1"):
        roc_curve(y, SCORES, weights)
    with pytest.raises(ValueError, match="needs positive rows"):
        precision_recall_curve(y, SCORES, weights)
    with pytest.raises(ValueError, match="none of 0"):
        roc_curve(np.ones(4), SCORES)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"probabilities_of_positive": [0.1, 0.2, 1.5, 0.3]}, "in 0-1. Received: 1.5 in row 2"),
        ({"strategy": "even"}, "one of .*quantile.*'even'"),
        ({"num_bins": 0}, "num_bins=0"),
        ({"strategy": "quantile", "weights": [1, 2, 0.5, 1]}, "whole numbers"),
    ],
)
def test_what_reliability_cannot_bin_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        reliability_curve(Y, **{"probabilities_of_positive": SCORES, **given})


@pytest.mark.parametrize(
    ("y", "predicted", "message"),
    [
        ([0, 3], [0, 1], "`y` must hold the labels 0 to 2.* 3 in row 1"),
        ([0, 1], [0, -1], "`predicted` must hold the labels 0 to 2.* -1 in row 1"),
        ([0, 1], [0.5, 1], "0.5 in row 0"),
        ([0, 1], [0], "y has 2, predicted has 1"),
        ([0, 1], np.eye(2), "argmax"),
    ],
)
def test_confusion_names_labels_that_are_no_classes(y, predicted, message):
    with pytest.raises(ValueError, match=message):
        confusion(y, predicted, 3)
