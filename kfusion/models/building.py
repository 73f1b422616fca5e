"""Whole models: branches joined by a fusion, or one branch alone, with the task's head."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Any

import keras

from kfusion.layers import (
    DAFT,
    BatchEnsembleDense,
    CategoryEmbedding,
    ConcatFusion,
    CrossAttentionFusion,
    FiLM,
    GatedFusion,
    GradientScale,
    LowRankFusion,
    MemberMean,
    ModalityDropout,
    MultiplyFusion,
    NormalizedDense,
    Presence,
    StandIn,
    WeightedFusion,
)
from kfusion.models.trained_models import layers_within, pool_features
from kfusion.tasks import Task, as_task

FUSIONS = {
    "concat": ConcatFusion,
    "cross_attention": CrossAttentionFusion,
    "daft": DAFT,
    "film": FiLM,
    "gated": GatedFusion,
    "low_rank": LowRankFusion,
    "multiply": MultiplyFusion,
    "weighted": WeightedFusion,
}
VECTOR_FUSIONS = tuple(
    name for name, fusion in FUSIONS.items() if not getattr(fusion, "takes_maps", False)
)
POOLINGS = (keras.layers.GlobalAveragePooling1D, keras.layers.GlobalAveragePooling2D)
PREDICTION, MEMBER_PREDICTIONS = "prediction", "member_predictions"
GRADIENT = "gradient"
# Of layers that are put behind branches.
_TAKEN = re.compile(
    "fusion|fused_positions|head_[0-9]+|prediction|member_predictions|presence|modality_dropout"
)


def build_fusion_model(
    branches: Mapping[str, keras.Model],
    *,
    task: Task | str,
    fusion: str | keras.layers.Layer = "concat",
    head_units: int = 64,
    head_depth: int = 1,
    dropout: float = 0.0,
    l2: float = 0.0,
    auxiliary_heads: bool = False,
    modality_dropout: float | None = None,
    gradient_scales: bool = False,
    name: str = "fusion_model",
) -> keras.Model:
    """Joins the feature vectors of several branches and predicts one target.

    Some fusions work on maps ("film", "daft", "cross_attention"; any layer whose `takes_maps` is
    true): of the first branch they get what it averages over positions at its end (see
    `feature_maps`), or its vector if it averages nothing; of all others the vectors. If the
    fusion gives maps, a hidden layer for each position and the average over positions follow.

    Args:
        branches: Two or more branches by name. Those whose inputs have one name share it, as an
            image and an edge branch do. "multiply" gates the first branch, "film" and "daft"
            scale and shift its maps, "cross_attention" looks at them, by all the others.
        task: `Task`, "binary" or "regression".
        fusion: One of `FUSIONS` by name, or a Keras layer from a list of vectors to a vector.
        head_units: Int, width of the hidden layers after the fusion.
        head_depth: Int, number of those layers; 0 predicts from the fused features.
        dropout: Float in [0, 1), rate after each of them.
        l2: Float, L2 penalty on their kernels.
        auxiliary_heads: Whether each branch also predicts the target alone, which keeps a
            strong branch from starving the others. The outputs are then a dict: "prediction"
            and "<branch>_prediction"; `prediction_model` leaves the first.
        modality_dropout: Float in [0, 1]: the model takes rows that lack an input, and in training
            each row's inputs are dropped at this rate, but never all of them; see
            `layers.ModalityDropout`. An image of zeros alone is missing, as is a row of a table in
            which every value is. None makes a model that takes all for what it is.
        gradient_scales: Whether to put a `GradientScale`, "<branch>_gradient", behind each branch,
            for `GradientModulation`. Predictions stay what they are.
        name: Name of the model.

    Returns:
        Uncompiled `keras.Model` from a dict of inputs to `(rows, task.units)` probabilities or
        target values.

    Raises:
        TypeError: If `branches` is no mapping of Keras models, or the fusion no layer.
        ValueError: If there are fewer than two branches, one gives no vector or is named as an
            input or a layer of the fused model, two that share an input disagree on its shape, or
            the fusion is unknown.

    Example:
        >>> from kfusion import image_branch, tabular_branch
        >>> image = image_branch((24, 24, 3))
        >>> tabular = tabular_branch(8)
        >>> model = build_fusion_model(
        ...     {"image": image, "tabular": tabular}, task="binary", fusion="multiply"
        ... )
        >>> sorted(model.input), model.output.shape
        (['image', 'tabular'], (None, 1))
    """
    task = as_task(task)
    layer = get_fusion(fusion)
    inputs, features = join_branches(branches)
    if len(branches) < 2:
        raise ValueError(
            "A fusion joins at least two branches; `build_unimodal_model` takes one. Received: "
            f"{list(branches)}."
        )
    fused_from = dict(features)
    if getattr(layer, "takes_maps", False):
        _take_maps(branches, inputs, fused_from, features, auxiliary_heads)
    if gradient_scales:
        _scale_gradients(fused_from, features)
    if modality_dropout is not None:
        fused_from = _with_stand_ins(branches, inputs, fused_from, modality_dropout)
    fused = layer(list(fused_from.values()))
    if len(fused.shape) > 2:
        # The average of scaled and shifted maps would be the average of the maps, scaled and
        # shifted: what is done to positions needs something behind it that is not linear.
        positions = NormalizedDense(fused.shape[-1], l2=l2, name="fused_positions")
        fused = pool_features(positions(fused))
    for i in range(head_depth):
        fused = NormalizedDense(head_units, dropout=dropout, l2=l2, name=f"head_{i + 1}")(fused)
    prediction = _predict(fused, task, PREDICTION)
    if not auxiliary_heads:
        return keras.Model(inputs, prediction, name=name)
    outputs = {PREDICTION: prediction}
    for branch, vector in features.items():
        outputs[f"{branch}_{PREDICTION}"] = _predict(vector, task, f"{branch}_{PREDICTION}")
    return keras.Model(inputs, outputs, name=name)


def build_unimodal_model(
    branch: keras.Model,
    *,
    task: Task | str,
    head_units: int = 64,
    head_depth: int = 1,
    dropout: float = 0.0,
    l2: float = 0.0,
    name: str = "unimodal_model",
) -> keras.Model:
    """Predicts the target from one branch with the head of a fused model: its fair baseline.

    Of a branch that holds an ensemble (`tabular_branch(encoder="tabm")`) each member has a head
    of its own, and `fit` trains each by its own loss. The outputs are then a dict: "prediction",
    the mean of the members' probabilities or values, and "member_predictions";
    `prediction_model` leaves the first.

    Args:
        branch: A branch.
        task: `Task`, "binary" or "regression".
        head_units: Int, width of the hidden layers.
        head_depth: Int, number of those layers.
        dropout: Float in [0, 1), rate after each of them.
        l2: Float, L2 penalty on their kernels.
        name: Name of the model.

    Returns:
        Uncompiled `keras.Model` from a dict with one input, so it takes the same data as a fused
        one, to `(rows, task.units)`, or to a dict with it.

    Raises:
        TypeError, ValueError: If the branch is no model from one input to a vector, or is named as
            its input or a layer of the model.
    """
    task = as_task(task)
    inputs, features = join_branches({branch.name: branch})
    if isinstance(branch.layers[-1], MemberMean):
        outputs = _predict_by_members(
            branch, inputs, task, units=head_units, depth=head_depth, dropout=dropout, l2=l2
        )
        return keras.Model(inputs, outputs, name=name)
    (hidden,) = features.values()
    for i in range(head_depth):
        hidden = NormalizedDense(head_units, dropout=dropout, l2=l2, name=f"head_{i + 1}")(hidden)
    return keras.Model(inputs, _predict(hidden, task, PREDICTION), name=name)


def get_fusion(fusion: str | keras.layers.Layer) -> keras.layers.Layer:
    """Returns a fusion layer by its name in `FUSIONS`, or the layer given.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If it is neither.
    """
    if isinstance(fusion, keras.layers.Layer):
        return fusion
    if not isinstance(fusion, str):
        raise TypeError(f"`fusion` must be a layer or a name. Received: fusion={fusion!r}.")
    if fusion not in FUSIONS:
        raise ValueError(
            f"`fusion` must be a layer or one of {sorted(FUSIONS)}. Received: fusion={fusion!r}."
        )
    return FUSIONS[fusion](name="fusion")


def feature_maps(branch: keras.Model) -> keras.KerasTensor | None:
    """What a branch averages over positions at its end; None if it does not.

    Returns:
        The input of its global average pooling, `(rows, height, width, channels)` or `(rows,
        steps, width)`, if only layers of one input follow: an image branch's maps.
    """
    tensor = branch.outputs[0]
    while True:
        layer, node, _ = tensor._keras_history
        given = layer._inbound_nodes[node].input_tensors
        if len(given) != 1:
            return None
        if isinstance(layer, POOLINGS):
            return given[0]
        tensor = given[0]


def _take_maps(branches, inputs, fused_from, features, needs_vector: bool) -> None:
    """Puts the first branch's maps in place of its vector, if it has any."""
    first, branch = next(iter(branches.items()))
    maps = feature_maps(branch)
    if maps is None:
        return
    given = inputs[branch.inputs[0].name]
    # Run once for both: a second run would move the statistics of its normalisations twice.
    outputs = [maps, branch.output] if needs_vector else [maps]
    found = keras.Model(branch.inputs, outputs, name=branch.name)(given)
    fused_from[first] = found[0]
    if needs_vector:
        features[first] = found[1]


