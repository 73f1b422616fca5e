"""A trained model -> an equal one for inference alone: fewer steps, no parts for training."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from kfusion.exports.affine_steps import (
    LINEAR,
    Linear,
    Pending,
    ScaleAndShift,
    Scaled,
    is_full_precision,
    linear,
    made,
    normalization,
    side_by_side,
)
from kfusion.exports.joined_trees import JoinedTrees
from kfusion.layers import (
    ConcatFusion,
    Frozen,
    GradientScale,
    MaskedConv,
    ModalityDropout,
    NormalizedConv,
    NormalizedDense,
    TreeEnsemble,
)
from kfusion.models.building import prediction_model
from kfusion.models.trained_models import functional

_layers = keras.layers
# Layers that hand on what they are given, but in training.
_FOR_TRAINING = (
    _layers.ActivityRegularization,
    _layers.AlphaDropout,
    _layers.Dropout,
    _layers.GaussianDropout,
    _layers.GaussianNoise,
    _layers.SpatialDropout1D,
    _layers.SpatialDropout2D,
    _layers.SpatialDropout3D,
    _layers.RandomBrightness,
    _layers.RandomContrast,
    _layers.RandomFlip,
    _layers.RandomRotation,
    _layers.RandomTranslation,
    _layers.RandomZoom,
    GradientScale,
    ModalityDropout,
)


def inference_model(model: keras.Model) -> keras.Model:
    """Makes from a trained model one that answers the same and is for inference alone.

    Gone are the heads beside "prediction", dropout, noise, augmentation, `GradientScale`,
    `ModalityDropout` and `Frozen`. Batch normalisation and rescaling become part of the dense or
    convolutional layer before them, or behind them where that is exact; what is left of them is
    one product and one sum. Boosted trees of all folds of a member are computed together. Models
    within the model are treated likewise. Everything else stays as it is, its layers shared: what
    is masked, in half precision, subclassed, or called more than once.

    `export_saved_model` does this by itself. Answers differ by rounding, about a millionth of the
    largest. The model given is not changed. The one made is to be run and exported: Keras cannot
    save it.

    Args:
        model: A trained `keras.Model`, Functional or Sequential; others are returned as they are.

    Returns:
        `keras.Model` with the same inputs and one output, that of "prediction".

    Example:
        >>> model = keras.Sequential(
        ...     [keras.Input((2,)), NormalizedDense(3), keras.layers.Dropout(0.5)]
        ... )
        >>> [type(layer).__name__ for layer in inference_model(model).layers]
        ['InputLayer', 'Dense']
    """
    return _Treatment().of(prediction_model(model))


class _Treatment:
    """One run over a model and the models within it."""

    def __init__(self) -> None:
        self._made: dict[int, keras.Model] = {}

    def of(self, model: keras.Model) -> keras.Model:
        """The model for inference, made once."""
        if id(model) not in self._made:
            graph = functional(model)
            self._made[id(model)] = model if graph is None else _Graph(graph, self).rebuilt()
        return self._made[id(model)]


class _InnerCall(Pending):
    """A model within the model, of one output, about to be called."""

    def __init__(self, treatment: _Treatment, model: keras.Model, graph: keras.Model, given: Any):
        self._treatment = treatment
        self._model = model
        self.graph = graph
        self.given = given
        self.shape = tuple(graph.outputs[0].shape)

    def made(self):
        # It may give its output in a list or by name.
        (output,) = keras.tree.flatten(self._treatment.of(self._model)(self.given))
        return output


class _Graph:
    """The layers of one model, called again one by one.

    A method that treats a layer takes it and what it is given, pending or not, and returns what
    the layer gives; or None for a layer that is to be left as it is.
    """

    def __init__(self, graph: keras.Model, treatment: _Treatment):
        self._graph = graph
        self._treatment = treatment
        self._nodes: dict[int, list[Any]] = collections.defaultdict(list)
        self._num_readers: collections.Counter[int] = collections.Counter()
        for operation, node in _nodes_of(graph):
            self._nodes[id(operation)].append(node)
            self._num_readers.update(id(tensor) for tensor in node.input_tensors)
        self._num_readers.update(id(tensor) for tensor in graph.outputs)
        self._answers = {id(tensor) for tensor in graph.outputs}

    def rebuilt(self) -> keras.Model:
        """The model for inference."""
        return keras.models.clone_model(
            self._graph, clone_function=lambda same: same, call_function=self._call
        )

    def _call(self, operation, *arguments, **keywords):
        nodes = self._nodes[id(operation)]
        outputs = None
        if len(nodes) == 1 and _is_plain(arguments, keywords):
            treat = _TREATMENTS.get(type(operation))
            if treat is None and isinstance(operation, keras.Model):
                treat = _Graph._inner
            if treat is not None:
                outputs = treat(self, operation, arguments[0])
        if outputs is None:
            arguments, keywords = made((arguments, keywords))
            return operation(*arguments, **keywords)
        if isinstance(outputs, Pending) and self._is_needed_now(nodes[0]):
            return outputs.made()
        return outputs

    def _is_needed_now(self, node) -> bool:
        """Whether an output is an answer, or more than one layer reads it."""
        tensors = [id(tensor) for tensor in node.outputs]
        return any(each in self._answers or self._num_readers[each] != 1 for each in tensors)

    def _handed_on(self, layer, given):
        ((before,), (after,)) = (
            self._nodes[id(layer)][0].input_tensors,
            self._nodes[id(layer)][0].outputs,
        )
        if before.shape != after.shape:
            return None
        if before.dtype == after.dtype:
            return given
        if after.dtype != "float32":
            return None
        return ScaleAndShift(np.ones(1), np.zeros(1), name=layer.name)(made(given))

    def _linear(self, layer, given):
        found = linear(layer, given)
        if found is None or layer.activation is keras.activations.linear:
            return found
        return found.made(layer.activation) if isinstance(given, Scaled) else None

    def _normalization(self, layer, given):
        found = normalization(layer, len(given.shape))
        return None if found is None else _scaled(given, *found, layer.name)

    def _rescaling(self, layer, given):
        if not (is_full_precision(layer) and np.ndim(layer.scale) == np.ndim(layer.offset) == 0):
            return None
        return _scaled(given, layer.scale, layer.offset, layer.name)

    def _pool(self, layer, given):
        """The average of what is scaled and shifted is the average, scaled and shifted."""
        if not isinstance(given, Scaled) or layer.data_format != "channels_last":
            return None
        return Scaled(layer(given.tensor), given.scale, given.shift, f"{layer.name}_scaled")

    def _concatenate(self, layer, given):
        is_last = layer.axis in (-1, len(given[0].shape) - 1)
        if not (is_last and any(isinstance(each, Scaled) for each in given)):
            return None
        return side_by_side(given, _layers.Concatenate(dtype=layer.dtype_policy, name=layer.name))

    def _concat_fusion(self, layer, given):
        if not (layer.normalize and is_full_precision(layer)):
            return None
        parts = zip(layer._normalizations, given, strict=True)
        given = [self._normalization(each, features) for each, features in parts]
        return side_by_side(given, _layers.Concatenate(name=layer.name))

    def _normalized_dense(self, layer, given):
        found = linear(layer._dense, given)
        if found is None:
            return None
        found = found.followed_by(*normalization(layer._normalization, len(given.shape)))
        return found.made(layer.activation, layer.name)

    def _normalized_conv(self, layer, given):
        return self._conv_stage(layer, given) if is_full_precision(layer) else None

    def _masked_conv(self, layer, given):
        if not is_full_precision(layer):
            return None
        steps, mask = made(given)
        flags = _Flags(name=f"{layer.name}_flags")(mask)
        return self._conv_stage(layer, steps, flags)

    def _conv_stage(self, layer, given, flags=None):
        """Convolution and normalisation in one, then relu and pooling."""

        def kept(maps, place: str):
            if flags is None:
                return maps
            return _layers.Multiply(name=f"{layer.name}_{place}")([maps, flags])

        rank = len(given.shape)
        found = linear(layer._conv, kept(given, "before"))
        found = found.followed_by(*normalization(layer._normalization, rank))
        maps = kept(found.made("relu", layer.name), "behind")
        if layer.pool == 1:
            return maps
        pooling = layer._pooling
        config = {**pooling.get_config(), "name": f"{layer.name}_pool"}
        return type(pooling).from_config(config)(maps)

    def _frozen(self, layer, given):
        return self._inner(layer.model, given)

    def _inner(self, model, given):
        graph = functional(model)
        if graph is None:
            return None
        if _only_trains(graph):
            return given
        if len(graph.outputs) > 1:
            return self._treatment.of(model)(made(given))
        return _InnerCall(self._treatment, model, graph, made(given))

    def _trees(self, layer, given):
        return JoinedTrees([layer], name=layer.name, dtype=layer.dtype_policy)(made(given))

    def _average(self, layer, given):
        """Folds of boosted trees together."""
        found = [_trees_of(each) if isinstance(each, _InnerCall) else None for each in given]
        columns = [None if each is None else [id(tensor) for tensor in each[1]] for each in found]
        if None in columns or any(each != columns[0] for each in columns):
            return None
        tensors = found[0][1]
        table = tensors[0]
        if len(tensors) > 1:
            table = _layers.Concatenate(dtype="float32", name=f"{layer.name}_table")(tensors)
        joined = JoinedTrees(
            [trees for trees, _ in found], name=layer.name, dtype=layer.dtype_policy
        )
        return joined(table)


_TREATMENTS: dict[type, Callable[..., Any]] = {
    **dict.fromkeys(_FOR_TRAINING, _Graph._handed_on),
    **dict.fromkeys(LINEAR, _Graph._linear),
    _layers.Average: _Graph._average,
    _layers.BatchNormalization: _Graph._normalization,
    _layers.Concatenate: _Graph._concatenate,
    _layers.GlobalAveragePooling1D: _Graph._pool,
    _layers.GlobalAveragePooling2D: _Graph._pool,
    _layers.Rescaling: _Graph._rescaling,
    ConcatFusion: _Graph._concat_fusion,
    Frozen: _Graph._frozen,
    MaskedConv: _Graph._masked_conv,
    NormalizedConv: _Graph._normalized_conv,
    NormalizedDense: _Graph._normalized_dense,
    TreeEnsemble: _Graph._trees,
}


class _Flags(keras.layers.Layer):
    """`(rows, steps)`, not 0 where a step is there -> `(rows, steps, 1)` of 1 and 0."""

    def call(self, inputs):
        return ops.expand_dims(ops.cast(ops.cast(inputs, "bool"), "float32"), -1)

    def compute_output_shape(self, input_shape):
        return (*input_shape, 1)


def _nodes_of(graph: keras.Model) -> Iterator[tuple[Any, Any]]:
    """The calls that lead to a model's outputs, each with what is called."""
    waiting = list(graph.outputs)
    seen = set()
    while waiting:
        operation, number, _ = waiting.pop()._keras_history
        node = operation._inbound_nodes[number]
        if id(node) not in seen:
            seen.add(id(node))
            waiting += node.input_tensors
            yield operation, node


