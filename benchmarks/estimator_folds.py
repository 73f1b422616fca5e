"""How long an estimator's fit takes with the folds of its networks at once, and one after another.

    python benchmarks/estimator_folds.py                               # tensorflow, then jax
    KERAS_BACKEND=jax python benchmarks/estimator_folds.py --rows 2000 --embedding 64

A table of 12 columns, and an embedding beside it if asked for; three classes. Each repeat fits both
ways in turn; the first one, which warms up, is not counted. A line for each number of rows has the
share of a fit one after another that its networks take, and what the other way is a multiple of:
of the whole fit, of its networks alone, and of these in time of the processor.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time

import numpy as np
import pandas as pd
from each_backend import run_on_each

COLUMNS = 12


def draw(rows, width, seed=0):
    """Rows of which a few columns tell the class, and their labels."""
    random = np.random.default_rng(seed)
    numbers = random.normal(size=(rows, COLUMNS))
    scores = numbers[:, 0] + numbers[:, 1] * numbers[:, 2] + random.logistic(size=rows) / 2
    x = {"tabular": pd.DataFrame(numbers, columns=[f"number_{i}" for i in range(COLUMNS)])}
    if width:
        x["embedding"] = random.normal(size=(rows, width)).astype("float32")
        scores += x["embedding"][:, :4].sum(axis=1) / 2
    return x, np.digitize(scores, np.quantile(scores, [0.3, 0.7]))


def fit(x, y, is_at_once):
    """Seconds of a fit, of its networks, and of the processor in these."""
    import kfusion as kf
    from kfusion.estimators import bagging, fusion_estimators

    standard, run = fusion_estimators.standard_members, bagging.MemberFolds.fit
    spent = np.zeros(2)

    def members(*given, **keywords):
        found = standard(*given, **keywords)
        if is_at_once:
            return found
        return {name: dataclasses.replace(each, network=None) for name, each in found.items()}

    def timed(folds_of_member, folds):
        started = np.array([time.perf_counter(), time.process_time()])
        found = list(run(folds_of_member, folds))
        if "trees" not in folds_of_member.name:
            spent[:] += np.array([time.perf_counter(), time.process_time()]) - started
        return found

    fusion_estimators.standard_members, bagging.MemberFolds.fit = members, timed
    try:
        started = time.perf_counter()
        kf.FusionClassifier().fit(x, y)
        return time.perf_counter() - started, *spent
    finally:
        fusion_estimators.standard_members, bagging.MemberFolds.fit = standard, run


def measure(options):
    """Prints a line for each number of rows."""
    import keras

    for rows in options.rows:
        x, y = draw(rows, options.embedding)
        found = {False: [], True: []}
        for repeat in range(options.repeats + 1):
            for is_at_once, times in found.items():
                took = fit(x, y, is_at_once)
                if repeat:
                    times.append(took)
        alone, at_once = (np.median(times, axis=0) for times in found.values())
        ratios = np.array(found[False]) / np.array(found[True])
        line = {
            "benchmark": "estimator_folds",
            "backend": keras.backend.backend(),
            "keras": keras.__version__,
            "rows": rows,
            "embedding": options.embedding,
            "share_of_networks": round(float(alone[1] / alone[0]), 2),
            "times_whole_fit": round(float(alone[0] / at_once[0]), 2),
            "times_networks": round(float(alone[1] / at_once[1]), 2),
            "lowest_highest": [round(float(each), 2) for each in np.sort(ratios[:, 1])[[0, -1]]],
            "times_networks_cpu": round(float(alone[2] / at_once[2]), 2),
            "load": round(os.getloadavg()[0], 1),
        }
        print(json.dumps(line), flush=True)


def main():
    """Runs a process for each backend, or this one if `KERAS_BACKEND` says which."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[300, 2000, 10000])
    parser.add_argument("--embedding", type=int, default=0, help="its width; 0 for none")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    run_on_each(lambda: measure(options))


if __name__ == "__main__":
    main()
