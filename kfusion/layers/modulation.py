"""Features scaled and shifted per channel, as FiLM and DAFT do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kfusion.layers.fused_shapes import MAPS, TOKENS, VECTORS, fused_widths


def modulated_widths(layer_name: str, input_shape: Sequence[Sequence[int | None]]) -> list[int]:
    """Returns the widths of features of any rank and of the vectors that condition them."""
    return fused_widths(layer_name, input_shape, first=(VECTORS, TOKENS, MAPS))


def build_modulation(condition_width: int, channels: int, use_shift: bool, dtype: Any):
    """Returns the built layer that predicts changes of scale and shift, all 0 at the start."""
    modulation = keras.layers.Dense(
        channels * (1 + use_shift), kernel_initializer="zeros", dtype=dtype, name="modulation"
    )
    modulation.build((None, condition_width))
    return modulation


def modulate(features, changes, use_shift: bool):
    """`(1 + scale) * features + shift`, the same for all positions of a channel."""
    ones = [1] * (len(features.shape) - 2)
    changes = ops.reshape(changes, (-1, *ones, changes.shape[-1]))
    if not use_shift:
        return features * (1 + changes)
    scale, shift = ops.split(changes, 2, axis=-1)
    return features * (1 + scale) + shift
