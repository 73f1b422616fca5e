"""KerasTuner's search spaces for Optuna: one parameter per distribution, conditions respected."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import keras_tuner
import optuna
from keras_tuner.engine import hyperparameters as hp_types
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

Values = dict[str, Any]
# Whole numbers of no more values are choices.
MAX_CHOICE_VALUES = 10


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A hyperparameter as Optuna sees it.

    Attributes:
        name: The hyperparameter's name; where several share one under different conditions, with
            these behind it.
        distribution: Optuna distribution.
        mirror: Float; the hyperparameter is this number less what Optuna suggests (`reverse_log`),
            or None for the same number.
    """

    name: str
    distribution: BaseDistribution
    mirror: float | None = None

    def to_value(self, suggested: Any) -> Any:
        """The hyperparameter's value, from Optuna's."""
        return suggested if self.mirror is None else self.mirror - suggested

    def to_suggested(self, value: Any) -> Any:
        """Optuna's value, from the hyperparameter's."""
        return value if self.mirror is None else self.mirror - value

    def nearest(self, value: Any) -> Any:
        """The value itself, or the nearest to it that the distribution holds."""
        of = self.distribution
        if isinstance(of, CategoricalDistribution) or choices(of) is None:
            return value
        assert isinstance(of, (IntDistribution, FloatDistribution))
        wanted = min(max(self.to_suggested(value), of.low), of.high)
        step = of.step or 1
        return self.to_value(_on_step(of.low, step, round((wanted - of.low) / step)))


class Space:
    """A KerasTuner space, walked parents first.

    Args:
        hyperparameters: `keras_tuner.HyperParameters`.
    """

    def __init__(self, hyperparameters: keras_tuner.HyperParameters):
        self.hyperparameters = hyperparameters
        self.parameters: dict[int, Parameter] = {}
        for position, hp in enumerate(hyperparameters.space):
            found = _parameter(hp, self._label(hp))
            if found is not None:
                self.parameters[position] = found

    def _label(self, hp) -> str:
        same = [other for other in self.hyperparameters.space if other.name == hp.name]
        if len(same) == 1:
            return hp.name
        conditions = ", ".join(
            f"{condition.name} in {json.dumps(condition.values)}" for condition in hp.conditions
        )
        return f"{hp.name} ({conditions})" if conditions else hp.name

    def walk(self, choose: Callable[[Parameter], Any]) -> Values:
        """Values of all active hyperparameters, each chosen after those that decide on it.

        Args:
            choose: Callable `choose(parameter) -> value`, not asked for fixed ones.
        """
        values: Values = {}
        for position, hp in enumerate(self.hyperparameters.space):
            if hp.name in values or not _is_active(hp, values):
                continue
            parameter = self.parameters.get(position)
            values[hp.name] = hp.default if parameter is None else choose(parameter)
        return values

    def default_values(self) -> Values:
        """The point that the user's defaults are."""
        values: Values = {}
        for position, hp in enumerate(self.hyperparameters.space):
            if hp.name in values or not _is_active(hp, values):
                continue
            parameter = self.parameters.get(position)
            values[hp.name] = hp.default if parameter is None else parameter.nearest(hp.default)
        return values

    def suggest(self, trial: optuna.Trial) -> Values:
        """Values that a trial suggests; only active parameters are asked for."""
        return self.walk(lambda parameter: parameter.to_value(_suggest(trial, parameter)))

    def suggested(self, values: Mapping[str, Any]) -> tuple[Values, dict[str, BaseDistribution]]:
        """Parameters and their distributions, as Optuna keeps them, of the values of a trial."""
        params: Values = {}
        distributions: dict[str, BaseDistribution] = {}
        known: Values = {}
        for position, hp in enumerate(self.hyperparameters.space):
            if hp.name in known or hp.name not in values or not _is_active(hp, known):
                continue
            known[hp.name] = values[hp.name]
            parameter = self.parameters.get(position)
            if parameter is not None:
                params[parameter.name] = parameter.to_suggested(values[hp.name])
                distributions[parameter.name] = parameter.distribution
        return params, distributions

    def parameters_besides(self, values: Mapping[str, Any], names: Collection[str]) -> Values:
        """What `suggested` gives of a point, but for the hyperparameters named."""
        params, _ = self.suggested(values)
        left_out = {
            parameter.name
            for position, parameter in self.parameters.items()
            if self.hyperparameters.space[position].name in names
        }
        return {name: value for name, value in params.items() if name not in left_out}

    def mirrors(self) -> dict[str, float]:
        """The `mirror` of each parameter that has one, by name."""
        return {p.name: p.mirror for p in self.parameters.values() if p.mirror is not None}

    def endless(self) -> list[str]:
        """Names of parameters that have no end of values."""
        return [p.name for p in self.parameters.values() if choices(p.distribution) is None]

    def points(self) -> Iterator[Values] | None:
        """All points in the order of the space, or None if a parameter has no end of values."""
        return None if self.endless() else self._points({}, 0)

    def _points(self, values: Values, start: int) -> Iterator[Values]:
        space = self.hyperparameters.space
        for position in range(start, len(space)):
            hp = space[position]
            if hp.name in values or not _is_active(hp, values):
                continue
            parameter = self.parameters.get(position)
            options: Sequence[Any] = [hp.default]
            if parameter is not None:
                options = choices(parameter.distribution) or []
            for option in options:
                value = option if parameter is None else parameter.to_value(option)
                yield from self._points({**values, hp.name: value}, position + 1)
            return
        yield values

    def describe(self) -> dict[str, Any]:
        """The space as JSON, by hyperparameter."""
        configs = self.hyperparameters.get_config()["space"]
        labels = [self._label(hp) for hp in self.hyperparameters.space]
        return json.loads(json.dumps(dict(zip(labels, configs, strict=True))))


