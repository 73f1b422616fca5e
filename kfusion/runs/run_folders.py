"""The folder that a training leaves: the model it kept, and all that an export needs."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kfusion.layers  # noqa: F401 (registers the layers that a saved model holds)
from kfusion.data.fusion_data import FusionData
from kfusion.data.tables import TableSchema
from kfusion.exports.card_facts import facts_of_run
from kfusion.exports.export import export_saved_model
from kfusion.json_values import history_as_json
from kfusion.runs.candidates import Candidate
from kfusion.runs.run_records import (
    HISTORIES_FILE,
    MODEL_FILE,
    RUN_FILE,
    RunRecord,
    read_run,
    write_predictions,
)
from kfusion.versions import library_versions


@dataclasses.dataclass
class Run:
    """What a training folder holds: the kept model, all that an export needs, and its record."""

    model: keras.Model
    schema: TableSchema | None
    class_names: tuple[str, ...]
    image_columns: dict[str, str]
    record: RunRecord


def save_run(
    folder: Path,
    kept: Candidate,
    candidates: Sequence[Candidate],
    *,
    train: FusionData,
    validation: FusionData,
    verdict: str,
    **facts: Any,
) -> dict[str, Any]:
    """Writes the kept model and the description of a run, the latter last; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = _describe_rows(train, validation)
    description = {
        "format": 2,
        "kept": kept.name,
        "verdict": verdict,
        "candidates": [candidate.to_dict() for candidate in candidates],
        "kind": train.kind,
        "class_names": list(train.class_names),
        "shapes": {name: list(array.shape[1:]) for name, array in train.arrays.items()},
        "train_rows": len(train),
        "validation_rows": len(validation),
        "class_rows": rows["class_rows"]["train"],
        "groups": rows["groups"]["train"],
        **facts,
    }
    schema = json.loads(train.schema.to_json())
    (folder / RUN_FILE).unlink(missing_ok=True)
    kept.model.save(folder / MODEL_FILE)
    write_predictions(
        folder,
        validation.y,
        validation.rows,
        [candidate.predictions for candidate in candidates],
        validation.groups,
    )
    histories = {each.name: history_as_json(each.history) for each in candidates}
    text = json.dumps(histories, ensure_ascii=False)
    (folder / HISTORIES_FILE).write_text(text, encoding="utf-8")
    kept_too = {"data": rows, "versions": library_versions(), "schema": schema}
    text = json.dumps({**description, **kept_too}, ensure_ascii=False, indent=1)
    unfinished = folder / f"{RUN_FILE}.part"
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, folder / RUN_FILE)
    return description


def _describe_rows(train: FusionData, validation: FusionData) -> dict[str, Any]:
    """How many rows of each class and how many groups train and judge."""
    parts = {"train": train, "validation": validation}
    return {
        "class_rows": {
            part: {
                name: int(np.sum(data.y == label)) for label, name in enumerate(train.class_names)
            }
            for part, data in parts.items()
        },
        "groups": {
            part: None if data.groups is None else len(np.unique(data.groups))
            for part, data in parts.items()
        },
    }


def load_run(folder: str | os.PathLike) -> Run:
    """Loads what `save_run` wrote.

    Raises:
        FileNotFoundError: If the folder holds no finished run.
    """
    folder = Path(folder)
    record = read_run(folder)
    description = record.description
    model = keras.models.load_model(folder / MODEL_FILE, compile=False)
    schema = TableSchema.from_json(json.dumps(description["schema"]))
    schema = schema.only([tensor.name for tensor in model.inputs])
    return Run(
        model,
        schema if schema.columns else None,
        tuple(description["class_names"]),
        description["image_columns"],
        record,
    )


def export_run(run: Run, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
    """Writes a run's model as a SavedModel; see `export_saved_model`."""
    return export_saved_model(
        run.model,
        path,
        schema=run.schema,
        class_names=run.class_names or None,
        image_columns=run.image_columns,
        overwrite=overwrite,
        facts=facts_of_run(
            run.record.description, {name: run.record.estimate(name) for name in run.record.results}
        ),
    )
