"""Steps that scale and shift, put off until the layer behind them can take them in."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

_layers = keras.layers
_CONVOLUTIONS = (_layers.Conv1D, _layers.Conv2D, _layers.Conv3D)
_DEPTHWISE = (_layers.DepthwiseConv1D, _layers.DepthwiseConv2D)
LINEAR = (_layers.Dense, *_CONVOLUTIONS, *_DEPTHWISE)
# What a layer that only answers does without.
_LEARNING = ("regularizer", "constraint")


class Pending:
    """What a layer gives, not yet in the graph."""

    shape: tuple[int | None, ...]

    def made(self) -> Any:
        """The tensor, put into the graph when it is first asked for."""
        raise NotImplementedError


class Scaled(Pending):
    """`tensor * scale + shift` along the last axis; `name` is that of the step, if it is made."""

    def __init__(self, tensor: Any, scale: Any, shift: Any, name: str):
        width = tensor.shape[-1]
        self.tensor = tensor
        self.scale = np.broadcast_to(np.asarray(scale, np.float64), (width,))
        self.shift = np.broadcast_to(np.asarray(shift, np.float64), (width,))
        self.shape = tuple(tensor.shape)
        self._name = name

    def followed_by(self, scale: Any, shift: Any, name: str) -> Scaled:
        """The same, scaled and shifted again."""
        return Scaled(self.tensor, self.scale * scale, self.shift * scale + shift, name)

    def made(self):
        return ScaleAndShift(self.scale, self.shift, name=self._name)(self.tensor)

    def shifted_alone(self):
        """`tensor + shift / scale`, for a layer that takes in the scale."""
        shift = self.shift / self.scale
        return ScaleAndShift(np.ones_like(shift), shift, name=self._name)(self.tensor)


class Linear(Pending):
    """A dense or convolutional layer without activation, whose output may yet be scaled."""

    def __init__(
        self, layer: Any, tensor: Any, kernel: np.ndarray, bias: np.ndarray, is_as_it_was: bool
    ):
        self._layer = layer
        self._tensor = tensor
        self._kernel = kernel
        self._bias = bias
        self._is_as_it_was = is_as_it_was
        self.shape = tuple(layer.compute_output_shape(tensor.shape))

    def followed_by(self, scale: Any, shift: Any) -> Linear:
        """The same layer with its output scaled and shifted."""
        scale = np.broadcast_to(np.asarray(scale, np.float64), self._bias.shape)
        by_kernel = scale
        if isinstance(self._layer, _DEPTHWISE):
            by_kernel = scale.reshape(self._kernel.shape[-2:])
        bias = self._bias * scale + shift
        return Linear(self._layer, self._tensor, self._kernel * by_kernel, bias, False)

    def made(self, activation: Any = "linear", name: str | None = None):
        if self._is_as_it_was:
            return self._layer(self._tensor)
        config = self._layer.get_config()
        for key in config:
            if key.endswith(_LEARNING):
                config[key] = None
            elif key.endswith("initializer"):
                config[key] = "zeros"
        config |= {"use_bias": True, "activation": activation, "name": name or self._layer.name}
        layer = type(self._layer).from_config(config)
        output = layer(self._tensor)
        layer.set_weights([self._kernel, self._bias])
        return output


class ScaleAndShift(keras.layers.Layer):
    """`inputs * scale + shift` in float32, whatever numbers come in.

    Args:
        scale: `(width,)` floats.
        shift: `(width,)` floats.
    """

    def __init__(self, scale: np.ndarray, shift: np.ndarray, **kwargs: Any):
        super().__init__(autocast=False, dtype="float32", **kwargs)
        self._scale = scale.astype(np.float32)
        self._shift = shift.astype(np.float32)

    def call(self, inputs):
        values = ops.cast(inputs, "float32")
        if np.any(self._scale != 1):
            values = values * self._scale
        return values + self._shift if np.any(self._shift) else values

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)


def is_full_precision(layer: keras.layers.Layer) -> bool:
    """Whether a layer holds and computes float32, as the steps that it takes in do."""
    is_quantized = getattr(layer, "quantization_mode", None) or getattr(
        layer, "lora_enabled", False
    )
    return layer.compute_dtype == layer.variable_dtype == "float32" and not is_quantized


def linear(layer: Any, given: Any) -> Linear | None:
    """A dense or convolutional layer on what it is given, its activation left out.

    Returns:
        None if the layer is no such one, or its channels do not come last.
    """
    if not is_full_precision(layer) or getattr(layer, "data_format", "") == "channels_first":
        return None
    kernel, *bias = (np.asarray(weight, np.float64) for weight in layer.get_weights())
    width = kernel.shape[-1]
    if isinstance(layer, _DEPTHWISE):
        width *= kernel.shape[-2]
    shift = bias[0] if bias else np.zeros(width)
    takes_scale = getattr(layer, "groups", 1) == 1
    if not isinstance(given, Scaled) or not takes_scale:
        return Linear(layer, made(given), kernel, shift, True)
    tensor = given.tensor
    if not _pads(layer):
        added = kernel * given.shift[:, None]
        shift = shift + (
            added.sum(axis=tuple(range(kernel.ndim - 2))).ravel()
            if isinstance(layer, _DEPTHWISE)
            else added.sum(axis=tuple(range(kernel.ndim - 1)))
        )
    elif np.any(given.shift):
        # Around the edges there are zeros, which are not shifted.
        if not np.all(given.scale):
            return Linear(layer, given.made(), kernel, shift, True)
        tensor = given.shifted_alone()
    if not keras.backend.is_float_dtype(tensor.dtype):
        name = f"{layer.name}_cast"
        tensor = ScaleAndShift(np.ones(1), np.zeros(1), name=name)(tensor)
    return Linear(layer, tensor, kernel * given.scale[:, None], shift, False)


def normalization(layer: Any, rank: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Scale and shift of a `BatchNormalization` at inference; None if not along the last axis."""
    if not is_full_precision(layer) or layer.axis not in (-1, rank - 1):
        return None
    mean = np.asarray(layer.moving_mean, np.float64)
    scale = 1 / np.sqrt(np.asarray(layer.moving_variance, np.float64) + layer.epsilon)
    if layer.scale:
        scale = scale * np.asarray(layer.gamma, np.float64)
    shift = -mean * scale
    return scale, shift + np.asarray(layer.beta, np.float64) if layer.center else shift


def made(structure: Any) -> Any:
    """The same structure with tensors in the place of what is pending."""
    return keras.tree.map_structure(
        lambda each: each.made() if isinstance(each, Pending) else each, structure
    )


def side_by_side(given: list[Any], concatenation: keras.layers.Layer) -> Any:
    """Vectors joined along their last axis, whatever is to be done to each done behind."""
    tensors, scales, shifts = [], [], []
    for each in given:
        if not isinstance(each, Scaled):
            tensor = made(each)
            each = Scaled(tensor, 1.0, 0.0, concatenation.name)
        tensors.append(each.tensor)
        scales.append(each.scale)
        shifts.append(each.shift)
    joined = concatenation(tensors)
    name = f"{concatenation.name}_scaled"
    return Scaled(joined, np.concatenate(scales), np.concatenate(shifts), name)


def _pads(layer: Any) -> bool:
    """Whether a layer looks at places outside of what it is given."""
    if isinstance(layer, _layers.Dense) or layer.padding == "valid":
        return False
    return any(size > 1 for size in layer.kernel_size)
