"""Images -> the strength of their edges."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

_SOBEL = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]], np.float32)


@keras.saving.register_keras_serializable(package="kfusion")
class EdgeMagnitude(keras.layers.Layer):
    """Sobel gradient magnitude of the mean over channels, `sqrt(gx**2 + gy**2)`.

    Borders repeat the outermost pixels. An 8-bit image gives 0 to about 1,140; divide by
    `scale` to bring typical edges to around 1.

    Args:
        scale: Float, divisor of the magnitude.

    Takes `(rows, height, width, channels)` numbers and gives `(rows, height, width, 1)` floats.
    """

    def __init__(self, scale: float = 255.0, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.scale = scale

    def call(self, inputs):
        grey = ops.mean(ops.cast(inputs, "float32"), axis=-1, keepdims=True)
        padded = ops.concatenate([grey[:, :1], grey, grey[:, -1:]], axis=1)
        padded = ops.concatenate([padded[:, :, :1], padded, padded[:, :, -1:]], axis=2)
        kernel = np.stack([_SOBEL, _SOBEL.T], axis=-1)[:, :, None, :]
        gradients = ops.conv(padded, kernel, padding="valid", data_format="channels_last")
        squared = ops.sum(ops.square(gradients), axis=-1, keepdims=True)
        return ops.cast(ops.sqrt(squared) / self.scale, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 1)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}
