"""Searches the space of fused models for the best by the task's own objective."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np

from kfusion.data.fingerprints import fingerprint
from kfusion.data.folds import make_folds
from kfusion.data.rows import join_rows, take_rows
from kfusion.doctor.before_training import warn_before_training
from kfusion.models.prediction import predict
from kfusion.search.hypermodel import FusionHyperModel
from kfusion.search.refitting import refit
from kfusion.search.tuner import OptunaTuner
from kfusion.validation.cross_validation import CrossValidation, cross_validate

PROJECT, NESTED_FOLDER = "search", "nested"
NESTED_FOLDS = 5
# Name under which rows travel with their number.
_ROW = "_row"


def search_fusion(
    hypermodel: FusionHyperModel,
    x: Mapping[str, Any],
    y: Any,
    *,
    validation_data: tuple[Mapping[str, Any], Any] | None = None,
    directory: str | os.PathLike,
    max_trials: int = 20,
    epochs: int = 30,
    cv: Any = None,
    groups: Any = None,
    nested: bool | int = False,
    n_jobs: int = 1,
    parallel_trials: int | str = "auto",
    distribution: Any = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
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
        cv: In place of validation data: folds of the rows, each of which judges every trial once;
            see `OptunaTuner.search`.
        groups: `(rows,)` values: rows that share one stay in one fold. With `validation_data` and
            `nested`, of the training rows and then those of validation.
        nested: Whether to estimate what the search finds on rows that no part of it saw: 5 outer
            folds (or as many as the int says), in each of which the whole search is run anew on the
            other rows. The score of the best trial is no such estimate: it was picked for it.
        n_jobs: Int, processes that work on the study at once.
        parallel_trials: Int, trials that each process trains at once; "auto" decides. See
            `OptunaTuner.search`.
        distribution: What shares each batch of a trial among the devices of this machine, as of
            `fit`; the search builds its models in its scope. Not with `n_jobs` above 1.
        callbacks: Keras callbacks, of which each run of a trial has copies; those of `nested` have
            none.
        verbose: As of `OptunaTuner.search`.
        **keywords: For `OptunaTuner`, such as `sampler`, `pruner`, `min_trials_per_choice`,
            `executions_per_trial`, `seed`, `overwrite`, `project_name` ("search").

    Returns:
        The `OptunaTuner`: ask it `get_best_hyperparameters()`, `get_best_models()`,
        `results_summary()`; with `nested`, its `nested` is the `CrossValidation`.

    Raises:
        ValueError: If there is nothing to run or to judge by, a name is unknown, or `directory`
            holds a study of another space, data or objective, which says what differs.
        TypeError: If a keyword is unknown.
        RuntimeError: If no trial completed; quotes the first failure.
    """
    unknown = sorted(set(keywords) - _tuner_keywords())
    if unknown:
        raise TypeError(
            f"Keywords for the tuner must be among {sorted(_tuner_keywords())}. Received: "
            f"{unknown}; those of `fit` are `fit_keywords` of the hypermodel."
        )
    for name, value in {"max_trials": max_trials, "epochs": epochs}.items():
        if value < 1:
            raise ValueError(f"`{name}` must be 1 or more. Received: {value}.")
    if (validation_data is None) == (cv is None):
        raise ValueError("Trials are judged by `validation_data` or by `cv`: give one of them.")
    if groups is not None and cv is None and not nested:
        raise ValueError("`groups` keep rows together in the folds of `cv` or `nested`.")
    if nested and cv is not None and not isinstance(cv, int) and not hasattr(cv, "split"):
        raise ValueError("`nested` folds other rows: give `cv` as a number or a splitter.")
    tuner = OptunaTuner(
        hypermodel,
        keras_tuner.Objective(*hypermodel.task.objective),
        max_trials,
        directory=os.fspath(directory),
        distribution_strategy=distribution,
        **{"project_name": PROJECT, **keywords},
    )
    warn_before_training(
        None, x, y, task=hypermodel.task, validation_data=validation_data, groups=groups
    )
    named: dict[str, Any] = {
        "epochs": epochs,
        "n_jobs": n_jobs,
        "parallel_trials": parallel_trials,
        "verbose": int(verbose),
    }
    if validation_data is not None:
        tuner.search(x, y, validation_data=validation_data, callbacks=list(callbacks), **named)
    else:
        tuner.search(x, y, cv=cv, groups=groups, callbacks=list(callbacks), **named)
    if nested:
        share = 0.0
        if validation_data is not None:
            held = len(validation_data[1])
            share = held / (held + len(y))
            x, y = join_rows(x, validation_data[0]), join_rows(y, validation_data[1])
        anew = _SearchAnew(
            hypermodel,
            None if groups is None else np.asarray(groups),
            cv,
            share,
            Path(directory) / NESTED_FOLDER,
            {
                **named,
                **keywords,
                "distribution": distribution,
                "max_trials": max_trials,
                "log_dir": None,
            },
        )
        tuner.nested = anew.cross_validate(x, y, NESTED_FOLDS if nested is True else nested)
    return tuner


def _tuner_keywords() -> set[str]:
    """What `OptunaTuner` takes and `search_fusion` has no other name for."""
    kinds = (OptunaTuner, keras_tuner.Tuner, keras_tuner.engine.base_tuner.BaseTuner)
    named = {name for kind in kinds for name in inspect.signature(kind.__init__).parameters}
    of_search = {"self", "args", "kwargs", "keywords", "oracle", "hypermodel", "objective"}
    return named - of_search - {"max_trials", "directory", "distribution_strategy"}


@dataclasses.dataclass(frozen=True, eq=False)
class _SearchAnew:
    """Does on the rows given what a search did on its own, for an estimate of what that finds.

    Attributes:
        hypermodel: `FusionHyperModel`.
        groups: `(rows,)` values or None.
        cv: As of the search; None for rows held out.
        share: Share of the rows that is held out.
        directory: Where the searches are.
        keywords: Of the search.
    """

    hypermodel: FusionHyperModel
    groups: np.ndarray | None
    cv: Any
    share: float
    directory: Path
    keywords: Mapping[str, Any]

    def cross_validate(self, x: Mapping[str, Any], y: Any, folds: int) -> CrossValidation:
        """Searches on all folds but one, and judges by that one."""
        return cross_validate(
            self,
            {**x, _ROW: np.arange(len(y))},
            y,
            folds=folds,
            task=self.hypermodel.task,
            groups=self.groups,
            seed=self.keywords.get("seed") or 0,
            name="nested searches",
            verbose=self.keywords["verbose"],
        )

    def __call__(self, x: Mapping[str, Any], y: np.ndarray) -> Callable[[Any], np.ndarray]:
        groups = None if self.groups is None else self.groups[x[_ROW]]
        # Each outer fold has a study of its own, known by its rows.
        directory = self.directory / fingerprint({_ROW: x[_ROW]})[:12]
        keywords = {**self.keywords, "directory": directory}
        if self.cv is not None:
            tuner = search_fusion(self.hypermodel, x, y, cv=self.cv, groups=groups, **keywords)
            return functools.partial(predict, refit(tuner, x, y, verbose=0))
        labels = None if self.hypermodel.task.kind == "regression" else y
        folds = make_folds(
            len(y), folds=max(2, round(1 / self.share)), labels=labels, groups=groups
        )
        train, test = folds[0].train, folds[0].test
        tuner = search_fusion(
            self.hypermodel,
            take_rows(x, train),
            y[train],
            validation_data=(take_rows(x, test), y[test]),
            **keywords,
        )
        return functools.partial(predict, tuner.get_best_models(1)[0])
