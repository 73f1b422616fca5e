"""A model that stays as it is while others around it train."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="kfusion")
class Frozen(keras.layers.Layer):
    """Runs a model in inference mode whatever happens around it, its weights fixed.

    `model.trainable = False` leaves Dropout active in `fit`, and `model(x, training=False)` is
    overridden there. Here Dropout and noise are off and BatchNormalization uses the statistics
    that it has: in `fit`, after saving and loading, in clones and in exports.

    Setting `trainable = True` on a model around this layer lets nothing train that is frozen
    here; `trainable = False` also stops what `unfrozen` names, until it is set back. The weights
    are shared with the model given: setting `trainable` on that model itself, or on a layer in
    it, is the one way around, and holds until this layer is saved and loaded.

    Args:
        model: Any Keras model; inputs and outputs may be single, lists or dicts.
        unfrozen: Positions in `layers_that_can_train()` of those whose weights do train.
    """

    def __init__(self, model: keras.Model, unfrozen: Sequence[int] = (), **kwargs: Any):
        # The model casts its inputs itself: in half precision here, large numbers would be lost.
        super().__init__(autocast=False, **kwargs)
        self.model = model
        self.unfrozen = list(unfrozen)
        self._lets_train = bool(kwargs.get("trainable", True))
        self._resume = keras.layers.Dropout(0.0, autocast=False, name="resume")
        self._pin()

    def build(self, input_shape):
        if not self.model.built:
            # On tensorflow a weight that is made while its layer is frozen could never train.
            for layer in self.model._flatten_layers():
                layer.trainable = True
            self.model.build_from_config({"input_shape": input_shape})
            self._pin()
        self.built = True

    def call(self, inputs, training=None):
        outputs = self.model(inputs, training=False)
        # Keras hands the last `training` on to the layers that a subclassed model calls next.
        return self._resume(outputs, training=training)

    def compute_output_spec(self, inputs, training=None):
        return self.model(inputs, training=False)

    def compute_output_shape(self, input_shape):
        return self.model.compute_output_shape(input_shape)

    def get_config(self):
        model = keras.saving.serialize_keras_object(self.model)
        # Its loss and optimizer are not needed here, and might not load elsewhere.
        model.pop("compile_config", None)
        return {**super().get_config(), "model": model, "unfrozen": list(self.unfrozen)}

    @classmethod
    def from_config(cls, config):
        model = keras.saving.deserialize_keras_object(config["model"])
        return cls(**{**config, "model": model})

    @property
    def metrics(self):
        """None: the model's own would be reported as the outer one's."""
        return []

    @property
    def trainable(self):
        """Whether any weight trains: only those of `unfrozen` ever do."""
        return self._lets_train and bool(self.unfrozen)

    @trainable.setter
    def trainable(self, value):
        self._lets_train = bool(value)
        self._pin()

    def unfreeze(self, positions: Sequence[int]) -> None:
        """Lets the layers at these positions in `layers_that_can_train()` train, and no others."""
        self.unfrozen = list(positions)
        self._lets_train = True
        self._pin()

    def layers_that_can_train(self) -> list[tuple[str, keras.layers.Layer]]:
        """The model's layers that have weights to train, first to last, each after its path.

        Models within the model are opened ("inner_model/layer"), other layers are not.
        BatchNormalization is left out, and so is what another `Frozen` holds.
        """
        found = {id(layer): (path, layer) for path, layer in _leaves(self.model)}
        return [(path, layer) for path, layer in found.values() if _can_train(layer)]

    def _pin(self) -> None:
        """Switches every weight off, then on those of `unfrozen`."""
        for layer in self.model._flatten_layers():
            layer.trainable = False
        # On tensorflow Keras skips a layer whose flag is off already, and with it its weights.
        for weight in self.model.weights:
            weight.trainable = False
        if not (self.trainable and self.model.weights):
            return
        layers = self.layers_that_can_train()
        for position in self.unfrozen:
            if not 0 <= position < len(layers):
                raise ValueError(
                    f"`unfrozen` must hold positions below {len(layers)}, the number of layers "
                    f"of {self.model.name!r} that can train. Received: {self.unfrozen}."
                )
            _let_train(layers[position][1])


def _leaves(model: keras.Model, path: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer, f"{path}{layer.name}/")
        elif not _stays_frozen(layer):
            yield f"{path}{layer.name}", layer


def _stays_frozen(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, (keras.layers.BatchNormalization, Frozen))


# Keras has no public way to the layers that a layer is made of, nor to the weights that would
# train if they were not frozen.
def _can_train(layer: keras.layers.Layer) -> bool:
    parts = layer._flatten_layers()
    return any(part._trainable_variables for part in parts if not _stays_frozen(part))


def _let_train(layer: keras.layers.Layer) -> None:
    layer.trainable = True
    for part in layer._flatten_layers():
        if _stays_frozen(part):
            part.trainable = False
