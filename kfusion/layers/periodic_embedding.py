"""Scaled numbers -> a vector for each, from sines and cosines of learned frequencies."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kfusion")
class PeriodicEmbedding(keras.layers.Layer):
    """Gives each number a vector of its own, so that a network can bend where it needs to.

    For each column, `relu(W [cos(2 pi c x), sin(2 pi c x)] + b)` with learned frequencies `c`
    that start from a normal of standard deviation `frequency_scale`. ("PLR" in the paper.) Small
    frequencies are a safe start; large ones can learn rows by heart.

    Source: Gorishniy, Rubachev & Babenko, 2022, "On Embeddings for Numerical Features in Tabular
    Deep Learning", arXiv:2203.05556.

    Args:
        units: Int, width of each column's vector.
        frequencies: Int, number of frequencies of each column.
        frequency_scale: Float above 0.

    Takes `(rows, columns)` scaled numbers and gives `(rows, columns * units)`.
    """

    def __init__(
        self,
        units: int = 16,
        frequencies: int = 32,
        frequency_scale: float = 0.05,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = units
        self.frequencies = frequencies
        self.frequency_scale = frequency_scale

    def build(self, input_shape):
        columns = input_shape[-1]
        self._frequencies = self.add_weight(
            shape=(columns, self.frequencies),
            initializer=keras.initializers.RandomNormal(stddev=self.frequency_scale),
            name="frequencies",
        )
        # The usual start of a dense layer for each column; Keras' own would count the columns in.
        bound = math.sqrt(1 / (2 * self.frequencies))
        self._kernel = self.add_weight(
            shape=(columns, 2 * self.frequencies, self.units),
            initializer=keras.initializers.RandomUniform(-bound, bound),
            name="kernel",
        )
        self._bias = self.add_weight(
            shape=(columns, self.units),
            initializer=keras.initializers.RandomUniform(-bound, bound),
            name="bias",
        )
        self.built = True

    def call(self, inputs):
        angles = 2 * math.pi * ops.expand_dims(inputs, -1) * self._frequencies
        waves = ops.concatenate([ops.cos(angles), ops.sin(angles)], axis=-1)
        vectors = ops.relu(ops.einsum("rcf,cfu->rcu", waves, self._kernel) + self._bias)
        return ops.reshape(vectors, (-1, inputs.shape[-1] * self.units))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1] * self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "frequencies": self.frequencies,
            "frequency_scale": self.frequency_scale,
        }
