"""Convolution without bias -> batch normalisation -> relu -> pooling."""

from __future__ import annotations

from typing import Any

import keras

from kfusion.layers.normalized_dense import MOMENTUM


@keras.saving.register_keras_serializable(package="kfusion")
class NormalizedConv(keras.layers.Layer):
    """One stage of a small image network: 3x3 convolution, normalised, then halved by max pooling.

    Args:
        filters: Int, channels of the output.
        kernel_size: Int, side of the window.
        strides: Int, step of the window, by which height and width shrink.
        pool: Int, factor by which they shrink further; 1 keeps them.
        dropout: Float in [0, 1), rate at which whole channels are dropped.
        l2: Float, L2 penalty on the kernel.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        pool: int = 2,
        dropout: float = 0.0,
        l2: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.pool = pool
        self.dropout = dropout
        self.l2 = l2
        self._conv = keras.layers.Conv2D(
            filters,
            kernel_size,
            strides=strides,
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
        self._pooling = keras.layers.MaxPooling2D(
            pool, padding="same", data_format="channels_last", dtype=self.dtype_policy, name="pool"
        )
        self._dropout = keras.layers.SpatialDropout2D(
            dropout, data_format="channels_last", dtype=self.dtype_policy, name="dropout"
        )

    def build(self, input_shape):
        self._conv.build(input_shape)
        self._normalization.build(self._conv.compute_output_shape(input_shape))
        self.built = True

    def call(self, inputs, training=None):
        maps = self._normalization(self._conv(inputs), training=training)
        maps = self._pooling(keras.ops.relu(maps))
        return self._dropout(maps, training=training)

    def compute_output_shape(self, input_shape):
        return self._pooling.compute_output_shape(self._conv.compute_output_shape(input_shape))

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "pool": self.pool,
            "dropout": self.dropout,
            "l2": self.l2,
        }
