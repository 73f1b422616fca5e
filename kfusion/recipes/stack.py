"""Trained models, frozen and stacked so that the result starts as the best of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pandas as pd

from kfusion.evidence.disagreements import which_rows
from kfusion.evidence.paired_comparison import PairedComparison, compare_predictions
from kfusion.models.building import prediction_model
from kfusion.models.prediction import predict
from kfusion.models.residual import build_residual_model
from kfusion.models.trained_branches import branch_from
from kfusion.models.trained_models import read_model
from kfusion.tasks import Task, as_task
from kfusion.training.fitting import fit


@dataclasses.dataclass(frozen=True, eq=False)
class Stack:
    """Trained models joined, and what that brought. Made by `stack_frozen_models`.

    Attributes:
        model: The stack, a `keras.Model` from a dict of inputs.
        best: Name of the sub-model that is best on the validation rows, from which it starts.
        scores: By sub-model, the task's score (AUC or RMSE) of the validation rows.
        score: The stack's.
        judged_on: "test" or "validation": the rows of all that follows.
        comparison: `PairedComparison` of the stack with the best sub-model.
        disagreements: DataFrame of one row per sub-model other than the best: the rank
            correlation of what the two say (of classes: of the true one's probability), and how
            many rows it alone gets right and the best alone gets right. Of two classes, each
            calls as many rows positive as are; of a regression, the nearer one is right.
        rows: DataFrame of the rows that the stack changes most against the best; see
            `kfusion.which_rows`.
        history: Values of each epoch by name.
    """

    model: keras.Model
    best: str
    scores: dict[str, float]
    score: float
    judged_on: str
    comparison: PairedComparison
    disagreements: pd.DataFrame
    rows: pd.DataFrame
    history: dict[str, list[float]]

    def __repr__(self) -> str:
        return f"<Stack of {len(self.scores)}: {self.comparison.verdict}>"

    def summary(self) -> str:
        """Scores, disagreements and the verdict as text."""
        shown = {**self.scores, "stack": self.score}
        lines = [f"{self.comparison.score} on validation rows:"]
        lines += [f"  {name}: {value:.4f}" for name, value in shown.items()]
        lines += ["", f"against {self.best} on {self.judged_on} rows:"]
        lines += [self.disagreements.round(4).to_string(index=False), ""]
        if self.judged_on == "validation":
            lines.append("The best and the epoch were chosen on these rows: test rows tell more.")
        return "\n".join([*lines, self.comparison.verdict])


def stack_frozen_models(
    models: Mapping[str, keras.Model | str | os.PathLike],
    x: Mapping[str, Any],
    y: Any,
    *,
    task: Task | str,
    validation_data: tuple[Mapping[str, Any], Any],
    test_data: tuple[Mapping[str, Any], Any] | None = None,
    groups: Any = None,
    input_names: Mapping[str, str] | None = None,
    units: int = 64,
    dropout: float = 0.0,
    l2: float = 0.0,
    balanced_batches: bool = False,
    epochs: int = 30,
    seed: int = 0,
    verbose: int | bool = 1,
    **keywords: Any,
) -> Stack:
    """Joins models trained on the same rows; the result is never below the best on validation.

    Each model is cut before its last Dense layer and frozen: its weights cannot change, Dropout
    and BatchNormalization are off, which `requires_grad = False` alone does not do. A new head on
    the features, side by side, has to learn again what the best model knows already. Here the
    answer is that of the best plus a correction from all features that starts at 0, and the
    start competes with the epochs.

    Args:
        models: Two or more trained models, or `.keras` files, by name, each from one input to a
            prediction of the task; an image is the input "image", a table "tabular".
        x: Dict of arrays by input name.
        y: `(rows,)` labels from 0, or regression targets.
        task: `Task`, "binary" or "regression".
        validation_data: `(x, y)` of the rows that choose the best model and the epoch.
        test_data: `(x, y)` of rows that chose nothing, for the comparison. Without them it is made
            on the validation rows, which favour the stack: its epoch was chosen there.
        groups: `(rows,)` values of the rows that judge: those that share one are resampled
            together.
        input_names: Name of the input by model, where it is to be another.
        units: Int, width of the correction's hidden layer.
        dropout: Float in [0, 1), rate after it.
        l2: Float, L2 penalty on its kernel.
        balanced_batches: Whether each batch holds all classes equally often, for rare ones;
            probabilities keep to the true rates.
        epochs: Int, the most passes over the training rows.
        seed: Int.
        verbose: 0 hides the progress.
        **keywords: For `kfusion.fit`, such as `patience` or `learning_rate`.

    Returns:
        `Stack`.

    Raises:
        TypeError, ValueError: As of `build_residual_model`, `fit` and `compare_predictions`.
    """
    task = as_task(task)
    judge = task.score()
    members = {
        name: branch_from(
            prediction_model(read_model(model)), input_name=(input_names or {}).get(name)
        )
        for name, model in models.items()
    }
    scores = {name: _score(model, *validation_data, task) for name, model in members.items()}
    best = max(scores, key=lambda name: judge.sign * scores[name])
    keras.utils.set_random_seed(seed)
    stack = build_residual_model(
        models,
        task=task,
        best=best,
        units=units,
        dropout=dropout,
        l2=l2,
        input_names=input_names,
        name="stack",
    )
    history = fit(
        stack,
        x,
        y,
        task=task,
        validation_data=validation_data,
        balanced_batches=balanced_batches,
        epochs=epochs,
        seed=seed,
        verbose=verbose,
        **keywords,
    )
    judged_on = "validation" if test_data is None else "test"
    judged_x, judged_y = test_data or validation_data
    said = {name: predict(model, judged_x) for name, model in members.items()}
    ours = predict(stack, judged_x)
    return Stack(
        model=stack,
        best=best,
        scores=scores,
        score=_score(stack, *validation_data, task),
        judged_on=judged_on,
        comparison=compare_predictions(
            judged_y, ours, said[best], task=task, groups=groups, names=("the stack", best)
        ),
        disagreements=_disagreements(judged_y, said, best, task),
        rows=which_rows(judged_y, ours, said[best], task=task),
        history=history.history,
    )


def _score(model: keras.Model, x: Mapping[str, Any], y: Any, task: Task) -> float:
    (value,) = task.scores(
        task.check_targets(y), predict(model, x), names=[task.score().name]
    ).values()
    return value


def _disagreements(y: Any, said: Mapping[str, np.ndarray], best: str, task: Task) -> pd.DataFrame:
    """How each sub-model differs from the best one, row by row."""
    y = task.check_targets(y)
    decided = {name: _decide(y, each, task) for name, each in said.items()}
    of_truth = {name: pd.Series(_of_truth(y, each, task)) for name, each in said.items()}
    found = []
    for name in [name for name in said if name != best]:
        changes = which_rows(y, decided[name], decided[best], task=task, num_rows=None)
        found.append(
            {
                "model": name,
                "rank_correlation": of_truth[name].corr(of_truth[best], method="spearman"),
                "it_alone_right": int(changes["corrected"].sum()),
                "best_alone_right": int(changes["broken"].sum()),
                "rows": len(y),
            }
        )
    return pd.DataFrame(found)


def _decide(y: np.ndarray, predictions: np.ndarray, task: Task) -> np.ndarray:
    """Of two classes, 1 for as many rows as are: of a rare one, few probabilities pass a half."""
    if task.kind != "binary":
        return predictions
    return (predictions > np.quantile(predictions, 1 - y.mean())).astype(np.float64)


def _of_truth(y: np.ndarray, predictions: np.ndarray, task: Task) -> np.ndarray:
    """`(rows,)` probabilities of the true class, or values."""
    answers = task.answers(predictions)
    return answers if answers.ndim == 1 else answers[np.arange(len(y)), y]
