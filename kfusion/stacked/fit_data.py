"""The rows of many trainings, checked, as each of the models takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kfusion.data.fingerprints import fingerprint
from kfusion.data.inputs import check_lengths, read_validation
from kfusion.data.rows import take_rows
from kfusion.models.prediction import check_data, input_specs
from kfusion.stacked.member_settings import MemberSettings
from kfusion.tasks import Task
from kfusion.training.fitting import check_can_score


@dataclasses.dataclass(frozen=True)
class ModelRows:
    """The rows as one model takes them.

    Attributes:
        x: Dict of arrays by input name.
        y: `(rows,)` labels or targets.
        validation: `(x, y)` of the rows that judge all members, or None.
    """

    x: dict[str, np.ndarray]
    y: np.ndarray
    validation: tuple[dict[str, np.ndarray], np.ndarray] | None

    def judges(self, settings: MemberSettings) -> tuple[Any, np.ndarray] | None:
        """Inputs and targets that judge a member, or None."""
        if settings.validation_rows is None:
            return self.validation
        return take_rows(self.x, settings.validation_rows), self.y[settings.validation_rows]

    def judging_labels(self, settings: MemberSettings) -> np.ndarray | None:
        """Targets that judge a member, or None."""
        if settings.validation_rows is not None:
            return self.y[settings.validation_rows]
        return None if self.validation is None else self.validation[1]


class FitData:
    """The rows of all members, of which each model takes its own inputs.

    Args:
        task: `Task`.
        x: Dict of arrays by input name.
        y: `(rows,)` labels or targets.
        validation_data: `(x, y)` of the rows that judge all members, or None.

    Raises:
        TypeError, ValueError: If they are none of that, or lengths or keys differ.
    """

    def __init__(self, task: Task, x: Any, y: Any, validation_data: Any):
        self.task = task
        self._sides: list[tuple[Any, Any]] = [(x, y)]
        if validation_data is not None:
            self._sides.append(read_validation(x, validation_data))
        self._named: dict[str, Any] = {}
        for prefix, (inputs, targets) in zip(("", "validation "), self._sides, strict=False):
            if not isinstance(inputs, Mapping):
                raise TypeError(
                    f"`{prefix}x` must be a dict of arrays by input name. Received: "
                    f"{type(inputs).__name__}."
                )
            named = {f"{prefix}x[{key!r}]": array for key, array in inputs.items()}
            named[f"{prefix}y"] = targets
            check_lengths(named)
            self._named |= named
        self._of_models: dict[Any, ModelRows] = {}

    def digest(self) -> str:
        """Text that other rows do not share, as they are now."""
        return fingerprint(self._named, every_row=True)

    def of(self, model: keras.Model) -> ModelRows:
        """The rows as a model takes them; its answers are known to fit the task.

        Raises:
            TypeError, ValueError: If rows, model and task do not fit each other.
        """
        asked = tuple(input_specs(model).items()), tuple(model.outputs[0].shape)
        if asked not in self._of_models:
            prefixes = zip(("", "validation "), self._sides, strict=False)
            checked = [check_data(model, *side, self.task, prefix) for prefix, side in prefixes]
            validation = checked[1] if len(checked) > 1 else None
            if validation is not None:
                check_can_score(self.task, validation[1])
            self._of_models[asked] = ModelRows(*checked[0], validation)
        return self._of_models[asked]
