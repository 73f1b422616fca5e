"""How sure an AUC is, and whether two models' AUCs on the same rows differ: DeLong's method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special, stats

REFERENCES = ("t", "normal")


class InfluenceTest(NamedTuple):
    """A difference of scores with its interval and its test. Made by `influence_test`.

    Attributes:
        difference: Float.
        standard_error: Float.
        low: Float, lower end of the interval.
        high: Float, upper end.
        pvalue: Float, two-sided, of no difference.
        statistic: Float, `difference / standard_error`.
        degrees_of_freedom: Float, of Student's t; `inf` for the normal distribution.
    """

    difference: float
    standard_error: float
    low: float
    high: float
    pvalue: float
    statistic: float
    degrees_of_freedom: float


class DelongTest(NamedTuple):
    """Two AUCs of the same rows and their difference. Made by `delong_test`.

    Attributes:
        area_a: Float, AUC of the first model.
        area_b: Float, AUC of the second.
        difference: Float, `area_a - area_b`.
        standard_error: Float, of the difference.
        low: Float, lower end of the difference's interval.
        high: Float, upper end.
        pvalue: Float, two-sided, of equal AUCs.
        statistic: Float, `difference / standard_error`.
        degrees_of_freedom: Float, of Student's t; `inf` for the normal distribution.
    """

    area_a: float
    area_b: float
    difference: float
    standard_error: float
    low: float
    high: float
    pvalue: float
    statistic: float
    degrees_of_freedom: float


def delong_test(
    y: Any,
    a: Any,
    b: Any,
    *,
    groups: Any = None,
    confidence: float = 0.95,
    reference: str = "t",
) -> DelongTest:
    """Tests whether two models' AUCs on the same rows differ.

    The models are taken as they are: the interval tells how the difference varies with the rows
    that judge, not with those that trained. Neither may have been trained or chosen on these rows.

    With fewer than about 20 positive (or negative) rows, or 30 groups, and AUCs above 0.9 that
    differ, the interval is too short: 95 % intervals held the difference in 83 to 92 % of
    simulations. Equal AUCs are not taken for different ones more often than they should be.

    Sources: DeLong, DeLong & Clarke-Pearson, 1988, Biometrics 44:837-845 (the variance); Sun & Xu,
    2014, IEEE Signal Processing Letters 21(11):1389-1393 (by sorting); for groups in the manner of
    Obuchowski, 1997, Biometrics 53:567-578.

    Args:
        y: `(rows,)` of 0 and 1.
        a: `(rows,)` floats of the first model, higher means more likely 1; any scale.
        b: `(rows,)` floats of the second, for the same rows.
        groups: `(rows,)` values: rows that share one, such as the images of one patient, are not
            independent.
        confidence: Float in (0, 1), of the interval.
        reference: "t" compares with Student's t, see `degrees_of_freedom`; "normal" as published
            in 1988 and as other programs print. They agree for many rows of both classes; with few
            the normal distribution's intervals are too short.

    Returns:
        `DelongTest`. Models that rank all rows alike give `difference=0.0, pvalue=1.0` and the
        interval from 0 to 0.

    Raises:
        ValueError: If lengths differ, a label is not 0 or 1, a score is not finite, a class has
            fewer than 2 rows, there are fewer than 2 groups, or an option is out of range.

    Example:
        >>> y = [0, 0, 0, 1, 1, 1]
        >>> test = delong_test(y, [1, 2, 4, 3, 5, 6], [1, 4, 6, 2, 3, 5])
        >>> round(test.area_a, 3), round(test.area_b, 3), round(test.pvalue, 3)
        (0.889, 0.444, 0.134)
    """
    _check_same_length({"y": y, "a": a, "b": b})
    areas, influence = auc_influence(y, np.stack([np.asarray(a), np.asarray(b)]))
    test = influence_test(
        areas[0] - areas[1],
        influence[0] - influence[1],
        groups=groups,
        confidence=confidence,
        reference=reference,
    )
    return DelongTest(float(areas[0]), float(areas[1]), *test)


def auc_influence(y: Any, scores: Any) -> tuple[np.ndarray, np.ndarray]:
    """Computes exact AUCs and how much each row contributes to their sampling error.

    The contributions are scaled such that `influence @ influence.T` is DeLong's covariance matrix
    of the AUCs: `(V10 - AUC) / sqrt(m (m - 1))` for each of `m` positive rows, `V10` being the
    share of negative rows that it outranks (ties half), and the same of `V01`, the share of
    positive rows that outrank it, for the negative ones.

    What is linear in the AUCs is linear in these rows. Difference of two models: subtract their
    contributions. Mean over folds, repeats or classes: `combine_influences`. The mean over folds
    is the cross-validated AUC of LeDell, Petersen & van der Laan, 2015, Electronic Journal of
    Statistics 9:1583-1607, who take its variance from influence curves in this way.

    Sources: DeLong, DeLong & Clarke-Pearson, 1988, Biometrics 44:837-845; computed by one sort per
    model as in Sun & Xu, 2014, IEEE Signal Processing Letters 21(11):1389-1393.

    Args:
        y: `(rows,)` of 0 and 1.
        scores: `(rows,)` or `(models, rows)` floats, higher means more likely 1.

    Returns:
        `(models,)` AUCs, ties counted half, and `(models, rows)` contributions.

    Raises:
        ValueError: If lengths differ, a label is not 0 or 1, a score is not finite, or a class has
            fewer than 2 rows.

    Example:
        >>> areas, influence = auc_influence([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
        >>> areas.tolist(), influence.round(3).tolist()
        ([0.875], [[0.088, -0.088, -0.088, 0.088]])
    """
    positive = _check_labels(y)
    scores = _check_scores(scores, len(positive))
    found = [_area_and_influence(positive, row) for row in scores]
    return np.array([area for area, _ in found]), np.stack([rows for _, rows in found])


def combine_influences(parts: Sequence[tuple[Any, np.ndarray]], num_rows: int) -> np.ndarray:
    """Averages contributions over folds, repeats or classes, row by row.

    A row that takes part several times, as in repeated cross-validation, gets the sum of what it
    contributes, so its repeats are not taken for independent rows.

    Args:
        parts: Pairs of `(part rows,)` ints, positions in the whole table, and `(models, part
            rows)` contributions from `auc_influence`; the same models in the same order.
        num_rows: Int, rows of the whole table.

    Returns:
        `(models, num_rows)` contributions to the mean over the parts of the AUCs; 0 for rows in
        no part.

    Raises:
        ValueError: If there are no parts, shapes do not fit, or a position is out of range.

    Example:
        >>> combine_influences([([0, 1], np.ones((1, 2))), ([1, 2], np.ones((1, 2)))], 3)
        array([[0.5, 1. , 0.5]])
    """
    if not len(parts):
        raise ValueError("`parts` must hold at least one pair of rows and contributions.")
    num_models = len(parts[0][1])
    combined = np.zeros((num_rows, num_models))
    for number, (given, influence) in enumerate(parts):
        rows = np.asarray(given)
        if np.shape(influence) != (num_models, len(rows)):
            raise ValueError(
                f"Part {number} must have contributions of shape (models, part rows) = "
                f"{(num_models, len(rows))}. Received: shape={np.shape(influence)}."
            )
        if len(rows) and (rows.min() < 0 or rows.max() >= num_rows):
            raise ValueError(
                f"The rows of part {number} must lie in 0 to {num_rows - 1}. Received: "
                f"{rows.min()} to {rows.max()}."
            )
        np.add.at(combined, rows, np.asarray(influence).T)
    return combined.T / len(parts)


def covariance_of(influence: np.ndarray, groups: Any = None) -> np.ndarray:
    """Covariance matrix of scores from the contributions of their rows.

    Args:
        influence: `(models, rows)` contributions.
        groups: `(rows,)` values: contributions are summed within each group, and the covariance
            of `G` groups is multiplied by `G / (G - 1)` (cluster-robust, in the manner of
            Obuchowski, 1997, Biometrics 53:567-578).

    Returns:
        `(models, models)` floats.

    Raises:
        ValueError: If the lengths differ or there are fewer than 2 groups.

    Example:
        >>> covariance_of(np.array([[1.0, -1.0, 2.0, -2.0]]), groups=["x", "y", "x", "y"])
        array([[36.]])
    """
    influence = np.asarray(influence, np.float64)
    if groups is None:
        return influence @ influence.T
    numbers = number_groups(groups, influence.shape[1])
    sums = np.stack([np.bincount(numbers, row) for row in influence])
    num_groups = sums.shape[1]
    return sums @ sums.T * (num_groups / (num_groups - 1))


def degrees_of_freedom(influence: np.ndarray, groups: Any = None) -> float:
    """How many degrees of freedom a variance has that was computed from contributions.

    The variance of a score rests on the rows (or groups) that contribute to it. If those are few,
    as with 10 positive rows among 1,000, or few of them make up most of it, it is itself uncertain
    and Student's t takes the place of the normal distribution. Its degrees of freedom are those of
    the chi-square distribution with the same relative variance (Satterthwaite, 1946, Biometrics
    Bulletin 2:110-114), estimated twice, and the smaller is taken:

    - from the fourth powers of the contributions of rows or groups;
    - from what groups would contribute if their rows were independent, which tells how unequal
      they are (compare the effective number of clusters of Carter, Schnepel & Steigerwald, 2017,
      Review of Economics and Statistics 99:698-709).

    Args:
        influence: `(rows,)` contributions to one score or difference.
        groups: `(rows,)` values as in `covariance_of`.

    Returns:
        Float from 1 to the number of rows or groups less 1; `inf` if nothing contributes.

    Example:
        >>> influence = np.random.default_rng(0).normal(size=1000)
        >>> round(degrees_of_freedom(influence))
        868
        >>> influence[10:] = 0
        >>> round(degrees_of_freedom(influence))
        9
    """
    influence = np.asarray(influence, np.float64)
    numbers = np.arange(len(influence)) if groups is None else number_groups(groups, len(influence))
    sums = np.bincount(numbers, influence)
    variance = np.sum(sums**2)
    if not variance:
        return math.inf
    relative_variance = np.sum(sums**4) / variance**2 - 1 / len(sums)
    by_spread = 2 / relative_variance if relative_variance > 0 else math.inf
    squares = np.bincount(numbers, influence**2)
    # A normal variable's fourth power is 3 times its variance squared; only 1 of them is wanted.
    by_size = squares.sum() ** 2 / (np.sum(squares**2) - 2 / 3 * np.sum(influence**4)) - 1
    return float(np.clip(min(by_spread, by_size), 1, len(sums) - 1))


def influence_test(
    difference: float,
    influence: np.ndarray,
    *,
    groups: Any = None,
    confidence: float = 0.95,
    reference: str = "t",
) -> InfluenceTest:
    """Tests whether a difference of scores is 0, given the contributions of the rows to it.

    Args:
        difference: Float, such as a difference of AUCs, or of means of AUCs over folds.
        influence: `(rows,)` contributions to it: those of one model less those of the other.
        groups: `(rows,)` values: rows that share one are not independent.
        confidence: Float in (0, 1), of the interval.
        reference: "t" or "normal", as in `delong_test`.

    Returns:
        `InfluenceTest`. A standard error of 0 gives a p-value of 1 for no difference, else of 0:
        two models that separate the classes completely, or not at all, have no variance.

    Raises:
        ValueError: If there are fewer than 2 groups or an option is out of range.

    Example:
        >>> y = np.arange(40) % 2
        >>> noise = np.random.default_rng(0).normal(size=(2, 40))
        >>> areas, influence = auc_influence(y, [y + noise[0], y + 3 * noise[1]])
        >>> test = influence_test(areas[0] - areas[1], influence[0] - influence[1])
        >>> test == delong_test(y, y + noise[0], y + 3 * noise[1])[2:]
        True
    """
    check_confidence(confidence)
    if reference not in REFERENCES:
        raise ValueError(
            f"`reference` must be one of {list(REFERENCES)}. Received: reference={reference!r}."
        )
    influence = np.asarray(influence, np.float64)
    difference = float(difference)
    error = math.sqrt(covariance_of(influence[None], groups)[0, 0])
    freedom = degrees_of_freedom(influence, groups) if reference == "t" else math.inf
    if error:
        statistic = difference / error
    else:
        # Means over folds of the same areas may differ by rounding.
        statistic = math.copysign(math.inf, difference) if abs(difference) > 1e-12 else 0.0
    margin = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    return InfluenceTest(
        difference=difference,
        standard_error=error,
        low=difference - margin,
        high=difference + margin,
        pvalue=float(2 * stats.t.sf(abs(statistic), freedom)),
        statistic=statistic,
        degrees_of_freedom=freedom,
    )


def area_interval(
    area: float,
    influence: np.ndarray,
    *,
    smaller_class: int,
    groups: Any = None,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Interval of one model's AUC that keeps to 0 to 1 and is not too short near 1.

    Made for the logit of the AUC, by Student's t as in `degrees_of_freedom`, and turned back. An
    AUC of exactly 1 (or 0) has no variance to go by; its interval ends where as many independent
    rows as the smaller class has would still all be right with a chance of half of
    `1 - confidence` (Clopper & Pearson, 1934, Biometrika 26:404-413).

    Args:
        area: Float from 0 to 1, an AUC or mean of AUCs.
        influence: `(rows,)` contributions to it, from `auc_influence` or `combine_influences`.
        smaller_class: Int, rows (or groups) of the class that has fewer of them.
        groups: `(rows,)` values: rows that share one are not independent.
        confidence: Float in (0, 1).

    Returns:
        `(low, high)`, floats from 0 to 1.

    Raises:
        ValueError: If an argument is out of range or there are fewer than 2 groups.

    Example:
        >>> areas, influence = auc_influence([0, 0, 0, 0, 1, 1, 1], [1, 2, 3, 5, 4, 6, 7])
        >>> low, high = area_interval(areas[0], influence[0], smaller_class=3)
        >>> areas.round(3).tolist(), round(low, 3), round(high, 3)
        ([0.917], 0.201, 0.998)
    """
    check_confidence(confidence)
    if not 0 <= area <= 1 or smaller_class < 1:
        raise ValueError(
            "`area` must be from 0 to 1 and `smaller_class` at least 1. Received: "
            f"area={area!r}, smaller_class={smaller_class!r}."
        )
    if area in (0, 1):
        reach = 1 - ((1 - confidence) / 2) ** (1 / smaller_class)
        return (1 - reach, 1.0) if area else (0.0, reach)
    influence = np.asarray(influence, np.float64)
    error = math.sqrt(covariance_of(influence[None], groups)[0, 0]) / (area * (1 - area))
    freedom = degrees_of_freedom(influence, groups)
    margin = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    low, high = special.expit(special.logit(area) + np.array([-margin, margin]))
    return float(low), float(high)


def number_groups(groups: Any, num_rows: int) -> np.ndarray:
    """Numbers the groups of rows from 0, in the order in which they first come.

    Args:
        groups: `(rows,)` values.
        num_rows: Int, rows that there must be.

    Returns:
        `(rows,)` ints.

    Raises:
        ValueError: If there is not one group per row, a group is missing, or there are fewer than
            2 groups.
    """
    groups = np.asarray(groups)
    if groups.shape != (num_rows,):
        raise ValueError(
            f"`groups` must have one value for each of {num_rows} rows. Received: "
            f"shape={groups.shape}."
        )
    values = groups.tolist()
    missing = [row for row, value in enumerate(values) if value is None or value != value]
    if missing:
        raise ValueError(
            f"`groups` is missing in row {missing[0]} ({len(missing)} in all): give each such row "
            "a group of its own."
        )
    names: dict[Any, int] = {}
    numbers = np.array([names.setdefault(value, len(names)) for value in values])
    if len(names) < 2:
        raise ValueError(
            f"There must be at least 2 groups to tell how much they vary. Received: {len(names)}."
        )
    return numbers


def check_confidence(confidence: float) -> None:
    """Raises `ValueError` if a confidence is not inside (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be in (0, 1). Received: confidence={confidence!r}.")


def _area_and_influence(positive: np.ndarray, scores: np.ndarray) -> tuple[float, np.ndarray]:
    num_positive = int(np.count_nonzero(positive))
    num_negative = len(positive) - num_positive
    order = np.argsort(scores)
    ranked, positive_ranked = scores[order], positive[order]
    # Tied rows form runs; each half counts as below and half as above the others of its run.
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    lengths = np.diff(ends, prepend=-1)
    positives_upto = np.cumsum(positive_ranked)[ends]
    positives = np.diff(positives_upto, prepend=0)
    positives_below = positives_upto - positives / 2
    negatives_below = ends + 1 - positives_upto - (lengths - positives) / 2
    area = float(positives @ negatives_below) / (num_positive * num_negative)
    contributions = np.where(
        positive_ranked,
        np.repeat(negatives_below / num_negative - area, lengths)
        / math.sqrt(num_positive * (num_positive - 1)),
        np.repeat(1 - positives_below / num_positive - area, lengths)
        / math.sqrt(num_negative * (num_negative - 1)),
    )
    influence = np.empty(len(scores))
    influence[order] = contributions
    return area, influence


def _check_same_length(arrays: dict[str, Any]) -> None:
    """Raises `ValueError` if named arrays are not `(rows,)`, all of the same length."""
    shapes = {name: np.shape(array) for name, array in arrays.items()}
    if len(set(shapes.values())) > 1 or len(next(iter(shapes.values()))) != 1:
        listed = ", ".join(f"{name}.shape={shape}" for name, shape in shapes.items())
        raise ValueError(f"All must have shape (rows,), of the same rows. Received: {listed}.")


def _check_labels(y: Any) -> np.ndarray:
    y = np.asarray(y)
    if y.ndim != 1 or y.dtype.kind not in "biuf":
        raise ValueError(
            f"`y` must be (rows,) numbers, 0 or 1. Received: shape={y.shape}, dtype={y.dtype}."
        )
    wrong = np.flatnonzero((y != 0) & (y != 1))
    if wrong.size:
        raise ValueError(
            f"`y` must hold 0 and 1 only. Received: {y[wrong[0]]} in row {wrong[0]} "
            f"({wrong.size} in all)."
        )
    positive = y == 1
    num_positive = int(np.count_nonzero(positive))
    if min(num_positive, len(y) - num_positive) < 2:
        raise ValueError(
            "The variance of an AUC needs at least 2 rows of each class. Received: "
            f"{num_positive} positive and {len(y) - num_positive} negative."
        )
    return positive


def _check_scores(scores: Any, num_rows: int) -> np.ndarray:
    scores = np.asarray(scores)
    if scores.ndim not in (1, 2) or scores.shape[-1] != num_rows or scores.dtype.kind not in "biuf":
        raise ValueError(
            f"`scores` must be ({num_rows},) or (models, {num_rows}) numbers, one for each label. "
            f"Received: shape={scores.shape}, dtype={scores.dtype}."
        )
    scores = np.atleast_2d(scores)
    wrong = np.argwhere(~np.isfinite(scores))
    if wrong.size:
        model, row = wrong[0].tolist()
        raise ValueError(
            f"Scores must be finite. Received: {scores[model, row]} in row {row} of model {model} "
            f"({len(wrong)} in all)."
        )
    return scores
