"""A learned vector in the place of features of what is missing."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kfusion")
class StandIn(keras.layers.Layer):
    """Puts a learned vector in the place of features that are not there, and says so.

    What a row has is passed on as it is, with a 1 behind it; where it is missing, the learned
    vector takes its place, with a 0: the same in training and at inference.

    Takes `[(rows, ..., width), (rows, 1)]`, features and whether they are there, and gives
    `(rows, ..., width + 1)`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)

    def build(self, input_shape):
        self._vector = self.add_weight(
            shape=(input_shape[0][-1],), initializer="zeros", name="vector"
        )
        self.built = True

    def call(self, inputs):
        features, is_there = inputs
        flag = ops.reshape(is_there, (-1, *[1] * (len(features.shape) - 1)))
        filled = ops.where(flag > 0, features, ops.cast(self._vector, features.dtype))
        flags = ops.ones_like(filled[..., :1]) * ops.cast(flag, filled.dtype)
        return ops.concatenate([filled, flags], axis=-1)

    def compute_output_shape(self, input_shape):
        *outer, width = input_shape[0]
        return (*outer, width + 1)
