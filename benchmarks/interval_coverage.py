"""How often 95 % intervals hold the truth, and how often tests at 5 % see what is not there.

Data are drawn anew from known distributions in each repetition. A line is one method on one kind
of data: the share of intervals that hold the true value, and, for differences of 0, the share of
p-values below 0.05. `within` says whether both are where they should be, 93 to 97 % and 3 to 7 %.
With 2,000 repetitions a share of 95 % is known to 1 point either way. The usual forms (normal
distribution, plain paired t) stand beside those that kfusion uses, on the same data.

Scores of AUCs are normal in both classes; those of two models for the same rows are correlated.
Grouped rows share half of the variance of their scores and of what makes them positive; groups
have 10 rows on average, geometrically distributed. Cross-validation, 2 times in 5 folds, trains
nearest centroids on either of two features that are equally good. "estimate" is what `compare`
uses, over grouped folds of two models that are equally good: of patients with 3 rows and one label
each, or of sites with 20 rows of both labels.

usage: python benchmarks/interval_coverage.py [--repetitions 2000] [--resamples 400]
    [--only delong] [--processes 2]
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

# One process per core: threads would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from scipy import stats

from kfusion.evidence.bootstrap import bootstrap
from kfusion.evidence.delong import area_interval, auc_influence, delong_test, influence_test
from kfusion.evidence.estimates import DELONG, JudgedRows, estimate
from kfusion.evidence.estimates import FOLDS as OVER_FOLDS
from kfusion.evidence.paired_tests import corrected_resampled_ttest
from kfusion.tasks import task

FOLDS, REPEATS = 5, 2
HALF = math.sqrt(0.5)
GROUPED_FOLDS = [
    {"groups": groups, "positives": positives, "rows": 3, "folds": folds}
    for groups, positives in ((80, 8), (80, 16), (80, 40), (300, 30))
    for folds in (3, 5, 10)
    if positives >= folds
] + [{"groups": 20, "positives": 0, "rows": 20, "folds": folds} for folds in (2, 5, 10, 20)]


class Case(NamedTuple):
    """One kind of data with its truth, and the methods to try on it, by name."""

    draw: Callable[..., Any]
    options: dict[str, Any]
    truth: float
    methods: dict[str, Callable[..., tuple[float, float, float]]]


def correlated(random, rows: int, correlation: float) -> np.ndarray:
    """`(rows, 2)` standard normal values."""
    first, second = random.normal(size=(2, rows))
    return np.stack([first, correlation * first + math.sqrt(1 - correlation**2) * second], axis=1)


def shifted(scores: np.ndarray, y: np.ndarray, areas) -> np.ndarray:
    """Moves the positive rows such that the columns have these AUCs."""
    return scores + y[:, None] * (math.sqrt(2) * stats.norm.ppf(areas))


def draw_numbers(random, groups: int) -> np.ndarray:
    return np.repeat(np.arange(groups), random.geometric(0.1, size=groups))


def draw_scores(random, *, rows, positives, areas, correlation):
    y = (np.arange(rows) < positives).astype(int)
    return y, shifted(correlated(random, rows, correlation), y, areas), None


def draw_grouped_scores(random, *, groups, share, areas, correlation):
    y = np.zeros(0, int)
    # Without 2 rows of each class there is no variance; hardly ever needed.
    while min(np.sum(y == 0), np.sum(y == 1)) < 2:
        numbers = draw_numbers(random, groups)
        rows = len(numbers)
        values = HALF * random.normal(size=groups)[numbers] + HALF * random.normal(size=rows)
        y = (values < stats.norm.ppf(share)).astype(int)
    scores = HALF * correlated(random, groups, correlation)[numbers]
    scores += HALF * correlated(random, rows, correlation)
    return y, shifted(scores, y, areas), numbers


def draw_grouped_folds(random, *, groups, positives, rows, folds):
    """Groups of one label each, `positives` of them 1, or of both if that is 0; folds of groups."""
    numbers = np.repeat(np.arange(groups), rows)
    if positives:
        y = (numbers < positives).astype(int)
        # Stratified: the groups of each label go round the folds.
        part = np.concatenate([np.arange(positives), np.arange(groups - positives)]) % folds
    else:
        y = np.arange(len(numbers)) % 2
        part = random.permutation(np.arange(groups) % folds)
    scores = HALF * correlated(random, groups, 0.5)[numbers]
    scores += HALF * correlated(random, len(numbers), 0.5)
    scores = shifted(scores, y, (0.8, 0.8))
    judged = [np.flatnonzero(part[numbers] == fold) for fold in range(folds)]
    return y, [JudgedRows(rows, scores[rows].T[:, :, None]) for rows in judged], numbers


def draw_right(random, *, rows, shares, correlation):
    return correlated(random, rows, correlation) < stats.norm.ppf(shares), None


def draw_grouped_right(random, *, groups, shares, correlation):
    numbers = draw_numbers(random, groups)
    values = HALF * correlated(random, groups, correlation)[numbers]
    values += HALF * correlated(random, len(numbers), correlation)
    return values < stats.norm.ppf(shares), numbers


def draw_errors(random, *, rows, rmse, correlation, tails):
    errors = correlated(random, rows, correlation)
    if tails == "heavy":
        # Student's t with 5 degrees of freedom, at unit variance.
        errors *= np.sqrt(3 / random.chisquare(5, size=(rows, 1)))
    return errors * rmse, None


def draw_folds(random, *, rows, spread):
    """`(folds, 2)` accuracies of nearest centroids on one feature or the other."""
    y = np.arange(rows) % 2
    features = random.normal(size=(rows, 2)) + y[:, None] * spread
    scores = []
    for _ in range(REPEATS):
        # A pair of rows, one of each class, goes to the same fold.
        part = random.permutation(np.arange(rows // 2) % FOLDS).repeat(2)
        for fold in range(FOLDS):
            train, test = part != fold, part == fold
            low, high = (features[train & (y == label)].mean(axis=0) for label in (0, 1))
            nearer = np.abs(features[test] - high) < np.abs(features[test] - low)
            scores.append((nearer == y[test, None]).mean(axis=0))
    return (np.array(scores),)


def by_delong(reference: str):
    def interval(y, scores, groups, resamples):
        test = delong_test(y, *scores.T, groups=groups, reference=reference)
        return test.low, test.high, test.pvalue

    return interval


def one_area(y, scores, groups, resamples):
    areas, influence = auc_influence(y, scores[:, 0])
    smaller = min(np.count_nonzero(y == label) for label in (0, 1))
    return *area_interval(areas[0], influence[0], smaller_class=smaller, groups=groups), math.nan


def one_area_normal(y, scores, groups, resamples):
    areas, influence = auc_influence(y, scores[:, 0])
    test = influence_test(areas[0], influence[0], groups=groups, reference="normal")
    return test.low, test.high, math.nan


def by_bootstrap(statistic, rows, groups, resamples):
    # The seed is one for all repetitions; the data are not.
    resampled = bootstrap(statistic, rows, groups=groups, num_resamples=resamples)
    return *resampled.interval(), resampled.pvalue()


def auc_by_bootstrap(y, scores, groups, resamples):
    orders = [np.argsort(column) for column in scores.T]

    def statistic(weights):
        areas = []
        for order in orders:
            ranked = weights[order]
            positive = ranked * y[order]
            negative = ranked - positive
            pairs = positive.sum() * negative.sum()
            areas.append(positive @ np.cumsum(negative) / pairs if pairs else math.nan)
        return areas[0] - areas[1]

    return by_bootstrap(statistic, len(y), groups, resamples)


def accuracy_by_bootstrap(right, groups, resamples):
    gain = right[:, 0].astype(float) - right[:, 1]
    return by_bootstrap(
        lambda weights: weights @ gain / weights.sum(), len(gain), groups, resamples
    )


def rmse_by_bootstrap(errors, groups, resamples):
    squares = errors**2

    def statistic(weights):
        first, second = np.sqrt(weights @ squares / weights.sum())
        return first - second

    return by_bootstrap(statistic, len(squares), groups, resamples)


def by_estimate(y, folds, groups, resamples):
    binary = task("binary", y=y)
    found = estimate(
        y,
        folds,
        task=binary,
        score=binary.score("auc"),
        groups=groups,
        num_resamples=resamples,
    )
    names = {DELONG: "delong", OVER_FOLDS: "folds_t"}
    return found.low, found.high, found.pvalues[names.get(found.method, "bootstrap")]


def by_corrected_t(scores, resamples):
    test = corrected_resampled_ttest(*scores.T, test_fraction=1 / FOLDS)
    return test.low, test.high, test.pvalue


def by_plain_t(scores, resamples):
    test = stats.ttest_rel(*scores.T)
    return *test.confidence_interval(), test.pvalue


def list_cases() -> Iterator[Case]:
    of_areas = {"delong, t": by_delong("t"), "delong, normal": by_delong("normal")}
    of_area = {"one auc, logit t": one_area, "one auc, normal": one_area_normal}
    for areas, correlation in (((0.8, 0.8), 0.5), ((0.85, 0.75), 0.5), ((0.96, 0.92), 0.8)):
        shared = {"areas": areas, "correlation": correlation}
        truth = areas[0] - areas[1]
        for rows in (100, 300, 1000):
            for percent in (5, 10, 20, 50):
                options = {"rows": rows, "positives": rows * percent // 100, **shared}
                methods = dict(of_areas)
                if rows < 1000 and percent == 10:
                    methods["bootstrap, auc"] = auc_by_bootstrap
                yield Case(draw_scores, options, truth, methods)
                if areas[0] != areas[1]:
                    yield Case(draw_scores, options, areas[0], of_area)
        for groups in (30, 100):
            for share in (0.1, 0.4):
                options = {"groups": groups, "share": share, **shared}
                methods = dict(of_areas)
                if areas[0] < 0.9 and share == 0.1:
                    methods["bootstrap, auc"] = auc_by_bootstrap
                yield Case(draw_grouped_scores, options, truth, methods)
    by_method = {"bootstrap, accuracy": accuracy_by_bootstrap}
    for shares in ((0.8, 0.8), (0.95, 0.9)):
        shared, truth = {"shares": shares, "correlation": 0.5}, shares[0] - shares[1]
        for rows in (100, 300, 1000):
            yield Case(draw_right, {"rows": rows, **shared}, truth, by_method)
        for groups in (30, 100):
            yield Case(draw_grouped_right, {"groups": groups, **shared}, truth, by_method)
    by_method = {"bootstrap, rmse": rmse_by_bootstrap}
    for rmse in ((1.0, 1.0), (1.0, 1.5)):
        for tails in ("normal", "heavy"):
            shared = {"rmse": rmse, "correlation": 0.7, "tails": tails}
            for rows in (100, 300, 1000):
                yield Case(draw_errors, {"rows": rows, **shared}, rmse[0] - rmse[1], by_method)
    by_method = {"estimate": by_estimate}
    for options in GROUPED_FOLDS:
        yield Case(draw_grouped_folds, options, 0.0, by_method)
    by_method = {"corrected t": by_corrected_t, "plain paired t": by_plain_t}
    for rows in (100, 300):
        for spread in (0.5, 1.5):
            yield Case(draw_folds, {"rows": rows, "spread": spread}, 0.0, by_method)


def measure(number: int, repetitions: int, resamples: int, only: str) -> list[dict[str, Any]]:
    """Lines of one case; runs in another process, which cannot be handed functions."""
    case = list(list_cases())[number]
    random = np.random.default_rng(number)
    methods = {name: method for name, method in case.methods.items() if name.startswith(only)}
    found: dict[str, list] = {name: [] for name in methods}
    for _ in range(repetitions if methods else 0):
        data = case.draw(random, **case.options)
        for name, method in methods.items():
            low, high, pvalue = method(*data, resamples)
            found[name].append((low <= case.truth <= high, pvalue < 0.05))
    lines = []
    for name, outcomes in found.items():
        coverage, rejections = np.mean(outcomes, axis=0)
        line = {
            "benchmark": "interval_coverage",
            "method": name,
            **case.options,
            "truth": round(case.truth, 6),
            "repetitions": repetitions,
            "coverage": round(coverage, 4),
        }
        within = 0.93 <= coverage <= 0.97
        if case.truth == 0:
            line["rejections"] = round(rejections, 4)
            within &= 0.03 <= rejections <= 0.07
        lines.append({**line, "within": bool(within)})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--only", default="", help="start of a method's name")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    with concurrent.futures.ProcessPoolExecutor(arguments.processes) as pool:
        running = [
            pool.submit(measure, number, arguments.repetitions, arguments.resamples, arguments.only)
            for number in range(len(list(list_cases())))
        ]
        for future in running:
            for line in future.result():
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
