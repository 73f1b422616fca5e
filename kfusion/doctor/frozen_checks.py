"""Checks of parts that are meant to stay as they are."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from kfusion.doctor.case import Case
from kfusion.doctor.drawn_rows import FEW_ROWS, sample_rows
from kfusion.doctor.findings import Finding, Undecided
from kfusion.doctor.graph import Call, Walk, layers_in, walk
from kfusion.doctor.model_runs import check_built, numbers, told, untouched
from kfusion.doctor.undecided import decides
from kfusion.layers import Frozen

_FREEZE = "part = kf.freeze(part)"


@decides("frozen_parts")
def check_frozen_parts(case: Case) -> Iterator[Finding | Undecided]:
    """Layers that do not train and yet act otherwise in training, or move."""
    if not _has_frozen(case.model) and not _has_flags(case.model):
        return
    inputs, _ = sample_rows(case, FEW_ROWS)
    with untouched(case.model):
        walked = walk(case.model, inputs, training=True)
        yield from _judge_random_layers(walked)
    yield from _judge_flags(case, inputs)
    yield from _judge_moving_statistics(case, inputs)


@decides("trainable_after_compile")
def check_trainable_after_compile(case: Case) -> Iterator[Finding | Undecided]:
    """`trainable` set anew on a model whose optimizer is made for other weights."""
    model = case.model
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not getattr(optimizer, "built", False):
        return
    check_built(model)
    kept = {id(weight) for weight in optimizer._trainable_variables}
    now = {id(weight) for weight in model.trainable_variables}
    frozen = [each for each in model.variables if id(each) in kept - now]
    added = [each for each in model.trainable_variables if id(each) not in kept]
    if frozen or added:
        parts = []
        if frozen:
            parts.append(f"{len(frozen)} weights that no longer train, such as {frozen[0].path!r}")
        if added:
            parts.append(f"none of {len(added)} that now do, such as {added[0].path!r}")
        yield Finding(
            "trainable_changed_after_compile",
            "error",
            model.name,
            f"the optimizer is made for {len(kept)} weights, among them {' and '.join(parts)}",
            "tensorflow goes on training what it trained before, jax stops with an error",
            "model.compile(...)  # again, after `trainable` is set",
            {"no_longer_train": len(frozen), "now_train": len(added)},
        )


def _judge_random_layers(walked: Walk) -> Iterator[Finding]:
    """Dropout and the like in frozen layers, which `fit` leaves on."""
    shares: dict[str, list[float]] = {}
    for call in walked.calls:
        if call.is_pinned or not _is_random(call) or call.operation.trainable:
            continue
        before, after = (numbers(each) for each in (call.arguments[0], call.output))
        if before.shape == after.shape and before.size:
            # A dropout scales what it keeps: only what became 0 is lost.
            lost = np.mean((after == 0) & (before != 0)) / max(np.mean(before != 0), 1e-12)
            changed = np.mean(after != before)
            if changed > 0:
                shares.setdefault(call.branch, []).append(float(max(lost, 0)))
    for part, lost in shares.items():
        yield Finding(
            "dropout_in_frozen_part",
            "warning",
            part,
            f"{len(lost)} layer(s) that do not train drop or disturb values all the same: up to "
            f"{max(lost):.0%} of them were lost in a step of training",
            "`trainable = False` leaves Dropout and noise on in fit: what is trained behind them "
            "sees other features than it will see when it predicts",
            _FREEZE,
            {"lost": lost},
        )


def _judge_flags(case: Case, inputs) -> Iterator[Finding]:
    """`layer(x, training=False)` in a Functional model."""
    with untouched(case.model):
        walked = walk(case.model, inputs, training=False)
        for call in (*walked.model_calls, *walked.calls):
            if call.is_pinned or not _is_flagged(call.operation, call.keywords):
                continue
            at_rest, in_fit = (_output_of(call, mode) for mode in (False, True))
            scale = max(float(at_rest.std()), 1e-12)
            difference = float(np.sqrt(np.mean(np.square(in_fit - at_rest)))) / scale
            if difference > 1e-3:
                yield Finding(
                    "training_flag_without_effect",
                    "warning",
                    call.path,
                    "it was called with training=False, which fit overrides: its outputs then "
                    f"differ by {difference:.2g} of their spread on the same rows",
                    "Dropout is on and BatchNormalization normalises by the batch in fit, whatever "
                    "the flag says",
                    _FREEZE,
                    {"difference": difference},
                )


def _judge_moving_statistics(case: Case, inputs) -> Iterator[Finding]:
    """BatchNormalization that still updates within a part that does not train."""
    with untouched(case.model) as scope:
        walked = walk(case.model, inputs, training=True)
    # Outside of the scope, where variables have the values from before.
    moved: dict[str, list[str]] = {}
    for call in walked.calls:
        is_normalization = isinstance(call.operation, keras.layers.BatchNormalization)
        if is_normalization and not call.is_pinned and _is_within_frozen(call, walked):
            new = [(each, scope.get_current_value(each)) for each in call.operation.variables]
            if any(v is not None and np.any(numbers(v) != numbers(each)) for each, v in new):
                moved.setdefault(call.branch, []).append(call.path)
    for part, paths in moved.items():
        yield Finding(
            "frozen_part_moves",
            "warning",
            part,
            f"the statistics of {len(paths)} BatchNormalization layer(s), such as {paths[0]!r}, "
            "change in a step of training, between layers whose weights do not",
            "the part answers otherwise after each epoch, while the weights around its "
            "normalisation stay made for what it was",
            _FREEZE,
            {"layers": paths},
        )


def _output_of(call: Call, training: bool) -> np.ndarray:
    """What a layer gives for what it was given, in the mode asked for."""
    with told(f"{call.path!r} does not run with training={training}"):
        given = call.operation(*call.positional, **{**call.keywords, "training": training})
        return numbers(keras.tree.flatten(given)[0])


def _has_frozen(model: keras.Model) -> bool:
    return any(not layer.trainable for layer in layers_in(model) if not isinstance(layer, Frozen))


def _has_flags(model: keras.Model) -> bool:
    return any(
        _is_flagged(operation, node.arguments.kwargs)
        for part in layers_in(model)
        for operation in getattr(part, "operations", ())
        for node in operation._inbound_nodes
    )


def _is_flagged(operation: Any, keywords: Mapping[str, Any]) -> bool:
    """Whether a layer was called with `training=False`, not by its own default as Dropout is."""
    if keywords.get("training") is not False:
        return False
    own = inspect.signature(operation.call).parameters.get("training")
    return own is None or own.default is not False


def _is_random(call: Call) -> bool:
    """Whether a layer draws numbers of its own in training."""
    layer = call.operation
    return (
        isinstance(layer, keras.layers.Layer)
        and not isinstance(layer, Frozen)
        and getattr(layer, "seed_generator", None) is not None
        and len(call.arguments) == 1
    )


def _is_within_frozen(call: Call, walked: Walk) -> bool:
    """Whether weights that do not train stand before and behind a layer."""
    before = any(_is_fixed(each) for each in call.before)
    return before and any(_is_fixed(each) and call in each.before for each in walked.calls)


def _is_fixed(call: Call) -> bool:
    """Whether it has weights of its own kind, of which none trains."""
    layer = call.operation
    return (
        isinstance(layer, keras.layers.Layer)
        and not isinstance(layer, (keras.layers.BatchNormalization, keras.layers.Normalization))
        and bool(layer.weights)
        and not layer.trainable
    )


CHECKS = (check_frozen_parts, check_trainable_after_compile)
