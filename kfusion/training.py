"""Training with sensible defaults, judged by exact scores over whole validation sets."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kfusion.inputs import InputSpec, check_lengths, check_same_keys, select_inputs
from kfusion.models import PREDICTION, answers_by_name
from kfusion.progress import progress
from kfusion.tasks import Task, as_task, check_variety

AUXILIARY_LOSS_WEIGHT = 0.3
EVALUATION_BATCH = 256
# Learning rates at which each optimizer trains small networks; Keras' own default for Adadelta,
# 0.001, does not train at all.
LEARNING_RATES = {
    "adadelta": 1.0,
    "adagrad": 0.02,
    "adam": 1e-3,
    "adamax": 2e-3,
    "adamw": 1e-3,
    "lion": 1e-4,
    "nadam": 1e-3,
    "rmsprop": 1e-3,
    "sgd": 0.02,
}


def fit(
    model: keras.Model,
    x: Mapping[str, Any],
    y: Any,
    *,
    task: Task | str,
    validation_data: tuple[Mapping[str, Any], Any] | None,
    epochs: int = 30,
    batch_size: int | None = None,
    optimizer: str | keras.optimizers.Optimizer = "adam",
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule | None = None,
    learning_rate_factor: float = 1.0,
    weight_decay: float | None = None,
    class_weight: str | Mapping[int, float] | None = None,
    patience: int | None = 8,
    seed: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    jit_compile: bool | str = "auto",
    verbose: int | bool = 1,
    **keywords: Any,
) -> keras.callbacks.History:
    """Compiles and trains a model, and leaves it with the weights of its best epoch.

    The learning rate rises over the first twentieth of the steps and falls to 0 as a cosine.
    After each epoch the whole validation set is predicted once and scored exactly: the history
    and other callbacks see `val_loss` (without penalties on weights) and `val_auc` and
    `val_accuracy`, or `val_rmse`, `val_mae` and `val_r2`. Training stops when the task's
    objective (or, at the same objective, the loss) has not improved for `patience` epochs.

    Args:
        model: A `keras.Model`, as from `build_fusion_model`; compiled anew here.
        x: Dict of arrays by input name; the model's own are picked by name.
        y: `(rows,)` labels from 0, or regression targets.
        task: `Task`, "binary" or "regression".
        validation_data: `(x, y)` of other rows; None trains all epochs without looking.
        epochs: Int, the most passes over the training rows.
        batch_size: Int, rows per step; by default 64, or less (16 at least) so that an epoch of
            a small table has 30 steps.
        optimizer: Any Keras optimizer by name, or an instance, whose own rate then counts.
        learning_rate: Float, the highest rate; a Keras schedule to use as it is; or None for a
            usual rate of the optimizer named.
        learning_rate_factor: Float, multiplies that usual rate.
        weight_decay: Float, decoupled decay for the optimizer named.
        class_weight: None, "balanced" (inverse to the class rates), or weights by label.
        patience: Int, epochs without improvement; None never stops early.
        seed: Int that fixes shuffling, dropout and augmentation (it seeds Python, NumPy and
            Keras). Initial weights were drawn when the model was built: call
            `keras.utils.set_random_seed` before that.
        callbacks: Keras callbacks; they see the exact scores.
        jit_compile: As in `keras.Model.compile`.
        verbose: 0 hides the progress bar on stderr.
        **keywords: Further arguments of `keras.Model.fit`.

    Returns:
        `keras.callbacks.History`.

    Raises:
        TypeError, ValueError: If inputs, targets or weights do not fit the model or task; see
            `select_inputs` and `Task.check_targets`. Raised before training.
        RuntimeError: If the first epoch already ends with predictions that are not finite.
    """
    task = as_task(task)
    if validation_data is not None:
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
            raise TypeError("`validation_data` must be a pair (x, y).")
        check_same_keys(x, validation_data[0])
    inputs, labels = check_data(model, x, y, task)
    check_variety(labels)
    validation = None
    if validation_data is not None:
        validation = check_data(model, *validation_data, task, prefix="validation ")
        _check_can_score(task, validation[1])
    weights = _row_weights(task, labels, class_weight, keywords.pop("sample_weight", None))
    if batch_size is None:
        batch_size = min(64, max(16, len(labels) // 30))
    if seed is not None:
        keras.utils.set_random_seed(seed)
        _seed_layers(model, seed)
    compile_model(
        model,
        task=task,
        optimizer=optimizer,
        learning_rate=learning_rate,
        learning_rate_factor=learning_rate_factor,
        weight_decay=weight_decay,
        num_steps=epochs * math.ceil(len(labels) / batch_size),
        jit_compile=jit_compile,
    )
    scorer = None if validation is None else _ExactScores(*validation, task)
    keeper = (
        None if scorer is None else _BestWeights(task, epochs if patience is None else patience)
    )
    history = model.fit(
        feed(model, inputs),
        _per_output(model, labels),
        sample_weight=None if weights is None else _per_output(model, weights),
        epochs=epochs,
        batch_size=batch_size,
        # The scorer comes first: those behind it see its scores.
        callbacks=[
            *([scorer, keeper] if scorer else []),
            *callbacks,
            *([_EpochBar(model.name, task)] if verbose else []),
        ],
        verbose=0,
        **keywords,
    )
    if scorer is not None and scorer.diverged_in is not None:
        if scorer.diverged_in == scorer.first_epoch:
            raise RuntimeError(
                f"Training {model.name!r} diverged in its first epoch: predictions are not finite. "
                "Lower `learning_rate`."
            )
        warnings.warn(
            f"Training {model.name!r} diverged in epoch {scorer.diverged_in + 1} and was stopped; "
            "the weights are those of the best epoch before.",
            stacklevel=2,
        )
    return history


def compile_model(
    model: keras.Model,
    *,
    task: Task | str,
    optimizer: str | keras.optimizers.Optimizer = "adam",
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule | None = None,
    learning_rate_factor: float = 1.0,
    weight_decay: float | None = None,
    num_steps: int | None = None,
    jit_compile: bool | str = "auto",
) -> None:
    """Compiles a model with its task's loss and metrics, auxiliary heads included.

    Args are those of `fit`; `num_steps` is the length of the warm-up and cosine, None keeps the
    rate constant.
    """
    task = as_task(task)
    weight = task.loss_weight
    metric = "mae" if task.kind == "regression" else "accuracy"
    if answers_by_name(model):
        loss: Any = dict.fromkeys(model.output, task.loss)
        loss_weights: Any = {
            name: weight if name == PREDICTION else weight * AUXILIARY_LOSS_WEIGHT
            for name in model.output
        }
        metrics: Any = {PREDICTION: [metric]}
    else:
        loss, loss_weights, metrics = task.loss, weight, [metric]
    model.compile(
        optimizer=_make_optimizer(
            optimizer, learning_rate, learning_rate_factor, weight_decay, num_steps
        ),
        loss=loss,
        loss_weights=None if weight == 1 and not isinstance(loss, dict) else loss_weights,
        metrics=metrics,
        jit_compile=jit_compile,
    )


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
    return _predict_batches(model, inputs, batch_size)


def evaluate(model: keras.Model, x: Mapping[str, Any], y: Any, *, task: Task | str) -> dict:
    """Scores a model's predictions exactly over all rows given; see `Task.scores`."""
    task = as_task(task)
    inputs, labels = check_data(model, x, y, task)
    return task.scores(labels, _predict_batches(model, inputs, EVALUATION_BATCH))


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
    labels = task.check_targets(y, f"{prefix}y")
    check_lengths({**{f"{prefix}x[{key!r}]": inputs[key] for key in inputs}, f"{prefix}y": labels})
    return inputs, labels


