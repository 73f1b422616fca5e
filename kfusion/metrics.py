"""Exact scores of predictions over whole sets of rows, weighted if asked.

Every score is `score(y, predictions, weights=None) -> float` and made to be called thousands of
times: **only lengths are checked** (`ValueError`), and columns, `(rows, 1)`, count as `(rows,)`.
Finite predictions, labels in range and weights of 0 or more are the caller's to see to. NaN, never
an error, says that a score is not defined for these rows.

`weights`, `(rows,)` floats, are how often each row counts: draws of a bootstrap, or sample weights.
None counts each row once. A row of weight 0 is absent, and so is a class with no other rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class ThresholdCounts(NamedTuple):
    """What is counted as positive at or above each threshold, from none of the rows to all.

    Attributes:
        true_positives: `(thresholds + 1,)` floats, weight of the positive rows.
        false_positives: `(thresholds + 1,)` floats, weight of the negative rows.
        thresholds: `(thresholds + 1,)` floats: infinity, then the distinct scores, falling.
    """

    true_positives: np.ndarray
    false_positives: np.ndarray
    thresholds: np.ndarray


class BinTotals(NamedTuple):
    """Sums over the rows of each bin of predicted probabilities, empty bins included.

    Attributes:
        weights: `(bins,)` floats, weight of the rows.
        hits: `(bins,)` floats, weight of those that came true.
        probabilities: `(bins,)` floats, their predicted probabilities, times weight.
    """

    weights: np.ndarray
    hits: np.ndarray
    probabilities: np.ndarray


def roc_auc(y: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Area under the ROC curve: the chance that a positive row scores above a negative one.

    Exact over all rows, ties counted half (`keras.metrics.AUC` bins the scores). NaN if only
    one class is there, since no pair can be compared. Only the order of the scores matters. Most
    of the time goes into sorting them: rows that come sorted by rising score, or whose scores are
    uint16 ranks, save nearly all of it.

    Source: Hanley & McNeil, 1982, Radiology 143:29-36.

    Args:
        y: `(rows,)` of 0 and 1.
        scores: `(rows,)` floats, higher means more likely 1.
        weights: `(rows,)` floats, or None.

    Example:
        >>> roc_auc(np.array([0, 1, 0, 1]), np.array([0.4, 0.6, 0.6, 0.8]))
        0.875
    """
    return _area_under_roc(*present_rows(y, scores, weights))


def macro_roc_auc(
    y: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Mean over the classes of the one-against-rest `roc_auc`; classes without rows are left out.

    Every class counts alike, however rare: the mean of `weighted_roc_auc` without its weights.

    Args:
        y: `(rows,)` ints from 0 to `classes - 1`.
        probabilities: `(rows, classes)` floats.
        weights: `(rows,)` floats, or None.
    """
    areas, _ = _areas_against_rest(y, probabilities, weights)
    return float(np.mean(areas)) if areas.size else float("nan")


def weighted_roc_auc(
    y: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Mean over the classes of the one-against-rest `roc_auc`, weighted by their share of rows.

    Source: Provost & Domingos, 2000, as described in Fawcett, 2006, Pattern Recognition Letters
    27:861-874.

    Args:
        y: `(rows,)` ints from 0 to `classes - 1`.
        probabilities: `(rows, classes)` floats.
        weights: `(rows,)` floats, or None.
    """
    return _mean(*_areas_against_rest(y, probabilities, weights))


def average_precision(
    y: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Mean of the precision at each threshold, weighted by the recall that it adds.

    The area under the precision-recall curve drawn in steps, as scikit-learn's: straight lines
    between its points would promise too much. To be read beside the share of positives, which
    random scores reach. NaN if no row is positive.

    Args:
        y: `(rows,)` of 0 and 1.
        scores: `(rows,)` floats, higher means more likely 1.
        weights: `(rows,)` floats, or None.

    Example:
        >>> round(average_precision(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])), 4)
        0.8333
    """
    true, false, _ = threshold_counts(*present_rows(y, scores, weights))
    if not true[-1]:
        return float("nan")
    precision = true[1:] / (true[1:] + false[1:])
    return float(np.sum(np.diff(true) * precision) / true[-1])


def sensitivity_at_specificity(
    y: np.ndarray,
    scores: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    specificity: float = 0.9,
) -> float:
    """Largest share of positives found by a threshold that clears enough of the negatives.

    Only thresholds that can be set count, those at a score and one above all scores: no
    interpolation between them. NaN if one class only is there.

    Args:
        y: `(rows,)` of 0 and 1.
        scores: `(rows,)` floats, higher means more likely 1.
        weights: `(rows,)` floats, or None.
        specificity: Float in [0, 1], the least share of negatives that must score below the
            threshold.

    Example:
        >>> scores = np.array([0.1, 0.2, 0.7, 0.3, 0.8, 0.9])
        >>> sensitivity_at_specificity(np.array([0, 0, 0, 1, 1, 1]), scores, specificity=1)
        0.6666666666666666
    """
    true, false, _ = threshold_counts(*present_rows(y, scores, weights))
    if not (true[-1] and false[-1]):
        return float("nan")
    # Sums of weights are rounded: a specificity met exactly may seem missed by a last bit.
    allowed = (false[-1] - false) / false[-1] >= specificity - 1e-12
    return float(true[allowed].max() / true[-1])


def accuracy(y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Share of rows whose predicted class, `(rows,)` ints, is the true one."""
    y, predicted, weights = present_rows(y, predicted, weights)
    return _mean(y == predicted, weights)


