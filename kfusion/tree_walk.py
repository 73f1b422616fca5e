"""Boosted trees for inference alone: from the roots down, the trees of several folds at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from kfusion.layers import TreeEnsemble


class TreeWalk(keras.layers.Layer):
    """The mean of what several `TreeEnsemble`s answer, in a graph as deep as their deepest tree.

    A `TreeEnsemble` looks at every node, level by level; here each row walks down its own path,
    which takes four look-ups a level whatever the number of trees. Missing values, categories and
    activations are the ensembles' own. It is made of built layers and is not saved by Keras.

    Args:
        ensembles: One or more built `TreeEnsemble`s of the same columns, scores and activation,
            such as those of the folds of one member.

    Takes `(rows, columns)` float32 and gives `(rows, scores)`.

    Raises:
        ValueError: If they differ in scores or activation.
    """

    def __init__(self, ensembles: Sequence[TreeEnsemble], **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        if len({(each.scores, each.activation) for each in ensembles}) != 1:
            raise ValueError("`ensembles` must be equal in scores and activation.")
        self._activation = keras.activations.get(ensembles[0].activation)
        self._scores = ensembles[0].scores
        self._num_ensembles = len(ensembles)
        self._sets = _join_sets([_weights(each) for each in ensembles])
        self._forest = _join_forests([_forest(each) for each in ensembles], self._scores)

    def call(self, inputs):
        table = ops.transpose(ops.cast(inputs, "float32"))
        rows = ops.shape(table)[1]
        # Behind each column the same with what is missing on the left of every split.
        parts = [table, ops.where(ops.isnan(table), -np.inf, table)]
        if self._sets.left.size:
            parts.append(self._set_decisions(table))
        cells = ops.reshape(ops.concatenate(parts, axis=0), (-1,))
        forest = self._forest
        # Each once in the graph, not once for each step.
        offsets, thresholds, right = (
            ops.convert_to_tensor(each)
            for each in (self._columns_in_cells(inputs.shape[-1]), forest.thresholds, forest.right)
        )
        row = ops.arange(rows, dtype="int32")
        nodes = ops.broadcast_to(forest.roots[:, None], (len(forest.roots), rows))
        arrived = []
        for count in forest.walking:
            arrived.append(nodes[count:])
            nodes = nodes[:count]
            cell = _look_up(offsets, nodes) * rows + row
            is_left = _look_up(cells, cell) <= _look_up(thresholds, nodes)
            # Not by what is on the right: TensorFlow takes "not <=" for ">", and NaN goes astray.
            nodes = _look_up(right, nodes) + ops.cast(is_left, "int32")
        nodes = ops.concatenate([nodes, *reversed(arrived)], axis=0)
        values = _look_up(forest.values, _look_up(nodes, forest.order))
        shape = (-1, self._num_ensembles * self._scores, rows)
        scores = ops.sum(ops.reshape(values, shape), axis=0) + forest.baseline[:, None]
        answers = ops.reshape(ops.transpose(scores), (-1, self._num_ensembles, self._scores))
        answers = ops.mean(self._activation(answers), axis=1)
        return ops.cast(answers, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self._scores)

    def _columns_in_cells(self, width: int) -> np.ndarray:
        """Which row of the cells each node looks at."""
        forest = self._forest
        plain = forest.columns + width * forest.missing_left
        return np.where(forest.sets < 0, plain, 2 * width + forest.sets).astype(np.int32)

    def _set_decisions(self, table):
        """`(sets, rows)`: 0 where a row's category goes left, else 1."""
        sets = self._sets
        values = _look_up(table, sets.code_columns)[:, None, :]
        codes = sets.codes[:, :, None]
        position = ops.sum(ops.cast(codes < values, "int32"), axis=1)
        position = ops.where(ops.any(codes == values, axis=1), position, sets.left.shape[1] - 1)
        first = np.arange(len(sets.left), dtype=np.int32)[:, None] * sets.left.shape[1]
        places = _look_up(position, sets.columns) + first
        return _look_up(np.where(sets.left, 0, 1).astype(np.float32).reshape(-1), places)


class _Forest(NamedTuple):
    """All nodes of all trees, a left child behind its right one; a leaf is its own left child.

    Trees are sorted by falling depth: `walking` holds how many have not arrived at each step, and
    `order` where each tree stands, round by round.
    """

    columns: np.ndarray
    thresholds: np.ndarray
    missing_left: np.ndarray
    sets: np.ndarray
    right: np.ndarray
    values: np.ndarray
    roots: np.ndarray
    depths: np.ndarray
    baseline: np.ndarray
    walking: tuple[int, ...] = ()
    order: np.ndarray = np.zeros(0, np.int32)


class _Sets(NamedTuple):
    """Splits of categories: codes of their columns, and which of these go left."""

    code_columns: np.ndarray
    codes: np.ndarray
    columns: np.ndarray
    left: np.ndarray


