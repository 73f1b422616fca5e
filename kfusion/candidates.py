"""Models trained side by side on one split: each input alone, fusions, the best of a search."""

from __future__ import annotations

import dataclasses
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np

from kfusion.branches import image_branch, tabular_branch
from kfusion.fusion_data import FusionData
from kfusion.models import build_fusion_model, build_unimodal_model
from kfusion.prediction import evaluate
from kfusion.search.hypermodel import FusionHyperModel
from kfusion.search.running import search_fusion
from kfusion.tasks import Task
from kfusion.training import fit

IMAGE_ONLY, TABLE_ONLY, SEARCHED = "image only", "table only", "best searched"


@dataclasses.dataclass
class Candidate:
    """A trained model and its exact scores on the validation rows.

    Attributes:
        name: What it is called in tables.
        model: The trained `keras.Model`.
        scores: As from `Task.scores`.
        seconds: Float, how long building and training took.
        details: What else is worth knowing, such as the hyperparameters found.
    """

    name: str
    model: keras.Model
    scores: dict[str, float]
    seconds: float
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model."""
        return {
            "name": self.name,
            **{name: _rounded(score) for name, score in self.scores.items()},
            "seconds": round(self.seconds, 1),
            **self.details,
        }


def branch_builders(train: FusionData, **image_keywords: Any) -> dict[str, Callable[..., Any]]:
    """Builders of an image and a tabular branch that suit the training rows."""
    return {
        "image": partial(image_branch, train.image_shape, **image_keywords),
        "tabular": partial(tabular_branch, train.schema),
    }


def fit_candidates(
    train: FusionData,
    validation: FusionData,
    *,
    fusions: Sequence[str],
    builders: Mapping[str, Callable[..., keras.Model]],
    seed: int = 0,
    **keywords: Any,
) -> list[Candidate]:
    """Trains image only, table only and each fusion on the same rows, with the same head.

    Args:
        train: Training rows.
        validation: Validation rows with the same schema.
        fusions: Names of fusions.
        builders: As from `branch_builders`; called anew for each candidate.
        seed: Int; every candidate starts from it.
        **keywords: For `fit`.

    Returns:
        `Candidate` objects in that order. One whose training diverges is left out with a warning.

    Raises:
        RuntimeError: If the training of every candidate diverges.
    """
    task = train.task
    makers = {
        IMAGE_ONLY: lambda name: build_unimodal_model(builders["image"](), task=task, name=name),
        TABLE_ONLY: lambda name: build_unimodal_model(builders["tabular"](), task=task, name=name),
    }
    for fusion in fusions:
        makers[fusion] = partial(_build_fused, builders, task, fusion)
    x, validation_data = train.x, (validation.x, validation.y)
    candidates = []
    for name, make in makers.items():
        started = time.perf_counter()
        keras.utils.set_random_seed(seed)
        model = make(name.replace(" ", "_"))
        try:
            fit(
                model,
                x,
                train.y,
                task=task,
                validation_data=validation_data,
                seed=seed,
                **keywords,
            )
        except RuntimeError as error:
            warnings.warn(f"Left out: {error}", stacklevel=2)
            continue
        candidates.append(_judge(name, model, validation_data, task, started))
    if not candidates:
        raise RuntimeError(f"The training of every candidate diverged: {list(makers)}.")
    return candidates


def search_candidate(
    train: FusionData,
    validation: FusionData,
    folder: str | os.PathLike,
    *,
    builders: Mapping[str, Callable[..., keras.Model]],
    space: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> Candidate:
    """Searches fused models with KerasTuner and returns the best.

    Args:
        train: Training rows.
        validation: Validation rows with the same schema.
        folder: Folder for the trials.
        builders: As from `branch_builders`.
        space: Keywords of `FusionHyperModel` that narrow its space.
        **keywords: For `search_fusion`.

    Returns:
        `Candidate` whose details are the hyperparameters found and the number of trials.

    Raises:
        ValueError, RuntimeError: As `search_fusion`.
    """
    started = time.perf_counter()
    task = train.task
    validation_data = (validation.x, validation.y)
    hypermodel = FusionHyperModel(builders, task=task, **(space or {}))
    tuner = search_fusion(
        hypermodel,
        train.x,
        train.y,
        validation_data=validation_data,
        directory=folder,
        **keywords,
    )
    with warnings.catch_warnings():
        # The trial's optimizer had a schedule, the rebuilt model's has none; only weights matter.
        warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
        model = tuner.get_best_models(1)[0]
    found = tuner.get_best_hyperparameters(1)[0].values
    candidate = _judge(SEARCHED, model, validation_data, task, started)
    candidate.details = {"hyperparameters": found, "trials": len(tuner.oracle.trials)}
    return candidate


def best_candidate(candidates: Sequence[Candidate], task: Task) -> Candidate:
    """The candidate with the best objective on the validation rows."""
    score = _score_name(task)
    sign = 1 if task.objective.direction == "max" else -1
    return max(candidates, key=lambda candidate: sign * candidate.scores[score])


def comparison_table(candidates: Sequence[Candidate], task: Task) -> str:
    """A text table of the candidates' exact validation scores, with the verdict below."""
    names = list(candidates[0].scores)
    width = max(len(candidate.name) for candidate in candidates)
    lines = [" " * width + "".join(f"{name:>12}" for name in names)]
    for candidate in candidates:
        scores = "".join(f"{candidate.scores[name]:12.4f}" for name in names)
        lines.append(f"{candidate.name:<{width}}{scores}")
    return "\n".join([*lines, verdict(candidates, task)])


def verdict(candidates: Sequence[Candidate], task: Task) -> str:
    """One sentence: whether the best fusion beats the best single input on these rows."""
    single = [c for c in candidates if c.name in (IMAGE_ONLY, TABLE_ONLY)]
    fused = [c for c in candidates if c.name not in (IMAGE_ONLY, TABLE_ONLY)]
    if not (single and fused):
        return "There is no fusion and single input to compare."
    score = _score_name(task)
    best_single, best_fused = best_candidate(single, task), best_candidate(fused, task)
    gain = best_fused.scores[score] - best_single.scores[score]
    better = best_candidate([best_single, best_fused], task) is best_fused and gain
    return (
        f"{best_fused.name} is {'better' if better else 'not better'} than {best_single.name}: "
        f"{score} {gain:+.4g} on these validation rows, which also chose them"
    )


def _build_fused(builders, task: Task, fusion: str, name: str) -> keras.Model:
    branches = {branch: build() for branch, build in builders.items()}
    return build_fusion_model(branches, task=task, fusion=fusion, name=name)


def _judge(name: str, model, validation_data, task: Task, started: float) -> Candidate:
    scores = evaluate(model, *validation_data, task=task)
    return Candidate(name, model, scores, time.perf_counter() - started)


def _score_name(task: Task) -> str:
    """The objective as `Task.scores` names it."""
    return task.objective.name.removeprefix("val_")


def _rounded(score: float) -> float | None:
    """Six decimals; None (JSON has no NaN) where a score could not be computed."""
    return round(score, 6) if np.isfinite(score) else None