def balanced_accuracy(
    y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Mean over the classes of the share of their rows that is predicted right.

    Classes without rows are left out. Always guessing the commonest of `k` classes scores `1 / k`.

    Args:
        y: `(rows,)` ints from 0 to `classes - 1`.
        predicted: `(rows,)` ints, the predicted classes.
        weights: `(rows,)` floats, or None.
    """
    y, predicted, weights = present_rows(y, predicted, weights)
    true = _class_totals(y, weights)
    right = _class_totals(y, weights * (y == predicted))
    there = true > 0
    return float(np.mean(right[there] / true[there])) if there.any() else float("nan")


def f1(
    y: np.ndarray,
    predicted: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    num_classes: int,
) -> float:
    """Harmonic mean of precision and recall: of class 1 among two, else the mean over classes.

    Of more than two classes, those that are neither true nor predicted in any row are left out.
    NaN if that leaves none; of two classes, if no row is or is predicted as 1.

    Args:
        y: `(rows,)` ints from 0 to `num_classes - 1`.
        predicted: `(rows,)` ints, the predicted classes.
        weights: `(rows,)` floats, or None.
        num_classes: Int. Asked for because rows alone do not tell: a sample of three classes may
            hold two.

    Example:
        >>> f1(np.array([0, 1, 1, 1]), np.array([1, 1, 1, 0]), num_classes=2)
        0.6666666666666666
    """
    y, predicted, weights = present_rows(y, predicted, weights)
    right = _class_totals(y, weights * (y == predicted), num_classes)
    total = _class_totals(y, weights, num_classes) + _class_totals(predicted, weights, num_classes)
    if num_classes == 2:
        right, total = right[1:], total[1:]
    there = total > 0
    return float(np.mean(2 * right[there] / total[there])) if there.any() else float("nan")


def log_loss(y: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean negative log-probability of the true class, probabilities bounded at 1e-7 like Keras.

    Args:
        y: `(rows,)` ints from 0 to `classes - 1`.
        probabilities: `(rows, classes)` floats.
        weights: `(rows,)` floats, or None.
    """
    y, probabilities, weights = present_rows(y, probabilities, weights)
    true = np.take_along_axis(probabilities, y.astype(np.int64)[:, None], axis=1)[:, 0]
    return _mean(-np.log(np.clip(true, 1e-7, 1 - 1e-7)), weights)


def brier(y: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean squared distance between the predicted probabilities and what came true.

    For two classes half of it, the squared error of the positive class alone, in 0-1; for more the
    whole sum over classes, in 0-2. So does scikit-learn.

    Source: Brier, 1950, Monthly Weather Review 78:1-3.

    Args:
        y: `(rows,)` ints from 0 to `classes - 1`.
        probabilities: `(rows, classes)` floats.
        weights: `(rows,)` floats, or None.

    Example:
        >>> probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.2, 0.8], [0.7, 0.3]])
        >>> round(brier(np.array([0, 1, 1, 0]), probabilities), 4)
        0.0375
    """
    y, probabilities, weights = present_rows(y, probabilities, weights)
    num_classes = probabilities.shape[1]
    misses = probabilities - (y[:, None] == np.arange(num_classes))
    total = _mean(np.einsum("ij,ij->i", misses, misses), weights)
    return total / 2 if num_classes == 2 else total


def expected_calibration_error(
    y: np.ndarray,
    probabilities: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    num_bins: int = 15,
) -> float:
    """Mean distance, over bins of equal width, between predicted probability and observed rate.

    For two classes the probability of the positive class against the rate of positives. For more
    the probability of the predicted class against the rate at which it is right (Guo et al.).
    A bin includes its upper edge. The value depends on the number of bins, and that of a perfectly
    calibrated model is above 0 on few rows.

    Source: Guo et al., 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599.

    Args:
        y: `(rows,)` ints from 0 to `classes - 1`.
        probabilities: `(rows, classes)` floats in 0-1.
        weights: `(rows,)` floats, or None.
        num_bins: Int, bins between 0 and 1.

    Example:
        >>> probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]])
        >>> round(expected_calibration_error(np.array([0, 0, 1, 0]), probabilities), 4)
        0.2
    """
    y, probabilities, weights = present_rows(y, probabilities, weights)
    if not weights.size:
        return float("nan")
    if probabilities.shape[1] == 2:
        hits, probabilities = y, probabilities[:, 1]
    else:
        hits, probabilities = y == probabilities.argmax(axis=1), probabilities.max(axis=1)
    bins = bin_totals(hits, probabilities, weights, np.linspace(0, 1, num_bins + 1))
    return float(np.abs(bins.hits - bins.probabilities).sum() / bins.weights.sum())


def root_mean_squared_error(
    y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Root of the mean squared difference, in the target's unit."""
    y, predicted, weights = _present_values(y, predicted, weights)
    return float(np.sqrt(_mean((y - predicted) ** 2, weights)))


