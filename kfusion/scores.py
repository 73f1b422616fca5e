"""The scores of each kind of task by name: how to compute one, and which way is better."""

from __future__ import annotations

from collections.abc import Callable
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


def _of_positive(metric) -> Callable[..., float]:
    return lambda y, answers, weights=None: metric(y, answers[:, 1], weights=weights)


def _of_class(metric) -> Callable[..., float]:
    return lambda y, answers, weights=None: metric(y, answers.argmax(axis=1), weights=weights)


def _of_answers(metric) -> Callable[..., float]:
    return lambda y, answers, weights=None: metric(y, answers, weights=weights)


def _f1(y, answers, weights=None) -> float:
    predicted = answers.argmax(axis=1)
    return metrics.f1(y, predicted, num_classes=answers.shape[1], weights=weights)


_OF_CLASSES = [
    Score("log_loss", "min", _of_answers(metrics.log_loss)),
    Score("brier", "min", _of_answers(metrics.brier)),
    Score("ece", "min", _of_answers(metrics.expected_calibration_error)),
    Score("accuracy", "max", _of_class(metrics.accuracy)),
    Score("balanced_accuracy", "max", _of_class(metrics.balanced_accuracy)),
    Score("f1", "max", _f1),
]
_BINARY = [
    Score("auc", "max", _of_positive(metrics.roc_auc), by_rank=True),
    Score("average_precision", "max", _of_positive(metrics.average_precision), by_rank=True),
    Score(
        "sensitivity_at_90_specificity",
        "max",
        _of_positive(metrics.sensitivity_at_specificity),
        by_rank=True,
    ),
    *_OF_CLASSES,
]
_MULTICLASS = [
    Score("auc", "max", _of_answers(metrics.macro_roc_auc)),
    Score("weighted_auc", "max", _of_answers(metrics.weighted_roc_auc)),
    *_OF_CLASSES,
]
_REGRESSION = [
    Score("rmse", "min", _of_answers(metrics.root_mean_squared_error)),
    Score("mae", "min", _of_answers(metrics.mean_absolute_error)),
    Score("r2", "max", _of_answers(metrics.r2)),
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
