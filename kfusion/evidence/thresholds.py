"""Where to cut a probability into yes and no: by cost, sensitivity or specificity."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kfusion.evidence.calibration import Predictions, check_predictions

# Sums that differ by a smaller share are the same: of weights, and of costs, which may be of very
# different size.
SHARE_ROUNDING = 1e-9
COST_ROUNDING = 8 * np.finfo(np.float64).eps


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A cut, and what it did on the rows that it was measured on.

    Attributes:
        value: Float; rows with `p >= value` are predicted positive.
        sensitivity: Float, share of the positive rows that are predicted positive (recall).
        specificity: Float, share of the negative rows that are predicted negative.
        precision: Float, share of the rows predicted positive that are; NaN if there are none.
        share_flagged: Float, share of all rows that are predicted positive.
        cost: Float, mean cost of a row in the unit of the costs given; None without costs.
    """

    value: float
    sensitivity: float
    specificity: float
    precision: float
    share_flagged: float
    cost: float | None = None

    def predict(self, probabilities_of_positive: Any) -> np.ndarray:
        """Bools in the shape of the probabilities: which rows are predicted positive."""
        return np.asarray(probabilities_of_positive, np.float64) >= self.value


def threshold_by_cost(
    y: Any,
    probabilities_of_positive: Any,
    *,
    false_negative_cost: float,
    false_positive_cost: float,
    weights: Sequence[float] | np.ndarray | None = None,
) -> Threshold:
    """Finds the cut whose mistakes cost least.

    Use out-of-fold predictions (of models that were not trained on the rows), or the threshold
    fits the training rows only. Every cut between two different probabilities is tried; of equally
    cheap ones the highest is taken, which flags the fewest rows. The value lies midway between the
    probabilities beside the cut, 0 and 1 being the outermost.

    With well calibrated probabilities and many rows it comes close to
    `false_positive_cost / (false_positive_cost + false_negative_cost)`.

    Source: Sheng & Ling, 2006, Thresholding for making classifiers cost-sensitive, AAAI; the
    limit, Elkan, 2001, The foundations of cost-sensitive learning, IJCAI.

    Args:
        y: `(rows,)` of 0 and 1.
        probabilities_of_positive: `(rows,)` or `(rows, 1)` floats from 0 to 1.
        false_negative_cost: Float of 0 or more, cost of a positive row predicted negative.
        false_positive_cost: Float of 0 or more, cost of a negative row predicted positive, in the
            same unit.
        weights: `(rows,)` floats of 0 or more; by default all rows count the same.

    Returns:
        `Threshold`.

    Raises:
        ValueError: If the rows hold one class only, arrays differ in length, a probability is not
            in 0 to 1, or costs or weights are below 0, not finite or (both costs) 0.

    Example:
        >>> found = threshold_by_cost(
        ...     [0, 0, 1, 0, 1], [0.1, 0.2, 0.4, 0.6, 0.8],
        ...     false_negative_cost=5.0, false_positive_cost=1.0,
        ... )
        >>> round(found.value, 3), found.sensitivity, found.cost  # one false positive in 5 rows
        (0.3, 1.0, 0.2)
    """
    costs = _checked_costs(false_negative_cost, false_positive_cost)
    rows = _checked(y, probabilities_of_positive, weights)
    cuts = _cuts(rows)
    totals = costs[0] * cuts.missed + costs[1] * cuts.false_alarms
    cheapest = np.flatnonzero(totals <= totals.min() + COST_ROUNDING * totals.max())
    return _measured(rows, float(cuts.values[cheapest[0]]), costs)


