"""Feature maps scaled and shifted by what they and the other branches say together."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from kfusion.layers.modulation import build_modulation, modulate, modulated_widths
from kfusion.layers.normalized_dense import build_normalizations, normalize_each


@keras.saving.register_keras_serializable(package="kfusion")
class DAFT(keras.layers.Layer):
    """Dynamic affine feature map transform: `F' = a * F + b` with a and b from image and table.

    `[a - 1; b] = V relu(W [mean of F; z] + c) + d`, per channel: unlike FiLM's, scale and shift
    also depend on the maps' own average over positions. The hidden layer is a bottleneck. `z` are
    the vectors of the other branches; all are batch-normalised. V and d start at 0, so that the
    features pass unchanged.

    Source: Poelsterl, Wolf & Wachinger, 2021, "Combining 3D Image and Tabular Data via the
    Dynamic Affine Feature Map Transform", arXiv:2107.05990.

    Args:
        reduction: Int, how many times narrower the bottleneck is than what goes into it.
        use_shift: Whether to shift too.

    Takes and gives the same as `FiLM`.
    """

    takes_maps = True

    def __init__(self, reduction: int = 4, use_shift: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        if reduction < 1:
            raise ValueError(f"`reduction` must be 1 or more. Received: {reduction}.")
        self.reduction = reduction
        self.use_shift = use_shift

    def build(self, input_shape):
        widths = modulated_widths(self.name, input_shape)
        self._normalizations = build_normalizations(widths, self.dtype_policy)
        hidden = math.ceil(sum(widths) / self.reduction)
        self._bottleneck = keras.layers.Dense(
            hidden,
            activation="relu",
            kernel_initializer="he_normal",
            dtype=self.dtype_policy,
            name="bottleneck",
        )
        self._bottleneck.build((None, sum(widths)))
        self._modulation = build_modulation(hidden, widths[0], self.use_shift, self.dtype_policy)
        self.built = True

    def call(self, inputs, training=None):
        features, *conditions = inputs
        positions = tuple(range(1, len(features.shape) - 1))
        pooled = ops.mean(features, axis=positions) if positions else features
        said = normalize_each(self._normalizations, [pooled, *conditions], training)
        changes = self._modulation(self._bottleneck(ops.concatenate(said, axis=-1)))
        return modulate(features, changes, self.use_shift)

    def compute_output_shape(self, input_shape):
        modulated_widths(self.name, input_shape)
        return tuple(input_shape[0])

    def get_config(self):
        return {
            **super().get_config(),
            "reduction": self.reduction,
            "use_shift": self.use_shift,
        }
