"""Candidates on the same folds beside each input alone: what a fusion gains, and how surely."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kfusion.data.folds import Fold
from kfusion.data.fusion_data import FusionData
from kfusion.data.inputs import IMAGE, TABULAR
from kfusion.evidence.delong import check_confidence
from kfusion.evidence.estimates import Estimate, JudgedRows, check_defined, estimate
from kfusion.evidence.paired_comparison import (
    PairedComparison,
    compare_folds,
    correct_by_holm,
    format_pvalue,
)
from kfusion.json_values import describe, none_if_not_finite
from kfusion.plots import plot_intervals
from kfusion.scores import Score
from kfusion.tasks import Task
from kfusion.validation.baselines import (
    PLAIN_CONCAT,
    as_fusion_data,
    fused,
    plain_concat,
    standard_single_inputs,
)
from kfusion.validation.cross_validation import (
    CrossValidation,
    Fit,
    FoldError,
    cross_validate,
    plan_folds,
    read_rows,
)
from kfusion.versions import library_versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEST_SINGLE = "the best single input"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Candidates beside single inputs on the same folds. Made by `compare`.

    Attributes:
        task: `Task`.
        score: `Score` by which they were compared.
        results: `CrossValidation` by name, of all that came through.
        singles: Names of those of one input.
        failures: Messages by name, of those that did not.
        chosen: Name of the best single input, fold by fold.
        is_nested: Whether it was chosen on rows outside of the fold that it judges; where there
            were none, it is the best on the judged rows.
        best_single: Name of the single input that is best over all rows.
        estimates: `Estimate` of each one's own score, and of the best single input's as chosen.
        pairs: `PairedComparison` of each candidate with the best single input: as chosen fold by
            fold, or as best over all rows, whichever shows less.
        settings: What was asked for and what judged, JSON-able: rows, rows by class, groups, folds,
            confidence, seed, and the versions of the libraries.
        proposed: Name of the candidate that the verdict is about; None for the best of them.
        groups: `(rows,)` values that keep rows together, or None.
    """

    task: Task
    score: Score
    results: dict[str, CrossValidation]
    singles: tuple[str, ...]
    failures: dict[str, str]
    chosen: tuple[str, ...]
    is_nested: bool
    best_single: str
    estimates: dict[str, Estimate]
    pairs: dict[str, PairedComparison]
    settings: dict[str, Any]
    proposed: str | None = None
    groups: np.ndarray | None = None

    def __repr__(self) -> str:
        return f"<Comparison of {len(self.results)} by {self.score.name}: {self.verdict}>"

    @property
    def best(self) -> str:
        """Name of the candidate that was proposed, or of that with the best mean score."""
        return self.proposed or max(
            self.pairs, key=lambda name: self.score.sign * self.estimates[name].value
        )

    @property
    def verdict(self) -> str:
        """One sentence: the proposed or the best candidate against the best single input."""
        if not self.pairs:
            return "No candidate came through: there is nothing to compare."
        return self.pairs[self.best].verdict

    def to_frame(self) -> pd.DataFrame:
        """A DataFrame of one row per candidate: score, interval, difference and p-values."""
        return pd.DataFrame([self._row(name) for name in [*self.results, *self.failures]])

    def _row(self, name: str) -> dict[str, Any]:
        if name in self.failures:
            return {"name": name, "role": "failed", "message": self.failures[name]}
        own = self.estimates[name]
        by_fold = own.by_fold[:, 0]
        row: dict[str, Any] = {
            "name": name,
            "role": "single input" if name in self.singles else "candidate",
            "mean": own.value,
            "sd": float(by_fold.std(ddof=1)) if len(by_fold) > 1 else float("nan"),
            "low": own.low,
            "high": own.high,
            "method": own.method,
            "seconds": sum(result.seconds for result in self.results[name].folds),
        }
        if name in self.pairs:
            pair = self.pairs[name]
            row |= {
                "difference": pair.difference,
                "difference_low": pair.low,
                "difference_high": pair.high,
                **{f"p_{test}": value for test, value in pair.pvalues.items()},
                "p_holm": pair.adjusted_pvalue,
            }
        return row

    def summary(self) -> str:
        """A text table of all candidates, what failed, and the verdict."""
        names = [*self.results, *self.failures]
        width = max(len(self.score.name), *map(len, names))
        lines = [
            f"{self.score.name:<{width}}    mean      sd  interval          against the best "
            f"single input, p by Holm for {len(self.pairs)}"
        ]
        for name in names:
            row = self._row(name)
            if name in self.failures:
                lines.append(f"{name:<{width}}  failed: {row['message']}")
                continue
            line = f"{name:<{width}}  {row['mean']:6.4f}  {row['sd']:6.4f}  "
            line += f"[{row['low']:.4f}, {row['high']:.4f}]"
            if name in self.pairs:
                pair = self.pairs[name]
                line += f"  {pair.difference:+.4f} [{pair.low:+.4f}, {pair.high:+.4f}]"
                line += f"  {format_pvalue(pair.pvalue)}"
            lines.append(line)
        return "\n".join([*lines, self.describe_choice(), self.verdict])

    def describe_choice(self) -> str:
        """How the best single input was chosen, as text."""
        counts = {name: self.chosen.count(name) for name in dict.fromkeys(self.chosen)}
        listed = ", ".join(f"{name} in {count}" for name, count in counts.items())
        how = "on the other folds' rows" if self.is_nested else "on the judged rows themselves"
        nested = self.estimates[BEST_SINGLE].value
        return (
            f"Best single input {nested:.4f}, chosen {how} ({listed} of {len(self.chosen)} folds); "
            f"{self.estimates[self.best_single].value:.4f} over all rows ({self.best_single}). "
            "Candidates are compared with both, and the comparison that shows less is told."
        )

    def to_json(self) -> str:
        """All numbers as JSON; what is not finite is null."""
        rows = [self._row(name) for name in [*self.results, *self.failures]]
        about = {
            "score": self.score.name,
            "direction": self.score.direction,
            **self.settings,
            "best_single": {
                "mean": self.estimates[BEST_SINGLE].value,
                "chosen": list(self.chosen),
                "chosen_on": "other folds" if self.is_nested else "judged rows",
                "over_all_rows": self.best_single,
            },
            "best": self.best if self.pairs else None,
            "verdict": self.verdict,
            "candidates": [none_if_not_finite(row) for row in rows],
            "comparisons": {name: pair.to_dict() for name, pair in self.pairs.items()},
        }
        return json.dumps(about, ensure_ascii=False, indent=1)

    def plot(self, ax: Any = None) -> Figure:
        """Draws each one's score with its interval, and the best single input as a line."""
        names = list(self.results)
        return plot_intervals(
            names,
            [self.estimates[name].value for name in names],
            [self.estimates[name].low for name in names],
            [self.estimates[name].high for name in names],
            reference=self.estimates[self.best_single].value,
            reference_name=BEST_SINGLE,
            label=self.score.name,
            ax=ax,
        )


