"""A dense layer for each member of an ensemble: one kernel, scaled and shifted by member."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kfusion")
class BatchEnsembleDense(keras.layers.Layer):
    """Runs the dense layers of many networks at once, at little more than the weights of one.

    Member m computes `activation(((x * r_m) W) * s_m + b_m)`, then dropout of its own: the kernel
    W is shared, the scales of inputs `r` and outputs `s` and the bias `b` are its own. All
    members start alike, but for the first layer of a network (`random_signs`), where each sees
    the inputs with signs of its own and so becomes another network.

    Source: Wen, Tran & Ba, 2020, "BatchEnsemble", arXiv:2002.06715; its start and use for tables,
    Gorishniy, Kotelnikov & Babenko, 2024, "TabM", arXiv:2410.24210.

    Args:
        units: Int, width of the output.
        members: Int, number of networks.
        activation: Keras activation.
        random_signs: Whether the scales of the inputs start as -1 or 1 at random, not as 1.
        dropout: Float in [0, 1), rate after the activation.
        l2: Float, L2 penalty on the kernel.

    Takes `(rows, features)`, the same for all members, or `(rows, members, features)`, and gives
    `(rows, members, units)`.
    """

    def __init__(
        self,
        units: int,
        members: int,
        activation: str | None = "relu",
        random_signs: bool = False,
        dropout: float = 0.0,
        l2: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = units
        self.members = members
        self.activation = activation
        self.random_signs = random_signs
        self.dropout = dropout
        self.l2 = l2
        self._activation = keras.layers.Activation(
            activation, dtype=self.dtype_policy, name="activation"
        )
        self._dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape):
        features = input_shape[-1]
        self._kernel = self.add_weight(
            shape=(features, self.units),
            initializer="he_normal" if self.activation == "relu" else "glorot_uniform",
            regularizer=keras.regularizers.L2(self.l2) if self.l2 else None,
            name="kernel",
        )
        self._input_scales = self.add_weight(
            shape=(self.members, features),
            initializer=_draw_signs if self.random_signs else "ones",
            name="input_scales",
        )
        self._output_scales = self.add_weight(
            shape=(self.members, self.units), initializer="ones", name="output_scales"
        )
        self._bias = self.add_weight(
            shape=(self.members, self.units), initializer="zeros", name="bias"
        )
        self.built = True

    def call(self, inputs, training=None):
        if len(inputs.shape) == 2:
            inputs = ops.expand_dims(inputs, 1)
        features = ops.matmul(inputs * self._input_scales, self._kernel)
        features = self._activation(features * self._output_scales + self._bias)
        return self._dropout(features, training=training)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.members, self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "members": self.members,
            "activation": self.activation,
            "random_signs": self.random_signs,
            "dropout": self.dropout,
            "l2": self.l2,
        }


def _draw_signs(shape, dtype=None):
    draws = keras.initializers.RandomUniform(-1, 1)(shape, dtype)
    return ops.where(draws < 0, -ops.ones_like(draws), ops.ones_like(draws))
