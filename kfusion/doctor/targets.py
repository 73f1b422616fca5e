"""Targets as labels or values, in whatever form they were given."""

from __future__ import annotations

import numpy as np

from kfusion.tasks import Task


def plain_targets(y: np.ndarray, task: Task, classes: np.ndarray | None = None):
    """Targets of any form as one label or value a row.

    Args:
        y: Class indices, one-hot rows, other names of classes, or values.
        task: `Task`.
        classes: All values that labels may have, sorted; those of `y` by default.

    Returns:
        `(rows,)` int labels from 0, float values of a regression, or None if `y` is neither.
    """
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if task.kind == "regression":
        is_values = y.ndim == 1 and y.dtype.kind in "biuf"
        return y.astype(np.float64) if is_values else None
    if y.ndim == 2 and y.dtype.kind in "biuf" and y.shape[1] == len(task.class_names):
        return y.argmax(axis=1)
    if y.ndim != 1:
        return None
    if y.dtype.kind in "biuf":
        if not np.isfinite(y).all():
            return None
        if np.isin(y, np.arange(len(task.class_names))).all():
            return y.astype(np.int64)
    known = np.unique(y.astype(str) if y.dtype.kind == "O" else y) if classes is None else classes
    labels = np.searchsorted(known, y.astype(known.dtype))
    return labels if len(known) <= len(task.class_names) else None


def class_values(*parts: np.ndarray) -> np.ndarray | None:
    """All values of labels in several targets, sorted; None for one-hot rows."""
    arrays = [np.asarray(part) for part in parts]
    arrays = [array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array for array in arrays]
    if any(array.ndim != 1 for array in arrays):
        return None
    joined = np.concatenate(arrays)
    return np.unique(joined.astype(str) if joined.dtype.kind == "O" else joined)
