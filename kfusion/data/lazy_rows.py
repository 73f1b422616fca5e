"""Rows that are made when they are asked for, in the place of an array that would not fit."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

import numpy as np

# What is made at once at most, in bytes: more would be meant to stream.
MOST_BYTES = 2**30
_CHUNK_BYTES = 2**22

Item = TypeVar("Item")
Made = TypeVar("Made")


class LazyRows:
    """What looks like an array `(rows, ...)` and holds none of it.

    `rows[some]` (an int, a slice, positions, or a mask) makes these rows; `rows.take(some)` are
    these rows unmade. What asks for all of them as one array, as `np.asarray` does, gets it if it
    is small.

    Attributes:
        shape: Ints, as of an array.
        dtype: NumPy dtype.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    def make(self, positions: np.ndarray) -> np.ndarray:
        """Makes the rows at these positions; called by several threads at once."""
        raise NotImplementedError

    def take(self, rows: Any) -> Self:
        """Other rows, in other order, unmade."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """What each row is made of, empty where it is of nothing: same names, same rows."""
        raise NotImplementedError

    def are_there(self) -> np.ndarray:
        """`(rows,)` booleans: which rows are made of something."""
        return np.fromiter(map(bool, self.names()), bool, len(self))

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Int, as of an array."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Int, bytes that all rows would take."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, rows: Any) -> np.ndarray:
        positions = np.arange(len(self))[rows]
        if not positions.ndim:
            return self.make(positions[None])[0]
        self._check_size(positions.size)
        return self.make(positions)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self._check_size(len(self))
        parts = list(self.chunks())
        whole = np.concatenate(parts) if parts else np.zeros(self.shape, self.dtype)
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def chunks(self, rows: Any = slice(None)) -> Iterator[np.ndarray]:
        """All rows, or some, in parts of a few MB, made in parallel."""
        positions = np.arange(len(self))[rows]
        size = max(1, _CHUNK_BYTES // max(1, self.nbytes // max(1, len(self))))
        parts = (positions[start : start + size] for start in range(0, positions.size, size))
        return in_advance(self.make, parts)

    def _check_size(self, rows: int) -> None:
        size = self.nbytes // max(1, len(self)) * rows
        if size > MOST_BYTES:
            raise ValueError(
                f"{rows:,} rows of {self!r} are asked for at once, {size / 2**30:.1f} GB: what "
                "asks needs all of them in memory. `fit`, `predict`, `evaluate` and "
                "`cross_validate` stream; for anything else load without `streaming=True`, take "
                "fewer rows, or a smaller shape."
            )


def as_rows(value: Any) -> Any:
    """A NumPy array of anything but `LazyRows`, which stay as they are."""
    return value if isinstance(value, LazyRows) else np.asarray(value)


def some_rows(array: Any, rows: Any) -> Any:
    """The given rows; those of `LazyRows` unmade."""
    return array.take(rows) if isinstance(array, LazyRows) else array[rows]


def in_advance(
    make: Callable[[Item], Made],
    items: Iterable[Item],
    *,
    threads: int | None = None,
    item_bytes: int = 0,
) -> Iterator[Made]:
    """Yields what is made of each item, in order, while threads make the next ones.

    Args:
        make: Called by several threads at once.
        items: What to make it of.
        threads: Int; None for one per core.
        item_bytes: Int, of what is made of one: what waits takes no more than 1 GB, or than two
            items.
    """
    threads = threads or os.cpu_count() or 1
    most = max(1, min(2 * threads, MOST_BYTES // max(1, item_bytes)))
    waiting: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