def choices(distribution: BaseDistribution) -> Sequence[Any] | None:
    """All values of a distribution, or None if they have no end."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        low, step = distribution.low, distribution.step
        number = round((distribution.high - low) / step)
        return [_on_step(low, step, i) for i in range(number + 1)]
    return None


def _on_step(low: float, step: float, number: int) -> float:
    """The decimal number that is written so: 0.3, not 3 * 0.1."""
    value = Decimal(str(low)) + number * Decimal(str(step))
    return int(value) if isinstance(low, int) and isinstance(step, int) else float(value)


def point_key(values: Mapping[str, Any]) -> str:
    """Text that two points share if they are the same."""
    return json.dumps(dict(sorted(values.items())), default=str)


def _suggest(trial: optuna.Trial, parameter: Parameter) -> Any:
    name, of = parameter.name, parameter.distribution
    if isinstance(of, CategoricalDistribution):
        return trial.suggest_categorical(name, of.choices)
    if isinstance(of, IntDistribution):
        return trial.suggest_int(name, of.low, of.high, step=of.step, log=of.log)
    assert isinstance(of, FloatDistribution)
    return trial.suggest_float(name, of.low, of.high, step=of.step, log=of.log)


def _is_active(hp, values: Values) -> bool:
    return all(condition.is_active(values) for condition in hp.conditions)


def _parameter(hp, label: str) -> Parameter | None:
    """None for what is fixed."""
    if isinstance(hp, hp_types.Fixed):
        return None
    found = _searched_parameter(hp, label)
    # A range from a number to itself.
    return (
        None if found.distribution.single() and found.nearest(hp.default) == hp.default else found
    )


def _searched_parameter(hp, label: str) -> Parameter:
    if isinstance(hp, hp_types.Boolean):
        return Parameter(label, CategoricalDistribution([False, True]))
    if isinstance(hp, hp_types.Choice):
        return Parameter(label, CategoricalDistribution(list(hp.values)))
    if not isinstance(hp, (hp_types.Int, hp_types.Float)):
        raise TypeError(f"Hyperparameter {hp.name!r} is of a kind that is not known: {hp!r}.")
    whole = isinstance(hp, hp_types.Int)
    if hp.sampling != "linear" and hp.step is not None:
        # Multiplied by the step: values far from evenly spaced.
        return Parameter(label, CategoricalDistribution(_geometric(hp, whole)))
    mirror = hp.min_value + hp.max_value if hp.sampling == "reverse_log" else None
    is_log = hp.sampling != "linear"
    if whole:
        step = hp.step or 1
        high = hp.max_value - (hp.max_value - hp.min_value) % step
        return Parameter(label, IntDistribution(hp.min_value, high, is_log, step), mirror)
    if hp.step is None:
        return Parameter(label, FloatDistribution(hp.min_value, hp.max_value, is_log), mirror)
    number = int((hp.max_value - hp.min_value) / hp.step + 1e-9)
    high = _on_step(float(hp.min_value), hp.step, number)
    return Parameter(label, FloatDistribution(hp.min_value, high, step=hp.step), mirror)


def _geometric(hp, whole: bool) -> list[Any]:
    number = int(math.log(hp.max_value / hp.min_value, hp.step) + 1e-8) + 1
    values = [hp.min_value * hp.step**i for i in range(number)]
    if hp.sampling == "reverse_log":
        values = [hp.max_value + hp.min_value - value for value in values]
    return [round(value) if whole else float(value) for value in values]
