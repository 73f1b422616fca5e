"""Probabilities that mean what they say, learned from predictions of rows not trained on."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.isotonic import IsotonicRegression

from kfusion.data.inputs import check_lengths
from kfusion.tasks import Task, check_variety

# Predictions are float32: 0 stands for less than its smallest number, and a sigmoid of 1 for
# anything nearer to 1 than half a step.
SMALLEST = float(np.finfo(np.float32).tiny)
NEAREST_TO_ONE = 2.0**-25
ROUNDING = 1e-6
SUM_TOLERANCE = 1e-3
TEMPERATURES = (0.05, 20.0)
ISOTONIC_ROWS = 100
ISOTONIC_ROWS_PER_CLASS = 10


@dataclasses.dataclass(frozen=True)
class TemperatureScaling:
    """Probabilities made bolder or more cautious by one number. Made by `fit_temperature`.

    Attributes:
        temperature: Float above 0; above 1 the model was too sure of itself, below 1 too timid.
    """

    temperature: float

    def __post_init__(self):
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"`temperature` must be above 0. Received: {self.temperature!r}.")

    def apply(self, probabilities: Any) -> np.ndarray:
        """Calibrates predictions: `softmax(log(p) / temperature)`.

        Args:
            probabilities: `(rows, classes)` floats; or, for two classes, `(rows,)` or `(rows, 1)`
                probabilities of the positive one.

        Returns:
            Float64 array of the same shape.

        Raises:
            ValueError: If probabilities are not finite, outside 0 to 1, or do not sum to 1.
        """
        columns = as_columns(probabilities)
        calibrated = softmax(_log(columns) / self.temperature, axis=1)
        return _in_shape_of(probabilities, calibrated)

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` takes, of types that JSON knows."""
        return {"kind": "temperature", "temperature": self.temperature}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> TemperatureScaling:
        """Restores what `to_dict` gave; raises `ValueError` for anything else."""
        _check_saved(saved, "temperature", "temperature")
        return cls(float(saved["temperature"]))


