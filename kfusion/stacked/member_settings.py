"""What each of many trainings is given: keywords of its model, of its training, and its rows."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kfusion.data.row_batches import check_batch_size
from kfusion.optimizers import COSINE, LEARNING_RATES, highest_rate, make_optimizer, make_schedule
from kfusion.seeds import derive_seed
from kfusion.tasks import Task, as_task
from kfusion.training.compiling import check_label_smoothing
from kfusion.training.fitting import count_epochs

# Keywords of a member that its training takes; `build` takes all others.
DEFAULTS: dict[str, Any] = {
    "optimizer": "adam",
    "learning_rate": None,
    "learning_rate_factor": 1.0,
    "learning_rate_schedule": COSINE,
    "weight_decay": None,
    "loss": None,
    "label_smoothing": 0.0,
    "class_weight": None,
    "sample_weight": None,
    "batch_size": None,
    "epochs": 30,
    "patience": 8,
    "seed": None,
    "task": None,
    "rows": None,
    "validation_rows": None,
}


@dataclasses.dataclass
class MemberSettings:
    """One training's keywords.

    Attributes:
        build: Keywords of its model.
        fit: Keywords of its training, all of `DEFAULTS`.
        rows: `(rows,)` positions that it learns from.
        validation_rows: `(rows,)` positions that judge it, or None.
    """

    build: dict[str, Any]
    fit: dict[str, Any]
    rows: np.ndarray
    validation_rows: np.ndarray | None

    @property
    def seed(self) -> int:
        """Of its weights, its order of rows and its dropout."""
        return self.fit["seed"]

    @property
    def num_steps(self) -> int:
        """Of its whole training."""
        return self.fit["epochs"] * self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return math.ceil(len(self.rows) / self.fit["batch_size"])

    @property
    def highest_rate(self) -> float:
        """Top of its learning rates; 1 if a schedule says what they are."""
        rate = self.fit["learning_rate"]
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            return 1.0
        return highest_rate(self.fit["optimizer"], rate, self.fit["learning_rate_factor"])

    def unit_schedule(self) -> float | keras.optimizers.schedules.LearningRateSchedule:
        """What its highest rate is multiplied by."""
        rate = self.fit["learning_rate"]
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            return rate
        return make_schedule(
            1.0, self.fit["learning_rate_schedule"], self.num_steps, self.steps_per_epoch
        )

    def common(self) -> str:
        """Text that members must share to be trained in one program, besides their structure."""
        rate, loss = self.fit["learning_rate"], self.fit["loss"]
        if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            rate = None
        fit = {
            name: self.fit[name]
            for name in ("optimizer", "learning_rate_schedule", "batch_size", "epochs")
        }
        shared = [fit, loss, None if rate is None else [repr(rate), rate.get_config()]]
        return json.dumps([*shared, len(self.rows)], default=_as_told_apart)

    def task_of(self, task: Task) -> Task:
        """Its own, or that of all members."""
        return task if self.fit["task"] is None else self.fit["task"]


def read_members(
    members: Any, defaults: Mapping[str, Any], seed: int, num_rows: int, has_judges: bool
) -> list[MemberSettings]:
    """Sorts the keywords of members into those of their models and of their trainings.

    Raises:
        TypeError, ValueError: If a member is no mapping, or its settings or rows cannot be used;
            names the member.
    """
    unknown = sorted(set(defaults) - set(DEFAULTS))
    if unknown:
        raise TypeError(
            f"Keywords for all members must be among {sorted(DEFAULTS)}. Received: {unknown}; "
            "give those of `build` to each member."
        )
    if not isinstance(members, Sequence) or isinstance(members, str):
        raise TypeError(
            "`members` must be a list with a dict of keywords for each member, such as "
            f"`[{{'seed': 0}}, {{'seed': 1}}]`. Received: {members!r}."
        )
    if not members:
        raise ValueError("`members` is empty: there is nothing to train.")
    read = []
    for number, member in enumerate(members):
        if not isinstance(member, Mapping):
            raise TypeError(f"Member {number} must be a dict of keywords. Received: {member!r}.")
        own = {**DEFAULTS, **defaults, **{k: v for k, v in member.items() if k in DEFAULTS}}
        if own["seed"] is None:
            own["seed"] = derive_seed(seed, number)
        if own["task"] is not None:
            own["task"] = as_task(own["task"])
        build = {k: v for k, v in member.items() if k not in DEFAULTS}
        judges = own["validation_rows"]
        if judges is not None and has_judges:
            raise ValueError(
                f"Member {number} has `validation_rows`, positions in `x`, which `validation_data` "
                "takes the place of: give one of them."
            )
        everything = np.arange(num_rows)
        rows = everything if own["rows"] is None else own["rows"]
        settings = MemberSettings(
            build,
            own,
            _positions(rows, num_rows, f"rows of member {number}"),
            None
            if judges is None
            else _positions(judges, num_rows, f"validation_rows of member {number}"),
        )
        if settings.validation_rows is not None:
            shared = np.intersect1d(settings.rows, settings.validation_rows)
            if shared.size:
                raise ValueError(
                    f"Member {number} is judged by {shared.size} of its own rows, e.g. {shared[0]}."
                )
        read.append(settings)
    if len({settings.validation_rows is None for settings in read}) > 1:
        raise ValueError("Some members have `validation_rows` and others none.")
    return read


def check_settings(settings: MemberSettings, task: Task) -> None:
    """Raises what `fit` would raise of an optimizer, rate or number that cannot be used."""
    fit = settings.fit
    check_label_smoothing(fit["label_smoothing"], task, fit["loss"])
    check_batch_size(fit["batch_size"])
    count_epochs(fit["epochs"])
    if isinstance(fit["optimizer"], str):
        rate = fit["learning_rate"]
        if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            highest_rate(fit["optimizer"], rate, fit["learning_rate_factor"])
        settings.unit_schedule()
        _usual_decay(fit["optimizer"])


def check_same_kind(own: Task, of_all: Task) -> None:
    """Raises `ValueError` if a member's task is of another kind, or other classes, than all."""
    if (own.kind, own.class_names) != (of_all.kind, of_all.class_names):
        raise ValueError(
            "A member's `task` may differ in class rates or scale alone from that of all, "
            f"{of_all}. Received: {own}."
        )


