"""Two sets of predictions of the same rows: which is better, by how much, and how sure that is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kfusion.evidence.delong import check_confidence, number_groups
from kfusion.evidence.estimates import DELONG, EXACT, FOLDS, JudgedRows, estimate
from kfusion.evidence.paired_tests import (
    achieved_power,
    corrected_resampled_ttest,
    holm,
    mcnemar,
    required_rows,
)
from kfusion.json_values import none_if_not_finite
from kfusion.scores import Score
from kfusion.tasks import Task, as_task, infer_task

POWER = 0.8


@dataclasses.dataclass(frozen=True)
class PairedComparison:
    """A difference between two models on the same rows. Made by `compare_predictions`.

    Attributes:
        names: Names of the two, `a` and `b`.
        score: Name of the score.
        direction: "max" or "min": which way it is better.
        score_a: Float.
        score_b: Float.
        difference: Float, `score_a - score_b`.
        low: Float, lower end of the difference's interval.
        high: Float, upper end.
        standard_error: Float, of the difference; NaN where the rows tell none.
        confidence: Float, of the interval.
        method: "DeLong", "paired bootstrap", "t over folds" or "Clopper-Pearson": whence the
            interval and the p-value.
        pvalues: Two-sided p-values by test: "delong", "bootstrap", "folds_t", "exact", "mcnemar",
            "corrected_t"; those that apply.
        count: Int, how many units the difference rests on.
        unit: "positives", "rows", "groups" or "groups with positives".
        adjusted_pvalue: Float, p-value after Holm's correction for several comparisons, or None.
        num_comparisons: Int, how many those are.
    """

    names: tuple[str, str]
    score: str
    direction: str
    score_a: float
    score_b: float
    difference: float
    low: float
    high: float
    standard_error: float
    confidence: float
    method: str
    pvalues: dict[str, float]
    count: int
    unit: str
    adjusted_pvalue: float | None = None
    num_comparisons: int = 1

    @property
    def pvalue(self) -> float:
        """The p-value of the method, adjusted where several comparisons were made."""
        if self.adjusted_pvalue is not None:
            return self.adjusted_pvalue
        tests = {DELONG: "delong", FOLDS: "folds_t", EXACT: "exact"}
        return self.pvalues[tests.get(self.method, "bootstrap")]

    @property
    def gain(self) -> float:
        """How much better `a` is than `b`: the difference, turned round where less is better."""
        return self.difference if self.direction == "max" else -self.difference

    @property
    def is_shown(self) -> bool:
        """Whether there is evidence of a difference."""
        return self.pvalue < 1 - self.confidence and not self.low <= 0 <= self.high

    @property
    def needed(self) -> float:
        """How many units would show a difference of this size with a power of 80 %."""
        if math.isnan(self.standard_error):
            return math.nan
        return required_rows(
            self.difference,
            self.standard_error,
            self.count,
            power=POWER,
            alpha=self._level,
        )

    @property
    def power(self) -> float:
        """The chance that these rows had to show a true difference of this size."""
        if math.isnan(self.standard_error):
            return math.nan
        return achieved_power(self.difference, self.standard_error, alpha=self._level)

    @property
    def _level(self) -> float:
        """The level of each test; with several comparisons, that of the strictest."""
        return (1 - self.confidence) / self.num_comparisons

    @property
    def verdict(self) -> str:
        """The comparison in one sentence."""
        show = self._format
        numbers = (
            f"{self.names[0]} {show(self.score_a)} against {self.names[1]} {show(self.score_b)} "
            f"({self.score}): difference {show(self.difference, sign='+')}, "
            f"{_percent(self.confidence)} interval [{show(self.low)}, {show(self.high)}]"
        )
        return f"{numbers}: {self._conclude()}"

    def _conclude(self) -> str:
        basis = f"with {self.count:,} {self.unit}"
        if math.isnan(self.low):
            return f"no interval can be told {basis}: there are too few of them"
        pvalue = format_pvalue(self.pvalue)
        if self.adjusted_pvalue is not None and self.num_comparisons > 1:
            pvalue += f" after Holm's correction for {self.num_comparisons} comparisons"
        if not self.is_shown:
            sentence = f"no evidence of a difference {basis}"
            if not self.low <= 0 <= self.high:
                sentence += f" ({pvalue})"
            # The power is that of a normal test: with few units a t test may need more than it.
            if self.count < self.needed < math.inf:
                sentence += (
                    f"; about {_two_digits(self.needed):,} {self.unit} would be needed to show one "
                    f"of this size with a power of {_percent(POWER)}"
                )
            return sentence
        which = "better" if self.gain > 0 else "worse"
        sentence = f"evidence that {self.names[0]} is {which} {basis} ({pvalue})"
        if self.pvalues.get("corrected_t", 0) > 1 - self.confidence:
            sentence += (
                "; models of other training rows may differ: corrected t test over the folds, "
                f"{format_pvalue(self.pvalues['corrected_t'])}"
            )
        return sentence

    def _format(self, value: float, sign: str = "") -> str:
        if not math.isfinite(value):
            return str(value)
        # Scores in the target's unit have any size; two digits of the error are worth showing.
        known = math.isfinite(self.standard_error) and self.standard_error
        error = known or abs(self.difference) or 1.0
        decimals = max(0, 1 - math.floor(math.log10(error)))
        if self.score not in ("rmse", "mae"):
            decimals = min(max(3, decimals - 1), 6)
        return f"{value:{sign}.{decimals}f}"

    def to_dict(self) -> dict[str, Any]:
        """All numbers and the verdict, JSON-able; what is not finite is None."""
        values = {
            **dataclasses.asdict(self),
            "pvalue": self.pvalue,
            "needed": self.needed,
            "power": self.power,
            "verdict": self.verdict,
        }
        return {name: none_if_not_finite(value) for name, value in values.items()}


def compare_predictions(
    y: Any,
    a: Any,
    b: Any,
    *,
    task: Task | str | None = None,
    score: str | None = None,
    groups: Any = None,
    names: tuple[str, str] = ("a", "b"),
    confidence: float = 0.95,
    num_resamples: int | None = None,
    seed: int = 0,
    verbose: int | bool = 0,
) -> PairedComparison:
    """Compares two sets of predictions of the same rows, of whatever origin.

    The AUC is compared by DeLong's test (DeLong et al., 1988, Biometrics 44:837-845), other scores
    by a paired bootstrap. The predictions are taken as they are: the interval tells how the
    difference varies with the rows that judge, not with those that trained. Neither model may
    have been chosen on these rows.

    Args:
        y: `(rows,)` labels from 0 or target values.
        a: `(rows,)` scores of class 1, or values; or `(rows, classes)` probabilities.
        b: The other's, in the same form.
        task: `Task` or its kind; by default from what `y` holds.
        score: Name of a score of the task in `kfusion.scores`; by default AUC, or RMSE.
        groups: `(rows,)` values: rows that share one, such as the images of one patient, are not
            independent, and whole groups are resampled.
        names: What the two are called.
        confidence: Float in (0, 1).
        num_resamples: Int, of the bootstrap; by default 2,000, or none beside DeLong's test of
            more than 100,000 rows.
        seed: Int, of the bootstrap.
        verbose: 1 shows the bootstrap's progress.

    Returns:
        `PairedComparison`; its `verdict` is one sentence.

    Raises:
        ValueError: If lengths differ, predictions are not finite or no probabilities (see
            `Task.check_predictions`), or the score is undefined: one class, for an AUC.

    Example:
        >>> y = np.arange(200) % 2
        >>> noise = np.random.default_rng(0).normal(size=(2, 200))
        >>> result = compare_predictions(y, y + noise[0], y + 3 * noise[1])
        >>> result.method, result.is_shown
        ('DeLong', True)
    """
    task = infer_task(y) if task is None else as_task(task)
    y = task.check_targets(y)
    chosen = task.score(score)
    predictions = [
        task.check_predictions(given, len(y), name, by_rank=chosen.by_rank)
        for name, given in {"a": a, "b": b}.items()
    ]
    if groups is not None:
        number_groups(groups, len(y))
        groups = np.asarray(groups)
    check_confidence(confidence)
    if len(names) != 2 or len({str(name) for name in names}) != 2:
        raise ValueError(f"`names` must be two different names. Received: {names!r}.")
    return compare_folds(
        y,
        [JudgedRows(np.arange(len(y)), np.stack(predictions))],
        task=task,
        score=chosen,
        groups=groups,
        names=names,
        confidence=confidence,
        num_resamples=num_resamples,
        seed=seed,
        verbose=verbose,
    )


def compare_folds(
    y: np.ndarray,
    folds: Sequence[JudgedRows],
    *,
    task: Task,
    score: Score,
    names: tuple[str, str],
    groups: np.ndarray | None = None,
    test_fraction: float | None = None,
    confidence: float = 0.95,
    num_resamples: int | None = None,
    seed: int = 0,
    verbose: int | bool = 0,
) -> PairedComparison:
    """Compares two models' predictions of the test rows of several folds; see `estimate`.

    Args:
        y: `(rows,)` labels or values of the whole table.
        folds: Predictions of both models, fold by fold.
        task: `Task`.
        score: `Score`.
        names: What the two are called.
        groups: As in `compare_predictions`.
        test_fraction: Float in (0, 1), share of a fold's rows that are test rows, for the
            corrected resampled t test; None leaves it out.
        confidence: Float.
        num_resamples: As in `compare_predictions`.
        seed: Int.
        verbose: 1 shows the bootstrap's progress.

    Returns:
        `PairedComparison`.

    Raises:
        ValueError: If a score is undefined in a fold.
    """
    found = estimate(
        y,
        folds,
        task=task,
        score=score,
        groups=groups,
        confidence=confidence,
        num_resamples=num_resamples,
        seed=seed,
        verbose=verbose,
    )
    pvalues = dict(found.pvalues)
    rows = np.concatenate([fold.rows for fold in folds])
    once = len(np.unique(rows)) == len(rows)
    if groups is None and once and _are_probabilities(task, folds):
        pvalues["mcnemar"] = _mcnemar(y, folds, task)
    if test_fraction is not None and len(folds) > 1:
        pvalues["corrected_t"] = corrected_resampled_ttest(
            *found.by_fold.T, test_fraction=test_fraction
        ).pvalue
    count, unit = _count_units(y, np.unique(rows), task, score, groups)
    return PairedComparison(
        names=names,
        score=score.name,
        direction=score.direction,
        score_a=float(found.by_fold[:, 0].mean()),
        score_b=float(found.by_fold[:, 1].mean()),
        difference=found.value,
        low=found.low,
        high=found.high,
        standard_error=found.standard_error,
        confidence=confidence,
        method=found.method,
        pvalues=pvalues,
        count=count,
        unit=unit,
    )


def correct_by_holm(pairs: Mapping[str, PairedComparison]) -> dict[str, PairedComparison]:
    """Several comparisons made at once, their p-values adjusted; see `holm`."""
    adjusted = holm({name: pair.pvalue for name, pair in pairs.items()})
    return {
        name: dataclasses.replace(
            pair, adjusted_pvalue=float(adjusted[name]), num_comparisons=len(pairs)
        )
        for name, pair in pairs.items()
    }


def _are_probabilities(task: Task, folds: Sequence[JudgedRows]) -> bool:
    return task.kind != "regression" and all(
        (fold.predictions >= 0).all() and (fold.predictions <= 1).all() for fold in folds
    )


def _mcnemar(y, folds: Sequence[JudgedRows], task: Task) -> float:
    labels = np.concatenate([y[fold.rows] for fold in folds])
    predictions = np.concatenate([fold.predictions for fold in folds], axis=1)
    return mcnemar(labels, *[task.answers(part).argmax(axis=1) for part in predictions]).pvalue


def _count_units(y, rows, task: Task, score: Score, groups) -> tuple[int, str]:
    if groups is not None and task.kind == "binary" and score.by_rank:
        return len(np.unique(groups[rows][y[rows] == 1])), "groups with positives"
    if groups is not None:
        return len(np.unique(groups[rows])), "groups"
    if task.kind == "binary" and score.by_rank:
        return int(np.count_nonzero(y[rows] == 1)), "positives"
    return len(rows), "rows"


def format_pvalue(pvalue: float) -> str:
    """A p-value as it is read: below 0.001, 2,000 resamples could not tell it."""
    return "p < 0.001" if pvalue < 0.001 else f"p = {pvalue:.2g}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _two_digits(value: float) -> int:
    """Rounded up to two digits: an estimate should not look like more."""
    scale = 10 ** max(0, math.floor(math.log10(max(value, 1))) - 1)
    return math.ceil(value / scale) * scale
