"""Search engines on the same spaces: the best value after N trials, and the time beside training.

Engines: kfusion's `OptunaTuner`, KerasTuner's RandomSearch, BayesianOptimization and Hyperband,
and Optuna by itself. Spaces:

- "function": a known function of a categorical, a conditional integer and five numbers; its best
  value is 0. A Hyperband trial of few epochs sees the function with noise that epochs take away,
  and its budget counts in full trials.
- "heads": heads on the frozen features of the land-cover images (components and table): real
  trainings of a second or less; the value is the validation AUC.

A line is one engine and seed; the summary lines have means over seeds and the time per trial that
is not spent in the function or in training.

usage: python benchmarks/search.py [--space function heads] [--engines kfusion random ...]
    [--trials 40] [--seeds 10]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_tuner
import numpy as np
import optuna

import kfusion as kf
from kfusion.search.space import Space

ENGINES = ("kfusion", "random", "bayesian", "hyperband", "optuna")
MAX_EPOCHS = 9


class Watched:
    """A function of hyperparameters whose time is taken apart from the engine's."""

    def __init__(self, function: Callable[[keras_tuner.HyperParameters, int], float]):
        self.function = function
        self.seconds = 0.0
        self.values: list[float] = []
        # Work done, in trainings of full length.
        self.budget = 0.0

    def __call__(self, hp: keras_tuner.HyperParameters, epochs: int = MAX_EPOCHS) -> float:
        started = time.perf_counter()
        value = self.function(hp, epochs)
        self.seconds += time.perf_counter() - started
        self.budget += epochs / MAX_EPOCHS
        if epochs == MAX_EPOCHS:
            self.values.append(value)
        return value


def function_space(hp: keras_tuner.HyperParameters) -> None:
    hp.Choice("optimizer", ["adam", "sgd", "rmsprop", "adagrad"])
    for i in range(4):
        hp.Float(f"x{i}", 0.0, 1.0)
    hp.Float("rate", 1e-5, 1e-1, sampling="log")
    with hp.conditional_scope("optimizer", ["sgd", "rmsprop"]):
        hp.Int("momentum", 1, 9)


def known_function(hp: keras_tuner.HyperParameters, epochs: int) -> float:
    """Regret: 0 at rmsprop, momentum 7, x = (0.2, 0.4, 0.6, 0.8), rate 1e-3."""
    values = hp.values
    regret = {"adam": 0.15, "sgd": 0.3, "rmsprop": 0.0, "adagrad": 0.5}[values["optimizer"]]
    if "momentum" in values:
        regret += 0.03 * abs(values["momentum"] - 7)
    regret += sum((values[f"x{i}"] - 0.2 * (i + 1)) ** 2 for i in range(4))
    regret += 0.05 * abs(np.log10(values["rate"]) + 3)
    noise = np.random.default_rng(zlib.crc32(str(sorted(values.items())).encode())).normal()
    return float(regret + 0.3 * noise * (1 / epochs - 1 / MAX_EPOCHS))


def heads_space(hp: keras_tuner.HyperParameters) -> None:
    hp.Choice("activation", ["relu", "tanh", "sigmoid"])
    hp.Choice("units", [8, 32, 128])
    hp.Int("depth", 0, 2)
    hp.Float("dropout", 0.0, 0.6)
    hp.Choice("optimizer", ["adam", "sgd", "adagrad"])
    hp.Float("rate", 1e-4, 1.0, sampling="log")


