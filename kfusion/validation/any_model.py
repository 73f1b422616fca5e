"""Asking a fitted model of any kind what it predicts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from kfusion.data.fusion_data import FusionData
from kfusion.tasks import Task


def predict_any(model: Any, x: Any, task: Task, num_rows: int) -> np.ndarray:
    """Returns what a model of any kind predicts for rows, `(rows, units)`, checked.

    Raises:
        TypeError: If it is nothing that can predict.
        ValueError: If its classes are not the task's in their order, or a prediction is wrong.
    """
    keras = sys.modules.get("keras")
    if keras is not None and isinstance(model, keras.Model):
        from kfusion.models.prediction import predict

        x = x.x if isinstance(x, FusionData) else x
        predictions = predict(model, x) if isinstance(x, Mapping) else model.predict(x, verbose=0)
    elif hasattr(model, "predict_proba") and task.kind != "regression":
        _check_classes(model, task)
        predictions = model.predict_proba(x)
    elif hasattr(model, "classes_") and task.kind == "regression":
        raise ValueError("The model is a classifier; the task is a regression.")
    elif hasattr(model, "predict") and task.kind == "regression":
        predictions = model.predict(x)
    elif callable(model):
        predictions = model(x)
    else:
        raise TypeError(
            "`fit` must return a Keras model, an object with `predict_proba` (`predict` for a "
            f"regression), or a callable. It returned {model!r}."
        )
    return task.check_predictions(predictions, num_rows)


def _check_classes(model: Any, task: Task) -> None:
    classes = getattr(model, "classes_", None)
    wanted = np.arange(len(task.class_names))
    if classes is not None and not np.array_equal(classes, wanted):
        raise ValueError(
            f"The model's classes are {np.asarray(classes).tolist()}; the task's labels are "
            f"{wanted.tolist()}: fit it on the labels as given, all of them."
        )
