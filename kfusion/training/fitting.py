"""Training with sensible defaults, judged by exact scores over whole validation sets."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np

from kfusion.data.inputs import check_lengths, check_same_keys
from kfusion.data.row_batches import own_failure
from kfusion.data.training_rows import training_rows
from kfusion.devices import (
    check_compiling,
    find_device,
    find_distribution,
    num_devices,
    sharing,
)
from kfusion.doctor.before_training import warn_before_training
from kfusion.frozen.frozen_features import AUTO, train_on_features
from kfusion.losses import FocalCrossentropy, MeanOverMembers, PriorShiftedCrossentropy
from kfusion.models.building import MEMBER_PREDICTIONS, PREDICTION, answers_by_name
from kfusion.models.prediction import check_data, feed
from kfusion.models.residual import starts_from_the_best
from kfusion.optimizers import CONSTANT, COSINE, StepDecay, make_optimizer
from kfusion.tasks import Task, as_task, check_variety
from kfusion.training.backend_memory import traced_gradients_forgotten
from kfusion.training.epoch_callbacks import BestWeights, EpochBar, ExactScores, LearningRate
from kfusion.training.memory_batches import (
    MEMORY,
    SHARE,
    estimate_step,
    free_memory,
    largest_batch_that_fits,
    largest_batch_that_runs,
    train_on_rows_of,
)

AUXILIARY_LOSS_WEIGHT = 0.3
# What is logged of the training rows; by instance, whose variables are there before training.
_METRICS = {
    "binary": partial(keras.metrics.BinaryAccuracy, name="accuracy"),
    "multiclass": partial(keras.metrics.SparseCategoricalAccuracy, name="accuracy"),
    "regression": partial(keras.metrics.MeanAbsoluteError, name="mae"),
}


def fit(
    model: keras.Model,
    x: Mapping[str, Any],
    y: Any,
    *,
    task: Task | str,
    validation_data: tuple[Mapping[str, Any], Any] | None,
    epochs: int = 30,
    batch_size: int | str | None = None,
    optimizer: str | keras.optimizers.Optimizer = "adam",
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule | None = None,
    learning_rate_factor: float = 1.0,
    learning_rate_schedule: str | StepDecay = COSINE,
    weight_decay: float | None = None,
    loss: str | keras.losses.Loss | None = None,
    class_weight: str | Mapping[int, float] | None = None,
    balanced_batches: bool = False,
    patience: int | None = 8,
    count_start: bool | None = None,
    seed: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    jit_compile: bool | str = "auto",
    feature_cache: bool | str | os.PathLike = AUTO,
    distribution: Any = None,
    doctor: bool = True,
    verbose: int | bool = 1,
    **keywords: Any,
) -> keras.callbacks.History:
    """Compiles and trains a model, and leaves it with the weights of its best epoch.

    By default the learning rate rises over the first twentieth of the steps and falls to 0 as a
    cosine. After each epoch the whole validation set is predicted once and scored exactly: the
    history and other callbacks see `val_loss` (without penalties on weights) and `val_auc` and
    `val_accuracy`, or `val_rmse`, `val_mae` and `val_r2`, and the `learning_rate` that the epoch
    leaves, as TensorBoard's callback reads it. Training stops when the task's objective (or, at the
    same objective, the loss) has not improved for `patience` epochs.

    Args:
        model: A `keras.Model`, as from `build_fusion_model`; compiled anew here.
        x: Dict of arrays by input name; the model's own are picked by name.
        y: `(rows,)` labels from 0, or regression targets.
        task: `Task`, "binary" or "regression".
        validation_data: `(x, y)` of other rows; None trains all epochs without looking.
        epochs: Int, the most passes over the training rows.
        batch_size: Int, rows per step; by default 64, or less (16 at least) so that an epoch of
            a small table has 30 steps. "memory" takes the largest power of two whose training step
            fits: by trying on a GPU or TPU, by an estimate and half of what is free on a CPU. An
            epoch then has few steps: give more epochs, or a higher rate.
        optimizer: Any Keras optimizer by name, or an instance, whose own rate then counts.
        learning_rate: Float, the highest rate; a Keras schedule to use as it is; or None for a
            usual rate of the optimizer named.
        learning_rate_factor: Float, multiplies that usual rate.
        learning_rate_schedule: "cosine"; "constant"; or `StepDecay(factor, epochs)`, which
            multiplies the rate by a factor every so many epochs.
        weight_decay: Float, decoupled decay for the optimizer named.
        loss: None for the task's; "focal" (Lin et al., 2017, arXiv:1708.02002), which dwells on
            the rows that are hard; or a Keras loss on probabilities.
        class_weight: None, "balanced" (inverse to the class rates), or weights by label. It moves
            probabilities towards the rare classes: calibrate them, or balance batches instead.
        balanced_batches: Whether each batch holds all classes equally often. The loss takes the
            drawing into account, so that probabilities keep to the true class rates.
        patience: Int, epochs without improvement; None never stops early.
        count_start: Whether the weights before training compete with those of the epochs; None
            means for a residual fusion alone, which starts as its best member.
        seed: Int that fixes shuffling, dropout and augmentation (it seeds Python, NumPy and
            Keras). Initial weights were drawn when the model was built: call
            `keras.utils.set_random_seed` before that.
        callbacks: Keras callbacks, such as those of TensorBoard, MLflow or Weights & Biases; they
            see the exact scores.
        jit_compile: As in `keras.Model.compile`.
        feature_cache: Whether frozen parts of the model (`freeze`, `branch_from`, a residual
            fusion's members, layers that do not train) are run once over all rows in place of
            once an epoch, unless something random such as augmentation is in front of them.
            "auto" keeps what they give in memory, for other trainings in this process too, if
            that is no more than 1 GB; True in files in kfusion's cache folder (see
            `cache_features`), a path in that folder; False runs the whole model throughout.
        distribution: A `tf.distribute` strategy (tensorflow) or `keras.distribution.DataParallel`
            (jax), within whose `scope()` the model was built: the devices of one machine share
            each batch, and the result is that of one device. None means the strategy that the
            model was built under (tensorflow) or the distribution in force (jax), if any.
            `batch_size` is that of all devices together. A last batch that they cannot share
            evenly is filled up with rows of weight 0, which only the logged `loss` and `accuracy`
            of the training rows count.
        doctor: Whether the doctor looks at the data and the model first, in short: what it finds
            are `DoctorWarning`s. `kfusion.examine` looks at all of it.
        verbose: 0 hides the progress on stderr.
        **keywords: Further arguments of `keras.Model.fit`.

    Returns:
        `keras.callbacks.History`.

    Raises:
        TypeError, ValueError: If inputs, targets or weights do not fit the model or task; see
            `select_inputs` and `Task.check_targets`; or the model, optimizer or batch size do not
            fit the distribution. Raised before training.
        RuntimeError: If the first epoch already ends with predictions that are not finite; or not
            one row fits in memory, where it was asked.
    """
    task = as_task(task)
    if validation_data is not None:
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
            raise TypeError(
                "`validation_data` must be a pair (x, y). Received: "
                f"{type(validation_data).__name__}."
            )
        check_same_keys(x, validation_data[0])
    inputs, labels = check_data(model, x, y, task)
    check_variety(labels)
    validation = None
    if validation_data is not None:
        validation = check_data(model, *validation_data, task, prefix="validation ")
        check_same_keys(x, validation_data[0])
        check_can_score(task, validation[1])
    weights = row_weights(task, labels, class_weight, keywords.pop("sample_weight", None))
    if balanced_batches and (task.kind == "regression" or class_weight is not None):
        raise ValueError(
            "`balanced_batches` needs a task with classes, and no `class_weight` beside it."
        )
    distribution = find_distribution(distribution, model)
    check_compiling(distribution, optimizer, jit_compile)
    devices = num_devices(distribution)
    batch_rows = _read_batch_size(batch_size, len(labels), devices)
    if doctor:
        warn_before_training(
            model,
            inputs,
            labels,
            task=task,
            validation_data=validation,
            batch_size=batch_rows,
        )
    with sharing(distribution):
        trained, inputs, validation, callbacks = train_on_features(
            model, inputs, validation, callbacks, feature_cache=feature_cache, verbose=verbose
        )
    if batch_size == MEMORY:
        batch_rows = _largest_batch_size(trained, feed(trained, inputs), labels, task, jit_compile)
    if seed is not None:
        keras.utils.set_random_seed(seed)
        seed_layers(model, seed)
    if balanced_batches:
        loss = _balanced_loss(task, labels, loss)
    steps_per_epoch = math.ceil(len(labels) / batch_rows)
    with sharing(distribution):
        compile_model(
            model,
            task=task,
            loss=loss,
            optimizer=optimizer,
            learning_rate=learning_rate,
            learning_rate_factor=learning_rate_factor,
            weight_decay=weight_decay,
            learning_rate_schedule=learning_rate_schedule,
            num_steps=(epochs - keywords.get("initial_epoch", 0)) * steps_per_epoch,
            steps_per_epoch=steps_per_epoch,
            jit_compile=jit_compile,
        )
        if trained is not model:
            compile_model(
                trained, task=task, loss=loss, optimizer=model.optimizer, jit_compile=jit_compile
            )
    scorer = None if validation is None else ExactScores(*validation, task)
    if scorer is None and count_start:
        raise ValueError("`count_start=True` needs `validation_data` to judge the start by.")
    if count_start is None:
        count_start = starts_from_the_best(model)
    keeper = None
    if scorer is not None:
        start = scorer if count_start else None
        keeper = BestWeights(task, epochs if patience is None else patience, start)
    rows = training_rows(
        feed(trained, inputs),
        _per_output(model, labels),
        labels,
        batch_size=batch_rows,
        seed=seed,
        sample_weight=None if weights is None else _per_output(model, weights),
        balanced=balanced_batches,
        shuffle=keywords.pop("shuffle", True),
        multiple=devices,
    )
    bar = EpochBar(model.name, task.objective, verbose)
    with (
        sharing(distribution, trained),
        traced_gradients_forgotten(),
        contextlib.closing(bar),
        own_failure(rows["x"]),
    ):
        history = trained.fit(
            **rows,
            epochs=epochs,
            # What adds to the logs comes first: those behind it see that.
            callbacks=[
                LearningRate(),
                *([scorer, keeper] if scorer else []),
                *callbacks,
                bar,
            ],
            verbose=0,
            **keywords,
        )
    if scorer is not None and scorer.diverged_in is not None:
        if scorer.diverged_in == scorer.first_epoch and not count_start:
            raise RuntimeError(
                f"Training {model.name!r} diverged in its first epoch: predictions are not finite. "
                "Lower `learning_rate`."
            )
        warnings.warn(
            f"Training {model.name!r} diverged in epoch {scorer.diverged_in + 1} and was stopped; "
            "the weights are the best ones before.",
            stacklevel=2,
        )
    return history


def _read_batch_size(batch_size: Any, num_rows: int, devices: int) -> int:
    """The number given; the default where there is none, also until memory has been looked at."""
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
    return batch_size


def _largest_batch_size(
    model: keras.Model, inputs: Any, labels: np.ndarray, task: Task, jit_compile: bool | str
) -> int:
    """The largest power of two whose training step fits; leaves the weights as they are."""
    if find_device().kind == "cpu":
        memory = int(SHARE * free_memory())
        return largest_batch_that_fits(estimate_step(model, inputs), memory, len(labels))
    before = model.get_weights()
    # Adam keeps as much as any of the usual ones.
    compile_model(model, task=task, jit_compile=jit_compile)
    try:
        step = train_on_rows_of(model, inputs, _per_output(model, labels))
        return largest_batch_that_runs(step, len(labels))
    finally:
        model.set_weights(before)


def default_batch_size(num_rows: int) -> int:
    """64, or less (16 at least) so that an epoch of a small table has 30 steps.

    A little more where the last batch would be of one row, whose statistics say nothing.
    """
    size = min(64, max(16, num_rows // 30))
    while size < num_rows and num_rows % size == 1:
        size += 1
    return size


def compile_model(
    model: keras.Model,
    *,
    task: Task | str,
    loss: str | keras.losses.Loss | None = None,
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
        optimizer: As in `fit`.
        learning_rate: As in `fit`.
        learning_rate_factor: As in `fit`.
        weight_decay: As in `fit`.
        learning_rate_schedule: As in `fit`.
        num_steps: Int, of the whole training.
        steps_per_epoch: Int.
        jit_compile: As in `keras.Model.compile`.

    Raises:
        ValueError: If the optimizer or a rate cannot be used.
    """
    task = as_task(task)
    weight = task.loss_weight
    metric = _METRICS[task.kind]()
    losses: Any = _choose_loss(task, loss)
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