def make_heads() -> Callable[[keras_tuner.HyperParameters, int], float]:
    train, held = kf.datasets.load_landcover().split(0.25)
    layer = kf.fit_principal_components(train.images, 32)
    to_features = [
        lambda part: np.asarray(layer(part.images)),
        lambda part: np.nan_to_num(part.x["tabular"]),
    ]
    columns = [np.concatenate([make(part) for make in to_features], 1) for part in (train, held)]
    center, spread = columns[0].mean(0), columns[0].std(0) + 1e-6
    x, fresh = ((part - center) / spread for part in columns)

    def score(hp: keras_tuner.HyperParameters, epochs: int) -> float:
        values = hp.values
        keras.utils.set_random_seed(0)
        keras.backend.clear_session()
        layers: list[keras.layers.Layer] = [keras.Input((x.shape[1],))]
        for _ in range(values["depth"]):
            layers.append(keras.layers.Dense(values["units"], activation=values["activation"]))
            layers.append(keras.layers.Dropout(values["dropout"]))
        layers.append(keras.layers.Dense(train.task.units, activation="softmax"))
        model = keras.Sequential(layers)
        optimizer = keras.optimizers.get(values["optimizer"])
        optimizer.learning_rate = values["rate"]
        model.compile(optimizer, "sparse_categorical_crossentropy")
        model.fit(x, train.y, epochs=epochs, batch_size=128, verbose=0)
        predictions = np.nan_to_num(model.predict(fresh, batch_size=512, verbose=0))
        return 1 - float(train.task.scores(held.y, predictions, names=["auc"])["auc"])

    return score


def run(engine: str, space, function, trials: int, seed: int, folder: str) -> Watched:
    watched = Watched(function)
    hp = keras_tuner.HyperParameters()
    space(hp)
    objective = keras_tuner.Objective("score", "min")
    if engine == "optuna":
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        own = Space(hp)
        for _ in range(trials):
            trial = study.ask()
            point = hp.copy()
            point.values = own.suggest(trial)
            study.tell(trial, watched(point))
        return watched
    kinds = {
        "kfusion": kf.OptunaTuner,
        "random": keras_tuner.RandomSearch,
        "bayesian": keras_tuner.BayesianOptimization,
        "hyperband": keras_tuner.Hyperband,
    }

    class Engine(kinds[engine]):
        def run_trial(self, trial, **keywords):
            if watched.budget >= trials:
                raise keras_tuner.errors.FatalValueError("The budget is spent.")
            epochs = trial.hyperparameters.values.get("tuner/epochs", MAX_EPOCHS)
            return watched(trial.hyperparameters, epochs)

    amount = (
        {"max_epochs": MAX_EPOCHS, "hyperband_iterations": 99}
        if engine == "hyperband"
        else {"max_trials": trials}
    )
    tuner = Engine(
        objective=objective,
        hyperparameters=hp,
        seed=seed * 7919 + 1,
        directory=folder,
        **amount,
    )
    with contextlib.suppress(keras_tuner.errors.FatalValueError):
        tuner.search(verbose=0)
    return watched


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    spaces = {"function": function_space, "heads": heads_space}
    parser.add_argument("--space", nargs="+", choices=spaces, default=list(spaces))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    for name in arguments.space:
        function = known_function if name == "function" else make_heads()
        found: dict[str, list[dict]] = {engine: [] for engine in arguments.engines}
        for seed in range(arguments.seeds):
            for engine in arguments.engines:
                with tempfile.TemporaryDirectory() as folder:
                    started = time.perf_counter()
                    watched = run(engine, spaces[name], function, arguments.trials, seed, folder)
                    seconds = time.perf_counter() - started - watched.seconds
                line = {
                    "benchmark": "search",
                    "space": name,
                    "engine": engine,
                    "seed": seed,
                    "best": round(min(watched.values), 5),
                    "trials": round(watched.budget, 1),
                    "engine_ms_per_trial": round(1000 * seconds / watched.budget, 1),
                    "training_ms_per_trial": round(1000 * watched.seconds / watched.budget, 1),
                }
                found[engine].append(line)
                print(json.dumps(line), flush=True)
        for engine, lines in found.items():
            best = [line["best"] for line in lines]
            summary = {
                "benchmark": "search_summary",
                "space": name,
                "engine": engine,
                "seeds": len(lines),
                "mean_best": round(statistics.mean(best), 5),
                "median_best": round(statistics.median(best), 5),
                "median_engine_ms_per_trial": statistics.median(
                    line["engine_ms_per_trial"] for line in lines
                ),
            }
            print(json.dumps(summary), flush=True)


if __name__ == "__main__":
    main()
