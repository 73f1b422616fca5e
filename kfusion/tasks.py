"""What is predicted: its head, loss, scores and objective, decided once, without Keras."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kfusion.scores import SCORES, Score, get_score

TASK_KINDS = tuple(SCORES)
MAX_INFERRED_CLASSES = 20
# Scores that are cheap enough to be computed after every epoch, beside the loss.
EPOCH_SCORES = {
    "binary": ("auc", "accuracy"),
    "multiclass": ("auc", "accuracy"),
    "regression": ("rmse", "mae", "r2"),
}


class Objective(NamedTuple):
    """What a training or search improves: the name in the logs, and "max" or "min"."""

    name: str
    direction: str


@dataclasses.dataclass(frozen=True)
class Task:
    """A prediction target. Made by `task`.

    Attributes:
        kind: "binary", "multiclass" or "regression".
        class_names: Names in the order of the labels 0, 1, ...; empty for regression.
        class_rates: Share of each class among the training rows, or None if not known.
        center: Float, mean of a regression target over the training rows, in its unit.
        spread: Float, its standard deviation.
    """

    kind: str
    class_names: tuple[str, ...] = ()
    class_rates: tuple[float, ...] | None = None
    center: float = 0.0
    spread: float = 1.0

    @property
    def units(self) -> int:
        """Width of the head: one per class, or 1 for binary and regression."""
        return len(self.class_names) if self.kind == "multiclass" else 1

    @property
    def activation(self) -> str:
        """Keras activation of the head."""
        return {"binary": "sigmoid", "multiclass": "softmax", "regression": "linear"}[self.kind]

    @property
    def loss(self) -> str:
        """Keras loss."""
        return {
            "binary": "binary_crossentropy",
            "multiclass": "sparse_categorical_crossentropy",
            "regression": "mean_squared_error",
        }[self.kind]

    @property
    def loss_weight(self) -> float:
        """Factor that brings the loss to unit scale: `1 / spread**2` for regression, else 1."""
        return 1 / self.spread**2

    @property
    def objective(self) -> Objective:
        """What early stopping and searches improve: exact AUC, or RMSE in the target's unit."""
        if self.kind == "regression":
            return Objective("val_rmse", "min")
        return Objective("val_auc", "max")

    @property
    def output_bias(self) -> np.ndarray:
        """`(units,)` starting bias of the head, so that step 0 predicts the class rates.

        `log(p / (1 - p))` for binary, `log(p_k)` for classes; zeros if the rates are not known.
        """
        if self.kind == "regression" or self.class_rates is None:
            return np.zeros(self.units, np.float32)
        rates = np.clip(self.class_rates, 1e-4, 1 - 1e-4)
        if self.kind == "binary":
            rates = rates[1:] / rates[:1]
        return np.log(rates).astype(np.float32)

    @property
    def score_names(self) -> tuple[str, ...]:
        """The names of all scores of this kind of task, the objective's first."""
        return tuple(SCORES[self.kind])

    def score(self, name: str | None = None) -> Score:
        """Returns a score by name; by default the objective's."""
        return get_score(self.kind, name or self.objective.name.removeprefix("val_"))

    def probabilities(self, predictions: np.ndarray) -> np.ndarray:
        """Turns head outputs, `(rows, units)`, into `(rows, classes)` probabilities."""
        if self.kind == "binary":
            return np.concatenate([1 - predictions, predictions], axis=1)
        return predictions

    def answers(self, predictions: np.ndarray) -> np.ndarray:
        """Turns head outputs into what scores take: probabilities, or `(rows,)` values."""
        return predictions[:, 0] if self.kind == "regression" else self.probabilities(predictions)

    def scores(
        self,
        y: np.ndarray,
        predictions: np.ndarray,
        *,
        names: Sequence[str] | None = None,
        weights: np.ndarray | None = None,
    ) -> dict[str, float]:
        """Scores whole sets of predictions exactly.

        Args:
            y: `(rows,)` labels or target values.
            predictions: `(rows, units)` head outputs: probabilities or target values.
            names: Names of scores, of those in `kfusion.scores`; by default those of each epoch.
            weights: `(rows,)` floats, how much each row counts.

        Returns:
            By default `loss` (without penalties on weights), `auc` (macro, one against rest, for
            multiclass) and `accuracy`; or `loss`, `rmse`, `mae` and `r2`. All NaN if a prediction
            is not finite.
        """
        predictions = np.asarray(predictions, np.float64)
        wanted = ("loss", *EPOCH_SCORES[self.kind]) if names is None else tuple(names)
        if not np.isfinite(predictions).all():
            return dict.fromkeys(wanted, float("nan"))
        answers = self.answers(predictions)
        return {name: self._compute(name, y, answers, weights) for name in wanted}

    def _compute(self, name: str, y, answers, weights) -> float:
        if name != "loss":
            return self.score(name).function(y, answers, weights)
        if self.kind == "regression":
            return self.loss_weight * self._compute("rmse", y, answers, weights) ** 2
        return self._compute("log_loss", y, answers, weights)

    def check_targets(self, y: np.ndarray, name: str = "y") -> np.ndarray:
        """Returns `y` as `(rows,)` int32 labels or float32 values, or says what is wrong with it.

        Raises:
            ValueError: If `y` is not one-dimensional, is one-hot, holds text, NaN or infinite
                values, or labels that are not whole numbers from 0 to `classes - 1`. The message
                names the row.
        """
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if y.ndim != 1:
            is_one_hot = y.ndim == 2 and self.kind != "regression"
            hint = "; turn one-hot labels into `y.argmax(axis=1)`" if is_one_hot else ""
            raise ValueError(f"`{name}` must have shape (rows,). Received: shape={y.shape}{hint}.")
        if y.dtype.kind not in "biuf":
            raise ValueError(
                f"`{name}` must hold numbers: labels 0, 1, ... or a regression target. Received: "
                f"dtype={y.dtype}."
            )
        wrong = np.flatnonzero(~np.isfinite(y))
        if wrong.size:
            raise ValueError(f"`{name}` is {y[wrong[0]]} in row {wrong[0]} ({wrong.size} in all).")
        if self.kind == "regression":
            return self._as_float32(y, name)
        last = len(self.class_names) - 1
        wrong = np.flatnonzero((y != np.floor(y)) | (y < 0) | (y > last))
        if wrong.size:
            raise ValueError(
                f"`{name}` must hold the labels 0 to {last}, one per class of "
                f"{list(self.class_names)}. Received: {y[wrong[0]]} in row {wrong[0]} "
                f"({wrong.size} in all)."
            )
        return y.astype(np.int32)

    def check_predictions(
        self, predictions: Any, num_rows: int, name: str = "predictions", *, by_rank: bool = False
    ) -> np.ndarray:
        """Returns predictions of any origin as `(rows, units)` float64, or says what is wrong.

        Args:
            predictions: `(rows,)` or `(rows, 1)`: values, or probabilities of class 1; or
                `(rows, classes)` probabilities.
            num_rows: Int, how many rows there must be.
            name: How they are called in messages.
            by_rank: Whether only their order will count: then a binary task takes any finite
                scores, such as logits.

        Raises:
            ValueError: If the shape does not fit, or a prediction is not finite, no probability,
                or (for several columns) does not sum to 1 within 0.001. The message names the row.
        """
        values = np.asarray(predictions, np.float64)
        if values.ndim == 1:
            values = values[:, None]
        classes = len(self.class_names)
        widths = {"binary": (1, 2), "multiclass": (classes,), "regression": (1,)}[self.kind]
        if values.ndim != 2 or len(values) != num_rows or values.shape[1] not in widths:
            shapes = [f"({num_rows},)"] * (1 in widths)
            shapes += [f"({num_rows}, {width})" for width in widths]
            raise ValueError(
                f"`{name}` of a {self.kind} task must have shape {' or '.join(shapes)}. Received: "
                f"{np.shape(predictions)}."
            )
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if wrong.size:
            raise ValueError(f"`{name}` is not finite in row {wrong[0]} ({wrong.size} in all).")
        if self.kind == "regression":
            return values
        if not (by_rank and values.shape[1] == 1):
            wrong = np.flatnonzero(((values < 0) | (values > 1)).any(axis=1))
            if wrong.size:
                raise ValueError(
                    f"`{name}` must hold probabilities in 0-1. Received: "
                    f"{values[wrong[0]].tolist()} in row {wrong[0]} ({wrong.size} in all)."
                )
        if values.shape[1] > 1:
            sums = values.sum(axis=1)
            wrong = np.flatnonzero(abs(sums - 1) > 1e-3)
            if wrong.size:
                raise ValueError(
                    f"`{name}` must hold probabilities that sum to 1. They sum to "
                    f"{sums[wrong[0]]:.4g} in row {wrong[0]} ({wrong.size} in all)."
                )
        return values[:, 1:] if self.kind == "binary" and values.shape[1] == 2 else values

    @staticmethod
    def _as_float32(y: np.ndarray, name: str) -> np.ndarray:
        with np.errstate(over="ignore"):
            values = y.astype(np.float32)
        wrong = np.flatnonzero(np.isinf(values))
        if wrong.size:
            raise ValueError(
                f"`{name}` is {y[wrong[0]]:g} in row {wrong[0]} ({wrong.size} in all), too large "
                "for float32: predict it in a larger unit."
            )
        return values


