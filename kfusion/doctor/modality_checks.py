"""Checks of inputs against each other: which are ignored, and whether joining them paid."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kfusion.doctor.answers import Judged, answers, main_score, score, some_rows, targets
from kfusion.doctor.branch_features import features_at, find_join, flat_input, judge_alone
from kfusion.doctor.case import Case, Rows
from kfusion.doctor.drawn_rows import few_rows, take
from kfusion.doctor.findings import Finding, Undecided
from kfusion.doctor.undecided import Said, decides
from kfusion.evidence.paired_comparison import compare_predictions, correct_by_holm
from kfusion.models.building import PREDICTION

NUM_PERMUTATIONS, NUM_RESAMPLES = 3, 100
# Rows that permutations need to show a difference, and the most that learn or judge alone.
FEWEST_ROWS, MOST_ROWS, MOST_NUMBERS = 60, 2_000, 100_000_000
# A fall of AUC (or R2) that is worth an input.
WORTH = 0.01


class Fall(NamedTuple):
    """What a model's score loses if an input's rows are exchanged.

    Attributes:
        mean: Float, over the permutations.
        error: Float, its standard error over rows and permutations.
        moved: Float, mean absolute change of the answers.
    """

    mean: float
    error: float
    moved: float

    @property
    def high(self) -> float:
        """The most it may be, with 97.5 %."""
        return self.mean + 1.96 * self.error


@decides("input_ignored")
def check_ignored(case: Case) -> Said:
    """Inputs whose exchange between rows costs no score."""
    if len(case.train.x) < 2 or not case.is_trained:
        return
    judged = some_rows(case, 512)
    if judged is None or len(judged.y) < FEWEST_ROWS:
        yield Undecided("input_ignored", f"fewer than {FEWEST_ROWS} rows with plain targets")
        return
    whole = answers(case, judged.rows.x).get(PREDICTION)
    if whole is None or np.isnan(score(case.task, judged.y, whole)):
        yield Undecided("input_ignored", "the model's answers are NaN, or do not fit the task")
        return
    reached = score(case.task, judged.y, whole)
    falls = {name: permutation_fall(case, judged, whole, name) for name in judged.rows.x}
    listed = ", ".join(
        f"{name} {fall.mean:+.3f} ± {1.96 * fall.error:.3f}" for name, fall in falls.items()
    )
    measured = (
        f"{main_score(case.task).upper()} {reached:.3f} on {len(judged.y)} {judged.called} rows "
        f"loses, where an input's rows are exchanged (each with its own 95 % interval): {listed}"
    )
    # Two standard errors of the AUC of a model that guesses.
    noise = 2 / np.sqrt(3 * len(judged.y))
    near_chance = reached < _chance(case) + max(5 * WORTH, noise)
    ignored = [
        name
        for name, fall in falls.items()
        if not fall.moved or (fall.high < WORTH and not near_chance)
    ]
    if near_chance:
        yield Undecided("input_ignored", f"the model is near chance: {measured}")
    for name in ignored:
        yield _ignored_finding(case, name, falls[name], measured)
    if not ignored and not near_chance:
        yield from _check_dominated(falls, measured)


def _ignored_finding(case: Case, name: str, fall: Fall, measured: str) -> Finding:
    alone = _score_alone(case, name)
    tells = alone is not None and alone > _chance(case) + 0.05
    says = "" if alone is None else f"; a linear model of {name!r} alone reaches {alone:.3f}"
    others = [other for other in case.train.x if other != name]
    if not fall.moved:
        return Finding(
            "input_not_connected",
            "error",
            name,
            f"no answer changes where the rows of {name!r} are exchanged{says}",
            "the input does not reach the output: its branch is cut off, dead, or multiplied by 0",
            f"connect {name!r} to the join: kf.build_fusion_model(branches, task=task)",
            {"alone": alone},
        )
    return Finding(
        "input_ignored",
        "warning" if tells else "note",
        name,
        measured + says,
        f"the model answers from {others} alone"
        + ("" if tells else f"; {name!r} may tell nothing that they do not"),
        "kf.build_fusion_model(..., auxiliary_heads=True)  # each branch learns the target "
        "itself; or start from trained branches, kfusion.build_residual_model",
        {"fall": fall.mean, "error": fall.error, "alone": alone},
    )


def _check_dominated(falls: dict[str, Fall], measured: str) -> Said:
    """One input beside which exchanging another costs less than a twentieth."""
    name = max(falls, key=lambda key: falls[key].mean)
    largest = falls[name]
    others = max(fall.high for key, fall in falls.items() if key != name)
    share = others / largest.mean if largest.mean > 3 * largest.error else 1.0
    if share < 0.05:
        yield Finding(
            "input_dominates",
            "note",
            name,
            f"{measured}; no other input costs more than {share:.1%} of what {name!r} does",
            "the fusion is hardly better than that input alone; what others could correct is "
            "learned late or never",
            "kf.build_fusion_model(..., auxiliary_heads=True)",
            {"share": share},
        )


def permutation_fall(case: Case, judged: Judged, whole: np.ndarray, name: str) -> Fall:
    """What the score loses if an input's rows are exchanged; see `Fall`.

    Permutation importance (Breiman, 2001, Machine Learning 45:5-32), its error from a bootstrap
    of rows and the spread over permutations.

    Args:
        case: `Case`.
        judged: Rows with their targets.
        whole: `(rows, units)` answers to them as they are.
        name: Of the input.
    """
    rng = np.random.default_rng(case.seed)
    permuted = []
    for _ in range(NUM_PERMUTATIONS):
        order = rng.permutation(len(judged.y))
        x = {**judged.rows.x, name: judged.rows.x[name][order]}
        permuted.append(answers(case, x)[PREDICTION])

    def falls(rows) -> np.ndarray:
        reached = score(case.task, judged.y[rows], whole[rows])
        return np.array(
            [reached - score(case.task, judged.y[rows], answer[rows]) for answer in permuted]
        )

    found = falls(slice(None))
    resampled = [
        falls(rng.integers(len(judged.y), size=len(judged.y))).mean() for _ in range(NUM_RESAMPLES)
    ]
    variance = np.nanvar(resampled) + found.var(ddof=1) / NUM_PERMUTATIONS
    moved = float(np.mean([abs(answer - whole).mean() for answer in permuted]))
    return Fall(float(found.mean()), float(np.sqrt(variance)), moved)


@decides("fused_below_a_branch")
def check_against_branches(case: Case) -> Said:
    """A fused model below one of its branches, inputs or auxiliary heads on validation rows."""
    name = "fused_below_a_branch"
    join = find_join(case.model, case.train.x, case.seed)
    if (join is None and len(case.train.x) < 2) or not case.is_trained:
        return
    if case.validation is None:
        yield Undecided(name, "no validation rows")
        return
    train, judged = _drawn(case, case.train), _drawn(case, case.validation)
    if train is None or judged is None or min(len(train.y), len(judged.y)) < FEWEST_ROWS:
        yield Undecided(name, f"fewer than {FEWEST_ROWS} rows with plain targets")
        return
    heads = answers(case, judged.rows.x)
    fused = heads.pop(PREDICTION, None)
    if fused is None or np.isnan(score(case.task, judged.y, fused)):
        yield Undecided(
            name, "the model's answers are NaN or do not fit the task, or validation has one class"
        )
        return
    if not case.history and score(case.task, judged.y, fused) < _chance(case) + 5 * WORTH:
        yield Undecided(name, "the model is near chance and has no history: was it trained?")
        return
    rivals = {f"auxiliary head {head!r}": answer for head, answer in heads.items()}
    if join is not None:
        learned = features_at(case.model, train.rows.x, join)
        asked = features_at(case.model, judged.rows.x, join)
        for branch in join.branches:
            answer = judge_alone(learned[branch], train.y, asked[branch], case.task, case.seed)
            if answer is not None:
                rivals[f"a linear model of branch {branch!r} at {join.name!r}"] = answer
    if len(train.rows.x) > 1:
        for key in train.rows.x:
            answer = _judge_input(case, key, train, judged)
            if answer is not None:
                rivals[f"a linear model of input {key!r}"] = answer
    yield from _compare(case, judged, fused, rivals)


def _compare(case: Case, judged: Judged, fused: np.ndarray, rivals: dict[str, np.ndarray]) -> Said:
    """The finding, if the best rival is better by more than the standard error.

    The best is chosen by the rows that judge, so all are compared and the p-values adjusted.
    """
    is_regression = case.task.kind == "regression"
    named = "rmse" if is_regression else "auc"
    pairs = {
        name: compare_predictions(
            judged.y,
            answer,
            fused,
            task=case.task,
            score=named,
            groups=_whole_groups(judged),
            names=(name, "the fused model"),
            num_resamples=200 if is_regression else 0,
            seed=case.seed,
        )
        for name, answer in rivals.items()
        if not np.isnan(score(case.task, judged.y, answer, named))
    }
    if not pairs:
        return
    best = max(pairs, key=lambda name: pairs[name].gain)
    compared = correct_by_holm(pairs)[best]
    reached = {name: pair.score_a for name, pair in pairs.items()}
    if not compared.gain > compared.standard_error:
        return
    yield Finding(
        "fused_below_a_branch",
        "warning" if compared.is_shown else "note",
        best,
        f"{compared.verdict}; the best of {len(pairs)} compared: "
        + ", ".join(f"{key} {value:.3f}" for key, value in reached.items()),
        "the fusion costs score: joining them loses what one alone has"
        if compared.is_shown
        else "the fusion may cost score; these rows do not show it",
        "kf.build_residual_model({'a': a, 'b': b}, task=task, best='a')  # starts as the best of "
        "trained models, so that validation cannot fall below it",
        {"fused": compared.score_b, "best": compared.score_a, "gain": compared.gain, **reached},
    )


def _whole_groups(judged: Judged) -> np.ndarray | None:
    groups = judged.rows.groups
    return groups if groups is not None and len(np.unique(groups)) >= 10 else None


def _drawn(case: Case, rows: Rows) -> Judged | None:
    """Rows that learn or judge alone: 2,000, or fewer if they are large."""
    y = targets(case, rows)
    if y is None or not len(y):
        return None
    positions = few_rows(
        rows.x, MOST_ROWS, case.seed, fewest=FEWEST_ROWS, most_numbers=MOST_NUMBERS
    )
    return Judged(take(rows, positions), y[positions], "")


def _judge_input(case: Case, name: str, train: Judged, judged: Judged) -> np.ndarray | None:
    """What a linear model of one input alone says; None if it does not hold numbers."""
    if train.rows.x[name].dtype.kind not in "biuf":
        return None
    width = len(train.y)
    both = flat_input(np.concatenate([train.rows.x[name], judged.rows.x[name]]))
    return judge_alone(both[:width], train.y, both[width:], case.task, case.seed)


def _score_alone(case: Case, name: str) -> float | None:
    """AUC or R2 of one input alone on validation rows, or on half of the training rows."""
    train = _drawn(case, case.train)
    judged = None if case.validation is None else _drawn(case, case.validation)
    if train is None:
        return None
    if judged is None:
        half = len(train.y) // 2
        first, second = np.arange(half), np.arange(half, len(train.y))
        judged = Judged(take(train.rows, second), train.y[second], "")
        train = Judged(take(train.rows, first), train.y[first], "")
    answer = _judge_input(case, name, train, judged)
    return None if answer is None else score(case.task, judged.y, answer)


def _chance(case: Case) -> float:
    return 0.0 if case.task.kind == "regression" else 0.5


CHECKS = (check_ignored, check_against_branches)
