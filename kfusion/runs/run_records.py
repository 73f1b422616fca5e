"""What a training's folder says of itself, read without its model."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfusion.data.folds import Fold
from kfusion.evidence.delong import number_groups
from kfusion.evidence.estimates import Estimate, JudgedRows, estimate
from kfusion.tasks import Task
from kfusion.tasks import task as make_task
from kfusion.validation.cross_validation import CrossValidation, FoldResult

RUN_FILE, PREDICTIONS_FILE, HISTORIES_FILE = "run.json", "predictions.npz", "histories.json"
MODEL_FILE, TRIALS_FOLDER, UNFINISHED_FOLDER = "model.keras", "trials", "unfinished"


@dataclasses.dataclass(frozen=True, eq=False)
class RunRecord:
    """A finished run, without its model.

    Attributes:
        folder: Where it is.
        description: What `run.json` holds.
        results: `CrossValidation` of one fold, the validation rows, by candidate; empty in runs of
            versions that kept no predictions.
        rows: `(validation rows,)` ints, their positions in the table that was loaded.
        groups: `(validation rows,)` ints, or None.
        histories: Values of each epoch by metric, by candidate.
    """

    folder: Path
    description: Mapping[str, Any]
    results: Mapping[str, CrossValidation]
    rows: np.ndarray
    groups: np.ndarray | None
    histories: Mapping[str, Mapping[str, Sequence[float]]]

    @property
    def task(self) -> Task:
        """`Task` of all candidates."""
        about = self.description
        return make_task(about["kind"], class_names=about["class_names"] or None)

    def estimate(self, name: str) -> Estimate:
        """A candidate's score by the validation rows, with its interval."""
        result = self.results[name]
        return estimate(
            result.y,
            [JudgedRows(np.arange(len(result.y)), result.folds[0].predictions[None])],
            task=self.task,
            score=self.task.score(),
            groups=self.groups,
            num_resamples=0,
        )


def check_run_folder(folder: str | os.PathLike, *, overwrite: bool = False) -> Path:
    """Returns the folder for a run, or raises `FileExistsError` if it holds one already."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file. Choose another folder.")
    holds_run = (folder / RUN_FILE).exists() or (
        # A run that was killed while it was written is still unfinished.
        (folder / MODEL_FILE).exists() and not (folder / UNFINISHED_FOLDER).exists()
    )
    if holds_run and not overwrite:
        raise FileExistsError(f"{folder} holds a run. Choose another folder or `--overwrite`.")
    return folder


def write_predictions(
    folder: Path,
    y: np.ndarray,
    rows: np.ndarray,
    predictions: Sequence[np.ndarray],
    groups: np.ndarray | None = None,
) -> None:
    """Keeps what candidates predict for the validation rows, in the order of `run.json`.

    Args:
        folder: Of the run.
        y: `(validation rows,)` labels or values.
        rows: `(validation rows,)` ints, their positions in the table that was loaded.
        predictions: `(validation rows, units)` of each candidate.
        groups: `(validation rows,)` values, or None; kept as numbers.
    """
    arrays = {"y": y, "rows": rows}
    arrays |= {f"candidate_{i}": part for i, part in enumerate(predictions)}
    if groups is not None:
        arrays["groups"] = number_groups(groups, len(y))
    np.savez(folder / PREDICTIONS_FILE, allow_pickle=False, **arrays)


def read_run(folder: str | os.PathLike) -> RunRecord:
    """Reads what `save_run` wrote, but for the model.

    Raises:
        FileNotFoundError: If the folder holds no finished run.
    """
    folder = Path(folder)
    if not (folder / RUN_FILE).is_file():
        raise FileNotFoundError(f"{folder} holds no finished run of `kfusion fit` or `search`.")
    description = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    histories = {}
    if (folder / HISTORIES_FILE).is_file():
        histories = json.loads((folder / HISTORIES_FILE).read_text(encoding="utf-8"))
    if not (folder / PREDICTIONS_FILE).is_file():
        return RunRecord(folder, description, {}, np.arange(0), None, histories)
    with np.load(folder / PREDICTIONS_FILE, allow_pickle=False) as kept:
        arrays = {name: kept[name] for name in kept.files}
    y = arrays["y"]
    of_run = make_task(description["kind"], y=y, class_names=description["class_names"] or None)
    fold = Fold(0, np.arange(0), np.arange(len(y)))
    results = {
        about["name"]: CrossValidation(
            of_run, y, [FoldResult(fold, arrays[f"candidate_{i}"], about["seconds"])]
        )
        for i, about in enumerate(description["candidates"])
    }
    return RunRecord(folder, description, results, arrays["rows"], arrays.get("groups"), histories)