def task(
    kind: str,
    *,
    y: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    num_classes: int | None = None,
) -> Task:
    """Says what is predicted, and with it the head, the loss, the scores and the objective.

    Args:
        kind: "binary", "multiclass" or "regression".
        y: `(rows,)` training labels or values. From these come the starting bias of the head
            (class rates) or the scale of a regression target. Without them it starts at zero.
        class_names: Names in the order of the labels; by default the labels themselves.
        num_classes: Int, in place of `class_names`, for multiclass.

    Returns:
        `Task`.

    Raises:
        TypeError: If `kind` is no string, such as labels given alone.
        ValueError: If the kind is unknown, the number of classes is not given or does not fit
            the kind, `y` does not fit the classes, or `y` holds one class or value only, or (if
            the number of classes is to be learned from it) leaves out a label.

    Example:
        >>> task("binary", y=[0, 0, 0, 1]).output_bias.round(3).tolist()
        [-1.0989999771118164]
        >>> task("multiclass", num_classes=3).objective
        Objective(name='val_auc', direction='max')
    """
    if not isinstance(kind, str):
        raise TypeError(
            f"`kind` must be one of {list(TASK_KINDS)}. Received: {type(kind).__name__}. Labels or "
            'values are given by name: `task("binary", y=y)`.'
        )
    if kind not in TASK_KINDS:
        raise ValueError(f"`kind` must be one of {list(TASK_KINDS)}. Received: kind={kind!r}.")
    if kind == "regression":
        if class_names or num_classes:
            raise ValueError("A regression has no classes.")
        made = Task(kind)
        if y is None:
            return made
        values = made.check_targets(y).astype(np.float64)
        check_variety(values)
        return Task(kind, center=float(values.mean()), spread=float(values.std()))
    names = _class_names(kind, y, class_names, num_classes)
    made = Task(kind, names)
    if y is None:
        return made
    labels = made.check_targets(y)
    check_variety(labels)
    rates = np.bincount(labels, minlength=len(names)) / labels.size
    return dataclasses.replace(made, class_rates=tuple(rates.tolist()))


