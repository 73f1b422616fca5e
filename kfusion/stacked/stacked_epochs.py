"""Epochs of many models of one structure, each step of all of them in one compiled program."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kfusion.models.building import PREDICTION, per_output
from kfusion.models.prediction import EVALUATION_BATCH, feed
from kfusion.stacked.model_dials import DialledModel, Dials
from kfusion.tasks import Task

BACKENDS = ("tensorflow", "jax")


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of all members, which each member draws its own from.

    Attributes:
        x: Dict of arrays by input name.
        y: `(rows,)` targets.
        judging: Dict of arrays that validation rows are taken from; `x` itself or others.
    """

    x: dict[str, Any]
    y: Any
    judging: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Members:
    """What the members of a stack start from, an axis of members in front.

    Attributes:
        trainables: List of `(members, numbers)`, a model's variables with gradients.
        states: List of `(members, ...)` arrays, of what training moves without gradients.
        dials: `Dials`.
        learning_rates: `(members, 1)` highest rates.
        weight_decays: `(members, 1)`, 0 for none.
        row_weights: `(members, rows)`, or None if all are 1.
        label_smoothings: `(members,)`, or None if all are 0.
        judged: `(rows,)` positions of validation rows, or `(members, rows)` of each one's own;
            empty if nothing judges.
    """

    trainables: list[np.ndarray]
    states: list[np.ndarray]
    dials: Dials
    learning_rates: np.ndarray
    weight_decays: np.ndarray
    row_weights: np.ndarray | None
    label_smoothings: np.ndarray | None
    judged: np.ndarray


@keras.saving.register_keras_serializable(package="kfusion")
class MemberRates(keras.optimizers.schedules.LearningRateSchedule):
    """One learning rate a member, all on one schedule of rates up to 1.

    Attributes:
        highest: `(members, 1)` tensor, set before each use.
    """

    def __init__(self, unit: float | keras.optimizers.schedules.LearningRateSchedule):
        super().__init__()
        self.unit = unit
        self.highest: Any = None

    def __call__(self, step):
        return self.highest * (self.unit(step) if callable(self.unit) else self.unit)

    def get_config(self):
        return {"unit": self.unit}


