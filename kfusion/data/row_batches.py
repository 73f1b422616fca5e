"""Batches of rows for training, made as they are needed."""

from __future__ import annotations

import abc
import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kfusion.data.inputs import check_lengths
from kfusion.data.lazy_rows import LazyRows, as_rows

# Batches ready at most, each as large as its pixels.
_QUEUE = 8


class RowBatches(keras.utils.PyDataset):
    """Feeds `keras.Model.fit` rows in an order that is drawn for each epoch.

    Where an input is `LazyRows`, threads make the next batches while the model trains on one.

    Args:
        inputs: Array with one entry per row, or a list, tuple or dict of such arrays. Memory maps
            and `LazyRows` stay what they are: only the rows of a batch are read.
        outputs: Array of targets, or a list, tuple or dict of them, one per output of the model.
        labels: `(rows,)` ints that the order is drawn by, or None.
        batch_size: Int, the most rows in a batch.
        seed: Int that fixes the order; None draws another each time.
        sample_weight: Array of row weights or one per output, as `keras.Model.fit` takes it;
            None for none.
        multiple: Int, what the rows of each batch must be a multiple of, such as the devices that
            share it. The last batch is filled up with rows of no weight.
        repeat: Whether its rows are repeated instead, all equally often, until they are a
            multiple: their mean and variance stay what they are, of which rows of no weight would
            be a part.
        **kwargs: `workers`, `use_multiprocessing` and `max_queue_size` of `keras.utils.PyDataset`.

    Attributes:
        num_rows: Int.
        failure: The exception that making a batch ended in, or None.

    Raises:
        ValueError: If arrays differ in length, or `batch_size` is below 1 or no multiple.
        TypeError: If `batch_size` is no int.
    """

    def __init__(
        self,
        inputs,
        outputs,
        labels=None,
        *,
        batch_size: int,
        seed: int | None,
        sample_weight=None,
        multiple: int = 1,
        repeat: bool = False,
        **kwargs,
    ):
        self.batch_size = check_batch_size(batch_size)
        if self.batch_size % multiple:
            raise ValueError(
                f"`batch_size` is that of all devices together: {multiple} of them share a batch "
                f"of {multiple}, {2 * multiple}, {3 * multiple} and so on. Received: {batch_size}."
            )
        # In the form in which `fit` takes a batch.
        self._data = tuple(
            _as_arrays(part) for part in (inputs, outputs, sample_weight) if part is not None
        )
        named: dict[str, Any] = {} if labels is None else {"labels": labels}
        for name, part in zip(("inputs", "outputs", "sample_weight"), self._data, strict=False):
            named |= {
                f"{name} {'.'.join(map(str, path))}".strip(): array
                for path, array in keras.tree.flatten_with_path(part)
            }
        self.num_rows = check_lengths(named)
        self._multiple, self._repeat = multiple, repeat
        if self.num_rows % multiple and not repeat and sample_weight is None:
            weights = keras.tree.map_structure(
                lambda array: np.ones(len(array), np.float32), self._data[1]
            )
            self._data = (*self._data, weights)
        if any(isinstance(array, LazyRows) for array in named.values()):
            # Keras makes batches ahead from 2 threads on.
            kwargs = {"workers": max(2, os.cpu_count() or 1), "max_queue_size": _QUEUE, **kwargs}
        super().__init__(**kwargs)
        self.failure: Exception | None = None
        self._generator = np.random.default_rng(seed)

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return math.ceil(self.num_rows / self.batch_size)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Batch `index` of the present epoch: `(x, y)` or `(x, y, sample_weight)`."""
        rows = self.rows(index)
        if self._repeat:
            rows = np.tile(rows, self._multiple // math.gcd(len(rows), self._multiple))
        missing = -len(rows) % self._multiple
        if missing:
            # Others of the epoch, so that what a batch is normalised by stays usual.
            rows = np.concatenate([rows, self._order[np.arange(missing) % self.num_rows]])
        try:
            batch = tuple(keras.tree.map_structure(lambda array: array[rows], self._data))
        except Exception as error:
            self.failure = error
            raise
        if not missing:
            return batch
        # The mean over the batch is that over its own rows.
        factors = np.full(len(rows), len(rows) / (len(rows) - missing), np.float32)
        factors[-missing:] = 0
        return *batch[:-1], keras.tree.map_structure(lambda array: array * factors, batch[-1])

    def rows(self, index: int) -> np.ndarray:
        """Row numbers of batch `index` of the present epoch."""
        if not 0 <= index < len(self):
            raise IndexError(f"The epoch has {len(self)} batches. Received: index={index}.")
        return self._order[index * self.batch_size : (index + 1) * self.batch_size]

    def on_epoch_end(self) -> None:
        """Draws the next epoch."""
        self._order = self._draw_epoch()

    @abc.abstractmethod
    def _draw_epoch(self) -> np.ndarray:
        """Row numbers of an epoch in order."""


class ShuffledBatches(RowBatches):
    """Feeds `keras.Model.fit` each row once an epoch, as it does with arrays.

    Args:
        inputs: As in `RowBatches`.
        outputs: As in `RowBatches`.
        shuffle: Whether each epoch has an order of its own; else that of the rows.
        **keywords: Further arguments of `RowBatches`.
    """

    def __init__(self, inputs, outputs, *, shuffle: bool = True, **keywords):
        super().__init__(inputs, outputs, **keywords)
        self._shuffle = shuffle
        self._order = self._draw_epoch()

    def _draw_epoch(self) -> np.ndarray:
        if not self._shuffle:
            return np.arange(self.num_rows)
        return self._generator.permutation(self.num_rows)


def check_batch_size(batch_size: Any) -> int:
    """The number of rows per step that was given.

    Raises:
        TypeError: If it is no int.
        ValueError: If it is below 1.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)):
        raise TypeError(
            "`batch_size` must be an int, the rows per step. Received: "
            f"{batch_size!r} ({type(batch_size).__name__})."
        )
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be 1 or more. Received: {batch_size}.")
    return int(batch_size)


@contextlib.contextmanager
def own_failure(batches: Any) -> Iterator[None]:
    """Raises what making a batch ended in, which a backend may have made into an error of its."""
    try:
        yield
    except Exception as error:
        failure = getattr(batches, "failure", None)
        if failure is None or failure is error:
            raise
        raise failure from None


def _as_arrays(part: Any) -> Any:
    """The same structure of arrays; lists become tuples, which `fit` asks for."""
    if isinstance(part, dict):
        return {key: _as_arrays(value) for key, value in part.items()}
    if isinstance(part, (list, tuple)) and part and np.ndim(part[0]):
        return tuple(_as_arrays(value) for value in part)
    return as_rows(part)
