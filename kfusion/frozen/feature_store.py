"""Features of rows, kept in memory or in files and found again by the content of the rows."""

from __future__ import annotations

import hashlib
import io
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import filelock
import numpy as np

from kfusion.progress import progress

ROWS_FILE = "rows.npy"
DIGEST_BYTES = 16

# The features of some rows, by their positions: one array per output.
Compute = Callable[[np.ndarray], list[np.ndarray]]


class Kind(NamedTuple):
    """Shape without rows and dtype of one output."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def even_batches(positions: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Positions in as few batches as can be, of one size but for the last, which is hardly less."""
    count = math.ceil(len(positions) / batch_size)
    size = math.ceil(len(positions) / count) if count else batch_size
    return [positions[start : start + size] for start in range(0, len(positions), size)]


def digest_rows(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """`(rows, 16)` uint8: a digest of each row's bytes in all of the arrays."""
    digests = np.empty((len(arrays[0]), DIGEST_BYTES), np.uint8)
    for i in range(len(digests)):
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        for array in arrays:
            digest.update(np.ascontiguousarray(array[i]).tobytes())
        digests[i] = np.frombuffer(digest.digest(), np.uint8)
    return digests


class FeatureMemory:
    """Features in memory, by part and row: what was used longest ago goes first.

    Args:
        limit: Int, bytes of all features together.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._parts: OrderedDict[str, tuple[dict[bytes, int], list[np.ndarray]]] = OrderedDict()
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forgets all."""
        with self._lock:
            self._parts.clear()

    def features(
        self, key: str, digests: np.ndarray, kinds: Sequence[Kind], compute: Compute
    ) -> list[np.ndarray] | None:
        """Features of rows, computed where they are not known; None if they are too large.

        Args:
            key: What computes them.
            digests: As of `digest_rows`.
            kinds: `Kind` of each output.
            compute: Callable from positions of rows to an array per output.
        """
        names = [digest.tobytes() for digest in digests]
        size = len(set(names)) * sum(kind.row_bytes for kind in kinds)
        if size > self.limit:
            return None
        with self._lock:
            positions, arrays = self._parts.get(
                key, ({}, [np.empty((0, *kind.shape), kind.dtype) for kind in kinds])
            )
        new = _first_of_each(names, positions)
        if new.size:
            found = compute(new)
            positions = {
                **positions,
                **{names[row]: len(positions) + i for i, row in enumerate(new)},
            }
            arrays = [np.concatenate(pair) for pair in zip(arrays, found, strict=True)]
        with self._lock:
            self._parts[key] = positions, arrays
            self._parts.move_to_end(key)
            self._make_room()
        rows = np.array([positions[name] for name in names])
        return [array[rows] for array in arrays]

    def _make_room(self) -> None:
        def used() -> int:
            return sum(array.nbytes for _, arrays in self._parts.values() for array in arrays)

        while used() > self.limit:
            self._parts.popitem(last=False)


class FeatureFiles:
    """Features in memory-mapped `.npy` files: a folder per part, in it one per set of rows.

    Args:
        folder: Folder of all parts; made when there is something to write.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)

    def features(
        self,
        key: str,
        digests: np.ndarray,
        kinds: Sequence[Kind],
        compute: Compute,
        *,
        batch_size: int,
        verbose: int | bool,
    ) -> list[np.ndarray]:
        """Features of rows; those that no file has are computed into a new one.

        Args:
            key, digests, kinds, compute: As of `FeatureMemory.features`.
            batch_size: Int, most rows that are computed and written at once.
            verbose: 0 hides the progress.
        """
        whole = self._path(key, digests)
        if whole.exists():
            return read_features(whole, kinds)
        names = [digest.tobytes() for digest in digests]
        places = self._places(key)
        new = _first_of_each(names, places)
        if new.size:
            path = self.write(
                key,
                digests[new],
                kinds,
                lambda rows: compute(new[rows]),
                batch_size=batch_size,
                verbose=verbose,
            )
            if new.size == len(names):
                return read_features(path, kinds)
            places.update({names[row]: (path, i) for i, row in enumerate(new)})
        return _gather([places[name] for name in names], kinds)

    def write(
        self,
        key: str,
        digests: np.ndarray,
        kinds: Sequence[Kind],
        compute: Compute,
        *,
        batch_size: int,
        verbose: int | bool,
    ) -> Path:
        """Computes rows into a folder of their own, unless it is there; goes on after a kill.

        Each finished batch is kept; what was cut off in the middle of one is written anew. One
        process writes, and others wait for it. The folder has its name once it is whole.
        """
        path = self._path(key, digests)
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_name(f".{path.name}.lock")):
            if path.exists():
                return path
            work = path.with_name(f".{path.name}.unfinished")
            work.mkdir(exist_ok=True)
            files = [
                _RowFile(work / f"{i}.npy", kind, len(digests)) for i, kind in enumerate(kinds)
            ]
            try:
                _fill(files, len(digests), compute, batch_size, verbose)
            finally:
                for file in files:
                    file.close()
            np.save(work / ROWS_FILE, digests)
            os.replace(work, path)
        return path

    def _path(self, key: str, digests: np.ndarray) -> Path:
        rows = hashlib.blake2b(digests.tobytes(), digest_size=DIGEST_BYTES)
        return self.folder / key / rows.hexdigest()

    def _places(self, key: str) -> dict[bytes, tuple[Path, int]]:
        """Where rows are, of all sets that are whole."""
        return {
            digest.tobytes(): (path.parent, i)
            for path in sorted(self.folder.glob(f"{key}/[!.]*/{ROWS_FILE}"))
            for i, digest in enumerate(np.load(path))
        }


class _RowFile:
    """A `.npy` file that grows row by row; its size says how many rows are written."""

    def __init__(self, path: Path, kind: Kind, num_rows: int):
        self.row_bytes = kind.row_bytes
        header = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(np.dtype(kind.dtype))
        np.lib.format.write_array_header_1_0(
            header, {"descr": descr, "fortran_order": False, "shape": (num_rows, *kind.shape)}
        )
        self.start = len(header.getvalue())
        path.touch()
        self._file = path.open("r+b")
        self.num_written = max(0, path.stat().st_size - self.start) // self.row_bytes
        self._file.write(header.getvalue())

    def go_on(self, num_rows: int) -> None:
        """Keeps so many rows and writes behind them."""
        self.num_written = num_rows
        self._file.truncate(self._file.seek(self.start + num_rows * self.row_bytes))

    def append(self, rows: np.ndarray) -> None:
        """Adds rows, on the disk when this returns."""
        self._file.write(np.ascontiguousarray(rows).tobytes())
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _fill(
    files: list[_RowFile], num_rows: int, compute: Compute, batch_size: int, verbose: int | bool
) -> None:
    """Computes the rows that are not written yet."""
    start = min(file.num_written for file in files)
    for file in files:
        file.go_on(start)
    numbers = np.arange(num_rows)
    with progress(numbers, description="frozen features", verbose=verbose) as bar:
        bar.count = bar.skipped = start
        for rows in even_batches(numbers[start:], batch_size):
            for file, found in zip(files, compute(rows), strict=True):
                file.append(found)
            bar.advance(len(rows))


def read_features(path: Path, kinds: Sequence[Kind]) -> list[np.ndarray]:
    """The read-only memory maps of one set of rows."""
    return [np.load(path / f"{i}.npy", mmap_mode="r") for i in range(len(kinds))]


def _gather(places: Sequence[tuple[Path, int]], kinds: Sequence[Kind]) -> list[np.ndarray]:
    """Rows from several sets, in memory."""
    arrays = [np.empty((len(places), *kind.shape), kind.dtype) for kind in kinds]
    for path in dict.fromkeys(path for path, _ in places):
        here = [i for i, place in enumerate(places) if place[0] == path]
        rows = [places[i][1] for i in here]
        for array, kept in zip(arrays, read_features(path, kinds), strict=True):
            array[here] = kept[rows]
    return arrays


def _first_of_each(names: Sequence[bytes], known: dict) -> np.ndarray:
    """Positions of the first row of each name that is not known."""
    first: dict[bytes, int] = {}
    for i, name in enumerate(names):
        if name not in known:
            first.setdefault(name, i)
    return np.array(list(first.values()), np.int64)
