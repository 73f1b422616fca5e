"""Curves over folds are scikit-learn's, averaged; bands hold the curve of all rows."""

import numpy as np
import pytest
from sklearn import metrics

from kfusion.evidence.curve_bands import JudgedScores, precision_recall_band, roc_band
from kfusion.reports.band_plots import plot_predicted, plot_roc_bands

RANDOM = np.random.default_rng(0)
Y = RANDOM.integers(2, size=300)
SCORES = Y + RANDOM.normal(size=300)
HALVES = [JudgedScores(rows, SCORES[rows]) for rows in np.split(np.arange(300), 2)]


def of_scikit_learn(rows):
    rates, found, _ = metrics.roc_curve(Y[rows], SCORES[rows], drop_intermediate=False)
    return np.interp(np.linspace(0, 1, 101), rates, found)


def test_a_roc_curve_over_folds_is_the_mean_of_theirs():
    band = roc_band(Y, HALVES)
    expected = np.mean([of_scikit_learn(fold.rows) for fold in HALVES], axis=0)
    np.testing.assert_allclose(band.y, expected)
    areas = [metrics.roc_auc_score(Y[fold.rows], fold.scores) for fold in HALVES]
    assert band.area == pytest.approx(np.mean(areas))
    assert (band.low <= band.y + 1e-9).mean() > 0.95
    assert (band.y <= band.high + 1e-9).mean() > 0.95


def test_precision_at_each_recall_sums_to_average_precision():
    band = precision_recall_band(Y, [JudgedScores(np.arange(300), SCORES)])
    expected = metrics.average_precision_score(Y, SCORES)
    assert band.area == pytest.approx(expected)
    assert band.y.mean() == pytest.approx(expected, abs=0.01)
    assert band.y[-1] == pytest.approx(Y.mean(), abs=0.05)


def test_classes_are_averaged_and_bands_by_group_are_wider():
    y = RANDOM.integers(3, size=200)
    scores = np.eye(3)[y] + RANDOM.normal(size=(200, 3))
    whole = roc_band(y, [JudgedScores(np.arange(200), scores)])
    single = [
        roc_band((y == label).astype(int), [JudgedScores(np.arange(200), scores[:, label])])
        for label in range(3)
    ]
    np.testing.assert_allclose(whole.y, np.mean([each.y for each in single], axis=0))
    assert whole.area == pytest.approx(
        metrics.roc_auc_score(np.eye(3)[y], scores, multi_class="ovr")
    )
    copies = np.repeat(np.arange(50), 4)
    rows = [JudgedScores(np.arange(200), SCORES[copies])]
    alone, together = (roc_band(Y[copies], rows, groups=g) for g in (None, copies))
    assert (together.high - together.low).mean() > 1.4 * (alone.high - alone.low).mean()


def test_one_class_has_no_curve():
    with pytest.raises(ValueError, match="rows of both classes"):
        roc_band(np.ones(4, int), [JudgedScores(np.arange(4), np.arange(4.0))])


def test_many_curves_have_no_bands_that_hide_them():
    band = roc_band(Y, HALVES)
    few, many = (plot_roc_bands({str(i): band for i in range(count)}) for count in (2, 5))
    assert len(few.axes[0].collections) == 2
    assert not many.axes[0].collections


def test_equal_values_lie_on_the_line():
    figure = plot_predicted([1.0, 2.0, 3.0], [1.0, 2.5, 3.0])
    (line,) = figure.axes[0].lines
    np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())
    points = figure.axes[0].collections[0].get_offsets()
    np.testing.assert_array_equal(points, [[1, 1], [2.5, 2], [3, 3]])
