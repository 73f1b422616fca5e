"""A convolution along steps of which some are not there."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from kfusion.layers.normalized_dense import MOMENTUM


@keras.saving.register_keras_serializable(package="kfusion")
class MaskedConv(keras.layers.Layer):
    """One stage of a small sequence network: convolution, normalised, relu, halved by maxima.

    Steps that are not there are 0 before the convolution and after it and do not count in the
    batch statistics, so that padding behind a sequence changes nothing.

    Args:
        filters: Int, channels of the output.
        kernel_size: Int, steps in the window.
        pool: Int, factor by which the steps shrink; 1 keeps them.
        dropout: Float in [0, 1), rate at which whole channels are dropped.
        l2: Float, L2 penalty on the kernel.

    Takes a list of `(rows, steps, channels)` and a mask `(rows, steps)`, not 0 where a step is
    there, and gives `(rows, steps / pool rounded up, filters)`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 5,
        pool: int = 2,
        dropout: float = 0.0,
        l2: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.pool = pool
        self.dropout = dropout
        self.l2 = l2
        self._conv = keras.layers.Conv1D(
            filters,
            kernel_size,
            padding="same",
            use_bias=False,
            data_format="channels_last",
            kernel_initializer="he_normal",
            kernel_regularizer=keras.regularizers.L2(l2) if l2 else None,
            dtype=self.dtype_policy,
            name="conv",
        )
        self._normalization = keras.layers.BatchNormalization(
            momentum=MOMENTUM, dtype=self.dtype_policy, name="normalization"
        )
        self._pooling = keras.layers.MaxPooling1D(
            pool, padding="same", data_format="channels_last", dtype=self.dtype_policy, name="pool"
        )
        self._dropout = keras.layers.SpatialDropout1D(
            dropout, dtype=self.dtype_policy, name="dropout"
        )

    def build(self, input_shape):
        steps, _ = input_shape
        self._conv.build(steps)
        self._normalization.build(self._conv.compute_output_shape(steps))
        self.built = True

    def call(self, inputs, training=None):
        steps, mask = inputs
        there = ops.cast(mask, "bool")
        kept = ops.expand_dims(ops.cast(there, steps.dtype), -1)
        steps = self._conv(steps * kept)
        steps = self._normalization(steps, training=training, mask=there)
        return self._dropout(self._pooling(ops.relu(steps) * kept), training=training)

    def compute_output_shape(self, input_shape):
        rows, steps, _ = input_shape[0]
        return (rows, None if steps is None else math.ceil(steps / self.pool), self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "pool": self.pool,
            "dropout": self.dropout,
            "l2": self.l2,
        }
