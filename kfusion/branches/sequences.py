"""The branch of a sequence: steps of numbers -> a small convolutional network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
from keras import ops

from kfusion.branches.dropout_rates import last_rates, listed_rates
from kfusion.layers import MaskedConv, MaskedPool, NormalizedDense, ObservedNormalization

CONV_FILTERS = (32, 64, 128)
LEAST_STEPS = 8


def sequence_branch(
    shape: Sequence[int],
    *,
    units: int = 64,
    pooling: str = "mean",
    dropout: float | Sequence[float] = 0.0,
    l2: float = 0.0,
    input_name: str = "sequence",
    name: str = "sequence_branch",
) -> keras.Model:
    """Builds a branch from a sequence of measurements to features.

    Each channel is normalised by its observed values. A step of which all channels are missing
    (NaN), such as the padding behind a shorter sequence, is not there: it is 0 to convolutions, as
    what lies beyond the ends is, and counts in no statistics and no average. A single missing
    value counts as its channel's mean, with a flag. A row without any step has an average of 0.

    Args:
        shape: `(steps, channels)`, where `steps` is the length of the longest sequence.
        units: Int, width of the features.
        pooling: "mean" or "max", over the steps that the convolutions leave.
        dropout: Float in [0, 1), rate on the features. A sequence holds the rates of several
            places: the last one that of the features, those before it of the last convolutions.
        l2: Float, L2 penalty on the kernels.
        input_name: Name of the input.
        name: Name of the model.

    Returns:
        `keras.Model` from `(rows, steps, channels)` float32 to `(rows, units)`.

    Raises:
        ValueError: If the shape is none of a sequence, or the pooling unknown.
    """
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(
            f"`shape` must be (steps, channels), each 1 or more. Received: shape={tuple(shape)}."
        )
    inputs = keras.Input(tuple(shape), name=input_name)
    mask = ops.cast(ops.any(ops.logical_not(ops.isnan(inputs)), axis=-1), "float32")
    features = ObservedNormalization(flag_missing=True, name="scale")(inputs)
    num_stages = _num_stages(shape[0])
    *between, last = listed_rates(dropout)
    rates = last_rates(between, num_stages)
    for i, filters in enumerate(CONV_FILTERS[:num_stages]):
        stage = MaskedConv(filters, dropout=rates[i], l2=l2, name=f"stage_{i + 1}")
        features, mask = stage([features, mask]), _halve(mask, i + 1)
    pooled = MaskedPool(pooling, name="pool")([features, mask])
    features = NormalizedDense(units, dropout=last, l2=l2, name="features")(pooled)
    return keras.Model(inputs, features, name=name)


def _num_stages(steps: int) -> int:
    """Stages that halve the steps until fewer than 8 are left."""
    num_stages = 1
    while num_stages < len(CONV_FILTERS) and math.ceil(steps / 2**num_stages) >= LEAST_STEPS:
        num_stages += 1
    return num_stages


def _halve(mask, stage: int):
    """A step is there behind a stage if one of its two was."""
    pool = keras.layers.MaxPooling1D(
        2, padding="same", data_format="channels_last", name=f"mask_{stage}"
    )
    return ops.squeeze(pool(ops.expand_dims(mask, -1)), -1)
