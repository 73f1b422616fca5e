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


def fingerprint(arrays: Mapping[str, Any]) -> str:
    """A digest of named arrays and DataFrames: the same data, the same text.

    About a thousand rows of each, evenly spaced, tell data apart; all of them may be gigabytes.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays, key=str):
        values = arrays[name]
        if isinstance(values, (pd.DataFrame, pd.Series)):
            part = values.iloc[_spaced(len(values))]
            digest.update(f"{name} {values.shape} {list(getattr(values, 'columns', ''))}".encode())
            content = pd.util.hash_pandas_object(part, index=False).to_numpy()
        else:
            values = np.asarray(values)
            digest.update(f"{name} {values.shape} {values.dtype}".encode())
            content = values[_spaced(len(values))] if values.ndim else values
            if content.dtype.kind in "OUSM":
                content = pd.util.hash_array(content.astype(str).astype(object).ravel())
        digest.update(np.ascontiguousarray(content).tobytes())
    return digest.hexdigest()


def check_record(path: Path, about: Mapping[str, Any], what: str) -> None:
    """Raises `ValueError` naming what differs if a folder's record tells of other work.

    Args:
        path: The record's file; one that is missing differs in all.
        about: What this work is, JSON-able.
        what: What the folder is called in the message, such as "search".
    """
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    wanted = json.loads(json.dumps(about))
    different = sorted(name for name in {*wanted, *known} if known.get(name) != wanted.get(name))
    if different:
        raise ValueError(
            f"{path.parent} holds another {what}: {', '.join(different)} differ. Choose another "
            "directory, or overwrite it."
        )


def write_record(path: Path, about: Mapping[str, Any]) -> None:
    """Writes a record whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")
    os.replace(unfinished, path)


def _spaced(length: int) -> slice:
    return slice(None, None, max(1, length // 1000))
