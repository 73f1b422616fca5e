"""What happens after each epoch: exact scores, the best weights kept, a line of progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kfusion.models.prediction import EVALUATION_BATCH, predict_batches
from kfusion.optimizers import present_rate
from kfusion.progress import Progress, progress
from kfusion.tasks import Task


class ExactScores(keras.callbacks.Callback):
    """Adds the exact scores of the whole validation set to each epoch's logs."""

    def __init__(self, inputs: dict[str, np.ndarray], labels: np.ndarray, task: Task):
        super().__init__()
        self.inputs, self.labels, self.task = inputs, labels, task
        self.first_epoch: int | None = None
        self.diverged_in: int | None = None

    def on_epoch_end(self, epoch, logs=None):
        if self.first_epoch is None:
            self.first_epoch = epoch
        scores, all_finite = self.score()
        logs.update(scores)
        if not all_finite:
            self.diverged_in = epoch
            self.model.stop_training = True

    def score(self) -> tuple[dict[str, float], bool]:
        """The scores of the model as it is, and whether all predictions are finite."""
        predictions = predict_batches(self.model, self.inputs, EVALUATION_BATCH)
        scores = self.task.scores(self.labels, predictions)
        return {f"val_{k}": v for k, v in scores.items()}, bool(np.isfinite(predictions).all())


class LearningRate(keras.callbacks.Callback):
    """Adds the rate that an epoch leaves to its logs, under the name that Keras' callbacks use."""

    def on_epoch_end(self, epoch, logs=None):
        logs["learning_rate"] = present_rate(self.model.optimizer)


class BestEpoch:
    """Which epoch is the best so far, and whether there was none for a while.

    Of epochs with one objective (an AUC of 1 is soon reached) the one of lower loss is better.

    Attributes:
        is_over: Whether the last `patience` epochs, and the last one, were no better.
    """

    def __init__(self, objective: Any, patience: int):
        self.objective, self.patience = objective, patience
        self.best: tuple[float, float] | None = None
        self.waited = 0

    @property
    def is_over(self) -> bool:
        return self.waited >= max(1, self.patience)

    def judge(self, logs: Mapping[str, float]) -> bool:
        """Whether these scores are better than all before."""
        score = logs[self.objective.name]
        if self.objective.direction == "min":
            score = -score
        reached = (score, -logs["val_loss"])
        if np.isfinite(reached).all() and (self.best is None or reached > self.best):
            self.best, self.waited = reached, 0
            return True
        self.waited += 1
        return False


class BestWeights(keras.callbacks.Callback):
    """Ends with the weights of the best epoch, and stops when there was none for a while.

    With a scorer for the start, the weights before training compete as those of an epoch do.

    Attributes:
        best_epoch: Int from 0, the epoch whose weights are left; None if those of the start are.
    """

    def __init__(self, task: Task, patience: int, start: ExactScores | None = None):
        super().__init__()
        self.objective, self.patience, self.start = task.objective, patience, start

    def on_train_begin(self, logs=None):
        self.epochs = BestEpoch(self.objective, self.patience)
        self.weights: list[np.ndarray] | None = None
        self.best_epoch: int | None = None
        if self.start is not None:
            self._judge(self.start.score()[0])

    def on_epoch_end(self, epoch, logs=None):
        # Where no score is finite, the last epoch's weights are left.
        if self._judge(logs) or self.weights is None:
            self.best_epoch = epoch

    def _judge(self, logs) -> bool:
        is_better = self.epochs.judge(logs)
        if is_better:
            self.weights = self.model.get_weights()
        elif self.epochs.is_over:
            self.model.stop_training = True
        return is_better

    def on_train_end(self, logs=None):
        if self.weights is not None:
            self.model.set_weights(self.weights)


class EpochBar(keras.callbacks.Callback):
    """Epochs done, time left, best score so far. Close it, for training may end in an error.

    Args:
        name: Text in front.
        objective: What has the name of a score and its direction; None tells of no score.
        verbose: 0 shows nothing.
    """

    def __init__(self, name: str, objective: Any, verbose: int | bool = 1):
        super().__init__()
        self.name, self.objective, self.verbose = name, objective, verbose
        self.bar: Progress[int] | None = None

    def on_train_begin(self, logs=None):
        self.close()
        epochs = range(self.params["epochs"])
        self.bar = progress(epochs, description=self.name, verbose=self.verbose)
        self.best: float | None = None
        self.bar.open()

    def on_epoch_end(self, epoch, logs=None):
        told = ""
        if self.objective is not None and self.objective.name in logs:
            score = float(logs[self.objective.name])
            better = max if self.objective.direction == "max" else min
            self.best = score if self.best is None else better(self.best, score)
            told = f"best {self.objective.name} {self.best:.4f}"
        self.bar.count = epoch + 1
        self.bar.note(told)

    def close(self):
        """Leaves the last state to be read."""
        if self.bar is not None:
            self.bar.close()
