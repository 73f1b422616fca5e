"""Folders that appear whole or not at all, however the process that writes them ends."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# What the names of temporary folders end with, so that no other hidden folder is taken for one.
UNFINISHED = ".unfinished"


@contextlib.contextmanager
def whole_folder(
    path: str | os.PathLike, *, overwrite: bool = False, known_by: str | None = None
) -> Iterator[Path]:
    """Gives an empty temporary folder beside `path` and renames it to `path` at the end.

    If the body raises, the temporary folder is removed and what was at `path` stays. A process
    killed in the body leaves the temporary folder, `.NAME.*.unfinished`; killed between the two
    renames of an overwrite, the old content is in its `old`.

    Args:
        path: Folder to write; missing parents are made.
        overwrite: Whether to replace a folder that exists.
        known_by: Name of a file: only folders that hold it, or nothing, are replaced.

    Yields:
        The temporary folder's path.

    Raises:
        FileExistsError: If `path` exists and `overwrite` is false.
        ValueError: If `path` exists, is to be overwritten, and is no folder or holds other
            things.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists. Choose another path or pass `overwrite=True`.")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; only a folder can be overwritten.")
    if known_by and path.exists() and any(path.iterdir()) and not (path / known_by).exists():
        raise ValueError(
            f"{path} holds other things: it is not overwritten, for it lacks {known_by}. Choose "
            "another path, or remove it."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(UNFINISHED, f".{path.name}.", path.parent))
    try:
        content = work / "new"
        content.mkdir()
        yield content
        replaces = overwrite and path.exists()
        if replaces:
            os.replace(path, work / "old")
        try:
            os.replace(content, path)
        except OSError as error:
            if replaces:
                os.replace(work / "old", path)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise FileExistsError(f"{path} was made by another process meanwhile.") from error
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
