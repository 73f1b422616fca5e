"""Image files as rows that are decoded when they are asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from kfusion.data.image_cache import ImageCache
from kfusion.data.images import (
    BadImage,
    BadImageError,
    check_image_shape,
    faults,
    open_cache,
    read_batch,
    read_headers,
    shape_of_headers,
    warn_of_alpha,
    warn_of_dark,
)
from kfusion.data.lazy_rows import LazyRows

_LOOKED_AT = 64


class StreamedImages(LazyRows):
    """Images that stay files: `images[rows]` decodes, as `read_images` does, and holds nothing.

    They stand where an array `(rows, height, width, channels)` uint8 would: made by
    `load_table(..., streaming=True)`. Rows that name no file are zeros. `images.take(rows)` are
    other rows of them, still files.

    Args:
        files: Paths; an empty one is a row without an image.
        shape: `(height, width, channels)`.
        use_cache: Whether to keep decoded images on disk; see `read_images`.

    Raises:
        BadImageError: While rows are decoded, if a file cannot be read (any more); names it and
            its row in the table.
        ValueError: If more rows are asked for at once than 1 GB holds.
    """

    def __init__(
        self,
        files: Sequence[str | os.PathLike],
        shape: Sequence[int],
        *,
        use_cache: bool = False,
    ):
        self._files = [os.fspath(file) for file in files]
        self._rows = np.arange(len(self._files))
        self._use_cache = use_cache
        self._shared = _Shared()
        self.image_shape = check_image_shape(shape)
        self.shape = (len(self._rows), *self.image_shape)
        self.dtype = np.dtype(np.uint8)

    def __repr__(self) -> str:
        return f"StreamedImages({' x '.join(map(str, self.shape))})"

    def take(self, rows: Any) -> Self:
        """Other rows of the same files."""
        part = object.__new__(type(self))
        part.__dict__.update(self.__dict__)
        part._rows = self._rows[rows]
        part.shape = (len(part._rows), *self.image_shape)
        return part

    def names(self) -> list[str]:
        """The files' paths; empty where a row names none."""
        return [self._files[row] for row in self._rows]

    def make(self, positions: np.ndarray) -> np.ndarray:
        """Decodes the rows at these positions."""
        rows = [row for row in self._rows[positions].tolist() if self._files[row]]
        cache = self._shared.cache() if self._use_cache else None
        results = read_batch([self._files[row] for row in rows], self.image_shape, cache)
        bad = [
            BadImage(row, self._files[row], result)
            for row, result in zip(rows, results, strict=True)
            if isinstance(result, str)
        ]
        if bad:
            raise BadImageError(bad, len(self._files))
        images = np.zeros((len(positions), *self.image_shape), np.uint8)
        named = [place for place, row in enumerate(self._rows[positions]) if self._files[row]]
        for place, pixels in zip(named, results, strict=True):
            images[place] = pixels
        return images


class _Shared:
    """The cache that all parts of the same images use, opened anew in each process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: tuple[int, ImageCache | None] | None = None

    def cache(self) -> ImageCache | None:
        """The cache; None if it cannot be opened, of which a warning has told."""
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                self._opened = os.getpid(), open_cache()
            return self._opened[1]

    def __reduce__(self):
        return _Shared, ()


def stream_images(
    paths: Sequence[str | os.PathLike],
    shape: tuple[int, int, int] | None = None,
    *,
    use_cache: bool = False,
    verbose: int | bool = 1,
) -> tuple[StreamedImages, list[BadImage]]:
    """Looks at the headers of image files, and leaves the rest for when it is needed.

    Args:
        paths: File paths; an empty one is a row without an image.
        shape: `(height, width, channels)`, or None to use the files' own as `read_images` does.
        use_cache: Whether to keep and look up decoded images.
        verbose: 0 hides the progress bar.

    Returns:
        `(images, bad_images)`: `StreamedImages`, and one `BadImage` in row order for each file
        that is missing or whose header shows that it cannot be read. Bad rows are zeros.
    """
    files = [os.fspath(path) for path in paths]
    asked = None if shape is None else check_image_shape(shape)
    found = read_headers(files, asked, verbose)
    shape = asked or shape_of_headers(found)
    bad = faults(files, found)
    if shape is None:
        return StreamedImages([""] * len(files), (1, 1, 1)), bad
    if asked is None:
        warn_of_alpha(files, found, shape, stacklevel=3)
    bad = sorted([*bad, *_look_at_some(files, shape, [each.row for each in bad])])
    for each in bad:
        files[each.row] = ""
    return StreamedImages(files, shape, use_cache=use_cache), bad


def _look_at_some(
    files: Sequence[str], shape: tuple[int, int, int], bad_rows: Sequence[int]
) -> list[BadImage]:
    """Decodes a few images, evenly spaced: which are bad, and a warning if all are dark."""
    rows = np.setdiff1d(np.arange(len(files)), bad_rows)
    if len(rows) > _LOOKED_AT:
        rows = rows[np.linspace(0, len(rows) - 1, _LOOKED_AT).astype(int)]
    results = read_batch([files[row] for row in rows], shape)
    good = [result for result in results if not isinstance(result, str)]
    if good:
        warn_of_dark(np.stack(good), stacklevel=4)
    return [
        BadImage(int(row), files[row], told)
        for row, told in zip(rows, results, strict=True)
        if isinstance(told, str)
    ]
