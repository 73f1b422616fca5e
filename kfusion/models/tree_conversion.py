"""Boosted trees of scikit-learn -> a Keras layer that answers the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kfusion.layers import TreeEnsemble
from kfusion.models.fitted_trees import FittedTrees, read_fitted_trees


def tree_ensemble(estimator: Any, *, raw: bool = False, name: str | None = None) -> TreeEnsemble:
    """Turns fitted boosted trees into a layer, so that they can be a part of a Keras model.

    The layer takes the table that the trees were fitted on, category codes as they are, and is
    saved and exported with the model around it.

    Args:
        estimator: Fitted `HistGradientBoostingClassifier` or `HistGradientBoostingRegressor`, its
            categories numbers. Fit it on float32 values, which is what the layer takes.
        raw: Whether to give scores, as `decision_function` does, in place of predictions.
        name: Name of the layer.

    Returns:
        `TreeEnsemble`, built, from `(rows, columns)` to predictions: `(rows, 1)` probabilities
        of the second of two classes, `(rows, classes)` probabilities, or `(rows, 1)` values.

    Raises:
        TypeError: If it is another estimator.
        NotFittedError: If it is not fitted.
        ValueError: If a column's categories are no numbers or not exact in float32, or its loss
            is none of scikit-learn's own.
        RuntimeError: If the installed scikit-learn keeps its trees in an unknown way.

    Example:
        >>> from sklearn.ensemble import HistGradientBoostingRegressor
        >>> x = np.arange(40, dtype="float32")[:, None]
        >>> trees = HistGradientBoostingRegressor().fit(x, x[:, 0] > 19)
        >>> np.asarray(tree_ensemble(trees)(x[[3, 30]])).round(3).tolist()
        [[0.0], [1.0]]
    """
    trees = read_fitted_trees(estimator)
    levels = list(_levels(trees))
    arrays = _weights(trees, levels)
    layer = TreeEnsemble(
        levels=[[level.numbers.size, level.sets.size, level.leaves.size] for level in levels],
        scores=len(trees.baseline),
        category_columns=len(arrays["codes"]),
        max_codes=arrays["codes"].shape[1],
        activation="linear" if raw else trees.activation,
        name=name,
    )
    layer.build((None, trees.num_columns))
    for weight in layer.weights:
        weight.assign(arrays[weight.name])
    return layer


class _Level(NamedTuple):
    """Nodes of one level of all trees: splits of numbers, splits of categories, leaves."""

    numbers: np.ndarray
    sets: np.ndarray
    leaves: np.ndarray
    positions: np.ndarray


def _levels(trees: FittedTrees) -> Iterator[_Level]:
    nodes = trees.roots
    while nodes.size:
        kind = np.where(trees.is_leaf, 2, trees.sets >= 0)[nodes]
        order = np.argsort(kind, kind="stable")
        numbers, sets, leaves = (nodes[kind == each] for each in range(3))
        yield _Level(numbers, sets, leaves, np.argsort(order))
        splits = np.concatenate([numbers, sets])
        nodes = np.concatenate([trees.left[splits], trees.right[splits]])


def _weights(trees: FittedTrees, levels: list[_Level]) -> dict[str, np.ndarray]:
    """The weights of a `TreeEnsemble` by name."""
    numbers = np.concatenate([level.numbers for level in levels])
    sets = np.concatenate([level.sets for level in levels])
    leaves = np.concatenate([level.leaves for level in levels])
    code_columns = np.array(sorted(trees.categories), int)
    codes = _codes(trees, code_columns)
    left_categories = trees.left_categories[trees.sets[sets], : codes.shape[1]]
    return {
        "columns": trees.columns[numbers],
        "thresholds": _down_to_float32(trees.thresholds[numbers]),
        "missing_left": trees.missing_left[numbers],
        "code_columns": code_columns,
        "codes": codes,
        "set_columns": np.searchsorted(code_columns, trees.columns[sets]),
        "left_codes": np.column_stack([left_categories, trees.missing_left[sets]]),
        "leaf_values": trees.values[leaves],
        "positions": np.concatenate([level.positions for level in levels]),
        "baseline": trees.baseline,
    }


def _codes(trees: FittedTrees, columns: np.ndarray) -> np.ndarray:
    """`(category columns, most codes)`, NaN behind a column's last."""
    width = max((len(codes) for codes in trees.categories.values()), default=0)
    padded = np.full((len(columns), width), np.nan, np.float32)
    for row, column in zip(padded, columns.tolist(), strict=True):
        codes = trees.categories[column]
        row[: len(codes)] = codes
        inexact = np.flatnonzero(row[: len(codes)] != codes)
        if inexact.size:
            raise ValueError(
                f"The categories of column {column} must be exact in float32, such as whole "
                f"numbers below 16,777,216. Received: {codes[inexact[0]]!r}. Number them anew, as "
                "`TableSchema.encode` does."
            )
    return padded


def _down_to_float32(thresholds: np.ndarray) -> np.ndarray:
    """The greatest float32 at or below each: no float32 lies between, so rows go the same way.

    Numbers too small to be normal become the next normal one, since some processors take them
    for 0.
    """
    with np.errstate(over="ignore", under="ignore"):
        nearest = thresholds.astype(np.float32)
    below = np.where(nearest > thresholds, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    smallest = np.finfo(np.float32).tiny
    is_small = np.abs(below) < smallest
    return np.where(is_small, np.where(below < 0, -smallest, 0), below).astype(np.float32)
