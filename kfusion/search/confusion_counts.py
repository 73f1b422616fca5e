"""Which classes a trial's model takes for which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kfusion.data.rows import is_several
from kfusion.evidence.curves import confusion
from kfusion.models.building import PREDICTION
from kfusion.models.prediction import EVALUATION_BATCH, predict_batches


def count_confusion(model: keras.Model, validation_data: Any) -> np.ndarray | None:
    """Counts true classes (rows) against predicted ones (columns) of the validation rows.

    One unit is a probability, or a logit if some lie outside of 0 to 1; of more units the largest
    is the class.

    Args:
        model: A `keras.Model` of one output, or of one called "prediction" among others.
        validation_data: `(x, y)`, or with weights behind; y as `(rows,)` labels from 0 or one-hot.

    Returns:
        `(classes, classes)` ints, or None if the rows are no arrays, or their targets no classes.
    """
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) < 2:
        return None
    x, y = validation_data[:2]
    if not isinstance(y, (np.ndarray, list)) or is_several(y):
        return None
    y = np.asarray(y)
    if y.dtype.kind not in "biuf" or not (y == np.round(y)).all():
        return None
    outputs = _predict(model, x)
    if outputs is None:
        return None
    labels = _labels(y, outputs.shape[1])
    if labels is None:
        return None
    if outputs.shape[1] == 1:
        is_probability = outputs.min() >= 0 and outputs.max() <= 1
        predicted = (outputs[:, 0] > (0.5 if is_probability else 0.0)).astype(int)
    else:
        predicted = outputs.argmax(axis=1)
    return confusion(labels, predicted, max(2, outputs.shape[1]))


def _labels(y: np.ndarray, units: int) -> np.ndarray | None:
    """Labels from 0, or None if there are none."""
    if y.ndim == 2 and y.shape[1] == units > 1:
        one_hot = np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()
        return y.argmax(axis=1) if one_hot else None
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or not np.isin(y, range(max(2, units))).all():
        return None
    return y.astype(int)


def _predict(model: keras.Model, x: Any) -> np.ndarray | None:
    """`(rows, units)`, or None if the model has several outputs or predicts what is no vector."""
    if isinstance(x, Mapping):
        known = getattr(model, "inputs", None)
        names = [tensor.name for tensor in known] if known else list(x)
        # Keys that the model does not use are left out, as in `fit`.
        inputs = {name: x[name] for name in names} if set(names) <= set(x) else dict(x)
    else:
        parts = x if is_several(x) else [x]
        inputs = {str(i): np.asarray(part) for i, part in enumerate(parts)}
    outputs = getattr(model, "output", None)
    if isinstance(outputs, (list, tuple)) or (
        isinstance(outputs, Mapping) and PREDICTION not in outputs
    ):
        return None
    predictions = predict_batches(model, inputs, EVALUATION_BATCH)
    if predictions.ndim not in (1, 2) or not np.isfinite(predictions).all():
        return None
    return predictions.reshape(len(predictions), -1)
