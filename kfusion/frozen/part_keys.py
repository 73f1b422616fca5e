"""A text that changes with anything that changes what a frozen part answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from types import CodeType
from typing import Any

import keras
import numpy as np

from kfusion.frozen.frozen_parts import Part, Step, Value, trace
from kfusion.layers import Frozen

# Of one layer, these say nothing of what it answers; names are counted up in each process.
IGNORED = ("name", "trainable")


class UnknownPartError(ValueError):
    """Something in a part does not tell what it does."""


def part_key(part: Part, row_shapes: Sequence[tuple[int, ...]]) -> str:
    """A digest of a part: operations and their settings, weights, wiring, code, Keras' version.

    Names count for nothing, so that a network built again from the same weights has the same key.

    Args:
        part: `Part` of a model.
        row_shapes: Shape of a row of each of its inputs.

    Raises:
        UnknownPartError: If a layer has no config, or keeps more than its weights and config say.
    """
    digest = hashlib.blake2b(digest_size=16)
    dtypes = [value.tensor.dtype for value in part.inputs]
    _add(digest, [keras.backend.backend(), keras.__version__, dtypes, list(map(list, row_shapes))])
    _add_steps(digest, part.inputs, part.steps, part.outputs)
    return digest.hexdigest()


def _add_steps(
    digest: Any, inputs: Sequence[Value], steps: Sequence[Step], outputs: Sequence[Value]
) -> None:
    numbers = {value: i for i, value in enumerate(inputs)}
    for step in steps:
        wiring = keras.tree.map_structure(
            lambda leaf: f"value {numbers[leaf]}" if isinstance(leaf, Value) else _constant(leaf),
            (step.positional, {k: v for k, v in step.keywords.items() if k != "training"}),
        )
        _add(digest, wiring)
        _add_operation(digest, step.operation)
        for value in step.outputs:
            numbers[value] = len(numbers)
    _add(digest, [numbers[value] for value in outputs])


def _add_operation(digest: Any, operation: Any) -> None:
    if isinstance(operation, Frozen):
        graph = trace(operation.model)
        if graph is None:
            _add_operation(digest, operation.model)
        else:
            outputs = keras.tree.flatten(graph.outputs)
            _add_steps(digest, graph.inputs, graph.steps, outputs)
        return
    parts = operation._flatten_layers() if isinstance(operation, keras.layers.Layer) else []
    for part in parts:
        if hasattr(part, "save_assets"):
            raise UnknownPartError(f"layer {part.name!r} keeps more than weights")
    try:
        config = keras.saving.serialize_keras_object(operation.get_config())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise UnknownPartError(f"{operation.name!r} has no config: {error}") from error
    _add(digest, {name: value for name, value in config.items() if name not in IGNORED})
    for each in dict.fromkeys(type(each) for each in (operation, *parts)):
        _add_class(digest, each)
    _add(digest, [_constant(weight) for weight in getattr(operation, "weights", ())])


def _constant(value: Any) -> str:
    """A digest of an array; any other argument as it is written."""
    if not (isinstance(value, (np.ndarray, keras.Variable)) or keras.ops.is_tensor(value)):
        return repr(value)
    array = np.ascontiguousarray(keras.ops.convert_to_numpy(value))
    content = hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()
    return f"{array.dtype} {array.shape} {content}"


def _add_class(digest: Any, kind: type) -> None:
    """A class by its name and, where it is not Keras' own, its code: it may be another tomorrow."""
    for each in kind.__mro__:
        _add(digest, f"{each.__module__}.{each.__qualname__}")
        if each.__module__.split(".")[0] in ("keras", "builtins"):
            return
        for name, member in sorted(vars(each).items()):
            code = getattr(member, "__code__", None)
            if code is not None:
                _add(digest, [name, _instructions(code)])


def _instructions(code: CodeType) -> list[Any]:
    """What a function does, wherever it is written."""
    constants = [
        _instructions(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts
    ]
    return [code.co_code.hex(), list(code.co_names), constants]


def _add(digest: Any, about: Any) -> None:
    digest.update(json.dumps(about, sort_keys=True, default=repr).encode() + b"\n")
