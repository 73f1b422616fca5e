"""A stop where training scores leave validation scores behind, and a score that counts both."""

from __future__ import annotations

from typing import Any

import keras


class OverfitGapStopping(keras.callbacks.Callback):
    """Stops when training score minus validation score has grown so many epochs running.

    The last epoch is where overfitting has begun: its scores can be held against each other, as
    `overfit_score` does. `keras.Model.fit` also ends with its weights, `kfusion.fit` with those of
    the best epoch.

    Args:
        patience: Int, epochs in a row in which the gap grows.
        metric: Name of a metric that is better when larger; "val_" in front names the validation's.

    Raises:
        ValueError: If `patience` is below 1, or epochs do not log both metrics: lists those that
            they do.
    """

    def __init__(self, patience: int = 3, metric: str = "accuracy"):
        super().__init__()
        if patience < 1:
            raise ValueError(f"`patience` must be 1 or more. Received: {patience}.")
        self.patience = patience
        self.metric = metric

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.stopped_epoch: int | None = None
        self._gap: float | None = None
        self._grown = 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        for name in (self.metric, f"val_{self.metric}"):
            if name not in logs:
                raise ValueError(f"`metric` {name!r} is not logged; what is: {sorted(logs)}.")
        gap = float(logs[self.metric]) - float(logs[f"val_{self.metric}"])
        self._grown = self._grown + 1 if self._gap is not None and gap > self._gap else 0
        self._gap = gap
        if self._grown >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True


def overfit_score(train: float, validation: float, *, chance: float = 0.5) -> float:
    """A validation score above chance that counts more, the less of it is overfitting.

    `(validation - chance) / train + (validation - chance)`: of two models that validate alike,
    above chance, the one that is worse on its training rows is better.

    Args:
        train: Score of the training rows, such as an accuracy, in (0, 1].
        validation: The same score of the validation rows.
        chance: What guessing reaches: 0.5 for an AUC or two even classes.

    Raises:
        ValueError: If `train` is not above 0.

    Example:
        >>> overfit_score(0.8, 0.7)
        0.45
        >>> overfit_score(1.0, 0.7)
        0.4
    """
    if not train > 0:
        raise ValueError(f"`train` must be above 0. Received: {train}.")
    above = validation - chance
    return round(above / train + above, 12)
