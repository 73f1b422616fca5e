"""Runs a KerasTuner search that cannot end without a result or guess a direction."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras_tuner

from kfusion.fingerprints import check_record, fingerprint, write_record
from kfusion.search.hypermodel import FusionHyperModel

PROJECT, ABOUT_FILE = "search", "about.json"
TUNERS = {
    "bayesian": keras_tuner.BayesianOptimization,
    "hyperband": keras_tuner.Hyperband,
    "random": keras_tuner.RandomSearch,
}


def search_fusion(
    hypermodel: FusionHyperModel,
    x: Mapping[str, Any],
    y: Any,
    *,
    validation_data: tuple[Mapping[str, Any], Any],
    directory: str | os.PathLike,
    tuner: str = "random",
    max_trials: int = 20,
    epochs: int = 30,
    seed: int = 0,
    overwrite: bool = False,
    verbose: int | bool = 1,
    **keywords: Any,
) -> keras_tuner.Tuner:
    """Searches a space with one of KerasTuner's tuners and the task's own objective.

    Args:
        hypermodel: `FusionHyperModel`.
        x: Dict of arrays by input name, as for `fit`.
        y: `(rows,)` labels or targets.
        validation_data: `(x, y)` of the rows that judge the trials.
        directory: Folder of the trials; a search that was stopped goes on from there.
        tuner: "random", "bayesian" or "hyperband".
        max_trials: Int; for "hyperband" the number of trials follows from `epochs` instead.
        epochs: Int, the most epochs of a trial.
        seed: Int; KerasTuner ignores 0 and gives neighbouring seeds nearly the same trials, so
            it gets a hash of this one.
        overwrite: Whether to start anew where `directory` holds a search.
        verbose: 0 hides the progress.
        **keywords: Further arguments of the KerasTuner class, such as `executions_per_trial`.

    Returns:
        The `keras_tuner.Tuner`: ask it `get_best_hyperparameters()`, `get_best_models()`,
        `results_summary()`.

    Raises:
        ValueError: If the tuner is unknown, there is nothing to run, or `directory` holds a
            search of another space, data, tuner or seed, which says what differs.
        RuntimeError: If no trial completed; quotes the first failure.
    """
    if tuner not in TUNERS:
        raise ValueError(f"`tuner` must be one of {sorted(TUNERS)}. Received: tuner={tuner!r}.")
    for name, value in {"max_trials": max_trials, "epochs": epochs}.items():
        if value < 1:  # KerasTuner would go on without end
            raise ValueError(f"`{name}` must be 1 or more. Received: {value}.")
    folder = Path(directory) / PROJECT
    about = _describe_search(hypermodel, tuner, seed, x, y)
    if not overwrite and (folder / "oracle.json").exists():
        check_record(folder / ABOUT_FILE, about, "search")
    amount = {"max_epochs": epochs} if tuner == "hyperband" else {"max_trials": max_trials}
    searcher = TUNERS[tuner](
        hypermodel,
        objective=keras_tuner.Objective(*hypermodel.task.objective),
        directory=os.fspath(directory),
        project_name=PROJECT,
        seed=spaced_seed(seed),
        overwrite=overwrite,
        # KerasTuner's default ends the whole search after three failures in a row.
        **{"max_consecutive_failed_trials": sys.maxsize, **amount, **keywords},
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder / ABOUT_FILE, about)
    searcher.search(
        x,
        y,
        validation_data=validation_data,
        verbose=int(verbose),
        **({} if tuner == "hyperband" else {"epochs": epochs}),
    )
    check_completed(searcher)
    return searcher


def _describe_search(hypermodel: FusionHyperModel, tuner: str, seed: int, x, y) -> dict[str, Any]:
    """What must be the same for trials to belong to one search."""
    space = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(space)
    return {
        "tuner": tuner,
        "seed": seed,
        "objective": list(hypermodel.task.objective),
        "space": json.loads(json.dumps(space.get_config()["space"])),
        "data": fingerprint({**x, "y": y}),
    }


def check_completed(tuner: keras_tuner.Tuner) -> None:
    """Raises `RuntimeError` quoting the first failure if no trial of a tuner completed."""
    trials = list(tuner.oracle.trials.values())
    if any(trial.status == "COMPLETED" for trial in trials):
        return
    messages = [trial.message for trial in trials if trial.message]
    reason = messages[0].strip().splitlines()[-1] if messages else "no trial was run"
    raise RuntimeError(f"None of {len(trials)} trials completed. The first one: {reason}")


def spaced_seed(seed: int) -> int:
    """A non-zero seed whose neighbours are far away."""
    digest = hashlib.blake2b(str(seed).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % (2**31 - 1) + 1
