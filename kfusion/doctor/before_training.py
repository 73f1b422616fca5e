"""The short examination before a training: what shows at once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from kfusion.data.tables import TableSchema
from kfusion.doctor import (
    batch_checks,
    column_checks,
    frozen_checks,
    split_checks,
    target_checks,
)
from kfusion.doctor.case import Case, make_rows, name_columns
from kfusion.doctor.data_checks import check_validation_classes
from kfusion.doctor.findings import Diagnosis, to_diagnosis
from kfusion.doctor.undecided import Check
from kfusion.tasks import Task

# The first ones need no model; the others run it where a part of it is frozen.
DATA_CHECKS: tuple[Check, ...] = (
    target_checks.check_one_class,
    check_validation_classes,
    *column_checks.CHECKS,
    *split_checks.CHECKS,
)
MODEL_CHECKS: tuple[Check, ...] = (frozen_checks.check_frozen_parts, batch_checks.check_batches)


class DoctorWarning(UserWarning):
    """Something that the doctor found before a training."""


def warn_before_training(
    model: keras.Model | None,
    x: Mapping[str, Any],
    y: Any,
    *,
    task: Task,
    validation_data: Any = None,
    groups: Any = None,
    batch_size: int = 32,
    schema: TableSchema | None = None,
) -> None:
    """Warns of what is wrong with data or model, in one `DoctorWarning` for each finding.

    Args:
        model: A `keras.Model`; None to look at the data alone.
        x: Dict of arrays by input name.
        y: `(rows,)` labels or values.
        task: `Task`.
        validation_data: `(x, y)` or None.
        groups: `(rows,)` values of the training rows, or None.
        batch_size: Int, of the training.
        schema: `TableSchema` of the "tabular" input, whose columns are then named.
    """
    held = None if validation_data is None else make_rows(model, *validation_data)
    case = Case(
        model,
        make_rows(model, x, y, groups),
        task,
        held,
        **name_columns(schema),
        batch_size=batch_size,
        is_trained=False,
    )
    checks = DATA_CHECKS if model is None else DATA_CHECKS + MODEL_CHECKS
    for finding in run_checks(case, checks):
        if finding.severity != "note":
            # The line of whoever called what is about to train.
            warnings.warn(str(finding), DoctorWarning, stacklevel=3)


def run_checks(case: Case, checks: Iterable[Check]) -> Diagnosis:
    """What the checks say of a case."""
    checks = list(checks)
    return to_diagnosis([said for check in checks for said in check(case)], len(checks))