class _ExactScores(keras.callbacks.Callback):
    """Adds the exact scores of the whole validation set to each epoch's logs."""

    def __init__(self, inputs: dict[str, np.ndarray], labels: np.ndarray, task: Task):
        super().__init__()
        self.inputs, self.labels, self.task = inputs, labels, task
        self.first_epoch: int | None = None
        self.diverged_in: int | None = None

    def on_epoch_end(self, epoch, logs=None):
        if self.first_epoch is None:
            self.first_epoch = epoch
        predictions = _predict_batches(self.model, self.inputs, EVALUATION_BATCH)
        scores = self.task.scores(self.labels, predictions)
        logs.update({f"val_{name}": score for name, score in scores.items()})
        if not np.isfinite(predictions).all():
            self.diverged_in = epoch
            self.model.stop_training = True


class _BestWeights(keras.callbacks.Callback):
    """Ends with the weights of the best epoch, and stops when there was none for a while.

    Of epochs with one objective (an AUC of 1 is soon reached) the one of lower loss is better.
    """

    def __init__(self, task: Task, patience: int):
        super().__init__()
        self.objective, self.patience = task.objective, patience

    def on_train_begin(self, logs=None):
        self.best: tuple[float, float] | None = None
        self.weights: list[np.ndarray] | None = None
        self.waited = 0

    def on_epoch_end(self, epoch, logs=None):
        score = logs[self.objective.name]
        if self.objective.direction == "min":
            score = -score
        reached = (score, -logs["val_loss"])
        if np.isfinite(reached).all() and (self.best is None or reached > self.best):
            self.best, self.weights, self.waited = reached, self.model.get_weights(), 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        if self.weights is not None:
            self.model.set_weights(self.weights)


