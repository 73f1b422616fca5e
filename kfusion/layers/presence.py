"""Which rows of an input hold anything."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kfusion")
class Presence(keras.layers.Layer):
    """Tells which rows are there: 1, or 0 where all of a row's values are missing.

    Of whole numbers (an image's pixels, the codes of a text) 0 is missing; of floating point
    numbers NaN is, and in the last `num_categories` columns, which hold category codes, 0.

    Args:
        num_categories: Int, number of columns that hold codes.

    Takes `(rows, ...)` and gives `(rows, 1)`.
    """

    def __init__(self, num_categories: int = 0, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.num_categories = num_categories

    def call(self, inputs):
        if keras.backend.is_float_dtype(keras.backend.standardize_dtype(inputs.dtype)):
            is_there = ops.logical_not(ops.isnan(inputs))
            if self.num_categories:
                codes = inputs[..., -self.num_categories :] > 0
                numbers = is_there[..., : -self.num_categories]
                is_there = ops.concatenate([numbers, codes], axis=-1)
        else:
            # LiteRT compares no 8-bit numbers.
            is_there = ops.cast(inputs, "int32") != 0
        any_there = ops.any(ops.reshape(is_there, (ops.shape(inputs)[0], -1)), axis=1)
        return ops.cast(any_there[:, None], self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "num_categories": self.num_categories}
