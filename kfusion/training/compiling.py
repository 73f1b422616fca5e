"""Losses, metrics and optimizer of a model, as its task and outputs ask for them."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np

from kfusion.losses import (
    FocalCrossentropy,
    MeanOverMembers,
    PriorShiftedCrossentropy,
    SmoothedCrossentropy,
    checked_smoothing,
)
from kfusion.models.building import (
    MEMBER_PREDICTIONS,
    PREDICTION,
    answers_by_name,
    per_output,
)
from kfusion.optimizers import CONSTANT, StepDecay, make_optimizer
from kfusion.tasks import Task, as_task

AUXILIARY_LOSS_WEIGHT = 0.3
# What is logged of the training rows; by instance, whose variables are there before training.
_METRICS = {
    "binary": partial(keras.metrics.BinaryAccuracy, name="accuracy"),
    "multiclass": partial(keras.metrics.SparseCategoricalAccuracy, name="accuracy"),
    "regression": partial(keras.metrics.MeanAbsoluteError, name="mae"),
}


def compile_model(
    model: keras.Model,
    *,
    task: Task | str,
    loss: str | keras.losses.Loss | None = None,
    label_smoothing: float = 0.0,
    optimizer: str | keras.optimizers.Optimizer = "adam",
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule | None = None,
    learning_rate_factor: float = 1.0,
    weight_decay: float | None = None,
    learning_rate_schedule: str | StepDecay = CONSTANT,
    num_steps: int = 1,
    steps_per_epoch: int = 1,
    jit_compile: bool | str = "auto",
) -> None:
    """Compiles a model with its task's loss and metrics, auxiliary heads included.

    Of an ensemble each member has the loss of its own prediction; their mean has none.

    Args:
        model: A `keras.Model`.
        task: `Task`, "binary" or "regression".
        loss: As in `fit`.
        label_smoothing: As in `fit`.
        optimizer: As in `fit`.
        learning_rate: As in `fit`.
        learning_rate_factor: As in `fit`.
        weight_decay: As in `fit`.
        learning_rate_schedule: As in `fit`.
        num_steps: Int, of the whole training.
        steps_per_epoch: Int.
        jit_compile: As in `keras.Model.compile`.

    Raises:
        ValueError: If the optimizer or a rate cannot be used, or labels cannot be smoothed.
    """
    task = as_task(task)
    weight = task.loss_weight
    metric = _METRICS[task.kind]()
    losses: Any = _choose_loss(task, loss, label_smoothing)
    if answers_by_name(model):
        if MEMBER_PREDICTIONS in model.output:
            losses = {PREDICTION: None, MEMBER_PREDICTIONS: MeanOverMembers(losses)}
        else:
            losses = dict.fromkeys(model.output, losses)
        loss_weights: Any = {
            name: weight
            if name in (PREDICTION, MEMBER_PREDICTIONS)
            else weight * AUXILIARY_LOSS_WEIGHT
            for name in model.output
        }
        metrics: Any = {PREDICTION: [metric]}
    else:
        loss_weights, metrics = weight, [metric]
    model.compile(
        optimizer=make_optimizer(
            optimizer,
            learning_rate,
            learning_rate_factor,
            weight_decay,
            schedule=learning_rate_schedule,
            num_steps=num_steps,
            steps_per_epoch=steps_per_epoch,
        ),
        loss=losses,
        loss_weights=None if weight == 1 and not isinstance(losses, dict) else loss_weights,
        metrics=metrics,
        jit_compile=jit_compile,
    )
    _make_all_variables(model)


def check_label_smoothing(
    label_smoothing: float, task: Task, loss: str | keras.losses.Loss | None
) -> None:
    """Raises `ValueError` if labels cannot be smoothed so: in this task, with this loss."""
    if not checked_smoothing(label_smoothing):
        return
    if task.kind == "regression":
        raise ValueError("`label_smoothing` is for classes; a regression has none.")
    if loss not in (None, "focal"):
        raise ValueError(
            '`label_smoothing` changes the task\'s own loss or "focal" alone: give another loss '
            "one of its own, such as `keras.losses.BinaryCrossentropy(label_smoothing=0.1)`. "
            f"Received: loss={loss!r}."
        )


def balanced_loss(
    task: Task, labels: np.ndarray, loss, label_smoothing: float
) -> PriorShiftedCrossentropy:
    """The loss of rows drawn from all classes equally often."""
    if loss not in (None, "focal"):
        raise ValueError(
            '`balanced_batches` corrects the drawing in the task\'s own loss or "focal" alone. '
            f"Received: loss={loss!r}."
        )
    counts = np.bincount(labels, minlength=len(task.class_names))
    present = counts > 0
    return PriorShiftedCrossentropy(
        training_rates=(present / present.sum()).tolist(),
        true_rates=(counts / counts.sum()).tolist(),
        gamma=FocalCrossentropy().gamma if loss == "focal" else 0.0,
        label_smoothing=label_smoothing,
    )


def _make_all_variables(model: keras.Model) -> None:
    """Makes those of optimizer and losses, for which TensorFlow would trace a step twice."""
    if not model.built:
        return
    model.optimizer.build(model.trainable_variables)
    if answers_by_name(model):
        row = {name: np.zeros((1, *output.shape[1:])) for name, output in model.output.items()}
        model.compute_loss(y=per_output(model, np.zeros(1)), y_pred=row)
        model.reset_metrics()


def _choose_loss(
    task: Task, loss: str | keras.losses.Loss | None, label_smoothing: float
) -> str | keras.losses.Loss:
    check_label_smoothing(label_smoothing, task, loss)
    if loss is None:
        return SmoothedCrossentropy(label_smoothing) if label_smoothing else task.loss
    if isinstance(loss, str) and loss == "focal":
        if task.kind == "regression":
            raise ValueError('`loss="focal"` is for classes; a regression has none.')
        return FocalCrossentropy(label_smoothing=label_smoothing)
    return keras.losses.get(loss)
