"""The pixel scaling that a network of `keras.applications` was trained with."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def find_application(application: str) -> tuple[Any, Any]:
    """Returns the builder and the module of a network of `keras.applications`.

    Raises:
        ValueError: If there is no such network; lists those there are.
    """
    modules = [
        module
        for name in dir(keras.applications)
        if hasattr(module := getattr(keras.applications, name), "preprocess_input")
    ]
    builders = {
        name: (getattr(module, name), module)
        for module in modules
        for name in dir(module)
        if name[0].isupper()
    }
    if application not in builders:
        raise ValueError(
            f"There is no application {application!r} in keras.applications. It has: "
            f"{sorted(builders)}."
        )
    return builders[application]


@keras.saving.register_keras_serializable(package="kfusion")
class ApplicationPreprocessing(keras.layers.Layer):
    """Applies an application's own `preprocess_input`, so that it travels with the model.

    Args:
        application: Name in `keras.applications`, such as "VGG16".

    Takes `(rows, height, width, 3)` RGB values in 0-255 and gives the same shape.
    """

    def __init__(self, application: str, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.application = application
        self._module = find_application(application)[1]

    def call(self, inputs):
        pixels = ops.cast(inputs, "float32")
        scaled = self._module.preprocess_input(pixels, data_format="channels_last")
        return ops.cast(scaled, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "application": self.application}
