"""The models that an estimator blends, and how each is fitted on the rows of a fold."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np

from kfusion.branches import branch_builders, tabular_branch
from kfusion.data.input_names import called
from kfusion.data.inputs import TABULAR
from kfusion.data.tables import TableSchema
from kfusion.estimators.member_inputs import components_of, features_of
from kfusion.layers import NormalizedDense
from kfusion.models.building import build_fusion_model, build_unimodal_model
from kfusion.models.prediction import predict
from kfusion.models.residual import build_residual_model
from kfusion.models.tree_conversion import tree_ensemble
from kfusion.tasks import Task
from kfusion.training.batch_sizes import default_batch_size
from kfusion.training.fitting import fit
from kfusion.validation.baselines import fill_empty_columns, make_trees, tree_categories

# What there is beside the members that are called after an input.
FUSED, TREES = "fused", "trees"
# The fewest steps and epochs of a network; its rate falls to 0 over all of them.
IMAGE_STEPS, TABLE_STEPS = (240, 8), (600, 15)
TREE_SETTINGS = {
    "learning_rate": 0.06,
    "max_iter": 400,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 10,
    "l2_regularization": 1.0,
    "n_iter_no_change": 20,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Encoded rows: arrays by input name, targets, how much each row counts, and what it has.

    `present` holds `(rows,)` booleans by modality; those not in it are there in every row.
    """

    x: Mapping[str, np.ndarray]
    y: np.ndarray
    weights: np.ndarray | None = None
    present: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: np.ndarray) -> Rows:
        """The given rows."""
        x = {name: array[rows] for name, array in self.x.items()}
        present = {name: mask[rows] for name, mask in self.present.items()}
        return Rows(x, self.y[rows], None if self.weights is None else self.weights[rows], present)

    def having(self, modalities: Collection[str]) -> np.ndarray:
        """`(rows,)` booleans: which rows have all of these modalities."""
        masks = [mask for name, mask in self.present.items() if name in modalities]
        return np.logical_and.reduce([np.ones(len(self), bool), *masks])


Fit = Callable[[Rows, Rows, Task, int], keras.Model]


@dataclasses.dataclass(frozen=True)
class VectorNetwork:
    """A network from vectors alone, which several folds may train at once.

    Attributes:
        build: Callable `build(task=task) -> model`.
        length: How long it trains, by the number of rows.
        learning_rate_factor: Float, as of `fit`.
    """

    build: Callable[..., keras.Model]
    length: Length
    learning_rate_factor: float = 1.0


@dataclasses.dataclass(frozen=True)
class Member:
    """One kind of model.

    Attributes:
        modalities: Names of the inputs that it learns from.
        fit: Callable `fit(train, held, task, seed) -> model`; it stops by the held rows.
        network: `VectorNetwork` that `fit` trains, if that is all it does.
    """

    modalities: tuple[str, ...]
    fit: Fit
    network: VectorNetwork | None = None


def standard_members(
    x: Mapping[str, np.ndarray],
    inputs: Collection[str],
    schema: TableSchema | None,
    *,
    encoder: str = "mlp",
    residual: bool = False,
    epochs: int | None = None,
) -> dict[str, Member]:
    """The members that suit the inputs there are, by name.

    A network of each input, called after it ("table" of "tabular"); "fused", a network of all of
    them with an auxiliary head on each (or, if asked for, one that starts equal to the best of
    them and corrects it); "trees", boosted trees on the table; "trees and image", on the table
    beside the components of the other inputs.

    Args:
        x: Encoded rows: each input, and what `make_encoders` made of it. Features of an input
            stand for it.
        inputs: Names of the inputs.
        schema: `TableSchema` of table and texts, or None.
        encoder: Of the table network; see `tabular_branch`.
        residual: Whether "fused" is a residual fusion, which trains faster.
        epochs: Int, passes over the training rows; None for as many as make enough steps: 8 or
            more of networks of images, 15 or more of others.
    """
    builders = _builders(x, inputs, schema)
    members: dict[str, Member] = {}
    are_vectors = {key: _is_vector(x, key) for key in builders}
    for key, build in builders.items():
        factor = 1.0
        if key == TABULAR and schema is not None and encoder == "tabm":
            build = partial(tabular_branch, schema, encoder="tabm", dropout=0.1)
            factor = 3.0
        length = _length(x, [key], epochs)
        network = partial(_build_single, build)
        members[called(key)] = _network_member((key,), network, length, factor, are_vectors[key])
    if len(builders) > 1:
        length = _length(x, builders, epochs)
        if residual:
            members[FUSED] = Member(tuple(builders), partial(_fit_residual, builders, length))
        else:
            fused = partial(_build_fused, builders)
            members[FUSED] = _network_member(
                tuple(builders), fused, length, 1.0, all(are_vectors.values())
            )
    is_category = [] if schema is None else tree_categories(schema)
    if TABULAR in builders:
        members[TREES] = Member((TABULAR,), partial(_fit_trees, (TABULAR,), is_category))
    others = [key for key in builders if key != TABULAR]
    if others:
        parts = [components_of(key) for key in others]
        keys = [TABULAR, *parts] if TABULAR in builders else parts
        kinds = is_category + [False] * sum(x[part].shape[1] for part in parts)
        name = f"{TREES} {'and' if TABULAR in builders else 'on'} {' and '.join(others)}"
        members[name] = Member(tuple(builders), partial(_fit_trees, tuple(keys), kinds))
    return members


