"""Numbers with missing values, normalised by those that are there."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kfusion.layers.normalized_dense import MOMENTUM

EPSILON = 1e-3


@keras.saving.register_keras_serializable(package="kfusion")
class ObservedNormalization(keras.layers.Layer):
    """Batch normalisation of each channel by its observed values; missing ones (NaN) become 0.

    In training by the mean and variance of the batch, at inference by moving averages of them,
    which a channel without any value in a batch leaves as they are. There is no scale to learn.

    Args:
        flag_missing: Whether a second half of the channels says what was missing (1) and what
            was not (0).

    Attributes:
        synchronized: Whether a batch that devices share is observed whole, as of
            `keras.layers.BatchNormalization` (tensorflow alone; jax needs no word). `fit` sees to
            it.

    Takes `(rows, .., channels)` and gives the same shape, or twice the channels.
    """

    def __init__(self, flag_missing: bool = False, **kwargs: Any):
        # Half precision cannot hold raw numbers: scale in float32, then cast.
        super().__init__(autocast=False, **kwargs)
        self.flag_missing = flag_missing
        self.synchronized = False

    def build(self, input_shape):
        width = input_shape[-1]
        self.moving_mean = self._add_statistic(width, "zeros", "moving_mean")
        self.moving_variance = self._add_statistic(width, "ones", "moving_variance")
        self.built = True

    def _add_statistic(self, width: int, initializer: str, name: str):
        return self.add_weight(
            shape=(width,), initializer=initializer, trainable=False, autocast=False, name=name
        )

    def call(self, inputs, training=None):
        values = ops.cast(inputs, "float32")
        missing = ops.isnan(values)
        observed = ops.cast(ops.logical_not(missing), "float32")
        # Filled before the arithmetic: a NaN would stay one when multiplied by 0.
        filled = ops.where(missing, 0.0, values)
        if training:
            mean, variance = self._observe(filled, observed)
        else:
            mean, variance = self.moving_mean, self.moving_variance
        normalized = (filled - mean) / ops.sqrt(variance + EPSILON) * observed
        if self.flag_missing:
            normalized = ops.concatenate([normalized, 1 - observed], axis=-1)
        return ops.cast(normalized, self.compute_dtype)

    def _observe(self, filled, observed):
        """Mean and variance of a batch's observed values; moves the averages towards them."""
        share = self._mean(observed)
        is_seen = share > 0
        divisor = ops.where(is_seen, share, 1.0)
        mean = self._mean(filled) / divisor
        variance = self._mean(ops.square(filled - mean) * observed) / divisor
        weight = (1 - MOMENTUM) * ops.cast(is_seen, "float32")
        for moving, current in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving + weight * (current - moving))
        return mean, variance

    def _mean(self, values):
        """Mean of each channel over the batch, of all devices if synchronized."""
        axes = tuple(range(len(values.shape) - 1))
        if self.synchronized:
            return ops.moments(values, axes, synchronized=True)[0]
        return ops.mean(values, axis=axes)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] * (1 + self.flag_missing))

    def get_config(self):
        return {**super().get_config(), "flag_missing": self.flag_missing}
