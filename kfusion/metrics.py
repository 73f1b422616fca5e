"""Exact scores of predictions over whole sets of rows."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score


def roc_auc(y: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive row scores above a negative one.

    Exact over all rows, ties counted half (`keras.metrics.AUC` bins the scores). NaN if only
    one class is there, since no pair can be compared.

    Args:
        y: `(rows,)` of 0 and 1.
        scores: `(rows,)` floats, higher means more likely 1.
    """
    if np.min(y) == np.max(y):
        return float("nan")
    return float(roc_auc_score(y, scores))


def macro_roc_auc(y: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over the classes of the one-against-rest `roc_auc`; classes without rows are left out.

    Source: Provost & Domingos, 2000 (unweighted variant; see scikit-learn's `roc_auc_score`).

    Args:
        y: `(rows,)` ints from 0 to `classes - 1`.
        probabilities: `(rows, classes)` floats.
    """
    areas = [roc_auc(y == label, column) for label, column in enumerate(probabilities.T)]
    areas = [area for area in areas if not np.isnan(area)]
    return float(np.mean(areas)) if areas else float("nan")


def accuracy(y: np.ndarray, predicted: np.ndarray) -> float:
    """Share of rows whose predicted class, `(rows,)` ints, is the true one."""
    return float(np.mean(y == predicted))


def root_mean_squared_error(y: np.ndarray, predicted: np.ndarray) -> float:
    """Root of the mean squared difference, in the target's unit."""
    return float(np.sqrt(np.mean((y - predicted) ** 2)))


def mean_absolute_error(y: np.ndarray, predicted: np.ndarray) -> float:
    """Mean absolute difference, in the target's unit."""
    return float(np.mean(np.abs(y - predicted)))


def r2(y: np.ndarray, predicted: np.ndarray) -> float:
    """Coefficient of determination, `1 - residual / total` sum of squares; NaN for a constant y."""
    # Compared, not summed: the sum of squares of a constant y may miss 0 by rounding.
    if np.min(y) == np.max(y):
        return float("nan")
    return 1 - float(np.sum((y - predicted) ** 2) / np.sum((y - np.mean(y)) ** 2))


def log_loss(y: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean negative log-probability of the true class, probabilities bounded at 1e-7 like Keras.

    Args:
        y: `(rows,)` ints from 0 to `classes - 1`.
        probabilities: `(rows, classes)` floats.
    """
    true = np.take_along_axis(probabilities, np.asarray(y, np.int64)[:, None], axis=1)
    return float(-np.mean(np.log(np.clip(true, 1e-7, 1 - 1e-7))))