def _scale_gradients(fused_from, features) -> None:
    """Puts a scale behind each branch, the same for what is fused and for its auxiliary head."""
    for branch, fused in fused_from.items():
        scale = GradientScale(name=f"{branch}_{GRADIENT}")
        fused_from[branch] = scale(fused)
        shared = features[branch] is fused
        features[branch] = fused_from[branch] if shared else scale(features[branch])


def prediction_model(model: keras.Model) -> keras.Model:
    """Returns the model without its auxiliary heads; they share weights. Others return as is."""
    if answers_by_name(model) and PREDICTION in model.output:
        return keras.Model(model.input, model.output[PREDICTION], name=model.name)
    return model


def answers_by_name(model: keras.Model) -> bool:
    """Whether a model gives a dict of predictions, as one with auxiliary heads does."""
    # A Sequential model has no `output`.
    return isinstance(getattr(model, "output", None), dict)


def per_output(model: keras.Model, values: Any) -> Any:
    """Targets or weights as a model takes them: once for each output that has a name."""
    return dict.fromkeys(model.output, values) if answers_by_name(model) else values


def holds_an_ensemble(model: keras.Model) -> bool:
    """Whether a model's members predict by themselves, as those of a TabM branch do."""
    return answers_by_name(model) and MEMBER_PREDICTIONS in model.output


