"""How much any score varies with the rows (or groups of rows) that it is computed from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from kfusion.evidence.delong import check_confidence, degrees_of_freedom, number_groups
from kfusion.progress import progress

# Leaving out one of this many parts after the other tells how unequally they matter.
MAX_PARTS = 400


class UndefinedStatisticError(ValueError):
    """A statistic has no value on most resamples: a class is in very few rows or groups."""


@dataclasses.dataclass(frozen=True, eq=False)
class Bootstrap:
    """What a statistic was on resampled rows. Made by `bootstrap`.

    Attributes:
        estimate: `()` or `(k,)` floats, the statistic of all rows.
        replicates: `(resamples, k)` floats, the statistic of resampled rows; those that were not
            finite are left out.
        num_units: Int, how many rows or groups were resampled.
        degrees_of_freedom: `()` or `(k,)` floats, less than `num_units` where a few of these
            decide: see `kfusion.evidence.delong.degrees_of_freedom`.
    """

    estimate: np.ndarray
    replicates: np.ndarray
    num_units: int
    degrees_of_freedom: np.ndarray

    @property
    def standard_error(self) -> Any:
        """Float or `(k,)`: spread of the replicates, times `sqrt(n / (n - 1))` for `n` units.

        For a mean it comes to the usual `standard deviation / sqrt(n)`.
        """
        spread = self.replicates.std(axis=0, ddof=1)
        return self._shaped(spread * np.sqrt(self.num_units / (self.num_units - 1)))

    def interval(self, confidence: float = 0.95) -> tuple[Any, Any]:
        """Expanded percentile interval.

        It reaches from one percentile of the replicates to another, so it keeps to the range of
        the statistic and to its skewness. Plain percentiles make it too short where few units
        decide, so `1.96` becomes the quantile of Student's t, times `sqrt(n / (n - 1))`, as in
        Hesterberg, 2015, The American Statistician 69:371-386, with `degrees_of_freedom + 1` for
        `n`.

        Args:
            confidence: Float in (0, 1).

        Returns:
            `(low, high)`, floats or `(k,)`.

        Raises:
            ValueError: If `confidence` is not in (0, 1).
        """
        check_confidence(confidence)
        freedom = np.atleast_1d(self.degrees_of_freedom)
        reach = stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(1 + 1 / freedom)
        shares = stats.norm.cdf(-reach)
        columns = list(zip(self.replicates.T, shares, strict=True))
        low = np.array([np.quantile(column, share) for column, share in columns])
        high = np.array([np.quantile(column, 1 - share) for column, share in columns])
        return self._shaped(low), self._shaped(high)

    def pvalue(self, null: float = 0.0) -> Any:
        """Two-sided p-value of the statistic being `null`.

        Twice the share of the replicates on the far side of `null`, those equal to it by half,
        and not below `1 / (resamples + 1)`; then made larger as `interval` is made wider, so that
        the two agree.

        Args:
            null: Float.

        Returns:
            Float or `(k,)`.
        """
        ties = np.sum(self.replicates == null, axis=0) / 2
        below = np.sum(self.replicates < null, axis=0) + ties
        above = np.sum(self.replicates > null, axis=0) + ties
        count = len(self.replicates)
        counted = np.maximum(2 * np.minimum(below, above) / count, 1 / (count + 1))
        freedom = np.atleast_1d(self.degrees_of_freedom)
        distance = stats.norm.isf(counted / 2) / np.sqrt(1 + 1 / freedom)
        return self._shaped(2 * stats.t.sf(distance, freedom))

    def _shaped(self, values: np.ndarray) -> Any:
        shaped = values.reshape(self.estimate.shape)
        return shaped if shaped.ndim else shaped.item()


def bootstrap(
    statistic: Callable[[np.ndarray], Any],
    num_rows: int,
    *,
    groups: Any = None,
    num_resamples: int = 2000,
    seed: int = 0,
    verbose: int | bool = 0,
) -> Bootstrap:
    """Tells how sure any statistic of rows is by resampling them.

    For a difference of two models, compute it inside `statistic` from the same weights: pairs of
    predictions then stay together. With fewer than about 20 rows, groups or positives the
    intervals are too short still.

    Sources: Hesterberg, 2015, The American Statistician 69:371-386 (intervals); see
    `kfusion.evidence.delong.degrees_of_freedom` for what few units cost.

    Args:
        statistic: Takes `(rows,)` floats, how often each row was drawn, and returns a float or
            `(k,)` floats. Called once per resample, once with ones, and up to 400 times with some
            of the rows (all of a group) left out. May be NaN for draws where it is undefined, such
            as an AUC without positive rows; these are left out.
        num_rows: Int.
        groups: `(rows,)` values: rows that share one are not independent; whole groups are drawn.
        num_resamples: Int, at least 2.
        seed: Int; the same gives the same draws.
        verbose: 1 shows progress.

    Returns:
        `Bootstrap`.

    Raises:
        ValueError: If there are fewer than 2 rows or groups, not one group per row, fewer than 2
            resamples, or the statistic is not finite on all rows or on more than half of the
            resamples.

    Example:
        >>> values = np.random.default_rng(0).normal(5.0, 2.0, size=100)
        >>> resampled = bootstrap(lambda weights: weights @ values / weights.sum(), 100)
        >>> low, high = resampled.interval()
        >>> round(resampled.estimate.item(), 2), round(low, 2), round(high, 2)
        (5.16, 4.78, 5.54)
    """
    if num_rows < 2 or num_resamples < 2:
        raise ValueError(
            "A bootstrap needs at least 2 rows and 2 resamples. Received: "
            f"num_rows={num_rows}, num_resamples={num_resamples}."
        )
    numbers = np.arange(num_rows) if groups is None else number_groups(groups, num_rows)
    num_units = int(numbers.max()) + 1
    random = np.random.default_rng(seed)
    estimate = np.asarray(statistic(np.ones(num_rows)), np.float64)
    if estimate.ndim > 1 or not np.isfinite(estimate).all():
        raise ValueError(
            "`statistic` must return a float or (k,) floats, finite on all rows. Received: "
            f"{estimate}."
        )
    freedom = _degrees_of_freedom(statistic, numbers, num_units, random)
    draws = []
    for _ in progress(range(num_resamples), description="bootstrap", verbose=verbose):
        counts = np.bincount(random.integers(num_units, size=num_units), minlength=num_units)
        draws.append(statistic(counts[numbers].astype(np.float64)))
    replicates = np.reshape(np.asarray(draws, np.float64), (num_resamples, -1))
    kept = replicates[np.isfinite(replicates).all(axis=1)]
    if 2 * len(kept) < num_resamples:
        raise UndefinedStatisticError(
            f"The statistic is not finite on {num_resamples - len(kept)} of {num_resamples} "
            "resamples, as if a class were in very few rows or groups: give more of these."
        )
    return Bootstrap(estimate, kept, num_units, freedom.reshape(estimate.shape))


def bootstrap_interval(
    metric: Callable[[np.ndarray, np.ndarray, np.ndarray], float],
    y: Any,
    predictions: Any,
    *,
    weights: Any = None,
    groups: Any = None,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
    verbose: int | bool = 0,
) -> tuple[float, float]:
    """Interval of one score of one model.

    Args:
        metric: `(y, predictions, weights) -> float`, as in `kfusion.metrics`.
        y: `(rows,)` labels or target values.
        predictions: `(rows, ...)` floats, as the metric takes them.
        weights: `(rows,)` floats from 0: how much each row counts; by default alike.
        groups: `(rows,)` values: rows that share one are not independent.
        confidence: Float in (0, 1).
        num_resamples: Int, at least 2.
        seed: Int.
        verbose: 1 shows progress.

    Returns:
        `(low, high)`, floats.

    Raises:
        ValueError: If lengths differ, and as `bootstrap`.

    Example:
        >>> from kfusion import metrics
        >>> y, predicted = np.arange(50) % 2, (np.arange(50) % 10 > 4).astype(int)
        >>> low, high = bootstrap_interval(metrics.accuracy, y, predicted)
        >>> round(metrics.accuracy(y, predicted), 2), round(low, 2), round(high, 2)
        (0.6, 0.46, 0.74)
    """
    y, predictions = np.asarray(y), np.asarray(predictions)
    fixed = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    if not len(y) == len(predictions) == len(fixed):
        raise ValueError(
            "`y`, `predictions` and `weights` must have one entry per row. Received: "
            f"{len(y)}, {len(predictions)} and {len(fixed)}."
        )
    resampled = bootstrap(
        lambda counts: metric(y, predictions, counts * fixed),
        len(y),
        groups=groups,
        num_resamples=num_resamples,
        seed=seed,
        verbose=verbose,
    )
    low, high = resampled.interval(confidence)
    return float(low), float(high)


def _degrees_of_freedom(statistic, numbers, num_units: int, random) -> np.ndarray:
    """`(k,)`, from how far the statistic moves as one part of the units after another is left out.

    The cautious 1 where it is undefined without some part.
    """
    num_parts = min(num_units, MAX_PARTS)
    part_of_unit = random.permutation(np.arange(num_units) % num_parts)
    parts = part_of_unit[numbers]
    without = np.array([statistic((parts != part).astype(np.float64)) for part in range(num_parts)])
    moves = np.reshape(without, (num_parts, -1))
    moves = moves.mean(axis=0) - moves
    # Groups of many rows weigh more, even if the few that there are do not show it.
    sizes = np.bincount(numbers)
    most = np.sum(sizes) ** 2 / np.sum(sizes**2) - 1
    return np.array(
        [
            np.clip(min(degrees_of_freedom(column), most), 1, num_parts - 1)
            if np.isfinite(column).all()
            else 1.0
            for column in moves.T
        ]
    )
