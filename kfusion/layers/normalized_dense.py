"""Dense without bias -> batch normalisation -> activation -> dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

# Keras' 0.99 leaves the moving statistics behind in fits of a few hundred steps.
MOMENTUM = 0.9


@keras.saving.register_keras_serializable(package="kfusion")
class NormalizedDense(keras.layers.Layer):
    """A hidden layer whose outputs lie in one range, so that they can be fused with others'.

    Features of different range (a sigmoid beside a relu) make a joined network worse than its
    better half; batch normalisation before the activation brings all of them to one.

    Source: Ioffe & Szegedy, 2015, "Batch Normalization", arXiv:1502.03167.

    Args:
        units: Int, width of the output.
        activation: Keras activation.
        dropout: Float in [0, 1), rate after the activation.
        l2: Float, L2 penalty on the kernel.
    """

    def __init__(
        self,
        units: int,
        activation: str | None = "relu",
        dropout: float = 0.0,
        l2: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = units
        self.activation = activation
        self.dropout = dropout
        self.l2 = l2
        self._dense = keras.layers.Dense(
            units,
            use_bias=False,
            kernel_initializer="he_normal" if activation == "relu" else "glorot_uniform",
            kernel_regularizer=keras.regularizers.L2(l2) if l2 else None,
            dtype=self.dtype_policy,
            name="dense",
        )
        self._normalization = keras.layers.BatchNormalization(
            momentum=MOMENTUM, dtype=self.dtype_policy, name="normalization"
        )
        self._activation = keras.layers.Activation(
            activation, dtype=self.dtype_policy, name="activation"
        )
        self._dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape):
        self._dense.build(input_shape)
        self._normalization.build(self.compute_output_shape(input_shape))
        self.built = True

    def call(self, inputs, training=None):
        features = self._normalization(self._dense(inputs), training=training)
        return self._dropout(self._activation(features), training=training)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "activation": self.activation,
            "dropout": self.dropout,
            "l2": self.l2,
        }


def build_normalizations(widths: Sequence[int], dtype: Any) -> list[keras.layers.Layer]:
    """Returns one built batch normalisation per input width, with no scale of its own to learn.

    The weights behind it learn that already.
    """
    normalizations = []
    for i, width in enumerate(widths):
        normalization = keras.layers.BatchNormalization(
            momentum=MOMENTUM,
            center=False,
            scale=False,
            dtype=dtype,
            name=f"normalization_{i}",
        )
        normalization.build((None, width))
        normalizations.append(normalization)
    return normalizations


def normalize_each(normalizations, inputs, training):
    """Applies each normalisation to its own input."""
    return [
        normalization(features, training=training)
        for normalization, features in zip(normalizations, inputs, strict=True)
    ]


def build_projections(
    widths: Sequence[int], units: int, activation: str, dtype: Any, rank: int = 2
) -> list[NormalizedDense]:
    """Returns one built layer per input width, all to vectors of `units`; inputs have one rank."""
    projections = []
    for i, width in enumerate(widths):
        projection = NormalizedDense(
            units, activation=activation, dtype=dtype, name=f"projection_{i}"
        )
        projection.build((*[None] * (rank - 1), width))
        projections.append(projection)
    return projections
