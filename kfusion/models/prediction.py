"""What a model answers for named inputs, and how well."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kfusion.data.inputs import InputSpec, check_lengths, select_inputs
from kfusion.data.lazy_rows import LazyRows, in_advance
from kfusion.devices import predict_on_devices
from kfusion.models.building import PREDICTION
from kfusion.tasks import Task, as_task

EVALUATION_BATCH = 256


def predict(
    model: keras.Model, x: Mapping[str, Any], *, batch_size: int = EVALUATION_BATCH
) -> np.ndarray:
    """Predicts rows in batches of one size, so that nothing is compiled twice.

    Args:
        model: A `keras.Model`; of several heads the one called "prediction" answers.
        x: Dict of arrays by input name.
        batch_size: Int.

    Returns:
        `(rows, units)` float32: probabilities (of the positive class, for one unit) or values.

    Raises:
        TypeError, ValueError: If the inputs do not fit the model; see `select_inputs`.
    """
    inputs = select_inputs(x, input_specs(model))
    return predict_batches(model, inputs, batch_size)


def evaluate(model: keras.Model, x: Mapping[str, Any], y: Any, *, task: Task | str) -> dict:
    """Scores a model's predictions exactly over all rows given.

    Args:
        model: A `keras.Model`.
        x: Dict of arrays by input name.
        y: `(rows,)` labels or targets.
        task: `Task`, "binary" or "regression".

    Returns:
        Dict of scores; see `Task.scores`.

    Raises:
        TypeError, ValueError: If inputs or targets do not fit the model or the task.
    """
    task = as_task(task)
    inputs, labels = check_data(model, x, y, task)
    return task.scores(labels, predict_batches(model, inputs, EVALUATION_BATCH))


def input_specs(model: keras.Model) -> dict[str, InputSpec]:
    """What a model asks of each input, by name."""
    given = getattr(model, "inputs", None)
    if not given:
        raise ValueError(f"{model.name!r} has no known inputs: call it on data once first.")
    return {tensor.name: InputSpec(tuple(tensor.shape[1:]), tensor.dtype) for tensor in given}


def check_data(
    model: keras.Model, x: Mapping[str, Any], y: Any, task: Task, prefix: str = ""
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns a model's inputs and targets checked, or raises what is wrong with them."""
    inputs = select_inputs(x, input_specs(model), f"{prefix}x")
    units = model.outputs[0].shape[-1]
    if units != task.units:
        raise ValueError(
            f"{model.name!r} gives {units} value(s) per row but a {task.kind} task has "
            f"{task.units}: build the model with the same task."
        )
    labels = task.check_targets(y, f"{prefix}y")
    check_lengths({**{f"{prefix}x[{key!r}]": inputs[key] for key in inputs}, f"{prefix}y": labels})
    return inputs, labels


def predict_batches(
    model: keras.Model,
    inputs: dict[str, np.ndarray],
    batch_size: int,
    heads: Sequence[str] = (PREDICTION,),
):
    """Predicts checked inputs; see `predict`. What several heads answer stands side by side."""
    rows = len(next(iter(inputs.values())))
    batch_size = min(batch_size, rows)
    starts = range(0, rows, batch_size)
    # The last batch begins earlier, so that every batch has the same shape.
    firsts = [min(start, rows - batch_size) for start in starts]

    def make(first: int) -> dict[str, np.ndarray]:
        return {name: array[first : first + batch_size] for name, array in inputs.items()}

    streams = any(isinstance(array, LazyRows) for array in inputs.values())
    batches: Iterable[dict[str, np.ndarray]] = map(make, firsts)
    if streams:
        row_bytes = sum(array.nbytes for array in inputs.values()) // rows
        batches = in_advance(make, firsts, item_bytes=batch_size * row_bytes)
    parts = []
    with _no_word_of_retracing():
        for start, first, batch in zip(starts, firsts, batches, strict=True):
            outputs = predict_on_devices(model, feed(model, batch))
            if isinstance(outputs, dict):
                outputs = np.concatenate([np.asarray(outputs[head]) for head in heads], axis=-1)
            parts.append(np.asarray(outputs, np.float32)[start - first :])
    return np.concatenate(parts)


@contextlib.contextmanager
def _no_word_of_retracing() -> Iterator[None]:
    """TensorFlow warns where several models predict in turn: each is traced once, as it must."""

    def keep(record: logging.LogRecord) -> bool:
        return "retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def feed(model: keras.Model, inputs: dict[str, np.ndarray]):
    """The structure that the model was built with: a dict, or arrays in its order."""
    if isinstance(getattr(model, "input", None), dict):
        return inputs
    arrays = list(inputs.values())
    return arrays if len(arrays) > 1 else arrays[0]
