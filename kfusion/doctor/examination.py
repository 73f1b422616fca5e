"""The whole examination: every check on one case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kfusion.data.fusion_data import FusionData
from kfusion.data.tables import TableSchema
from kfusion.doctor import (
    column_checks,
    data_checks,
    history_checks,
    modality_checks,
    split_checks,
    target_checks,
    wiring_checks,
)
from kfusion.doctor.before_training import DATA_CHECKS, run_checks
from kfusion.doctor.case import Case, make_rows, name_columns
from kfusion.doctor.drawn_rows import decoded
from kfusion.doctor.findings import Diagnosis, to_diagnosis
from kfusion.doctor.target_checks import why_it_does_not_run
from kfusion.doctor.undecided import Check
from kfusion.tasks import Task, as_task

CHECKS: tuple[Check, ...] = (
    *target_checks.CHECKS,
    *data_checks.CHECKS,
    *column_checks.CHECKS,
    *split_checks.CHECKS,
    *wiring_checks.CHECKS,
    *history_checks.CHECKS,
    *modality_checks.CHECKS,
)


def examine(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    task: Task | str | None = None,
    history: keras.callbacks.History | Mapping[str, Sequence[float]] | None = None,
    validation_data: Any = None,
    groups: Any = None,
    validation_groups: Any = None,
    schema: TableSchema | None = None,
    batch_size: int = 32,
    epochs: int | None = None,
    seed: int = 0,
    is_trained: bool | None = None,
) -> Diagnosis:
    """Says why a model does not learn, or a fusion loses: findings with evidence and cure.

    Looks at the data, at what training and validation rows share, at how the model is wired to
    its loss and its parts to each other, and, if there is one, at the history of a training. The
    model is left as it was: nothing is trained. For the checks of a trained model's answers pass it
    after training, with its `history` and `validation_data`.

    Args:
        model: Any `keras.Model` with known inputs, compiled or not.
        x: Dict of `(rows, ...)` arrays by input name, an array, a list of arrays; or `FusionData`,
            which brings its targets, task, groups and schema. Of streamed images some rows are
            looked at.
        y: `(rows,)` labels or values, or one-hot rows; as `Model.fit` was or will be given them.
        task: `Task`, "binary" or "regression".
        history: What `fit` returned, or its dict.
        validation_data: `(x, y)`, or `FusionData`.
        groups: `(rows,)` values: rows that share one belong together.
        validation_groups: The same of the validation rows.
        schema: `TableSchema` of the "tabular" input, whose columns findings then name.
        batch_size: Int, of the training.
        epochs: Int, of the training, or None.
        seed: Int, of the rows that are drawn where there are many.
        is_trained: Whether the model's answers count; by default if there is a history or its
            optimizer made steps.

    Returns:
        `Diagnosis`.

    Raises:
        TypeError: If `y` or `task` is missing where `x` does not bring it.
        ValueError: If inputs are missing or lengths differ.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(200, 4)) * 1000
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
        >>> diagnosis = examine(model, x, np.arange(200) % 2, task="binary")
        >>> print(diagnosis.names)
        ['inputs_not_scaled']
    """
    if isinstance(x, FusionData):
        y = x.y if y is None else y
        task, schema = task or x.task, schema or x.schema
        groups = x.groups if groups is None else groups
    if y is None or task is None:
        lacking = "y" if y is None else "task"
        raise TypeError(
            f"`{lacking}` must be given, unless `x` is FusionData; a task is "
            '`kf.task("multiclass", y=labels)`, "binary" or "regression".'
        )
    validation = None
    if isinstance(validation_data, FusionData):
        if validation_groups is None:
            validation_groups = validation_data.groups
        validation_data = (validation_data.x, validation_data.y)
    if validation_data is not None:
        held_x, held_y = validation_data
        validation = decoded(
            make_rows(model, held_x, held_y, validation_groups, "validation x"), seed
        )
    if isinstance(history, keras.callbacks.History):
        history = history.history
    if epochs is None and history:
        epochs = max(map(len, history.values()))
    case = Case(
        model=model,
        train=decoded(make_rows(model, x.x if isinstance(x, FusionData) else x, y, groups), seed),
        task=as_task(task),
        validation=validation,
        history=history,
        **name_columns(schema),
        batch_size=batch_size,
        epochs=epochs,
        seed=seed,
        is_trained=_is_trained(model, history) if is_trained is None else is_trained,
    )
    failure = why_it_does_not_run(case)
    if failure is not None:
        return to_diagnosis([failure, *run_checks(case, DATA_CHECKS)], len(DATA_CHECKS) + 1)
    return run_checks(case, CHECKS)


def _is_trained(model: keras.Model, history: Any) -> bool:
    optimizer = getattr(model, "optimizer", None)
    return history is not None or (optimizer is not None and int(optimizer.iterations) > 0)
