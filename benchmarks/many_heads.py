"""Trials per minute of a search over heads on cached features: stacked, one by one, and others.

    python benchmarks/many_heads.py                               # tensorflow, then jax
    KERAS_BACKEND=jax python benchmarks/many_heads.py --sizes 1 8 64 256 --others
    python benchmarks/many_heads.py --quality 3                   # best value of 16 trials, 3 seeds

Each repeat runs all contenders in turn; the first one, which warms up, is not counted. A line for
each contender has its median and its ratio to training one by one with a fresh model.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
from functools import partial

import numpy as np
from each_backend import run_on_each

ROWS, JUDGES, WIDTHS, EPOCHS, BATCH = 5000, 1000, {"image": 512, "tabular": 32}, 5, 64
OTHERS = ("keras_tuner", "optuna")


def make_rows(seed=0):
    """Features of which a few tell the label, as `(x, y)` of training and of validation."""
    random = np.random.default_rng(seed)
    x = {
        name: random.normal(size=(ROWS + JUDGES, width)).astype("float32")
        for name, width in WIDTHS.items()
    }
    logits = x["image"][:, :8].sum(1) / 3 + x["tabular"][:, 0] * x["tabular"][:, 1]
    y = (logits + random.logistic(size=len(logits)) > 0).astype("int32")
    train, judge = slice(0, ROWS), slice(ROWS, None)
    return tuple(({n: v[part] for n, v in x.items()}, y[part]) for part in (train, judge))


def build(dropout=0.0, l2=0.0):
    """The head that all contenders train."""
    import kfusion

    branches = {
        name: kfusion.embedding_branch(
            width, units=64, dropout=dropout, l2=l2, input_name=name, name=f"{name}_branch"
        )
        for name, width in WIDTHS.items()
    }
    return kfusion.build_fusion_model(
        branches, task="binary", head_units=64, dropout=dropout, l2=l2
    )


def draw(random):
    """A point of the space."""
    return {
        "learning_rate": float(np.exp(random.uniform(np.log(1e-4), np.log(1e-2)))),
        "dropout": float(random.uniform(0, 0.5)),
        "l2": float(np.exp(random.uniform(np.log(1e-6), np.log(1e-3)))),
    }


def train_stacked(number, rows, seed, is_exact=False, at_once=None):
    """Trials of one random search, all at once or as many as `at_once` says; scores are exact."""
    import kfusion

    random = np.random.default_rng(seed)
    (x, y), judging = rows
    fits = kfusion.fit_many(
        build, x, y, task="binary", validation_data=judging, epochs=EPOCHS, batch_size=BATCH,
        members=[draw(random) for _ in range(number)], seed=seed, at_once=at_once or number,
        verbose=0,
    )  # fmt: skip
    return [max(fit.history["val_auc"]) for fit in fits]


def train_fresh(number, rows, seed, is_exact=False):
    """The same, each with a model of its own."""
    import keras

    import kfusion

    random, scores = np.random.default_rng(seed), []
    (x, y), judging = rows
    for trial in range(number):
        keras.utils.set_random_seed(1000 * seed + trial)
        point = draw(random)
        rate = point.pop("learning_rate")
        history = kfusion.fit(
            build(**point), x, y, task="binary", validation_data=judging, epochs=EPOCHS,
            batch_size=BATCH, learning_rate=rate, seed=trial, doctor=False, verbose=0,
        )  # fmt: skip
        scores.append(max(history.history["val_auc"]))
    return scores


def compile_plainly(point):
    """The model as a user of Keras compiles it."""
    import keras

    rate = point.pop("learning_rate")
    model = build(**point)
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["AUC"])
    return model


def train_keras_tuner(number, rows, seed, is_exact=False):
    """KerasTuner's random search."""
    import keras_tuner

    def build_trial(hp):
        return compile_plainly(
            {
                "learning_rate": hp.Float("learning_rate", 1e-4, 1e-2, sampling="log"),
                "dropout": hp.Float("dropout", 0.0, 0.5),
                "l2": hp.Float("l2", 1e-6, 1e-3, sampling="log"),
            }
        )

    (x, y), judging = rows
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.RandomSearch(
            build_trial, keras_tuner.Objective("val_AUC", "max"), number, seed=7919 * (seed + 1),
            directory=folder,
        )  # fmt: skip
        tuner.search(x, y, validation_data=judging, epochs=EPOCHS, batch_size=BATCH, verbose=0)
        trials = tuner.oracle.get_best_trials(1)
        if is_exact:
            return [exact_auc(tuner.load_model(trial), judging) for trial in trials]
        return [trial.score for trial in trials]


