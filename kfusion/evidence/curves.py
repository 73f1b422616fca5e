"""Curves and tables that show how predictions err, as checked arrays ready to draw or save."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from kfusion import metrics
from kfusion.data.inputs import check_lengths
from kfusion.tasks import task

BIN_STRATEGIES = ("uniform", "quantile")


class RocCurve(NamedTuple):
    """Points of a ROC curve, from "no row is positive" to "all are"; one per distinct score.

    Attributes:
        false_positive_rates: `(points,)` floats, rising from 0 to 1.
        true_positive_rates: `(points,)` floats, rising from 0 to 1.
        thresholds: `(points,)` floats, falling from infinity: rows at or above are positive.
    """

    false_positive_rates: np.ndarray
    true_positive_rates: np.ndarray
    thresholds: np.ndarray


class PrecisionRecallCurve(NamedTuple):
    """Points of a precision-recall curve, from "all rows are positive" to a last (1, 0).

    Attributes:
        precision: `(thresholds + 1,)` floats; the last is 1 by definition.
        recall: `(thresholds + 1,)` floats, falling from 1 to 0.
        thresholds: `(thresholds,)` floats, the distinct scores, rising.
    """

    precision: np.ndarray
    recall: np.ndarray
    thresholds: np.ndarray


class ReliabilityCurve(NamedTuple):
    """Predicted probability against observed rate, per bin that holds rows.

    Attributes:
        predicted: `(bins,)` floats, mean predicted probability of the bin's rows.
        observed: `(bins,)` floats, share of positives among them.
        low: `(bins,)` floats, lower end of the Wilson 95 % interval of that share.
        high: `(bins,)` floats, its upper end.
        counts: `(bins,)` floats, the rows, or the sum of their weights.
    """

    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray


def roc_curve(y: Any, scores: Any, weights: Any = None) -> RocCurve:
    """Traces how many positives are found at the price of how many false alarms.

    Args:
        y: `(rows,)` of 0 and 1.
        scores: `(rows,)` finite floats, higher means more likely 1.
        weights: `(rows,)` floats, how often each row counts; None for once. Rows of weight 0 are
            left out.

    Returns:
        `RocCurve`, as scikit-learn's with `drop_intermediate=False`.

    Raises:
        ValueError: If lengths or shapes differ, a label is not 0 or 1, a score or weight is not
            finite or a weight is below 0 (the message names the row), or one of the two classes
            has no rows.

    Example:
        >>> curve = roc_curve([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        >>> curve.false_positive_rates.tolist()
        [0.0, 0.0, 0.5, 0.5, 1.0]
        >>> curve.true_positive_rates.tolist()
        [0.0, 0.5, 0.5, 1.0, 1.0]
    """
    true, false, thresholds = metrics.threshold_counts(*_check_binary(y, scores, weights))
    if not (true[-1] and false[-1]):
        missing = 0 if true[-1] else 1
        raise ValueError(f"A ROC curve needs rows of both classes. `y` has none of {missing}.")
    return RocCurve(false / false[-1], true / true[-1], thresholds)


def precision_recall_curve(y: Any, scores: Any, weights: Any = None) -> PrecisionRecallCurve:
    """Traces how many of the rows called positive are, against how many positives are found.

    To be read beside the share of positives, the precision of random scores.

    Args:
        y: `(rows,)` of 0 and 1.
        scores: `(rows,)` finite floats, higher means more likely 1.
        weights: `(rows,)` floats, how often each row counts; None for once. Rows of weight 0 are
            left out.

    Returns:
        `PrecisionRecallCurve`, as scikit-learn's.

    Raises:
        ValueError: As `roc_curve`, but `y` may lack negatives.

    Example:
        >>> curve = precision_recall_curve([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        >>> curve.precision.round(2).tolist()
        [0.5, 0.67, 0.5, 1.0, 1.0]
        >>> curve.recall.tolist()
        [1.0, 1.0, 0.5, 0.5, 0.0]
    """
    true, false, thresholds = metrics.threshold_counts(*_check_binary(y, scores, weights))
    if not true[-1]:
        raise ValueError("A precision-recall curve needs positive rows. `y` has none.")
    true, false = true[:0:-1], false[:0:-1]
    return PrecisionRecallCurve(
        np.append(true / (true + false), 1.0), np.append(true / true[0], 0.0), thresholds[:0:-1]
    )


def reliability_curve(
    y: Any,
    probabilities_of_positive: Any,
    *,
    num_bins: int = 10,
    strategy: str = "uniform",
    weights: Any = None,
) -> ReliabilityCurve:
    """Compares predicted probabilities with how often they came true, in bins.

    A calibrated model's points lie on the diagonal, up to what their intervals allow for. Bins of
    equal width show the whole range, those of equal counts ("quantile") where the rows are.

    Source: of the intervals, Wilson, 1927, J. Amer. Statist. Assoc. 22:209-212. They take the rows
    for independent and the sum of their weights for a number of rows.

    Args:
        y: `(rows,)` of 0 and 1.
        probabilities_of_positive: `(rows,)` floats in 0-1, of class 1.
        num_bins: Int, at most so many points. A bin includes its upper edge.
        strategy: "uniform" or "quantile".
        weights: `(rows,)` floats, how often each row counts; None for once. Rows of weight 0 are
            left out. Quantile bins take whole numbers only.

    Returns:
        `ReliabilityCurve`, its points as those of scikit-learn's `calibration_curve`.

    Raises:
        ValueError: As `roc_curve`, but one class is enough; if a probability is outside 0-1, the
            strategy is unknown, there is less than one bin, or quantiles meet broken weights.

    Example:
        >>> curve = reliability_curve([0, 1, 1, 1], [0.1, 0.3, 0.8, 0.9], num_bins=2)
        >>> curve.observed.tolist()
        [0.5, 1.0]
        >>> curve.low.round(2).tolist(), curve.high.round(2).tolist()
        ([0.09, 0.34], [0.91, 1.0])
    """
    name = "probabilities_of_positive"
    y, probabilities, weights = _check_binary(y, probabilities_of_positive, weights, name)
    wrong = np.flatnonzero((probabilities < 0) | (probabilities > 1))
    if wrong.size:
        raise ValueError(f"`{name}` must lie in 0-1. Received: {_first(probabilities, wrong)}.")
    edges = _bin_edges(probabilities, weights, num_bins, strategy)
    bins = metrics.bin_totals(y, probabilities, weights, edges)
    counts, hits, predicted = (total[bins.weights > 0] for total in bins)
    observed = hits / counts
    return ReliabilityCurve(
        predicted / counts, observed, *_wilson_interval(observed, counts), counts
    )


def confusion(y: Any, predicted: Any, num_classes: int, weights: Any = None) -> np.ndarray:
    """Counts the rows of each true class (down) by the class that was predicted (across).

    Args:
        y: `(rows,)` ints from 0 to `num_classes - 1`.
        predicted: `(rows,)` ints, the predicted classes.
        num_classes: Int, 2 or more.
        weights: `(rows,)` floats, how often each row counts; None for once.

    Returns:
        `(num_classes, num_classes)` counts: ints, or floats if there are weights.

    Raises:
        ValueError: If lengths or shapes differ, a label is out of range, or a weight is not finite
            or below 0. The message names the row.

    Example:
        >>> confusion([0, 0, 1, 2], [0, 1, 1, 0], 3).tolist()
        [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    """
    classes = task("multiclass", num_classes=num_classes)
    y, predicted = classes.check_targets(y), classes.check_targets(predicted, "predicted")
    check_lengths({"y": y, "predicted": predicted})
    if weights is not None:
        weights = _check_weights(weights, y)
    cells = y.astype(np.int64) * num_classes + predicted
    counts = np.bincount(cells, weights, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def _check_binary(y, scores, weights, name="scores") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and weights of the rows that count."""
    y = task("binary").check_targets(y)
    scores = _check_numbers(scores, name)
    check_lengths({"y": y, name: scores})
    if weights is not None:
        weights = _check_weights(weights, y)
    return metrics.present_rows(y, scores, weights)


def _check_weights(weights, y) -> np.ndarray:
    weights = _check_numbers(weights, "weights").astype(np.float64)
    check_lengths({"y": y, "weights": weights})
    wrong = np.flatnonzero(weights < 0)
    if wrong.size:
        raise ValueError(f"`weights` must be 0 or more. Received: {_first(weights, wrong)}.")
    if not weights.any():
        raise ValueError("`weights` must not all be 0: no row is left.")
    return weights


def _check_numbers(values, name) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        raise ValueError(
            f"`{name}` must be numbers of shape (rows,). Received: shape={values.shape}, "
            f"dtype={values.dtype}."
        )
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        raise ValueError(f"`{name}` must be finite. Received: {_first(values, wrong)}.")
    return values


def _first(values, wrong) -> str:
    return f"{values[wrong[0]]} in row {wrong[0]} ({wrong.size} in all)"


def _bin_edges(probabilities, weights, num_bins, strategy) -> np.ndarray:
    if strategy not in BIN_STRATEGIES:
        raise ValueError(
            f"`strategy` must be one of {list(BIN_STRATEGIES)}. Received: strategy={strategy!r}."
        )
    if num_bins < 1:
        raise ValueError(f"`num_bins` must be 1 or more. Received: num_bins={num_bins}.")
    shares = np.linspace(0, 1, num_bins + 1)
    if strategy == "uniform":
        return shares
    counts = weights.astype(np.int64)
    if np.any(counts != weights):
        raise ValueError(
            'Bins of strategy "quantile" need whole numbers as `weights`: use "uniform" bins.'
        )
    return np.percentile(np.repeat(probabilities, counts), 100 * shares)


def _wilson_interval(share, count) -> tuple[np.ndarray, np.ndarray]:
    z = NormalDist().inv_cdf(0.975)
    center = share + z**2 / (2 * count)
    reach = z * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    scale = 1 + z**2 / count
    return np.maximum((center - reach) / scale, 0), np.minimum((center + reach) / scale, 1)