def join_branches(branches: Mapping[str, keras.Model]):
    """Calls every branch on shared inputs; returns inputs and features by name.

    Raises:
        TypeError, ValueError: As `build_fusion_model`.
    """
    if not isinstance(branches, Mapping) or not all(
        isinstance(branch, keras.Model) for branch in branches.values()
    ):
        raise TypeError(
            "`branches` must be a dict of Keras models by name, such as {'image': "
            "image_branch(...), 'tabular': tabular_branch(...)}; builders are called first, "
            f"{{name: build() for ...}}. Received: {reprlib.repr(branches)}."
        )
    inputs: dict[str, keras.KerasTensor] = {}
    features = {}
    seen = set()
    for name, branch in branches.items():
        if len(branch.inputs) != 1 or len(branch.outputs) != 1:
            raise ValueError(f"Branch {name!r} must have one input and one output.")
        if len(branch.outputs[0].shape) != 2:
            raise ValueError(
                f"Branch {name!r} must give a vector (rows, features). Received: "
                f"{branch.outputs[0].shape}; make it with `branch_from`, which pools."
            )
        if branch.name in seen:
            raise ValueError(
                f"Two branches are named {branch.name!r}: pass `name=` to their builders."
            )
        seen.add(branch.name)
        given = branch.inputs[0]
        for taken in filter(_TAKEN.fullmatch, (branch.name, given.name)):
            raise ValueError(
                f"Branch {name!r} or its input cannot be called {taken!r}: a layer behind the "
                "branches is. Pass another `name=` or `input_name=` to its builder."
            )
        shared = inputs.setdefault(
            given.name, keras.Input(given.shape[1:], dtype=given.dtype, name=given.name)
        )
        if shared.shape != given.shape or shared.dtype != given.dtype:
            raise ValueError(
                f"Branches share the input {given.name!r} but disagree on it: "
                f"{shared.shape} {shared.dtype} and {given.shape} {given.dtype} ({name!r}). Pass "
                "another `input_name=` to one of their builders."
            )
        features[name] = branch(shared)
    for name, branch in branches.items():
        if branch.name in inputs:
            raise ValueError(
                f"Branch {name!r} is named as the input {branch.name!r}, but parts of a model have "
                "different names: pass another `name=` or `input_name=` to its builder."
            )
    return inputs, features