def train_optuna(number, rows, seed, is_exact=False):
    """Optuna's default sampler and a plain `fit`."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    (x, y), judging = rows
    found = []

    def objective(trial):
        model = compile_plainly(
            {
                "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
                "dropout": trial.suggest_float("dropout", 0.0, 0.5),
                "l2": trial.suggest_float("l2", 1e-6, 1e-3, log=True),
            }
        )
        history = model.fit(
            x, y, validation_data=judging, epochs=EPOCHS, batch_size=BATCH, verbose=0
        )
        found.append(exact_auc(model, judging) if is_exact else history.history["val_AUC"][-1])
        return max(history.history["val_AUC"])

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(objective, number)
    return found


def exact_auc(model, judging):
    """Of all validation rows, without Keras' 200 thresholds."""
    import kfusion

    return kfusion.evaluate(model, *judging, task="binary")["auc"]


def contenders(sizes, others, trials):
    """Callables `(rows, seed)` with their numbers of trials, by name."""
    found = {"fresh": (train_fresh, trials)}
    if others:
        trainers = {"keras_tuner": train_keras_tuner, "optuna": train_optuna}
        found |= {
            name: (trainers[name], trials) for name in others if importlib.util.find_spec(name)
        }
    found |= {f"stacked {size}": (train_stacked, size) for size in sizes}
    most = max(sizes)
    return found | {f"stacked {most}, auto": (partial(train_stacked, at_once="auto"), most)}


def measure_speed(options):
    """Prints a line for each contender."""
    import keras

    rows, seconds = make_rows(), {}
    named = contenders(options.sizes, options.others, options.trials)
    for repeat in range(options.repeats + 1):
        for name, (train, number) in named.items():
            started = time.perf_counter()
            train(number, rows, repeat)
            if repeat:
                seconds.setdefault(name, []).append((time.perf_counter() - started) / number)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    for name, values in seconds.items():
        line = {
            "contender": name,
            "backend": keras.backend.backend(),
            "keras": keras.__version__,
            "trials_per_minute": round(60 / medians[name], 1),
            "lowest_highest": [round(60 / max(values), 1), round(60 / min(values), 1)],
            "times_fresh": round(medians["fresh"] / medians[name], 2),
        }
        if "keras_tuner" in medians:
            line["times_keras_tuner"] = round(medians["keras_tuner"] / medians[name], 2)
        print(json.dumps(line), flush=True)


def measure_quality(options):
    """Prints the best exact AUC of as many trials of each contender."""
    import keras

    rows, number = make_rows(), options.trials
    named = {"stacked": train_stacked, "keras_tuner": train_keras_tuner, "optuna": train_optuna}
    best = {name: [] for name in named}
    for seed in range(options.quality):
        for name, train in named.items():
            best[name].append(max(train(number, rows, seed, is_exact=True)))
    for name, values in best.items():
        line = {"contender": name, "backend": keras.backend.backend(), "trials": number}
        line |= {"best": np.round(values, 4).tolist(), "mean": round(float(np.mean(values)), 4)}
        print(json.dumps(line), flush=True)


def main():
    """Runs a process for each backend, or this one if `KERAS_BACKEND` says which."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--others", nargs="*", default=list(OTHERS), choices=OTHERS)
    parser.add_argument("--trials", type=int, default=3, help="of those who train one by one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quality", type=int, default=0, help="seeds; 0 measures speed")
    options = parser.parse_args()
    measure = measure_quality if options.quality else measure_speed
    run_on_each(lambda: measure(options))


if __name__ == "__main__":
    main()
