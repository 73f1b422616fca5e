"""A learned weighted mean of feature vectors."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kfusion.layers.fused_shapes import fused_widths
from kfusion.layers.normalized_dense import build_projections


@keras.saving.register_keras_serializable(package="kfusion")
class WeightedFusion(keras.layers.Layer):
    """Projects each branch to one width and adds them up, weighted by a learned parameter.

    `relu(sum_m softmax(a)_m * BN(W_m x_m))`: how much each input counts is `softmax(a)`, one
    number per branch or, with `per_unit`, one per branch and unit. All start equal.

    Args:
        units: Int, common width; by default the largest of the branches.
        per_unit: Whether each unit has weights of its own.

    Takes a list of `(rows, width)` and gives `(rows, units)`.
    """

    def __init__(self, units: int | None = None, per_unit: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units
        self.per_unit = per_unit

    def build(self, input_shape):
        widths = fused_widths(self.name, input_shape)
        units = self.units or max(widths)
        self._projections = build_projections(widths, units, "linear", self.dtype_policy)
        self._scores = self.add_weight(
            shape=(len(widths), units if self.per_unit else 1), initializer="zeros", name="scores"
        )
        self.built = True

    @property
    def weights_per_branch(self):
        """`(branches, 1 or units)` tensor of weights that sum to 1 over the branches."""
        return ops.softmax(ops.convert_to_tensor(self._scores), axis=0)

    def call(self, inputs, training=None):
        weights = ops.cast(self.weights_per_branch, self.compute_dtype)
        projected = [
            projection(features, training=training)
            for projection, features in zip(self._projections, inputs, strict=True)
        ]
        return ops.relu(sum(weights[i] * features for i, features in enumerate(projected)))

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], self.units or max(fused_widths(self.name, input_shape)))

    def get_config(self):
        return {**super().get_config(), "units": self.units, "per_unit": self.per_unit}