def as_task(given: Task | str) -> Task:
    """Returns a `Task` for a `Task` or one of its kinds by name."""
    if isinstance(given, Task):
        return given
    if isinstance(given, str):
        return task(given)
    raise TypeError(f"`task` must be a Task or one of {list(TASK_KINDS)}. Received: {given!r}.")


def infer_task(y: Any) -> Task:
    """The task that targets tell by themselves: few whole numbers from 0 up are labels.

    Raises:
        ValueError: If `y` holds no numbers, one value only, a few whole numbers that are not
            the labels 0, 1, ..., or many that are: then `task=` must say what they are.
    """
    values = Task("regression").check_targets(y)
    check_variety(values)
    labels, counts = np.unique(values, return_counts=True)
    are_labels = np.array_equal(labels, np.arange(len(labels)))
    if are_labels and len(labels) > MAX_INFERRED_CLASSES and counts.min() > 1:
        raise ValueError(
            f"`y` holds the whole numbers 0 to {len(labels) - 1}, each several times: pass "
            '`task=kfusion.task("multiclass", y=y)` or `task="regression"`.'
        )
    if len(labels) > MAX_INFERRED_CLASSES or np.any(labels != np.floor(labels)):
        return task("regression", y=values)
    if not are_labels:
        raise ValueError(
            "`y` holds a few whole numbers that are not the labels 0, 1, ...: "
            f"{labels.tolist()}. Pass `task=` to say what they are."
        )
    if len(labels) == 2:
        return task("binary", y=values)
    return task("multiclass", y=values, num_classes=len(labels))


def _class_names(kind, y, class_names, num_classes) -> tuple[str, ...]:
    if class_names is not None:
        names = tuple(str(name) for name in class_names)
        if num_classes not in (None, len(names)):
            raise ValueError(f"There are {len(names)} class names but num_classes={num_classes}.")
    elif num_classes is not None:
        names = tuple(str(label) for label in range(num_classes))
    elif kind == "binary":
        names = ("0", "1")
    elif y is not None:
        # Checked as a regression target: the labels' own range is not known yet.
        Task("regression").check_targets(y)
        labels = np.unique(y)
        if not np.array_equal(labels, np.arange(labels.size)):
            raise ValueError(
                "Without `class_names` or `num_classes`, `y` must hold each label from 0 up at "
                f"least once. Received: {labels[:20].tolist()}."
            )
        names = tuple(str(label) for label in range(labels.size))
    else:
        raise ValueError('A "multiclass" task needs `class_names`, `num_classes` or `y`.')
    if len(set(names)) < len(names):
        raise ValueError(f"Class names must be unique. Received: {list(names)}.")
    if kind == "binary" and len(names) != 2:
        raise ValueError(f'A "binary" task has 2 classes. Received: {list(names)}.')
    if kind == "multiclass" and len(names) < 2:
        raise ValueError(f'A "multiclass" task has at least 2 classes. Received: {list(names)}.')
    return names


def check_variety(y: np.ndarray) -> None:
    """Raises `ValueError` if targets are empty or all the same."""
    if not y.size:
        raise ValueError("`y` has no rows.")
    if y.min() == y.max():
        raise ValueError(
            f"`y` holds one class or value only ({y[0]} in all {y.size} rows): there is nothing to "
            "learn."
        )