def compare(
    candidates: Mapping[str, Fit] | Sequence[str],
    x: Any,
    y: Any = None,
    *,
    folds: Any = 5,
    single_inputs: Mapping[str, Fit] | None = None,
    task: Task | str | None = None,
    score: str | None = None,
    groups: Any = None,
    order: Any = None,
    repeats: int = 1,
    n_jobs: int | None = 1,
    directory: str | os.PathLike | None = None,
    confidence: float = 0.95,
    num_resamples: int | None = None,
    seed: int = 0,
    verbose: int | bool = 1,
    **keywords: Any,
) -> Comparison:
    """Cross-validates candidates beside each input alone, all on the same folds, with a verdict.

    Beside the candidates stand a network of each input, boosted trees on the table and plain
    concatenation; `single_inputs` puts others in their place. Each candidate is
    compared with the best single input twice: as chosen fold by fold by the scores on the rows
    outside of that fold, so that no row helps to choose what it judges, and as the one that is
    best over all rows. The comparison that shows less is told: the first alone would favour a
    candidate where inputs are about equal, the second put it at a disadvantage.

    Three things are told of each difference: its interval and p-value by DeLong's test (AUC; by
    groups where there are any) or a paired bootstrap, for the rows that judge; the corrected
    resampled t test over the folds (Nadeau & Bengio, 2003, Machine Learning 52:239-281), for
    other training rows too, which shows less; and McNemar's test of the classes told. Holm's
    correction is for the number of candidates, plain concatenation among them.

    Args:
        candidates: Callables `fit(x, y) -> model` by name, as `cross_validate` takes them; or
            names of fusions.
        x: As in `cross_validate`.
        y: As in `cross_validate`.
        folds: As in `cross_validate`.
        single_inputs: Callables by name, what a candidate has to beat; by default a network of
            each input and boosted trees, for which `x` must be `FusionData`, or have "tabular" and
            one or more others.
        task: As in `cross_validate`.
        score: Name of a score of the task; by default AUC, or RMSE.
        groups: As in `cross_validate`.
        order: As in `cross_validate`.
        repeats: As in `cross_validate`.
        n_jobs: As in `cross_validate`.
        directory: Folder for finished folds of each candidate; the same call goes on there.
        confidence: Float in (0, 1), of intervals.
        num_resamples: Int, of the bootstrap; see `compare_predictions`.
        seed: Int.
        verbose: 0 hides the progress.
        **keywords: For `kfusion.fit` in candidates given by name and the standard inputs, such
            as `epochs`; or `branches`, see `single_input`.

    Returns:
        `Comparison`: `summary()`, `verdict`, `to_frame()`, `to_json()`, `plot()`.

    Raises:
        TypeError: If a candidate is no callable, or a keyword is none of `fit`.
        ValueError: If rows, folds or the score do not fit, a fusion is unknown, two candidates
            have one name, or the directory holds other work. All this before anything is fitted.
        RuntimeError: If no single input came through. A candidate that fails is reported and
            the others go on.
    """
    fits, singles, own_names = _gather(candidates, single_inputs, x, keywords)
    _check_settings(confidence, num_resamples)
    made = plan_folds(
        x, y, folds=folds, task=task, groups=groups, order=order, repeats=repeats, seed=seed
    )
    x, y, read_task, groups = read_rows(x, y, task, groups)
    chosen_score = read_task.score(score)
    check_defined(y, [fold.test for fold in made], task=read_task, score=chosen_score)
    data = x
    if own_names and not isinstance(x, FusionData):
        data = as_fusion_data(x, y, task=read_task, groups=groups)
    results: dict[str, CrossValidation] = {}
    failures: dict[str, str] = {}
    # Candidates come first: what is wrong with them should show before the rest is trained.
    for name in sorted(fits, key=lambda name: name in singles):
        try:
            results[name] = cross_validate(
                fits[name],
                data if name in own_names else x,
                y,
                folds=made,
                task=read_task,
                groups=groups,
                n_jobs=n_jobs,
                directory=None if directory is None else Path(directory) / _slug(name),
                about=describe(keywords) if name in own_names else None,
                seed=seed,
                name=name,
                verbose=verbose,
            )
        except (FoldError, BrokenProcessPool) as error:
            failures[name] = str(error) if isinstance(error, FoldError) else repr(error)
            warnings.warn(f"{name!r} failed. {failures[name]}", stacklevel=2)
    return compare_results(
        {name: results[name] for name in fits if name in results},
        singles=singles,
        score=chosen_score.name,
        groups=groups,
        failures=failures,
        confidence=confidence,
        num_resamples=num_resamples,
        seed=seed,
        verbose=verbose,
    )


