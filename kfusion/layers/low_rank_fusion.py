"""Products of all features of all branches, at low rank."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kfusion.layers.fused_shapes import fused_widths
from kfusion.layers.normalized_dense import MOMENTUM, build_normalizations, normalize_each


@keras.saving.register_keras_serializable(package="kfusion")
class LowRankFusion(keras.layers.Layer):
    """Low-rank multimodal fusion: `relu(BN(sum_r prod_m W_m^(r) [BN(x_m); 1]))`.

    A tensor product of the branches' features would see every interaction between them; its
    weights are kept as `rank` factors per branch. The appended 1 keeps each branch's own
    features among the products.

    Source: Liu et al., 2018, "Efficient Low-rank Multimodal Fusion with Modality-Specific
    Factors", ACL, arXiv:1806.00064.

    Args:
        units: Int, width of the output; by default the largest of the branches.
        rank: Int, number of factors.

    Takes a list of `(rows, width)` and gives `(rows, units)`.
    """

    def __init__(self, units: int | None = None, rank: int = 4, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units
        self.rank = rank

    def build(self, input_shape):
        widths = fused_widths(self.name, input_shape)
        units = self.units or max(widths)
        self._normalizations = build_normalizations(widths, self.dtype_policy)
        self._factors = []
        for i, width in enumerate(widths):
            # The bias is the weight of the appended 1; at 1 no branch starts by erasing another.
            factor = keras.layers.Dense(
                self.rank * units,
                bias_initializer="ones",
                dtype=self.dtype_policy,
                name=f"factor_{i}",
            )
            factor.build((None, width))
            self._factors.append(factor)
        self._output_normalization = keras.layers.BatchNormalization(
            momentum=MOMENTUM, dtype=self.dtype_policy, name="output_normalization"
        )
        self._output_normalization.build((None, units))
        self.built = True

    def call(self, inputs, training=None):
        product = 1
        normalized = normalize_each(self._normalizations, inputs, training)
        for factor, features in zip(self._factors, normalized, strict=True):
            product = product * factor(features)
        ranks = ops.reshape(product, (-1, self.rank, product.shape[-1] // self.rank))
        fused = self._output_normalization(ops.sum(ranks, axis=1), training=training)
        return ops.relu(fused)

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], self.units or max(fused_widths(self.name, input_shape)))

    def get_config(self):
        return {**super().get_config(), "units": self.units, "rank": self.rank}