class StackedEpochs(abc.ABC):
    """Trains a stack of members epoch by epoch.

    A member's weights, gradients, statistics of batches and random numbers are its own: the model
    is called under the backend's vectorising map with one member's variables in the place of its
    own, and the gradient is taken of the sum of the members' losses, of which each depends on one
    member alone. The optimizer is Keras' own: what it does is done to each number by itself, so it
    takes each variable as `(members, numbers)` and rates as `(members, 1)`.

    Args:
        model: `DialledModel`, compiled with the loss.
        task: `Task`.
        optimizer: Keras optimizer whose learning rate is `rates`.
        rates: `MemberRates`.
        rows: `Rows`.
    """

    # Of `Members`, whom `start` took last.
    _judged: np.ndarray

    def __init__(
        self,
        model: DialledModel,
        task: Task,
        optimizer: keras.optimizers.Optimizer,
        rates: MemberRates,
        rows: Rows,
    ):
        self.model, self.task, self.optimizer, self.rates = model, task, optimizer, rates
        self._shapes = [tuple(v.shape) for v in model.model.trainable_variables]
        x = {name: _copied(array) for name, array in rows.x.items()}
        judging = x
        if rows.judging is not rows.x:
            judging = {name: _copied(array) for name, array in rows.judging.items()}
        self.rows = Rows(x, _copied(rows.y), judging)

    def seeds_of(self, members: Members) -> np.ndarray:
        """Random states of dropouts, of the type that the backend has for them."""
        types = [each.state.dtype for each in self.model.generators] or ["uint32"]
        return members.dials.seeds.astype(types[0])

    @staticmethod
    def settings_of(members: Members) -> dict[str, np.ndarray]:
        """What each member is given besides its variables."""
        settings = {
            "rates": members.dials.rates,
            "penalties": members.dials.penalties,
            "highest": members.learning_rates,
            "decays": members.weight_decays,
        }
        if members.row_weights is not None:
            settings["row_weights"] = members.row_weights
        if members.label_smoothings is not None:
            settings["label_smoothings"] = members.label_smoothings
        return settings

    @abc.abstractmethod
    def start(self, members: Members) -> None:
        """Takes the members' weights and dials, as many of them as before if it is not new."""

    @abc.abstractmethod
    def train(self, orders: np.ndarray, batch_size: int) -> np.ndarray:
        """Trains one epoch.

        Args:
            orders: `(members, rows)` positions of each member's rows, in its order.
            batch_size: Int.

        Returns:
            `(2, members)`: mean loss, and mean metric, over the rows.
        """

    def predict(self) -> np.ndarray:
        """`(members, rows, units)` predictions of the validation rows."""
        num_rows = self._judged.shape[-1]
        starts, size = _batch_starts(num_rows)
        positions = np.stack([self._judged[..., start : start + size] for start in starts])
        return _joined(self._predict_batches(positions), starts, num_rows)

    @abc.abstractmethod
    def _predict_batches(self, positions: np.ndarray) -> np.ndarray:
        """Predicts batches of one size.

        Args:
            positions: `(batches, size)` of validation rows, or `(batches, members, size)`.

        Returns:
            `(batches, members, size, units)`.
        """

    @abc.abstractmethod
    def weights(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The members' trainables and states, as in `Members`."""

    def member_losses(self, flat, states, seeds, settings: Mapping[str, Any], batch):
        """Loss and metric of each member on its own batch, and the states behind it."""
        names = ("rates", "penalties", "label_smoothings")
        dials = {name: settings[name] for name in names if name in settings}
        variables = {"trainables": self._parts(flat), "states": list(states), "seeds": seeds}
        elements = variables | dials | batch
        return self._vectorized_map(self._member_loss, elements)

    def _member_loss(self, member: dict[str, Any]):
        model = self.model.model
        self.model.dials = Dials(member["rates"], member["penalties"], None)
        if "label_smoothings" in member:
            self.model.smooth_labels(member["label_smoothings"])
        mapping = self.model.mapping(member["trainables"], member["states"], member["seeds"])
        x, y = feed(model, member["x"]), member["y"]
        targets = per_output(model, y)
        weights = per_output(model, member["weights"]) if "weights" in member else None
        with keras.StatelessScope(mapping, collect_losses=True) as scope:
            predictions = model(x, training=True)
            loss = model.compute_loss(x, targets, predictions, weights)
        states = [scope.get_current_value(v) for v in self.model.states]
        seeds = [scope.get_current_value(each.state) for each in self.model.generators]
        seeds = ops.stack(seeds) if seeds else member["seeds"]
        if isinstance(predictions, dict):
            predictions = predictions[PREDICTION]
        return loss, _metric(self.task, y, predictions), states, seeds

    def member_predictions(self, flat, states, seeds, inputs, is_own: bool):
        """`(members, rows, units)`, of rows that all share or of each member's own."""
        elements = {"trainables": self._parts(flat), "states": list(states), "seeds": seeds}
        if is_own:
            elements["x"] = inputs

        def predict(member):
            mapping = self.model.mapping(member["trainables"], member["states"], member["seeds"])
            with keras.StatelessScope(mapping):
                given = feed(self.model.model, member["x"] if is_own else inputs)
                predictions = self.model.model(given, training=False)
            return predictions[PREDICTION] if isinstance(predictions, dict) else predictions

        return self._vectorized_map(predict, elements)

    def _parts(self, flat):
        """The variables in their own shapes, `(members, ...)`, from `(members, numbers)`."""
        return [
            ops.reshape(each, (-1, *shape)) for each, shape in zip(flat, self._shapes, strict=True)
        ]

    def use_rates(self, highest, weight_decays) -> None:
        """Gives the optimizer each member's own, for the step that is traced now."""
        self.rates.highest = highest
        if self.optimizer.weight_decay is not None:
            self.optimizer.weight_decay = weight_decays

    @abc.abstractmethod
    def _vectorized_map(self, function, elements):
        """The backend's."""


def _copied(array):
    """A tensor that stays as it is when the array is changed; jax may share an array's memory."""
    return ops.convert_to_tensor(np.array(array))


def take_batch(x, y, orders, row_weights=None):
    """Each member's rows at `(members, batch)` positions."""
    taken = {
        "x": {name: ops.take(array, orders, axis=0) for name, array in x.items()},
        "y": ops.take(y, orders, axis=0),
    }
    if row_weights is not None:
        taken["weights"] = ops.take_along_axis(row_weights, orders, axis=1)
    return taken


def _metric(task: Task, y, predictions):
    """Mean over a batch of what `fit` logs of training rows: accuracy, or mean absolute error."""
    if task.kind == "regression":
        return ops.mean(ops.abs(ops.cast(y, predictions.dtype) - predictions[:, 0]))
    if task.kind == "binary":
        answers = ops.cast(predictions[:, 0] > 0.5, y.dtype)
    else:
        answers = ops.cast(ops.argmax(predictions, axis=-1), y.dtype)
    return ops.mean(ops.cast(ops.equal(answers, y), "float32"))


def _batch_starts(num_rows: int) -> tuple[np.ndarray, int]:
    """Where batches of one size begin that cover all rows, the last one earlier; and that size."""
    size = min(EVALUATION_BATCH, num_rows)
    starts = np.minimum(np.arange(0, num_rows, size), num_rows - size)
    return starts.astype(np.int32), size


def _joined(parts: np.ndarray, starts: np.ndarray, num_rows: int) -> np.ndarray:
    """`(batches, members, size, units)` -> `(members, rows, units)`."""
    whole = np.empty((parts.shape[1], num_rows, parts.shape[3]), parts.dtype)
    for part, start in zip(parts, starts, strict=True):
        whole[:, start : start + parts.shape[2]] = part
    return whole
