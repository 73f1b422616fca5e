"""Pooled predictions: those of several models -> one, weighted on the logarithmic scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

SMALLEST = 1e-30
ACTIVATIONS = ("sigmoid", "softmax", "linear")


@keras.saving.register_keras_serializable(package="kfusion")
class LogLinearPool(keras.layers.Layer):
    """Pools members' predictions as a `Blend` does; `set_blend` fills it.

    Of classes, the softmax of the sum of scaled logarithms (a logarithmic opinion pool, Genest &
    Zidek, 1986, Statistical Science 1:114-135); of values, their scaled sum. What it holds are
    weights that do not train.

    Args:
        num_members: Int, number of predictions.
        activation: What the predictions are: "sigmoid", one column, the probability of the second
            of two classes; "softmax", a column per class; "linear", values.

    Takes a list of `(rows, units)` and gives `(rows, units)`.
    """

    def __init__(self, num_members: int, activation: str, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        if num_members < 1 or activation not in ACTIVATIONS:
            raise ValueError(
                f"`num_members` must be 1 or more and `activation` one of {list(ACTIVATIONS)}. "
                f"Received: {num_members} and {activation!r}."
            )
        self.num_members = num_members
        self.activation = activation

    def build(self, input_shape):
        units = input_shape[0][-1]
        classes = 2 if self.activation == "sigmoid" else units
        shapes = {
            "scales": (self.num_members,),
            "floors": (self.num_members,),
            "anchors": (self.num_members, classes),
            "rates": (classes,),
            "base": (classes,),
        }
        self._parts = {
            name: self.add_weight(
                name=name, shape=shape, dtype="float32", trainable=False, autocast=False
            )
            for name, shape in shapes.items()
        }
        self.built = True

    def call(self, inputs):
        parts = {name: weight[...] for name, weight in self._parts.items()}
        total: Any = parts["base"]
        for i, given in enumerate(inputs):
            evidence = ops.cast(given, "float32")
            if self.activation != "linear":
                if self.activation == "sigmoid":
                    evidence = ops.concatenate([1 - evidence, evidence], axis=-1)
                floor = parts["floors"][i]
                mixed = (1 - floor) * evidence + floor * parts["rates"]
                evidence = ops.log(ops.maximum(mixed, SMALLEST))
            total = total + parts["scales"][i] * (evidence - parts["anchors"][i])
        if self.activation == "softmax":
            total = ops.softmax(total)
        elif self.activation == "sigmoid":
            total = ops.sigmoid(total[:, 1:] - total[:, :1])
        return ops.cast(total, self.compute_dtype)

    def set_blend(self, blend: Any, members: Sequence[str]) -> None:
        """Takes over a blend's numbers.

        Args:
            blend: `Blend` of `kfusion.estimators.blending`.
            members: Names of its members in the order of the inputs.
        """
        scales = blend.scales
        values = {
            "scales": [scales[name] for name in members],
            "floors": [blend.floors[name] for name in members],
            "anchors": [blend.anchors[name] for name in members],
            "rates": blend.rates,
            "base": blend.base,
        }
        for name, weight in self._parts.items():
            weight.assign(np.array(values[name], np.float32))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])

    def get_config(self):
        return {
            **super().get_config(),
            "num_members": self.num_members,
            "activation": self.activation,
        }