class Curve(NamedTuple):
    """A rising curve through points, level outside of them."""

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class IsotonicCalibration:
    """Probabilities read off a rising curve for each class. Made by `fit_isotonic`.

    Attributes:
        curves: One `Curve` for two classes, that of the positive one; else one per class.
    """

    curves: tuple[Curve, ...] = dataclasses.field(repr=False)

    def __post_init__(self):
        if len(self.curves) in (0, 2):
            raise ValueError(
                "`curves` must be one for two classes, or one per class for more. Received: "
                f"{len(self.curves)}."
            )

    @property
    def num_classes(self) -> int:
        """Number of classes that the predictions must have."""
        return max(2, len(self.curves))

    def apply(self, probabilities: Any) -> np.ndarray:
        """Calibrates predictions: each class by its own curve, then all scaled to sum to 1.

        A higher probability never becomes a lower one for two classes, nor, before the scaling,
        for more. Probabilities on a level stretch of a curve become equal.

        Args:
            probabilities: `(rows, classes)` floats; or, for two classes, `(rows,)` or `(rows, 1)`
                probabilities of the positive one.

        Returns:
            Float64 array of the same shape, never 0 or 1.

        Raises:
            ValueError: If probabilities are not finite, outside 0 to 1, do not sum to 1, or have
                another number of classes.
        """
        columns = as_columns(probabilities)
        if columns.shape[1] != self.num_classes:
            raise ValueError(
                f"The calibration is for {self.num_classes} classes. Received: probabilities of "
                f"{columns.shape[1]}."
            )
        if self.num_classes == 2:
            positive = np.interp(columns[:, 1], *self.curves[0])
            calibrated = np.stack([1 - positive, positive], axis=1)
        else:
            calibrated = np.stack(
                [np.interp(p, *curve) for p, curve in zip(columns.T, self.curves, strict=True)],
                axis=1,
            )
            calibrated /= calibrated.sum(axis=1, keepdims=True)
        return _in_shape_of(probabilities, calibrated)

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` takes, of types that JSON knows."""
        curves = [{name: list(points) for name, points in c._asdict().items()} for c in self.curves]
        return {"kind": "isotonic", "curves": curves}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> IsotonicCalibration:
        """Restores what `to_dict` gave; raises `ValueError` for anything else."""
        _check_saved(saved, "isotonic", "curves")
        return cls(tuple(_restored_curve(curve) for curve in saved["curves"]))


def fit_temperature(
    y: Any, probabilities: Any, *, weights: Sequence[float] | np.ndarray | None = None
) -> TemperatureScaling:
    """Learns how much bolder or more cautious a model's probabilities should be.

    One number is learned, so that few rows are enough, and the order of the rows' positive
    probabilities (so the AUC of two classes) and each row's most likely class stay what they are.
    So does the side of 0.5 on which a row lies: it cannot mend a model that takes classes for
    more or less frequent than they are, as one trained on balanced batches with plain
    cross-entropy does. Use predictions of rows that the model was not trained on, as those of
    cross-validation.

    The log loss is minimised over temperatures from 0.05 to 20. Probabilities of 0 count as
    1.2e-38, the smallest that float32 holds; for two classes those of 1 count as `1 - 2**-25`.

    Source: Guo et al., 2017, arXiv:1706.04599.

    Args:
        y: `(rows,)` ints from 0 to `classes - 1`.
        probabilities: `(rows, classes)` floats; or, for two classes, `(rows,)` or `(rows, 1)`
            probabilities of the positive one.
        weights: `(rows,)` floats of 0 or more; by default all rows count the same.

    Returns:
        `TemperatureScaling`. Warns if the best temperature lies at an end of the range: the rows
        are then all predicted right, or no better than by chance.

    Raises:
        ValueError: If probabilities are not finite, outside 0 to 1, or do not sum to 1 within
            0.001 (the message names the row); if labels do not fit them, are of one class only,
            or lengths differ; if weights are below 0 or not finite.

    Example:
        >>> bold = np.array([0.01, 0.01, 0.99, 0.99, 0.01, 0.99])
        >>> scaling = fit_temperature([0, 0, 1, 1, 1, 0], bold)  # right in 2 of 3
        >>> scaling.apply(bold).round(3).tolist()
        [0.333, 0.333, 0.667, 0.667, 0.333, 0.667]
    """
    rows = check_predictions(y, probabilities, weights)
    log_columns = _log(rows.columns)

    def log_loss(log_temperature: float) -> float:
        scaled = log_softmax(log_columns / np.exp(log_temperature), axis=1)
        true = np.take_along_axis(scaled, rows.labels[:, None], axis=1)[:, 0]
        return -float(np.average(true, weights=rows.weights))

    # The loss is convex in 1 / temperature, so it has one valley in the logarithm, too.
    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(
        log_loss, bounds=(low, high), method="bounded", options={"xatol": 1e-8, "maxiter": 500}
    )
    if min(found.x - low, high - found.x) < 1e-3:
        warnings.warn(
            f"The temperature ended at {np.exp(found.x):.3g}, an end of the range "
            f"{TEMPERATURES[0]:g} to {TEMPERATURES[1]:g}: the rows are all predicted right, or "
            "their probabilities tell no more than chance. Do not rely on it.",
            stacklevel=2,
        )
    return TemperatureScaling(float(np.exp(found.x)))


def fit_isotonic(
    y: Any, probabilities: Any, *, weights: Sequence[float] | np.ndarray | None = None
) -> IsotonicCalibration:
    """Learns from many rows which share of positives really stands behind each probability.

    The curve may take any rising form, so it mends what one temperature cannot, but needs about a
    thousand rows to be better. Use predictions of rows that the model was not trained on. With
    more than two classes each is calibrated against the rest.

    Where the m rows of lowest probability hold no case of a class, its curve would be 0: by
    Laplace's rule of succession it is `1 / (m + 2)` there (or as the stretch above, if that is
    lower); where the m highest are all cases, `(m + 1) / (m + 2)`. Rows are counted by their
    weights, scaled to a mean of 1.

    Source: Zadrozny & Elkan, 2002, Transforming classifier scores into accurate multiclass
    probability estimates, KDD.

    Args:
        y: `(rows,)` ints from 0 to `classes - 1`.
        probabilities: `(rows, classes)` floats; or, for two classes, `(rows,)` or `(rows, 1)`
            probabilities of the positive one.
        weights: `(rows,)` floats of 0 or more; by default all rows count the same.

    Returns:
        `IsotonicCalibration`.

    Raises:
        ValueError: As `fit_temperature`; or if there are fewer than 100 rows, or fewer than 10 of
            a class (rows of weight 0 do not count).

    Example:
        >>> y = np.array([0] * 60 + [1] * 20 + [0] * 20)
        >>> calibration = fit_isotonic(y, np.array([0.3] * 60 + [0.6] * 40))
        >>> calibration.apply([0.3, 0.6]).round(4).tolist()  # 1 / 62, and 20 of 40
        [0.0161, 0.5]
    """
    rows = check_predictions(y, probabilities, weights)
    num_classes = rows.columns.shape[1]
    counts = np.bincount(rows.labels, minlength=num_classes)
    advice = "Use `fit_temperature`, which learns one number only."
    if rows.labels.size < ISOTONIC_ROWS:
        raise ValueError(
            f"Isotonic calibration needs {ISOTONIC_ROWS} rows at least. Received: "
            f"{rows.labels.size}. {advice}"
        )
    if counts.min() < ISOTONIC_ROWS_PER_CLASS:
        raise ValueError(
            f"Isotonic calibration needs {ISOTONIC_ROWS_PER_CLASS} rows of each class at least. "
            f"Received: {counts.min()} of class {np.argmin(counts)}. {advice}"
        )
    calibrated = [1] if num_classes == 2 else range(num_classes)
    return IsotonicCalibration(
        tuple(_fit_curve(rows.labels == k, rows.columns[:, k], rows.weights) for k in calibrated)
    )


def calibration_from_dict(saved: Mapping[str, Any]) -> TemperatureScaling | IsotonicCalibration:
    """Restores either calibration from its `to_dict`.

    Args:
        saved: Mapping whose `kind` is "temperature" or "isotonic".

    Raises:
        ValueError: If it is anything else.

    Example:
        >>> calibration_from_dict({"kind": "temperature", "temperature": 1.5})
        TemperatureScaling(temperature=1.5)
    """
    kinds: dict[str, type[TemperatureScaling] | type[IsotonicCalibration]] = {
        "temperature": TemperatureScaling,
        "isotonic": IsotonicCalibration,
    }
    if saved.get("kind") not in kinds:
        raise ValueError(
            f"`kind` must be one of {list(kinds)}. Received: kind={saved.get('kind')!r}."
        )
    return kinds[saved["kind"]].from_dict(saved)


class Predictions(NamedTuple):
    """Rows of checked labels, probabilities and weights; those of weight 0 are left out."""

    labels: np.ndarray
    columns: np.ndarray
    weights: np.ndarray


def check_predictions(y: Any, probabilities: Any, weights: Any = None) -> Predictions:
    """Returns predictions with their labels in one form, or raises `ValueError` about a row.

    Args:
        y: `(rows,)` ints from 0 to `classes - 1`, at least two different ones.
        probabilities: `(rows, classes)` floats, or `(rows,)` or `(rows, 1)` of the positive class.
        weights: `(rows,)` floats of 0 or more, or None. They are scaled to a mean of 1.
    """
    columns = as_columns(probabilities)
    names = tuple(str(label) for label in range(columns.shape[1]))
    labels = Task("multiclass", names).check_targets(y)
    if weights is None:
        weights = np.ones(len(labels))
    weights = np.asarray(weights, np.float64)
    if weights.ndim != 1:
        raise ValueError(f"`weights` must have shape (rows,). Received: shape={weights.shape}.")
    check_lengths({"y": labels, "probabilities": columns, "weights": weights})
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if wrong.size:
        raise ValueError(
            f"`weights` must be 0 or more. Received: {weights[wrong[0]]} in row {wrong[0]} "
            f"({wrong.size} in all)."
        )
    counts = weights > 0
    labels, columns, weights = labels[counts], columns[counts], weights[counts]
    check_variety(labels)
    return Predictions(labels, columns, weights / weights.mean())


def as_columns(probabilities: Any) -> np.ndarray:
    """Returns `(rows, classes)` float64 probabilities, or raises `ValueError` about a row."""
    given = np.asarray(probabilities, np.float64)
    if given.ndim == 1:
        given = given[:, None]
    if given.ndim != 2 or not given.shape[1]:
        raise ValueError(
            "`probabilities` must have shape (rows, classes), or (rows,) of the positive class. "
            f"Received: shape={np.shape(probabilities)}."
        )
    for wrong, what in (
        (~np.isfinite(given), "must be finite"),
        ((given < -ROUNDING) | (given > 1 + ROUNDING), "must lie in 0 to 1"),
    ):
        found = np.argwhere(wrong)
        if found.size:
            row, column = found[0]
            raise ValueError(
                f"`probabilities` {what}. Received: {given[row, column]} in row {row} "
                f"({wrong.any(axis=1).sum()} rows in all)."
            )
    given = np.clip(given, 0, 1)
    if given.shape[1] == 1:
        return np.concatenate([1 - given, given], axis=1)
    sums = given.sum(axis=1)
    rows = np.flatnonzero(np.abs(sums - 1) > SUM_TOLERANCE)
    if rows.size:
        raise ValueError(
            f"`probabilities` must sum to 1 in each row. Received: {sums[rows[0]]:.6g} in row "
            f"{rows[0]} ({rows.size} rows in all)."
        )
    return given


def _in_shape_of(given: Any, columns: np.ndarray) -> np.ndarray:
    """Brings `(rows, classes)` back to the form in which probabilities were given."""
    shape = np.shape(given)
    if len(shape) == 1:
        return columns[:, 1]
    return columns[:, 1:] if shape[1] == 1 else columns


def _log(columns: np.ndarray) -> np.ndarray:
    """Logarithms of `(rows, classes)` probabilities, finite."""
    bounded = np.maximum(columns, SMALLEST)
    if columns.shape[1] == 2:
        bounded[:, 0] = np.maximum(bounded[:, 0], NEAREST_TO_ONE)
    return np.log(bounded)


def _fit_curve(is_case: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> Curve:
    """The rising curve from a class' probabilities to its share, kept off 0 and 1."""
    fitted = IsotonicRegression(out_of_bounds="clip").fit(scores, is_case, sample_weight=weights)
    knots, shares = fitted.X_thresholds_, fitted.y_thresholds_
    at_rows = np.interp(scores, knots, shares)
    # Sums of weights may miss 1 by rounding.
    is_none, is_all = shares < 1e-9, shares > 1 - 1e-9
    between = shares[~(is_none | is_all)]
    num_none = weights[at_rows < 1e-9].sum()
    num_all = weights[at_rows > 1 - 1e-9].sum()
    low = min(1 / (num_none + 2), between.min(initial=1.0))
    high = max((num_all + 1) / (num_all + 2), between.max(initial=0.0))
    shares = np.where(is_none, low, np.where(is_all, high, shares))
    return Curve(tuple(knots.tolist()), tuple(shares.tolist()))


def _restored_curve(saved: Mapping[str, Any]) -> Curve:
    points = [np.array(saved.get(name, []), np.float64) for name in Curve._fields]
    scores, probabilities = points
    is_rising = (
        0 < scores.size == probabilities.size
        and (np.diff(scores) > 0).all()
        and (np.diff(probabilities) >= 0).all()
        and 0 < probabilities[0] <= probabilities[-1] < 1
    )
    if not is_rising:
        raise ValueError(
            "A saved curve must have rising `scores` and as many `probabilities` between 0 and 1 "
            f"that do not fall. Received: {saved}."
        )
    return Curve(*(tuple(values.tolist()) for values in points))


def _check_saved(saved: Mapping[str, Any], kind: str, key: str) -> None:
    if saved.get("kind") != kind or key not in saved:
        raise ValueError(
            f"A saved {kind} calibration has kind={kind!r} and {key!r}. Received: "
            f"kind={saved.get('kind')!r} and the keys {sorted(saved)}."
        )
