"""The rows of tables as a frozen part takes them: told apart, checked, run batch by batch."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from kfusion.data.lazy_rows import LazyRows, in_advance
from kfusion.devices import predict_on_devices
from kfusion.frozen.augmented_views import (
    IS_AUGMENTED,
    SEEDS,
    num_generators,
    seeded_steps,
    view_digests,
    view_seeds,
)
from kfusion.frozen.feature_store import digest_rows
from kfusion.frozen.frozen_parts import Part, StepsModel
from kfusion.frozen.part_keys import PartKey, part_key

NUM_PROBED = 4

Inputs = dict[str, Any]


class ChangingPartError(ValueError):
    """A part that looks frozen answers otherwise in training, or by the shape of its rows."""


class PartRows:
    """Rows of one or several tables, one behind the other, and what a part makes of them.

    Where the part augments, it makes as many views of each row of a table as are asked for, one
    behind the other, of which the first is the plain one; else one.
    """

    def __init__(self, part: Part, tables: Sequence[Inputs], views: Sequence[int]):
        names = [value.tensor.name for value in part.inputs]
        self.part = part
        self.columns = {name: [table[name] for table in tables] for name in names}
        self.lengths = [len(table[names[0]]) for table in tables]
        self.views = list(views) if part.augmentations else [1] * len(tables)
        per_row = np.repeat(self.views, self.lengths)
        # Of each view.
        self._rows = np.repeat(np.arange(len(per_row)), per_row)
        firsts = np.cumsum(per_row) - per_row
        self._is_augmented = np.arange(len(self)) != np.repeat(firsts, per_row)

    def __len__(self) -> int:
        return len(self._rows)

    @functools.cached_property
    def key(self) -> PartKey:
        """What the part is, and of what shape the rows are."""
        return part_key(self.part, [tables[0].shape[1:] for tables in self.columns.values()])

    def digests(self, verbose: int | bool) -> np.ndarray:
        """A digest of each row's views."""
        tables = zip(*self.columns.values(), strict=True)
        self._digests = np.concatenate(
            [
                view_digests(digest_rows(table, verbose=verbose), num_views)
                for table, num_views in zip(tables, self.views, strict=True)
            ]
        )
        return self._digests

    def by_table(self, features: np.ndarray) -> list[np.ndarray]:
        """What is one behind the other as an array per table, with an axis of views if any are."""
        found, start = [], 0
        for num_rows, num_views in zip(self.lengths, self.views, strict=True):
            here = features[start : start + num_rows * num_views]
            start += len(here)
            if self.part.augmentations:
                here = here.reshape(num_rows, num_views, *features.shape[1:])
            found.append(here)
        return found

    def compute(self, batches: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """What the part gives for each batch of views; the first one is the largest.

        Seeds come from what `digests` found, which is asked for first.
        """
        if not batches:
            return
        model, size = self._checked_model(), len(batches[0])
        # Of one size, so that nothing is compiled twice.
        filled = [np.resize(batch, size) for batch in batches]
        taken: Iterable[Inputs] = map(self._take, filled)
        arrays = [array for tables in self.columns.values() for array in tables]
        if any(isinstance(array, LazyRows) for array in arrays):
            row_bytes = sum(array.nbytes for array in arrays) // sum(self.lengths)
            taken = in_advance(self._take, filled, item_bytes=size * row_bytes)
        dtypes = [value.tensor.dtype for value in self.part.outputs]
        for batch, rows in zip(batches, taken, strict=True):
            outputs = predict_on_devices(model, rows)
            yield [
                np.asarray(output)[: len(batch)].astype(dtype, copy=False)
                for output, dtype in zip(outputs, dtypes, strict=True)
            ]

    def _take(self, positions: np.ndarray) -> Inputs:
        # Each row is read once for all of its views.
        rows, places = np.unique(self._rows[positions], return_inverse=True)
        found = {name: _rows_of(tables, rows)[places] for name, tables in self.columns.items()}
        if self.part.augmentations:
            count = num_generators(self.part.steps)
            found[SEEDS] = view_seeds(self._digests[positions], count)
            found[IS_AUGMENTED] = self._is_augmented[positions]
        return found

    def _checked_model(self) -> StepsModel:
        """The part as a model that gives the same in training."""
        given = {value.tensor.name: value for value in self.part.inputs}
        steps = self.part.steps
        if self.part.augmentations:
            further, steps = seeded_steps(steps)
            given |= further
        layers = [
            step.operation for step in steps if isinstance(step.operation, keras.layers.Layer)
        ]
        model = StepsModel(given, steps, self.part.outputs, layers)
        if self.key.has_own_code or self.part.has_bare_operations:
            few = self._take(np.unique(np.linspace(0, len(self) - 1, NUM_PROBED).astype(int)))
            if self.key.has_own_code:
                _check_modes(model, few)
            _check_rows(model, few)
        return model


def _check_modes(model: StepsModel, few: Inputs) -> None:
    """Runs a few rows as in training and not: nobody knows what users' layers do."""
    before = model.get_weights()
    answers = [model(few, training=mode) for mode in (True, False)]
    after = model.get_weights()
    model.set_weights(before)
    same_weights = all(map(np.array_equal, before, after))
    if not same_weights or not all(map(_is_close, *answers)):
        raise ChangingPartError("it answers otherwise in training than at inference")


def _check_rows(model: StepsModel, few: Inputs) -> None:
    """Runs rows together and alone: operations and users' layers may look at a whole batch."""
    together = model(few, training=False)
    for row in range(len(next(iter(few.values())))):
        alone = model({name: rows[row : row + 1] for name, rows in few.items()}, training=False)
        if not all(map(_is_close, (output[row : row + 1] for output in together), alone)):
            raise ChangingPartError("what it answers for a row depends on the rows beside it")


def _rows_of(tables: Sequence[np.ndarray], positions: np.ndarray) -> np.ndarray:
    """Rows of tables that count as one behind the other."""
    found = np.empty((len(positions), *tables[0].shape[1:]), tables[0].dtype)
    start = 0
    for table in tables:
        here = (positions >= start) & (positions < start + len(table))
        found[here] = table[positions[here] - start]
        start += len(table)
    return found


def _is_close(a: Any, b: Any) -> bool:
    a, b = (keras.ops.convert_to_numpy(each).astype(np.float64) for each in (a, b))
    return np.allclose(a, b, rtol=1e-2, atol=1e-3 * np.abs(b).max(initial=0), equal_nan=True)
