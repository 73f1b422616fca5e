"""Short digests of data, and records which say what a folder of results belongs to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kfusion.data.lazy_rows import LazyRows, as_rows

WHOLE = 256 * 2**20


class OtherWorkError(ValueError):
    """A folder of results belongs to other work."""


def fingerprint(arrays: Mapping[str, Any], *, every_row: bool = False) -> str:
    """A digest of named arrays and DataFrames: the same data, the same text.

    Of an array above 256 MB, such as images, about ten thousand rows, evenly spaced, stand for all,
    unless every row is asked for.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays, key=str):
        values = arrays[name]
        if isinstance(values, (pd.DataFrame, pd.Series)):
            digest.update(f"{name} {values.shape} {list(getattr(values, 'columns', ''))}".encode())
            content = pd.util.hash_pandas_object(values, index=False).to_numpy()
        else:
            values = as_rows(values)
            digest.update(f"{name} {values.shape} {values.dtype}".encode())
            is_sampled = values.nbytes > WHOLE and not every_row
            step = max(1, len(values) // 10_000) if is_sampled else 1
            if isinstance(values, LazyRows):
                for part in values.chunks(slice(None, None, step)):
                    digest.update(part.tobytes())
                continue
            content = values[::step]
            if content.dtype.kind in "OUSM":
                content = pd.util.hash_array(content.astype(str).astype(object).ravel())
        digest.update(np.ascontiguousarray(content).tobytes())
    return digest.hexdigest()


def fingerprint_arrays(values: Any) -> str:
    """A digest of all arrays and DataFrames within lists, tuples and dicts; others are left out."""
    found: dict[str, Any] = {}

    def look(value: Any, place: str) -> None:
        if isinstance(value, (np.ndarray, LazyRows, pd.DataFrame, pd.Series)):
            found[place] = value
        elif isinstance(value, Mapping):
            for name, part in value.items():
                look(part, f"{place}/{name}")
        elif isinstance(value, (list, tuple)):
            for i, part in enumerate(value):
                look(part, f"{place}/{i}")

    look(values, "")
    return fingerprint(found)


def check_record(path: Path, about: Mapping[str, Any], what: str) -> None:
    """Raises `OtherWorkError` naming what differs if a folder's record tells of other work.

    Args:
        path: The record's file; one that is missing differs in all.
        about: What this work is, JSON-able.
        what: What the folder is called in the message, such as "search".
    """
    known = read_record(path) or {}
    different = _differences(known, json.loads(json.dumps(about)))
    if different:
        raise OtherWorkError(
            f"{path.parent} holds another {what}: {', '.join(different)} differ. Choose another "
            "directory, or remove it."
        )


def _differences(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Names of entries that differ; of entries with parts, with the parts in brackets."""
    found = []
    for name in _differing(known, wanted):
        a, b = known.get(name), wanted.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            name = f"{name} ({', '.join(_differing(a, b))})"
        found.append(name)
    return found


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in {*a, *b} if a.get(name) != b.get(name))


def read_record(path: Path) -> Any:
    """What `write_record` wrote, or None if there is no such file.

    Raises:
        ValueError: If the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged: {error}. It is left as it is; choose another directory, or remove "
            "what is there."
        ) from error


def write_record(path: Path, about: Any) -> None:
    """Writes what JSON can hold, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")
    os.replace(unfinished, path)
