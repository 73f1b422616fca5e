"""Convolution without bias -> batch normalisation -> relu -> pooling."""

from __future__ import annotations

from typing import Any

import keras

from kfusion.layers.conv_stage import ConvStage


@keras.saving.register_keras_serializable(package="kfusion")
class NormalizedConv(ConvStage):
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
        super().__init__(2, filters, kernel_size, strides, pool, dropout, l2, **kwargs)

    def call(self, inputs, training=None):
        maps = self._normalization(self._conv(inputs), training=training)
        maps = self._pooling(keras.ops.relu(maps))
        return self._dropout(maps, training=training)

    def compute_output_shape(self, input_shape):
        return self._pooling.compute_output_shape(self._conv.compute_output_shape(input_shape))

    def get_config(self):
        return {**super().get_config(), "strides": self.strides}