def compare_results(
    results: Mapping[str, CrossValidation],
    *,
    singles: Sequence[str],
    score: str | None = None,
    groups: np.ndarray | None = None,
    failures: Mapping[str, str] | None = None,
    proposed: str | None = None,
    confidence: float = 0.95,
    num_resamples: int | None = None,
    seed: int = 0,
    verbose: int | bool = 1,
) -> Comparison:
    """Compares models that are cross-validated already, as `compare` does.

    Args:
        results: By name, results of `cross_validate` on the same rows and folds.
        singles: Names of those of one input.
        score: As in `compare`.
        groups: As in `compare`.
        failures: Messages by name, of those that did not come through.
        proposed: Name of the candidate that the verdict is to be about; None for the best.
        confidence: As in `compare`.
        num_resamples: As in `compare`.
        seed: Int.
        verbose: 0 hides the progress.

    Returns:
        `Comparison`.

    Raises:
        RuntimeError: If no single input is among the results.
        ValueError: If the score is unknown or undefined in a fold.
    """
    failures = dict(failures or {})
    alive = {name: result for name, result in results.items() if name in singles}
    if not alive:
        raise RuntimeError(f"No single input came through: {failures}.")
    first = next(iter(results.values()))
    y, read_task = first.y, first.task
    made = [result.fold for result in first.folds]
    chosen_score = read_task.score(score)
    settings: dict[str, Any] = {
        "task": read_task,
        "score": chosen_score,
        "groups": groups,
        "confidence": confidence,
        "seed": seed,
    }
    predictions = {name: [r.predictions for r in result.folds] for name, result in results.items()}
    chosen, is_nested = choose_single(alive, chosen_score)
    nested = [predictions[name][i] for i, name in enumerate(chosen)]
    estimates = {
        # The interval alone is asked for: no bootstrap beside DeLong's.
        name: estimate(y, _judged(made, parts), num_resamples=num_resamples or 0, **settings)
        for name, parts in {**predictions, BEST_SINGLE: nested}.items()
    }
    best = max(alive, key=lambda name: chosen_score.sign * estimates[name].value)
    # Scaled so that the test's own n_test / n_train is the mean of the folds'.
    ratio = float(np.mean([len(fold.test) / len(fold.train) for fold in made]))
    references = {BEST_SINGLE: nested, f"{BEST_SINGLE} ({best})": predictions[best]}
    pairs = {
        name: [
            compare_folds(
                y,
                _judged(made, parts, reference),
                names=(name, reference_name),
                test_fraction=ratio / (1 + ratio),
                num_resamples=num_resamples,
                verbose=verbose,
                **settings,
            )
            for reference_name, reference in references.items()
        ]
        for name, parts in predictions.items()
        if name not in singles
    }
    return Comparison(
        task=read_task,
        score=chosen_score,
        results=dict(results),
        singles=tuple(alive),
        failures=failures,
        chosen=tuple(chosen),
        is_nested=is_nested,
        best_single=best,
        estimates=estimates,
        # Of the two references, that which leaves the candidate less sure.
        pairs=correct_by_holm({name: max(both, key=_doubt) for name, both in pairs.items()}),
        proposed=proposed,
        groups=groups,
        settings={
            **_describe_rows(y, read_task, groups),
            "judged_rows": len(np.unique(np.concatenate([fold.test for fold in made]))),
            "folds": len(made),
            "repeats": 1 + max(fold.repeat for fold in made),
            "confidence": confidence,
            "seed": seed,
            "versions": library_versions(),
        },
    )


