"""Small tests for two models on the same folds or rows, and what is asked next: how many rows?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, overload

import numpy as np
from scipy import stats


class ResampledTest(NamedTuple):
    """A difference of mean scores over folds. Made by `corrected_resampled_ttest`.

    Attributes:
        difference: Float, mean of the first model's scores less that of the second's.
        standard_error: Float, corrected for shared training rows.
        low: Float, lower end of the interval.
        high: Float, upper end.
        statistic: Float, `difference / standard_error`.
        degrees_of_freedom: Int, folds less 1.
        pvalue: Float, two-sided.
    """

    difference: float
    standard_error: float
    low: float
    high: float
    statistic: float
    degrees_of_freedom: int
    pvalue: float


class McnemarTest(NamedTuple):
    """Rows that one of two classifiers has right and the other wrong. Made by `mcnemar`.

    Attributes:
        only_a_right: Int, rows that only the first has right.
        only_b_right: Int, rows that only the second has right.
        pvalue: Float, exact, two-sided.
    """

    only_a_right: int
    only_b_right: int
    pvalue: float


def corrected_resampled_ttest(
    scores_a: Any, scores_b: Any, *, test_fraction: float, confidence: float = 0.95
) -> ResampledTest:
    """Tests whether two models' mean cross-validation scores differ.

    Folds share training rows, so their scores are not independent and the plain paired t-test
    rejects too often. The correction scales the variance by `1 / k + n_test / n_train` in place of
    `1 / k`. It asks about models of other training rows too, so it is less sure than a test of
    the predictions at hand.

    Source: Nadeau & Bengio, 2003, Machine Learning 52:239-281.

    Args:
        scores_a: `(k,)` floats, one per fold; any score, no unit. For repeated cross-validation,
            those of all repeats.
        scores_b: `(k,)` floats, from the same folds in the same order.
        test_fraction: Float in (0, 1), share of rows in each test fold; 0.1 for 10-fold
            cross-validation.
        confidence: Float in (0, 1), of the interval.

    Returns:
        `ResampledTest`, two-sided, `k - 1` degrees of freedom. Identical scores give
        `statistic=0.0, pvalue=1.0`.

    Raises:
        ValueError: If the lengths differ, fewer than 2 folds are given, a score is not finite, or
            `test_fraction` or `confidence` is outside (0, 1).

    Example:
        >>> test = corrected_resampled_ttest([0.9, 0.8, 0.9], [0.8, 0.8, 0.7], test_fraction=1 / 3)
        >>> round(test.difference, 3), round(test.statistic, 3), round(test.pvalue, 3)
        (0.1, 1.095, 0.388)
    """
    for name, share in {"test_fraction": test_fraction, "confidence": confidence}.items():
        if not 0 < share < 1:
            raise ValueError(f"`{name}` must be in (0, 1). Received: {name}={share!r}.")
    scores = {"scores_a": np.asarray(scores_a), "scores_b": np.asarray(scores_b)}
    _check_same_length(scores, "fold")
    for name, values in scores.items():
        wrong = np.flatnonzero(~np.isfinite(values))
        if wrong.size:
            raise ValueError(f"`{name}` is {values[wrong[0]]} in fold {wrong[0]}.")
    differences = scores["scores_a"].astype(np.float64) - scores["scores_b"]
    num_folds = len(differences)
    if num_folds < 2:
        raise ValueError(f"The test needs at least 2 folds. Received: {num_folds}.")
    difference = float(differences.mean())
    scale = 1 / num_folds + test_fraction / (1 - test_fraction)
    error = math.sqrt(scale * differences.var(ddof=1))
    if error:
        statistic = difference / error
    else:
        statistic = math.copysign(math.inf, difference) if difference else 0.0
    margin = float(stats.t.ppf((1 + confidence) / 2, num_folds - 1)) * error
    return ResampledTest(
        difference=difference,
        standard_error=error,
        low=difference - margin,
        high=difference + margin,
        statistic=statistic,
        degrees_of_freedom=num_folds - 1,
        pvalue=float(2 * stats.t.sf(abs(statistic), num_folds - 1)),
    )


def mcnemar(y: Any, predicted_a: Any, predicted_b: Any) -> McnemarTest:
    """Tests whether two classifiers are right equally often on the same rows.

    Only rows that one has right and the other wrong tell: of those, either has its half by chance.
    Rows must be independent: for groups use a bootstrap of groups.

    Source: McNemar, 1947, Psychometrika 12:153-157; exact, by the binomial distribution.

    Args:
        y: `(rows,)` labels.
        predicted_a: `(rows,)` classes predicted by the first.
        predicted_b: `(rows,)` classes predicted by the second.

    Returns:
        `McnemarTest`; `pvalue=1.0` if they are right on the same rows.

    Raises:
        ValueError: If lengths differ, there are no rows, or a label or prediction is not finite.

    Example:
        >>> mcnemar([0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0], [1, 1, 1, 0, 0, 1])
        McnemarTest(only_a_right=5, only_b_right=1, pvalue=0.21875)
    """
    arrays = {
        "y": np.asarray(y),
        "predicted_a": np.asarray(predicted_a),
        "predicted_b": np.asarray(predicted_b),
    }
    _check_same_length(arrays, "row")
    for name, values in arrays.items():
        wrong = np.flatnonzero(~np.isfinite(values)) if values.dtype.kind == "f" else values[:0]
        if wrong.size:
            raise ValueError(f"`{name}` is {values[wrong[0]]} in row {wrong[0]}.")
    a_right = arrays["y"] == arrays["predicted_a"]
    b_right = arrays["y"] == arrays["predicted_b"]
    only_a = int(np.count_nonzero(a_right & ~b_right))
    only_b = int(np.count_nonzero(b_right & ~a_right))
    tail = float(stats.binom.cdf(min(only_a, only_b), only_a + only_b, 0.5))
    return McnemarTest(only_a, only_b, min(1.0, 2 * tail))


@overload
def holm(pvalues: Mapping[str, float]) -> dict[str, float]: ...
@overload
def holm(pvalues: Any) -> np.ndarray: ...
def holm(pvalues: Any) -> Any:
    """Adjusts p-values for how many tests were made.

    Compared with 0.05 as usual, adjusted p-values let at most 5 % of whole families of tests reject
    a true hypothesis, however the tests depend on each other.

    Source: Holm, 1979, Scandinavian Journal of Statistics 6:65-70.

    Args:
        pvalues: Mapping from names to floats, or `(tests,)` floats. NaN stays NaN and does not
            count as a test.

    Returns:
        The same names, or `(tests,)` floats, in the given order.

    Raises:
        ValueError: If a p-value is outside 0 to 1.

    Example:
        >>> holm({"image": 0.04, "table": 0.01, "both": 0.03})
        {'image': 0.06, 'table': 0.03, 'both': 0.06}
    """
    if isinstance(pvalues, Mapping):
        adjusted = holm(np.array(list(pvalues.values()), np.float64))
        return dict(zip(pvalues, adjusted.tolist(), strict=True))
    values = np.asarray(pvalues, np.float64)
    wrong = np.flatnonzero((values < 0) | (values > 1))
    if values.ndim != 1 or wrong.size:
        raise ValueError(
            f"`pvalues` must be (tests,) floats from 0 to 1. Received: {values.tolist()}."
        )
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(values), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def required_rows(
    difference: float,
    standard_error: float,
    num_rows: int,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
) -> float:
    """How many rows would show a difference of this size.

    Standard errors shrink with the square root of the rows; with `num_rows` of them it was
    `standard_error`, so a two-sided test rejects with the wanted power for
    `num_rows * ((z_{1 - alpha / 2} + z_power) * standard_error / difference) ** 2` rows. The same
    holds for positive rows or groups in place of rows.

    Args:
        difference: Float, true difference that should be found; its sign does not matter.
        standard_error: Float from 0, of a difference measured on `num_rows`.
        num_rows: Int, rows (or positive rows, or groups) that there were.
        power: Float in (0, 1), wanted chance to reject.
        alpha: Float in (0, 1), level of the test.

    Returns:
        Float, to be rounded up; `inf` for a difference of 0.

    Raises:
        ValueError: If a number is not finite or out of range.

    Example:
        >>> required_rows(0.02, 0.01, 1000)
        1962.2...
    """
    quantiles = _quantile(1 - alpha / 2, "alpha", alpha) + _quantile(power, "power", power)
    _check_effect(difference, standard_error)
    if not difference:
        return math.inf
    return num_rows * (quantiles * standard_error / difference) ** 2


def achieved_power(difference: float, standard_error: float, alpha: float = 0.05) -> float:
    """The chance that a two-sided test rejects, if the true difference is this one.

    It is for a difference that matters or is expected. For the measured difference itself it says
    no more than the p-value does (Hoenig & Heisey, 2001, The American Statistician 55:19-24).

    Args:
        difference: Float, true difference.
        standard_error: Float from 0, with which it is measured.
        alpha: Float in (0, 1), level of the test.

    Returns:
        Float from `alpha` to 1.

    Raises:
        ValueError: If a number is not finite or out of range.

    Example:
        >>> round(achieved_power(0.0196, 0.01), 3)
        0.5
    """
    quantile = _quantile(1 - alpha / 2, "alpha", alpha)
    _check_effect(difference, standard_error)
    if not difference:
        return alpha
    size = abs(difference) / standard_error if standard_error else math.inf
    return float(stats.norm.cdf(size - quantile) + stats.norm.cdf(-size - quantile))


def _quantile(probability: float, name: str, value: float) -> float:
    if not 0 < value < 1:
        raise ValueError(f"`{name}` must be in (0, 1). Received: {name}={value!r}.")
    return float(stats.norm.ppf(probability))


def _check_effect(difference: float, standard_error: float) -> None:
    if not (math.isfinite(difference) and math.isfinite(standard_error) and standard_error >= 0):
        raise ValueError(
            "`difference` must be finite and `standard_error` finite and not negative. Received: "
            f"difference={difference!r}, standard_error={standard_error!r}."
        )


def _check_same_length(arrays: Mapping[str, np.ndarray], unit: str) -> None:
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1 or any(
        len(shape) != 1 or not shape[0] for shape in shapes.values()
    ):
        listed = ", ".join(f"{name}.shape={shape}" for name, shape in shapes.items())
        raise ValueError(f"All must have one entry for each {unit}. Received: {listed}.")
