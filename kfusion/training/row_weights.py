"""How much each training row counts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kfusion.data.inputs import check_lengths
from kfusion.tasks import Task


def row_weights(task: Task, labels, class_weight, sample_weight) -> np.ndarray | None:
    """Weight of each training row, or None if all are 1."""
    if sample_weight is not None:
        sample_weight = np.asarray(sample_weight, np.float32)
        check_lengths({"sample_weight": sample_weight, "y": labels})
        wrong = np.flatnonzero(~(np.isfinite(sample_weight) & (sample_weight >= 0)))
        if wrong.size:
            raise ValueError(
                f"`sample_weight` must be 0 or more. Received: {sample_weight[wrong[0]]} in row "
                f"{wrong[0]} ({wrong.size} in all)."
            )
    if class_weight is None:
        return sample_weight
    if task.kind == "regression":
        raise ValueError("A regression has no classes to weigh: leave `class_weight` out.")
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(
                f'`class_weight` must be None, "balanced" or weights by label. Received: '
                f"{class_weight!r}."
            )
        counts = np.bincount(labels, minlength=len(task.class_names))
        class_weight = {
            label: labels.size / (np.count_nonzero(counts) * count)
            for label, count in enumerate(counts)
            if count
        }
    if not isinstance(class_weight, Mapping):
        raise TypeError(
            '`class_weight` must be None, "balanced" or a dict of weights by label, such as {0: 1, '
            f"1: 10}}. Received: {class_weight!r}."
        )
    wrong_weights = [w for w in class_weight.values() if not (np.isfinite(w) and w >= 0)]
    if wrong_weights:
        raise ValueError(f"`class_weight` must be 0 or more. Received: {wrong_weights[0]}.")
    missing = sorted(set(np.unique(labels).tolist()) - set(class_weight))
    if missing:
        raise ValueError(f"`class_weight` has no weight for the label(s) {missing}.")
    weights = np.array([class_weight.get(i, 0.0) for i in range(len(task.class_names))], np.float32)
    return weights[labels] * (1 if sample_weight is None else sample_weight)
