"""Checks of what meets where the branches of a model are joined."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from kfusion.doctor.case import Case
from kfusion.doctor.drawn_rows import sample_rows
from kfusion.doctor.findings import Finding, Undecided
from kfusion.doctor.gradients import gradients
from kfusion.doctor.graph import Call, Walk, activation_of, source_of, walk
from kfusion.doctor.loss_terms import data_loss, loss_terms
from kfusion.doctor.model_runs import numbers, untouched
from kfusion.doctor.undecided import decides
from kfusion.layers import ConcatFusion, Presence, PresenceSwitch, StandIn

MAX_SPREAD_RATIO = 10.0
MAX_SHARE_DEAD = 0.5
MAX_SHARE_SATURATED = 0.5
MIN_GRADIENT_SHARE = 0.01
NEAR_LIMIT = 0.01
# A unit counts as saturated that is near a limit in so many of the rows.
SATURATED_ROWS = 0.95
# Values of these lie in 0 to 1; those of a tanh (that of every LSTM too) mix well with a relu's.
_UNIT_RANGE = {"sigmoid", "hard_sigmoid", "softmax"}
_LIMITS = {"sigmoid": (0, 1), "hard_sigmoid": (0, 1), "softmax": (0, 1), "tanh": (-1, 1)}
# Layers and operations that put values side by side or add them up as they come.
_MIXES = {"Concatenate", "Add", "Average", "Subtract", "Maximum", "Minimum", "Stack"}


@dataclasses.dataclass(frozen=True)
class Incoming:
    """What one branch brings to a join.

    Attributes:
        name: Path of the layer that made it.
        activation: Its activation, or None if not known.
        mean: Float, over rows and units.
        spread: Float, root of the mean over units of the variance over rows.
        dead: Share of units that are the same in all rows.
        saturated: Share of units that are near a limit of the activation in nearly all rows.
    """

    name: str
    activation: str | None
    mean: float
    spread: float
    dead: float
    saturated: float

    def __str__(self) -> str:
        activation = f" ({self.activation})" if self.activation else ""
        return f"{self.name!r}{activation}: mean {self.mean:.3g}, spread {self.spread:.3g}"


def joins(walked: Walk) -> list[Call]:
    """The calls at which branches meet, not those within a branch such as a skip connection.

    Two tensors are of different branches if no layer with weights led to both, neither led to the
    other, and they come from different inputs or each from at least two layers with weights.
    """
    return [call for call in walked.calls if _is_join(call)]


@decides("ranges_at_join")
def check_ranges_at_joins(case: Case) -> Iterator[Finding | Undecided]:
    """Values of different range side by side, dead units and saturated ones."""
    inputs, _ = sample_rows(case)
    with untouched(case.model):
        # Moving statistics of a model that was never trained are none.
        walked = walk(case.model, inputs, training=not case.is_trained)
        for join in joins(walked):
            brought = [_measure(join, i) for i in range(len(join.arguments))]
            if _mixes(join) and not _is_normalized(join, walked):
                learned = [
                    each
                    for each, maker in zip(brought, join.parents, strict=True)
                    if not _is_embedding(maker)
                ]
                yield from _judge_ranges(join.path, learned)
            for each, maker in zip(brought, join.parents, strict=True):
                if maker is not None and any(call.has_weights for call in maker.lineage):
                    yield from _judge_units(join.path, each)


@decides("gradient_share")
def check_gradient_shares(case: Case) -> Iterator[Finding | Undecided]:
    """Branches that the loss hardly reaches at the start.

    A branch's share is that of its mean over units of `variance * sum of squared gradients`: what
    a step along the gradient would change, whatever the units of the values are.
    """
    inputs, y = sample_rows(case)
    with untouched(case.model):
        for join in joins(walk(case.model, inputs)):
            if not _starts_closed(join.operation):
                yield from _judge_gradients(case, inputs, y, join)


def _judge_ranges(path: str, brought: Sequence[Incoming]) -> Iterator[Finding]:
    listed = "; ".join(map(str, brought))
    values = {each.name: {"mean": each.mean, "spread": each.spread} for each in brought}
    bounded = [each for each in brought if each.activation in _UNIT_RANGE]
    others = [each for each in brought if each.activation not in {*_UNIT_RANGE, "tanh", None}]
    if bounded and others:
        yield Finding(
            "mixed_activations_at_join",
            "warning",
            path,
            listed,
            f"a {bounded[0].activation} stays in 0 to 1 around its own mean, a "
            f"{others[0].activation} does not: the layer behind weighs both alike, and the fused "
            "model ends below its best input",
            "fused = kf.layers.ConcatFusion()([a, b])  # normalises each; and activation='relu' "
            f"in {bounded[0].name!r}",
            values,
        )
    live = [each for each in brought if each.spread > 0]
    if len(live) < 2:
        return
    widest = max(live, key=lambda each: each.spread)
    narrowest = min(live, key=lambda each: each.spread)
    ratio = widest.spread / narrowest.spread
    if ratio > MAX_SPREAD_RATIO:
        yield Finding(
            "spreads_differ_at_join",
            "warning",
            path,
            f"{listed}: the widest is {ratio:.3g} times the narrowest",
            f"the layer behind sees {widest.name!r} and next to nothing of {narrowest.name!r}",
            "fused = kf.layers.ConcatFusion()([a, b])  # normalises each before it joins them",
            {**values, "ratio": ratio},
        )


def _judge_units(path: str, each: Incoming) -> Iterator[Finding]:
    if each.dead > MAX_SHARE_DEAD:
        yield Finding(
            "dead_units_at_join",
            "warning",
            path,
            f"{each.dead:.0%} of the units of {each.name!r} have the same value in all rows",
            "these units tell nothing, and behind a relu they get no gradient either",
            f"a BatchNormalization in front of the activation of {each.name!r}; a lower "
            "learning rate if it was trained",
            {"dead": each.dead},
        )
    elif each.saturated > MAX_SHARE_SATURATED:
        yield Finding(
            "saturated_units_at_join",
            "warning",
            path,
            f"{each.saturated:.0%} of the units of {each.name!r} lie within {NEAR_LIMIT} of a "
            f"limit of {each.activation} in nearly all rows",
            "they hardly vary, and the gradient through them is nearly 0",
            f"a BatchNormalization in front of the activation of {each.name!r}, or "
            "activation='relu'",
            {"saturated": each.saturated},
        )


def _judge_gradients(case: Case, inputs, y, join: Call) -> Iterator[Finding]:
    strengths = _gradient_strengths(case, inputs, y, join)
    names = [_maker_name(join, i) for i in range(len(strengths))]
    if not strengths.sum() > 0:
        yield Finding(
            "no_gradient_at_join",
            "error",
            join.path,
            f"the gradient of the loss is {strengths.sum():.3g} at all of {names}",
            "nothing in front of this layer learns",
            "look at what is behind it: dead units, an output that is constant, a loss that is "
            "not finite",
        )
        return
    shares = strengths / strengths.sum()
    listed = ", ".join(f"{name!r} {share:.2%}" for name, share in zip(names, shares, strict=True))
    for name, share in zip(names, shares, strict=True):
        if share < MIN_GRADIENT_SHARE:
            yield Finding(
                "starved_branch",
                "warning",
                name,
                f"shares of the gradient at {join.path!r}, by unit and scale: {listed}",
                f"{name!r} learns last, and the others fit the targets without it",
                "fused = kf.layers.ConcatFusion()([a, b]), or auxiliary_heads=True in "
                "kf.build_fusion_model",
                {"shares": dict(zip(names, shares.tolist(), strict=True))},
            )


def _gradient_strengths(case: Case, inputs, y, join: Call) -> np.ndarray:
    """Of each branch the mean over units of `variance * sum of squared gradients`."""
    variances: list[np.ndarray] = []

    def loss_when_moved(moves):
        def change(call):
            if call.number != join.number:
                return call.arguments
            variances[:] = [_by_unit(tensor).var(axis=0) for tensor in call.arguments]
            return [
                tensor + keras.ops.cast(move, tensor.dtype)
                for tensor, move in zip(call.arguments, moves, strict=True)
            ]

        # In the mode of training, since that is when gradients flow.
        outputs = walk(case.model, inputs, training=True, change=change).outputs
        return data_loss(loss_terms(case, outputs), y, outputs)

    moves = [np.zeros(tensor.shape, np.float32) for tensor in join.arguments]
    found = [_by_unit(gradient) for gradient in gradients(loss_when_moved, moves)]
    return np.array(
        [
            np.mean(variance * np.square(gradient).sum(axis=0))
            for variance, gradient in zip(variances, found, strict=True)
        ]
    )


def _is_join(call: Call) -> bool:
    if isinstance(call.operation, (StandIn, PresenceSwitch)):
        return False
    makers = [maker for maker in call.parents if maker is not None]
    return (
        not call.is_pinned
        # What only says which inputs are there has learned nothing.
        and not any(isinstance(maker.operation, Presence) for maker in makers)
        and len(makers) == len(call.parents) >= 2
        and any(_are_branches(a, b) for a, b in itertools.combinations(makers, 2))
    )


def _are_branches(a: Call, b: Call) -> bool:
    if a in b.lineage or b in a.lineage:
        return False
    if any(call.has_weights for call in a.lineage & b.lineage):
        return False
    depths = [sum(call.has_weights for call in each.lineage) for each in (a, b)]
    return _inputs_of(a) != _inputs_of(b) or min(depths) >= 2


def _inputs_of(call: Call) -> set[Call]:
    return {each for each in call.lineage if each.operation is None}


def _measure(join: Call, position: int) -> Incoming:
    maker = join.parents[position]
    activation = activation_of(maker)
    values = _by_unit(join.arguments[position])
    variances = values.var(axis=0)
    is_dead = variances <= 1e-12 * (1 + np.square(values).mean(axis=0))
    saturated = 0.0
    if activation in _LIMITS:
        low, high = _LIMITS[activation]
        is_near = (values < low + NEAR_LIMIT) | (values > high - NEAR_LIMIT)
        saturated = float((is_near.mean(axis=0) >= SATURATED_ROWS).mean())
    return Incoming(
        _maker_name(join, position),
        activation,
        float(values.mean()),
        float(np.sqrt(variances.mean())),
        float(is_dead.mean()),
        saturated,
    )


def _by_unit(tensor: Any) -> np.ndarray:
    """`(rows, units)`, or `(rows and places, units)` of maps and sequences."""
    values = numbers(tensor)
    return values.reshape(-1, values.shape[-1]) if values.ndim > 1 else values[:, None]


def _maker_name(join: Call, position: int) -> str:
    maker = join.parents[position]
    return source_of(maker).path if maker is not None else f"{join.path}[{position}]"


def _mixes(join: Call) -> bool:
    if isinstance(join.operation, ConcatFusion):
        return not join.operation.normalize
    return type(join.operation).__name__ in _MIXES


def _is_normalized(join: Call, walked: Walk) -> bool:
    """Whether batch normalisation is what comes next."""
    behind = [call for call in walked.calls if join in call.parents]
    return bool(behind) and all(
        isinstance(call.operation, keras.layers.BatchNormalization) for call in behind
    )


def _is_embedding(maker: Call | None) -> bool:
    """Whether values come straight from a table of vectors, which starts small on purpose."""
    weighted = [call for call in maker.lineage if call.has_weights] if maker else []
    return len(weighted) == 1 and "Embedding" in type(weighted[0].operation).__name__


def _starts_closed(operation: Any) -> bool:
    """Whether a join has a kernel or a factor of 0: it lets nothing through at first on purpose."""
    weights = getattr(operation, "trainable_weights", [])
    factors = [keras.ops.convert_to_numpy(weight) for weight in weights if len(weight.shape) != 1]
    return any(not np.any(factor) for factor in factors)


CHECKS = (check_ranges_at_joins, check_gradient_shares)