def mean_absolute_error(
    y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Mean absolute difference, in the target's unit."""
    y, predicted, weights = _present_values(y, predicted, weights)
    return _mean(np.abs(y - predicted), weights)


def r2(y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Coefficient of determination, `1 - residual / total` sum of squares; NaN for a constant y."""
    y, predicted, weights = _present_values(y, predicted, weights)
    total = _mean((y - _mean(y, weights)) ** 2, weights)
    # Compared, too: the sum of squares of a constant y may miss 0 by rounding.
    if not total or not y.size or np.min(y) == np.max(y):
        return float("nan")
    return 1 - _mean((y - predicted) ** 2, weights) / total


def present_rows(
    y: np.ndarray, predictions: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the rows of positive weight, in their order, and their weights as floats.

    Raises:
        ValueError: If `y` or the weights are not `(rows,)`, or lengths differ.
    """
    y, predictions = _as_rows(y), _as_rows(predictions)
    weights = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    if y.ndim != 1 or weights.shape != y.shape or len(predictions) != len(y):
        raise ValueError(
            f"`y` and `weights` must have shape (rows,), with as many predictions. Received: "
            f"{y.shape}, {weights.shape} and {predictions.shape}."
        )
    there = np.flatnonzero(weights)
    if there.size == weights.size:
        return y, predictions, weights
    return y[there], predictions[there], weights[there]


def threshold_counts(y: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> ThresholdCounts:
    """Counts true and false positives at every distinct score, in one pass over sorted rows.

    Args:
        y: `(rows,)` of 0 and 1.
        scores: `(rows,)` floats, higher means more likely 1.
        weights: `(rows,)` floats above 0.
    """
    # A stable sort takes rows that are already in rising order as they are.
    order = np.argsort(scores, kind="stable")[::-1]
    scores = scores[order]
    weights = weights[order]
    positive = weights * y[order]
    last_of_ties = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: scores.size])
    return ThresholdCounts(
        np.append(0.0, np.cumsum(positive)[last_of_ties]),
        np.append(0.0, np.cumsum(weights - positive)[last_of_ties]),
        np.append(np.inf, scores[last_of_ties]),
    )


def bin_totals(
    hits: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, edges: np.ndarray
) -> BinTotals:
    """Sums weights, hits and probabilities by bin; a bin includes its upper edge.

    Args:
        hits: `(rows,)` of 0 and 1: whether what was predicted came true.
        probabilities: `(rows,)` floats, how likely that was said to be.
        weights: `(rows,)` floats.
        edges: `(bins + 1,)` rising floats. The outer two bound nothing: rows beyond them count in
            the first and last bin.
    """
    bins = np.searchsorted(edges[1:-1], probabilities)
    columns = (weights, weights * hits, weights * probabilities)
    return BinTotals(*(np.bincount(bins, column, len(edges) - 1) for column in columns))


def _as_rows(values) -> np.ndarray:
    """An array; one column of a matrix is the rows themselves."""
    values = np.asarray(values)
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _area_under_roc(y, scores, weights) -> float:
    true, false, _ = threshold_counts(y, scores, weights)
    pairs = true[-1] * false[-1]
    if not pairs:
        return float("nan")
    return float(np.sum(np.diff(false) * (true[1:] + true[:-1])) / (2 * pairs))


def _areas_against_rest(y, probabilities, weights) -> tuple[np.ndarray, np.ndarray]:
    """`(classes,)` areas of the classes that have them, and the weight of their rows."""
    y, probabilities, weights = present_rows(y, probabilities, weights)
    columns = enumerate(probabilities.T)
    areas = np.array([_area_under_roc(y == label, column, weights) for label, column in columns])
    there = ~np.isnan(areas)
    return areas[there], _class_totals(y, weights, areas.size)[there]


def _present_values(y, predicted, weights) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`present_rows` of numbers, in double precision."""
    y, predicted, weights = present_rows(y, predicted, weights)
    return y.astype(np.float64, copy=False), predicted.astype(np.float64, copy=False), weights


def _mean(values, weights) -> float:
    total = weights.sum()
    # Not `@`: on a busy machine, waiting for its threads takes longer than the sum itself.
    return float(np.sum(values * weights) / total) if total else float("nan")


def _class_totals(labels, weights, num_classes=0) -> np.ndarray:
    """`(classes,)` sums of the weights of the rows of each label."""
    return np.bincount(labels.astype(np.int64, copy=False), weights, minlength=num_classes)
