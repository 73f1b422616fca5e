"""A text that changes with anything that changes what a frozen part answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from kfusion.frozen.frozen_parts import CHAINS, Part, Step, Value, is_augmentation, trace
from kfusion.frozen.told_code import Told, UnknownPartError, library_version
from kfusion.layers import Frozen


class PartKey(NamedTuple):
    """What a part is.

    Attributes:
        text: A digest.
        has_own_code: Whether users gave functions or code of theirs to it.
    """

    text: str
    has_own_code: bool


def part_key(part: Part, row_shapes: Sequence[tuple[int, ...]]) -> PartKey:
    """A digest of a part: operations and their settings, weights, wiring, code and versions.

    Names count for nothing, so that a network built again from the same weights has the same key.

    Args:
        part: `Part` of a model.
        row_shapes: Shape of a row of each of its inputs.

    Raises:
        UnknownPartError: If something in it does not tell what it does; see `Told`.
    """
    told = Told()
    dtypes = [value.tensor.dtype for value in part.inputs]
    try:
        steps = _steps(told, part.inputs, part.steps, part.outputs)
    except RecursionError as error:
        raise UnknownPartError("it refers to data that contain themselves") from error
    about = [_versions(), _settings(), dtypes, list(map(list, row_shapes)), steps]
    digest = hashlib.blake2b(json.dumps(about).encode(), digest_size=16)
    return PartKey(digest.hexdigest(), told.has_own_code)


def _versions() -> list[str]:
    backend = keras.backend.backend()
    return [backend, *map(library_version, (backend, "keras", "kfusion"))]


def _settings() -> list[Any]:
    """Of Keras, what operations look up while they run."""
    config = keras.config
    return [config.floatx(), config.epsilon(), config.image_data_format()]


def _steps(
    told: Told, inputs: Sequence[Value], steps: Sequence[Step], outputs: Sequence[Value]
) -> list[Any]:
    numbers = {value: i for i, value in enumerate(inputs)}
    found = []
    for step in steps:
        where = f"a call of {step.operation.name!r}"
        wiring = keras.tree.map_structure(
            lambda leaf: (
                f"value {numbers[leaf]}"
                if isinstance(leaf, Value)
                else json.dumps(told.value(leaf, where))  # noqa: B023
            ),
            (step.positional, {k: v for k, v in step.keywords.items() if k != "training"}),
        )
        found.append([wiring, _operation(told, step.operation)])
        for value in step.outputs:
            numbers[value] = len(numbers)
    return [*found, [numbers[value] for value in outputs]]


def _operation(told: Told, operation: Any) -> list[Any]:
    if is_augmentation(operation) and type(operation) in CHAINS:
        return [_operation(told, layer) for layer in operation.layers]
    if not isinstance(operation, Frozen):
        return told.operation(operation)
    graph = trace(operation.model)
    if graph is None:
        return told.operation(operation.model)
    return _steps(told, graph.inputs, graph.steps, keras.tree.flatten(graph.outputs))
