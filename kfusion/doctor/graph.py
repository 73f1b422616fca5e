"""Every call of a layer that a Functional model makes for some rows, models within it opened.

Calls know where their arguments come from, and these can be exchanged, so that gradients are taken
there. Layers made of others stay closed: `layer_calls` looks into those, and into any model.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kfusion.doctor.model_runs import check_built, feed, name_outputs, told
from kfusion.doctor.undecided import UndecidableError
from kfusion.layers import Frozen
from kfusion.models.trained_models import plain_model

# Layers that hand on the values, or part of them, in the range that they came in.
_HAND_ON = (
    keras.layers.ActivityRegularization,
    keras.layers.AlphaDropout,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.GaussianDropout,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.Identity,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.Permute,
    keras.layers.Reshape,
)
_ACTIVATION_LAYERS = {"relu", "leakyrelu", "elu", "prelu", "softmax", "sigmoid", "tanh"}


@dataclasses.dataclass(eq=False)
class Call:
    """One call of a layer, or one input of the model.

    Attributes:
        path: Name of the layer after those of the models that it is in: "image_branch/dense".
        operation: The layer or operation; None for an input.
        number: Int, which call it is.
        parents: The calls that gave its arguments; None for a tensor of unknown origin.
        arguments: The tensors in its arguments.
        positional: The arguments themselves.
        keywords: What it was called with besides, before Keras adds `training`.
        before: All calls that its arguments come from.
        is_pinned: Whether it is held in inference mode by `Frozen`.
        output: What it gave.
    """

    path: str
    operation: Any
    number: int
    parents: list[Call | None] = dataclasses.field(default_factory=list)
    arguments: list[Any] = dataclasses.field(default_factory=list)
    positional: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    before: frozenset[Call] = frozenset()
    is_pinned: bool = False
    output: Any = None

    @property
    def has_weights(self) -> bool:
        """Whether the layer has any."""
        return bool(getattr(self.operation, "weights", None))

    @property
    def lineage(self) -> frozenset[Call]:
        """The call itself and all before it."""
        return self.before | {self}

    @property
    def branch(self) -> str:
        """A short name of what it belongs to: the outermost model, or the layer itself."""
        return self.path.split("/")[0]


@dataclasses.dataclass
class Walk:
    """All calls of one run, in order.

    Attributes:
        calls: Those of layers and inputs.
        model_calls: Those of models within the model, which also stand as the calls inside.
        outputs: What the model gave, by name.
    """

    calls: list[Call]
    model_calls: list[Call]
    outputs: dict[str, Any]

    def maker_of(self, tensor: Any) -> Call | None:
        """The call that gave a tensor."""
        for call in reversed(self.calls):
            if any(tensor is each for each in keras.tree.flatten(call.output)):
                return call
        return None


def walk(
    model: keras.Model,
    inputs: Mapping[str, np.ndarray],
    *,
    training: bool = False,
    change: Callable[[Call], Sequence[Any]] | None = None,
) -> Walk:
    """Runs a model call by call; do it within `untouched(model)`.

    Args:
        model: A Functional or Sequential model that is built.
        inputs: Arrays by input name.
        training: Bool, the mode of every layer outside of `Frozen`.
        change: From a call that is about to be made to the tensors to put in its arguments' place.

    Raises:
        UndecidableError: If the inside of the model is not known, or it does not run on these rows.
    """
    check_built(model)
    graph = opened(model)
    if graph is None:
        raise UndecidableError(
            f"the inside of {model.name!r} is not known: it is a subclassed model"
        )
    walker = _Walker(training, change)
    with told(f"{model.name!r} does not run on its data"):
        outputs = walker.run(graph, feed(model, inputs), "", is_pinned=False)
    return Walk(walker.calls, walker.model_calls, name_outputs(model, outputs))


def opened(operation: Any) -> keras.Model | None:
    """The graph of a Functional or Sequential model; None for any other layer."""
    if not isinstance(operation, keras.Model) or not operation.built:
        return None
    graph = plain_model(operation)
    return None if graph is operation else graph


def source_of(call: Call) -> Call:
    """The call that values come from, before layers such as Dropout that only hand them on."""
    while _hands_on(call.operation) and len(call.parents) == 1 and call.parents[0] is not None:
        call = call.parents[0]
    return call


def activation_of(call: Call | None) -> str | None:
    """Name of the last activation that values went through; None if it is not known."""
    return None if call is None else _own_activation(source_of(call).operation)


def _hands_on(operation: Any) -> bool:
    is_plain = isinstance(operation, keras.layers.Activation)
    return isinstance(operation, _HAND_ON) or (is_plain and _own_activation(operation) == "linear")


def _own_activation(operation: Any) -> str | None:
    given = getattr(operation, "activation", None)
    if given is not None:
        return given if isinstance(given, str) else getattr(given, "__name__", None)
    name = type(operation).__name__.lower()
    return name if name in _ACTIVATION_LAYERS else None


class _Walker:
    def __init__(self, training: bool, change: Callable[[Call], Sequence[Any]] | None):
        self.training = training
        self.change = change
        self.calls: list[Call] = []
        self.model_calls: list[Call] = []
        # Calls by the ids of the tensors that they gave; `kept` keeps the ids from being reused.
        self.makers: dict[int, Call] = {}
        self.kept: list[Any] = []

    def run(self, graph: keras.Model, inputs: Any, prefix: str, *, is_pinned: bool) -> Any:
        # What Functional.call does, with each call in our hands.
        given = keras.tree.flatten(inputs)
        taken = keras.tree.flatten(graph._standardize_inputs(inputs))
        for before, after, symbolic in zip(given, taken, graph.inputs, strict=True):
            maker = self.makers.get(id(before))
            if maker is None and not prefix:
                maker = self._made(Call(symbolic.name, None, len(self.calls)), after)
            if maker is not None:
                self._remember(after, maker)
        return graph._run_through_graph(
            taken,
            operation_fn=lambda operation: functools.partial(
                self._call, operation, prefix, is_pinned
            ),
        )

    def _call(self, operation: Any, prefix: str, is_pinned: bool, *args: Any, **kwargs: Any) -> Any:
        inner = operation.model if isinstance(operation, Frozen) else operation
        graph = opened(inner)
        path = f"{prefix}{operation.name}"
        call = Call(path, operation, len(self.calls), keywords=kwargs, is_pinned=is_pinned)
        call.positional = args
        leaves = [leaf for leaf in keras.tree.flatten((args, kwargs)) if _is_tensor(leaf)]
        call.arguments = leaves
        call.parents = [self.makers.get(id(leaf)) for leaf in leaves]
        known = [parent for parent in call.parents if parent is not None]
        call.before = frozenset().union(*(parent.lineage for parent in known))
        if graph is not None:
            self.model_calls.append(call)
            pinned = is_pinned or isinstance(operation, Frozen)
            call.output = self.run(graph, args[0], f"{path}/", is_pinned=pinned)
            return call.output
        if self.change is not None and not is_pinned:
            new = iter(self.change(call))
            args, kwargs = keras.tree.map_structure(
                lambda leaf: next(new) if _is_tensor(leaf) else leaf, (args, kwargs)
            )
        if _takes_training(operation):
            kwargs = {**kwargs, "training": self.training and not is_pinned}
        return self._made(call, operation(*args, **kwargs)).output

    def _made(self, call: Call, output: Any) -> Call:
        call.output = output
        self.calls.append(call)
        for tensor in keras.tree.flatten(output):
            self._remember(tensor, call)
        return call

    def _remember(self, tensor: Any, maker: Call) -> None:
        self.makers[id(tensor)] = maker
        self.kept.append(tensor)


def _is_tensor(value: Any) -> bool:
    return keras.ops.is_tensor(value)


def _takes_training(operation: Any) -> bool:
    return "training" in inspect.signature(operation.call).parameters


def layers_in(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """A layer and all within it, in any depth, but for what `Frozen` holds."""
    yield layer
    if not isinstance(layer, Frozen):
        # Keras has no public way to the layers that a layer is made of.
        for part in layer._flatten_layers(include_self=False, recursive=False):
            yield from layers_in(part)
