"""One Keras model of all members, each the mean of its fold models, and of the blend."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import keras

from kfusion.data.inputs import TABULAR
from kfusion.data.tables import TableSchema
from kfusion.estimators.blending import Blend
from kfusion.estimators.presence_blends import PresenceBlends
from kfusion.layers import LogLinearPool, Presence, PresenceSwitch
from kfusion.models.building import PREDICTION, prediction_model, presence_name
from kfusion.models.prediction import input_specs
from kfusion.tasks import Task


def build_blended_model(
    members: Mapping[str, Sequence[keras.Model]],
    blends: PresenceBlends,
    *,
    task: Task,
    schema: TableSchema | None = None,
    encoders: Mapping[str, keras.Model] | None = None,
    name: str = "blended_model",
) -> keras.Model:
    """Joins trained members in one graph that answers as their blend.

    Args:
        members: By name, the models of one member, whose mean prediction counts; each from named
            inputs to a prediction of the task. Those of weight 0 are left out.
        blends: `PresenceBlends` of their mean predictions.
        task: `Task`.
        schema: `TableSchema` of the "tabular" input, if it may be missing.
        encoders: By the name of a member's input, a model that makes it from another input, such
            as "image.features" from "image"; run once for all members.
        name: Name of the model.

    Returns:
        Uncompiled `keras.Model` from a dict of inputs to `(rows, task.units)`.
    """
    tensors = _Tensors(encoders or {})
    means = _Means(members, tensors)
    whole = _pool(blends.whole, blends.whole, means, task)
    pools = {i: _pool(blend, blends.whole, means, task) for i, blend in blends.partial.items()}
    # Inputs that no member that counts has learned from are none of the model's.
    known = [key for key in blends.inputs if key in tensors.inputs]
    answers: dict[frozenset[str], keras.KerasTensor] = {}
    for inputs, pool in pools.items():
        if not inputs.issuperset(known):
            # Of sets that differ in what the model does not take, the largest.
            answers[inputs.intersection(known)] = pool
    answers = {inputs: answers[inputs] for inputs in sorted(answers, key=len)}
    if not answers:
        return keras.Model(tensors.inputs, whole, name=name)
    num_codes = 0 if schema is None else len(schema.categories)
    is_there = [
        Presence(num_codes if key == TABULAR else 0, name=presence_name(key))(tensors.inputs[key])
        for key in known
    ]
    patterns = [[key in inputs for key in known] for inputs in answers]
    activation = task.activation or "linear"
    switch = PresenceSwitch(patterns, activation, dtype="float32", name=PREDICTION)
    joined = keras.layers.Concatenate(name="presence")(is_there)
    outputs = switch([joined, whole, *answers.values()])
    return keras.Model(tensors.inputs, outputs, name=name)


def _pool(blend: Blend, whole: Blend, means: _Means, task: Task):
    """The pool of the members that count."""
    kept = [member for member in means.members if blend.weights.get(member, 0) > 0]
    if not kept:
        # All that is left of members of no use is the class rates: the graph still needs an input.
        kept = [max(whole.weights, key=lambda member: whole.weights[member])]
        blend = dataclasses.replace(whole, weights=dict.fromkeys(whole.weights, 0.0))
    pool = LogLinearPool(len(kept), task.activation or "linear", dtype="float32")
    outputs = pool([means.of(member) for member in kept])
    pool.set_blend(blend, kept)
    return outputs


class _Means:
    """Each member's mean prediction, put into the graph when it is first asked for."""

    def __init__(self, members: Mapping[str, Sequence[keras.Model]], tensors: _Tensors):
        self.members = members
        self._tensors = tensors
        self._means: dict[str, keras.KerasTensor] = {}

    def of(self, member: str) -> keras.KerasTensor:
        if member in self._means:
            return self._means[member]
        parts = []
        plain = member.replace(" ", "_")
        for number, model in enumerate(self.members[member]):
            given = {key: self._tensors.of(key, spec) for key, spec in input_specs(model).items()}
            part = prediction_model(model)
            # Layers of one model must have different names; these were all called the same.
            part.name = f"{plain}.{number}"
            parts.append(part(given if isinstance(part.input, dict) else list(given.values())))
        mean = keras.layers.Average(dtype="float32", name=f"{plain}.mean")
        self._means[member] = mean(parts) if len(parts) > 1 else parts[0]
        return self._means[member]


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
