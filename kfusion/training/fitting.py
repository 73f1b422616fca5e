"""Training with sensible defaults, judged by exact scores over whole validation sets."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kfusion.data.inputs import read_validation
from kfusion.data.row_batches import own_failure
from kfusion.data.training_rows import training_rows
from kfusion.devices import (
    check_compiling,
    find_distribution,
    normalises_batches,
    num_devices,
    sharing,
)
from kfusion.doctor.before_training import warn_before_training
from kfusion.frozen.augmented_views import seed_states
from kfusion.frozen.frozen_features import AUTO, train_on_features
from kfusion.models.building import per_output
from kfusion.models.prediction import check_data, feed
from kfusion.models.residual import starts_from_the_best
from kfusion.optimizers import COSINE, StepDecay
from kfusion.tasks import Task, as_task, check_variety
from kfusion.training.backend_memory import traced_gradients_forgotten
from kfusion.training.batch_sizes import largest_batch_size, read_batch_size
from kfusion.training.compiling import balanced_loss, check_label_smoothing, compile_model
from kfusion.training.epoch_callbacks import BestWeights, EpochBar, ExactScores, LearningRate
from kfusion.training.memory_batches import MEMORY
from kfusion.training.row_weights import row_weights


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
    label_smoothing: float = 0.0,
    class_weight: str | Mapping[int, float] | None = None,
    balanced_batches: bool = False,
    patience: int | None = 8,
    count_start: bool | None = None,
    seed: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    jit_compile: bool | str = "auto",
    feature_cache: bool | str | os.PathLike = AUTO,
    augmented_views: int = 0,
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
            epoch then has few steps: give more epochs, or a higher rate. Where the last batch would
            be of one row, both are changed a little.
        optimizer: Any Keras optimizer by name, or an instance, whose own rate then counts.
        learning_rate: Float, the highest rate; a Keras schedule to use as it is; or None for a
            usual rate of the optimizer named.
        learning_rate_factor: Float, multiplies that usual rate.
        learning_rate_schedule: "cosine"; "constant"; or `StepDecay(factor, epochs)`, which
            multiplies the rate by a factor every so many epochs.
        weight_decay: Float, decoupled decay for the optimizer named.
        loss: None for the task's; "focal" (Lin et al., 2017, arXiv:1708.02002), which dwells on
            the rows that are hard; or a Keras loss on probabilities.
        label_smoothing: Float in [0, 1), share of each label that training spreads evenly over all
            classes (Szegedy et al., 2016, arXiv:1512.00567), so that predictions do not grow surer
            than labels are worth. It moves probabilities towards 1 / classes: calibrate them.
            Weights of rows and balanced batches go with it; a Keras loss given has its own. What
            is predicted and scored, `val_loss` too, knows nothing of it.
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
            `cache_features`), a path in that folder; False runs the whole model throughout. Files
            of more than 1 GB are read batch by batch on tensorflow, in another order of rows.
        augmented_views: Int, 0 or more: how many augmented views of each training row to run
            through frozen parts that have Keras' random image layers (RandomFlip, RandomZoom and
            so on; `image_branch(augment=)`) in front of them. In each step one of a row's views is
            drawn at random; validation rows are seen as they are. With 8, such a part is run 9
            times per training row, whatever the number of epochs, trials and folds. 0 augments and
            runs it anew in each step. What is drawn for a view comes from the row's content;
            `seed` decides which view is taken when.
        distribution: A `tf.distribute` strategy (tensorflow) or `keras.distribution.DataParallel`
            (jax), within whose `scope()` the model was built: the devices of one machine share
            each batch, and the result is that of one device (on tensorflow, of one that is given
            the rows in the same order). None means the strategy that the
            model was built under (tensorflow) or the distribution in force (jax), if any.
            `batch_size` is that of all devices together. The rows of a last batch that they cannot
            share evenly are repeated, all equally often, until they can, so that a device may have
            as many rows of it as one device would (of a model that normalises no batches, it is
            filled up with rows of weight 0). Only the logged `loss` and `accuracy` of the training
            rows count the further ones. On tensorflow, layers other than kfusion's and
            `BatchNormalization` that look at a whole batch, an optimizer's clipping and a loss
            divided by the sum of weights have each device's share alone; so has `image_set_branch`
            where images are missing.
        doctor: Whether the doctor looks at the data and the model first, in short: what it finds
            are `DoctorWarning`s. `kfusion.examine` looks at all of it.
        verbose: 0 hides the progress on stderr.
        **keywords: Further arguments of `keras.Model.fit`.

    Returns:
        `keras.callbacks.History`, whose `best_epoch` is the number, from 0, of the epoch whose
        weights the model ends with; None if those before training are kept (`count_start`).

    Raises:
        TypeError, ValueError: If inputs, targets or weights do not fit the model or task; see
            `select_inputs` and `Task.check_targets`; the batch size or number of epochs is no int
            of 1 or more; labels cannot be smoothed in this task or with this loss; or the model,
            optimizer or batch size do not fit the distribution. Raised before training.
        RuntimeError: If the first epoch already ends with predictions that are not finite; or not
            one row fits in memory, where it was asked.
    """
    task = as_task(task)
    inputs, labels, validation = _checked_rows(model, x, y, validation_data, task)
    weights = row_weights(task, labels, class_weight, keywords.pop("sample_weight", None))
    check_label_smoothing(label_smoothing, task, loss)
    if balanced_batches and (task.kind == "regression" or class_weight is not None):
        raise ValueError(
            "`balanced_batches` needs a task with classes, and no `class_weight` beside it."
        )
    if validation is None and count_start:
        raise ValueError("`count_start=True` needs `validation_data` to judge the start by.")
    distribution = find_distribution(distribution, model)
    check_compiling(distribution, optimizer, jit_compile)
    devices = num_devices(distribution)
    batch_rows = read_batch_size(batch_size, len(labels), devices)
    num_epochs = count_epochs(epochs, keywords.get("initial_epoch", 0))
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
            model,
            inputs,
            validation,
            callbacks,
            feature_cache=feature_cache,
            augmented_views=augmented_views,
            verbose=verbose,
        )
    if batch_size == MEMORY:
        batch_rows = largest_batch_size(trained, feed(trained, inputs), labels, task, jit_compile)
    if seed is not None:
        keras.utils.set_random_seed(seed)
        seed_layers(trained, seed)
    if balanced_batches:
        # Which smooths by itself.
        loss, label_smoothing = balanced_loss(task, labels, loss, label_smoothing), 0.0
    steps_per_epoch = math.ceil(len(labels) / batch_rows)
    with sharing(distribution):
        compile_model(
            model,
            task=task,
            loss=loss,
            label_smoothing=label_smoothing,
            optimizer=optimizer,
            learning_rate=learning_rate,
            learning_rate_factor=learning_rate_factor,
            weight_decay=weight_decay,
            learning_rate_schedule=learning_rate_schedule,
            num_steps=num_epochs * steps_per_epoch,
            steps_per_epoch=steps_per_epoch,
            jit_compile=jit_compile,
        )
        if trained is not model:
            compile_model(
                trained,
                task=task,
                loss=loss,
                label_smoothing=label_smoothing,
                optimizer=model.optimizer,
                jit_compile=jit_compile,
            )
    scorer = None if validation is None else ExactScores(*validation, task)
    if count_start is None:
        count_start = starts_from_the_best(model)
    keeper = None
    if scorer is not None:
        start = scorer if count_start else None
        keeper = BestWeights(task, epochs if patience is None else patience, start)
    rows = training_rows(
        feed(trained, inputs),
        per_output(model, labels),
        labels,
        batch_size=batch_rows,
        seed=seed,
        sample_weight=None if weights is None else per_output(model, weights),
        balanced=balanced_batches,
        shuffle=keywords.pop("shuffle", True),
        multiple=devices,
        repeat=devices > 1 and normalises_batches(trained),
    )
    chosen = f", {batch_rows} rows a batch" if batch_size == MEMORY else ""
    bar = EpochBar(model.name + chosen, task.objective, verbose)
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
    history.best_epoch = keeper.best_epoch if keeper else max(history.epoch, default=None)
    return history


