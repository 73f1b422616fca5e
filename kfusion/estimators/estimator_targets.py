"""Targets as users of scikit-learn give them -> labels from 0, or values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from kfusion.tasks import check_variety, task


def read_labels(y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Classes, sorted, and each row's `(rows,)` int32 position among them.

    Raises:
        ValueError: If labels are missing, texts and numbers mixed, of one class only, or none.
    """
    y = column_or_1d(y, warn=True)
    _check_labels(y)
    check_classification_targets(y)
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"`y` holds one class only, {classes.tolist()}: there is nothing to learn."
        )
    return classes, labels.astype(np.int32)


def read_values(y: Any) -> np.ndarray:
    """`(rows,)` float32 targets of a regression.

    Raises:
        ValueError: If one is no number, missing or infinite, or all are the same.
    """
    y = column_or_1d(y, warn=True)
    if y.dtype.kind in "OUS":
        y = _to_numbers(y)
    values = task("regression").check_targets(y)
    check_variety(values)
    return values


def _check_labels(y: np.ndarray) -> None:
    """Raises `ValueError` if labels are missing, or texts and numbers mixed."""
    missing = np.flatnonzero(pd.isna(y))
    if missing.size:
        raise ValueError(
            f"`y` is missing (NaN or None) in row {missing[0]} ({missing.size} in all)."
        )
    if y.dtype.kind == "O":
        is_text = np.array([isinstance(label, str) for label in y])
        if is_text.any() and not is_text.all():
            row = int(np.flatnonzero(is_text != is_text[0])[0])
            raise ValueError(
                f"`y` mixes text and numbers: {y[0]!r} in row 0, {y[row]!r} in row {row}."
            )


def _to_numbers(y: np.ndarray) -> np.ndarray:
    """Raises `ValueError` naming the first row that is no number."""
    for row, value in enumerate(y.tolist()):
        try:
            float(value)
        except (TypeError, ValueError):
            raise ValueError(f"`y` must hold numbers. Row {row} is {value!r}.") from None
    return y.astype(np.float64)
