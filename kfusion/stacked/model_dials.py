"""What may differ between models of one structure: rates, penalties, seeds, scales, smoothing."""

from __future__ import annotations

import dataclasses
import json
import numbers
from collections.abc import Collection, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kfusion.losses import MeanOverMembers

_OF_CHANNELS = (
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
_DROPOUTS = (keras.layers.Dropout, *_OF_CHANNELS)
# Arguments of this package's layers that become one of these, or an `L2`, within them.
_OWN_DIALS = ("dropout", "l2")
# Where a config has the names of layers.
_NAMES_AT = ("name", "keras_history", "input_layers", "output_layers")


@dataclasses.dataclass(frozen=True)
class Dials:
    """The dials of one model, or of several with an axis for these in front.

    Attributes:
        rates: `(dropouts,)` rate of each layer that `dropouts` finds.
        penalties: `(trainable variables,)` factor of each one's L2 penalty; 0 is none.
        seeds: `(dropouts, 2)` random state of each; zeros where nothing is dropped.
    """

    rates: Any
    penalties: Any
    seeds: Any


class UnknownStructureError(ValueError):
    """What a model is made of cannot be told."""


def structure_of(model: keras.Model) -> str:
    """Text that two models share if only dials, names of layers and weights tell them apart.

    Raises:
        UnknownStructureError: If the model's inside is not known, as of a subclassed one.
    """
    if not getattr(model, "inputs", None):
        raise UnknownStructureError(f"{model.name!r} is no Functional model")
    try:
        config = {**model.get_config(), "name": None}
    except (NotImplementedError, TypeError) as error:
        raise UnknownStructureError("a layer of it has no config") from error
    names: dict[str, str] = {}
    _number_names(config, {tensor.name for tensor in model.inputs}, names)
    config = _without_dials(config, names)
    weights = [[list(v.shape), str(v.dtype), v.trainable] for v in model.weights]
    return json.dumps([config, weights], default=repr)


def dials_of(model: keras.Model) -> Dials:
    """Reads the dials of a model."""
    layers = dropouts(model)
    states = [
        ops.convert_to_numpy(layer.seed_generator.state.value) if layer.rate else np.zeros(2)
        for layer in layers
    ]
    penalties = [
        float(v.regularizer.l2) if _is_l2(v.regularizer) else 0.0 for v in model.trainable_variables
    ]
    return Dials(
        np.array([layer.rate for layer in layers], np.float32),
        np.array(penalties, np.float32),
        np.array(states, np.uint32).reshape(-1, 2),
    )


def dropouts(model: keras.Model) -> list[keras.layers.Dropout]:
    """All layers of a model that drop values or whole channels, also those inside of others."""
    return [layer for layer in model._flatten_layers() if type(layer) in _DROPOUTS]


def states_but_dropouts(model: keras.Model) -> list[keras.Variable]:
    """Variables that training moves without gradients, but for the random states of dropouts."""
    of_dropouts = {id(layer.seed_generator.state) for layer in dropouts(model) if layer.rate}
    return [v for v in model.non_trainable_variables if id(v) not in of_dropouts]


def scales_of(model: keras.Model) -> list[np.ndarray]:
    """`(2,)` scale and offset of each layer that rescales by two numbers."""
    return [np.array([each.scale, each.offset], np.float32) for each in _rescalings(model)]


class DialledModel:
    """A model whose dials are tensors given anew in each call, which may be traced ones.

    The model given is changed for good: its own rates, penalties and scales count no longer, nor
    the smoothing of its losses. Its states are those of `states_but_dropouts`, and `scales_of`
    behind them.

    Args:
        model: Functional `keras.Model`, compiled.
        is_dropped: `(dropouts,)` bools: whether the rate of each is above 0 for any member.
        is_penalised: `(trainable variables,)` bools: the same of each one's penalty.
        smooths: Whether its losses have a `label_smoothing`, which is a dial.
    """

    def __init__(
        self,
        model: keras.Model,
        is_dropped: np.ndarray,
        is_penalised: np.ndarray,
        smooths: bool,
    ):
        self.model = model
        self._smoothing = _losses(model) if smooths else []
        self.dials = Dials(None, None, None)
        # Before the model loses its own generators.
        self.states = states_but_dropouts(model)
        for layer, values in zip(_rescalings(model), scales_of(model), strict=True):
            self.states.append(keras.Variable(values, trainable=False))
            layer.call = _rescaling(layer, self.states[-1])
        if keras.backend.backend() == "tensorflow":
            for layer in model._flatten_layers():
                if type(layer) is keras.layers.EinsumDense and layer.bias is not None:
                    layer.call = _einsum_dense(layer)
        self.generators = [keras.random.SeedGenerator(0) for _ in is_dropped]
        for i, (layer, drops) in enumerate(zip(dropouts(model), is_dropped, strict=True)):
            layer.call = self._dropout(i, layer) if drops else _passed_on
        for i, (variable, penalised) in enumerate(
            zip(model.trainable_variables, is_penalised, strict=True)
        ):
            if _is_l2(variable.regularizer) or penalised:
                variable.regularizer = self._penalty(i) if penalised else None

    def mapping(self, trainables, states, seeds) -> list[tuple[keras.Variable, Any]]:
        """What a `keras.StatelessScope` puts in the place of the model's variables."""
        variables = [*self.model.trainable_variables, *self.states]
        pairs = list(zip(variables, [*trainables, *states], strict=True))
        return pairs + [(each.state, seeds[i]) for i, each in enumerate(self.generators)]

    def smooth_labels(self, label_smoothing) -> None:
        """Gives the losses a share to smooth labels by, which may be a traced tensor."""
        for loss in self._smoothing:
            loss.label_smoothing = label_smoothing

    def _dropout(self, position: int, layer: keras.layers.Dropout):
        def call(inputs, training=False):
            if not training:
                return inputs
            if isinstance(layer, _OF_CHANNELS):
                shape = layer._get_noise_shape(inputs)
            else:
                shape = layer.noise_shape or (None,) * len(inputs.shape)
                shape = [ops.shape(inputs)[i] if n is None else n for i, n in enumerate(shape)]
            rate = ops.cast(self.dials.rates[position], inputs.dtype)
            drawn = keras.random.uniform(shape, dtype=inputs.dtype, seed=self.generators[position])
            # The same rows and units as the backend's own dropout drops with this state.
            is_kept = drawn < 1 - rate if keras.backend.backend() == "jax" else drawn >= rate
            return ops.where(is_kept, inputs / (1 - rate), ops.zeros_like(inputs))

        return call

    def _penalty(self, position: int):
        return lambda values: self.dials.penalties[position] * ops.sum(ops.square(values))


def _losses(model: keras.Model) -> list[Any]:
    """What a model is compiled with; for an ensemble, what each of its members is judged by."""
    losses = [loss for loss in keras.tree.flatten(model.loss) if loss is not None]
    return [loss.loss if isinstance(loss, MeanOverMembers) else loss for loss in losses]


def _rescalings(model: keras.Model) -> list[keras.layers.Rescaling]:
    """The layers that scale all values by one number and shift them by another."""
    return [
        layer
        for layer in model._flatten_layers()
        if type(layer) is keras.layers.Rescaling
        and _is_number(layer.scale)
        and _is_number(layer.offset)
    ]


def _rescaling(layer: keras.layers.Rescaling, scale_and_offset: keras.Variable):
    def call(inputs):
        scale, offset = ops.unstack(ops.cast(scale_and_offset, layer.compute_dtype))
        return ops.cast(inputs, layer.compute_dtype) * scale + offset

    return call


def _einsum_dense(layer: keras.layers.EinsumDense):
    """Its call without Keras' addition, which makes a `BiasAdd` of one bias a channel in front.

    Of that TensorFlow's vectorising map makes an addition along another axis.
    """

    def call(inputs, training=None):
        outputs = ops.einsum(layer.equation, inputs, layer.kernel)
        outputs = ops.subtract(outputs, ops.negative(layer.bias))
        return outputs if layer.activation is None else layer.activation(outputs)

    return call


def _passed_on(inputs, training=False):
    return inputs


def _is_l2(regularizer: Any) -> bool:
    return type(regularizer) is keras.regularizers.L2


def _number_names(config: Any, kept: Collection[str], names: dict[str, str]) -> None:
    """Numbers the layers and operations of a config, but for the inputs that data goes by."""
    if isinstance(config, (list, tuple)):
        for each in config:
            _number_names(each, kept, names)
    if isinstance(config, Mapping):
        inner = config.get("config")
        if isinstance(inner, Mapping) and config.get("class_name") != "DTypePolicy":
            name = inner.get("name")
            if isinstance(name, str) and name not in kept:
                names.setdefault(name, f"layer {len(names)}")
        for each in config.values():
            _number_names(each, kept, names)


def _without_dials(config: Any, names: Mapping[str, str], key: str = "") -> Any:
    """A config in which nothing is left of dials, nor of the names of layers.

    Args:
        config: What is found in a config under a key.
        names: What stands for the name of each layer.
        key: Text.
    """
    if isinstance(config, str):
        return names.get(config, config) if key in _NAMES_AT else config
    if isinstance(config, (list, tuple)):
        return [_without_dials(each, names, key) for each in config]
    if not isinstance(config, Mapping) or config.get("class_name") == "DTypePolicy":
        return config
    left = {
        # By the names of inputs and outputs there may be dicts of layers.
        own: _without_dials(value, names, key if key in _NAMES_AT else own)
        for own, value in config.items()
        if own != "compile_config"
    }
    inner = left.get("config")
    if isinstance(inner, dict):
        if left.get("module") == "keras.layers":
            if left.get("class_name") in [kind.__name__ for kind in _DROPOUTS]:
                inner.update(rate=None, seed=None)
            scaling = ("scale", "offset")
            # As `_rescalings` finds them.
            if left.get("class_name") == "Rescaling" and all(_is_number(inner[n]) for n in scaling):
                inner.update(dict.fromkeys(scaling, 0.0))
            inner.update((own, None) for own, value in inner.items() if _is_on_weights(own, value))
            # Each member brings what its weights start from.
            inner.update((own, None) for own in inner if own.endswith("_initializer"))
        if str(left.get("registered_name")).startswith("kfusion>"):
            inner.update((own, None) for own in _OWN_DIALS if own in inner)
    return left


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real)


def _is_on_weights(argument: str, config: Any) -> bool:
    """Whether an argument of one of Keras' layers is an L2 penalty on weights of it."""
    return (
        argument.endswith("_regularizer")
        and argument != "activity_regularizer"
        and isinstance(config, Mapping)
        and (config.get("module"), config.get("class_name")) == ("keras.regularizers", "L2")
    )
