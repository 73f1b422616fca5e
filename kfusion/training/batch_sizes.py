"""How many rows a step has: by their number, as asked, or as memory allows."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from kfusion.data.row_batches import check_batch_size
from kfusion.devices import find_device
from kfusion.models.building import per_output
from kfusion.tasks import Task
from kfusion.training.compiling import compile_model
from kfusion.training.memory_batches import (
    MEMORY,
    SHARE,
    estimate_step,
    free_memory,
    largest_batch_that_fits,
    largest_batch_that_runs,
    train_on_rows_of,
)


def default_batch_size(num_rows: int) -> int:
    """64, or less (16 at least) so that an epoch of a small table has 30 steps.

    A little more where the last batch would be of one row.
    """
    size = min(64, max(16, num_rows // 30))
    while size < num_rows and _leaves_one_row(num_rows, size):
        size += 1
    return size


def read_batch_size(batch_size: Any, num_rows: int, devices: int) -> int:
    """The number given; the default where there is none, also until memory has been looked at.

    Raises:
        TypeError: If it is neither None, an int nor "memory".
        ValueError: If it is below 1, another word, or "memory" with several devices.
    """
    if batch_size == MEMORY and devices > 1:
        raise ValueError(
            f'`batch_size="{MEMORY}"` looks at one device. With a distribution give a number: what '
            "it finds without one, times the devices."
        )
    if batch_size is None or batch_size == MEMORY:
        return devices * math.ceil(default_batch_size(num_rows) / devices)
    if isinstance(batch_size, str):
        raise ValueError(
            f'`batch_size` must be None, a number or "{MEMORY}". Received: {batch_size!r}.'
        )
    return check_batch_size(batch_size)


def largest_batch_size(
    model: keras.Model, inputs: Any, labels: np.ndarray, task: Task, jit_compile: bool | str
) -> int:
    """The largest power of two whose training step fits; leaves the weights as they are.

    A little less where the last batch would be of one row.
    """
    num_rows = len(labels)
    if find_device().kind == "cpu":
        memory = int(SHARE * free_memory())
        size = largest_batch_that_fits(estimate_step(model, inputs), memory, num_rows)
    else:
        size = _largest_that_runs(model, inputs, labels, task, jit_compile)
    # Of an odd number of rows, twos leave one as well.
    while size > 2 and _leaves_one_row(num_rows, size):
        size -= 1
    return size


def _largest_that_runs(
    model: keras.Model, inputs: Any, labels: np.ndarray, task: Task, jit_compile: bool | str
) -> int:
    before = model.get_weights()
    # Adam keeps as much as any of the usual ones.
    compile_model(model, task=task, jit_compile=jit_compile)
    try:
        step = train_on_rows_of(model, inputs, per_output(model, labels))
        return largest_batch_that_runs(step, len(labels))
    finally:
        model.set_weights(before)


def _leaves_one_row(num_rows: int, batch_size: int) -> bool:
    """Whether the last batch is of one row, whose statistics say nothing."""
    return num_rows % batch_size == 1
