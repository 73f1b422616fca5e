"""Boosted trees for inference alone: those of several folds at once, in a short graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from kfusion.layers import TreeEnsemble


class JoinedTrees(keras.layers.Layer):
    """The mean of what several `TreeEnsemble`s answer.

    Works from the leaves up as they do, but on the trees of all of them together and with one
    look-up for all kinds of splits of a level. Missing values, categories and activations are the
    ensembles' own. What it holds are constants: Keras cannot save it.

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
        weights = [_weights_of(each) for each in ensembles]
        self._sets = _join_sets(weights)
        parts = zip(ensembles, weights, strict=True)
        forest = _join_forests([_forest_of(*part) for part in parts], self._scores)
        self._baseline = np.concatenate([each["baseline"] for each in weights])
        self._levels = list(_levels_of(forest, int(ensembles[0].input_spec.axes[-1])))

    def call(self, inputs):
        # Rows last, so that what is looked up lies in one piece.
        table = ops.transpose(ops.cast(inputs, "float32"))
        rows = ops.shape(table)[1]
        # Behind each column the same with what is missing on the left of every split.
        parts = [table, ops.where(ops.isnan(table), -np.inf, table)]
        if self._sets.left.size:
            parts.append(self._set_decisions(table))
        cells = ops.concatenate(parts, axis=0)
        below: Any = None
        for level in reversed(self._levels):
            parts = []
            if splits := len(level.cells):
                # Never "not <=": TensorFlow takes it for ">", and NaN goes astray.
                is_left = _look_up(cells, level.cells) <= level.thresholds[:, None]
                parts.append(ops.where(is_left, below[:splits], below[splits:]))
            if leaves := len(level.leaves):
                parts.append(ops.broadcast_to(level.leaves[:, None], (leaves, rows)))
            if len(parts) == 1:
                (below,) = parts
            else:
                below = _look_up(ops.concatenate(parts, axis=0), level.positions)
        return ops.cast(self._answers(below, rows), self.compute_dtype)

    def _answers(self, trees, rows):
        """The mean of the ensembles' answers from the values of all trees, round by round."""
        shape = (-1, self._num_ensembles * self._scores, rows)
        scores = ops.sum(ops.reshape(trees, shape), axis=0) + self._baseline[:, None]
        answers = ops.reshape(ops.transpose(scores), (-1, self._num_ensembles, self._scores))
        return ops.mean(self._activation(answers), axis=1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self._scores)

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
    """Nodes of trees in any order; of a split the children, of a leaf itself.

    `sets` is the number of a split of categories, or -1.
    """

    columns: np.ndarray
    thresholds: np.ndarray
    missing_left: np.ndarray
    sets: np.ndarray
    left: np.ndarray
    right: np.ndarray
    values: np.ndarray
    roots: np.ndarray


class _Level(NamedTuple):
    """Splits of one level of all trees, then leaves, and where among them each node is.

    A split looks at a row of the cells: columns, columns without what is missing, sets.
    """

    cells: np.ndarray
    thresholds: np.ndarray
    leaves: np.ndarray
    positions: np.ndarray


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


def _weights_of(ensemble: TreeEnsemble) -> dict[str, np.ndarray]:
    return {weight.name: ops.convert_to_numpy(weight) for weight in ensemble.weights}


