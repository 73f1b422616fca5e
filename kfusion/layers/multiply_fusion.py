"""One feature vector, gated by the others."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kfusion.layers.fused_shapes import fused_widths
from kfusion.layers.normalized_dense import NormalizedDense, build_normalizations, normalize_each


@keras.saving.register_keras_serializable(package="kfusion")
class MultiplyFusion(keras.layers.Layer):
    """Multiplies the first branch's features by a sigmoid gate from each other branch.

    `activation(BN(W_0 x_0)) * prod_m 2 sigmoid(W_m BN(x_m) + b_m)`. The gates start at exactly 1
    (`W_m = 0, b_m = 0`), so the fusion starts as the first branch alone; put the stronger input
    first. A plain sigmoid would start at 0.5 and halve the signal.

    Args:
        units: Int, common width of features and gates; by default that of the first branch.
        activation: Activation of the gated side, "relu" or "linear".

    Takes a list of `(rows, width)` and gives `(rows, units)`.
    """

    def __init__(self, units: int | None = None, activation: str = "relu", **kwargs: Any):
        super().__init__(**kwargs)
        if activation not in ("relu", "linear"):
            raise ValueError(f'`activation` must be "relu" or "linear". Received: {activation!r}.')
        self.units = units
        self.activation = activation

    def build(self, input_shape):
        first, *others = fused_widths(self.name, input_shape)
        units = self.units or first
        self._gated = NormalizedDense(
            units, activation=self.activation, dtype=self.dtype_policy, name="gated"
        )
        self._gated.build((None, first))
        self._normalizations = build_normalizations(others, self.dtype_policy)
        self._gates = []
        for i, width in enumerate(others, start=1):
            gate = keras.layers.Dense(
                units, kernel_initializer="zeros", dtype=self.dtype_policy, name=f"gate_{i}"
            )
            gate.build((None, width))
            self._gates.append(gate)
        self.built = True

    def call(self, inputs, training=None):
        first, *others = inputs
        fused = self._gated(first, training=training)
        normalized = normalize_each(self._normalizations, others, training)
        for gate, features in zip(self._gates, normalized, strict=True):
            fused = fused * (2 * ops.sigmoid(gate(features)))
        return fused

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], self.units or fused_widths(self.name, input_shape)[0])

    def get_config(self):
        return {**super().get_config(), "units": self.units, "activation": self.activation}
