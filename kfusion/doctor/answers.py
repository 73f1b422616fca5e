"""What the examined model answers and how good that is, whatever form its outputs have."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import special

from kfusion.doctor.case import Case, Rows
from kfusion.doctor.drawn_rows import few_rows, take
from kfusion.doctor.model_runs import predict, prediction_name
from kfusion.doctor.targets import class_values, plain_targets
from kfusion.models.building import PREDICTION
from kfusion.tasks import Task


@dataclasses.dataclass(frozen=True)
class Judged:
    """Rows with what they are judged by.

    Attributes:
        rows: Inputs and groups.
        y: `(rows,)` labels from 0, or values.
        called: "validation" or "training".
    """

    rows: Rows
    y: np.ndarray
    called: str


def targets(case: Case, rows: Rows) -> np.ndarray | None:
    """`(rows,)` labels or values of training or validation rows, or None if they are neither."""
    parts = [case.train.y] if case.validation is None else [case.train.y, case.validation.y]
    classes = None if case.task.kind == "regression" else class_values(*parts)
    return plain_targets(rows.y, case.task, classes)


def labels(case: Case) -> np.ndarray | None:
    """`(rows,)` labels of training rows; None of a regression, or where they are none."""
    return None if case.task.kind == "regression" else targets(case, case.train)


def some_rows(case: Case, most: int, *, of_validation: bool = True) -> Judged | None:
    """Some validation rows, or training rows where there are none; None without plain targets."""
    use_validation = of_validation and case.validation is not None and len(case.validation) > 0
    rows = case.validation if use_validation and case.validation is not None else case.train
    y = targets(case, rows)
    if y is None:
        return None
    positions = few_rows(rows.x, most, case.seed)
    return Judged(
        take(rows, positions), y[positions], "validation" if use_validation else "training"
    )


def answers(case: Case, x: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What each head says, `(rows, units)` probabilities or values, by the name of the head.

    The model's own answer is called "prediction"; heads that do not answer the task are left out.

    Raises:
        UndecidableError: If the model does not run.
    """
    outputs = predict(case.model, x)
    named = {PREDICTION: outputs.pop(prediction_name(outputs)), **outputs}
    found = {name: as_answer(values, case.task) for name, values in named.items()}
    return {name: values for name, values in found.items() if values is not None}


def as_answer(outputs: Any, task: Task) -> np.ndarray | None:
    """Outputs as `(rows, units)` probabilities or values, logits turned into the former."""
    values = np.asarray(outputs, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2:
        return None
    if task.kind == "regression":
        return values if values.shape[1] == 1 else None
    finite = values[np.isfinite(values)]
    are_shares = finite.size == 0 or bool((finite >= 0).all() and (finite <= 1).all())
    if values.shape[1] == 1:
        if task.kind != "binary":
            return None
        return values if are_shares else special.expit(values)
    if values.shape[1] != len(task.class_names):
        return None
    sums = np.nansum(values, axis=1)
    if not (are_shares and abs(sums - 1).max() < 1e-2):
        values = special.softmax(values, axis=1)
    return values[:, 1:] if task.kind == "binary" else values / values.sum(axis=1, keepdims=True)


def main_score(task: Task) -> str:
    """The score that checks hold against chance: AUC, or R2."""
    return "r2" if task.kind == "regression" else "auc"


def score(task: Task, y: np.ndarray, answer: np.ndarray, name: str | None = None) -> float:
    """A score of answers; NaN where there is none, as of one class only."""
    if not np.isfinite(answer).all():
        return float("nan")
    return task.scores(y, answer, names=[name or main_score(task)])[name or main_score(task)]
