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
        epochs = _epochs(self.history)
        best = _best_of(epochs, objective)
        return len(epochs) if best is None else best + 1

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
        epochs = _epochs(result.history)
        if not epochs:
            return {}, 0
        best = _best_of(epochs, objective)
        best = len(epochs) - 1 if best is None else best
        return epochs[best], best
    if isinstance(result, Mapping):
        return to_numbers(result), 0
    if isinstance(result, (int, float, np.number)):
        return {objective.name: float(result)}, 0
    raise keras_tuner.errors.FatalTypeError(
        "A trial must return a History, a dict of metrics or a number, or a list of these. "
        f"Received: {type(result).__name__}."
    )


def preference(logs: Mapping[str, float], objective: keras_tuner.Objective) -> tuple[float, float]:
    """What is larger for a better epoch; of equal ones, for the one of the lower loss, as in `fit`.

    Args:
        logs: Numbers that an epoch logged, the objective among them; it is worst if not finite.
        objective: `keras_tuner.Objective`.
    """
    value, loss = float(objective.get_value(logs)), logs.get("val_loss", 0.0)
    if not math.isfinite(value) or not math.isfinite(loss):
        return -math.inf, -math.inf
    return value if objective.direction == "max" else -value, -loss


def _epochs(history: Mapping[str, list]) -> list[dict[str, float]]:
    """What each epoch logged."""
    length = max(map(len, history.values()), default=0)
    return [
        to_numbers({name: values[i] for name, values in history.items() if i < len(values)})
        for i in range(length)
    ]


def _best_of(epochs: list[dict[str, float]], objective: keras_tuner.Objective) -> int | None:
    """Number of the best epoch, the first of equals; None if not all log the objective."""
    if not epochs or not all(objective.has_value(logs) for logs in epochs):
        return None
    return max(range(len(epochs)), key=lambda i: preference(epochs[i], objective))
