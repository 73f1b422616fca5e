"""Features as they are, whose gradients are scaled on the way back."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kfusion")
class GradientScale(keras.layers.Layer):
    """Returns its input and multiplies the gradients that pass back through it by `coefficient`.

    The coefficient is a weight that does not train, 1 at the start: assign to it, or let
    `GradientModulation` do so.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)

    def build(self, input_shape):
        self.coefficient = self.add_weight(
            shape=(), initializer="ones", trainable=False, name="coefficient"
        )
        self.built = True

    def call(self, inputs):
        # The difference is exactly 0; its gradient is not.
        stopped = ops.stop_gradient(inputs)
        return stopped + self.coefficient * (inputs - stopped)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)
