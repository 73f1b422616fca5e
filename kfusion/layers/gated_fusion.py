"""A mixture of feature vectors whose weights each row decides for itself."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kfusion.layers.fused_shapes import fused_widths
from kfusion.layers.normalized_dense import build_normalizations, build_projections, normalize_each


@keras.saving.register_keras_serializable(package="kfusion")
class GatedFusion(keras.layers.Layer):
    """Gated multimodal unit: `sum_m z_m * tanh(V_m x_m)`, with gates from all branches together.

    `z = softmax over branches of W [BN(x_1); ..; BN(x_M)]`, per unit. For two branches that is the
    paper's `z = sigmoid(..)` and `1 - z`. The projections are batch-normalised before the tanh.
    The gates say how much each branch counts for a row: see `gates`.

    Source: Arevalo et al., 2017, "Gated Multimodal Units for Information Fusion",
    arXiv:1702.01992.

    Args:
        units: Int, common width; by default the largest of the branches.

    Takes a list of `(rows, width)` and gives `(rows, units)`.
    """

    def __init__(self, units: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        widths = fused_widths(self.name, input_shape)
        units = self.units or max(widths)
        self._normalizations = build_normalizations(widths, self.dtype_policy)
        self._projections = build_projections(widths, units, "tanh", self.dtype_policy)
        self._gate = keras.layers.Dense(len(widths) * units, dtype=self.dtype_policy, name="gate")
        self._gate.build((None, sum(widths)))
        self.built = True

    def gates(self, inputs, training=None):
        """Returns `(rows, branches, units)`: weights that sum to 1 over the branches."""
        normalized = normalize_each(self._normalizations, inputs, training)
        scores = self._gate(ops.concatenate(normalized, axis=-1))
        return ops.softmax(
            ops.reshape(scores, (-1, len(inputs), scores.shape[-1] // len(inputs))), axis=1
        )

    def call(self, inputs, training=None):
        projected = [
            projection(features, training=training)
            for projection, features in zip(self._projections, inputs, strict=True)
        ]
        return ops.sum(self.gates(inputs, training) * ops.stack(projected, axis=1), axis=1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], self.units or max(fused_widths(self.name, input_shape)))

    def get_config(self):
        return {**super().get_config(), "units": self.units}
