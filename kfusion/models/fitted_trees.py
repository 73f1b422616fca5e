"""What scikit-learn's boosted trees have learned, read out of a fitted estimator.

The one module that looks at private parts of scikit-learn. It says so if they are not where they
were in the versions that it knows, and checks on invented rows that it has read them right.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import sklearn
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.utils.validation import check_is_fitted

KNOWN_VERSIONS = "1.7 to 1.9"
NODE_FIELDS = frozenset(
    {
        "value",
        "feature_idx",
        "num_threshold",
        "missing_go_to_left",
        "left",
        "right",
        "is_leaf",
        "is_categorical",
        "bitset_idx",
    }
)
_ACTIVATIONS = {
    "squared_error": "linear",
    "absolute_error": "linear",
    "quantile": "linear",
    "gamma": "exponential",
    "poisson": "exponential",
}
_PROBE_ROWS = 64


class FittedTrees(NamedTuple):
    """The nodes of all trees in one list; tree `i` adds to score `i % len(baseline)`.

    Attributes:
        num_columns: Int, columns of the table that the trees were fitted on.
        activation: What turns scores into predictions: "linear", "sigmoid" (two classes, the
            second's probability), "softmax" or "exponential".
        baseline: `(scores,)` floats, the scores before the first tree.
        roots: `(trees,)` ints, the node that each tree starts from.
        is_leaf: `(nodes,)` booleans.
        values: `(nodes,)` floats, what leaves add.
        left: `(nodes,)` ints, each split's left child.
        right: `(nodes,)` ints, its right child.
        columns: `(nodes,)` ints, the column that each split looks at.
        thresholds: `(nodes,)` floats; up to the threshold, and there, numbers go left.
        missing_left: `(nodes,)` booleans, whether missing values and unmet categories go left.
        sets: `(nodes,)` ints, the row of `left_categories` of a split of categories, else -1.
        left_categories: `(sets, 256)` booleans, whether the column's i-th category goes left.
        categories: Rising category codes by column; columns that are not here hold numbers.
    """

    num_columns: int
    activation: str
    baseline: np.ndarray
    roots: np.ndarray
    is_leaf: np.ndarray
    values: np.ndarray
    left: np.ndarray
    right: np.ndarray
    columns: np.ndarray
    thresholds: np.ndarray
    missing_left: np.ndarray
    sets: np.ndarray
    left_categories: np.ndarray
    categories: dict[int, np.ndarray]


def read_fitted_trees(estimator: Any) -> FittedTrees:
    """Reads the trees of a fitted histogram gradient boosting estimator.

    Args:
        estimator: Fitted `HistGradientBoostingClassifier` or `HistGradientBoostingRegressor`;
            its categories, if any, must be numbers.

    Returns:
        `FittedTrees`.

    Raises:
        TypeError: If it is another estimator.
        NotFittedError: If it is not fitted.
        ValueError: If a column's categories are no numbers, or its loss is none of
            scikit-learn's own.
        RuntimeError: If the installed scikit-learn keeps its trees in an unknown way.
    """
    known = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
    if not isinstance(estimator, known):
        raise TypeError(
            "`estimator` must be a HistGradientBoostingClassifier or HistGradientBoostingRegressor "
            f"of scikit-learn. Received: {type(estimator).__name__}."
        )
    check_is_fitted(estimator)
    _check_layout(estimator)
    trees = _read(estimator)
    _check_scores(estimator, trees)
    return trees


def _check_layout(estimator: Any) -> None:
    missing = [
        name
        for name in ("_predictors", "_baseline_prediction", "_preprocessor")
        if not hasattr(estimator, name)
    ]
    if not missing:
        tree = estimator._predictors[0][0]
        missing = sorted(NODE_FIELDS - set(getattr(tree, "nodes", np.empty(0)).dtype.names or ()))
        sets = getattr(tree, "raw_left_cat_bitsets", np.empty(0))
        if sets.dtype != np.uint32 or sets.shape[1:] != (8,):
            missing.append("raw_left_cat_bitsets")
    if missing:
        raise RuntimeError(
            f"scikit-learn {sklearn.__version__} keeps its boosted trees in another way than "
            f"{KNOWN_VERSIONS}, which kfusion reads: {missing} not found. Install one of those."
        )


def _read(estimator: Any) -> FittedTrees:
    predictors = [tree for iteration in estimator._predictors for tree in iteration]
    nodes = np.concatenate([tree.nodes for tree in predictors])
    sizes = [len(tree.nodes) for tree in predictors]
    roots = np.cumsum([0, *sizes[:-1]])
    start = np.repeat(roots, sizes)
    bitsets = [tree.raw_left_cat_bitsets for tree in predictors]
    first_set = np.repeat(np.cumsum([0, *[len(sets) for sets in bitsets[:-1]]]), sizes)
    is_leaf = nodes["is_leaf"].astype(bool)
    is_set = nodes["is_categorical"].astype(bool) & ~is_leaf
    words = np.ascontiguousarray(np.concatenate(bitsets), "<u4")
    # Inside the estimator the columns of categories come first.
    is_category = estimator.is_categorical_
    if is_category is None:
        is_category = np.zeros(estimator.n_features_in_, bool)
    order = np.argsort(~is_category, kind="stable")
    baseline = np.ravel(estimator._baseline_prediction).astype(np.float64)
    return FittedTrees(
        num_columns=len(order),
        activation=_activation(estimator, len(baseline)),
        baseline=baseline,
        roots=roots,
        is_leaf=is_leaf,
        values=nodes["value"].astype(np.float64),
        left=start + nodes["left"],
        right=start + nodes["right"],
        columns=order[nodes["feature_idx"]],
        thresholds=nodes["num_threshold"].astype(np.float64),
        missing_left=nodes["missing_go_to_left"].astype(bool),
        sets=np.where(is_set, first_set + nodes["bitset_idx"], -1),
        left_categories=np.unpackbits(words.view(np.uint8), axis=1, bitorder="little").astype(bool),
        categories=_categories(estimator, np.flatnonzero(is_category)),
    )


def _activation(estimator: Any, scores: int) -> str:
    if isinstance(estimator, HistGradientBoostingClassifier):
        return "sigmoid" if scores == 1 else "softmax"
    if estimator.loss not in _ACTIVATIONS:
        raise ValueError(
            f"`loss` must be one of {sorted(_ACTIVATIONS)}. Received: loss={estimator.loss!r}."
        )
    return _ACTIVATIONS[estimator.loss]


def _categories(estimator: Any, columns: np.ndarray) -> dict[int, np.ndarray]:
    if not len(columns):
        return {}
    encoder = estimator._preprocessor.named_transformers_["encoder"]
    found = {}
    for column, given in zip(columns.tolist(), encoder.categories_, strict=True):
        try:
            codes = np.asarray(given, np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"The categories of column {column} must be numbers: encode them first, as "
                f"`TableSchema.encode` does. Received: {given[:5].tolist()}."
            ) from error
        found[column] = codes[~np.isnan(codes)]
    return found


def _check_scores(estimator: Any, trees: FittedTrees) -> None:
    """Compares the trees' scores with the estimator's, at thresholds, codes, unmet and missing."""
    generator = np.random.default_rng(0)
    table = np.empty((_PROBE_ROWS, trees.num_columns))
    for column in range(trees.num_columns):
        if column in trees.categories:
            codes = trees.categories[column]
            candidates = [*codes, codes.max(initial=0) + 1]
        else:
            is_here = ~trees.is_leaf & (trees.columns == column)
            here = np.unique(trees.thresholds[is_here & np.isfinite(trees.thresholds)])
            candidates = [*here, here.max(initial=0) + 1]
        table[:, column] = generator.choice([*candidates, np.nan], _PROBE_ROWS)
    names = getattr(estimator, "feature_names_in_", None)
    rows = table if names is None else pd.DataFrame(table, columns=names)
    if isinstance(estimator, HistGradientBoostingClassifier):
        expected = estimator.decision_function(rows).reshape(_PROBE_ROWS, -1)
    else:
        expected = estimator.predict(rows)[:, None]
    scores = _descend(trees, table)
    if trees.activation == "exponential":
        scores = np.exp(scores)
    if not np.allclose(scores, expected, rtol=1e-9, atol=1e-9):
        raise RuntimeError(
            f"The trees of scikit-learn {sklearn.__version__} do not answer as kfusion reads them "
            f"(it reads {KNOWN_VERSIONS}). Install one of those."
        )


def _descend(trees: FittedTrees, table: np.ndarray) -> np.ndarray:
    """`(rows, scores)`: every row down every tree, a level at a time."""
    rows = np.arange(len(table))[:, None]
    coded = table.copy()
    for column, codes in trees.categories.items():
        position = np.searchsorted(codes, table[:, column])
        is_met = np.isin(table[:, column], codes)
        coded[:, column] = np.where(is_met, position, np.nan)
    nodes = np.broadcast_to(trees.roots, (len(table), len(trees.roots)))
    while not trees.is_leaf[nodes].all():
        values = coded[rows, trees.columns[nodes]]
        is_missing = np.isnan(values)
        goes_left = values <= trees.thresholds[nodes]
        if len(trees.left_categories):
            positions = np.where(is_missing, 0, values).astype(int).clip(0, 255)
            in_set = trees.left_categories[trees.sets[nodes], positions]
            goes_left = np.where(trees.sets[nodes] >= 0, in_set, goes_left)
        goes_left = np.where(is_missing, trees.missing_left[nodes], goes_left)
        below = np.where(goes_left, trees.left[nodes], trees.right[nodes])
        nodes = np.where(trees.is_leaf[nodes], nodes, below)
    values = trees.values[nodes].reshape(len(table), -1, len(trees.baseline))
    return trees.baseline + values.sum(axis=1)
