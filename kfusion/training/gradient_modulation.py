"""The branch that is ahead of the others learns more slowly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kfusion.layers import GradientScale
from kfusion.models.building import GRADIENT, PREDICTION, answers_by_name
from kfusion.models.prediction import EVALUATION_BATCH, check_data, predict_batches
from kfusion.tasks import Task, as_task


class GradientModulation(keras.callbacks.Callback):
    """Scales down the gradients of branches that predict better than the others do.

    For models from `build_fusion_model(..., auxiliary_heads=True, gradient_scales=True)`. After
    each epoch `s_m` is the mean probability that the head of branch m alone gives to the right
    class, and `rho_m` is `s_m` divided by the mean of the other heads'. In the next epoch all
    gradients that reach branch m are multiplied by `1 - tanh(alpha * rho_m)` where `rho_m > 1`.
    The first epoch is not modulated.

    It is contested whether this helps, and optimizers that divide gradients by their own size
    (Adam and its kin) undo most of it: use it with `optimizer="sgd"`, and compare.

    Source: OGM of Peng et al., 2022, "Balanced Multimodal Learning via On-the-fly Gradient
    Modulation", arXiv:2203.15332. There the coefficients are those of each batch, and noise is
    added to the gradients (its "GE"), which is left out here.

    Args:
        x: Dict of arrays by input name, the rows to judge by: the training rows, or some of them.
        y: Their labels.
        task: `Task` or "binary".
        alpha: Float, 0 or more: how much is held back; 0 changes nothing.

    Raises:
        ValueError: If the task is a regression, which has no such probability, or `alpha` is
            below 0; when training begins, if the rows do not fit the model or the model was built
            otherwise.

    After training `coefficients` holds a dict by branch for each epoch: what the next one used.
    """

    def __init__(self, x: Mapping[str, Any], y: Any, *, task: Task | str, alpha: float = 0.5):
        super().__init__()
        self.task = as_task(task)
        if self.task.kind == "regression":
            raise ValueError(
                "Gradients are modulated by the probability of the right class; a regression has "
                "none."
            )
        if not alpha >= 0:
            raise ValueError(f"`alpha` must be 0 or more. Received: alpha={alpha}.")
        self.x, self.y, self.alpha = x, y, alpha
        self.coefficients: list[dict[str, float]] = []

    def on_train_begin(self, logs=None):
        scales = [layer for layer in self.model.layers if isinstance(layer, GradientScale)]
        self._scales = {layer.name.removesuffix(f"_{GRADIENT}"): layer for layer in scales}
        self._heads = [f"{branch}_{PREDICTION}" for branch in self._scales]
        heads = self.model.output if answers_by_name(self.model) else {}
        if not scales or set(self._heads) - set(heads):
            raise ValueError(
                f"{self.model.name!r} has no branches to modulate: build it with "
                "`auxiliary_heads=True, gradient_scales=True`."
            )
        self._inputs, self._labels = check_data(self.model, self.x, self.y, self.task)

    def on_epoch_end(self, epoch, logs=None):
        predictions = predict_batches(self.model, self._inputs, EVALUATION_BATCH, self._heads)
        scores = self._right(predictions.reshape(len(predictions), len(self._heads), -1))
        coefficients = modulation_coefficients(scores, self.alpha)
        self.coefficients.append(dict(zip(self._scales, map(float, coefficients), strict=True)))
        for layer, coefficient in zip(self._scales.values(), coefficients, strict=True):
            layer.coefficient.assign(coefficient)

    def _right(self, predictions: np.ndarray) -> np.ndarray:
        """Mean probability of the right class, by head."""
        if self.task.kind == "binary":
            predictions = np.concatenate([1 - predictions, predictions], axis=-1)
        return predictions[np.arange(len(predictions)), :, self._labels].mean(axis=0)


def modulation_coefficients(scores: np.ndarray, alpha: float) -> np.ndarray:
    """Returns `1 - tanh(alpha * rho)` where `rho`, score by mean of the others, exceeds 1; else 1.

    Args:
        scores: `(branches,)` positive floats.
        alpha: Float, 0 or more.
    """
    others = (scores.sum() - scores) / (len(scores) - 1)
    ratios = scores / others
    return np.where(ratios > 1, 1 - np.tanh(alpha * ratios), 1.0)
