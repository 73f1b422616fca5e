"""A score over the test rows of folds, or a difference of scores, with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from kfusion.evidence.bootstrap import Bootstrap, UndefinedStatisticError, bootstrap
from kfusion.evidence.delong import area_interval, auc_influence, combine_influences, influence_test
from kfusion.scores import Score
from kfusion.tasks import Task

NUM_RESAMPLES = 2000
# Above this number of predictions a bootstrap beside DeLong's variance costs much and tells the
# same.
MANY_PREDICTIONS = 100_000
# Below these numbers of groups in a fold, of all and of a class, variances by group are too small:
# benchmarks/README.md.
FEW_GROUPS, FEW_GROUPS_OF_CLASS = 4, 7
DELONG, BOOTSTRAP, FOLDS = "DeLong", "paired bootstrap", "t over folds"
EXACT = "Clopper-Pearson"


class JudgedRows(NamedTuple):
    """What models predict for the test rows of one fold.

    Attributes:
        rows: `(test rows,)` ints, positions in the table.
        predictions: `(models, test rows, units)` floats.
    """

    rows: np.ndarray
    predictions: np.ndarray


class Estimate(NamedTuple):
    """A score or a difference, with its interval.

    Attributes:
        by_fold: `(folds, models)` scores.
        value: Float, the score of one model, or that of the first less that of the second.
        low: Float, lower end of the interval; NaN if a class has too few rows for any.
        high: Float, upper end.
        standard_error: Float; NaN where the rows tell none.
        method: "DeLong", "paired bootstrap", "t over folds" or "Clopper-Pearson", whence these
            are.
        pvalues: Two-sided p-values of no difference by method: "delong", "bootstrap", "folds_t",
            "exact".
    """

    by_fold: np.ndarray
    value: float
    low: float
    high: float
    standard_error: float
    method: str
    pvalues: dict[str, float]


def estimate(
    y: np.ndarray,
    folds: Sequence[JudgedRows],
    *,
    task: Task,
    score: Score,
    groups: np.ndarray | None = None,
    confidence: float = 0.95,
    num_resamples: int | None = None,
    seed: int = 0,
    verbose: int | bool = 0,
) -> Estimate:
    """Estimates the score of one model, or the difference of two, from test rows of folds.

    It is the mean over the folds, each judged by itself: scores of different models are never
    ranked together. For the AUC its variance comes from the influence of each row (LeDell,
    Petersen & van der Laan, 2015, Electronic Journal of Statistics 9:1583-1607), which for one
    fold is DeLong's; for other scores, or a class of one row, from a bootstrap of rows.
    Where a fold judges fewer than 4 groups, as with a fold per site, the folds themselves are
    the sample and Student's t compares their scores; where it has fewer than 7 groups of a class,
    groups are resampled.
    An AUC of 1 or 0 in every fold leaves no variance to go by, however it is estimated: its
    interval is the exact one of `area_interval`, and a difference of two such reaches as far as
    the ends of both.

    Args:
        y: `(rows,)` labels or values of the whole table.
        folds: Predictions of one model or two, fold by fold.
        task: `Task`.
        score: `Score`.
        groups: `(rows,)` values: whole groups are resampled.
        confidence: Float in (0, 1).
        num_resamples: Int, of the bootstrap; None for 2,000, or none beside DeLong's variance of
            more than 100,000 rows; 0 for as few as possible.
        seed: Int.
        verbose: 1 shows the bootstrap's progress.

    Returns:
        `Estimate`.

    Raises:
        ValueError: If the score is undefined in a fold.
    """
    check_defined(y, [fold.rows for fold in folds], task=task, score=score)
    by_fold = np.array(
        [
            [score.function(y[fold.rows], task.answers(part), None) for part in fold.predictions]
            for fold in folds
        ]
    )
    signs = np.array([1.0, -1.0][: by_fold.shape[1]])
    value = float(by_fold.mean(axis=0) @ signs)
    pvalues: dict[str, float] = {}
    judged = np.unique(np.concatenate([fold.rows for fold in folds]))
    judged_groups = None if groups is None else groups[judged]
    if score.name == "auc" and np.isin(by_fold, (0, 1)).all() and not np.ptp(by_fold, axis=0).any():
        rarest = _rarest_class(y[judged], judged_groups)
        return _of_separated(by_fold, value, rarest, confidence)
    needed = 2 if len(folds) == 1 else FEW_GROUPS
    if groups is not None and min(len(np.unique(groups[f.rows])) for f in folds) < needed:
        low, high, error, pvalues["folds_t"] = _t_over_folds(by_fold @ signs, confidence)
        return Estimate(by_fold, value, low, high, error, FOLDS, pvalues)
    influence = _auc_influence(y, folds, task, groups) if score.name == "auc" else None
    tested = None
    if influence is not None:
        contrast = (signs @ influence)[judged]
        tested = influence_test(value, contrast, groups=judged_groups, confidence=confidence)
        if tested.standard_error < 1e-12 and value:
            # As of two models of which each is right where the other is wrong in every fold.
            influence = tested = None
    if num_resamples is None:
        is_large = len(y) * task.units > MANY_PREDICTIONS
        num_resamples = 0 if influence is not None and is_large else NUM_RESAMPLES
    if influence is None or num_resamples:
        resampled = _bootstrap_or_none(
            _statistic(y, folds, task, score, signs),
            len(y),
            groups=groups,
            num_resamples=num_resamples or NUM_RESAMPLES,
            seed=seed,
            verbose=verbose,
        )
        pvalues["bootstrap"] = float("nan") if resampled is None else float(resampled.pvalue())
    if influence is None or tested is None:
        method = BOOTSTRAP
        if resampled is None:
            low = high = error = float("nan")
        else:
            (low, high), error = resampled.interval(confidence), resampled.standard_error
    else:
        low, high, pvalues["delong"] = tested.low, tested.high, tested.pvalue
        error, method = tested.standard_error, DELONG
        if len(signs) == 1:
            low, high = area_interval(
                value,
                influence[0, judged],
                smaller_class=_rarest_class(y[judged], judged_groups),
                groups=judged_groups,
                confidence=confidence,
            )
    return Estimate(by_fold, value, float(low), float(high), float(error), method, pvalues)


def _of_separated(by_fold: np.ndarray, value: float, rarest: int, confidence: float) -> Estimate:
    """Of AUCs that are all 1 or 0.

    With true AUCs of `a`, all pairs of a positive and a negative row, or group, are in order with
    a chance of at most `a ** rarest`: so many of these pairs share no row. What two models might
    both lack is added up, so that neither half of `1 - confidence` is spent twice.
    """
    ends = [
        area_interval(float(area), np.empty(0), smaller_class=rarest, confidence=confidence)
        for area in by_fold[0]
    ]
    (low, high), *other = ends
    pvalues = {}
    if other:
        low, high = low - other[0][1], high - other[0][0]
        # Of equal AUCs, one is at most a half or the other at least that.
        pvalues["exact"] = min(1.0, 2 * 0.5**rarest) if value else 1.0
    return Estimate(by_fold, value, low, high, math.nan, EXACT, pvalues)


def check_defined(y: np.ndarray, rows: Sequence[np.ndarray], *, task: Task, score: Score) -> None:
    """Raises `ValueError` if a score is undefined for the rows of a fold, whatever is predicted."""
    for number, judged in enumerate(rows):
        anything = task.answers(np.full((len(judged), task.units), 1 / max(task.units, 2)))
        if np.isnan(score.function(y[judged], anything, None)):
            raise ValueError(
                f"The score {score.name!r} is undefined for the test rows of fold {number}: they "
                "hold one class or value only."
            )


def _bootstrap_or_none(statistic, num_rows: int, **settings: Any) -> Bootstrap | None:
    """A bootstrap, or None if a class has too few rows or groups to be drawn in most resamples."""
    try:
        return bootstrap(statistic, num_rows, **settings)
    except UndefinedStatisticError:
        return None


def _statistic(y, folds, task: Task, score: Score, signs) -> Callable[[np.ndarray], float]:
    """The score or difference, mean over the folds, as a function of the weights of all rows.

    A fold of which a class was not drawn is left out of the mean.
    """
    prepared = []
    for fold in folds:
        models = []
        for sign, predictions in zip(signs, fold.predictions, strict=True):
            # Rows in the order of their predictions are ranked again in next to no time.
            order = np.argsort(predictions[:, 0], kind="stable")
            rows = fold.rows[order]
            answers = task.answers(predictions[order])
            if score.name in ("auc", "weighted_auc") and len(rows) < 2**16:
                # Only the order counts, and NumPy sorts 16 bits in linear time.
                answers = stats.rankdata(answers, method="dense", axis=0).astype(np.uint16)
            models.append((sign, y[rows], answers, rows))
        prepared.append(models)

    def statistic(weights: np.ndarray) -> float:
        by_fold = [
            sum(
                sign * score.function(labels, answers, weights[rows])
                for sign, labels, answers, rows in models
            )
            for models in prepared
        ]
        defined = [value for value in by_fold if np.isfinite(value)]
        return float(np.mean(defined)) if defined else float("nan")

    return statistic


def _t_over_folds(values: np.ndarray, confidence: float) -> tuple[float, float, float, float]:
    """Interval, standard error and p-value of the mean of independent folds; NaN for one fold."""
    count = len(values)
    if count < 2:
        return (float("nan"),) * 4
    error = float(values.std(ddof=1)) / math.sqrt(count)
    margin = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * error
    mean = float(values.mean())
    pvalue = float(2 * stats.t.sf(abs(mean) / error, count - 1)) if error else float(mean == 0)
    return mean - margin, mean + margin, error, pvalue


def _auc_influence(y, folds: Sequence[JudgedRows], task: Task, groups) -> np.ndarray | None:
    """`(models, rows)` influence on the AUCs; None if a class has too few rows for a variance.

    The influences of the groups of a fold sum to 0, so that their squares lack `(m - 1) / m` of
    its `m` groups; that is made up here, and taken back where the test does it over all groups.
    """
    parts = []
    total = 0 if groups is None else len(np.unique(groups[np.concatenate([f.rows for f in folds])]))
    for fold in folds:
        labels = y[fold.rows]
        classes = np.array([1]) if task.kind == "binary" else np.unique(labels)
        counts = np.array([np.count_nonzero(labels == label) for label in classes])
        if counts.min() < 2 or (len(labels) - counts).min() < 2:
            return None
        if groups is not None and len(folds) > 1:
            of_class = [_rarest_class(labels == label, groups[fold.rows]) for label in classes]
            if min(of_class) < FEW_GROUPS_OF_CLASS:
                return None
        answers = np.stack([task.answers(part) for part in fold.predictions])
        by_class = [auc_influence(labels == label, answers[:, :, label])[1] for label in classes]
        scale = 1.0
        if groups is not None:
            of_fold = len(np.unique(groups[fold.rows]))
            scale = math.sqrt(of_fold / (of_fold - 1) * (total - 1) / total)
        parts.append((fold.rows, scale * np.mean(by_class, axis=0)))
    return combine_influences(parts, len(y))


def _rarest_class(y, groups) -> int:
    """How many rows, or groups, the rarest class has."""
    units = np.arange(len(y)) if groups is None else groups
    return min(len(np.unique(units[y == label])) for label in np.unique(y))
