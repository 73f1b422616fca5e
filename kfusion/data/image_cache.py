"""Decoded and resized images on disk, found again by the content of their files."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path


def default_cache_folder() -> Path:
    """`$KFUSION_CACHE`, or `kfusion` in the user's cache folder."""
    if "KFUSION_CACHE" in os.environ:
        return Path(os.environ["KFUSION_CACHE"])
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA", str(Path.home()))
    else:
        root = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return Path(root) / "kfusion"


class ImageCache:
    """Pixels by key in one SQLite file, which several processes may read and write at once.

    So may several threads use one object. A killed write leaves the file as it was before. Use it
    as a context manager.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            folder / "images.sqlite", timeout=60, check_same_thread=False
        )
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS images (key BLOB PRIMARY KEY, pixels BLOB)"
        )

    def __enter__(self) -> ImageCache:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def get(self, key: bytes) -> bytes | None:
        """Returns the pixels stored under a key, or None."""
        try:
            with self._lock:
                query = self._connection.execute("SELECT pixels FROM images WHERE key = ?", (key,))
                row = query.fetchone()
        except sqlite3.Error as error:
            warnings.warn(f"The image cache cannot be read ({error}).", stacklevel=2)
            return None
        return row[0] if row else None

    def put(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Stores (key, pixels) pairs, all or none; a failure (a full disk) is only a warning."""
        try:
            with self._lock, self._connection:
                self._connection.executemany("INSERT OR IGNORE INTO images VALUES (?, ?)", items)
        except sqlite3.Error as error:
            warnings.warn(f"The image cache cannot be written ({error}).", stacklevel=2)
