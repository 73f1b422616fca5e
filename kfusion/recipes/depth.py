"""A search whose depth is explored: every value tried to the end, and said if not."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import optuna

from kfusion.search.analysis import StudyAnalysis, analyse
from kfusion.search.tuner import OptunaTuner

# What gave up most trials of the study that this comes from.
AGGRESSIVE_PERCENTILE = 25.0
PICTURES = "pictures"


@dataclasses.dataclass(frozen=True, eq=False)
class DepthStudy:
    """A search and what it says. Made by `depth_study`.

    Attributes:
        tuner: `OptunaTuner`: `get_best_models()`, `get_best_hyperparameters()`.
        analysis: `StudyAnalysis`: `summary()`, `values`, `importances`, `warnings`.
        pictures: Paths of the pictures written.
    """

    tuner: OptunaTuner
    analysis: StudyAnalysis
    pictures: list[Path]

    @property
    def best(self) -> dict[str, Any]:
        """The best trial's values, with its score under the objective's name."""
        (trial,) = self.tuner.oracle.get_best_trials(1)
        return {self.analysis.objective: trial.score, **trial.hyperparameters.values}

    def completed(self, parameter: str) -> dict[str, int]:
        """How many trials of each value of a parameter ran to their end."""
        rows = self.analysis.values[self.analysis.values["parameter"] == parameter]
        return {str(row.value): int(row.completed) for row in rows.itertuples()}

    def summary(self) -> str:
        """The best trial and the analysis as text."""
        return f"best: {self.best}\n{self.analysis.summary()}"


def depth_study(
    hypermodel: Any,
    x: Any,
    y: Any,
    *,
    validation_data: tuple[Any, Any],
    directory: str | os.PathLike,
    objective: str | keras_tuner.Objective = "val_accuracy",
    max_trials: int = 30,
    epochs: int = 40,
    patience: int | None = 10,
    min_trials_per_choice: int = 5,
    aggressive_pruning: bool = False,
    n_jobs: int = 1,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    **keywords: Any,
) -> DepthStudy:
    """Searches a space in which some values, such as more layers, take longer to show their worth.

    A pruner that compares trials after a few epochs throws the deep networks away, and the sampler
    learns from that to propose shallow ones: the study's most important parameter is then the one
    that was least explored. Here nothing is pruned, each value of a choice is tried to the end,
    and each trial stops by itself when it no longer improves.

    Args:
        hypermodel: As of `OptunaTuner`: a function of hyperparameters that returns a compiled
            model. Depth is a choice such as `hp.Int("layers", 1, 3)`.
        x: Training rows, as `keras.Model.fit` takes them.
        y: Their targets.
        validation_data: `(x, y)` of the rows that judge trials and stop them.
        directory: Folder of the study and its pictures; a search that was stopped goes on there,
            and the same call in several processes works on one study.
        objective: Name of a metric, or `keras_tuner.Objective`.
        max_trials: Int, of all processes together.
        epochs: Int, the most of a trial.
        patience: Int, epochs without a lower `val_loss` before a trial stops; None trains all
            epochs. Deep networks may begin on a plateau: longer than that.
        min_trials_per_choice: Int, how often each value of a choice is completed before the
            sampler begins.
        aggressive_pruning: Whether to see what this hides: in place of all of it, a pruner gives up
            each trial that is not among the best quarter so far.
        n_jobs: Int, processes that work on the study at once.
        class_names: Of the targets, for the confusion matrix.
        seed: Int.
        **keywords: For `keras.Model.fit`, such as `batch_size` or `callbacks`.

    Returns:
        `DepthStudy`.

    Raises:
        ValueError, TypeError, RuntimeError: As of `OptunaTuner` and its `search`.
    """
    callbacks = list(keywords.pop("callbacks", []))
    if patience is not None and not aggressive_pruning:
        callbacks.append(keras.callbacks.EarlyStopping("val_loss", patience=patience))
    exploring: dict[str, Any] = {"min_trials_per_choice": min_trials_per_choice}
    if aggressive_pruning:
        pruner = optuna.pruners.PercentilePruner(AGGRESSIVE_PERCENTILE, n_startup_trials=1)
        exploring = {"pruner": pruner}
    tuner = OptunaTuner(
        hypermodel,
        objective,
        max_trials,
        directory=os.fspath(directory),
        project_name="pruned" if aggressive_pruning else "explored",
        seed=seed,
        **exploring,
    )
    tuner.search(
        x,
        y,
        validation_data=validation_data,
        epochs=epochs,
        callbacks=callbacks,
        n_jobs=n_jobs,
        **{"verbose": 0, **keywords},
    )
    analysis = analyse(tuner)
    folder = Path(tuner.project_dir) / PICTURES
    return DepthStudy(tuner, analysis, analysis.save_plots(folder, class_names=class_names))