class _EpochBar(keras.callbacks.Callback):
    """One line on stderr: epochs done, time left, best score so far."""

    def __init__(self, name: str, task: Task):
        super().__init__()
        self.name, self.objective = name, task.objective

    def on_train_begin(self, logs=None):
        total = self.params["epochs"]
        self.bar = progress(range(total), description=self.name, total=total)
        self.scores: list[float] = []

    def on_epoch_end(self, epoch, logs=None):
        if self.objective.name in logs:
            self.scores.append(logs[self.objective.name])
            best = max if self.objective.direction == "max" else min
            self.bar.set_postfix({f"best {self.objective.name}": f"{best(self.scores):.4f}"}, False)
        self.bar.update()

    def on_train_end(self, logs=None):
        self.bar.close()


def _predict_batches(model: keras.Model, inputs: dict[str, np.ndarray], batch_size: int):
    rows = len(next(iter(inputs.values())))
    batch_size = min(batch_size, rows)
    parts = []
    for start in range(0, rows, batch_size):
        # The last batch begins earlier, so that every batch has the same shape.
        first = min(start, rows - batch_size)
        batch = {name: array[first : first + batch_size] for name, array in inputs.items()}
        outputs = model.predict_on_batch(feed(model, batch))
        if isinstance(outputs, dict):
            outputs = outputs[PREDICTION]
        parts.append(np.asarray(outputs, np.float32)[start - first :])
    return np.concatenate(parts)


def feed(model: keras.Model, inputs: dict[str, np.ndarray]):
    """The structure that the model was built with: a dict, or arrays in its order."""
    if isinstance(getattr(model, "input", None), dict):
        return inputs
    arrays = list(inputs.values())
    return arrays if len(arrays) > 1 else arrays[0]


def _per_output(model: keras.Model, values: np.ndarray):
    if answers_by_name(model):
        return dict.fromkeys(model.output, values)
    return values


def _make_optimizer(optimizer, learning_rate, learning_rate_factor, weight_decay, num_steps):
    if isinstance(optimizer, keras.optimizers.Optimizer):
        if learning_rate is not None or weight_decay is not None:
            raise ValueError(
                "An optimizer instance brings its own `learning_rate` and `weight_decay`: give "
                "them to it, or name the optimizer."
            )
        return optimizer
    name = str(optimizer).lower()
    if learning_rate is None:
        learning_rate = learning_rate_factor * LEARNING_RATES.get(name, 1e-3)
    if isinstance(learning_rate, (int, float)):
        if not (math.isfinite(learning_rate) and learning_rate > 0):
            raise ValueError(f"`learning_rate` must be above 0. Received: {learning_rate}.")
        if num_steps is not None:
            warm_up = max(1, num_steps // 20)
            learning_rate = keras.optimizers.schedules.CosineDecay(
                initial_learning_rate=learning_rate / warm_up,
                warmup_target=learning_rate,
                warmup_steps=warm_up,
                decay_steps=max(1, num_steps - warm_up),
            )
    config = {"learning_rate": learning_rate}
    if weight_decay is not None:
        config["weight_decay"] = weight_decay
    if name == "sgd":
        config["momentum"] = 0.9
    try:
        optimizer_class = type(keras.optimizers.get(name))
    except ValueError:
        names = sorted(LEARNING_RATES)
        raise ValueError(
            f"`optimizer` must be a Keras optimizer or its name, such as {names}. Received: "
            f"optimizer={optimizer!r}."
        ) from None
    return optimizer_class(**config)


def _row_weights(task: Task, labels, class_weight, sample_weight) -> np.ndarray | None:
    """Weight of each training row, or None if all are 1."""
    if sample_weight is not None:
        sample_weight = np.asarray(sample_weight, np.float32)
        check_lengths({"sample_weight": sample_weight, "y": labels})
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
    missing = sorted(set(np.unique(labels).tolist()) - set(class_weight))
    if missing:
        raise ValueError(f"`class_weight` has no weight for the label(s) {missing}.")
    weights = np.array([class_weight.get(i, 0.0) for i in range(len(task.class_names))], np.float32)
    return weights[labels] * (1 if sample_weight is None else sample_weight)


def _check_can_score(task: Task, labels: np.ndarray) -> None:
    if task.kind != "regression" and labels.min() == labels.max():
        raise ValueError(
            f"Validation rows hold one class only ({task.class_names[labels[0]]!r}): no AUC can be "
            "computed. Split stratified, as `FusionData.split` does."
        )


def _seed_layers(model: keras.Model, seed: int) -> None:
    """Restarts the random state of dropout and augmentation, wherever it is in the model."""
    states = [v for v in model.variables if v.path.endswith("seed_generator_state")]
    for i, state in enumerate(states):
        state.assign(np.array([seed % 2**32, i], np.uint32))
