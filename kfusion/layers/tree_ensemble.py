"""Boosted trees: a table's numbers and category codes -> their scores, all trees at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

ACTIVATIONS = ("linear", "sigmoid", "softmax", "exponential")


@keras.saving.register_keras_serializable(package="kfusion")
class TreeEnsemble(keras.layers.Layer):
    """Answers as an ensemble of decision trees that was fitted elsewhere; `tree_ensemble` fills it.

    Works from the leaves up, one level of all trees at a time: a split takes, row by row, the
    value of its left child or of its right one. The arguments say how many nodes there are; what
    they hold are weights that do not train.

    Missing values (NaN) go where each split sends them, and so do categories with a code that the
    trees have not met.

    A row takes about 6 bytes for each node, most of it at the widest level: 256 rows of 1,000
    trees with 31 leaves each, about 100 MB. Ask for thousands of rows in batches.

    Args:
        levels: Counts of nodes, one triple for each level of all trees together, roots first:
            splits of a number at a threshold, splits of categories in two sets, leaves.
        scores: Int, scores per row. Trees take turns: tree `i` adds to score `i % scores`.
        category_columns: Int, number of columns that hold category codes.
        max_codes: Int, the most codes that one of them has.
        activation: What turns scores into the answer: "linear", "sigmoid", "softmax" or
            "exponential".

    Takes `(rows, columns)` float32 numbers and codes and gives `(rows, scores)`.
    """

    def __init__(
        self,
        levels: Sequence[Sequence[int]],
        scores: int = 1,
        category_columns: int = 0,
        max_codes: int = 0,
        activation: str = "linear",
        **kwargs: Any,
    ):
        # Half precision can hold neither raw numbers nor codes: cast what comes out.
        super().__init__(autocast=False, **kwargs)
        self.levels = [[int(count) for count in level] for level in levels]
        _check_levels(self.levels, scores)
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"`activation` must be one of {list(ACTIVATIONS)}. Received: "
                f"activation={activation!r}."
            )
        numbers, sets, leaves = zip(*self.levels, strict=True)
        if any(sets) and not (category_columns and max_codes):
            raise ValueError(
                "Splits of categories need `category_columns` and `max_codes`. Received: "
                f"{category_columns} and {max_codes}, and {sum(sets)} such splits."
            )
        self.scores = scores
        self.category_columns = category_columns
        self.max_codes = max_codes
        self.activation = activation
        self._numbers, self._sets, self._leaves = _parts(numbers), _parts(sets), _parts(leaves)
        self._nodes = _parts([sum(level) for level in self.levels])

    def build(self, input_shape):
        self.input_spec = keras.layers.InputSpec(ndim=2, axes={-1: input_shape[-1]})
        numbers, sets, leaves = (sum(counts) for counts in zip(*self.levels, strict=True))
        if numbers:
            self._columns = self._add("columns", (numbers,), "int32")
            self._thresholds = self._add("thresholds", (numbers,), "float32")
            self._missing_left = self._add("missing_left", (numbers,), "bool")
        if sets:
            codes = (self.category_columns, self.max_codes)
            self._code_columns = self._add("code_columns", codes[:1], "int32")
            # Rising along a row; NaN where a column has fewer.
            self._codes = self._add("codes", codes, "float32")
            self._set_columns = self._add("set_columns", (sets,), "int32")
            # Which codes go left, by position; in the end, whether missing and unmet ones do.
            self._left_codes = self._add("left_codes", (sets, self.max_codes + 1), "bool")
        self._leaf_values = self._add("leaf_values", (leaves,), "float32")
        # Where among a level's splits and leaves, in this order, its nodes are: first the roots
        # in the order of the trees, below them all left children, then all right ones.
        self._positions = self._add("positions", (self._nodes[-1].stop,), "int32", self._in_order)
        self._baseline = self._add("baseline", (self.scores,), "float32")
        self.built = True

    def call(self, inputs):
        # Rows last, so that what is gathered lies in one piece.
        table = ops.transpose(ops.cast(inputs, "float32"))
        rows = ops.shape(table)[1]
        codes = self._code_positions(table) if any(sets for _, sets, _ in self.levels) else None
        below: Any = None
        for level, (numbers, sets, leaves) in reversed(list(enumerate(self.levels))):
            parts = []
            if splits := numbers + sets:
                left = self._goes_left(level, table, codes)
                parts.append(ops.where(left, below[:splits], below[splits:]))
            if leaves:
                values = self._leaf_values[self._leaves[level]]
                parts.append(ops.broadcast_to(values[:, None], (leaves, rows)))
            below = ops.take(_join(parts), self._positions[self._nodes[level]], axis=0)
        rounds = sum(self.levels[0]) // self.scores
        trees = ops.reshape(below, (rounds, self.scores, rows))
        scores = ops.transpose(_sum_in_pairs(trees) + self._baseline[:, None])
        answer = keras.activations.get(self.activation)(scores)
        return ops.cast(answer, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.scores)

    def get_config(self):
        return {
            **super().get_config(),
            "levels": self.levels,
            "scores": self.scores,
            "category_columns": self.category_columns,
            "max_codes": self.max_codes,
            "activation": self.activation,
        }

    def _add(self, name: str, shape: tuple[int, ...], dtype: str, initializer: Any = "zeros"):
        # In half precision Keras would otherwise cast the weights too, whenever they are read.
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer=initializer,
            trainable=False,
            autocast=False,
        )

    def _in_order(self, shape, dtype):
        ranks = [np.arange(part.stop - part.start) for part in self._nodes]
        return ops.convert_to_tensor(np.concatenate(ranks), dtype)

    def _code_positions(self, table):
        """`(category columns, rows)` positions among a column's codes; behind them if unmet."""
        values = ops.take(table, self._code_columns[:], axis=0)[:, None, :]
        codes = self._codes[:, :, None]
        position = ops.sum(ops.cast(codes < values, "int32"), axis=1)
        return ops.where(ops.any(codes == values, axis=1), position, self.max_codes)

    def _goes_left(self, level: int, table, codes):
        """`(splits, rows)` of one level: splits of numbers first, then those of categories."""
        parts = []
        numbers, sets = self._numbers[level], self._sets[level]
        if numbers.start < numbers.stop:
            values = ops.take(table, self._columns[numbers], axis=0)
            missing_left = ops.logical_and(ops.isnan(values), self._missing_left[numbers][:, None])
            parts.append(ops.logical_or(values <= self._thresholds[numbers][:, None], missing_left))
        if sets.start < sets.stop:
            first = ops.arange(sets.start, sets.stop, dtype="int32") * (self.max_codes + 1)
            codes = ops.take(codes, self._set_columns[sets], axis=0) + first[:, None]
            parts.append(ops.take(ops.reshape(self._left_codes[:], (-1,)), codes))
        return _join(parts)


