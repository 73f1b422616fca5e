"""How often 95 % intervals hold the truth, and how often tests at 5 % see what is not there.

Data are drawn anew from known distributions in each repetition. A line is one method on one kind
of data: the share of intervals that hold the true difference, and, where that is 0, the share of
p-values below 0.05. `within` says whether both are where they should be, 93 to 97 % and 3 to 7 %.
With 2,000 repetitions a share of 95 % is known to 1 point either way. The published forms (normal
distribution, plain paired t) stand beside those that kfusion uses.

Scores of AUCs are normal in both classes; of two models, of the same rows, they are correlated.
Grouped rows share a part of their scores and of the chance to be positive; 10 rows a group on
average, geometrically distributed. Cross-validation trains nearest centroids on one feature each.

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

from kfusion.bootstrap import bootstrap
from kfusion.delong import delong_test
from kfusion.paired_tests import corrected_resampled_ttest

FOLDS, REPEATS = 5, 2


class Line(NamedTuple):
    """One line of the result: data, how to draw them, the truth, and a method."""

    method: str
    data: dict[str, Any]
    draw: Callable[..., Any]
    truth: float
    interval: Callable[..., tuple[float, float, float]]


def correlated(random, shape, correlation: float) -> np.ndarray:
    """`(rows, 2)` standard normal values."""
    first, second = random.normal(size=(2, shape))
    return np.stack([first, correlation * first + math.sqrt(1 - correlation**2) * second], axis=1)


def shift_of(area: float) -> float:
    """How far apart two normal classes are that have this AUC."""
    return math.sqrt(2) * stats.norm.ppf(area)


def draw_scores(random, *, rows, positives, areas, correlation):
    y = (np.arange(rows) < positives).astype(int)
    scores = correlated(random, rows, correlation)
    return y, scores + y[:, None] * [shift_of(area) for area in areas], None


def draw_grouped_scores(random, *, groups, share, areas, correlation):
    numbers = np.repeat(np.arange(groups), random.geometric(0.1, size=groups))
    rows = len(numbers)
    tendency = math.sqrt(0.5) * random.normal(size=groups)[numbers]
    y = (tendency + math.sqrt(0.5) * random.normal(size=rows) < stats.norm.ppf(share)).astype(int)
    scores = math.sqrt(0.5) * correlated(random, groups, correlation)[numbers]
    scores += math.sqrt(0.5) * correlated(random, rows, correlation)
    return y, scores + y[:, None] * [shift_of(area) for area in areas], numbers


def draw_right(random, *, rows, shares, correlation):
    thresholds = stats.norm.ppf(shares)
    return correlated(random, rows, correlation) < thresholds, None


def draw_grouped_right(random, *, groups, shares, correlation):
    numbers = np.repeat(np.arange(groups), random.geometric(0.1, size=groups))
    values = math.sqrt(0.5) * correlated(random, groups, correlation)[numbers]
    values += math.sqrt(0.5) * correlated(random, len(numbers), correlation)
    return values < stats.norm.ppf(shares), numbers


def draw_errors(random, *, rows, rmse, correlation, tails):
    errors = correlated(random, rows, correlation)
    if tails == "heavy":
        # Student's t with 5 degrees of freedom, at unit variance.
        errors *= np.sqrt(3 / random.chisquare(5, size=(rows, 1)))
    return errors * rmse, None


def draw_folds(random, *, rows, spread):
    """Accuracy in each fold of nearest centroids on either of two features alike."""
    y = np.arange(rows) % 2
    features = random.normal(size=(rows, 2)) + y[:, None] * spread
    scores = []
    for _ in range(REPEATS):
        part = random.permutation(np.arange(rows) // 2 % FOLDS * 2 + y) // 2
        for fold in range(FOLDS):
            train, test = part != fold, part == fold
            centroids = [features[train & (y == label)].mean(axis=0) for label in (0, 1)]
            nearer = np.abs(features[test] - centroids[1]) < np.abs(features[test] - centroids[0])
            scores.append((nearer == y[test, None]).mean(axis=0))
    return (np.array(scores),)


def by_delong(y, scores, groups, *, reference, resamples):
    test = delong_test(y, *scores.T, groups=groups, reference=reference)
    return test.low, test.high, test.pvalue


def by_bootstrap(statistic, rows, groups, resamples):
    # The seed is one for all repetitions, the data are not.
    resampled = bootstrap(statistic, rows, groups=groups, num_resamples=resamples)
    return *resampled.interval(), resampled.pvalue()


def auc_by_bootstrap(y, scores, groups, *, resamples):
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


def accuracy_by_bootstrap(right, groups, *, resamples):
    gain = right[:, 0].astype(float) - right[:, 1]
    return by_bootstrap(
        lambda weights: weights @ gain / weights.sum(), len(gain), groups, resamples
    )


def rmse_by_bootstrap(errors, groups, *, resamples):
    squares = errors**2

    def statistic(weights):
        first, second = np.sqrt(weights @ squares / weights.sum())
        return first - second

    return by_bootstrap(statistic, len(squares), groups, resamples)


def by_corrected_t(scores, *, resamples):
    test = corrected_resampled_ttest(*scores.T, test_fraction=1 / FOLDS)
    return test.low, test.high, test.pvalue


def by_plain_t(scores, *, resamples):
    test = stats.ttest_rel(*scores.T)
    return *test.confidence_interval(), test.pvalue


def by_delong_t(*data, resamples):
    return by_delong(*data, reference="t", resamples=resamples)


def by_delong_normal(*data, resamples):
    return by_delong(*data, reference="normal", resamples=resamples)


def list_lines() -> Iterator[Line]:
    pairs = [((0.8, 0.8), 0.5), ((0.85, 0.75), 0.5), ((0.96, 0.96), 0.8), ((0.96, 0.92), 0.8)]
    delong = {"delong, t": by_delong_t, "delong, normal": by_delong_normal}
    for areas, correlation in pairs:
        truth = areas[0] - areas[1]
        for rows in (100, 300, 1000):
            for percent in (5, 10, 20, 50):
                data = {"rows": rows, "positives": rows * percent // 100}
                data |= {"areas": areas, "correlation": correlation}
                for method, interval in delong.items():
                    yield Line(method, data, draw_scores, truth, interval)
                if rows < 1000 and percent in (10, 50):
                    yield Line("bootstrap, auc", data, draw_scores, truth, auc_by_bootstrap)
        for groups in (30, 100):
            for share in (0.1, 0.4):
                data = {"groups": groups, "share": share}
                data |= {"areas": areas, "correlation": correlation}
                grouped = {"bootstrap, auc": auc_by_bootstrap, **delong}
                if areas[0] == 0.96:
                    grouped.pop("bootstrap, auc")
                for method, interval in grouped.items():
                    yield Line(method, data, draw_grouped_scores, truth, interval)
    for shares in ((0.8, 0.8), (0.95, 0.9)):
        truth = shares[0] - shares[1]
        for rows in (100, 300, 1000):
            data = {"rows": rows, "shares": shares, "correlation": 0.5}
            yield Line("bootstrap, accuracy", data, draw_right, truth, accuracy_by_bootstrap)
        for groups in (30, 100):
            data = {"groups": groups, "shares": shares, "correlation": 0.5}
            yield Line(
                "bootstrap, accuracy", data, draw_grouped_right, truth, accuracy_by_bootstrap
            )
    for rmse in ((1.0, 1.0), (1.0, 1.5)):
        for rows in (100, 300, 1000):
            for tails in ("normal", "heavy"):
                data = {"rows": rows, "rmse": rmse, "correlation": 0.7, "tails": tails}
                yield Line(
                    "bootstrap, rmse", data, draw_errors, rmse[0] - rmse[1], rmse_by_bootstrap
                )
    for rows in (100, 300):
        for spread in (0.5, 1.5):
            data = {"rows": rows, "spread": spread}
            yield Line("corrected t", data, draw_folds, 0.0, by_corrected_t)
            yield Line("plain paired t", data, draw_folds, 0.0, by_plain_t)


def measure(number: int, repetitions: int, resamples: int) -> dict[str, Any]:
    """Runs one line; called in another process, which cannot be handed functions."""
    line = list(list_lines())[number]
    random = np.random.default_rng(number)
    holds = rejects = 0
    for _ in range(repetitions):
        data = line.draw(random, **line.data)
        low, high, pvalue = line.interval(*data, resamples=resamples)
        holds += low <= line.truth <= high
        rejects += pvalue < 0.05
    coverage, rejections = holds / repetitions, rejects / repetitions
    within = 0.93 <= coverage <= 0.97 and (line.truth != 0 or 0.03 <= rejections <= 0.07)
    return {
        "benchmark": "interval_coverage",
        "method": line.method,
        **line.data,
        "difference": round(line.truth, 6),
        "repetitions": repetitions,
        "coverage": round(coverage, 4),
        "rejections": round(rejections, 4) if line.truth == 0 else None,
        "within": bool(within),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--only", default="", help="start of a method's name")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    numbers = [
        number for number, line in enumerate(list_lines()) if line.method.startswith(arguments.only)
    ]
    with concurrent.futures.ProcessPoolExecutor(arguments.processes) as pool:
        running = [
            pool.submit(measure, number, arguments.repetitions, arguments.resamples)
            for number in numbers
        ]
        for future in running:
            print(json.dumps(future.result()), flush=True)


if __name__ == "__main__":
    main()