def weight_decay_of(settings: MemberSettings) -> float | None:
    """Its weight decay, by default that of the optimizer named."""
    if settings.fit["weight_decay"] is not None:
        return settings.fit["weight_decay"]
    return _usual_decay(settings.fit["optimizer"])


@functools.cache
def _usual_decay(optimizer: str) -> float | None:
    return make_optimizer(optimizer, None, 1.0, None).weight_decay


def is_elementwise(optimizer: Any) -> bool:
    """Whether an optimizer is a name of one that treats each number by itself."""
    return isinstance(optimizer, str) and optimizer.lower() in LEARNING_RATES


def _as_told_apart(value: Any) -> Any:
    """What JSON can hold of a value and no other value has; of an unknown object, that it is it."""
    if isinstance(value, keras.losses.Loss):
        # Its config may lack arguments: that of Keras' Huber has no delta.
        return [type(value).__module__, type(value).__qualname__, vars(value)]
    if hasattr(value, "__array__"):
        return np.asarray(value).tolist()
    return repr(value)


def _positions(rows: Any, num_rows: int, name: str) -> np.ndarray:
    positions = np.asarray(rows)
    if positions.ndim != 1 or not positions.size or positions.dtype.kind not in "iu":
        raise ValueError(f"`{name}` must be positions of rows. Received: {rows!r}.")
    wrong = positions[(positions < 0) | (positions >= num_rows)]
    if wrong.size:
        raise ValueError(f"`{name}` must be 0 to {num_rows - 1}. Received: {wrong[0]}.")
    return positions.astype(np.int32)