def _describe_rows(y: np.ndarray, task: Task, groups: np.ndarray | None) -> dict[str, Any]:
    """How many rows there are, of each class, and in how many groups."""
    counts = {name: int(np.sum(y == label)) for label, name in enumerate(task.class_names)}
    return {
        "rows": len(y),
        "class_rows": counts,
        "groups": None if groups is None else len(np.unique(groups)),
    }


def _doubt(pair: PairedComparison) -> tuple[bool, float, float]:
    """What sorts comparisons by how little they show."""
    return math.isnan(pair.pvalue), pair.pvalue, -abs(pair.difference)


def _check_settings(confidence: float, num_resamples: int | None) -> None:
    """Raises `ValueError` for what would only be noticed after everything is trained."""
    check_confidence(confidence)
    is_count = isinstance(num_resamples, int) and (num_resamples == 0 or num_resamples > 1)
    if num_resamples is not None and not is_count:
        raise ValueError(f"`num_resamples` must be an int of 2 or more. Received: {num_resamples}.")


def choose_single(singles: Mapping[str, CrossValidation], score: Score) -> tuple[list[str], bool]:
    """The best single input of each fold by the rows outside of it, and whether there were any.

    Args:
        singles: Results by name, on the same folds.
        score: `Score`.
    """
    (first, *_) = singles.values()
    chosen, is_nested = [], True
    for judged in first.folds:
        outside = {
            name: _score_outside(result, judged.fold, score) for name, result in singles.items()
        }
        if not np.isfinite(list(outside.values())).all():
            is_nested = False
            number = judged.fold.number
            outside = {name: r.scores(score.name)[number] for name, r in singles.items()}
        chosen.append(max(outside, key=lambda name: score.sign * outside[name]))
    return chosen, is_nested


