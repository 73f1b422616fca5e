"""One Keras model of all members, each the mean of its fold models, and of the blend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from kfusion.blending import Blend
from kfusion.layers import LogLinearPool
from kfusion.models import PREDICTION, prediction_model
from kfusion.prediction import input_specs
from kfusion.tasks import Task


def build_blended_model(
    members: Mapping[str, Sequence[keras.Model]],
    blend: Blend,
    *,
    task: Task,
    encoders: Mapping[str, keras.Model] | None = None,
    name: str = "blended_model",
) -> keras.Model:
    """Joins trained members in one graph that answers as their blend.

    Args:
        members: By name, the models of one member, whose mean prediction counts; each from named
            inputs to a prediction of the task. Those of weight 0 are left out.
        blend: `Blend` of their mean predictions.
        task: `Task`.
        encoders: By the name of a member's input, a model that makes it from another input, such
            as "image_features" from "image"; run once for all members.
        name: Name of the model.

    Returns:
        Uncompiled `keras.Model` from a dict of inputs to `(rows, task.units)`.
    """
    kept = {member: models for member, models in members.items() if blend.weights[member] > 0}
    if not kept:
        # All that is left of members of no use is the class rates: the graph still needs an input.
        kept = dict(list(members.items())[:1])
    tensors = _Tensors(encoders or {})
    predictions = []
    for member, models in kept.items():
        parts = []
        for number, model in enumerate(models):
            given = {key: tensors.of(key, spec) for key, spec in input_specs(model).items()}
            part = prediction_model(model)
            # Layers of one model must have different names; these were all called the same.
            part.name = f"{member.replace(' ', '_')}_{number}"
            parts.append(part(given if isinstance(part.input, dict) else list(given.values())))
        mean = keras.layers.Average(dtype="float32", name=f"{member.replace(' ', '_')}_mean")
        predictions.append(mean(parts) if len(parts) > 1 else parts[0])
    pool = LogLinearPool(len(kept), task.activation or "linear", dtype="float32", name=PREDICTION)
    outputs = pool(predictions)
    pool.set_blend(blend, list(kept))
    return keras.Model(tensors.inputs, outputs, name=name)


class _Tensors:
    """Inputs of the whole model by name, and what encoders make of them, each made once."""

    def __init__(self, encoders: Mapping[str, keras.Model]):
        self.inputs: dict[str, keras.KerasTensor] = {}
        self._encoders = encoders
        self._encoded: dict[str, keras.KerasTensor] = {}

    def of(self, key: str, spec) -> keras.KerasTensor:
        if key in self._encoders:
            if key not in self._encoded:
                encoder = self._encoders[key]
                ((source, source_spec),) = input_specs(encoder).items()
                self._encoded[key] = encoder(self.of(source, source_spec))
            return self._encoded[key]
        if key not in self.inputs:
            self.inputs[key] = keras.Input(spec.shape, dtype=spec.dtype, name=key)
        return self.inputs[key]
