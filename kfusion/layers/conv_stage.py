"""What stages of convolution, batch normalisation, relu and pooling have in common."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras

from kfusion.layers.normalized_dense import MOMENTUM

_layers = keras.layers
# Convolution, pooling and dropout of whole channels, by the number of axes that are looked along.
_PARTS = {
    1: (_layers.Conv1D, _layers.MaxPooling1D, _layers.SpatialDropout1D),
    2: (
        _layers.Conv2D,
        _layers.MaxPooling2D,
        partial(_layers.SpatialDropout2D, data_format="channels_last"),
    ),
}


class ConvStage(keras.layers.Layer):
    """Holds the parts of a stage and their settings; each kind of stage calls them in its own way.

    Args:
        rank: Int, axes that are looked along: 1 or 2.
        filters: Int, channels of the output.
        kernel_size: Int, size of the window along each axis.
        strides: Int, step of the window.
        pool: Int, factor by which the axes shrink in pooling.
        dropout: Float in [0, 1), rate at which whole channels are dropped.
        l2: Float, L2 penalty on the kernel.
    """

    def __init__(
        self,
        rank: int,
        filters: int,
        kernel_size: int,
        strides: int,
        pool: int,
        dropout: float,
        l2: float,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.pool = pool
        self.dropout = dropout
        self.l2 = l2
        convolution, pooling, channel_dropout = _PARTS[rank]
        self._conv = convolution(
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
        self._pooling = pooling(
            pool, padding="same", data_format="channels_last", dtype=self.dtype_policy, name="pool"
        )
        self._dropout = channel_dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape):
        self._conv.build(input_shape)
        self._normalization.build(self._conv.compute_output_shape(input_shape))
        self.built = True

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "pool": self.pool,
            "dropout": self.dropout,
            "l2": self.l2,
        }