def _make_all_variables(model: keras.Model) -> None:
    """Makes those of optimizer and losses, for which TensorFlow would trace a step twice."""
    if not model.built:
        return
    model.optimizer.build(model.trainable_variables)
    if answers_by_name(model):
        row = {name: np.zeros((1, *output.shape[1:])) for name, output in model.output.items()}
        model.compute_loss(y=_per_output(model, np.zeros(1)), y_pred=row)
        model.reset_metrics()


def _choose_loss(task: Task, loss: str | keras.losses.Loss | None) -> str | keras.losses.Loss:
    if loss is None:
        return task.loss
    if isinstance(loss, str) and loss == "focal":
        if task.kind == "regression":
            raise ValueError('`loss="focal"` is for classes; a regression has none.')
        return FocalCrossentropy()
    return keras.losses.get(loss)


def _balanced_loss(task: Task, labels: np.ndarray, loss) -> PriorShiftedCrossentropy:
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
    )


def _per_output(model: keras.Model, values: np.ndarray):
    if answers_by_name(model):
        return dict.fromkeys(model.output, values)
    return values


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
    wrong_weights = [w for w in class_weight.values() if not (np.isfinite(w) and w >= 0)]
    if wrong_weights:
        raise ValueError(f"`class_weight` must be 0 or more. Received: {wrong_weights[0]}.")
    missing = sorted(set(np.unique(labels).tolist()) - set(class_weight))
    if missing:
        raise ValueError(f"`class_weight` has no weight for the label(s) {missing}.")
    weights = np.array([class_weight.get(i, 0.0) for i in range(len(task.class_names))], np.float32)
    return weights[labels] * (1 if sample_weight is None else sample_weight)


def check_can_score(task: Task, labels: np.ndarray) -> None:
    """Raises `ValueError` if validation labels are of one class only, which has no AUC."""
    if task.kind != "regression" and labels.min() == labels.max():
        raise ValueError(
            f"Validation rows hold one class only ({task.class_names[labels[0]]!r}): no AUC can be "
            "computed. Split stratified, as `FusionData.split` does."
        )


def seed_layers(model: keras.Model, seed: int) -> None:
    """Restarts the random state of dropout and augmentation, wherever it is in the model."""
    states = [v for v in model.variables if v.path.endswith("seed_generator_state")]
    for i, state in enumerate(states):
        state.assign(np.array([seed % 2**32, i], np.uint32))
