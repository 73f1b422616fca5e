"""Optuna's samplers and pruners by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import optuna

from kfusion.seeds import derive_seed

# What each name makes of a seed. "grid" is no sampler: a space's points are counted out in order.
SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, constant_liar=True),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "qmc": lambda seed: optuna.samplers.QMCSampler(seed=seed, scramble=True),
}
GRID = "grid"
# Samplers whose points are one sequence: the same seed for each of them.
ONE_SEQUENCE = ("qmc",)
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
    drawn = derive_seed(seed, *(() if sampler in ONE_SEQUENCE else (number,)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[sampler](drawn)


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
    return PRUNERS[pruner]()
