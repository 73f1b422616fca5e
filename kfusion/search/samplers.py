"""Optuna's samplers and pruners by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import optuna

from kfusion.seeds import derive_seed

# What each name makes with a seed. "grid" is no sampler: a space's points are counted out in order.
SAMPLERS: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
    "tpe": partial(optuna.samplers.TPESampler, constant_liar=True),
    "gp": partial(optuna.samplers.GPSampler, warn_independent_sampling=False),
    "cmaes": partial(optuna.samplers.CmaEsSampler, warn_independent_sampling=False),
    "random": optuna.samplers.RandomSampler,
    "qmc": partial(optuna.samplers.QMCSampler, scramble=True, warn_independent_sampling=False),
}
GRID = "grid"
NEEDS = {"gp": "torch", "cmaes": "cmaes"}
PRUNERS: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
    "median": optuna.pruners.MedianPruner,
    "percentile": lambda: optuna.pruners.PercentilePruner(25.0),
    "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "wilcoxon": optuna.pruners.WilcoxonPruner,
}

Sampler = str | optuna.samplers.BaseSampler
Pruner = str | optuna.pruners.BasePruner | None


def check_sampler(sampler: Sampler) -> None:
    """Raises `ValueError` if there is no sampler of that name, or what it needs is missing."""
    if isinstance(sampler, optuna.samplers.BaseSampler) or sampler == GRID:
        return
    if sampler not in SAMPLERS:
        raise ValueError(
            f"`sampler` must be an Optuna sampler or one of {[*SAMPLERS, GRID]}. "
            f"Received: {sampler!r}."
        )
    needed = NEEDS.get(str(sampler))
    if needed is not None:
        try:
            __import__(needed)
        except ImportError:
            raise ValueError(
                f'`sampler="{sampler}"` needs the package {needed}: pip install {needed}.'
            ) from None


def make_sampler(sampler: Sampler, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler that proposes one trial.

    A named one is made anew for each, seeded by its number: a search that was stopped goes on as
    if it had not been.

    Args:
        sampler: A name from `SAMPLERS`, or an Optuna sampler, which is taken as it is.
        seed: Int.
        number: Int, the trial's number.
    """
    if not isinstance(sampler, str):
        return sampler
    own = derive_seed(seed, number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if sampler == "qmc":
            # One sequence for all; parameters under conditions are drawn.
            independent = optuna.samplers.RandomSampler(seed=own)
            return SAMPLERS[sampler](seed=seed, independent_sampler=independent)
        return SAMPLERS[sampler](seed=own)


def hold_parameters(
    sampler: optuna.samplers.BaseSampler, values: Mapping[str, Any]
) -> optuna.samplers.BaseSampler:
    """The sampler with some parameters held at values; it proposes the others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.PartialFixedSampler(dict(values), sampler)


def make_pruner(pruner: Pruner) -> optuna.pruners.BasePruner | None:
    """The pruner of that name; None stays None: nothing is pruned.

    Raises:
        ValueError: If there is none of that name.
    """
    if pruner is None or isinstance(pruner, optuna.pruners.BasePruner):
        return pruner
    if pruner not in PRUNERS:
        raise ValueError(
            f"`pruner` must be None, an Optuna pruner or one of {list(PRUNERS)}. "
            f"Received: {pruner!r}."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return PRUNERS[pruner]()