def presence_name(input_name: str) -> str:
    """Name of the layer that tells which rows have an input."""
    return f"{input_name}_presence"


def _with_stand_ins(branches: Mapping[str, keras.Model], inputs, features, rate: float):
    """Features by branch with a learned vector where the branch's input is missing or dropped."""
    presence = {}
    for branch in branches.values():
        name = branch.inputs[0].name
        if name not in presence:
            codes = sum(
                len(layer.num_codes)
                for layer in layers_within(branch)
                if isinstance(layer, CategoryEmbedding)
            )
            presence[name] = Presence(codes, name=presence_name(name))(inputs[name])
    if len(presence) > 1:
        kept = keras.layers.Concatenate(name="presence")(list(presence.values()))
        kept = ModalityDropout(rate, name="modality_dropout")(kept)
        presence = {name: kept[:, i : i + 1] for i, name in enumerate(presence)}
    return {
        name: StandIn(name=f"{name}_or_stand_in")([vector, presence[branches[name].inputs[0].name]])
        for name, vector in features.items()
    }


def _predict(features, task: Task, name: str):
    """The task's head: float32 even under mixed precision, biased to what step 0 should say."""
    bias = keras.initializers.Constant(task.output_bias.tolist())
    if task.kind == "regression":
        value = keras.layers.Dense(1, dtype="float32", name=f"{name}_scaled")(features)
        return _rescale(value, task, name)
    return keras.layers.Dense(
        task.units, task.activation, bias_initializer=bias, dtype="float32", name=name
    )(features)


def _predict_by_members(branch, inputs, task: Task, *, units, depth, dropout, l2):
    """What each member of a branch's ensemble predicts, by a head of its own, and their mean."""
    members = keras.Model(branch.inputs, branch.layers[-1].input, name=branch.name)
    (shared,) = inputs.values()
    features = members(shared)
    _, num_members, width = features.shape
    for i in range(depth):
        layer = BatchEnsembleDense(units, num_members, dropout=dropout, l2=l2, name=f"head_{i + 1}")
        features, width = layer(features), units
    name, bound = MEMBER_PREDICTIONS, width**-0.5
    is_regression = task.kind == "regression"
    predictions = keras.layers.EinsumDense(
        "rmf,mfu->rmu",
        (num_members, task.units),
        bias_axes="mu",
        activation=task.activation,
        # The start of a dense layer alone; Keras' own would count the members as inputs.
        kernel_initializer=keras.initializers.RandomUniform(-bound, bound),
        bias_initializer=keras.initializers.Constant(task.output_bias.tolist()),
        dtype="float32",
        name=f"{name}_scaled" if is_regression else name,
    )(features)
    if is_regression:
        predictions = _rescale(predictions, task, name)
    mean = MemberMean(dtype="float32", name=PREDICTION)(predictions)
    return {PREDICTION: mean, MEMBER_PREDICTIONS: predictions}


def _rescale(values, task: Task, name: str):
    """Standardised values -> those of a regression's target."""
    return keras.layers.Rescaling(task.spread, offset=task.center, dtype="float32", name=name)(
        values
    )