def _builders(
    x: Mapping[str, np.ndarray], inputs: Collection[str], schema: TableSchema | None
) -> dict[str, Callable[[], keras.Model]]:
    """Builders of a branch by input, an image first and the table last."""
    builders: dict[str, Callable[[], keras.Model]] = {}
    for key in sorted(inputs, key=lambda key: key == TABULAR):
        features = features_of(key)
        if features in x:
            builders[key] = partial(_vector_branch, features, x[features].shape[1])
        else:
            builders[key] = branch_builders({key: x[key]}, schema)[key]
    return builders


def _vector_branch(name: str, width: int) -> keras.Model:
    """A branch from a vector that another network made."""
    inputs = keras.Input((width,), name=name)
    hidden = NormalizedDense(128, dropout=0.2, name="hidden_1")(inputs)
    return keras.Model(inputs, hidden, name=f"{name}_branch")


def _build_single(build: Callable[[], keras.Model], task: Task) -> keras.Model:
    return build_unimodal_model(build(), task=task)


def _build_fused(builders: Mapping[str, Callable[[], keras.Model]], task: Task) -> keras.Model:
    branches = {name: build() for name, build in builders.items()}
    return build_fusion_model(branches, task=task, auxiliary_heads=True)


def _is_vector(x: Mapping[str, np.ndarray], key: str) -> bool:
    """Whether an input is one, or features stand for it; token ids are none."""
    array = x[features_of(key) if features_of(key) in x else key]
    return len(array.shape) == 2 and array.dtype.kind == "f"


def _network_member(
    keys: tuple[str, ...],
    build: Callable[..., keras.Model],
    length: Length,
    learning_rate_factor: float,
    is_of_vectors: bool,
) -> Member:
    fit_one = partial(_fit_network, build, length, learning_rate_factor=learning_rate_factor)
    network = VectorNetwork(build, length, learning_rate_factor)
    return Member(keys, fit_one, network if is_of_vectors else None)


class Length(NamedTuple):
    """How long a network trains: so many epochs, or as many as make enough steps."""

    epochs: int | None = None
    steps: int = IMAGE_STEPS[0]
    fewest: int = IMAGE_STEPS[1]

    def of(self, num_rows: int) -> int:
        per_epoch = math.ceil(num_rows / default_batch_size(num_rows))
        return self.epochs or max(self.fewest, math.ceil(self.steps / per_epoch))


def _length(x: Mapping[str, np.ndarray], keys: Collection[str], epochs: int | None) -> Length:
    """Networks of images train for fewer steps, which are longer."""
    has_images = any(key in x and x[key].dtype == np.uint8 for key in keys)
    has_features = any(features_of(key) in x for key in keys)
    return Length(epochs, *(IMAGE_STEPS if has_images or has_features else TABLE_STEPS))


def _fit_network(
    build, length: Length, train: Rows, held: Rows, task: Task, seed: int, **keywords: Any
) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = build(task=task)
    fit(
        model,
        train.x,
        train.y,
        task=task,
        validation_data=(held.x, held.y),
        sample_weight=train.weights,
        epochs=length.of(len(train)),
        patience=None,
        seed=seed,
        doctor=False,
        verbose=0,
        **keywords,
    )
    return model


def _fit_residual(builders, length: Length, train: Rows, held: Rows, task: Task, seed: int):
    alone = {
        name: _fit_network(partial(_build_single, build), length, train, held, task, seed)
        for name, build in builders.items()
    }
    score = task.score()
    scores = {
        name: score.sign
        * score.function(held.y, task.answers(predict(model, held.x).astype(float)), held.weights)
        for name, model in alone.items()
    }
    best = max(scores, key=lambda name: scores[name])
    input_names = {name: model.inputs[0].name for name, model in alone.items()}
    build = partial(build_residual_model, alone, best=best, input_names=input_names)
    return _fit_network(build, length, train, held, task, seed)


def _fit_trees(
    keys: tuple[str, ...], is_category: list[bool], train: Rows, held: Rows, task: Task, seed: int
):
    estimator = make_trees(
        task.kind, is_category, early_stopping=True, random_state=seed, **TREE_SETTINGS
    )
    estimator.fit(
        fill_empty_columns(_joined(train, keys)),
        train.y,
        sample_weight=train.weights,
        X_val=_joined(held, keys),
        y_val=held.y,
        sample_weight_val=held.weights,
    )
    inputs = {key: keras.Input(train.x[key].shape[1:], name=key) for key in keys}
    parts = list(inputs.values())
    table = keras.layers.Concatenate(dtype="float32")(parts) if len(parts) > 1 else parts[0]
    return keras.Model(inputs, tree_ensemble(estimator, name="trees")(table), name="trees")


def _joined(rows: Rows, keys: tuple[str, ...]) -> np.ndarray:
    return np.concatenate([rows.x[key] for key in keys], axis=1).astype(np.float32)
