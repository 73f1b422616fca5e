"""The learning rate that suits a model, from one short run over rising rates."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from kfusion.data.row_batches import check_batch_size
from kfusion.doctor.case import make_rows
from kfusion.doctor.model_runs import feed
from kfusion.models.building import per_output
from kfusion.optimizers import optimizer_at
from kfusion.tasks import Task, as_task
from kfusion.training.backend_memory import traced_gradients_forgotten
from kfusion.training.compiling import compile_model

SMOOTHING = 0.9
# Smith stops where the loss is lost; the suggestion keeps a decade away from there.
STOP_AT, DECADES_BELOW_BEST = 4.0, 1.0


@dataclasses.dataclass(frozen=True)
class RateRange:
    """What `learning_rate_range_test` measured.

    Attributes:
        rates: `(steps,)` learning rates, rising.
        losses: `(steps,)` smoothed losses of the batches, each before its step.
        suggested: Float, a tenth of the rate at which the smoothed loss was lowest; None if it fell
            at no rate.
    """

    rates: np.ndarray
    losses: np.ndarray
    suggested: float | None


def learning_rate_range_test(
    model: keras.Model,
    x: Any,
    y: Any,
    *,
    task: Task | str,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 100,
    batch_size: int = 32,
    seed: int = 0,
) -> RateRange:
    """Trains a copy of a model with a rate that rises from step to step, and watches the loss.

    The rate is multiplied by one factor in each step. The loss stays where it is, falls, and rises
    again where the rate is too high: the test ends where the smoothed loss is four times its
    lowest, or not finite. The model given is not touched.

    Source: Smith, 2017, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186;
    the smoothing, the stop and the tenth are customs of its users.

    Args:
        model: A `keras.Model` that `keras.models.clone_model` can copy. If it is compiled, its loss
            and kind of optimizer count, otherwise the task's loss and Adam.
        x: Array, list or dict of arrays, as the model takes them.
        y: Targets, `(rows, ...)`.
        task: `Task`, "binary" or "regression".
        lowest: Float above 0, the first rate.
        highest: Float above `lowest`, the last rate.
        steps: Int, 10 or more.
        batch_size: Int, 1 or more.
        seed: Int, of the order of the rows.

    Returns:
        `RateRange`.

    Raises:
        TypeError: If `batch_size` is no int.
        ValueError: If a rate, the number of steps or the batch size is out of its range, lengths
            differ, or the loss is not finite from the first step on.
    """
    if not 0 < lowest < highest:
        raise ValueError(
            f"`lowest` must lie above 0 and below `highest`. Received: {lowest} and {highest}."
        )
    if steps < 10:
        raise ValueError(f"`steps` must be 10 or more. Received: {steps}.")
    batch_size = check_batch_size(batch_size)
    rows = make_rows(model, x, y)
    inputs, targets = rows.x, rows.y
    copy = _compiled_copy(model, as_task(task), lowest)
    rates = np.geomspace(lowest, highest, steps)
    batches = _row_batches(len(targets), batch_size, steps, seed)
    losses: list[float] = []
    running = 0.0
    with traced_gradients_forgotten():
        for step, (rate, drawn) in enumerate(zip(rates, batches, strict=True)):
            copy.optimizer.learning_rate.assign(rate)
            batch = {name: array[drawn] for name, array in inputs.items()}
            # By the names of the inputs given: a copy may have made up others.
            loss = _train(copy, feed(model, batch), targets[drawn])
            running += (1 - SMOOTHING) * (loss - running)
            smoothed = running / (1 - SMOOTHING ** (step + 1))
            if not np.isfinite(smoothed) or (losses and smoothed > STOP_AT * min(losses)):
                break
            losses.append(smoothed)
    if not losses:
        raise ValueError(f"The loss of {model.name!r} is not finite before any training.")
    best = int(np.argmin(losses))
    suggested = float(max(lowest, rates[best] / 10**DECADES_BELOW_BEST)) if best else None
    return RateRange(rates[: len(losses)], np.array(losses), suggested)


def _train(model: keras.Model, batch: Any, targets: np.ndarray) -> float:
    """One step; returns the loss before it."""
    # Otherwise the mean over all batches so far would come back.
    model.reset_metrics()
    logs = model.train_on_batch(batch, per_output(model, targets), return_dict=True)
    return float(logs["loss"])


def _compiled_copy(model: keras.Model, task: Task, rate: float) -> keras.Model:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    if getattr(model, "loss", None) is None:
        compile_model(copy, task=task, learning_rate=rate)
        return copy
    copy.compile(
        optimizer=optimizer_at(model.optimizer, rate),
        loss=model.loss,
        loss_weights=model._compile_loss._user_loss_weights,
    )
    return copy


def _row_batches(rows: int, batch_size: int, steps: int, seed: int) -> np.ndarray:
    """`(steps, batch)` row numbers, each pass over the rows in an order of its own."""
    size = min(batch_size, rows)
    generator = np.random.default_rng(seed)
    passes = -(-steps // (rows // size))
    orders = [generator.permutation(rows)[: rows // size * size] for _ in range(passes)]
    return np.concatenate(orders).reshape(-1, size)[:steps]
