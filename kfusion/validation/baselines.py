"""What a fusion has to beat, as callables: each input alone, boosted trees, plain concat."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from kfusion.branches import branch_builders
from kfusion.data.fusion_data import FusionData
from kfusion.data.input_names import only
from kfusion.data.inputs import IMAGE, TABULAR
from kfusion.data.tables import TableSchema
from kfusion.layers import ConcatFusion
from kfusion.models.building import build_fusion_model, build_unimodal_model, get_fusion
from kfusion.tasks import Task
from kfusion.training.fitting import fit

TABLE_TREES = "table only (boosted trees)"
PLAIN_CONCAT = "plain concat"

Builders = Mapping[str, Callable[..., keras.Model]]
# Scikit-learn bins 255 values of a category at most; codes are by frequency, so they order well.
MAX_TREE_CATEGORIES = 255


def default_branches(train: FusionData, **image_keywords: Any) -> Builders:
    """Builders of a branch for each input of the training rows; see `branch_builders`."""
    # Shapes and dtypes are all that counts: one row is encoded, not the whole table.
    one_row = train[:1].with_schema(train.schema)
    return branch_builders(one_row.x, train.schema, **image_keywords)


def build_single(builders: Builders, key: str, *, task: Task, name: str) -> keras.Model:
    """A model of one of the branches."""
    return build_unimodal_model(builders[key](), task=task, name=name)


def build_fused(
    builders: Builders,
    fusion: str | keras.layers.Layer,
    *,
    task: Task,
    name: str,
    modality_dropout: float | None = None,
) -> keras.Model:
    """A model of all branches."""
    branches = {key: build() for key, build in builders.items()}
    return build_fusion_model(
        branches, task=task, fusion=fusion, name=name, modality_dropout=modality_dropout
    )


def single_input(
    key: str,
    *,
    branches: Callable[[FusionData], Builders] = default_branches,
    validation: float = 0.2,
    **keywords: Any,
) -> Callable[[Any, Any], keras.Model]:
    """Makes a `fit(x, y)` for `cross_validate` and `compare`: a network of one input alone.

    Args:
        key: "image", "tabular", or another key of what `branches` returns.
        branches: Callable from the training rows, `FusionData`, to builders of branches by name.
        validation: Float, share of the training rows that early stopping looks at; groups of
            `FusionData` stay whole.
        **keywords: For `kfusion.fit`, such as `epochs`.

    Returns:
        Callable from training rows, `FusionData`, and their labels to a trained `keras.Model`.

    Raises:
        TypeError: If a keyword is none of `fit`.
        ValueError: If `validation` is no share that can be held out.
    """
    build = partial(build_single, key=key, name=key.replace(" ", "_"))
    return network(build, branches=branches, validation=validation, **keywords)


def fused(
    fusion: str | keras.layers.Layer = "concat",
    *,
    branches: Callable[[FusionData], Builders] = default_branches,
    validation: float = 0.2,
    **keywords: Any,
) -> Callable[[Any, Any], keras.Model]:
    """Makes a `fit(x, y)` for `cross_validate` and `compare`: all branches joined by a fusion.

    Args:
        fusion: Name of a fusion or a Keras layer, of which each fit takes a fresh copy.
        branches: As in `single_input`.
        validation: As in `single_input`.
        **keywords: For `kfusion.fit`.

    Returns:
        As `single_input`.
    """
    get_fusion(fusion)
    build = partial(_build_copy, fusion)
    return network(build, branches=branches, validation=validation, **keywords)


def network(
    build: Callable[..., keras.Model],
    *,
    branches: Callable[[FusionData], Builders] = default_branches,
    validation: float = 0.2,
    **keywords: Any,
) -> Callable[[Any, Any], keras.Model]:
    """Makes a `fit(x, y)` for `cross_validate` and `compare`: any network of the branches.

    Args:
        build: Callable `build(builders, task=task)` from builders of branches to a `keras.Model`.
        branches: As in `single_input`.
        validation: As in `single_input`.
        **keywords: For `kfusion.fit`.

    Returns:
        As `single_input`.
    """
    _check_settings(validation, keywords)
    return partial(_fit_network, build, branches, validation, keywords)


def boosted_trees(**keywords: Any) -> Callable[[Any, Any], TableTrees]:
    """Makes a `fit(x, y)` of scikit-learn's histogram gradient boosting on the table alone.

    Missing values and categories are taken as they are.

    Args:
        **keywords: For `HistGradientBoostingClassifier` or `-Regressor`.

    Returns:
        As `single_input`, to a model with `predict_proba` or `predict`.
    """
    return partial(_fit_trees, keywords)


def standard_single_inputs(
    branches: Callable[[FusionData], Builders] = default_branches,
    *,
    inputs: Collection[str] = (IMAGE, TABULAR),
    **keywords: Any,
) -> dict[str, Callable[[Any, Any], Any]]:
    """What a fusion has to beat, by name: a network of each input, and trees on the table.

    Args:
        branches: As in `single_input`.
        inputs: Names of the inputs.
        **keywords: For `kfusion.fit`.
    """
    singles: dict[str, Callable[[Any, Any], Any]] = {
        only(key): single_input(key, branches=branches, **keywords) for key in inputs
    }
    return {**singles, TABLE_TREES: boosted_trees()} if TABULAR in inputs else singles


def plain_concat(
    branches: Callable[[FusionData], Builders] = default_branches, **keywords: Any
) -> Callable[[Any, Any], keras.Model]:
    """Concatenation without normalising, the first thing that everyone tries."""
    return fused(ConcatFusion(normalize=False), branches=branches, **keywords)


class TableTrees:
    """Boosted trees that pick the table out of a model's inputs."""

    def __init__(self, estimator: Any):
        self.estimator = estimator

    @property
    def classes_(self) -> np.ndarray:
        """Labels in the order of the probabilities."""
        return self.estimator.classes_

    def predict_proba(self, x: Any) -> np.ndarray:
        """`(rows, classes)` probabilities."""
        return self.estimator.predict_proba(_table_of(x))

    def predict(self, x: Any) -> np.ndarray:
        """`(rows,)` labels or values."""
        return self.estimator.predict(_table_of(x))