def threshold_by_sensitivity(
    y: Any,
    probabilities_of_positive: Any,
    *,
    sensitivity: float,
    weights: Sequence[float] | np.ndarray | None = None,
) -> Threshold:
    """Finds the highest cut that still catches a given share of the positive rows.

    Being the highest, it has the best specificity of all that do. Use out-of-fold predictions (of
    models that were not trained on the rows), or the share will not hold for new rows. The value
    lies midway between the probabilities beside the cut, 0 and 1 being the outermost.

    Args:
        y: `(rows,)` of 0 and 1.
        probabilities_of_positive: `(rows,)` or `(rows, 1)` floats from 0 to 1.
        sensitivity: Float above 0 and up to 1, the share to catch at least.
        weights: `(rows,)` floats of 0 or more; by default all rows count the same.

    Returns:
        `Threshold`, without a cost.

    Raises:
        ValueError: If the rows hold one class only, arrays differ in length, a probability is not
            in 0 to 1, weights are below 0 or not finite, or `sensitivity` is not in its range.

    Example:
        >>> found = threshold_by_sensitivity(
        ...     [0, 0, 1, 0, 1], [0.1, 0.2, 0.4, 0.6, 0.8], sensitivity=0.5
        ... )
        >>> round(found.value, 3), found.sensitivity, found.specificity
        (0.7, 0.5, 1.0)
    """
    _check_share(sensitivity, "sensitivity")
    rows = _checked(y, probabilities_of_positive, weights)
    cuts = _cuts(rows)
    caught = 1 - cuts.missed / cuts.missed[0]
    reaching = np.flatnonzero(caught >= sensitivity - SHARE_ROUNDING)
    return _measured(rows, float(cuts.values[reaching[0]]))


def threshold_by_specificity(
    y: Any,
    probabilities_of_positive: Any,
    *,
    specificity: float,
    weights: Sequence[float] | np.ndarray | None = None,
) -> Threshold:
    """Finds the lowest cut that still leaves a given share of the negative rows in peace.

    Being the lowest, it has the best sensitivity of all that do. Use out-of-fold predictions (of
    models that were not trained on the rows), or the share will not hold for new rows. The value
    lies midway between the probabilities beside the cut, 0 and 1 being the outermost.

    Args:
        y: `(rows,)` of 0 and 1.
        probabilities_of_positive: `(rows,)` or `(rows, 1)` floats from 0 to 1.
        specificity: Float above 0 and up to 1, the share to leave in peace at least.
        weights: `(rows,)` floats of 0 or more; by default all rows count the same.

    Returns:
        `Threshold`, without a cost.

    Raises:
        ValueError: If the rows hold one class only, arrays differ in length, a probability is not
            in 0 to 1, weights are below 0 or not finite, or `specificity` is not in its range.

    Example:
        >>> found = threshold_by_specificity(
        ...     [0, 0, 1, 0, 1], [0.1, 0.2, 0.4, 0.6, 0.8], specificity=0.6
        ... )
        >>> round(found.value, 3), found.sensitivity, round(found.specificity, 3)
        (0.3, 1.0, 0.667)
    """
    _check_share(specificity, "specificity")
    rows = _checked(y, probabilities_of_positive, weights)
    cuts = _cuts(rows)
    left = 1 - cuts.false_alarms / cuts.false_alarms[-1]
    reaching = np.flatnonzero(left >= specificity - SHARE_ROUNDING)
    return _measured(rows, float(cuts.values[reaching[-1]]))


def measure_threshold(
    y: Any,
    probabilities_of_positive: Any,
    *,
    value: float,
    false_negative_cost: float | None = None,
    false_positive_cost: float | None = None,
    weights: Sequence[float] | np.ndarray | None = None,
) -> Threshold:
    """Says what a given cut does on other rows, such as those of a test set.

    Args:
        y: `(rows,)` of 0 and 1.
        probabilities_of_positive: `(rows,)` or `(rows, 1)` floats from 0 to 1.
        value: Float; rows with `p >= value` are predicted positive.
        false_negative_cost: As in `threshold_by_cost`; None, with the other, for no cost.
        false_positive_cost: As in `threshold_by_cost`.
        weights: `(rows,)` floats of 0 or more; by default all rows count the same.

    Returns:
        `Threshold`.

    Raises:
        ValueError: If the rows hold one class only, arrays differ in length, a probability is not
            in 0 to 1, weights are below 0 or not finite, `value` is NaN, or one cost is given
            alone.

    Example:
        >>> measure_threshold([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.8], value=0.5).precision
        0.5
    """
    if np.isnan(value):
        raise ValueError("`value` must be a number. Received: nan.")
    costs = None
    if false_negative_cost is not None or false_positive_cost is not None:
        costs = _checked_costs(false_negative_cost, false_positive_cost)
    return _measured(_checked(y, probabilities_of_positive, weights), float(value), costs)


