"""Models trained side by side on one split: each input alone, fusions, the best of a search."""

from __future__ import annotations

import dataclasses
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np

from kfusion.data.fusion_data import FusionData
from kfusion.data.input_names import only
from kfusion.evidence.estimates import JudgedRows
from kfusion.evidence.paired_comparison import compare_folds
from kfusion.models.prediction import predict
from kfusion.search.hypermodel import FusionHyperModel
from kfusion.search.running import search_fusion
from kfusion.tasks import Task
from kfusion.training.fitting import fit
from kfusion.validation.baselines import build_fused, build_single, default_branches
from kfusion.validation.finished_parts import FinishedParts, part_name

SEARCHED = "best searched"


@dataclasses.dataclass
class Candidate:
    """A trained model and how it does on the validation rows.

    Attributes:
        name: What it is called in tables.
        model: The trained `keras.Model`.
        scores: As from `Task.scores`.
        seconds: Float, how long building and training took; of a search that went on after it was
            stopped, from there on.
        predictions: `(rows, units)` of the validation rows.
        details: What else is worth knowing, such as the hyperparameters found.
        history: Values of each epoch by metric; empty of one that a search found.
    """

    name: str
    model: keras.Model
    scores: dict[str, float]
    seconds: float
    predictions: np.ndarray
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    history: dict[str, list[float | None]] = dataclasses.field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model, its predictions and its history."""
        return {
            "name": self.name,
            **{name: _rounded(score) for name, score in self.scores.items()},
            "seconds": round(self.seconds, 1),
            **self.details,
        }


def fit_candidates(
    train: FusionData,
    validation: FusionData,
    *,
    fusions: Sequence[str],
    builders: Mapping[str, Callable[..., keras.Model]],
    seed: int = 0,
    modality_dropout: float | None = None,
    parts: FinishedParts | None = None,
    **keywords: Any,
) -> list[Candidate]:
    """Trains a model of each input alone and each fusion on the same rows, with the same head.

    Args:
        train: Training rows.
        validation: Validation rows with the same schema.
        fusions: Names of fusions.
        builders: As from `branch_builders`; called anew for each candidate.
        seed: Int; every candidate starts from it.
        modality_dropout: Float or None, of the fusions; see `build_fusion_model`.
        parts: Where trained candidates are kept, opened; those that are there stay as they are.
        **keywords: For `fit`.

    Returns:
        `Candidate` objects in that order. One whose training diverges is left out with a warning.

    Raises:
        RuntimeError: If the training of every candidate diverges.
    """
    task = train.task
    makers = {only(key): partial(build_single, builders, key) for key in builders}
    for fusion in fusions:
        makers[fusion] = partial(build_fused, builders, fusion, modality_dropout=modality_dropout)
    x, validation_data = train.x, (validation.x, validation.y)
    candidates = []
    for name, make in makers.items():
        if parts is not None and parts.has(part_name(name)):
            candidates.append(_read_candidate(name, parts, validation.y, task))
            continue
        started = time.perf_counter()
        keras.utils.set_random_seed(seed)
        model = make(task=task, name=part_name(name))
        try:
            history = fit(
                model,
                x,
                train.y,
                task=task,
                validation_data=validation_data,
                seed=seed,
                # A fused one is given all inputs: looked at once.
                doctor=name == fusions[0],
                **keywords,
            )
        except RuntimeError as error:
            warnings.warn(f"Left out: {error}", stacklevel=2)
            continue
        candidate = _judge(name, model, validation_data, task, started)
        candidate.history = history.history
        if parts is not None:
            parts.write(
                part_name(name), candidate.predictions, candidate.seconds, model, history.history
            )
        candidates.append(candidate)
    if not candidates:
        raise RuntimeError(f"The training of every candidate diverged: {list(makers)}.")
    return candidates


def candidate_names(inputs: Iterable[str], fusions: Sequence[str]) -> list[str]:
    """What `fit_candidates` trains, in its order."""
    return [*map(only, inputs), *fusions]


def fresh_fusion(train: FusionData, seed: int = 0) -> keras.Model:
    """An untrained fusion of all inputs, as `kfusion fit` makes it by default."""
    keras.utils.set_random_seed(seed)
    return build_fused(default_branches(train), "concat", task=train.task, name="concat")


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
    model = tuner.get_best_models(1)[0]
    found = tuner.get_best_hyperparameters(1)[0].values
    candidate = _judge(SEARCHED, model, validation_data, task, started)
    candidate.details = {"hyperparameters": found, "trials": len(tuner.oracle.trials)}
    return candidate


def best_candidate(candidates: Sequence[Candidate], task: Task) -> Candidate:
    """The candidate with the best objective on the validation rows."""
    score = task.score()
    return max(candidates, key=lambda candidate: score.sign * candidate.scores[score.name])


def comparison_table(candidates: Sequence[Candidate]) -> str:
    """A text table of the candidates' exact validation scores."""
    names = list(candidates[0].scores)
    width = max(len(candidate.name) for candidate in candidates)
    lines = [" " * width + "".join(f"{name:>12}" for name in names)]
    for candidate in candidates:
        scores = "".join(f"{candidate.scores[name]:12.4f}" for name in names)
        lines.append(f"{candidate.name:<{width}}{scores}")
    return "\n".join(lines)


def verdict(candidates: Sequence[Candidate], validation: FusionData) -> str:
    """One sentence: whether the best fusion beats the best single input on the validation rows."""
    names = [only(key) for key in validation.input_names]
    single = [c for c in candidates if c.name in names]
    fused = [c for c in candidates if c.name not in names]
    if not (single and fused):
        return "There is no fusion and single input to compare."
    task = validation.task
    best_single, best_fused = best_candidate(single, task), best_candidate(fused, task)
    both = np.stack([best_fused.predictions, best_single.predictions]).astype(np.float64)
    pair = compare_folds(
        validation.y,
        [JudgedRows(np.arange(len(validation)), both)],
        task=task,
        score=task.score(),
        groups=validation.groups,
        names=(best_fused.name, best_single.name),
    )
    return f"{pair.verdict} (on the rows that also chose both: `kfusion compare` takes others)"


def _judge(name: str, model, validation_data, task: Task, started: float) -> Candidate:
    x, y = validation_data
    predictions = predict(model, x)
    seconds = time.perf_counter() - started
    return Candidate(name, model, task.scores(y, predictions), seconds, predictions)


def _read_candidate(name: str, parts: FinishedParts, y: np.ndarray, task: Task) -> Candidate:
    predictions, seconds, model, history = parts.read(part_name(name))
    scores = task.scores(y, predictions)
    return Candidate(name, model, scores, seconds, predictions, history=history)


def _rounded(score: float) -> float | None:
    """Six decimals; None (JSON has no NaN) where a score could not be computed."""
    return round(score, 6) if np.isfinite(score) else None
