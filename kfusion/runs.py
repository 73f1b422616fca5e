"""Candidates trained side by side on one split, and the folder that keeps the best of them."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras

import kfusion.layers  # noqa: F401 (registers the layers that a saved model holds)
from kfusion.branches import image_branch, tabular_branch
from kfusion.export import export_saved_model
from kfusion.fusion_data import FusionData
from kfusion.models import build_fusion_model, build_unimodal_model
from kfusion.prediction import evaluate
from kfusion.search.hypermodel import FusionHyperModel
from kfusion.search.running import search_fusion
from kfusion.tables import TableSchema
from kfusion.tasks import Task
from kfusion.training import fit

RUN_FILE, MODEL_FILE, TRIALS_FOLDER = "run.json", "model.keras", "trials"
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
            **{name: round(score, 6) for name, score in self.scores.items()},
            "seconds": round(self.seconds, 1),
            **self.details,
        }


@dataclasses.dataclass
class Run:
    """What a training folder holds: the kept model and all that an export needs."""

    model: keras.Model
    schema: TableSchema | None
    class_names: tuple[str, ...]
    image_column: str


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
        `Candidate` objects in that order.
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
        fit(
            model,
            x,
            train.y,
            task=task,
            validation_data=validation_data,
            seed=seed,
            **keywords,
        )
        candidates.append(_judge(name, model, validation_data, task, started))
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
    score = task.objective.name.removeprefix("val_")
    sign = 1 if task.objective.direction == "max" else -1
    return max(candidates, key=lambda candidate: sign * candidate.scores[score])


def comparison_table(candidates: Sequence[Candidate], task: Task) -> str:
    """A text table of the candidates' exact validation scores, and what fusing gained."""
    names = list(candidates[0].scores)
    width = max(len(candidate.name) for candidate in candidates)
    lines = [" " * width + "".join(f"{name:>12}" for name in names)]
    for candidate in candidates:
        scores = "".join(f"{candidate.scores[name]:12.4f}" for name in names)
        lines.append(f"{candidate.name:<{width}}{scores}")
    single = [c for c in candidates if c.name in (IMAGE_ONLY, TABLE_ONLY)]
    fused = [c for c in candidates if c not in single]
    if single and fused:
        score = task.objective.name.removeprefix("val_")
        best_single, best_fused = best_candidate(single, task), best_candidate(fused, task)
        gain = best_fused.scores[score] - best_single.scores[score]
        better = best_candidate([best_single, best_fused], task) is best_fused and gain
        lines.append(
            f"{best_fused.name} is {'better' if better else 'not better'} than {best_single.name}: "
            f"{score} {gain:+.4g} on these validation rows, which also chose them"
        )
    return "\n".join(lines)


def check_run_folder(folder: str | os.PathLike, *, overwrite: bool = False) -> Path:
    """Returns the folder for a run, or raises `FileExistsError` if it holds one already."""
    folder = Path(folder)
    if not overwrite and any((folder / name).exists() for name in (RUN_FILE, MODEL_FILE)):
        raise FileExistsError(f"{folder} holds a run. Choose another folder or overwrite it.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def save_run(
    folder: Path,
    kept: Candidate,
    candidates: Sequence[Candidate],
    *,
    train: FusionData,
    **facts: Any,
) -> dict[str, Any]:
    """Writes the kept model and the description of a run, the latter last; returns it."""
    description = {
        "format": 1,
        "kept": kept.name,
        "candidates": [candidate.to_dict() for candidate in candidates],
        "kind": train.kind,
        "class_names": list(train.class_names),
        "image_shape": list(train.image_shape),
        **facts,
    }
    schema = json.loads(train.schema.to_json())
    (folder / RUN_FILE).unlink(missing_ok=True)
    kept.model.save(folder / MODEL_FILE)
    text = json.dumps({**description, "schema": schema}, ensure_ascii=False, indent=1)
    unfinished = folder / f"{RUN_FILE}.part"
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, folder / RUN_FILE)
    return description


def load_run(folder: str | os.PathLike) -> Run:
    """Loads what `save_run` wrote.

    Raises:
        FileNotFoundError: If the folder holds no finished run.
    """
    folder = Path(folder)
    if not (folder / RUN_FILE).is_file():
        raise FileNotFoundError(f"{folder} holds no finished run of `kfusion fit` or `search`.")
    description = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    model = keras.models.load_model(folder / MODEL_FILE, compile=False)
    has_table = "tabular" in {tensor.name for tensor in model.inputs}
    schema = TableSchema.from_json(json.dumps(description["schema"])) if has_table else None
    return Run(
        model, schema, tuple(description["class_names"]), description.get("image_column", "image")
    )


def export_run(run: Run, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
    """Writes a run's model as a SavedModel; see `export_saved_model`."""
    return export_saved_model(
        run.model,
        path,
        schema=run.schema,
        class_names=run.class_names or None,
        image_column=run.image_column,
        overwrite=overwrite,
    )


def _build_fused(builders, task: Task, fusion: str, name: str) -> keras.Model:
    branches = {branch: build() for branch, build in builders.items()}
    return build_fusion_model(branches, task=task, fusion=fusion, name=name)


def _judge(name: str, model, validation_data, task: Task, started: float) -> Candidate:
    scores = evaluate(model, *validation_data, task=task)
    return Candidate(name, model, scores, time.perf_counter() - started)