def _score_outside(result: CrossValidation, judged: Fold, score: Score) -> float:
    """The mean score over the folds' test rows that are not among the judged ones; or NaN."""
    values = []
    for other in result.folds:
        kept = ~np.isin(other.fold.test, judged.test)
        if kept.any():
            answers = result.task.answers(other.predictions[kept])
            values.append(score.function(result.y[other.fold.test[kept]], answers, None))
    values = [value for value in values if np.isfinite(value)]
    return float(np.mean(values)) if values else float("nan")


def _judged(folds: Sequence[Fold], *models: Sequence[np.ndarray]) -> list[JudgedRows]:
    return [
        JudgedRows(fold.test, np.stack(predictions))
        for fold, *predictions in zip(folds, *models, strict=True)
    ]


def _gather(
    candidates: Mapping[str, Fit] | Sequence[str],
    single_inputs: Mapping[str, Fit] | None,
    x: Any,
    keywords: dict[str, Any],
) -> tuple[dict[str, Fit], tuple[str, ...], set[str]]:
    """All fits by name, single inputs first; the names of those; and which are kfusion's own."""
    own: dict[str, Fit] = {}
    if not isinstance(candidates, Mapping):
        names = list(candidates)
        if isinstance(candidates, str) or len(set(names)) < len(names) or not names:
            raise ValueError(f"`candidates` must be different names. Received: {candidates!r}.")
        candidates = own = {name: fused(name, **keywords) for name in names}
    elif keywords and single_inputs is not None:
        raise TypeError(f"Nothing takes the keyword(s) {sorted(keywords)}: give them to the fits.")
    plain: dict[str, Fit] = {}
    if single_inputs is None:
        single_inputs = standard_single_inputs(inputs=_input_names(x), **keywords)
        plain = {PLAIN_CONCAT: plain_concat(**keywords)}
        own = {**single_inputs, **plain, **own}
    has_table = isinstance(x, Mapping) and TABULAR in x and len(x) > 1
    is_encoded = has_table and not hasattr(x[TABULAR], "columns")
    if own and not (is_encoded or isinstance(x, FusionData)):
        raise ValueError(
            "Fusions by name and the standard single inputs need FusionData, or a dict of two or "
            f'more arrays, one of them "{TABULAR}". Pass callables, and `single_inputs`: what a '
            "candidate has to beat."
        )
    fits: dict[str, Fit] = {}
    for group in (single_inputs, plain, candidates):
        for name, fit in group.items():
            if not isinstance(name, str):
                raise TypeError(f"Candidates are named by strings. Received: {name!r}.")
            if name in fits or name == BEST_SINGLE:
                raise ValueError(f"Two candidates are named {name!r}: rename yours.")
            if not callable(fit):
                raise TypeError(f"Candidate {name!r} must be a callable fit(x, y): {fit!r}.")
            fits[name] = fit
    if not single_inputs:
        raise ValueError("`single_inputs` is empty: there is nothing to compare with.")
    return fits, tuple(single_inputs), set(own)


def _input_names(x: Any) -> list[str]:
    """Inputs of a model of all; those of an image and a table where they are not known."""
    if isinstance(x, FusionData):
        return x.input_names
    return list(x) if isinstance(x, Mapping) else [IMAGE, TABULAR]


def _slug(name: str) -> str:
    """A folder name of its own for each name."""
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{re.sub('[^A-Za-z0-9]+', '_', name)[:40].strip('_')}_{digest}"
