"""Of several answers, the one that is meant for what a row has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kfusion")
class PresenceSwitch(keras.layers.Layer):
    """Gives each row the answer that belongs to its inputs.

    Args:
        patterns: For each answer but the first, a list of which inputs it needs, true or false.
            Rows that have all inputs, or those of no pattern, get the first answer, others that of
            the last pattern whose inputs they have.
        activation: What the answers are: "sigmoid", "softmax" or "linear". It changes nothing, and
            says what the model predicts.

    Takes a list of `(rows, inputs)`, 1 where an input is there and 0 where not, and of the answers,
    `(rows, units)` each; gives `(rows, units)`.
    """

    def __init__(self, patterns: Sequence[Sequence[bool]], activation: str, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.patterns = [[bool(flag) for flag in pattern] for pattern in patterns]
        self.activation = activation

    def call(self, inputs):
        is_there = inputs[0] > 0
        whole, *others = (ops.cast(each, self.compute_dtype) for each in inputs[1:])
        answer = whole
        for pattern, other in zip(self.patterns, others, strict=True):
            needed = ops.convert_to_tensor(pattern)
            fits = ops.all(ops.logical_or(is_there, ops.logical_not(needed)), axis=1)
            answer = ops.where(fits[:, None], other, answer)
        return ops.where(ops.all(is_there, axis=1)[:, None], whole, answer)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[1])

    def get_config(self):
        return {**super().get_config(), "patterns": self.patterns, "activation": self.activation}