def _is_plain(arguments: tuple, keywords: dict[str, Any]) -> bool:
    """Whether a layer is called on one thing alone, and nothing of it is masked.

    Whatever `training` says there, Keras hands down that of the whole model.
    """
    others = [value for key, value in keywords.items() if key != "training"]
    if len(arguments) != 1 or any(each is not None for each in keras.tree.flatten(others)):
        return False
    tensors = keras.tree.flatten(arguments)
    return all(getattr(tensor, "_keras_mask", None) is None for tensor in tensors)


def _only_trains(graph: keras.Model) -> bool:
    """Whether a model hands on what it is given, as augmentation does."""
    ends = [(tensor.shape, tensor.dtype) for tensor in (*graph.inputs, *graph.outputs)]
    kinds = (*_FOR_TRAINING, _layers.InputLayer)
    return len(ends) == 2 and ends[0] == ends[1] and all(type(e) in kinds for e in graph.layers)


def _scaled(given: Any, scale: Any, shift: Any, name: str) -> Pending:
    if isinstance(given, Linear):
        return given.followed_by(scale, shift)
    if isinstance(given, Scaled):
        return given.followed_by(scale, shift, name)
    return Scaled(made(given), scale, shift, name)


def _trees_of(call: _InnerCall) -> tuple[TreeEnsemble, list[Any]] | None:
    """A model of boosted trees alone: their layer and the tensors of its table, side by side."""
    layers = [each for each in call.graph.layers if not isinstance(each, _layers.InputLayer)]
    trees = layers[-1]
    if type(trees) is not TreeEnsemble or call.graph.outputs[0] is not trees.output:
        return None
    if len(layers) > 2 or (len(layers) == 2 and type(layers[0]) is not _layers.Concatenate):
        return None
    given = call.given if isinstance(call.given, dict) else None
    tensors = layers[0].input if len(layers) == 2 else [trees.input]
    if given is None:
        return None
    return trees, [given[tensor.name] for tensor in tensors]
