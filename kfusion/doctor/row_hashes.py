"""Rows as short numbers: equal rows, equal numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from kfusion.data.lazy_rows import LazyRows


def hash_rows(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Hashes each row of one or several arrays together.

    Args:
        arrays: Of as many rows each. Numbers count by their value as float32, whatever their type;
            `LazyRows` by what they are made of.

    Returns:
        `(rows,)` uint64. Different rows share one with a chance of 2**-64.
    """
    hashes = np.empty(len(arrays[0]), np.uint64)
    for i, parts in enumerate(zip(*map(_as_bytes, arrays), strict=True)):
        digest = hashlib.blake2b(digest_size=8)
        for part in parts:
            digest.update(part)
        hashes[i] = np.frombuffer(digest.digest(), np.uint64)[0]
    return hashes


def join_hashes(hashes: Sequence[np.ndarray]) -> np.ndarray:
    """Hashes of several arrays' rows -> those of the rows that they make together."""
    if len(hashes) == 1:
        return hashes[0]
    together = np.stack(hashes, axis=1)
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in together]
    return np.frombuffer(b"".join(digests), np.uint64)


def _as_bytes(array: np.ndarray | LazyRows):
    if isinstance(array, LazyRows):
        return (name.encode() for name in array.names())
    flat = np.asarray(array).reshape(len(array), -1)
    if flat.dtype.kind not in "biuf":
        return ("\x1f".join(map(str, row)).encode() for row in flat)
    # Row by row: images as float32 would not fit beside the others. Adding 0 turns -0 into 0.
    return ((row.astype(np.float32) + 0.0).tobytes() for row in flat)
