"""Kills a cross-validation again and again with SIGKILL and counts what was lost or done twice.

Prints one JSON line. Each fold sleeps a while, writes when it starts and when its result is on
disk, and ends in a small model whose noise depends on the fold's random state alone.

usage: python benchmarks/kill_cross_validation.py [--kills 12] [--folds 20] [--jobs 1]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from kfusion.validation.cross_validation import CrossValidation, cross_validate


class Noisy:
    """A logistic regression plus noise drawn when it was fitted."""

    def __init__(self, x, y):
        self.model = LogisticRegression().fit(x, y)
        self.noise = np.random.normal()

    def __call__(self, x):
        return 1 / (1 + np.exp(-self.model.decision_function(x) - self.noise))


GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(400, 3))
Y = (X[:, 0] + GENERATOR.normal(size=400) > 0).astype(int)


def name_rows(x: np.ndarray) -> str:
    """Tells the training rows of one fold from those of the others."""
    return f"{x.sum():.12f}"


def run(directory: Path, folds: int, seconds: float, jobs: int) -> CrossValidation:
    def fit(x, y):
        # One short line appended at once: no two processes mix theirs.
        with (directory / "starts.txt").open("a") as starts:
            starts.write(f"{time.time()} {name_rows(x)}\n")
        time.sleep(seconds)
        return Noisy(x, y)

    return cross_validate(fit, X, Y, folds=folds, n_jobs=jobs, directory=directory, verbose=0)


def finished(directory: Path) -> dict[str, float]:
    """Folds whose result is on disk, and when it appeared there."""
    return {path.name: path.stat().st_ctime for path in directory.glob("fold_*")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--folds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.7, help="length of a fold")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work-in", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    settings = (arguments.folds, arguments.seconds, arguments.jobs)
    if arguments.work_in:
        result = run(Path(arguments.work_in), *settings)
        np.save(Path(arguments.work_in) / "out.npy", result.predictions)
        return
    generator = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        disturbed, undisturbed = Path(temporary) / "disturbed", Path(temporary) / "undisturbed"
        for directory in (disturbed, undisturbed):
            directory.mkdir()
        command = [sys.executable, __file__, *sys.argv[1:], "--work-in", str(disturbed)]
        kills, lost, known = 0, 0, {}
        while True:
            process = subprocess.Popen(command, start_new_session=True)
            if kills < arguments.kills:
                wait_for_work(process, disturbed, len(known), generator, arguments.seconds)
            if kills == arguments.kills or process.poll() is not None:
                assert process.wait() == 0, "a run that was not killed failed"
                break
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            seen = finished(disturbed)
            lost += sum(seen.get(name) != appeared for name, appeared in known.items())
            known = seen
        expected = run(undisturbed, *settings)
        folders = {
            name_rows(X[result.fold.train]): f"fold_{result.fold.number:03d}"
            for result in expected.folds
        }
        appeared = finished(disturbed)
        starts = [line.split() for line in (disturbed / "starts.txt").read_text().splitlines()]
        again = sum(float(moment) > appeared[folders[rows]] for moment, rows in starts)
        predictions = np.load(disturbed / "out.npy")
    print(
        json.dumps(
            {
                "benchmark": "kill_cross_validation",
                "kills": kills,
                "folds": arguments.folds,
                "jobs": arguments.jobs,
                "fold_starts": len(starts),
                "finished_folds_lost": lost,
                "finished_folds_run_again": again,
                "equal_to_undisturbed": bool(np.array_equal(predictions, expected.predictions)),
            }
        )
    )


def wait_for_work(process, directory: Path, known: int, generator, seconds: float) -> None:
    """Waits until the process has begun a fold, and then for a random part of two folds."""
    begun = directory / "starts.txt"
    before = begun.stat().st_size if begun.exists() else 0
    while process.poll() is None and (not begun.exists() or begun.stat().st_size == before):
        time.sleep(0.01)
    deadline = time.time() + generator.uniform(0, 2 * seconds)
    while process.poll() is None and time.time() < deadline:
        time.sleep(0.01)


if __name__ == "__main__":
    main()