def _look_up(values: Any, places: Any):
    """`values[places]`; Keras' own look-up also allows for negative places, at twice the price."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(values, places)
    return ops.take(ops.convert_to_tensor(values), places, axis=0)


def _weights(ensemble: TreeEnsemble) -> dict[str, np.ndarray]:
    return {weight.name: keras.ops.convert_to_numpy(weight) for weight in ensemble.weights}


def _forest(ensemble: TreeEnsemble) -> _Forest:
    """An ensemble's nodes in the order of their levels."""
    weights = _weights(ensemble)
    counts = np.array(ensemble.levels)
    sizes = counts.sum(axis=1)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    total = int(starts[-1])
    forest = _Forest(
        columns=np.zeros(total, np.int32),
        # A leaf looks at a column in which nothing is missing, and all is on the left.
        thresholds=np.full(total, np.inf, np.float32),
        missing_left=np.ones(total, np.int32),
        sets=np.full(total, -1, np.int32),
        right=np.arange(-1, total - 1, dtype=np.int32),
        values=np.zeros(total, np.float32),
        roots=np.arange(sizes[0], dtype=np.int32),
        depths=np.zeros(sizes[0], np.int32),
        baseline=weights["baseline"],
    )
    tree = np.arange(sizes[0])
    # Where each node of the level stands, and which node it is.
    place = np.arange(sizes[0])
    firsts = np.cumsum(counts, axis=0) - counts
    for level, (numbers, sets, _) in enumerate(counts):
        positions = weights["positions"][starts[level] : starts[level + 1]]
        by_kind = np.empty_like(place)
        by_kind[positions] = place
        trees = np.empty_like(tree)
        trees[positions] = tree
        split, category, leaf = np.split(by_kind, [numbers, numbers + sets])
        parts = [
            slice(first, first + n) for first, n in zip(firsts[level], counts[level], strict=True)
        ]
        if numbers:
            forest.columns[split] = weights["columns"][parts[0]]
            forest.thresholds[split] = weights["thresholds"][parts[0]]
            forest.missing_left[split] = weights["missing_left"][parts[0]]
        if sets:
            forest.thresholds[category] = 0.5
            forest.sets[category] = np.arange(parts[1].start, parts[1].stop)
        forest.values[leaf] = weights["leaf_values"][parts[2]]
        splits = by_kind[: numbers + sets]
        # Below, left children come first, then right ones: here each pair side by side.
        right = starts[level + 1] + 2 * np.arange(numbers + sets)
        forest.right[splits] = right
        place = np.concatenate([right + 1, right])
        tree = np.concatenate([trees[: numbers + sets]] * 2)
        forest.depths[tree] = level + 1
    return forest


def _join_forests(forests: Sequence[_Forest], scores: int) -> _Forest:
    """One forest of several, all with as many rounds: an empty tree adds nothing."""
    rounds = max(len(forest.roots) for forest in forests) // scores
    empty = _Forest(
        columns=np.zeros(1, np.int32),
        thresholds=np.full(1, np.inf, np.float32),
        missing_left=np.ones(1, np.int32),
        sets=np.full(1, -1, np.int32),
        right=np.full(1, -1, np.int32),
        values=np.zeros(1, np.float32),
        roots=np.zeros(1, np.int32),
        depths=np.zeros(1, np.int32),
        baseline=np.zeros(0, np.float32),
    )
    parts = [*forests, empty]
    firsts = np.cumsum([0, *(len(part.right) for part in parts)])
    first_sets = np.cumsum([0, *(int(np.sum(part.sets >= 0)) for part in parts)])
    roots = np.full((rounds, len(forests), scores), firsts[-2], np.int32)
    depths = np.zeros(roots.shape, np.int32)
    for i, forest in enumerate(forests):
        count = len(forest.roots) // scores
        roots[:count, i] = forest.roots.reshape(-1, scores) + firsts[i]
        depths[:count, i] = forest.depths.reshape(-1, scores)
    flat = depths.reshape(-1)
    deepest_first = np.argsort(-flat, kind="stable")
    place = np.empty(flat.size, np.int32)
    place[deepest_first] = np.arange(flat.size, dtype=np.int32)

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    sets = [
        np.where(p.sets < 0, -1, p.sets + first)
        for p, first in zip(parts, first_sets, strict=False)
    ]
    right = [part.right + first for part, first in zip(parts, firsts, strict=False)]
    return _Forest(
        columns=joined("columns"),
        thresholds=joined("thresholds"),
        missing_left=joined("missing_left"),
        sets=np.concatenate(sets).astype(np.int32),
        right=np.concatenate(right).astype(np.int32),
        values=joined("values"),
        roots=roots.reshape(-1)[deepest_first],
        depths=flat,
        baseline=np.concatenate([forest.baseline for forest in forests]),
        walking=tuple(int(np.sum(flat > step)) for step in range(int(flat.max(initial=0)))),
        order=place,
    )


def _join_sets(weights: Sequence[dict[str, np.ndarray]]) -> _Sets:
    """The splits of categories of several ensembles, each with codes of its own."""
    having = [each for each in weights if "left_codes" in each]
    width = max((each["codes"].shape[1] for each in having), default=0)
    first = np.cumsum([0, *(len(each["codes"]) for each in having)])
    codes = [_widened(each["codes"], width, np.nan) for each in having]
    # The last place is that of codes that were not met, and of missing ones.
    left = [
        np.column_stack(
            [_widened(each["left_codes"][:, :-1], width, False), each["left_codes"][:, -1]]
        )
        for each in having
    ]
    columns = [each["set_columns"] + start for each, start in zip(having, first, strict=False)]
    return _Sets(
        code_columns=_concatenated([each["code_columns"] for each in having], np.int32),
        codes=_concatenated(codes, np.float32),
        columns=_concatenated(columns, np.int32),
        left=_concatenated(left, np.bool_),
    )


def _widened(array: np.ndarray, width: int, value: Any) -> np.ndarray:
    return np.pad(array, [(0, 0), (0, width - array.shape[1])], constant_values=value)


def _concatenated(arrays: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(arrays).astype(dtype) if arrays else np.zeros((0, 0), dtype)