def _check_levels(levels: list[list[int]], scores: int) -> None:
    if not levels or any(len(level) != 3 or min(level) < 0 for level in levels):
        raise ValueError(
            "`levels` must hold three counts for each level: splits of numbers, splits of "
            f"categories, leaves. Received: {levels}."
        )
    roots = sum(levels[0])
    if scores < 1 or not roots or roots % scores:
        raise ValueError(
            f"{scores} score(s) need as many trees, or a multiple. Received: {roots} roots in "
            f"levels={levels}."
        )
    for depth, (level, below) in enumerate(zip(levels, [*levels[1:], [0, 0, 0]], strict=True)):
        if sum(below) != 2 * (level[0] + level[1]):
            raise ValueError(
                f"Each split has two children: level {depth} of `levels` has "
                f"{level[0] + level[1]} splits but level {depth + 1} has {sum(below)} nodes."
            )


def _parts(counts: Sequence[int]) -> list[slice]:
    """Where each level's part of an array is."""
    stops = np.cumsum(counts).tolist()
    return [slice(stop - count, stop) for count, stop in zip(counts, stops, strict=True)]


def _join(parts: list):
    return ops.concatenate(parts, axis=0) if len(parts) > 1 else parts[0]


def _sum_in_pairs(terms):
    """Sums over the first axis; rounding grows with the logarithm of the number of terms."""
    while (count := terms.shape[0]) > 1:
        half = count // 2
        sums = terms[:half] + terms[half : 2 * half]
        terms = _join([sums, terms[2 * half :]]) if count % 2 else sums
    return terms[0]
