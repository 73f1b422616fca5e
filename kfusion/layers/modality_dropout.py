"""In training, rows do without some of their modalities, as rows to predict may have to."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kfusion")
class ModalityDropout(keras.layers.Layer):
    """Drops modalities in training: each row its own, and never all that it has.

    Of what a row has, each is dropped with probability `rate`; where that would leave nothing, one
    of them, drawn evenly, stays. At inference nothing is dropped.

    Source: ModDrop, Neverova et al., 2016, IEEE Transactions on Pattern Analysis and Machine
    Intelligence 38:1692-1706, arXiv:1501.00102.

    Args:
        rate: Float in [0, 1].
        seed: Int, or None for a random one.

    Takes `(rows, modalities)` of 1 where a modality is there and 0 where not, and gives the same.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0 <= rate <= 1:
            raise ValueError(f"`rate` must be from 0 to 1. Received: rate={rate}.")
        self.rate = rate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        if not training or not self.rate:
            return inputs
        drawn = keras.random.uniform(ops.shape(inputs), dtype="float32", seed=self.seed_generator)
        is_there = inputs > 0
        is_kept = ops.logical_and(is_there, drawn >= self.rate)
        # One that is there, for rows that would have lost all.
        spared = ops.argmax(ops.where(is_there, drawn, -1.0), axis=1)
        is_spared = ops.cast(ops.one_hot(spared, inputs.shape[1]), "bool")
        is_lost = ops.logical_not(ops.any(is_kept, axis=1, keepdims=True))
        kept = ops.where(is_lost, ops.logical_and(is_there, is_spared), is_kept)
        return ops.cast(kept, inputs.dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
