"""The parts of a model's graph that answer alike throughout training, and what is left to train."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kfusion.layers import Frozen
from kfusion.models.trained_models import plain_model

# Layers that take `training` and, unless their weights are quantized, do nothing with it.
ALIKE = (
    keras.layers.CenterCrop,
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Resizing,
)
# Layers that do nothing but change each image at random in training. CutMix and MixUp mix rows and
# want their labels, AugMix draws while it is traced, and on some backends RandomCrop and
# RandomElasticTransform do not run within `fit`.
_NAMES = (
    "RandAugment",
    "RandomBrightness",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomContrast",
    "RandomErasing",
    "RandomFlip",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomPerspective",
    "RandomPosterization",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
    "Solarization",
)
# Older versions of Keras lack some.
AUGMENTATIONS = tuple(getattr(keras.layers, name) for name in _NAMES if hasattr(keras.layers, name))
# What holds layers that are called one behind the other.
CHAINS = (keras.Sequential, keras.layers.Pipeline)
DTYPES = ("bfloat16", "float16", "float32", "float64", "int32", "int64", "uint8", "bool")


@dataclasses.dataclass(eq=False, repr=False)
class Value:
    """One tensor of a graph.

    Attributes:
        tensor: `keras.KerasTensor`.
        step: The call that gives it; None for an input of the model.
        is_fixed: Whether a row has the same value in every epoch; or, where augmented views are
            kept, does once a view of it is drawn.
        is_frozen: Whether weights that could train, but do not, have made it.
    """

    tensor: Any
    step: Step | None = None
    is_fixed: bool = True
    is_frozen: bool = False


@dataclasses.dataclass(eq=False, repr=False)
class Step:
    """One call of an operation, with a `Value` in place of each tensor."""

    operation: Any
    positional: tuple[Any, ...]
    keywords: Mapping[str, Any]
    outputs: list[Value] = dataclasses.field(default_factory=list)

    @property
    def taken(self) -> list[Value]:
        """The values among its arguments."""
        return _values(self.positional) + _values(self.keywords)


@dataclasses.dataclass(eq=False, repr=False)
class Graph:
    """All calls of a model in order, models within it opened."""

    inputs: list[Value]
    steps: list[Step]
    outputs: Any


@dataclasses.dataclass(eq=False, repr=False)
class Part:
    """Frozen calls that hang together, with all before them: from inputs to what is kept."""

    inputs: list[Value]
    steps: list[Step]
    outputs: list[Value]

    @property
    def operations(self) -> set[int]:
        """Ids of the operations that make it frozen, or augment in front of these."""
        return {
            id(step.operation)
            for step in self.steps
            if _is_frozen_by(step.operation) or is_augmentation(step.operation)
        }

    @property
    def augmentations(self) -> list[Step]:
        """The calls that change rows at random in training."""
        return [step for step in self.steps if is_augmentation(step.operation)]

    @property
    def has_bare_operations(self) -> bool:
        """Whether some of its calls are of no layer, and so may mix rows."""
        # `branch_from` casts, which is to each number alone.
        return any(
            not isinstance(step.operation, keras.layers.Layer)
            and type(step.operation).__name__ != "Cast"
            for step in _opened_steps(self.steps)
        )

    def widest_call(self) -> int:
        """Bytes that the widest of its calls takes and gives for a row, sizes unknown left out."""
        return max(map(_call_bytes, _opened_steps(self.steps)), default=0)


@dataclasses.dataclass(eq=False, repr=False)
class Split:
    """A model in two: its frozen parts, and the steps that train on what these give."""

    parts: list[Part]
    inputs: list[Value]
    steps: list[Step]
    outputs: Any


class StepsModel(keras.Model):
    """Runs some calls of a model's graph: from a dict of what they take to what they give.

    Args:
        given: `Value` by name, what is taken.
        steps: The calls in order.
        outputs: Structure of values.
        weights_of: Layers whose weights are this model's, in their order.
    """

    def __init__(
        self,
        given: Mapping[str, Value],
        steps: Sequence[Step],
        outputs: Any,
        weights_of: Iterable[keras.layers.Layer],
        **kwargs: Any,
    ):
        # The operations cast what they take themselves.
        super().__init__(autocast=False, **kwargs)
        self.weights_of = list(weights_of)
        self._run = lambda tensors, training: run_steps(
            {given[name]: tensor for name, tensor in tensors.items()}, steps, outputs, training
        )
        self._input = {name: value.tensor for name, value in given.items()}
        self.built = True

    def call(self, inputs, training=None):
        return self._run(inputs, training)

    @property
    def input(self):
        """What is taken, by name."""
        return self._input


def run_steps(
    tensors: dict[Value, Any], steps: Sequence[Step], outputs: Any, training: bool | None
) -> Any:
    """Calls operations in order, as the Functional model that they are from does.

    Args:
        tensors: Tensor by value.
        steps: The calls.
        outputs: Structure of values to return.
        training: Bool, the mode; None for the usual one.
    """
    tensors = dict(tensors)
    for step in steps:
        positional, keywords = keras.tree.map_structure(
            lambda leaf: tensors[leaf] if isinstance(leaf, Value) else leaf,
            (step.positional, dict(step.keywords)),
        )
        if training is not None and _takes_training(step.operation):
            keywords["training"] = training
        given = keras.tree.flatten(step.operation(*positional, **keywords))
        tensors.update(zip(step.outputs, given, strict=True))
    return keras.tree.map_structure(lambda value: tensors[value], outputs)


def split_model(
    model: keras.Model, trained: Collection[int] = (), *, views: bool = False
) -> Split | None:
    """Cuts a model behind each frozen part of its graph, as late as can be.

    A value is fixed if all that it comes from are operations without weights that train and
    without another behaviour in training: `Frozen`, and other layers that take no `training`. It
    is kept if frozen weights made it; what is only rescaled pixels is made anew each time.

    Args:
        model: A built Functional or Sequential model.
        trained: Ids of operations to take for trained, whatever they are.
        views: Whether augmented views are kept: parts may then begin with augmentation, unless
            what is left to train takes the same augmented images too.

    Returns:
        `Split`; None if nothing is frozen or the model's inside is not known.
    """
    graph = trace(model, trained, views=views)
    if graph is None:
        return None
    ends = [value.step for value in _values(graph.outputs) if value.step is not None]
    needed, cuts, inputs = set(ends), [], []
    waiting = list(ends)
    while waiting:
        for value in waiting.pop().taken:
            if _can_be_kept(value):
                cuts.append(value)
            elif value.step is None:
                inputs.append(value)
            elif value.step not in needed:
                needed.add(value.step)
                waiting.append(value.step)
    if not cuts:
        return None
    parts = _parts(graph, list(dict.fromkeys(cuts)))
    shared = {id(step.operation) for part in parts for step in part.augmentations if step in needed}
    if shared:
        return split_model(model, {*trained, *shared}, views=views)
    steps = [step for step in graph.steps if step in needed]
    return Split(parts, list(dict.fromkeys(inputs)), steps, graph.outputs)


def whole_part(model: keras.Model, *, views: bool = False) -> Part | None:
    """All of a model as one part; None if its inside is not known."""
    graph = trace(model, views=views)
    if graph is None:
        return None
    return Part(graph.inputs, graph.steps, _values(graph.outputs))


def trace(
    model: keras.Model, trained: Collection[int] = (), *, views: bool = False
) -> Graph | None:
    """The calls that a model makes; None if its inside is not known. See `split_model`."""
    graph = _opened(model)
    if graph is None:
        return None
    inputs = [Value(tensor) for tensor in graph.inputs]
    values = {id(value.tensor): value for value in inputs}
    steps: list[Step] = []
    if not _trace_into(graph, values, steps, trained, views):
        return None
    outputs = keras.tree.map_structure(lambda tensor: values[id(tensor)], graph.output)
    return Graph(inputs, steps, outputs)


def _trace_into(
    graph: keras.Model,
    values: dict[int, Value],
    steps: list[Step],
    trained: Collection[int],
    views: bool,
) -> bool:
    """Adds the calls of a graph; false if a tensor in it has an unknown origin."""
    # Keras has no public way to the calls of a graph in order.
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.is_input:
                continue
            if any(id(tensor) not in values for tensor in node.input_tensors):
                return False
            positional, keywords = node.arguments.convert(
                lambda leaf: values[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf
            )
            inner = _opened(node.operation)
            pairs = None if inner is None else _pairs(inner, positional, keywords)
            if pairs is not None:
                assert inner is not None
                within = {id(taken): value for taken, value in pairs}
                if not _trace_into(inner, within, steps, trained, views):
                    return False
                found = [within[id(tensor)] for tensor in inner.outputs]
            else:
                step = _step(node, positional, keywords, trained, views)
                steps.append(step)
                found = step.outputs
            values.update((id(out), value) for out, value in zip(node.outputs, found, strict=True))
    return True


def _step(node: Any, positional: Any, keywords: Any, trained: Collection[int], views: bool) -> Step:
    operation = node.operation
    step = Step(operation, positional, keywords)
    taken = step.taken
    is_fixed = (
        all(value.is_fixed for value in taken)
        and id(operation) not in trained
        and (is_constant(operation) or (views and _gives_views(step)))
    )
    is_frozen = any(value.is_frozen for value in taken) or _is_frozen_by(operation)
    step.outputs = [Value(tensor, step, is_fixed, is_frozen) for tensor in node.outputs]
    return step


def _can_be_kept(value: Value) -> bool:
    return (
        value.is_fixed
        and value.is_frozen
        and value.tensor.dtype in DTYPES
        # A mask travels beside its tensor and would be lost.
        and getattr(value.tensor, "_keras_mask", None) is None
    )


def is_augmentation(operation: Any) -> bool:
    """Whether an operation is known to do nothing but change images at random in training."""
    if type(operation) not in CHAINS:
        return type(operation) in AUGMENTATIONS
    found = [is_augmentation(layer) for layer in operation.layers]
    others = [
        layer for layer, is_found in zip(operation.layers, found, strict=True) if not is_found
    ]
    return any(found) and not operation.weights and all(map(is_constant, others))


def _gives_views(step: Step) -> bool:
    """Whether a call augments images that no frozen weights have made: behind them it is noise."""
    taken = step.taken
    return (
        is_augmentation(step.operation)
        and list(step.positional) == taken
        and len(taken) == 1
        and not taken[0].is_frozen
    )


def is_constant(operation: Any) -> bool:
    """Whether an operation gives the same in every epoch for what it takes."""
    if not isinstance(operation, keras.layers.Layer):
        return True
    # Keras has no public way to the layers that a layer is made of.
    parts = operation._flatten_layers()
    return not (
        operation.trainable_weights
        or any(part.activity_regularizer is not None for part in parts)
        or any(getattr(part, "stateful", False) for part in parts)
        or not (isinstance(operation, Frozen) or all(map(_ignores_training, parts)))
    )


def _ignores_training(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.layers.BatchNormalization):
        return not layer.trainable
    if type(layer) in ALIKE:
        return layer.quantization_mode is None
    return isinstance(layer, Frozen) or not _takes_training(layer)


def _is_frozen_by(operation: Any) -> bool:
    """Whether it holds weights that would train if they were not frozen."""
    if isinstance(operation, Frozen):
        return not operation.trainable_weights
    if not isinstance(operation, keras.layers.Layer) or operation.trainable_weights:
        return False
    return any(part._trainable_variables for part in operation._flatten_layers())


def _takes_training(operation: Any) -> bool:
    return "training" in inspect.signature(operation.call).parameters


def _opened(operation: Any) -> keras.Model | None:
    """The graph of a model that is nothing but one; None for any other layer."""
    if not isinstance(operation, keras.Model) or not operation.built:
        return None
    graph = plain_model(operation)
    is_usual = type(operation) in (type(graph), keras.Sequential)
    return graph if graph is not operation and is_usual else None


def _pairs(
    graph: keras.Model, positional: tuple, keywords: Mapping[str, Any]
) -> list[tuple[Any, Value]] | None:
    """What a model within a model takes, beside what it is given; None if it has to be changed."""
    # The mode of a call within a graph is overridden when the graph is run.
    further = [name for name, value in keywords.items() if value is not None and name != "training"]
    if len(positional) != 1 or further:
        return None
    (given,), wanted = positional, graph.input
    if isinstance(given, dict) or isinstance(wanted, dict):
        if not (isinstance(given, dict) and isinstance(wanted, dict)) or set(given) != set(wanted):
            return None
        pairs = [(wanted[name], given[name]) for name in wanted]
    else:
        pairs = list(zip(keras.tree.flatten(wanted), keras.tree.flatten(given), strict=True))
    fits = all(
        isinstance(value, Value)
        and value.tensor.dtype == taken.dtype
        and len(value.tensor.shape) == len(taken.shape)
        for taken, value in pairs
    )
    return pairs if fits else None


def _parts(graph: Graph, cuts: list[Value]) -> list[Part]:
    """The cuts with what is in front of them; those that share frozen operations together."""
    groups: list[tuple[list[Value], set[int]]] = []
    for cut in cuts:
        joined, operations = [cut], _part(graph, [cut]).operations
        for group in [group for group in groups if group[1] & operations]:
            groups.remove(group)
            joined, operations = group[0] + joined, group[1] | operations
        groups.append((joined, operations))
    return [_part(graph, values) for values, _ in groups]


def _part(graph: Graph, outputs: list[Value]) -> Part:
    steps, inputs = set(), set()
    waiting = list(outputs)
    while waiting:
        value = waiting.pop()
        if value.step is None:
            inputs.add(value)
        elif value.step not in steps:
            steps.add(value.step)
            waiting += value.step.taken
    return Part(
        [value for value in graph.inputs if value in inputs],
        [step for step in graph.steps if step in steps],
        outputs,
    )


def _opened_steps(steps: Iterable[Step]) -> Iterator[Step]:
    """All calls, with those of a frozen model in place of the one of it."""
    for step in steps:
        graph = trace(step.operation.model) if isinstance(step.operation, Frozen) else None
        yield from [step] if graph is None else _opened_steps(graph.steps)


def _call_bytes(step: Step) -> int:
    tensors = [value.tensor for value in (*step.taken, *step.outputs)]
    return sum(math.prod(filter(None, t.shape)) * _item_bytes(t.dtype) for t in tensors)


def _item_bytes(dtype: str) -> int:
    return np.dtype(dtype).itemsize if dtype in DTYPES else 4


def _values(structure: Any) -> list[Value]:
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, Value)]
