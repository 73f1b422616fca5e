"""Members of one structure trained as one stack, each to its own best epoch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kfusion.data.inputs import check_lengths
from kfusion.devices import find_device
from kfusion.models.building import PREDICTION, answers_by_name
from kfusion.optimizers import make_optimizer, rate_at
from kfusion.stacked.fit_data import ModelRows
from kfusion.stacked.member_settings import MemberSettings, weight_decay_of
from kfusion.stacked.model_dials import DialledModel, Dials
from kfusion.stacked.stacked_epochs import MemberRates, Members, Rows, StackedEpochs
from kfusion.tasks import Task
from kfusion.training.compiling import compile_model
from kfusion.training.epoch_callbacks import BestEpoch
from kfusion.training.memory_batches import SHARE, free_memory
from kfusion.training.row_weights import row_weights

# Bytes that a stack may take at most, and members beyond which nothing is gained.
STACK_BYTES = {"cpu": 2**30, "gpu": 8 * 2**30}
MOST_AT_ONCE = {"cpu": 32, "gpu": 256}
# Copies of weights: values, gradients, two slots of the optimizer, the start, the best, two spare.
_COPIES = 8


@dataclasses.dataclass
class MemberFit:
    """How one member's training went.

    Attributes:
        settings: `MemberSettings`.
        history: Dict of lists by name, one value an epoch, as of `fit`.
        best_epoch: Int from 0, the epoch whose weights are kept; None if training failed, or if a
            residual fusion is best as it started.
        at_once: Int, how many members its program trained; 1 for a training by itself.
        alone_because: Why it was trained by itself, or None.
        failure: What went wrong, or None: predictions that were not finite in the first epoch, or,
            of a training by itself, memory that did not suffice.
        weights: The weights of the best epoch, in the order of the model's.
        structure: Text that members of one structure share; None of a training by itself.
    """

    settings: MemberSettings = dataclasses.field(repr=False)
    history: dict[str, list[float]] = dataclasses.field(repr=False)
    best_epoch: int | None
    at_once: int
    alone_because: str | None = None
    failure: str | None = None
    weights: list[np.ndarray] = dataclasses.field(default_factory=list, repr=False)
    structure: str | None = dataclasses.field(default=None, repr=False)

    @property
    def diverged_in(self) -> int | None:
        """The epoch, from 0, that ended the training with predictions that are not finite."""
        losses = self.history.get("val_loss")
        return len(losses) - 1 if losses and not np.isfinite(losses[-1]) else None

    @property
    def scores(self) -> dict[str, float]:
        """What the epoch logged whose weights are kept, such as `val_auc`; empty if none did."""
        if self.best_epoch is None:
            return {}
        return {name: values[self.best_epoch] for name, values in self.history.items()}


@dataclasses.dataclass
class BuiltMember:
    """A member with what its model started from.

    Attributes:
        number: Int, its place among all members.
        settings: `MemberSettings`.
        trainables: Its variables with gradients.
        states: Its other ones, but for the random states of dropouts.
        dials: `Dials`.
        weight_order: Positions of the model's weights among trainables and states.
    """

    number: int
    settings: MemberSettings
    trainables: list[np.ndarray]
    states: list[np.ndarray]
    dials: Dials
    weight_order: list[int]


def members_at_once(model: keras.Model, batch_size: int) -> int:
    """How many members of a model's structure fit into the memory set aside for a stack.

    What layers make within other layers is not counted: to run a row for that, as `estimate_step`
    does, would take longer than many a stack trains.
    """
    features = sum(
        math.prod(n or 1 for n in tensor.shape[1:])
        for layer in model._flatten_layers()
        for tensor in _outputs(layer)
    )
    # Forward, backward and what is kept between them.
    bytes_each = 4 * (_COPIES * model.count_params() + 4 * batch_size * features)
    memory = STACK_BYTES[_device()]
    if _device() == "cpu":
        memory = min(memory, int(SHARE * free_memory()))
    return int(max(1, min(most_at_once(), memory // bytes_each)))


def most_at_once() -> int:
    """Members of a stack beyond which nothing is gained here."""
    return MOST_AT_ONCE[_device()]


def _device() -> str:
    return "cpu" if find_device().kind == "cpu" else "gpu"


def _outputs(layer: keras.layers.Layer) -> list[Any]:
    return [out for node in layer._inbound_nodes for out in node.output_tensors]


@dataclasses.dataclass(frozen=True)
class DialsInUse:
    """Which dials of a group a program has to have.

    Attributes:
        is_dropped: Whether any member drops anything, for each layer that `dropouts` finds.
        is_penalised: Whether any member has an L2 penalty, for each trainable variable.
        decays: Whether any member's weights decay.
        weighs: Whether rows weigh differently for any member.
        smooths: Whether labels are smoothed for any member.
    """

    is_dropped: tuple[bool, ...]
    is_penalised: tuple[bool, ...]
    decays: bool
    weighs: bool
    smooths: bool


def dials_in_use(group: Sequence[BuiltMember], task: Task) -> DialsInUse:
    """What the members of a group have among them; `task` is that of all."""
    weights = ("class_weight", "sample_weight")
    return DialsInUse(
        tuple(np.any([each.dials.rates > 0 for each in group], axis=0).tolist()),
        tuple(np.any([each.dials.penalties > 0 for each in group], axis=0).tolist()),
        any(weight_decay_of(each.settings) is not None for each in group),
        any(each.settings.fit[name] is not None for each in group for name in weights)
        or any(each.settings.task_of(task).loss_weight != task.loss_weight for each in group),
        any(each.settings.fit["label_smoothing"] > 0 for each in group),
    )


def make_stack(
    model: keras.Model,
    group: Sequence[BuiltMember],
    used: DialsInUse,
    task: Task,
    rows: ModelRows,
) -> StackedEpochs:
    """The program of a group, made from the model of one of them, which is changed for good."""
    settings = group[0].settings
    # While its penalties and its smoothing are numbers, for it is tried on a row.
    compile_model(
        model,
        task=task,
        loss=settings.fit["loss"],
        label_smoothing=max(each.settings.fit["label_smoothing"] for each in group),
    )
    dialled = DialledModel(
        model, np.array(used.is_dropped), np.array(used.is_penalised), used.smooths
    )
    decay = 0.0 if used.decays else None
    rates = MemberRates(settings.unit_schedule())
    optimizer = make_optimizer(settings.fit["optimizer"], rates, 1.0, decay)
    judging = rows.x
    if settings.validation_rows is None and rows.validation is not None:
        judging = rows.validation[0]
    return _epochs_class()(dialled, task, optimizer, rates, Rows(rows.x, rows.y, judging))


def _epochs_class() -> type[StackedEpochs]:
    if keras.backend.backend() == "jax":
        from kfusion.stacked.stacked_epochs_jax import JaxEpochs

        return JaxEpochs
    from kfusion.stacked.stacked_epochs_tensorflow import TensorflowEpochs

    return TensorflowEpochs


def _stacked(
    group: Sequence[BuiltMember], used: DialsInUse, task: Task, rows: ModelRows
) -> Members:
    """What the members start from, side by side."""
    first = group[0].settings
    judged = np.zeros(0, np.int32)
    if first.validation_rows is not None:
        own = [np.asarray(each.settings.validation_rows, np.int32) for each in group]
        longest = max(len(rows) for rows in own)
        # The last row again fills up what has fewer, and is not judged again.
        judged = np.stack([np.pad(rows, (0, longest - len(rows)), "edge") for rows in own])
    elif rows.validation is not None:
        judged = np.arange(len(rows.validation[1]), dtype=np.int32)
    return Members(
        [
            np.stack([values.ravel() for values in of_all])
            for of_all in zip(*(each.trainables for each in group), strict=True)
        ],
        [np.stack(values) for values in zip(*(each.states for each in group), strict=True)],
        Dials(
            np.stack([each.dials.rates for each in group]),
            np.stack([each.dials.penalties for each in group]),
            np.stack([each.dials.seeds for each in group]),
        ),
        _column([each.settings.highest_rate for each in group]),
        _column([weight_decay_of(each.settings) or 0.0 for each in group]),
        np.stack([member_weights(each.settings, task, rows.y) for each in group])
        if used.weighs
        else None,
        np.array([each.settings.fit["label_smoothing"] for each in group], np.float32)
        if used.smooths
        else None,
        judged,
    )


def _column(numbers: Iterable[float]) -> np.ndarray:
    return np.array(list(numbers), np.float32)[:, None]


def member_weights(settings: MemberSettings, task: Task, labels: np.ndarray) -> np.ndarray:
    """Weights of all rows; those that a member does not learn from count for nothing."""
    sample_weight = settings.fit["sample_weight"]
    if sample_weight is not None:
        check_lengths({"sample_weight": sample_weight, "y": labels})
        sample_weight = np.asarray(sample_weight)[settings.rows]
    of_rows = row_weights(task, labels[settings.rows], settings.fit["class_weight"], sample_weight)
    weights = np.zeros(len(labels), np.float32)
    weights[settings.rows] = 1 if of_rows is None else of_rows
    # The program weighs the loss as the task of all members does.
    return weights * np.float32(settings.task_of(task).loss_weight / task.loss_weight)


@dataclasses.dataclass
class _Course:
    """How far one member of a stack is; `best` and `labels` are None where nothing judges."""

    member: BuiltMember
    order: np.random.RandomState
    best: BestEpoch | None
    labels: np.ndarray | None
    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    weights: list[np.ndarray] | None = None
    best_epoch: int | None = None
    is_over: bool = False

    def log(self, logs: Mapping[str, float]) -> None:
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)


def fit_stack(
    stack: StackedEpochs, group: Sequence[BuiltMember], used: DialsInUse, rows: ModelRows
) -> list[MemberFit]:
    """Trains members of one structure until the last of them is done.

    Args:
        stack: Program of the group that they are of.
        group: The members, as many as the program takes.
        used: Dials in use in the whole group, which may be more than these members need.
        rows: `ModelRows`.
    """
    task = stack.task
    stack.start(_stacked(group, used, task, rows))
    courses = []
    for each in group:
        patience = each.settings.fit["patience"]
        epochs = each.settings.fit["epochs"]
        labels = rows.judging_labels(each.settings)
        best = BestEpoch(task.objective, epochs if patience is None else patience)
        order = np.random.RandomState(each.settings.seed % 2**32)
        # On jax Keras draws each epoch's order so, and one before, for a batch to build with.
        order.permutation(len(each.settings.rows))
        courses.append(_Course(each, order, None if labels is None else best, labels))
    settings = group[0].settings
    for epoch in range(settings.fit["epochs"]):
        orders = np.stack(
            [
                each.member.settings.rows[each.order.permutation(len(settings.rows))]
                for each in courses
            ]
        )
        told = stack.train(orders.astype(np.int32), settings.fit["batch_size"])
        _log_training(courses, told, stack, (epoch + 1) * settings.steps_per_epoch)
        if courses[0].best is not None:
            _judge(courses, stack.predict(), task, epoch)
        _keep(courses, stack, epoch)
        if all(course.is_over for course in courses):
            break
    return [_finished(course, len(group)) for course in courses]


def _log_training(courses, told: np.ndarray, stack: StackedEpochs, step: int) -> None:
    """What is known of the training rows, and the rate that the epoch leaves."""
    unit = stack.rates.unit
    rate = rate_at(unit, step) if callable(unit) else unit
    metric = "mae" if stack.task.kind == "regression" else "accuracy"
    if answers_by_name(stack.model.model):
        metric = f"{PREDICTION}_{metric}"
    for course, loss, value in zip(courses, *told, strict=True):
        if not course.is_over:
            course.log(
                {
                    "loss": float(loss),
                    metric: float(value),
                    "learning_rate": rate * course.member.settings.highest_rate,
                }
            )


def _judge(courses, predictions: np.ndarray, task: Task, epoch: int) -> None:
    """Scores each member that is not done, as `ExactScores` does."""
    for course, answers in zip(courses, predictions, strict=True):
        if course.is_over:
            continue
        answers = answers[: len(course.labels)]
        scored = course.member.settings.task_of(task).scores(course.labels, answers)
        scores = {f"val_{name}": value for name, value in scored.items()}
        course.log(scores)
        if course.best.judge(scores):
            course.best_epoch = epoch
        course.is_over = course.best.is_over or not np.isfinite(answers).all()


def _keep(courses, stack: StackedEpochs, epoch: int) -> None:
    """Takes the weights of members whose best epoch this was."""
    judged = courses[0].best is not None
    improved = [
        i
        for i, course in enumerate(courses)
        if course.best_epoch == epoch
        or (not judged and epoch + 1 == course.member.settings.fit["epochs"])
    ]
    if not improved:
        return
    trainables, states = stack.weights()
    for i in improved:
        flat_and_start = zip(trainables, courses[i].member.trainables, strict=True)
        courses[i].weights = [flat[i].reshape(start.shape).copy() for flat, start in flat_and_start]
        courses[i].weights += [values[i].copy() for values in states]
        courses[i].best_epoch = epoch


def _finished(course: _Course, at_once: int) -> MemberFit:
    failure = None
    if course.weights is None:
        failure = (
            "Training diverged in its first epoch: predictions are not finite. Lower "
            "`learning_rate`."
        )
    return MemberFit(
        course.member.settings,
        course.history,
        course.best_epoch,
        at_once,
        failure=failure,
        weights=[course.weights[i] for i in course.member.weight_order] if course.weights else [],
    )
