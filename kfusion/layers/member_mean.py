"""What the members of an ensemble give -> their mean."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kfusion")
class MemberMean(keras.layers.Layer):
    """Averages over the members of an ensemble: `(rows, members, units)` to `(rows, units)`.

    Probabilities are averaged as such, not their logits. A branch that ends in this layer holds
    an ensemble: alone in a model, `build_unimodal_model` gives each member a head of its own.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)

    def call(self, inputs):
        return ops.mean(inputs, axis=1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[2])
