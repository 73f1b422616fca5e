"""Some of the rows that are examined, few enough for memory and the same at each call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from kfusion.data.lazy_rows import LazyRows
from kfusion.doctor.case import Case, Rows

BATCH = 256
# Of checks that run a model several times and average nothing.
FEW_ROWS = 32
# Rows of large images are fewer, so that what layers make of them fits into memory.
FEWEST, MOST_NUMBERS = 16, 2**22
# Of images that stay files, as many as are decoded in seconds.
MOST_STREAMED, MOST_STREAMED_NUMBERS = 2000, 2**27


def few_rows(
    x: Mapping[str, np.ndarray],
    most: int = BATCH,
    seed: int = 0,
    *,
    fewest: int = FEWEST,
    most_numbers: int = MOST_NUMBERS,
) -> np.ndarray:
    """Positions of some rows, drawn at random and sorted.

    Args:
        x: Arrays `(rows, ...)` by the name of the input.
        most: Int, how many rows at most.
        seed: Int.
        fewest: Int, how many of large rows at least, if there are as many.
        most_numbers: Int, how many numbers all inputs of these rows may hold together.
    """
    rows = len(next(iter(x.values())))
    count = min(rows, most, max(fewest, most_numbers // _numbers_per_row(x)))
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))


def sample_rows(case: Case, most: int = BATCH) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs and targets of some training rows, for runs that keep what all layers give."""
    positions = few_rows(case.train.x, most, case.seed, most_numbers=MOST_NUMBERS // 2)
    rows = take(case.train, positions)
    return rows.x, rows.y


def take(rows: Rows, positions: np.ndarray) -> Rows:
    """Some rows."""
    x = {name: array[positions] for name, array in rows.x.items()}
    groups = None if rows.groups is None else rows.groups[positions]
    return Rows(x, rows.y[positions], groups)


def decoded(rows: Rows, seed: int = 0) -> Rows:
    """Rows as arrays: all of them, or of streamed ones a sample."""
    if not any(isinstance(array, LazyRows) for array in rows.x.values()):
        return rows
    return take(rows, few_rows(rows.x, MOST_STREAMED, seed, most_numbers=MOST_STREAMED_NUMBERS))


def batches(x: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """All rows in their order, as many at a time as fit into memory."""
    size = min(BATCH, max(FEWEST, MOST_NUMBERS // _numbers_per_row(x)))
    for start in range(0, len(next(iter(x.values()))), size):
        yield {name: array[start : start + size] for name, array in x.items()}


def _numbers_per_row(x: Mapping[str, np.ndarray]) -> int:
    return sum(array[:1].size for array in x.values()) or 1
