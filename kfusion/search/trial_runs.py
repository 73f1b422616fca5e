"""What the runs of a trial tell: their best epochs, and the weights of these."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras
import keras_tuner
import numpy as np

from kfusion.search.epoch_logs import to_numbers


@dataclasses.dataclass
class TrialRun:
    """One training of a trial's model.

    Attributes:
        result: What `HyperModel.fit` returned.
        weights: Of the epoch that is best by the objective.
        history: What each epoch logged, lists by name.
        validation_data: The rows that judged it, as `fit` took them.
    """

    result: Any
    weights: list[np.ndarray]
    history: dict[str, list[float]]
    validation_data: Any

    def num_epochs(self, objective: keras_tuner.Objective) -> int:
        """Epochs to the best one; all of them if they do not log the objective."""
        values = self.history.get(objective.name)
        if not values:
            return max(map(len, self.history.values()))
        return 1 + int(np.argmax(_preferences(values, objective)))

    def sort_value(self, objective: keras_tuner.Objective) -> float:
        """The objective at its best epoch; 0 if the run tells none."""
        metrics, _ = best_epoch(self.result, objective)
        return float(objective.get_value(metrics)) if objective.has_value(metrics) else 0.0


def best_epoch(result: Any, objective: keras_tuner.Objective) -> tuple[dict[str, float], int]:
    """Metrics at the epoch that is best by the objective, and that epoch's number.

    Args:
        result: What `HyperModel.fit` or `Tuner.run_trial` may return: a `History`, a dict of
            metrics or the objective's value.
        objective: `keras_tuner.Objective`; where epochs do not log it, the last epoch counts.

    Raises:
        keras_tuner.errors.FatalTypeError: If it is none of these.
    """
    if isinstance(result, keras.callbacks.History):
        length = max(map(len, result.history.values()), default=0)
        epochs = [
            to_numbers({n: values[i] for n, values in result.history.items() if i < len(values)})
            for i in range(length)
        ]
        if not epochs:
            return {}, 0
        best = len(epochs) - 1
        if all(objective.has_value(logs) for logs in epochs):
            values = [float(objective.get_value(logs)) for logs in epochs]
            best = int(np.argmax(_preferences(values, objective)))
        return epochs[best], best
    if isinstance(result, Mapping):
        return to_numbers(result), 0
    if isinstance(result, (int, float, np.number)):
        return {objective.name: float(result)}, 0
    raise keras_tuner.errors.FatalTypeError(
        "A trial must return a History, a dict of metrics or a number, or a list of these. "
        f"Received: {type(result).__name__}."
    )


def _preferences(values: list[float], objective: keras_tuner.Objective) -> list[float]:
    """Numbers that are larger for better values; the least for those that are not finite."""
    sign = 1 if objective.direction == "max" else -1
    return [sign * value if math.isfinite(value) else -math.inf for value in values]
