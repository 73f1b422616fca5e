"""Feature vectors side by side, each brought to one range first."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kfusion.layers.fused_shapes import fused_widths
from kfusion.layers.normalized_dense import build_normalizations, normalize_each


@keras.saving.register_keras_serializable(package="kfusion")
class ConcatFusion(keras.layers.Layer):
    """Concatenates feature vectors after batch-normalising each.

    Args:
        normalize: Whether to normalise; without it, features of different range (a sigmoid beside
            a relu) stay so, which is the usual cause of a fusion below its best input.

    Takes a list of `(rows, width)` and gives `(rows, sum of widths)`.
    """

    def __init__(self, normalize: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.normalize = normalize

    def build(self, input_shape):
        widths = fused_widths(self.name, input_shape)
        if self.normalize:
            self._normalizations = build_normalizations(widths, self.dtype_policy)
        self.built = True

    def call(self, inputs, training=None):
        if self.normalize:
            inputs = normalize_each(self._normalizations, inputs, training)
        return ops.concatenate(inputs, axis=-1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], sum(fused_widths(self.name, input_shape)))

    def get_config(self):
        return {**super().get_config(), "normalize": self.normalize}