class _Cuts(NamedTuple):
    """All ways to cut, from none flagged to all, and the weight of the mistakes of each."""

    values: np.ndarray
    missed: np.ndarray
    false_alarms: np.ndarray


def _cuts(rows: Predictions) -> _Cuts:
    scores, group = np.unique(rows.columns[:, 1], return_inverse=True)
    # Highest first: rows of equal score are flagged together.
    scores, group = scores[::-1], scores.size - 1 - group
    positives = np.bincount(group, rows.weights * rows.labels)
    negatives = np.bincount(group, rows.weights * (1 - rows.labels))
    caught = np.concatenate([[0.0], np.cumsum(positives)])
    false_alarms = np.concatenate([[0.0], np.cumsum(negatives)])
    return _Cuts(_between(scores), caught[-1] - caught, false_alarms)


def _between(scores: np.ndarray) -> np.ndarray:
    """`(scores + 1,)` values above, between and below falling scores."""
    # A score of 1 is not flagged by a cut just above it, not even in float32.
    top = 1.0 if scores[0] < 1 else float(np.nextafter(np.float32(1), np.float32(2)))
    above, below = np.append(top, scores), np.append(scores, 0.0)
    midway = below + (above - below) / 2
    # Numbers next to each other in float32, which they may be compared in, have no middle.
    seen = midway.astype(np.float32).astype(np.float64)
    return np.where((below < midway) & (below < seen) & (seen <= above), midway, above)


def _measured(
    rows: Predictions, value: float, costs: tuple[float, float] | None = None
) -> Threshold:
    is_flagged = rows.columns[:, 1] >= value
    is_positive = rows.labels == 1
    caught = rows.weights[is_flagged & is_positive].sum()
    missed = rows.weights[~is_flagged & is_positive].sum()
    false_alarms = rows.weights[is_flagged & ~is_positive].sum()
    left = rows.weights[~is_flagged & ~is_positive].sum()
    flagged, total = caught + false_alarms, rows.weights.sum()
    return Threshold(
        value=value,
        sensitivity=float(caught / (caught + missed)),
        specificity=float(left / (left + false_alarms)),
        precision=float(caught / flagged) if is_flagged.any() else float("nan"),
        share_flagged=float(flagged / total),
        cost=None
        if costs is None
        else float((costs[0] * missed + costs[1] * false_alarms) / total),
    )


def _checked(y: Any, probabilities: Any, weights: Any) -> Predictions:
    shape = np.shape(probabilities)
    if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        raise ValueError(
            "`probabilities_of_positive` must have shape (rows,) or (rows, 1); of two columns take "
            f"`[:, 1]`. Received: shape={shape}."
        )
    return check_predictions(y, probabilities, weights)


def _checked_costs(false_negative_cost: Any, false_positive_cost: Any) -> tuple[float, float]:
    costs = {
        "false_negative_cost": false_negative_cost,
        "false_positive_cost": false_positive_cost,
    }
    for name, cost in costs.items():
        if cost is None or not (np.isfinite(cost) and cost >= 0):
            raise ValueError(f"`{name}` must be a finite number of 0 or more. Received: {cost}.")
    if not any(costs.values()):
        raise ValueError("One cost at least must be above 0: every cut would cost the same.")
    return float(false_negative_cost), float(false_positive_cost)


def _check_share(share: float, name: str) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"`{name}` must be above 0 and at most 1. Received: {share}.")
