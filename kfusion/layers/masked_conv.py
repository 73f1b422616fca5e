"""A convolution along steps of which some are not there."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from kfusion.layers.conv_stage import ConvStage


@keras.saving.register_keras_serializable(package="kfusion")
class MaskedConv(ConvStage):
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
        super().__init__(1, filters, kernel_size, 1, pool, dropout, l2, **kwargs)

    def build(self, input_shape):
        steps, _ = input_shape
        super().build(steps)

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
