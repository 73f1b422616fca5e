"""The scores of each kind of task by name: how to compute one, and which way is better."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from kfusion import metrics


class Score(NamedTuple):
    """One score of whole sets of rows.

    Attributes:
        name: As in tables and logs.
        direction: "max" or "min".
        function: `(y, answers, weights) -> float`; answers are `(rows, classes)` probabilities, or
            `(rows,)` values of a regression; weights `(rows,)` or None.
        by_rank: Whether only the order of the predictions counts.
    """

    name: str
    direction: str
    function: Callable[[np.ndarray, np.ndarray, np.ndarray | None], float]
    by_rank: bool = False

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.direction == "max" else -1

    @property
    def limits(self) -> tuple[float, float]:
        """What no value of it passes: 1 where more is better, 0 where less is."""
        return (-math.inf, 1.0) if self.direction == "max" else (0.0, math.inf)


def _positive(metric, y, answers, weights=None) -> float:
    return metric(y, answers[:, 1], weights=weights)


def _class(metric, y, answers, weights=None) -> float:
    return metric(y, answers.argmax(axis=1), weights=weights)


def _f1(y, answers, weights=None) -> float:
    predicted = answers.argmax(axis=1)
    return metrics.f1(y, predicted, num_classes=answers.shape[1], weights=weights)


_OF_CLASSES = [
    Score("log_loss", "min", metrics.log_loss),
    Score("brier", "min", metrics.brier),
    Score("ece", "min", metrics.expected_calibration_error),
    Score("accuracy", "max", partial(_class, metrics.accuracy)),
    Score("balanced_accuracy", "max", partial(_class, metrics.balanced_accuracy)),
    Score("f1", "max", _f1),
]
_BINARY = [
    Score("auc", "max", partial(_positive, metrics.roc_auc), by_rank=True),
    Score("average_precision", "max", partial(_positive, metrics.average_precision), by_rank=True),
    Score(
        "sensitivity_at_90_specificity",
        "max",
        partial(_positive, metrics.sensitivity_at_specificity),
        by_rank=True,
    ),
    *_OF_CLASSES,
]
_MULTICLASS = [
    Score("auc", "max", metrics.macro_roc_auc),
    Score("weighted_auc", "max", metrics.weighted_roc_auc),
    *_OF_CLASSES,
]
_REGRESSION = [
    Score("rmse", "min", metrics.root_mean_squared_error),
    Score("mae", "min", metrics.mean_absolute_error),
    Score("r2", "max", metrics.r2),
]
SCORES = {
    kind: {score.name: score for score in scores}
    for kind, scores in {
        "binary": _BINARY,
        "multiclass": _MULTICLASS,
        "regression": _REGRESSION,
    }.items()
}


def get_score(kind: str, name: str) -> Score:
    """Returns a score of a kind of task by name.

    Raises:
        ValueError: If the kind has no such score.
    """
    if name not in SCORES[kind]:
        raise ValueError(
            f"`score` must be one of {list(SCORES[kind])} for a {kind} task. Received: "
            f"score={name!r}."
        )
    return SCORES[kind][name]
