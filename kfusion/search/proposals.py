"""Which point a search tries next: never one twice, each value of a choice often enough."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from kfusion.search.quiet_optuna import quiet_optuna
from kfusion.search.samplers import GRID, Sampler, hold_parameters, make_sampler
from kfusion.search.space import (
    MAX_CHOICE_VALUES,
    Parameter,
    Space,
    Values,
    choices,
    point_key,
)
from kfusion.seeds import derive_seed

# What a finished trial's results are called in the study.
RESULT = "result"
# And the numbers whose difference to what Optuna has is the hyperparameter, by name.
MIRRORS = "mirrors"
# How often a sampler may propose what was tried before points are drawn in other ways.
MAX_REPEATS = 20
# As many structures differ before a sampler may come back to one, as TPE draws points of its own.
VARIED_STRUCTURES = 10
# Spaces of no more points are counted out when samplers repeat themselves.
MAX_COUNTED = 50_000
# Draws after which a space whose points cannot be counted counts as exhausted.
MAX_DRAWS = 1000


class Proposals:
    """Proposes points one by one.

    The sampler works on a copy of the study in memory: what it throws away is never stored, and
    nothing is written before a point is whole.

    Args:
        directions: `StudyDirection` of each objective.
        sampler: A name from `SAMPLERS`, "grid", or an Optuna sampler.
        seed: Int.
        min_trials_per_choice: Int; every value of a choice (a switch, a whole number of up to 10
            values) is tried to completion so often before the sampler begins.
    """

    def __init__(
        self,
        directions: Sequence[StudyDirection],
        *,
        sampler: Sampler = "tpe",
        seed: int = 0,
        min_trials_per_choice: int = 0,
    ):
        self.sampler = sampler
        self.seed = seed
        self.min_trials_per_choice = min_trials_per_choice
        with quiet_optuna():
            self._study = optuna.create_study(directions=list(directions))
        # Numbers in the copy by those in the study.
        self._copies: dict[int, int] = {}
        self._is_finished: set[int] = set()

    def propose(
        self,
        space: Space,
        trials: Sequence[FrozenTrial],
        *,
        like: Values | None = None,
        dials: Collection[str] = (),
        begins_group: bool = False,
    ) -> FrozenTrial | None:
        """The next trial, running, or None if every point of the space was tried.

        Args:
            space: `Space`.
            trials: All trials of the study by number, with their values in `user_attrs`.
            like: A point that the next one shares all but the dials with, if the sampler can: a
                grid goes on in its order, values that were tried too seldom come first, and what
                was tried is not tried again.
            dials: Names of hyperparameters.
            begins_group: Whether others like this one will follow: the first `VARIED_STRUCTURES`
                differ in more than dials, if the sampler can.
        """
        number = len(trials)
        self._update(trials)
        tried = {point_key(values) for trial in trials for values in _points_of(trial)}
        if not trials:
            # What the user wrote as defaults.
            return _new_trial(space, space.default_values())
        if self.sampler == GRID:
            return self._next_of_grid(space, tried)
        random = np.random.default_rng(derive_seed(self.seed, number))
        values = self._explore(space, trials, tried, random)
        if values is not None:
            return _new_trial(space, values, explores=True)
        self._study.sampler = make_sampler(self.sampler, self.seed, number)
        if like is not None:
            self._study.sampler = hold_parameters(
                self._study.sampler, space.parameters_besides(like, dials)
            )
        # A sequence that begins anew has to pass all points that were tried.
        repeats = MAX_REPEATS + (number if self.sampler == "qmc" else 0)
        known = _structures(space, trials, dials) if begins_group else set()
        for _ in range(repeats):
            trial = self._study.ask()
            values = space.suggest(trial)
            is_varied = len(known) >= VARIED_STRUCTURES
            is_new = is_varied or _structure_key(space, values, dials) not in known
            if is_new and point_key(values) not in tried:
                self._copies[number] = trial.number
                return _new_trial(space, values, system_attrs=self._find(trial.number).system_attrs)
            self._study.tell(trial.number, state=TrialState.FAIL)
        if begins_group:
            like = self.draw_structure(space, trials, dials, VARIED_STRUCTURES)
            return self.propose(space, trials, like=like, dials=dials)
        if like is not None:
            return self.propose(space, trials)
        return self._draw_untried(space, tried, random)

    def draw_structure(
        self, space: Space, trials: Sequence[FrozenTrial], dials: Collection[str], most: float
    ) -> Values | None:
        """A point whose values besides the dials are new, or None if enough were tried.

        Of each choice one of the values that were tried least is drawn.

        Of trials that come in groups of one structure, a sampler hears much of few structures and
        would stay with the first good one.

        Args:
            space: `Space`.
            trials: As of `propose`.
            dials: Names of hyperparameters.
            most: Number that is enough, if it is below `VARIED_STRUCTURES`.
        """

        known = _structures(space, trials, dials)
        if not known or len(known) >= min(most, VARIED_STRUCTURES) or self.sampler == GRID:
            return None
        random = np.random.default_rng(derive_seed(self.seed, len(trials), 1))
        counts = _count_choices(trials, tuple(TrialState))
        seldom = {value: -count for value, count in counts.items()}
        for _ in range(MAX_REPEATS):
            values = space.walk(partial(_draw, random=random, wanted=seldom))
            if _structure_key(space, values, dials) not in known:
                return values
        return None

    def _update(self, trials: Sequence[FrozenTrial]) -> None:
        """Brings the copy up to date."""
        for trial in trials:
            if trial.number in self._is_finished:
                continue
            if trial.state.is_finished():
                self._is_finished.add(trial.number)
            if trial.number not in self._copies:
                self._copies[trial.number] = len(self._study.get_trials(deepcopy=False))
                self._study.add_trial(trial)
            elif trial.state.is_finished():
                self._tell(self._copies[trial.number], trial)

    def _tell(self, copy: int, trial: FrozenTrial) -> None:
        running = optuna.Trial(self._study, self._find(copy)._trial_id)
        add_parameters(self._study._storage, self._find(copy), trial.params, trial.distributions)
        for step, value in trial.intermediate_values.items():
            running.report(value, step)
        is_complete = trial.state == TrialState.COMPLETE
        self._study.tell(
            copy, trial.values if is_complete else None, state=trial.state, skip_if_finished=True
        )

    def _find(self, copy: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[copy]

    def _next_of_grid(self, space: Space, tried: set[str]) -> FrozenTrial | None:
        check_grid(space)
        for values in space.points() or ():
            if point_key(values) not in tried:
                return _new_trial(space, values)
        return None

    def _draw_untried(self, space: Space, tried: set[str], random) -> FrozenTrial | None:
        points = space.points()
        counted = list(itertools.islice(points, MAX_COUNTED + 1)) if points is not None else []
        if points is not None and len(counted) <= MAX_COUNTED:
            untried = [values for values in counted if point_key(values) not in tried]
            return _new_trial(space, untried[random.integers(len(untried))]) if untried else None
        for _ in range(MAX_DRAWS):
            values = space.walk(lambda parameter: _draw(parameter, random))
            if point_key(values) not in tried:
                return _new_trial(space, values)
        return None

    def _explore(
        self, space: Space, trials: Sequence[FrozenTrial], tried: set[str], random
    ) -> Values | None:
        """A random point of the values that were tried least, or None if all were often enough."""
        if not self.min_trials_per_choice:
            return None
        counts = _count_choices(trials, (TrialState.COMPLETE, TrialState.RUNNING))
        # A value whose trials fail is not tried for ever.
        failures = _count_choices(trials, (TrialState.FAIL,))
        missing = {}
        for parameter in space.parameters.values():
            for value in _few_choices(parameter):
                key = (parameter.name, value)
                owed = self.min_trials_per_choice - counts[key]
                if owed > 0 and failures[key] < self.min_trials_per_choice:
                    missing[key] = owed
        while missing:
            wanted = _with_those_below(space, missing)
            for _ in range(MAX_REPEATS):
                values = space.walk(partial(_draw, random=random, wanted=wanted))
                if point_key(values) not in tried:
                    return values
            # What is missed most has no points left: the others' turn.
            most = max(missing.values())
            missing = {key: owed for key, owed in missing.items() if owed < most}
        return None


def add_parameters(
    storage: BaseStorage,
    running: FrozenTrial,
    params: Values,
    distributions: Mapping[str, BaseDistribution],
) -> None:
    """Gives a running trial those parameters that came up while its model was built."""
    for name in params.keys() - running.params.keys():
        of = distributions[name]
        storage.set_trial_param(running._trial_id, name, of.to_internal_repr(params[name]), of)


def check_grid(space: Space) -> None:
    """Raises `ValueError` naming the parameters that a grid cannot count out."""
    endless = space.endless()
    if endless:
        raise ValueError(
            f'`sampler="grid"` needs a `step` for {", ".join(endless)}: its values have no end.'
        )


def _structure_key(space: Space, values: Values, dials: Collection[str]) -> str:
    return point_key(space.parameters_besides(values, dials))


def _structures(space: Space, trials: Sequence[FrozenTrial], dials: Collection[str]) -> set[str]:
    """What trials have been tried with, besides the dials."""
    return {_structure_key(space, trial.user_attrs["values"], dials) for trial in trials}


def _points_of(trial: FrozenTrial) -> list[Values]:
    """What was proposed, and what the model was built with if more came up by then."""
    built = (trial.user_attrs.get(RESULT) or {}).get("values")
    return [trial.user_attrs["values"], *([built] if built else [])]


def _new_trial(
    space: Space,
    values: Values,
    *,
    explores: bool = False,
    system_attrs: Mapping[str, Any] | None = None,
) -> FrozenTrial:
    params, distributions = space.suggested(values)
    return optuna.create_trial(
        state=TrialState.RUNNING,
        params=params,
        distributions=distributions,
        user_attrs={
            "values": values,
            "explores": explores,
            "attempts": 1,
            MIRRORS: space.mirrors(),
        },
        system_attrs=dict(system_attrs or {}),
    )


def _count_choices(trials: Sequence[FrozenTrial], states: Sequence[TrialState]) -> dict:
    counts: collections.Counter[tuple[str, Any]] = collections.Counter()
    for trial in trials:
        if trial.state in states:
            counts.update(trial.params.items())
    return counts


def longest_choice(space: Space, dials: Collection[str]) -> int:
    """The most values that a choice has which is no dial; 1 if there is none."""
    lengths = [
        len(_few_choices(parameter))
        for position, parameter in space.parameters.items()
        if space.hyperparameters.space[position].name not in dials
    ]
    return max(lengths, default=1)


def _few_choices(parameter: Parameter) -> list[Any]:
    found = choices(parameter.distribution)
    if found is None:
        return []
    is_choice = isinstance(parameter.distribution, CategoricalDistribution)
    return list(found) if is_choice or len(found) <= MAX_CHOICE_VALUES else []


def _with_those_below(space: Space, missing: dict[tuple[str, Any], int]) -> dict:
    """What is missing under a value counts for the value: it has to be chosen to get there."""
    total = dict(missing)
    hyperparameters = space.hyperparameters.space
    for position in reversed(range(len(hyperparameters))):
        parameter = space.parameters.get(position)
        if parameter is None:
            continue
        own = max((total.get((parameter.name, v), 0) for v in _few_choices(parameter)), default=0)
        for condition in hyperparameters[position].conditions:
            for parent_position, parent in space.parameters.items():
                if hyperparameters[parent_position].name != condition.name:
                    continue
                for value in condition.values:
                    key = (parent.name, value)
                    total[key] = max(total.get(key, 0), own)
    return total


def _draw(parameter: Parameter, random, wanted: Mapping[tuple[str, Any], int] | None = None) -> Any:
    of = parameter.distribution
    if isinstance(of, (IntDistribution, FloatDistribution)) and of.log:
        low, high = np.log(of.low), np.log(of.high)
        drawn = float(np.exp(random.uniform(low, high)))
        if isinstance(of, IntDistribution):
            drawn = int(np.clip(round(drawn), of.low, of.high))
        return parameter.to_value(drawn)
    options = choices(of)
    if options is None:
        assert isinstance(of, FloatDistribution)
        return parameter.to_value(float(random.uniform(of.low, of.high)))
    if wanted is not None:
        amounts = [wanted.get((parameter.name, option), 0) for option in options]
        options = [o for o, a in zip(options, amounts, strict=True) if a == max(amounts)]
    return parameter.to_value(options[random.integers(len(options))])
