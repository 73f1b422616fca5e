"""A fused model that starts as the best of its trained members and can only leave it to improve."""

from __future__ import annotations

import os
from collections.abc import Mapping

import keras
import numpy as np

from kfusion.layers import ResidualFusion
from kfusion.layers.residual_fusion import to_logits
from kfusion.models.building import PREDICTION, join_branches, prediction_model
from kfusion.models.trained_branches import branch_from
from kfusion.models.trained_models import plain_model, read_model, taken_by
from kfusion.tasks import Task, as_task


def build_residual_model(
    members: Mapping[str, keras.Model | str | os.PathLike],
    *,
    task: Task | str,
    best: str | Mapping[str, float],
    units: int = 64,
    dropout: float = 0.0,
    l2: float = 0.0,
    input_names: Mapping[str, str] | None = None,
    name: str = "residual_model",
) -> keras.Model:
    """Joins trained models so that the result starts equal to the best of them.

    The members are frozen. The answer is that of the best member, in logits, plus a correction
    from the features in front of all members' last layers, which `ResidualFusion` starts at 0.
    `fit` also judges the start, so that the validation objective cannot end below that of the
    best member.

    Args:
        members: Two or more trained models, or `.keras` files, by name, each from one input to a
            prediction of the task. Those that take an image share the input "image", tables
            "tabular".
        task: `Task`, "binary" or "regression".
        best: Name of the best member, by its score on rows that will not test the result; or
            weights by name for a blend of the members' logits (of a regression's values).
        units: Int, width of the correction's hidden layer.
        dropout: Float in [0, 1), rate after it.
        l2: Float, L2 penalty on its kernel.
        input_names: Name of the input by member, where it is to be another.
        name: Name of the model.

    Returns:
        Uncompiled `keras.Model` from a dict of inputs to `(rows, task.units)`. Before training it
        predicts what the best member does, to the bit.

    Raises:
        TypeError: If a member is no Keras model.
        ValueError: If `members` is no mapping of two or more, one has another number of outputs
            than the task, or `best` names no member or weighs one by no number.
    """
    task = as_task(task)
    weights = _read_best(best, members)
    parts = {
        member: _with_features(prediction_model(_read(member, model)))
        for member, model in members.items()
    }
    for member, (_, width) in parts.items():
        if width != task.units:
            raise ValueError(
                f"Member {member!r} gives {width} value(s) per row but a {task.kind} task has "
                f"{task.units}. Of two-column probabilities, take the second column: "
                f"keras.Model(model.inputs, model.outputs[0][:, 1:])."
            )
    branches = {
        member: branch_from(
            part, input_name=(input_names or {}).get(member), name=f"{member}_member"
        )
        for member, (part, _) in parts.items()
    }
    inputs, vectors = join_branches(branches)
    predictions = {member: vector[:, -task.units :] for member, vector in vectors.items()}
    features = [vector[:, : -task.units] for vector in vectors.values()]
    fusion = ResidualFusion(
        task.activation,
        units,
        dropout=dropout,
        l2=l2,
        scale=task.spread,
        dtype="float32",
        name=PREDICTION,
    )
    return keras.Model(inputs, fusion([_blend(predictions, weights, task), *features]), name=name)


def starts_from_the_best(model: keras.Model) -> bool:
    """Whether a model's weights before training are worth keeping: a residual fusion's are."""
    return any(isinstance(layer, ResidualFusion) for layer in model.layers)


def _read_best(best, members) -> dict[str, float]:
    if not isinstance(members, Mapping) or len(members) < 2:
        raise ValueError(f"`members` must be a dict of two or more models. Received: {members!r}.")
    weights = {best: 1.0} if isinstance(best, str) else best
    is_blend = isinstance(weights, Mapping) and weights and set(weights) <= set(members)
    if not is_blend or not np.isfinite(list(weights.values())).all():
        raise ValueError(
            f"`best` must name one of {sorted(members)}, or weigh some. Received: best={best!r}."
        )
    return dict(weights)


def _read(member: str, model) -> keras.Model:
    try:
        return read_model(model)
    except TypeError as error:
        raise TypeError(f"Member {member!r}: {error}") from None


def _blend(predictions: Mapping[str, keras.KerasTensor], weights: Mapping[str, float], task: Task):
    if list(weights.values()) == [1.0]:
        return predictions[next(iter(weights))]
    parts = [
        to_logits(predictions[member], task.activation) * float(weight)
        for member, weight in weights.items()
    ]
    return keras.activations.get(task.activation)(sum(parts[1:], parts[0]))


def _with_features(model: keras.Model) -> tuple[keras.Model, int]:
    """A model of the features in front of the last Dense layer and the prediction, side by side.

    Of a model whose inside is not known, the prediction stands for its features. Also returns
    the width of the prediction.
    """
    side_by_side = keras.layers.Concatenate(dtype="float32", name="features_and_prediction")
    plain = plain_model(model)
    if plain is model:
        inputs = keras.tree.map_structure(
            lambda taken: keras.Input(taken.shape[1:], dtype=taken.dtype, name=taken.name),
            taken_by(model),
        )
        prediction = model(inputs)
        features = prediction
    else:
        inputs, prediction = plain.input, plain.output
        with_weights = [layer for layer in plain.layers if layer.weights]
        is_dense = with_weights and isinstance(with_weights[-1], keras.layers.Dense)
        features = with_weights[-1].input if is_dense else prediction
    joined = keras.Model(inputs, side_by_side([features, prediction]), name=model.name)
    return joined, prediction.shape[-1]
