"""Trials whose models are alike, trained at once and told one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np

from kfusion.data.folds import Fold
from kfusion.search.hypermodel import FusionHyperModel
from kfusion.search.oracle import StudyTrial
from kfusion.search.trial_callbacks import check_finite
from kfusion.search.trial_rows import FitArguments
from kfusion.search.trial_runs import TrialRun
from kfusion.seeds import derive_seed
from kfusion.stacked.many_fits import ManyFits, fit_many
from kfusion.stacked.member_settings import DEFAULTS
from kfusion.stacked.programs import Programs
from kfusion.stacked.stacked_epochs import BACKENDS
from kfusion.stacked.stacked_fit import MemberFit, most_at_once
from kfusion.training.memory_batches import MEMORY

# So often at least the sampler hears of results before it proposes more: so many structures.
GENERATIONS = 6
# And as many for each value of the structure's longest choice.
GENERATIONS_PER_VALUE = 2
# Of one structure, which share what is compiled.
STACKS = 4
# Of fewer trials a program of their own costs as much as it saves.
FEWEST = 4
# Arguments of `fit` that trials together are given in another way.
_OTHERWISE = {"x", "y", "validation_data", "callbacks", "verbose"}
# And keywords of `fit_many` that a search has for itself.
_OF_THE_SEARCH = {"seed", "rows", "validation_rows"}


def why_one_by_one(hypermodel: Any, arguments: FitArguments) -> str | None:
    """Why trials cannot be trained together, or None if they can."""
    if type(hypermodel) is not FusionHyperModel:
        return f"{type(hypermodel).__name__} is no FusionHyperModel, whose parts are known"
    if hypermodel.seed is not None:
        return "the hypermodel's `seed` counts the models that were built"
    if keras.backend.backend() not in BACKENDS:
        return f"the {keras.backend.backend()} backend trains one model at a time"
    if arguments.get("callbacks"):
        return "callbacks watch one training"
    given = {**hypermodel.fit_keywords, **arguments.named}
    unknown = sorted(set(given) - (set(DEFAULTS) - _OF_THE_SEARCH) - _OTHERWISE)
    if unknown:
        return f"`fit` is given {', '.join(unknown)}, which trainings at once do not take"
    sizes = [given.get("batch_size"), *np.atleast_1d(hypermodel.batch_sizes)]
    if MEMORY in map(str, sizes):
        return f'`batch_size="{MEMORY}"` looks at one training'
    x = arguments.get("x")
    if not isinstance(x, Mapping) or not all(isinstance(part, np.ndarray) for part in x.values()):
        return "inputs must be a dict of arrays in memory"
    return None


def trials_at_once(
    max_trials: int | None, n_jobs: int, arguments: FitArguments, longest_choice: int
) -> int:
    """How many trials a process trains together if nobody says; 1 where that gains little.

    It gains where what a training costs is mostly not arithmetic: for inputs that are vectors.

    Args:
        max_trials: Int, or None for no end.
        n_jobs: Int, processes that work on the study.
        arguments: `FitArguments`.
        longest_choice: Int, the most values of a choice that decides on a structure.
    """
    if any(part.ndim > 2 for part in arguments.get("x").values()):
        return 1
    most = STACKS * most_at_once()
    if max_trials is None:
        return most
    share = math.ceil(max_trials / (GENERATIONS * n_jobs))
    wanted = max(GENERATIONS, GENERATIONS_PER_VALUE * longest_choice)
    fewer = max(FEWEST, math.ceil(max_trials / (wanted * n_jobs)))
    return min(most, fewer) if share >= FEWEST else 1


class TrialsTogether:
    """The runs of several trials, trained at once: one of each fold and seed.

    Args:
        hypermodel: `FusionHyperModel`.
        trials: `StudyTrial`s.
        arguments: `FitArguments` of the search.
        folds: `Fold`s of the rows, or None if validation data judge.
        num_seeds: Int, runs of each trial and fold.
        seed: Int, from which those of the runs are derived.
        programs: `Programs` of the groups before.
        max_model_size: Int, the most weights of a model; None for any number.

    Raises:
        TypeError, ValueError: If data or settings do not fit.
    """

    def __init__(
        self,
        hypermodel: FusionHyperModel,
        trials: Sequence[StudyTrial],
        arguments: FitArguments,
        *,
        folds: Sequence[Fold] | None,
        num_seeds: int,
        seed: int,
        programs: Programs,
        max_model_size: int | None = None,
    ):
        self._hypermodel, self._arguments = hypermodel, arguments
        self._folds: list[Fold | None] = [None] if folds is None else list(folds)
        self._num_seeds = num_seeds
        self._programs = programs
        self._max_model_size = max_model_size
        self._models: dict[str, keras.Model] = {}
        self._fits = self._fit(trials, seed)

    def _fit(self, trials: Sequence[StudyTrial], seed: int) -> ManyFits:
        given = {**self._hypermodel.fit_keywords, **self._arguments.named}
        common = {name: value for name, value in given.items() if name in DEFAULTS}
        members = []
        for trial in trials:
            keywords = self._hypermodel.keywords(trial.hyperparameters)
            runs = itertools.product(self._folds, range(self._num_seeds))
            for number, (fold, _) in enumerate(runs):
                rows = {} if fold is None else {"rows": fold.train, "validation_rows": fold.test}
                own_seed = derive_seed(seed, int(trial.trial_id), number)
                members.append({"keywords": keywords, **keywords["fit"], **rows, "seed": own_seed})
        return fit_many(
            self._build,
            self._arguments.get("x"),
            np.asarray(self._arguments.get("y")),
            task=self._hypermodel.task,
            members=members,
            validation_data=self._arguments.get("validation_data"),
            programs=self._programs,
            verbose=0,
            **common,
        )

    def _build(self, keywords: Mapping[str, Mapping[str, Any]]) -> keras.Model:
        model = self._hypermodel.build_from(keywords)
        if self._max_model_size and model.count_params() > self._max_model_size:
            raise keras_tuner.errors.FailedTrialError(
                f"Oversized model: {model.count_params()} parameters. Skip model."
            )
        return model

    @property
    def num_runs(self) -> int:
        """Of each trial."""
        return len(self._folds) * self._num_seeds

    def runs(self, position: int) -> list[TrialRun]:
        """The runs of the trial at that position.

        Raises:
            keras_tuner.errors.FailedTrialError: If one of them diverged.
        """
        first = position * self.num_runs
        fits = self._fits[first : first + self.num_runs]
        return [self._run(each, number) for number, each in enumerate(fits)]

    def _run(self, fit: MemberFit, number: int) -> TrialRun:
        if fit.failure is not None:
            raise keras_tuner.errors.FailedTrialError(fit.failure)
        for epoch, loss in enumerate(fit.history["loss"]):
            check_finite(loss, epoch)
        result = keras.callbacks.History()
        result.history = fit.history
        fold = self._folds[number // self._num_seeds]
        rows = self._arguments if fold is None else self._arguments.of_fold(fold)
        return TrialRun(result, fit.weights, fit.history, rows.get("validation_data"))

    def model(self, position: int) -> keras.Model:
        """A model of the trial's structure, whose weights are to be set."""
        first = position * self.num_runs
        structure = self._fits[first].structure
        if structure is None:
            return self._fits.model(first)
        if structure not in self._models:
            self._models[structure] = self._fits.model(first)
        return self._models[structure]
