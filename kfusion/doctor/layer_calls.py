"""What goes into each layer of any model, also of a subclassed one and within other layers.

Seen from outside, in numbers: what changes there when the rows of an input are exchanged. `graph`
sees the tensors themselves and where they come from, which only Functional models tell.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from kfusion.doctor.model_runs import run, untouched

NORMALIZING = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.Normalization,
    keras.layers.RMSNormalization,
    keras.layers.UnitNormalization,
)


class LayerCall(NamedTuple):
    """One layer or operation at work.

    Attributes:
        operation: The layer or operation.
        tensors: What it was given, `(rows, ...)` arrays in its order.
        joins: Whether several tensors are given to be put together: a list of them to a layer, or
            two to an operation such as `keras.ops.add`; not states to a recurrent cell.
    """

    operation: Any
    tensors: list[np.ndarray]
    joins: bool = False


def watch(
    model: keras.Model, x: Mapping[str, np.ndarray], see: Callable[[int, LayerCall], None]
) -> None:
    """Runs a model on one batch and shows each layer's call, in the order in which they begin.

    Args:
        model: Any `keras.Model`, models within it included.
        x: Arrays of one batch by the name of the input.
        see: Called with the number of the call and the call.

    Raises:
        UndecidableError: If the model does not run on these rows.
    """
    count = 0

    def show(operation, arguments):
        nonlocal count
        tensors = [
            _values(tensor) for tensor in keras.tree.flatten(arguments) if _is_tensor(tensor)
        ]
        if tensors and all(tensor is not None for tensor in tensors):
            see(count, LayerCall(operation, tensors, _joins(operation, arguments)))
        count += 1

    with untouched(model), _calls_shown(model, show):
        run(model, x)


def digests(model: keras.Model, x: Mapping[str, np.ndarray]) -> dict[int, list[int]]:
    """What tells the tensors of each call from others, by the number of the call."""
    found = {}

    def see(number, call):
        found[number] = [hash(tensor.tobytes()) for tensor in call.tensors]

    watch(model, x, see)
    return found


def calls(model: keras.Model, x: Mapping[str, np.ndarray], numbers: Any) -> dict[int, LayerCall]:
    """The calls of these numbers."""
    found = {}

    def see(number, call):
        if number in numbers:
            found[number] = call

    watch(model, x, see)
    return found


def rolled(x: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The same rows, but for one input, which each takes from the row before."""
    return {key: np.roll(array, 1, axis=0) if key == name else array for key, array in x.items()}


def own_weights(layer: Any) -> list[Any]:
    """Weights that a layer would train if it were not frozen, without those of layers within it."""
    # Keras has no public way to them.
    return list(getattr(layer, "_trainable_variables", ()))


def _operations(model: keras.Model) -> list[Any]:
    """All layers, those within others too, and the operations between them."""
    found = {}
    for layer in model._flatten_layers():
        for operation in (layer, *getattr(layer, "operations", ())):
            found[id(operation)] = operation
    return [each for each in found.values() if not isinstance(each, keras.Model)]


@contextlib.contextmanager
def _calls_shown(model: keras.Model, show: Callable[[Any, Any], None]) -> Iterator[None]:
    def shown(operation):
        call = operation.call

        @functools.wraps(call)
        def wrapped(*arguments, **keywords):
            show(operation, (arguments, keywords))
            return call(*arguments, **keywords)

        return wrapped

    operations = _operations(model)
    before = [vars(operation).get("call") for operation in operations]
    # Into the instances themselves: Keras' own `__setattr__` would track and lock.
    for operation in operations:
        vars(operation)["call"] = shown(operation)
    try:
        yield
    finally:
        for operation, call in zip(operations, before, strict=True):
            if call is None:
                del vars(operation)["call"]
            else:
                vars(operation)["call"] = call


def _joins(operation: Any, arguments: Any) -> bool:
    positional, keywords = arguments
    first = next(iter([*positional, *keywords.values()]), None)
    given = first if isinstance(operation, keras.layers.Layer) else arguments
    return sum(map(_is_tensor, keras.tree.flatten(given))) > 1


def _is_tensor(value: Any) -> bool:
    return keras.ops.is_tensor(value) or isinstance(value, np.ndarray)


def _values(tensor: Any) -> np.ndarray | None:
    """A tensor's values; None within a loop that the backend traces, where there are none yet."""
    try:
        return keras.ops.convert_to_numpy(tensor)
    except Exception:
        return None
