"""What a study says of its parameters, and what it says nothing about."""

from __future__ import annotations

import collections
import copy
import dataclasses
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
)
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from kfusion.plots import plot_confusion_counts
from kfusion.scores import SCORES
from kfusion.search import study_plots
from kfusion.search.proposals import MIRRORS, RESULT
from kfusion.search.space import MAX_CHOICE_VALUES, choices
from kfusion.search.study_folder import StudyFolder

# Bins of a parameter with many values.
NUM_BINS = 5
# Best trials whose learning curves are drawn.
NUM_CURVES = 5
# Shares of the range, on its own scale, that are its edge.
EDGE = 0.03
# Completed trials that importances need.
FEWEST_FOR_IMPORTANCE = 8
MANY_TRIALS = 300
# Trials without a better one that are worth a word, and what share of all they have to be.
STALE_TRIALS, STALE_SHARE = 20, 0.4
DOMINANT_SHARE, FAILED_SHARE, PRUNED_SHARE = 0.8, 0.2, 0.5
STATES = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class StudyAnalysis:
    """Made by `analyse`.

    Attributes:
        objective: Name of the objective.
        direction: "min" or "max".
        trials: DataFrame of one row per trial: number, state, value, spread and number of runs,
            seconds, what failed, and the parameters.
        importances: DataFrame by parameter: "fanova" (Hutter et al., 2014, ICML: share of the
            variance that the parameter alone explains) and "ped_anova" (Watanabe et al., 2023,
            arXiv:2304.10255: how far its values among the best trials differ from those of all).
            Of parameters that all completed trials have; empty if these are fewer than 8. What a
            sampler settles on late looks important for that alone: where the two disagree, trust
            neither without trials at random.
        values: DataFrame by parameter and value (of many, by range): how many trials were proposed,
            completed, pruned and failed, and the mean, 95 % interval (Student's t, of 3 trials or
            more; cut where the objective ends, as an AUC at 1) and best of the completed ones.
        warnings: Sentences: what the study does not show.
        log: Names of parameters that were searched on a logarithmic scale.
        histories: Values of each epoch by metric, of the first run of the best trials, by name.
        confusion: `(classes, classes)` counts of the rows that judged the best trial's median run,
            true classes by predicted ones; None if it predicts no classes.
    """

    objective: str
    direction: str
    trials: pd.DataFrame
    importances: pd.DataFrame
    values: pd.DataFrame
    warnings: list[str]
    log: tuple[str, ...] = ()
    histories: Mapping[str, Mapping[str, list[float]]] = dataclasses.field(default_factory=dict)
    confusion: np.ndarray | None = None

    @property
    def parameters(self) -> list[str]:
        """Names, the most important first as far as that is known."""
        known = list(self.importances.index)
        return [*known, *(p for p in self.values["parameter"].unique() if p not in known)]

    def __repr__(self) -> str:
        return f"<StudyAnalysis of {len(self.trials)} trials by {self.objective}>"

    def summary(self) -> str:
        """Counts, importances, scores by value and warnings as text."""
        counts = self.trials["state"].value_counts()
        lines = [
            f"{len(self.trials)} trials by {self.objective}: "
            + ", ".join(f"{n} {s}" for s, n in counts.items())
        ]
        if len(self.importances):
            lines += ["", self.importances.round(3).to_string()]
        shown = self.values.drop(columns="running").round(4)
        lines += ["", shown.to_string(index=False, na_rep="")]
        lines += ["", *(f"! {warning}" for warning in self.warnings)]
        return "\n".join(lines)

    def plots(
        self, num_parameters: int = 9, class_names: Sequence[str] | None = None
    ) -> dict[str, Figure]:
        """Pictures by name; those that have no data are left out.

        "history", "importances", "values" (what was proposed and what became of it), "slices",
        "parallel" (coordinates), "learning_curves" and "confusion" (of the best trial).

        Args:
            num_parameters: Int, how many of the most important ones are shown; of a study too small
                for importances, the first ones.
            class_names: Of the targets; by default their numbers.
        """
        shown = self.parameters[:num_parameters]
        found = {"values": study_plots.plot_values(self.values, shown)} if shown else {}
        if (self.trials["state"] == "completed").any():
            about = (self.trials, shown, self.objective)
            found["history"] = study_plots.plot_history(self.trials, self.objective, self.direction)
            if shown:
                found["slices"] = study_plots.plot_slices(*about, log=self.log)
                found["parallel"] = study_plots.plot_parallel(*about, self.direction, log=self.log)
        if len(self.importances):
            found["importances"] = study_plots.plot_importances(self.importances)
        if any(self.objective in history for history in self.histories.values()):
            found["learning_curves"] = study_plots.plot_learning_curves(
                self.histories, self.objective
            )
        if self.confusion is not None:
            names = class_names or [str(label) for label in range(len(self.confusion))]
            found["confusion"] = plot_confusion_counts(self.confusion, names)
        return found

    def save_plots(self, folder: str | os.PathLike, **keywords: Any) -> list[Path]:
        """Writes the pictures as PNG files; returns their paths.

        Args:
            folder: Made if needed.
            **keywords: For `plots`.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        paths = []
        for name, figure in self.plots(**keywords).items():
            paths.append(Path(folder) / f"{name}.png")
            figure.savefig(paths[-1])
        return paths


def analyse(study: optuna.Study | str | os.PathLike | Any) -> StudyAnalysis:
    """Says which parameters matter, which values were tried, and what remains unknown.

    Args:
        study: `OptunaTuner`, an Optuna study, or the folder of a tuner's project.

    Returns:
        `StudyAnalysis`; of several objectives, by the first.

    Raises:
        ValueError: If the study has no trials.
        FileNotFoundError: If the folder holds no study.
    """
    folder = None
    if isinstance(study, (str, os.PathLike)):
        folder = StudyFolder(study)
        study = folder.read()
    elif not isinstance(study, optuna.Study):
        folder, study = study.oracle.folder, study.oracle.study
    trials = [_in_its_own_numbers(trial) for trial in study.get_trials(deepcopy=False)]
    if not trials:
        raise ValueError(f"The study {study.study_name!r} has no trials yet.")
    direction = "max" if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else "min"
    distributions: dict[str, BaseDistribution] = {}
    for trial in trials:
        distributions.update(trial.distributions)
    values = pd.DataFrame(
        [
            row
            for name, distribution in distributions.items()
            for row in _rows_of(name, distribution, trials, direction)
        ]
    )
    names = study.metric_names or ["objective"]
    if len(values):
        values[["low", "high"]] = values[["low", "high"]].clip(*_limits(names[0]))
    importances = _importances(study, trials)
    told = [
        *_warn_of_values(values),
        *_warn_of_pruned(trials),
        *_warn_of_dominant(values, importances),
        *_warn_of_edges(trials, distributions, direction),
        *_warn_of_failures(trials),
        *_warn_of_stale(trials, direction),
        *_warn_of_ties(trials, direction),
    ]
    best = _best_first(trials, direction)[:NUM_CURVES]
    histories, confusion = {}, None
    if folder is not None and best:
        kept = {f"trial {trial.number}": folder.read_history(trial.number) for trial in best}
        histories = {name: runs[0] for name, runs in kept.items() if runs}
        confusion = folder.read_confusion(best[0].number)
    log = tuple(name for name, of in distributions.items() if getattr(of, "log", False))
    return StudyAnalysis(
        names[0],
        direction,
        _frame(trials),
        importances,
        values,
        told,
        log,
        histories,
        None if confusion is None else np.array(confusion),
    )


def _in_its_own_numbers(trial: FrozenTrial) -> FrozenTrial:
    """A trial with hyperparameters as they are: of `reverse_log`, Optuna has the mirror image."""
    mirrors = trial.user_attrs.get(MIRRORS)
    if not mirrors:
        return trial
    trial = copy.copy(trial)
    trial.params = {
        name: mirrors[name] - value if name in mirrors else value
        for name, value in trial.params.items()
    }
    distributions: dict[str, Any] = dict(trial.distributions)
    for name in mirrors.keys() & distributions.keys():
        of = distributions[name]
        distributions[name] = type(of)(of.low, of.high)
    trial.distributions = distributions
    return trial


def _completed(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


def _result(trial: FrozenTrial, name: str) -> Any:
    return trial.user_attrs.get(RESULT, {}).get(name)


def _frame(trials: list[FrozenTrial]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "number": trial.number,
                "state": STATES[trial.state],
                "value": trial.values[0] if trial.values else math.nan,
                "spread": _result(trial, "spread"),
                "runs": _result(trial, "num_runs"),
                "seconds": _result(trial, "seconds"),
                "message": _result(trial, "message"),
                **trial.params,
            }
            for trial in trials
        ]
    )


def _importances(study: optuna.Study, trials: list[FrozenTrial]) -> pd.DataFrame:
    complete = _completed(trials)
    empty = pd.DataFrame(columns=["fanova", "ped_anova"])
    if len(complete) < FEWEST_FOR_IMPORTANCE or len({t.values[0] for t in complete}) < 2:
        return empty
    target: Callable[[FrozenTrial], float] | None = None
    if len(study.directions) > 1:
        # With a target, PED-ANOVA takes the least for the best.
        sign = -1 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else 1
        target = partial(_first_value, sign=sign)
    # Of many trials fewer trees say the same: shares differ by 0.002 from seed to seed.
    num_trees = 32 if len(complete) <= MANY_TRIALS else 16
    evaluators: dict[str, BaseImportanceEvaluator] = {
        "fanova": FanovaImportanceEvaluator(n_trees=num_trees, max_depth=8, seed=0),
        "ped_anova": PedAnovaImportanceEvaluator(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {
            name: optuna.importance.get_param_importances(study, evaluator=evaluator, target=target)
            for name, evaluator in evaluators.items()
        }
    return pd.DataFrame(found).sort_values("fanova", ascending=False) if found["fanova"] else empty


def _first_value(trial: FrozenTrial, sign: int) -> float:
    return sign * trial.values[0]


def _rows_of(
    name: str, distribution: BaseDistribution, trials: list[FrozenTrial], direction: str
) -> list[dict[str, Any]]:
    """One row per value of a parameter, or per range of values."""
    having = [trial for trial in trials if name in trial.params]
    options = choices(distribution)
    if options is not None and len(options) <= max(MAX_CHOICE_VALUES, NUM_BINS):
        parts = [(option, [t for t in having if t.params[name] == option]) for option in options]
    elif isinstance(distribution, CategoricalDistribution):
        parts = [
            (option, [t for t in having if t.params[name] == option])
            for option in distribution.choices
        ]
    else:
        edges = _bin_edges(distribution)
        place = [
            int(np.clip(np.searchsorted(edges, t.params[name], side="right"), 1, NUM_BINS)) - 1
            for t in having
        ]
        parts = [
            (
                f"{edges[i]:.2g} to {edges[i + 1]:.2g}",
                [t for t, where in zip(having, place, strict=True) if where == i],
            )
            for i in range(NUM_BINS)
        ]
    return [{"parameter": name, "value": v, **_tell(part, direction)} for v, part in parts]


def _limits(objective: str) -> tuple[float, float]:
    """What no value of an objective passes, of those that are known."""
    name = objective.removeprefix("val_")
    found = [scores[name] for scores in SCORES.values() if name in scores]
    return found[0].limits if found else (-math.inf, math.inf)


def _bin_edges(distribution: Any) -> np.ndarray:
    low, high = distribution.low, distribution.high
    if distribution.log:
        return np.geomspace(low, high, NUM_BINS + 1)
    return np.linspace(low, high, NUM_BINS + 1)


def _tell(trials: list[FrozenTrial], direction: str) -> dict[str, Any]:
    counts = collections.Counter(STATES[trial.state] for trial in trials)
    scores = np.array([trial.values[0] for trial in _completed(trials)])
    told: dict[str, Any] = {
        "proposed": len(trials),
        **{state: counts[state] for state in ("completed", "pruned", "failed", "running")},
        "mean": scores.mean() if len(scores) else math.nan,
        "low": math.nan,
        "high": math.nan,
        "best": math.nan,
    }
    if len(scores):
        told["best"] = scores.max() if direction == "max" else scores.min()
    # Of two, it would reach beyond what a score can be.
    if len(scores) > 2 and scores.std() > 0:
        told["low"], told["high"] = stats.t.interval(
            0.95, len(scores) - 1, scores.mean(), stats.sem(scores)
        )
    return told


def _warn_of_values(values: pd.DataFrame) -> list[str]:
    """Values that were never proposed, or never completed."""
    told = []
    for row in values.itertuples():
        if not row.proposed:
            told.append(f"{row.parameter} = {row.value} was never proposed.")
        elif not row.completed and not row.running:
            ends = [
                f"{what} {_times(count)}"
                for what, count in (("pruned", row.pruned), ("failed", row.failed))
                if count
            ]
            told.append(
                f"{row.parameter} = {row.value} was proposed {_times(row.proposed)} and "
                f"{' and '.join(ends)}: the study says nothing about it."
            )
    return told


def _warn_of_pruned(trials: list[FrozenTrial]) -> list[str]:
    pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
    if pruned <= PRUNED_SHARE * len(trials):
        return []
    return [
        f"{pruned} of {len(trials)} trials were pruned: what is said of values rests on the "
        f"{len(_completed(trials))} that completed, and what learns slowly may be missing."
    ]


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _warn_of_dominant(values: pd.DataFrame, importances: pd.DataFrame) -> list[str]:
    """The most important parameter, if nearly all trials have one value of it."""
    if not len(importances):
        return []
    name = importances.index[0]
    part = values[values["parameter"] == name]
    total = part["completed"].sum()
    most = part.loc[part["completed"].idxmax()]
    if len(part) < 2 or most["completed"] <= DOMINANT_SHARE * total:
        return []
    return [
        f"{name} mattered most, and {most['completed']} of {total} completed trials have "
        f"{name} = {most['value']}: its other values were hardly tried (`min_trials_per_choice` "
        "sees to it that those of a choice are)."
    ]


def _warn_of_edges(
    trials: list[FrozenTrial], distributions: Mapping[str, BaseDistribution], direction: str
) -> list[str]:
    best = _best(trials, direction)
    told = []
    for name, value in () if best is None else best.params.items():
        of: Any = distributions[name]
        if isinstance(of, CategoricalDistribution) or of.low == of.high:
            continue
        if not isinstance(of, FloatDistribution) and of.high - of.low < MAX_CHOICE_VALUES:
            place = (value - of.low) / (of.high - of.low)
            is_edge = place in (0, 1)
        else:
            low, high, at = (math.log(x) if of.log else x for x in (of.low, of.high, value))
            place = (at - low) / (high - low)
            is_edge = min(place, 1 - place) < EDGE
        if is_edge:
            told.append(
                f"{name}'s best value, {value:.3g}, lies on the edge of its range "
                f"[{of.low:.3g}, {of.high:.3g}]: better ones may lie outside."
            )
    return told


def _best(trials: list[FrozenTrial], direction: str) -> FrozenTrial | None:
    return next(iter(_best_first(trials, direction)), None)


def _best_first(trials: list[FrozenTrial], direction: str) -> list[FrozenTrial]:
    sign = -1 if direction == "max" else 1
    return sorted(_completed(trials), key=lambda trial: sign * trial.values[0])


def _warn_of_failures(trials: list[FrozenTrial]) -> list[str]:
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    if len(failed) <= FAILED_SHARE * len(trials):
        return []
    message = (_result(failed[0], "message") or "no reason was kept").strip().splitlines()[-1]
    return [f"{len(failed)} of {len(trials)} trials failed. The first one: {message}"]


def _warn_of_stale(trials: list[FrozenTrial], direction: str) -> list[str]:
    complete, best = _completed(trials), _best(trials, direction)
    since = sum(trial.number > best.number for trial in complete) if best is not None else 0
    if since < max(STALE_TRIALS, STALE_SHARE * len(complete)):
        return []
    return [f"The last {since} completed trials did not improve."]


def _warn_of_ties(trials: list[FrozenTrial], direction: str) -> list[str]:
    """The best two settings, if their runs overlap (Welch's t)."""
    first = _best_first(trials, direction)[:2]
    told = [(t.values[0], _result(t, "spread"), _result(t, "num_runs")) for t in first]
    if len(told) < 2 or any(spread is None for _, spread, _ in told):
        return []
    (a, spread_a, runs_a), (b, spread_b, runs_b) = told
    if not spread_a and not spread_b:
        return []
    pvalue = stats.ttest_ind_from_stats(
        a, spread_a, runs_a, b, spread_b, runs_b, equal_var=False
    ).pvalue
    if pvalue < 0.05:
        return []
    return [
        f"No difference is shown between the best two settings (trials {first[0].number} and "
        f"{first[1].number}): {a:.4f} and {b:.4f} over {runs_a} runs each, p = {pvalue:.2f}."
    ]
