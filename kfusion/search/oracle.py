"""A KerasTuner oracle whose trials are those of an Optuna study in a folder."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import keras_tuner
import optuna
from keras_tuner.engine.trial import Trial, TrialStatus
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from kfusion.search.proposals import RESULT, Proposals, add_parameters, check_grid
from kfusion.search.samplers import GRID, Pruner, Sampler, check_sampler, make_pruner
from kfusion.search.space import Space
from kfusion.search.study_folder import StudyFolder

# How often a trial is begun that ends its process.
MAX_ATTEMPTS = 2
# Metrics that every trial has at its end.
TOLD_AFTER_TRAINING = ("num_parameters", "seconds")
STATUSES = {
    TrialState.COMPLETE: TrialStatus.COMPLETED,
    TrialState.RUNNING: TrialStatus.RUNNING,
    TrialState.WAITING: TrialStatus.IDLE,
    TrialState.FAIL: TrialStatus.FAILED,
    TrialState.PRUNED: TrialStatus.FAILED,
}


class StudyTrial(Trial):
    """A KerasTuner trial that also knows how its runs went.

    Attributes:
        spread: Standard deviation of the objective over runs, which are of other seeds or other
            folds; None for one run.
        num_runs: How many runs.
        num_epochs: Epochs to the best one of a run, in the mean over runs; None if none was logged.
        seconds: How long its runs took.
        is_pruned: Whether it was given up for those before it.
    """

    spread: float | None = None
    num_runs: int = 1
    num_epochs: int | None = None
    seconds: float | None = None
    is_pruned: bool = False

    def __init__(
        self,
        make_hyperparameters: Callable[[], keras_tuner.HyperParameters],
        *args: Any,
        **keywords: Any,
    ):
        self._make_hyperparameters = make_hyperparameters
        self._hyperparameters: keras_tuner.HyperParameters | None = None
        super().__init__(None, *args, **keywords)

    @property
    def hyperparameters(self) -> keras_tuner.HyperParameters:
        """Made when they are asked for: of many trials, few are looked at so closely."""
        if self._hyperparameters is None:
            self._hyperparameters = self._make_hyperparameters()
        return self._hyperparameters

    @hyperparameters.setter
    def hyperparameters(self, value: keras_tuner.HyperParameters | None) -> None:
        self._hyperparameters = value


class StudyOracle(keras_tuner.Oracle):
    """Asks and tells an Optuna study that any number of processes share.

    Args:
        objective: Name, `keras_tuner.Objective` or a list of them. Of several, trials that no other
            one beats in all come first.
        max_trials: Int, trials of all processes together.
        sampler: "tpe", "gp", "cmaes", "random", "qmc", "grid", or an Optuna sampler.
        pruner: None, "median", "percentile", "successive_halving", "hyperband", "wilcoxon", or an
            Optuna pruner.
        min_trials_per_choice: Int; so often every value of a choice is tried to completion before
            the sampler begins. Such trials are not pruned.
        storage: URL of an Optuna storage, or None for a file in the project's folder.
        seed: Int.
        **keywords: `hyperparameters`, `tune_new_entries` and `allow_new_entries` of
            `keras_tuner.Oracle`.
    """

    def __init__(
        self,
        objective: Any = None,
        max_trials: int | None = 10,
        *,
        sampler: Sampler = "tpe",
        pruner: Pruner = None,
        min_trials_per_choice: int = 0,
        storage: str | None = None,
        seed: int = 0,
        **keywords: Any,
    ):
        check_sampler(sampler)
        named = objective if isinstance(objective, (list, tuple)) else [objective]
        known = [
            keras_tuner.Objective(each, "min")
            if isinstance(each, str) and each in TOLD_AFTER_TRAINING
            else each
            for each in named
        ]
        objective = known if len(known) > 1 else known[0]
        self.sampler = sampler
        self.pruner = make_pruner(pruner)
        if pruner is not None and isinstance(objective, list):
            raise ValueError("`pruner` needs one objective: trials are given up by it.")
        self.min_trials_per_choice = min_trials_per_choice
        self.storage = storage
        self._running: dict[str, StudyTrial] = {}
        self._finished: dict[str, StudyTrial] = {}
        self._study: optuna.Study | None = None
        self._storage: optuna.storages.BaseStorage | None = None
        super().__init__(objective=objective, max_trials=max_trials, seed=seed, **keywords)
        # KerasTuner draws one in place of 0.
        self.seed = seed
        self._proposals = self._make_proposals()

    @property
    def objectives(self) -> list[keras_tuner.Objective]:
        """One or more."""
        return list(getattr(self.objective, "objectives", [self.objective]))

    @property
    def epoch_objective(self) -> keras_tuner.Objective:
        """What epochs are judged by: the first objective that they may log."""
        logged = [each for each in self.objectives if each.name not in TOLD_AFTER_TRAINING]
        return logged[0] if logged else self.objectives[0]

    @property
    def directions(self) -> list[StudyDirection]:
        """Of the objectives, in Optuna's words."""
        named = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
        return [named[objective.direction] for objective in self.objectives]

    @property
    def folder(self) -> StudyFolder:
        """The study's folder."""
        return self._folder

    @property
    def study(self) -> optuna.Study:
        """The Optuna study."""
        return self._opened()[0]

    def _opened(self) -> tuple[optuna.Study, optuna.storages.BaseStorage]:
        if self._study is None or self._storage is None:
            names = [objective.name for objective in self.objectives]
            self._study, self._storage = self.folder.open(self.directions, names)
        return self._study, self._storage

    def open(self, about: Mapping[str, Any]) -> None:
        """Makes or opens the study; all that is wrong with it shows here.

        Args:
            about: What the study is of besides space and objective, JSON-able.

        Raises:
            OSError: If the folder cannot be written.
            ValueError: If the study is corrupt, or of other things: says which.
        """
        self.folder.check()
        self.folder.check_record(
            {
                "objectives": [[each.name, each.direction] for each in self.objectives],
                "space": Space(self.hyperparameters).describe(),
                **about,
            }
        )
        self._read_grown_space()
        if self.sampler == GRID:
            check_grid(Space(self.hyperparameters))
        self._opened()

    def _read_grown_space(self) -> None:
        """Takes over hyperparameters that came up while models were built, in any process."""
        grown = self.folder.read_space()
        if grown is not None and len(grown["space"]) != len(self.hyperparameters.space):
            self.update_space(keras_tuner.HyperParameters.from_config(grown))

    def _write_grown_space(self, hyperparameters: keras_tuner.HyperParameters) -> None:
        before = len(self.hyperparameters.space)
        self.update_space(hyperparameters)
        if len(self.hyperparameters.space) > before:
            with self.folder.locked():
                self._read_grown_space()
                self.folder.write_space({**self.hyperparameters.get_config(), "values": {}})

    def create_trial(self, tuner_id: str) -> StudyTrial:
        """A trial that was cut off, else the next new one; stopped if there is none."""
        running = self.ongoing_trials.get(tuner_id)
        if running is not None:
            return running
        begun = self.create_trials(1)
        if not begun:
            return StudyTrial(self.hyperparameters.copy, status=TrialStatus.STOPPED)
        self.ongoing_trials[tuner_id] = begun[0]
        return begun[0]

    def create_trials(self, most: int, dials: Collection[str] = ()) -> list[StudyTrial]:
        """Trials to be run together: one that was cut off, else new ones; none at the end.

        Args:
            most: Int, how many at most.
            dials: Names of hyperparameters, all that the new ones differ in if the sampler can.
        """
        with self.folder.locked():
            self._read_grown_space()
            trials = self._read_trials()
            adopted = self._adopt(trials)
            # By itself: should it end its process again, no other one is begun in vain.
            found = [] if adopted is None else [adopted]
            while adopted is None and len(found) < most:
                if self.max_trials is not None and len(trials) >= self.max_trials:
                    break
                like = None
                if found:
                    like = found[0].user_attrs["values"]
                elif most > 1:
                    space = Space(self.hyperparameters)
                    # Half of the groups at most: the sampler chooses the others' structures.
                    groups = math.inf if self.max_trials is None else self.max_trials / most
                    drawn = max(2, groups / 2)
                    like = self._proposals.draw_structure(space, trials, dials, drawn)
                begins_group = most > 1 and like is None
                proposed = self._propose(trials, like=like, dials=dials, begins_group=begins_group)
                if proposed is None:
                    break
                found.append(proposed)
                trials = [*trials, proposed]
        begun = [self._to_trial(each) for each in found]
        for trial in begun:
            self._running[trial.trial_id] = trial
            self._display.on_trial_begin(trial)
        return begun

    def _adopt(self, trials: list[FrozenTrial]) -> FrozenTrial | None:
        """A running trial whose process is gone, held from now on."""
        _, storage = self._opened()
        for found in trials:
            if found.state != TrialState.RUNNING or self.folder.holds(found.number):
                continue
            if not self.folder.claim(found.number):
                continue
            # It may have been finished since it was read.
            found = storage.get_trial(found._trial_id)
            if found.state.is_finished():
                self.folder.release(found.number)
                continue
            attempts = found.user_attrs["attempts"] + 1
            if attempts > MAX_ATTEMPTS:
                told = f"Ended its process {attempts - 1} times."
                self._finish(found, TrialState.FAIL, message=told)
                continue
            storage.set_trial_user_attr(found._trial_id, "attempts", attempts)
            return found
        return None

    def _propose(self, trials: list[FrozenTrial], **keywords: Any) -> FrozenTrial | None:
        proposed = self._proposals.propose(Space(self.hyperparameters), trials, **keywords)
        if proposed is None:
            return None
        study, storage = self._opened()
        # The process that holds the study's lock is alone here, so that this is the number.
        self.folder.claim(len(trials))
        study_id = storage.get_study_id_from_name(study.study_name)
        trial_id = storage.create_new_trial(study_id, template_trial=proposed)
        return storage.get_trial(trial_id)

    def update_trial(
        self, trial_id: str, metrics: Mapping[str, float], step: int = 0
    ) -> StudyTrial:
        """Keeps the metrics of a trial that this process runs, until it ends."""
        trial = self._running[trial_id]
        self._check_objective_found(metrics)
        directions = {each.name: each.direction for each in [*self.objectives, self.objective]}
        for name, value in metrics.items():
            if not trial.metrics.exists(name):
                trial.metrics.register(name, directions.get(name, "min"))
            trial.metrics.update(name, value, step=step)
        trial.best_step = step
        return trial

    def end_trial(self, trial: StudyTrial) -> None:
        """Tells the study what became of a trial."""
        self._write_grown_space(trial.hyperparameters)
        number = int(trial.trial_id)
        found = self._find(number)
        self._store_new_parameters(found, trial)
        values = None
        if trial.status == TrialStatus.COMPLETED:
            values = [self._value_of(trial, objective.name) for objective in self.objectives]
            wrong = [
                f"{objective.name} = {value}"
                for objective, value in zip(self.objectives, values, strict=True)
                if not math.isfinite(value)
            ]
            if wrong:
                trial.status, trial.message = TrialStatus.FAILED, f"Not finite: {wrong[0]}."
            else:
                trial.score = values[0] if len(values) == 1 else self._sum(values)
        state = {
            TrialStatus.COMPLETED: TrialState.COMPLETE,
            TrialStatus.FAILED: TrialState.FAIL,
            TrialStatus.INVALID: TrialState.FAIL,
        }[trial.status]
        if trial.is_pruned:
            state = TrialState.PRUNED
        self._finish(
            found,
            state,
            values if state == TrialState.COMPLETE else None,
            message=trial.message,
            result=self._result_of(trial),
        )
        self._running.pop(trial.trial_id)
        for tuner_id, running in list(self.ongoing_trials.items()):
            if running.trial_id == trial.trial_id:
                del self.ongoing_trials[tuner_id]
        self._display.on_trial_end(self.get_trial(trial.trial_id))

    def _store_new_parameters(self, found: FrozenTrial, trial: StudyTrial) -> None:
        """Tells the study of hyperparameters that came up while the model was built."""
        _, storage = self._opened()
        space = Space(self.hyperparameters)
        add_parameters(storage, found, *space.suggested(trial.hyperparameters.values))

    def reporter(self, trial: StudyTrial) -> Callable[[int, float], bool] | None:
        """What tells the pruner of an epoch's value and hears whether to give the trial up.

        None if nothing is pruned, or this trial is to be completed for what it explores.
        """
        pruner = self.pruner
        if pruner is None:
            return None
        found = self._find(int(trial.trial_id))
        if found.user_attrs["explores"]:
            return None
        study, storage = self._opened()
        reported: dict[int, float] = {}

        def report(epoch: int, value: float) -> bool:
            storage.set_trial_intermediate_value(found._trial_id, epoch, value)
            # An attempt that was killed may have come further: it is not judged.
            reported[epoch] = value
            trial = copy.copy(storage.get_trial(found._trial_id))
            trial.intermediate_values = dict(reported)
            return pruner.prune(study, trial)

        return report

    @staticmethod
    def _value_of(trial: StudyTrial, name: str) -> float:
        return float(trial.metrics.get_history(name)[-1].mean())

    def _result_of(self, trial: StudyTrial) -> dict[str, Any]:
        return {
            "metrics": {name: self._value_of(trial, name) for name in trial.metrics.metrics},
            "best_step": trial.best_step,
            "values": trial.hyperparameters.values,
            "spread": trial.spread,
            "num_runs": trial.num_runs,
            "num_epochs": trial.num_epochs,
            "seconds": trial.seconds,
        }

    def _finish(
        self,
        found: FrozenTrial,
        state: TrialState,
        values: list[float] | None = None,
        *,
        message: str | None = None,
        result: Mapping[str, Any] | None = None,
    ) -> None:
        _, storage = self._opened()
        attributes = {**(result or {}), "message": message}
        storage.set_trial_user_attr(found._trial_id, RESULT, attributes)
        storage.set_trial_state_values(found._trial_id, state, values)
        self.folder.release(found.number)

    def release_trials(self) -> None:
        """Lets go of what this process runs, as if it had not been begun: the next one will."""
        _, storage = self._opened()
        for trial_id in list(self._running):
            found = self._find(int(trial_id))
            attempts = found.user_attrs["attempts"] - 1
            storage.set_trial_user_attr(found._trial_id, "attempts", attempts)
            self.folder.release(found.number)
        self._running.clear()
        self.ongoing_trials.clear()

    @property
    def trials(self) -> dict[str, StudyTrial]:
        """All trials of all processes by id."""
        if self._study is None:
            return {}
        return {trial.trial_id: trial for trial in map(self._to_trial, self._read_trials())}

    @trials.setter
    def trials(self, _: Any) -> None:
        """KerasTuner's own dict stays empty: the study has the trials."""

    def get_trial(self, trial_id: str) -> StudyTrial:
        """The trial of that id."""
        return self._running.get(trial_id) or self._to_trial(self._find(int(trial_id)))

    def get_best_trials(self, num_trials: int = 1) -> list[StudyTrial]:
        """Completed trials, the best first.

        Of several objectives, those that no other trial beats in all come first, by the first
        objective; then those that only the former beat, and so on.
        """
        complete = [t for t in self._read_trials() if t.state == TrialState.COMPLETE]
        order = rank_costs([self._costs(trial.values) for trial in complete], num_trials)
        return [self._to_trial(complete[i]) for i in order]

    def remaining_trials(self) -> int | None:
        """How many have not been begun."""
        return None if self.max_trials is None else self.max_trials - len(self._read_trials())

    def save(self, *_: Any) -> None:
        """Nothing: the study is saved as it changes."""

    def reload(self, *_: Any) -> None:
        """Nothing: the study is read when asked."""

    def _make_proposals(self) -> Proposals:
        return Proposals(
            self.directions,
            sampler=self.sampler,
            seed=self.seed,
            min_trials_per_choice=self.min_trials_per_choice,
        )

    def _set_project_dir(self, directory: Any, project_name: str) -> None:
        super()._set_project_dir(directory, project_name)
        self._folder = StudyFolder(f"{directory}/{project_name}", self.storage)

    def _read_trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _find(self, number: int) -> FrozenTrial:
        # Of many running trials, that one alone is read anew.
        study, storage = self._opened()
        found = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
        return storage.get_trial(found)

    def _to_trial(self, found: FrozenTrial) -> StudyTrial:
        trial_id = f"{found.number:04d}"
        if trial_id in self._running:
            return self._running[trial_id]
        if trial_id in self._finished:
            return self._finished[trial_id]
        result = found.user_attrs.get(RESULT, {})
        values = result.get("values") or found.user_attrs["values"]
        make_hyperparameters = partial(self._with_values, values)
        trial = StudyTrial(
            make_hyperparameters, trial_id, STATUSES[found.state], result.get("message")
        )
        trial.best_step = result.get("best_step", 0)
        trial.num_runs = result.get("num_runs", 1)
        trial.num_epochs = result.get("num_epochs")
        trial.spread, trial.seconds = result.get("spread"), result.get("seconds")
        trial.is_pruned = found.state == TrialState.PRUNED
        for name, value in result.get("metrics", {}).items():
            trial.metrics.register(name, "min")
            trial.metrics.update(name, value, step=trial.best_step)
        if found.state == TrialState.COMPLETE:
            trial.score = found.values[0] if len(found.values) == 1 else self._sum(found.values)
        if found.state.is_finished():
            self._finished[trial_id] = trial
        return trial

    def _with_values(self, values: Mapping[str, Any]) -> keras_tuner.HyperParameters:
        hyperparameters = self.hyperparameters.copy()
        hyperparameters.values = dict(values)
        return hyperparameters

    def _costs(self, values: list[float]) -> list[float]:
        """Values of the objectives, so turned that less is better."""
        return [
            value if objective.direction == "min" else -value
            for objective, value in zip(self.objectives, values, strict=True)
        ]

    def _sum(self, values: list[float]) -> float:
        """As KerasTuner's: the sum of what is minimised less that of what is maximised."""
        return float(sum(self._costs(values)))

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens the study itself."""
        state = {
            **self.__dict__,
            "_study": None,
            "_storage": None,
            "_running": {},
            "ongoing_trials": {},
        }
        del state["_proposals"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._proposals = self._make_proposals()


def rank_costs(costs: list[list[float]], number: int) -> list[int]:
    """Positions of the best costs: fronts that no other dominates, each by the first cost."""
    left = list(range(len(costs)))
    if costs and len(costs[0]) == 1:
        return sorted(left, key=lambda i: costs[i])[:number]
    order: list[int] = []
    while left and len(order) < number:
        front = [i for i in left if not any(_dominates(costs[j], costs[i]) for j in left)]
        order += sorted(front, key=lambda i: costs[i])
        left = [i for i in left if i not in set(front)]
    return order[:number]


def _dominates(a: list[float], b: list[float]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))
