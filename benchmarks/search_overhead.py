"""What a search costs beside its trainings.

- suggestion: time to propose a trial of 12 parameters when 300 are finished (TPE).
- trial: a trial of `OptunaTuner` against building, compiling and fitting the same model by hand, in
  turn; the difference is what is kept: study, weights, curves, confusion counts.
- memory: how much a process grows per trial, for OptunaTuner, KerasTuner's RandomSearch and a loop
  that builds, compiles and fits, each in a process of its own.
- thousand: opening, listing and analysing a study of 1,000 trials.

usage: python benchmarks/search_overhead.py [--only suggestion trial memory thousand]
    [--trials 200] [--pairs 15] [--engines loop kfusion keras_tuner]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_tuner
import numpy as np

import kfusion as kf

X = np.random.default_rng(0).normal(size=(2048, 16)).astype("float32")
Y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype("int32")
TRAIN, HELD = (X[:1536], Y[:1536]), (X[1536:], Y[1536:])
EPOCHS = 5


def build(hp: keras_tuner.HyperParameters) -> keras.Model:
    model = keras.Sequential([keras.Input((16,))])
    model.add(keras.layers.Dense(hp.Int("units", 16, 256), activation="relu"))
    model.add(keras.layers.Dropout(hp.Float("dropout", 0.0, 0.5)))
    model.add(keras.layers.Dense(1, activation="sigmoid"))
    rate = hp.Float("rate", 1e-4, 1e-1, sampling="log")
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
    return model


def fit_by_hand(hp: keras_tuner.HyperParameters) -> None:
    build(hp).fit(*TRAIN, validation_data=HELD, epochs=EPOCHS, batch_size=64, verbose=0)


class Scored(kf.OptunaTuner):
    """Scores 12 numbers, without a model."""

    def run_trial(self, trial, **keywords):
        return {"score": sum(trial.hyperparameters.values.values())}


def make_scored(folder: str, trials: int) -> Scored:
    space = keras_tuner.HyperParameters()
    for i in range(12):
        space.Float(f"x{i}", 0.0, 1.0)
    return Scored(
        objective=keras_tuner.Objective("score", "min"),
        max_trials=trials,
        hyperparameters=space,
        directory=folder,
        project_name="study",
        sampler="random" if trials == 1000 else "tpe",
    )


def measure_suggestion() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        make_scored(folder, 300).search(verbose=0)
        tuner = make_scored(folder, 330)
        tuner.oracle.verbose = 0
        seconds = []
        for _ in range(21):
            started = time.perf_counter()
            trial = tuner.oracle.create_trial("tuner")
            seconds.append(time.perf_counter() - started)
            tuner.oracle.update_trial(trial.trial_id, {"score": 1.0})
            trial.status = "COMPLETED"
            tuner.oracle.end_trial(trial)
        # The first one also reads the 300.
        return {"median_ms": 1000 * statistics.median(seconds[1:]), "first_ms": 1000 * seconds[0]}


def measure_trial(pairs: int) -> dict:
    own, by_hand = [], []

    class InTurn(kf.OptunaTuner):
        """Fits each trial's model once more by hand, when the trial has ended."""

        def on_trial_end(self, trial):
            super().on_trial_end(trial)
            ended = time.perf_counter()
            own.append(ended - self.begun)
            fit_by_hand(trial.hyperparameters)
            by_hand.append(time.perf_counter() - ended)
            self.begun = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        tuner = InTurn(build, "val_loss", pairs + 2, sampler="random", directory=folder)
        tuner.begun = time.perf_counter()
        tuner.search(*TRAIN, validation_data=HELD, epochs=EPOCHS, batch_size=64, verbose=0)
    # The first two pairs warm up.
    differences = [a - b for a, b in zip(own[2:], by_hand[2:], strict=True)]
    return {
        "pairs": pairs,
        "median_difference_ms": 1000 * statistics.median(differences),
        "ratio_of_medians": statistics.median(own[2:]) / statistics.median(by_hand[2:]),
        # 50 ms and 5 % of the training.
        "allowed_ms": 50 + 0.05 * 1000 * statistics.median(by_hand[2:]),
    }


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def grow(engine: str, trials: int) -> None:
    """In a process of its own: memory over trials."""
    sizes = []

    def tell(*_: object) -> None:
        gc.collect()
        sizes.append(resident_bytes())

    keywords = {"validation_data": HELD, "epochs": 1, "batch_size": 256, "verbose": 0}
    if engine == "loop":
        for i in range(trials):
            hp = keras_tuner.HyperParameters()
            hp.values = {"units": 16 + i, "dropout": 0.1, "rate": 1e-3}
            keras.backend.clear_session()
            build(hp).fit(*TRAIN, **keywords)
            tell()
    else:
        kind = {"kfusion": kf.OptunaTuner, "keras_tuner": keras_tuner.RandomSearch}[engine]

        class Watched(kind):
            def on_trial_end(self, trial):
                super().on_trial_end(trial)
                tell()

        with tempfile.TemporaryDirectory() as folder:
            tuner = Watched(build, objective="val_loss", max_trials=trials, directory=folder)
            tuner.search(*TRAIN, **keywords)
    start = trials // 5
    slope = np.polyfit(np.arange(start, len(sizes)), np.array(sizes[start:]) / 2**20, 1)[0]
    found = {
        "engine": engine,
        "trials": trials,
        "megabytes_per_trial": round(float(slope), 3),
        "megabytes_first_to_last": round((sizes[-1] - sizes[start]) / 2**20, 1),
    }
    print(json.dumps(found))


def measure_thousand() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        make_scored(folder, 1000).search(verbose=0)
        started = time.perf_counter()
        tuner = make_scored(folder, 1000)
        opened = time.perf_counter()
        number = len(tuner.oracle.get_best_trials(1000))
        listed = time.perf_counter()
        kf.analyse(tuner)
        return {
            "trials": number,
            "open_s": opened - started,
            "list_s": listed - opened,
            "analyse_s": time.perf_counter() - listed,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ("suggestion", "trial", "memory", "thousand")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=15)
    engines = ("loop", "kfusion", "keras_tuner")
    parser.add_argument("--engines", nargs="+", choices=engines, default=engines)
    parser.add_argument("--grow", choices=engines, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.grow:
        grow(arguments.grow, arguments.trials)
        return
    measures = {
        "suggestion": measure_suggestion,
        "trial": lambda: measure_trial(arguments.pairs),
        "thousand": measure_thousand,
    }
    for name in arguments.only:
        if name == "memory":
            for engine in arguments.engines:
                command = [sys.executable, __file__, "--grow", engine]
                command += ["--trials", str(arguments.trials)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found = json.loads(done.stdout.splitlines()[-1])
                print(json.dumps({"benchmark": "search_memory", **found}), flush=True)
            continue
        found = {key: round(value, 3) for key, value in measures[name]().items()}
        print(json.dumps({"benchmark": f"search_{name}", **found}), flush=True)


if __name__ == "__main__":
    main()
