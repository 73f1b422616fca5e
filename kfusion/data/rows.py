"""Rows of whatever a model is given: some taken out, or two parts put together.

Arrays and DataFrames have rows; a dict of them, or a list of arrays as Keras takes several inputs,
has those of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from kfusion.data.lazy_rows import as_rows, some_rows


def take_rows(x: Any, rows: np.ndarray) -> Any:
    """The given rows of an array, a DataFrame, or each of several; `LazyRows` stay unmade."""
    if isinstance(x, Mapping):
        return {name: take_rows(part, rows) for name, part in x.items()}
    if is_several(x):
        return [take_rows(part, rows) for part in x]
    if isinstance(x, (pd.DataFrame, pd.Series)):
        return x.iloc[rows].reset_index(drop=True)
    return some_rows(as_rows(x), rows)


def join_rows(first: Any, second: Any) -> Any:
    """The rows of two arrays or DataFrames, or of several, one after the other."""
    if isinstance(first, Mapping):
        return {name: join_rows(part, second[name]) for name, part in first.items()}
    if is_several(first):
        return [join_rows(part, other) for part, other in zip(first, second, strict=True)]
    if isinstance(first, (pd.DataFrame, pd.Series)):
        return pd.concat([first, second], ignore_index=True)
    return np.concatenate([first, second])


def is_several(x: Any) -> bool:
    """Whether a list is one of arrays, each an input, rather than of rows."""
    return isinstance(x, (list, tuple)) and all(getattr(part, "ndim", 0) for part in x)
