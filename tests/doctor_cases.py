"""Cases for the tests of the doctor, and what a check says of one."""

import numpy as np

import kfusion
from kfusion.doctor.case import Case, Rows, name_inputs
from kfusion.doctor.findings import Undecided


def make_case(model, x, y, task, **keywords):
    """A case of any model and arrays; the task may be a kind."""
    y = np.asarray(y)
    if isinstance(task, str):
        num_classes = int(y.max()) + 1 if task == "multiclass" else None
        task = kfusion.task(task, num_classes=num_classes)
    return Case(model, Rows(name_inputs(model, x), y), task, **keywords)


def findings(check, case):
    """Findings by name."""
    return {said.name: said for said in check(case) if not isinstance(said, Undecided)}


def reasons(check, case):
    """Why a check could not decide, by name."""
    return {said.name: said.reason for said in check(case) if isinstance(said, Undecided)}
