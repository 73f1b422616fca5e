"""A prediction that is kept, plus a correction that starts at nothing."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kfusion.layers.fused_shapes import fused_widths
from kfusion.layers.normalized_dense import (
    NormalizedDense,
    build_normalizations,
    normalize_each,
)


@keras.saving.register_keras_serializable(package="kfusion")
class ResidualFusion(keras.layers.Layer):
    """Adds to a trained model's prediction a correction learned from all branches' features.

    In logits z, `z + alpha * scale * g(h_1, ..., h_M)`, where `g` is one hidden layer on the
    batch-normalised features and the learned number `alpha` is 0 at the start: the answer then is
    the trained model's, to the bit, and training leaves it only for something better (the start
    of ReZero, Bachlechner et al., 2020, arXiv:2003.04887).

    Args:
        activation: What turns logits into the prediction: "sigmoid", "softmax" or "linear".
        units: Int, width of the hidden layer.
        dropout: Float in [0, 1), rate after it.
        l2: Float, L2 penalty on its kernel.
        scale: Float, the size of a correction of 1: a regression's spread, else 1.

    Takes a list of the prediction `(rows, outputs)` and one or more `(rows, width)` and gives
    `(rows, outputs)`.
    """

    def __init__(
        self,
        activation: str = "linear",
        units: int = 64,
        dropout: float = 0.0,
        l2: float = 0.0,
        scale: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if activation not in ("linear", "sigmoid", "softmax"):
            raise ValueError(
                '`activation` must be "linear", "sigmoid" or "softmax". Received: '
                f"activation={activation!r}."
            )
        self.activation = activation
        self.units = units
        self.dropout = dropout
        self.l2 = l2
        self.scale = scale

    def build(self, input_shape):
        outputs, *widths = fused_widths(self.name, input_shape)
        self._normalizations = build_normalizations(widths, self.dtype_policy)
        self._hidden = NormalizedDense(
            self.units, dropout=self.dropout, l2=self.l2, dtype=self.dtype_policy, name="hidden"
        )
        self._hidden.build((None, sum(widths)))
        self._correction = keras.layers.Dense(outputs, dtype=self.dtype_policy, name="correction")
        self._correction.build((None, self.units))
        self._alpha = self.add_weight(shape=(), initializer="zeros", name="alpha")
        self.built = True

    def call(self, inputs, training=None):
        prediction, *features = inputs
        features = normalize_each(self._normalizations, features, training)
        hidden = self._hidden(ops.concatenate(features, axis=-1), training=training)
        factor = ops.cast(ops.convert_to_tensor(self._alpha) * self.scale, self.compute_dtype)
        correction = factor * self._correction(hidden)
        if self.activation == "linear":
            return prediction + correction
        logits = to_logits(prediction, self.activation)
        activate = keras.activations.get(self.activation)
        # Written as a change, which is 0 at the start whatever rounding the logits went through,
        # with its gradient kept.
        change = activate(logits + correction) - activate(logits)
        is_start = ops.equal(ops.convert_to_tensor(self._alpha), 0)
        change = ops.where(is_start, change - ops.stop_gradient(change), change)
        return ops.clip(prediction + change, 0.0, 1.0)

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], fused_widths(self.name, input_shape)[0])

    def get_config(self):
        return {
            **super().get_config(),
            "activation": self.activation,
            "units": self.units,
            "dropout": self.dropout,
            "l2": self.l2,
            "scale": self.scale,
        }


def to_logits(probabilities, activation: str):
    """Logits of the probabilities that "sigmoid" or "softmax" gave, or a "linear" value as is."""
    if activation == "linear":
        return probabilities
    smallest = 1e-3 if keras.backend.standardize_dtype(probabilities.dtype) == "float16" else 1e-7
    bounded = ops.clip(probabilities, smallest, 1 - smallest)
    if activation == "sigmoid":
        return ops.log(bounded) - ops.log1p(-bounded)
    return ops.log(bounded)
