"""The whole road on real data that ships with the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from kfusion.data.fusion_data import FusionData
from kfusion.data.loading import load_image_columns, load_table
from kfusion.data.table_files import read_csv
from kfusion.datasets import load_landcover
from kfusion.exports.serving import load_exported
from kfusion.models.prediction import predict
from kfusion.progress import progress
from kfusion.reports.page import report
from kfusion.runs.candidates import (
    best_candidate,
    comparison_table,
    fit_candidates,
    search_candidate,
    verdict,
)
from kfusion.runs.run_folders import export_run, load_run, save_run
from kfusion.runs.run_records import TRIALS_FOLDER, check_run_folder
from kfusion.runs.run_sources import describe_source
from kfusion.validation.baselines import default_branches

EPOCHS = 12
TRIALS = 4
# The widest models of the space cost minutes on two cores and are left to `kfusion search`.
SPACE = {"units": (64, 128), "head_depths": (1, 2), "optimizers": ("adam", "adamw", "nadam")}
NUM_SERVED = 200


def run_demo(
    folder: Path,
    *,
    tell: Callable[[str], None],
    seed: int = 0,
    overwrite: bool = False,
    report_path: Path | None = None,
    command: str = "kfusion demo",
) -> dict[str, Any]:
    """Runs load -> schema -> single inputs -> fusions -> search -> SavedModel -> predict.

    Args:
        folder: Where files, trials, models and results go.
        tell: Called with a line of text at each step.
        seed: Int.
        overwrite: Whether to replace a demo that is there.
        report_path: HTML file for a report, or None.
        command: The line that started it, for the report.

    Returns:
        Results as in `run.json`, with the exported model's check.
    """
    folder = check_run_folder(folder, overwrite=overwrite)
    tell(f"1/6 Land cover from satellite patches and a climate table, written to {folder}")
    csv_path = write_files(load_landcover(), folder)

    tell("2/6 The CSV and its images are loaded and checked; places stay together in the split")
    data = load_table(csv_path, image_column="image", target="land_cover", group_column="place")
    train, validation = data.split(0.2, seed=seed)
    tell(f"    {len(train)} training and {len(validation)} validation rows; table columns:")
    for name, kind in train.schema.kinds.items():
        tell(f"      {name:<16} {kind:<9} {train.frame[name].isna().mean():4.0%} missing")

    tell("3/6 Image only, table only, and two fusions on the same rows")
    builders = default_branches(train)
    candidates = fit_candidates(
        train,
        validation,
        fusions=("concat", "multiply"),
        builders=builders,
        epochs=EPOCHS,
        seed=seed,
    )

    tell(f"4/6 A KerasTuner search of {TRIALS} trials over fusion, widths, rates and optimizer")
    candidates.append(
        search_candidate(
            train,
            validation,
            folder / TRIALS_FOLDER,
            builders=builders,
            space=SPACE,
            max_trials=TRIALS,
            epochs=EPOCHS,
            seed=seed,
            overwrite=True,
        )
    )
    tell("    Exact scores over all validation rows:")
    for line in comparison_table(candidates).splitlines():
        tell(f"      {line}")
    told = verdict(candidates, validation)
    tell(f"      {told}")

    kept = best_candidate(candidates, train.task)
    tell(f"5/6 The best ({kept.name}) is saved and exported as a SavedModel that checks itself")
    description = save_run(
        folder,
        kept,
        candidates,
        train=train,
        validation=validation,
        verdict=told,
        image_columns={"image": "image"},
        target="land_cover",
        command=command,
        source=describe_source(csv_path, folder),
    )
    exported = export_run(load_run(folder), folder / "saved_model", overwrite=overwrite)

    tell(f"6/6 The SavedModel predicts {NUM_SERVED} rows from the raw CSV and PNG files")
    served = serve_rows(csv_path, exported, validation.rows[:NUM_SERVED])
    held = validation[:NUM_SERVED]
    expected = predict(kept.model, held.x)
    difference = float(np.abs(served["probabilities"] - train.task.probabilities(expected)).max())
    right = float(np.mean(served["class"] == np.array(train.class_names)[held.y]))
    tell(f"    largest difference to the Keras model {difference:.1e}; {right:.0%} classes right")
    if report_path is not None:
        description["report"] = str(report(folder, report_path, data=data))
    return {**description, "saved_model": str(exported), "served_difference": difference}


def write_files(data: FusionData, folder: Path) -> Path:
    """Writes data as a CSV file and one PNG file per row; returns the CSV's path."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    names = [f"images/{row:04d}.png" for row in range(len(data))]
    for name, pixels in zip(progress(names, description="files"), data.images, strict=True):
        Image.fromarray(pixels).save(folder / name)
    frame = pd.DataFrame({"image": names}).join(data.frame)
    frame["place"] = data.groups
    frame["land_cover"] = np.array(data.class_names)[data.y]
    path = folder / "landcover.csv"
    frame.to_csv(path, index=False)
    return path


def serve_rows(csv_path: Path, exported: Path, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Predicts rows of a CSV with an exported model, from the raw files."""
    model = load_exported(exported)
    frame = read_csv(csv_path).iloc[rows]
    images, _ = load_image_columns(
        frame, model.image_columns, model.image_shapes, image_folder=csv_path.parent, verbose=0
    )
    return model.predict(frame, images)
