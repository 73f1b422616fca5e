"""Images or vectors -> what they differ by most, in a few numbers."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kfusion")
class PrincipalComponents(keras.layers.Layer):
    """Projects rows, flattened, on directions found before; `fit_principal_components` fills it.

    `(x / divisor - mean) @ directions`. Mean and directions are weights that do not train. A
    missing number (NaN) counts as its mean.

    Args:
        num_components: Int, width of the result.
        divisor: Float, what the input is divided by first: 255 for 8-bit images.

    Takes `(rows, ...)` numbers of any shape and gives `(rows, num_components)`.
    """

    def __init__(self, num_components: int, divisor: float = 1.0, **kwargs: Any):
        # In half precision the sum over thousands of pixels would lose its digits.
        super().__init__(autocast=False, **kwargs)
        self.num_components = num_components
        self.divisor = divisor

    def build(self, input_shape):
        if None in input_shape[1:]:
            raise ValueError(
                f"`{self.name}` takes rows of a known shape. Received: shape={tuple(input_shape)}."
            )
        axes = dict(enumerate(input_shape[1:], start=1))
        self.input_spec = keras.layers.InputSpec(ndim=len(input_shape), axes=axes)
        width = math.prod(input_shape[1:])
        self._mean = self._add("mean", (width,))
        self._directions = self._add("directions", (width, self.num_components))
        self.built = True

    def call(self, inputs):
        width = self._mean.shape[0]
        flat = ops.reshape(ops.cast(inputs, "float32"), (-1, width)) / self.divisor
        offsets = flat - self._mean[:]
        offsets = ops.where(ops.isnan(offsets), 0.0, offsets)
        projected = ops.matmul(offsets, self._directions[:])
        return ops.cast(projected, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_components)

    def get_config(self):
        return {
            **super().get_config(),
            "num_components": self.num_components,
            "divisor": self.divisor,
        }

    def _add(self, name: str, shape: tuple[int, ...]):
        # In half precision Keras would otherwise cast the weights too, whenever they are read.
        return self.add_weight(
            name=name,
            shape=shape,
            dtype="float32",
            initializer="zeros",
            trainable=False,
            autocast=False,
        )