def _forest_of(ensemble: TreeEnsemble, weights: dict[str, np.ndarray]) -> _Forest:
    """An ensemble's nodes: of each level splits of numbers, of categories, leaves."""
    counts = np.array(ensemble.levels)
    starts = np.cumsum([0, *counts.sum(axis=1)])
    total = int(starts[-1])
    forest = _Forest(
        columns=np.zeros(total, np.int32),
        thresholds=np.full(total, 0.5, np.float32),
        missing_left=np.zeros(total, np.int32),
        sets=np.full(total, -1, np.int32),
        left=np.arange(total, dtype=np.int32),
        right=np.arange(total, dtype=np.int32),
        values=np.zeros(total, np.float32),
        roots=weights["positions"][: starts[1]],
    )
    firsts = np.cumsum(counts, axis=0) - counts
    for level, (numbers, sets, leaves) in enumerate(counts):
        ends = starts[level] + np.cumsum([0, numbers, sets, leaves])
        split, category, leaf = (slice(*each) for each in itertools.pairwise(ends))
        number, group, value = (
            slice(first, first + count)
            for first, count in zip(firsts[level], counts[level], strict=True)
        )
        if numbers:
            forest.columns[split] = weights["columns"][number]
            forest.thresholds[split] = weights["thresholds"][number]
            forest.missing_left[split] = weights["missing_left"][number]
        forest.sets[category] = np.arange(group.start, group.stop)
        forest.values[leaf] = weights["leaf_values"][value]
        if splits := numbers + sets:
            below = slice(starts[level + 1], starts[level + 2])
            children = starts[level + 1] + weights["positions"][below]
            forest.left[ends[0] : ends[2]] = children[:splits]
            forest.right[ends[0] : ends[2]] = children[splits:]
    return forest


def _join_forests(forests: Sequence[_Forest], scores: int) -> _Forest:
    """One forest of several, all with as many rounds: what they lack is a leaf of value 0."""
    leaf = _Forest(*(np.zeros(1, array.dtype) for array in forests[0]))
    parts = [*forests, leaf._replace(sets=np.full(1, -1, np.int32))]
    first = np.cumsum([0, *(len(part.left) for part in parts)])
    first_set = np.cumsum([0, *(int(np.sum(part.sets >= 0)) for part in parts)])
    rounds = max(len(forest.roots) for forest in forests) // scores
    roots = np.full((rounds, len(forests), scores), first[-2], np.int32)
    for number, forest in enumerate(forests):
        own = forest.roots.reshape(-1, scores)
        roots[: len(own), number] = own + first[number]
    moved = [
        part._replace(
            sets=np.where(part.sets < 0, -1, part.sets + first_set[number]),
            left=part.left + first[number],
            right=part.right + first[number],
        )
        for number, part in enumerate(parts)
    ]
    joined = [np.concatenate(arrays) for arrays in zip(*moved, strict=True)]
    return _Forest(*joined)._replace(roots=roots.reshape(-1))


def _levels_of(forest: _Forest, width: int) -> Iterator[_Level]:
    """All nodes, level by level: behind the roots all left children, then all right ones."""
    plain = forest.columns + width * forest.missing_left
    cells = np.where(forest.sets < 0, plain, 2 * width + forest.sets)
    is_leaf = forest.left == forest.right
    nodes = forest.roots
    while nodes.size:
        order = np.argsort(is_leaf[nodes], kind="stable")
        splits, leaves = nodes[~is_leaf[nodes]], nodes[is_leaf[nodes]]
        yield _Level(
            cells[splits].astype(np.int32),
            forest.thresholds[splits],
            forest.values[leaves],
            np.argsort(order).astype(np.int32),
        )
        nodes = np.concatenate([forest.left[splits], forest.right[splits]])


def _join_sets(weights: Sequence[dict[str, np.ndarray]]) -> _Sets:
    """The splits of categories of several ensembles, each with codes of its own."""
    having = [each for each in weights if "left_codes" in each]
    if not having:
        none = np.zeros((0, 0), np.int32)
        return _Sets(none, none, none, none)
    width = max(each["codes"].shape[1] for each in having)
    first = np.cumsum([0, *(len(each["codes"]) for each in having)])
    # The last place is that of codes that were not met, and of missing ones.
    left = []
    for each in having:
        *known, others = each["left_codes"].T
        left.append(np.column_stack([_widened(np.transpose(known), width, False), others]))
    columns = [each["set_columns"] + start for each, start in zip(having, first, strict=False)]
    return _Sets(
        code_columns=np.concatenate([each["code_columns"] for each in having]),
        codes=np.concatenate([_widened(each["codes"], width, np.nan) for each in having]),
        columns=np.concatenate(columns).astype(np.int32),
        left=np.concatenate(left),
    )


def _widened(array: np.ndarray, width: int, value: Any) -> np.ndarray:
    return np.pad(array, [(0, 0), (0, width - array.shape[1])], constant_values=value)
