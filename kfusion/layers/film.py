"""Feature maps scaled and shifted by what the other branches say."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kfusion.layers.modulation import build_modulation, modulate, modulated_widths
from kfusion.layers.normalized_dense import build_normalizations, normalize_each


@keras.saving.register_keras_serializable(package="kfusion")
class FiLM(keras.layers.Layer):
    """Feature-wise linear modulation: `F' = (1 + W_a z + b_a) * F + W_b z + b_b`, per channel.

    `z` are the batch-normalised vectors of the other branches, side by side. Scale and shift
    start at exactly 1 and 0, so that the features pass unchanged; put the input that is to be
    looked at in the light of the others first.

    Source: Perez et al., 2018, "FiLM: Visual Reasoning with a General Conditioning Layer",
    arXiv:1709.07871.

    Args:
        use_shift: Whether to shift too.

    Takes a list of the features to modulate, maps `(rows, height, width, channels)`, tokens
    `(rows, steps, width)` or a vector `(rows, width)`, and one or more vectors; gives features
    of the first one's shape.
    """

    takes_maps = True

    def __init__(self, use_shift: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.use_shift = use_shift

    def build(self, input_shape):
        channels, *conditions = modulated_widths(self.name, input_shape)
        self._normalizations = build_normalizations(conditions, self.dtype_policy)
        self._modulation = build_modulation(
            sum(conditions), channels, self.use_shift, self.dtype_policy
        )
        self.built = True

    def call(self, inputs, training=None):
        features, *conditions = inputs
        normalized = normalize_each(self._normalizations, conditions, training)
        changes = self._modulation(ops.concatenate(normalized, axis=-1))
        return modulate(features, changes, self.use_shift)

    def compute_output_shape(self, input_shape):
        modulated_widths(self.name, input_shape)
        return tuple(input_shape[0])

    def get_config(self):
        return {**super().get_config(), "use_shift": self.use_shift}
