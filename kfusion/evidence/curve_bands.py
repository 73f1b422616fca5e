"""Curves over the test rows of folds, with the band in which they vary with the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kfusion import metrics
from kfusion.evidence.bootstrap import UndefinedStatisticError, bootstrap

NUM_RESAMPLES = 400
# Above this number of rows a curve varies less than its line is wide.
MANY_ROWS = 20_000


class JudgedScores(NamedTuple):
    """What one model says of the test rows of one fold.

    Attributes:
        rows: `(test rows,)` ints, positions in the table.
        scores: `(test rows,)` floats, higher means more likely 1; or `(test rows, classes)`, of
            which each class is held against the rest and the curves are averaged.
    """

    rows: np.ndarray
    scores: np.ndarray


class CurveBand(NamedTuple):
    """A curve at fixed places, with its pointwise 95 % band.

    Attributes:
        x: `(points,)` floats, rising.
        y: `(points,)` floats, the mean of the folds' curves.
        low: `(points,)` floats, the band's lower end; NaN where rows are too few for any.
        high: `(points,)` floats, its upper end.
        area: Float, the mean of the folds' areas: the (macro) AUC, or the average precision.
    """

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    area: float


def roc_band(y: Any, folds: Sequence[JudgedScores], *, groups: Any = None) -> CurveBand:
    """Averages the folds' ROC curves at each rate of false alarms.

    Source: vertical averaging, Fawcett, 2006, Pattern Recognition Letters 27:861-874. The folds'
    scores are never ranked together, for they come from different models.

    Args:
        y: `(rows,)` of 0 and 1, or labels of classes, of the whole table.
        folds: `JudgedScores` of one model.
        groups: `(rows,)` values: whole groups are resampled for the band.

    Returns:
        `CurveBand` of true positive rates by false positive rate.

    Raises:
        ValueError: If no fold has rows of both classes.

    Example:
        >>> folds = [JudgedScores(np.arange(4), np.array([0.1, 0.4, 0.35, 0.8]))]
        >>> band = roc_band([0, 0, 1, 1], folds)
        >>> band.area, band.y[[0, 50, 100]].tolist()
        (0.75, [0.5, 1.0, 1.0])
    """
    grid = np.linspace(0, 1, 101)

    def trace(counts: metrics.ThresholdCounts) -> np.ndarray:
        true, false, _ = counts
        if not (true[-1] and false[-1]):
            return np.full(grid.shape, np.nan)
        return np.interp(grid, false / false[-1], true / true[-1])

    return _band(y, folds, groups, grid, trace, metrics.roc_auc)


def precision_recall_band(
    y: Any, folds: Sequence[JudgedScores], *, groups: Any = None
) -> CurveBand:
    """Averages the folds' precision at each recall, as average precision sums it: in steps.

    Args:
        y: As in `roc_band`.
        folds: As in `roc_band`.
        groups: As in `roc_band`.

    Returns:
        `CurveBand` of precision by recall, from 0.01 to 1.

    Raises:
        ValueError: If no fold has positive rows.
    """
    grid = np.linspace(0.01, 1, 100)

    def trace(counts: metrics.ThresholdCounts) -> np.ndarray:
        true, false, _ = counts
        if not true[-1]:
            return np.full(grid.shape, np.nan)
        # Rounding must not lose the threshold at which a recall is reached.
        first = np.searchsorted(true / true[-1], grid - 1e-9)
        return true[first] / (true[first] + false[first])

    return _band(y, folds, groups, grid, trace, metrics.average_precision)


def _band(
    y: Any,
    folds: Sequence[JudgedScores],
    groups: Any,
    grid: np.ndarray,
    trace: Callable[[metrics.ThresholdCounts], np.ndarray],
    area: Callable[..., float],
) -> CurveBand:
    # Rows that no fold judges have no part in it.
    judged = np.unique(np.concatenate([fold.rows for fold in folds]))
    y = np.asarray(y)[judged]
    groups = None if groups is None else np.asarray(groups)[judged]
    rising = [
        _in_rising_order(y, np.searchsorted(judged, fold.rows), fold.scores) for fold in folds
    ]

    def statistic(weights: np.ndarray) -> np.ndarray:
        of_folds = []
        for classes in rising:
            curves = []
            for rows, hits, scores in classes:
                drawn = weights[rows]
                kept = drawn > 0
                counts = metrics.threshold_counts(hits[kept], scores[kept], drawn[kept])
                curves.append(trace(counts))
            of_folds.append(_mean_of_defined(curves, grid))
        return _mean_of_defined(of_folds, grid)

    center = statistic(np.ones(len(y)))
    if not np.isfinite(center).all():
        raise ValueError("A curve needs a fold with rows of both classes. There is none.")
    low, high = _resample(statistic, len(y), groups, grid)
    return CurveBand(grid, center, low, high, _mean_area(rising, area))


def _resample(statistic, num_rows: int, groups: Any, grid: np.ndarray) -> tuple:
    """The ends of the band; NaN of too few rows, or of so many that it would be a line."""
    nothing = np.full(grid.shape, np.nan)
    num_units = num_rows if groups is None else len(np.unique(groups))
    if num_rows > MANY_ROWS or num_units < 2:
        return nothing, nothing
    try:
        resampled = bootstrap(statistic, num_rows, groups=groups, num_resamples=NUM_RESAMPLES)
    except UndefinedStatisticError:
        return nothing, nothing
    return resampled.interval(0.95)


def _mean_area(folds: Sequence[list[tuple]], area: Callable[..., float]) -> float:
    """The mean over folds of the mean over their classes, of those that have one."""
    areas = []
    for classes in folds:
        of_classes = [area(hits, scores) for _, hits, scores in classes if 0 < hits.mean() < 1]
        areas += [np.mean(of_classes)] if of_classes else []
    return float(np.mean(areas))


def _in_rising_order(y: np.ndarray, rows: Any, scores: Any) -> list[tuple]:
    """Rows, hits and scores of each class against the rest, in the order of the scores."""
    rows, scores = np.asarray(rows), np.asarray(scores)
    columns = [(1, scores)] if scores.ndim == 1 else list(enumerate(scores.T))
    parts = []
    for label, column in columns:
        order = np.argsort(column, kind="stable")
        hits = (y[rows[order]] == label).astype(np.int32)
        parts.append((rows[order], hits, column[order]))
    return parts


def _mean_of_defined(curves: Sequence[np.ndarray], grid: np.ndarray) -> np.ndarray:
    defined = [curve for curve in curves if np.isfinite(curve).all()]
    return np.mean(defined, axis=0) if defined else np.full(grid.shape, np.nan)
