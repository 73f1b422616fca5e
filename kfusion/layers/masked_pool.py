"""Steps that are there, brought to one vector."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

MODES = ("mean", "max")


@keras.saving.register_keras_serializable(package="kfusion")
class MaskedPool(keras.layers.Layer):
    """Mean or maximum over the steps of each row that are there; 0 where none is.

    Args:
        mode: "mean" or "max".

    Takes a list of `(rows, steps, width)` and a mask `(rows, steps)`, not 0 where a step is there,
    and gives `(rows, width)`.
    """

    def __init__(self, mode: str = "mean", **kwargs: Any):
        super().__init__(**kwargs)
        if mode not in MODES:
            raise ValueError(f'`mode` must be "mean" or "max". Received: mode={mode!r}.')
        self.mode = mode

    def call(self, inputs):
        steps, mask = inputs
        there = ops.expand_dims(ops.cast(mask, "bool"), -1)
        if self.mode == "max":
            highest = ops.max(ops.where(there, steps, -float("inf")), axis=1)
            return ops.where(ops.any(there, axis=1), highest, 0.0)
        total = ops.sum(ops.where(there, steps, 0.0), axis=1)
        return total / ops.maximum(ops.sum(ops.cast(there, steps.dtype), axis=1), 1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], input_shape[0][2])

    def get_config(self):
        return {**super().get_config(), "mode": self.mode}
