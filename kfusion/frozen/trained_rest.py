"""The rest of a model behind its frozen parts: trained as the whole, which callbacks see."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from kfusion.frozen.augmented_views import DrawnView
from kfusion.frozen.frozen_parts import Part, Split, Step, StepsModel, Value


class TrainedOnFeatures(StepsModel):
    """The rest of a model behind its frozen parts, with the weights of the whole."""

    def __init__(self, whole: keras.Model, split: Split, augmented_views: int):
        given = {value.tensor.name: value for value in split.inputs}
        draws = []
        for part in split.parts:
            named = named_features(split, part)
            if part.augmentations:
                # All outputs take the same view of a row.
                named = {name: _views_of(value) for name, value in named.items()}
                taken = (list(named.values()),)
                draws.append(Step(DrawnView(augmented_views), taken, {}, part.outputs))
            given |= named
        super().__init__(
            given,
            [*draws, *split.steps],
            split.outputs,
            [whole, *(step.operation for step in draws)],
            dtype=whole.dtype_policy,
            name=whole.name,
        )
        run = {id(layer) for step in split.steps for layer in _layers_within(step)}
        augmenting = [
            layer
            for part in split.parts
            for step in part.augmentations
            for layer in _layers_within(step)
            if id(layer) not in run
        ]
        # A list would be tracked.
        self._idle = lambda: augmenting

    def compile(self, *arguments, **keywords):
        """As of any model. Keras asks all layers within whether XLA takes them, run or not."""
        hindering = [layer for layer in self._idle() if not layer.supports_jit]
        for layer in hindering:
            layer.supports_jit = True
        try:
            super().compile(*arguments, **keywords)
        finally:
            for layer in hindering:
                layer.supports_jit = False

    @property
    def output(self):
        """As of the whole model."""
        return self.weights_of[0].output

    @property
    def output_names(self):
        """As of the whole model."""
        return self.weights_of[0].output_names


class OfWholeModel(keras.callbacks.CallbackList):
    """Callbacks that see, stop and save the whole model while a part of it is trained.

    Args:
        callbacks: Keras callbacks.
        whole: The model that they see.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], whole: keras.Model):
        self.whole, self.trained = whole, whole
        super().__init__(list(callbacks), model=whole)
        # Only what looks at batches has to be waited for.
        self.async_safe = self._async_train

    def set_model(self, model):
        self.trained = model
        super().set_model(self.whole)

    def on_train_begin(self, logs=None):
        self.whole.stop_training = False
        super().on_train_begin(logs)

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        self._stop_if_asked()

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self._stop_if_asked()

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        self.whole.history = self.trained.history
        self.whole.history.set_model(self.whole)

    def _stop_if_asked(self) -> None:
        if self.whole.stop_training:
            self.trained.stop_training = True


def named_features(split: Split, part: Part) -> dict[str, Value]:
    """A part's outputs by names with a dot, which no input has."""
    number = split.parts.index(part)
    return {f"frozen.{number}.{i}": value for i, value in enumerate(part.outputs)}


def _layers_within(step: Step) -> list[keras.layers.Layer]:
    is_layer = isinstance(step.operation, keras.layers.Layer)
    return step.operation._flatten_layers() if is_layer else []


def _views_of(value: Value) -> Value:
    """What holds several views of each row of a value."""
    tensor = value.tensor
    return Value(keras.KerasTensor((None, None, *tensor.shape[1:]), tensor.dtype))