def _checked_rows(model: keras.Model, x, y, validation_data, task: Task):
    """Inputs and labels to train on, and the pair that judges or None, as the model takes them."""
    if validation_data is None:
        inputs, labels = check_data(model, x, y, task)
        check_variety(labels)
        return inputs, labels, None
    judging_x, judging_y = read_validation(x, validation_data)
    inputs, labels = check_data(model, x, y, task)
    check_variety(labels)
    validation = check_data(model, judging_x, judging_y, task, prefix="validation ")
    check_can_score(task, validation[1])
    return inputs, labels, validation


def count_epochs(epochs: Any, initial_epoch: int = 0) -> int:
    """How many passes over the rows there will be.

    Raises:
        TypeError: If `epochs` is no int.
        ValueError: If there would be none.
    """
    if isinstance(epochs, bool) or not isinstance(epochs, (int, np.integer)):
        raise TypeError(f"`epochs` must be an int. Received: {epochs!r} ({type(epochs).__name__}).")
    if epochs < 1:
        raise ValueError(f"`epochs` must be 1 or more. Received: {epochs}.")
    if epochs <= initial_epoch:
        raise ValueError(
            f"`epochs` must be more than `initial_epoch`, {initial_epoch}. Received: {epochs}."
        )
    return int(epochs) - initial_epoch


def check_can_score(task: Task, labels: np.ndarray) -> None:
    """Raises `ValueError` if validation labels are of one class only, which has no AUC."""
    if task.kind != "regression" and labels.min() == labels.max():
        raise ValueError(
            f"Validation rows hold one class only ({task.class_names[labels[0]]!r}): no AUC can be "
            "computed. Split stratified, as `FusionData.split` does."
        )


def seed_layers(model: keras.Model, seed: int) -> None:
    """Restarts the random state of dropout and augmentation, wherever it is in the model."""
    for i, state in enumerate(seed_states(model)):
        state.assign(np.array([seed % 2**32, i], np.uint32))
