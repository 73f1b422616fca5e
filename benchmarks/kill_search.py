"""A search by three processes that are killed (`kill -9`) at random moments: is anything lost?

Each process runs trials of one study, begun anew whenever it was killed. In the end one more
process finishes the study. Told: kills; processes that ended with an error of their own; trials;
completed ones; those given up because they were killed twice; trials that are not in the study, are
in it twice, or whose value is not the one that their run returned. The exit status is 1 if there is
any of these three or of the errors.

usage: python benchmarks/kill_search.py [--kills 40] [--processes 3] [--trials 60] [--seed 0]
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS, ERRORS = "runs.jsonl", "errors.txt"


def work(folder: Path, trials: int) -> None:
    """One process of the search."""
    import keras_tuner

    import kfusion as kf

    class Parabola(kf.OptunaTuner):
        def run_trial(self, trial, **keywords):
            values = trial.hyperparameters.values
            time.sleep(0.3 + 0.3 * values["x"])
            score = (values["x"] - 0.3) ** 2 + values["kind"]
            line = json.dumps({"trial": trial.trial_id, "score": score}) + "\n"
            with open(folder / RUNS, "a", encoding="utf-8") as runs:
                runs.write(line)
            return score

    space = keras_tuner.HyperParameters()
    space.Float("x", 0.0, 1.0)
    space.Choice("kind", [0, 1, 2])
    tuner = Parabola(
        objective=keras_tuner.Objective("score", "min"),
        max_trials=trials,
        hyperparameters=space,
        directory=folder,
        project_name="study",
    )
    (folder / f"ready.{os.getpid()}").touch()
    tuner.search(verbose=0)


def start(folder: Path, trials: int) -> subprocess.Popen:
    program = [sys.executable, __file__, "--work", str(folder), "--trials", str(trials)]
    with open(folder / ERRORS, "a", encoding="utf-8") as errors:
        return subprocess.Popen(program, stderr=errors)


def kill_at_random(folder: Path, arguments: argparse.Namespace) -> tuple[int, int]:
    """Kills until that was often enough or all is done; returns how often, and how many crashed."""
    draw = random.Random(arguments.seed)
    processes = [start(folder, arguments.trials) for _ in range(arguments.processes)]
    kills = crashed = 0
    while kills < arguments.kills:
        for i, process in enumerate(processes):
            if process.poll() not in (None, 0):
                crashed += 1
                processes[i] = start(folder, arguments.trials)
        alive = [i for i, process in enumerate(processes) if process.poll() is None]
        if not alive:
            break
        # Most after they are ready, some before: while they open the study.
        ready = [i for i in alive if (folder / f"ready.{processes[i].pid}").exists()]
        if not ready and draw.random() < 0.99:
            time.sleep(0.2)
            continue
        victim = draw.choice(ready or alive)
        time.sleep(draw.uniform(0, 2.0))
        processes[victim].kill()
        processes[victim].wait()
        kills += 1
        processes[victim] = start(folder, arguments.trials)
    for process in processes:
        process.kill()
        process.wait()
    return kills, crashed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        work(arguments.work, arguments.trials)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kills, crashed = kill_at_random(folder, arguments)
        failed = start(folder, arguments.trials).wait()
        if failed or crashed:
            print((folder / ERRORS).read_text("utf-8"), file=sys.stderr)
        if failed:
            raise SystemExit("The study could not be opened again.")
        result = judge(folder, arguments.trials)
    print(json.dumps({"benchmark": "kill_search", "kills": kills, "crashed": crashed, **result}))
    wrong = crashed + sum(result[name] for name in ("lost", "twice", "other_value"))
    raise SystemExit(int(wrong > 0))


def judge(folder: Path, trials: int) -> dict[str, int]:
    import optuna

    study = optuna.load_study(
        study_name="kfusion", storage=f"sqlite:///{folder / 'study' / 'study.db'}"
    )
    told = collections.defaultdict(set)
    runs = [json.loads(line) for line in (folder / RUNS).read_text("utf-8").splitlines()]
    for run in runs:
        told[int(run["trial"])].add(run["score"])
    complete = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    failed = [t for t in study.trials if t.state == optuna.trial.TrialState.FAIL]
    points = [json.dumps(t.user_attrs["values"], sort_keys=True) for t in study.trials]
    return {
        "trials": len(study.trials),
        "completed": len(complete),
        "given_up": len(failed),
        "runs": len(runs),
        "run_again": sum(t.user_attrs["attempts"] > 1 for t in study.trials),
        "lost": trials - len(complete) - len(failed),
        "twice": len(points) - len(set(points)),
        "other_value": sum({t.value} != told[t.number] for t in complete),
    }


if __name__ == "__main__":
    main()
