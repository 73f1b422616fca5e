"""The losses that a model is trained by, output by output."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from kfusion.doctor.case import Case
from kfusion.doctor.model_runs import prediction_name, told
from kfusion.doctor.undecided import UndecidableError
from kfusion.models.building import PREDICTION


@dataclasses.dataclass(frozen=True)
class Term:
    """The loss of one output.

    Attributes:
        output: Name of the output.
        loss: Keras loss, from targets and predictions to a number.
        weight: Float.
    """

    output: str
    loss: keras.losses.Loss
    weight: float = 1.0

    @property
    def name(self) -> str:
        """As in `keras.losses`: "binary_crossentropy" for the function and the class alike."""
        function = getattr(self.loss, "fn", None)
        return getattr(function, "__name__", None) or type(self.loss).__name__

    @property
    def from_logits(self) -> bool:
        """Whether it takes logits."""
        keywords = getattr(self.loss, "_fn_kwargs", {})
        return bool(getattr(self.loss, "from_logits", keywords.get("from_logits", False)))


def loss_terms(case: Case, outputs: Mapping[str, Any]) -> list[Term]:
    """The compiled losses of outputs by name; of a model not compiled, those of its task.

    Raises:
        UndecidableError: If a loss cannot be told.
    """
    model = case.model
    if getattr(model, "loss", None) is None:
        if len(outputs) > 1 and PREDICTION not in outputs:
            raise UndecidableError(
                f"{model.name!r} is not compiled and has the outputs {list(outputs)}: which is "
                "the prediction is not known"
            )
        return [Term(prediction_name(outputs), _as_loss(case.task.loss), case.task.loss_weight)]
    losses = _per_output(model.loss, outputs, "loss")
    given = getattr(getattr(model, "_compile_loss", None), "_user_loss_weights", None)
    weights = _per_output(given, outputs, "loss_weights")
    return [
        Term(name, _as_loss(loss), 1.0 if weights[name] is None else float(weights[name]))
        for name, loss in losses.items()
        if loss is not None
    ]


def data_loss(terms: list[Term], y: np.ndarray, outputs: Mapping[str, Any]) -> Any:
    """The weighted sum of the losses of predictions, without penalties, as a tensor."""
    with told("the loss does not take these targets and predictions"):
        values = [
            term.weight * keras.ops.mean(term.loss(y, outputs[term.output])) for term in terms
        ]
        return sum(values[1:], values[0])


def _per_output(given: Any, outputs: Mapping[str, Any], called: str) -> dict[str, Any]:
    if isinstance(given, Mapping):
        if unknown := sorted(set(given) - set(outputs)):
            raise UndecidableError(
                f"`{called}` names {unknown}, and the outputs are {list(outputs)}"
            )
        return {name: given.get(name) for name in outputs}
    if isinstance(given, (list, tuple)):
        if len(given) != len(outputs):
            raise UndecidableError(
                f"`{called}` has {len(given)} entries for {len(outputs)} output(s)"
            )
        return dict(zip(outputs, given, strict=True))
    return dict.fromkeys(outputs, given)


def _as_loss(given: Any) -> keras.losses.Loss:
    with told(f"the loss {given!r} is unknown"):
        loss = keras.losses.get(given)
    if isinstance(loss, keras.losses.Loss):
        return loss
    # As `compile` does with a function.
    return _FunctionLoss(loss)


class _FunctionLoss(keras.losses.Loss):
    """A function of targets and predictions as a loss."""

    def __init__(self, fn: Callable):
        super().__init__(name=getattr(fn, "__name__", "loss"))
        self.fn = fn

    def call(self, y_true, y_pred):
        if len(y_true.shape) + 1 == len(y_pred.shape) and y_pred.shape[-1] == 1:
            y_true = keras.ops.expand_dims(y_true, -1)
        return self.fn(y_true, y_pred)