def _table_of(x: Any) -> np.ndarray:
    return (x.x if isinstance(x, FusionData) else x)[TABULAR]


def _build_copy(fusion, builders: Builders, *, task: Task) -> keras.Model:
    if isinstance(fusion, keras.layers.Layer):
        fusion = type(fusion).from_config(fusion.get_config())
    return build_fused(builders, fusion, task=task, name="fused")


def _check_settings(validation: float, keywords: Mapping[str, Any]) -> None:
    if not 0 < validation <= 0.5:
        raise ValueError(f"`validation` must lie in (0, 0.5]. Received: {validation}.")
    known = {*inspect.signature(fit).parameters, *inspect.signature(keras.Model.fit).parameters}
    unknown = sorted(set(keywords) - known)
    if unknown:
        raise TypeError(f"`kfusion.fit` does not take the keyword(s) {unknown}.")


def _fit_network(build, branches, validation, keywords, x: Any, y: Any) -> keras.Model:
    train, held = _checked_data(x).split(validation)
    model = build(branches(train), task=train.task)
    fit(
        model,
        train.x,
        train.y,
        task=train.task,
        validation_data=(held.x, held.y),
        **{"verbose": 0, "doctor": False, **keywords},
    )
    return model


def _fit_trees(keywords, x: Any, y: Any) -> TableTrees:
    data = _checked_data(x)
    estimator = make_trees(data.kind, tree_categories(data.schema), **keywords)
    return TableTrees(estimator.fit(fill_empty_columns(data.x[TABULAR]), data.y))


def tree_categories(schema: TableSchema) -> list[bool]:
    """Which columns of the encoded table trees take as categories."""
    return [False] * len(schema.numbers) + [
        column.num_codes <= MAX_TREE_CATEGORIES for column in schema.categories
    ]


def make_trees(
    kind: str, is_category: Sequence[bool], **keywords: Any
) -> HistGradientBoostingClassifier | HistGradientBoostingRegressor:
    """Boosted trees of scikit-learn for a kind of task.

    Args:
        kind: "binary", "multiclass" or "regression".
        is_category: For each column, whether it holds codes of categories.
        **keywords: For the estimator.
    """
    trees = (
        HistGradientBoostingRegressor if kind == "regression" else HistGradientBoostingClassifier
    )
    return trees(categorical_features=np.array(is_category), **keywords)


def fill_empty_columns(table: np.ndarray) -> np.ndarray:
    """A table whose columns without any value are 0: scikit-learn's trees stop at them (1.9)."""
    is_empty = np.isnan(table).all(axis=0)
    return np.where(is_empty, 0, table) if is_empty.any() else table


def as_fusion_data(
    x: Mapping[str, Any], y: np.ndarray, *, task: Task, groups: np.ndarray | None
) -> FusionData:
    """Makes `FusionData` of a dict with a matrix of numbers, "tabular", and other arrays."""
    matrix = np.asarray(x[TABULAR], np.float64)
    frame = pd.DataFrame(matrix, columns=[f"column_{i}" for i in range(matrix.shape[1])])
    kinds = dict.fromkeys(frame.columns, "number")
    arrays = {name: np.asarray(array) for name, array in x.items() if name != TABULAR}
    images = arrays[IMAGE] if set(arrays) == {IMAGE} else arrays
    names = task.class_names
    return FusionData(images, frame, y, task.kind, names, groups=groups, column_kinds=kinds)


def _checked_data(x: Any) -> FusionData:
    if not isinstance(x, FusionData):
        raise TypeError(
            "This fits FusionData, which knows columns, kinds and groups: `load_table(...)`, or "
            f"FusionData(images, frame, y, kind). Received: {type(x).__name__}."
        )
    return x
