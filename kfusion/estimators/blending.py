"""Predictions of several models pooled in one, by weights from rows that none was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax

MAX_WEIGHT = 3.0
# What a member's probabilities are mixed with the class rates by, so that none is 0.
FLOORS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
SLOPES = (0.05, 20.0)


@dataclasses.dataclass(frozen=True)
class Blend:
    """A pool of members' predictions. Made by `fit_blend`.

    Of classes, a logarithmic opinion pool: `softmax(base + sum of scale * (evidence - anchor))`,
    the evidence being the logarithm of a member's probabilities, mixed with the class rates by
    its floor. Of values, `base + sum of scale * (value - anchor)`.

    Attributes:
        weights: Weight by member, 0 to 3; 0 for those that are left out.
        slopes: By member, what its evidence is multiplied by to be neither too bold nor too timid;
            1 for values. The scale is the weight times the slope.
        floors: By member, share of the class rates in its probabilities; 0 for values.
        anchors: `(classes,)` or `(1,)` by member, the evidence or value of its mean prediction.
        rates: `(classes,)` class rates; `(1,)` of ones for values.
        base: `(classes,)` logarithms of the rates; `(1,)` the mean target.
    """

    weights: dict[str, float]
    slopes: dict[str, float] = dataclasses.field(repr=False)
    floors: dict[str, float] = dataclasses.field(repr=False)
    anchors: dict[str, np.ndarray] = dataclasses.field(repr=False)
    rates: np.ndarray = dataclasses.field(repr=False)
    base: np.ndarray = dataclasses.field(repr=False)

    @property
    def is_linear(self) -> bool:
        """Whether values are pooled, not probabilities."""
        return len(self.base) == 1

    @property
    def scales(self) -> dict[str, float]:
        """Weight times slope, by member."""
        return {name: weight * self.slopes[name] for name, weight in self.weights.items()}

    def apply(self, predictions: Mapping[str, Any]) -> np.ndarray:
        """Pools the members' predictions of rows.

        Args:
            predictions: `(rows, classes)` probabilities, or `(rows, 1)` values, by member; those of
                weight 0 may be absent.

        Returns:
            `(rows, classes)` probabilities or `(rows, 1)` values.

        Raises:
            ValueError: If a member is absent or has another shape. The message names it.
        """
        scales = {name: scale for name, scale in self.scales.items() if scale}
        missing = sorted(scales.keys() - predictions.keys())
        if missing:
            raise ValueError(f"Predictions of the member(s) {missing} are missing.")
        rows = len(next(iter(predictions.values()))) if predictions else 0
        total = np.broadcast_to(self.base, (rows, len(self.base)))
        for name, scale in scales.items():
            part = _check_shape(predictions[name], (rows, len(self.base)), name)
            total = total + scale * (self._evidence(name, part) - self.anchors[name])
        return total if self.is_linear else softmax(total, axis=1)

    def _evidence(self, name: str, part: np.ndarray) -> np.ndarray:
        return part if self.is_linear else _log_mixed(part, self.rates, self.floors[name])


def fit_blend(
    predictions: Mapping[str, Any],
    y: Any,
    *,
    sample_weight: Any = None,
) -> Blend:
    """Learns how much each member counts, from predictions of rows that it was not trained on.

    The weights maximise the likelihood of the targets under the pool. What holds them is worth two
    rows or so: it draws them to the members as they would be trusted if one of them had to be
    chosen, each by its likelihood alone, and small ones to 0. So a member alone is always among
    the answers, and one that tells nothing fades as rows tell it. Members are first made neither
    too bold nor too timid, one by one: boosted trees on few rows are far too sure.

    Source: logarithmic opinion pools, Genest & Zidek, 1986, Statistical Science 1:114-135; their
    likelihood, Heskes, 1998, Selecting weighting factors in logarithmic opinion pools, Advances
    in Neural Information Processing Systems 10. Weights that must not be below 0: Breiman, 1996,
    Stacked regressions, Machine Learning 24:49-64.

    Args:
        predictions: By member, out-of-fold `(rows, classes)` probabilities, two columns for two
            classes; or `(rows,)` or `(rows, 1)` values of a regression.
        y: `(rows,)` labels from 0, or target values.
        sample_weight: `(rows,)` floats of 0 or more, how much each row counts; None for alike.

    Returns:
        `Blend`.

    Raises:
        ValueError: If there is no member, shapes differ, predictions are not finite or no
            probabilities, or `y` or the weights do not fit. The message names the member.

    Example:
        >>> y = np.arange(200) % 2
        >>> knows, guesses = np.where(y, 0.8, 0.2), np.full(200, 0.5)
        >>> members = {"a": np.stack([1 - knows, knows], 1), "b": np.stack([guesses, guesses], 1)}
        >>> fit_blend(members, y).weights["b"]
        0.0
    """
    if not predictions:
        raise ValueError("`predictions` holds no member.")
    y = np.asarray(y)
    if y.ndim != 1 or not len(y):
        raise ValueError(f"`y` must have shape (rows,). Received: {y.shape}.")
    parts = {name: _as_matrix(part) for name, part in predictions.items()}
    shape = next(iter(parts.values())).shape
    if shape[0] != len(y):
        shape = (len(y), *shape[1:])
    parts = {name: _check_shape(part, shape, name) for name, part in parts.items()}
    shares = _shares(sample_weight, len(y))
    fit = _fit_linear if shape[1] == 1 else _fit_log_linear
    return fit(parts, y, shares)


def _fit_log_linear(parts: dict[str, np.ndarray], y: np.ndarray, shares: np.ndarray) -> Blend:
    num_classes = next(iter(parts.values())).shape[1]
    labels = y.astype(np.int64)
    if (labels != y).any() or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"`y` must hold labels 0 to {num_classes - 1}.")
    for name, part in parts.items():
        sums = part.sum(axis=1)
        if (part < 0).any() or (abs(sums - 1) > 1e-3).any():
            raise ValueError(f"{name!r} must hold probabilities that sum to 1 in each row.")
    # Classes that no row has are given half a row: logarithms need it.
    counts = np.bincount(labels, shares, num_classes) * _count_rows(shares)
    rates = np.maximum(counts, 0.5) / np.maximum(counts, 0.5).sum()
    base = np.log(rates)
    slopes, floors, anchors, evidence, losses = {}, {}, {}, [], []
    for name, part in parts.items():
        fits = [_fit_slope(part, labels, shares, rates, floor) for floor in FLOORS]
        loss, slopes[name], floors[name], anchors[name] = min(fits, key=lambda fit: fit[0])
        losses.append(loss)
        mixed = _log_mixed(part, rates, floors[name])
        evidence.append(slopes[name] * (mixed - anchors[name]))
    stacked = np.stack(evidence)
    rows = np.arange(len(labels))
    of_truth = stacked[:, rows, labels] @ shares

    def loss_of(weights):
        scores = log_softmax(base + np.tensordot(weights, stacked, 1), axis=1)
        expected = np.einsum("mrc,rc,r->m", stacked, np.exp(scores), shares)
        return -(scores[rows, labels] @ shares), expected - of_truth

    weights = _fit_weights(loss_of, np.array(losses), _count_rows(shares))
    named = dict(zip(parts, weights.tolist(), strict=True))
    return Blend(named, slopes, floors, anchors, rates, base)


def _fit_slope(part, labels, shares, rates, floor: float) -> tuple[float, float, float, np.ndarray]:
    """Loss, slope, floor and anchor of one member alone."""
    anchor = _log_mixed(shares @ part / shares.sum(), rates, floor)
    evidence = _log_mixed(part, rates, floor) - anchor
    base, rows = np.log(rates), np.arange(len(labels))

    def loss_of(log_slope: float) -> float:
        scores = log_softmax(base + np.exp(log_slope) * evidence, axis=1)
        return -float(scores[rows, labels] @ shares)

    found = minimize_scalar(
        loss_of, bounds=tuple(np.log(SLOPES)), method="bounded", options={"xatol": 1e-3}
    )
    return float(found.fun), float(np.exp(found.x)), floor, anchor


def _fit_linear(parts: dict[str, np.ndarray], y: np.ndarray, shares: np.ndarray) -> Blend:
    targets = y.astype(np.float64)
    if not np.isfinite(targets).all():
        raise ValueError("`y` must be finite.")
    base = np.array([shares @ targets])
    anchors = {name: shares @ part for name, part in parts.items()}
    stacked = np.stack([part[:, 0] - anchors[name] for name, part in parts.items()])
    errors = targets - base
    alone = ((stacked - errors) ** 2) @ shares
    # Errors in units of the best member's, so that a row tells as much as it does of classes.
    scale = 2 * max(float(alone.min()), np.finfo(float).tiny)

    def loss_of(weights):
        residuals = weights @ stacked - errors
        return (residuals**2) @ shares / scale, 2 * (stacked * residuals) @ shares / scale

    weights = _fit_weights(loss_of, alone / scale, _count_rows(shares))
    named = dict(zip(parts, weights.tolist(), strict=True))
    ones, zeros = dict.fromkeys(parts, 1.0), dict.fromkeys(parts, 0.0)
    return Blend(named, ones, zeros, anchors, np.ones(1), base)


def _count_rows(shares: np.ndarray) -> int:
    """How many rows of one weight tell as much: Kish's effective sample size (Survey
    Sampling, 1965)."""
    return max(1, round(float(shares.sum() ** 2 / (shares**2).sum())))


def _fit_weights(loss_of, alone: np.ndarray, num_rows: int) -> np.ndarray:
    """The weights of least loss, held near what the members' own losses say of them."""
    trust = softmax(-num_rows * (alone - alone.min()))

    def penalised(weights):
        loss, slope = loss_of(weights)
        away = weights - trust
        held = 2 * away @ away + (1 - trust) @ weights
        return loss + held / num_rows, slope + (4 * away + 1 - trust) / num_rows

    bounds = [(0.0, MAX_WEIGHT)] * len(trust)
    found = minimize(
        penalised,
        trust,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": 1e-12, "gtol": 1e-8, "maxiter": 500},
    )
    return np.where(found.x < 1e-6, 0.0, found.x)


def _log_mixed(probabilities: np.ndarray, rates: np.ndarray, floor: float) -> np.ndarray:
    return np.log((1 - floor) * probabilities + floor * rates)


def _shares(sample_weight: Any, num_rows: int) -> np.ndarray:
    """`(rows,)` weights that sum to 1."""
    if sample_weight is None:
        return np.full(num_rows, 1 / num_rows)
    weights = np.asarray(sample_weight, np.float64)
    if weights.shape != (num_rows,) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
        raise ValueError(f"`sample_weight` must be {num_rows} finite numbers of 0 or more.")
    return weights / weights.sum()


def _as_matrix(values: Any) -> np.ndarray:
    values = np.asarray(values, np.float64)
    return values[:, None] if values.ndim == 1 else values


def _check_shape(values: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    values = _as_matrix(values)
    if values.shape != shape:
        raise ValueError(f"{name!r} must have shape {shape}. Received: {values.shape}.")
    wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if wrong.size:
        raise ValueError(f"{name!r} is not finite in row {wrong[0]} ({wrong.size} in all).")
    return values
