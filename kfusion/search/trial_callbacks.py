"""Keras callbacks that a tuner gives to each run of a trial."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import keras
import keras_tuner
import numpy as np

from kfusion.search.epoch_logs import to_numbers
from kfusion.search.trial_runs import preference


class BestByObjective(keras.callbacks.Callback):
    """Keeps the weights of the epoch that is best by the objective, in memory.

    Args:
        objective: `keras_tuner.Objective`; where epochs do not log it, the last epoch counts.
    """

    def __init__(self, objective: keras_tuner.Objective):
        super().__init__()
        self.objective = objective
        self.weights: list[np.ndarray] | None = None
        self._best: tuple[float, float] | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        numbers = to_numbers(logs)
        if not self.objective.has_value(numbers):
            self.weights = None
            return
        reached = preference(numbers, self.objective)
        if self._best is None or reached > self._best:
            self._best, self.weights = reached, self.model.get_weights()


class EpochHistory(keras.callbacks.Callback):
    """Keeps what each epoch logs, however the training is run."""

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[float]] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for name, value in to_numbers(logs).items():
            self.history.setdefault(name, []).append(value)


class StopNotFinite(keras.callbacks.Callback):
    """Ends a run as failed once its loss is not finite."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        check_finite(to_numbers(logs).get("loss", 0.0), epoch)


def check_finite(loss: float, epoch: int) -> None:
    """Raises `FailedTrialError` if the loss of an epoch, counted from 0, is not finite."""
    if not math.isfinite(loss):
        raise keras_tuner.errors.FailedTrialError(
            f"The loss is {loss} after epoch {epoch + 1}: training diverged."
        )


class StopAfterSeconds(keras.callbacks.Callback):
    """Stops after the epoch in which the time is over.

    Args:
        seconds: Float, from the start of training.
    """

    def __init__(self, seconds: float):
        super().__init__()
        self.seconds = seconds
        self._started = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if time.monotonic() - self._started >= self.seconds:
            self.model.stop_training = True


class StopWhenPruned(keras.callbacks.Callback):
    """Reports the objective after each epoch and stops a run that falls behind.

    Args:
        objective: `keras_tuner.Objective`.
        report: Callable `report(epoch, value) -> bool`, true if the run is to be given up.
    """

    def __init__(self, objective: keras_tuner.Objective, report: Callable[[int, float], bool]):
        super().__init__()
        self.objective = objective
        self.report = report
        self.is_pruned = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        numbers = to_numbers(logs)
        if self.objective.has_value(numbers):
            self.is_pruned = self.report(epoch, float(self.objective.get_value(numbers)))
            if self.is_pruned:
                self.model.stop_training = True


class TunerHooks(keras.callbacks.Callback):
    """Calls the methods that subclasses of KerasTuner's tuners may have.

    Args:
        tuner: `keras_tuner.Tuner`.
        trial: Its trial.
    """

    def __init__(self, tuner: keras_tuner.Tuner, trial: Any):
        super().__init__()
        self.tuner = tuner
        self.trial = trial

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.tuner.on_epoch_begin(self.trial, self.model, epoch, logs=logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.tuner.on_epoch_end(self.trial, self.model, epoch, logs=logs)

    def on_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.tuner.on_batch_begin(self.trial, self.model, batch, logs)

    def on_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.tuner.on_batch_end(self.trial, self.model, batch, logs)


def has_hooks(tuner: keras_tuner.Tuner) -> bool:
    """Whether a tuner has methods of its own for epochs or batches, for which Keras waits."""
    names = ("on_epoch_begin", "on_epoch_end", "on_batch_begin", "on_batch_end")
    return any(getattr(type(tuner), name) is not getattr(keras_tuner.Tuner, name) for name in names)
