"""A model that stays as it is while others around it train."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="kfusion")
class Frozen(keras.layers.Layer):
    """Runs a model in inference mode whatever happens around it, its weights fixed.

    `model.trainable = False` leaves Dropout active in `fit`, and `model(x, training=False)` is
    overridden there. `call` takes no `training` here, so nothing can pass it on.

    Args:
        model: Any Keras model with one input and one output. Its weights are shared, so it is
            frozen everywhere.
    """

    def __init__(self, model: keras.Model, **kwargs: Any):
        super().__init__(**kwargs)
        self.model = model
        self.trainable = False
        model.trainable = False
        # On tensorflow Keras skips a flag that is set already, and with it the weights below.
        for weight in model.weights:
            weight.trainable = False

    def build(self, input_shape):
        if not self.model.built:
            self.model.build(input_shape)
        self.built = True

    def call(self, inputs):
        return self.model(inputs, training=False)

    def compute_output_shape(self, input_shape):
        return self.model.compute_output_shape(input_shape)

    def get_config(self):
        return {**super().get_config(), "model": keras.saving.serialize_keras_object(self.model)}

    @classmethod
    def from_config(cls, config):
        model = keras.saving.deserialize_keras_object(config.pop("model"))
        return cls(model, **config)
