"""Searches the space of fused models for the best by the task's own objective."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import keras_tuner

from kfusion.search.hypermodel import FusionHyperModel
from kfusion.search.tuner import OptunaTuner

PROJECT = "search"


def search_fusion(
    hypermodel: FusionHyperModel,
    x: Mapping[str, Any],
    y: Any,
    *,
    validation_data: tuple[Mapping[str, Any], Any],
    directory: str | os.PathLike,
    max_trials: int = 20,
    epochs: int = 30,
    n_jobs: int = 1,
    verbose: int | bool = 1,
    **keywords: Any,
) -> OptunaTuner:
    """Searches a space with `OptunaTuner` and the task's own objective.

    Args:
        hypermodel: `FusionHyperModel`.
        x: Dict of arrays by input name, as for `fit`.
        y: `(rows,)` labels or targets.
        validation_data: `(x, y)` of the rows that judge the trials.
        directory: Folder of the study; a search that was stopped goes on from there.
        max_trials: Int, trials of all processes together.
        epochs: Int, the most epochs of a trial.
        n_jobs: Int, processes that work on the study at once.
        verbose: 0 hides the progress.
        **keywords: For `OptunaTuner`, such as `sampler`, `pruner`, `min_trials_per_choice`,
            `executions_per_trial`, `seed`, `overwrite`.

    Returns:
        The `OptunaTuner`: ask it `get_best_hyperparameters()`, `get_best_models()`,
        `results_summary()`.

    Raises:
        ValueError: If there is nothing to run, a name is unknown, or `directory` holds a study of
            another space, data or objective, which says what differs.
        RuntimeError: If no trial completed; quotes the first failure.
    """
    for name, value in {"max_trials": max_trials, "epochs": epochs}.items():
        if value < 1:
            raise ValueError(f"`{name}` must be 1 or more. Received: {value}.")
    tuner = OptunaTuner(
        hypermodel,
        keras_tuner.Objective(*hypermodel.task.objective),
        max_trials,
        directory=os.fspath(directory),
        project_name=PROJECT,
        **keywords,
    )
    tuner.search(
        x, y, validation_data=validation_data, epochs=epochs, n_jobs=n_jobs, verbose=int(verbose)
    )
    return tuner
