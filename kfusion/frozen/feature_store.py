"""Features of rows, kept in memory or in files and found again by the content of the rows."""

from __future__ import annotations

import hashlib
import io
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np

from kfusion.data.lazy_rows import LazyRows, in_advance
from kfusion.progress import progress

ROWS_FILE = "rows.npy"
DIGEST_BYTES = 16
CHUNK_BYTES = 2**22
# Of rows in memory; less is looked through in a moment.
SHOWN_BYTES = 2**30

# The features of batches of rows, each by its positions: one array per output.
Compute = Callable[[Sequence[np.ndarray]], Iterator[list[np.ndarray]]]


class Kind(NamedTuple):
    """Shape without rows and dtype of one output."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def file_dtype(self) -> str:
        """What stands in a file: of bfloat16, which the format does not know, the bits."""
        return "uint16" if self.dtype == "bfloat16" else self.dtype

    def file_name(self, number: int) -> str:
        """The file of an output, which tells the dtype where the format cannot."""
        is_told = self.file_dtype == self.dtype
        return f"{number}.npy" if is_told else f"{number}.{self.dtype}.npy"


def even_batches(positions: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Positions in as few batches as can be, of one size but for the last, which is hardly less."""
    count = math.ceil(len(positions) / batch_size)
    size = math.ceil(len(positions) / count) if count else batch_size
    return [positions[start : start + size] for start in range(0, len(positions), size)]


def digest_rows(arrays: Sequence[Any], *, verbose: int | bool = 0) -> np.ndarray:
    """`(rows, 16)` uint8: a digest of each row's bytes in all of the arrays.

    Args:
        arrays: NumPy arrays or `LazyRows` of as many rows, read in parts of a few MB, in parallel.
        verbose: 0 hides the progress, which is shown where it takes long.
    """
    num_rows = len(arrays[0])
    size = sum(array.nbytes for array in arrays)
    per_part = max(1, CHUNK_BYTES * num_rows // max(1, size))
    starts = range(0, num_rows, per_part)
    takes_long = size > SHOWN_BYTES or any(isinstance(array, LazyRows) for array in arrays)

    def read(start: int) -> np.ndarray:
        return _digests([array[start : start + per_part] for array in arrays])

    digests = np.empty((num_rows, DIGEST_BYTES), np.uint8)
    shown = verbose if takes_long else 0
    with progress(digests, description="rows looked up", verbose=shown) as bar:
        for start, found in zip(starts, in_advance(read, starts), strict=True):
            digests[start : start + len(found)] = found
            bar.advance(len(found))
    return digests


def _digests(arrays: Sequence[np.ndarray]) -> np.ndarray:
    found = []
    for row in zip(*arrays, strict=True):
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        for part in row:
            digest.update(np.ascontiguousarray(part).tobytes())
        found.append(digest.digest())
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, DIGEST_BYTES)


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
        self,
        key: str,
        digests: np.ndarray,
        kinds: Sequence[Kind],
        compute: Compute,
        *,
        batch_size: int,
        verbose: int | bool,
    ) -> list[np.ndarray]:
        """Features of rows, computed where they are not known.

        Args:
            key: What computes them.
            digests: As of `digest_rows`.
            kinds: `Kind` of each output.
            compute: Callable from batches of positions of rows to an array per output and batch.
            batch_size: Int, most rows that are computed at once.
            verbose: 0 hides the progress.
        """
        names = [digest.tobytes() for digest in digests]
        with self._lock:
            positions, arrays = self._parts.get(
                key, ({}, [np.empty((0, *kind.shape), kind.dtype) for kind in kinds])
            )
        new = _first_of_each(names, positions)
        if new.size:
            parts = [[array] for array in arrays]
            batches = even_batches(new, batch_size)
            with progress(new, description="frozen features", verbose=verbose) as bar:
                for batch, found in zip(batches, compute(batches), strict=True):
                    for output, array in zip(parts, found, strict=True):
                        output.append(array)
                    bar.advance(len(batch))
            positions = {
                **positions,
                **{names[row]: len(positions) + i for i, row in enumerate(new)},
            }
            arrays = [np.concatenate(output) for output in parts]
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
            key, digests, kinds, compute, batch_size, verbose: As of `FeatureMemory.features`.
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
                lambda batches: compute([new[batch] for batch in batches]),
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
                _RowFile(work / kind.file_name(i), kind, len(digests))
                for i, kind in enumerate(kinds)
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
        descr = np.lib.format.dtype_to_descr(np.dtype(kind.file_dtype))
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
        batches = even_batches(numbers[start:], batch_size)
        for batch, found in zip(batches, compute(batches), strict=True):
            for file, array in zip(files, found, strict=True):
                file.append(array)
            bar.advance(len(batch))


def read_features(path: Path, kinds: Sequence[Kind]) -> list[np.ndarray]:
    """The read-only memory maps of one set of rows."""
    return [
        np.load(path / kind.file_name(i), mmap_mode="r").view(kind.dtype)
        for i, kind in enumerate(kinds)
    ]


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
