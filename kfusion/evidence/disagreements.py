"""The rows that a fusion gets right where its best input was wrong, and those that it spoils."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kfusion.data.inputs import check_lengths
from kfusion.tasks import Task, as_task, infer_task


def which_rows(
    y: Any, fused: Any, single: Any, *, task: Task | str | None = None, num_rows: int | None = 20
) -> pd.DataFrame:
    """Lists the rows that a fusion changes most against its best single input, either way.

    Look at them: what the corrected rows share tells what the other inputs bring, what the broken
    ones share tells what misleads. Use predictions of rows that neither was trained on, as those
    of cross-validation. Rows that either left without a prediction (NaN) are left out.

    The change of a row is what the fusion adds to its true class' probability; for a regression,
    by how much it lowers the squared error.

    Args:
        y: `(rows,)` ints from 0 to `classes - 1`, or target values.
        fused: Predictions of the fusion: `(rows,)` or `(rows, 1)` values or probabilities of class
            1, or `(rows, classes)` probabilities.
        single: Predictions of the single input, alike.
        task: `Task` or its kind; by default from what `y` holds.
        num_rows: Int, how many rows at most are listed of those that gain, and of those that
            lose; None for all.

    Returns:
        DataFrame of one row per row listed, the largest change of either sign first: `row` (its
        position), `y`, `fused` and `single` (the class predicted, by name, or the value), `change`,
        `corrected` and `broken`; between them, the true class' `fused_probability` and
        `single_probability`, or the `fused_error` and `single_error`, squared. Corrected are rows
        whose class the fusion alone predicts right, broken those that it alone predicts wrong; of
        a regression, rows to whose value it comes nearer, or less near.

    Raises:
        ValueError: If targets or predictions do not fit the task or each other, no row has both
            predictions, or `num_rows` is below 1.

    Example:
        >>> which_rows([1, 0, 1], [0.9, 0.6, 0.7], [0.4, 0.1, 0.6])[["row", "corrected", "broken"]]
           row  corrected  broken
        0    0       True   False
        1    1      False    True
        2    2      False   False
    """
    read_task = infer_task(y) if task is None else as_task(task)
    y = read_task.check_targets(y)
    if num_rows is not None and num_rows < 1:
        raise ValueError(f"`num_rows` must be 1 or more, or None. Received: {num_rows}.")
    given = {
        name: np.asarray(part, np.float64) for name, part in (("fused", fused), ("single", single))
    }
    check_lengths({"y": y, **given})
    is_judged = ~np.any(
        [np.isnan(part.reshape(len(y), -1)).any(axis=1) for part in given.values()], axis=0
    )
    rows = np.flatnonzero(is_judged)
    if not rows.size:
        raise ValueError("No row has predictions of both: `fused` and `single` hold NaN in each.")
    parts = {}
    for name, part in given.items():
        # A prediction that is there stands for one that is not: messages keep their row numbers.
        filled = part[np.where(is_judged, np.arange(len(y)), rows[0])]
        parts[name] = read_task.check_predictions(filled, len(y), name)[rows]
    describe = _describe_values if read_task.kind == "regression" else _describe_classes
    frame = describe(read_task, y[rows], parts["fused"], parts["single"])
    frame.insert(0, "row", rows)
    return _largest(frame, num_rows)


def _describe_classes(task: Task, y: np.ndarray, fused: np.ndarray, single: np.ndarray):
    names = np.array(task.class_names, object)
    ours, theirs = (task.probabilities(part) for part in (fused, single))
    of_truth = [part[np.arange(len(y)), y] for part in (ours, theirs)]
    is_right = [part.argmax(axis=1) == y for part in (ours, theirs)]
    return pd.DataFrame(
        {
            "y": names[y],
            "fused": names[ours.argmax(axis=1)],
            "single": names[theirs.argmax(axis=1)],
            "fused_probability": of_truth[0],
            "single_probability": of_truth[1],
            "change": of_truth[0] - of_truth[1],
            "corrected": is_right[0] & ~is_right[1],
            "broken": ~is_right[0] & is_right[1],
        }
    )


def _describe_values(task: Task, y: np.ndarray, fused: np.ndarray, single: np.ndarray):
    y = y.astype(np.float64)
    values = [task.answers(part) for part in (fused, single)]
    errors = [(part - y) ** 2 for part in values]
    change = errors[1] - errors[0]
    return pd.DataFrame(
        {
            "y": y,
            "fused": values[0],
            "single": values[1],
            "fused_error": errors[0],
            "single_error": errors[1],
            "change": change,
            "corrected": change > 0,
            "broken": change < 0,
        }
    )


def _largest(frame: pd.DataFrame, num_rows: int | None) -> pd.DataFrame:
    """The rows of the largest changes up and down, the largest first; ties in the rows' order."""
    ordered = frame.iloc[np.argsort(-frame["change"].abs(), kind="stable")]
    gains, losses = ordered[ordered["change"] > 0], ordered[ordered["change"] < 0]
    if num_rows is not None:
        gains, losses = gains.head(num_rows), losses.head(num_rows)
    kept = np.zeros(len(frame), bool)
    kept[gains.index.union(losses.index)] = True
    return ordered[kept[ordered.index]].reset_index(drop=True)
