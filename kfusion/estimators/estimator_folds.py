"""The folds of an estimator: as many as were asked for, or as the rows allow."""

from __future__ import annotations

import warnings

import numpy as np

from kfusion.data.folds import Fold, make_folds
from kfusion.tasks import Task

# Folds that one split is taken from, where there is one only.
ONE_SPLIT = 5


def plan_folds(
    wanted: int,
    y: np.ndarray,
    task: Task,
    groups: np.ndarray | None,
    *,
    repeats: int = 1,
    seed: int = 0,
) -> list[Fold]:
    """Draws folds, fewer with a warning where a class or the groups are too few.

    Args:
        wanted: Int, number of folds; 1 is one split, a fifth of the rows held out.
        y: `(rows,)` labels or values.
        task: `Task`.
        groups: `(rows,)` values: rows that share one are never split; or None.
        repeats: Int, how often the folds are drawn anew.
        seed: Int.

    Raises:
        ValueError: If there are no such folds, or one split would hold out one group only.
    """
    is_one_split = wanted == 1
    num_folds = ONE_SPLIT if is_one_split else wanted
    labels = None if task.kind == "regression" else y
    units = np.arange(len(y)) if groups is None else groups
    possible = [
        len(np.unique(units[y == label])) for label in ([] if labels is None else np.unique(y))
    ]
    most = min([len(np.unique(units)), *possible])
    if 2 <= most < num_folds:
        what = "rows" if groups is None else "groups"
        who = "there are" if labels is None else "the rarest class has"
        if not is_one_split:
            warnings.warn(
                f"{most} folds in place of {num_folds}: {who} {most} {what}.", stacklevel=3
            )
        num_folds = most
    folds = make_folds(
        len(y),
        folds=num_folds,
        labels=labels,
        class_names=task.class_names or None,
        groups=groups,
        repeats=repeats,
        seed=seed,
    )
    if not is_one_split:
        return folds
    if groups is not None and len(np.unique(groups[folds[0].test])) < 2:
        raise ValueError(
            "One split would hold out a single group, of which no part could judge the blend: "
            "set `num_folds` to 2 or more."
        )
    return folds[:1]
