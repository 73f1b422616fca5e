"""Copies of items that are there, in training, in the place of those that are not."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kfusion")
class RepeatPresent(keras.layers.Layer):
    """Keeps what is not there out of the batch statistics of the layers behind.

    In training each item that is not there becomes a copy of one that is, of any row, each as often
    as the others or once more: shapes stay as they are, and BatchNormalization sees nothing else.
    What is made of the copies must be left out behind, as `MaskedPool` does. At inference, and
    where no item is there, items are passed on as they are.

    Takes a list of `(items, ...)` and whether they are there, `(items, 1)`, not 0 where an item is,
    and gives `(items, ...)`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)

    def call(self, inputs, training=None):
        items, is_there = inputs
        if not training:
            return items
        there = ops.reshape(ops.cast(is_there, "bool"), (-1,))
        absent = ops.cast(ops.logical_not(there), "int32")
        present_first = ops.cast(ops.argsort(absent), "int32")
        count = ops.maximum(ops.sum(1 - absent), 1)
        source = ops.take(present_first, (ops.cumsum(absent) - 1) % count)
        own = ops.cast(ops.arange(ops.shape(items)[0]), "int32")
        return ops.take(items, ops.where(there, own, source), axis=0)

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(inputs[0].shape, inputs[0].dtype)
