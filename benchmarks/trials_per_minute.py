"""Trials per minute, and the best value at equal wall time, of searches over heads on features.

    python benchmarks/trials_per_minute.py                            # tensorflow, then jax
    KERAS_BACKEND=jax python benchmarks/trials_per_minute.py --repeats 3
    python benchmarks/trials_per_minute.py --quality 10               # best value, 10 seeds
    python benchmarks/trials_per_minute.py --images                   # end to end

All contenders search the same space (learning rate, dropout, L2, three widths) by the same
network, rows and epochs; with `--images` a convolutional network learns from pixels in place of
512 features. Each repeat runs all of them in turn; the first one, which warms up, is
not counted. With `--quality` each has the wall time that kfusion's search took with that seed, and
its best model is scored again on rows that no search has seen.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import tempfile
import time
from functools import partial

import numpy as np
from each_backend import run_on_each
from many_heads import BATCH, EPOCHS, WIDTHS, make_rows

UNITS = [32, 64, 128]
RATES, PENALTIES, DROPOUTS = (1e-4, 1e-2), (1e-6, 1e-3), (0.0, 0.5)


IMAGE, IMAGE_ROWS, IMAGE_JUDGES = (24, 24, 3), 1000, 300


def make_image_rows():
    """Small images and a table, of which each tells a part of the label."""
    random = np.random.default_rng(0)
    number = IMAGE_ROWS + IMAGE_JUDGES
    table = random.normal(size=(number, WIDTHS["tabular"])).astype("float32")
    brightness = random.normal(size=number)
    noise = random.normal(size=(number, *IMAGE)) * 40
    images = np.clip(128 + 20 * brightness[:, None, None, None] + noise, 0, 255).astype("uint8")
    y = (brightness + table[:, 0] + random.logistic(size=number) > 0).astype("int32")
    x = {"image": images, "tabular": table}
    train, judge = slice(0, IMAGE_ROWS), slice(IMAGE_ROWS, None)
    return tuple(({n: v[part] for n, v in x.items()}, y[part]) for part in (train, judge))


def branch_builders(has_images):
    """A builder for each input, by name."""
    import kfusion

    builders = {
        name: partial(kfusion.embedding_branch, width, input_name=name, name=f"{name}_branch")
        for name, width in WIDTHS.items()
    }
    if has_images:
        builders["image"] = partial(kfusion.image_branch, IMAGE, name="image_branch")
    return builders


def build(hp, has_images=False):
    """The head that KerasTuner's tuners and Optuna train, compiled as a user of Keras does it."""
    import keras

    import kfusion

    dropout = hp.Float("dropout", *DROPOUTS)
    l2 = hp.Float("l2", *PENALTIES, sampling="log")
    branches = {
        name: builder(units=hp.Choice(f"{name}_units", UNITS), dropout=dropout, l2=l2)
        for name, builder in branch_builders(has_images).items()
    }
    model = kfusion.build_fusion_model(
        branches, task="binary", head_units=hp.Choice("head_units", UNITS), dropout=dropout, l2=l2
    )
    rate = hp.Float("learning_rate", *RATES, sampling="log")
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["AUC"])
    return model


def search_kfusion(rows, seed, *, trials, seconds=None, parallel_trials="auto", has_images=False):
    """kfusion's search, as many trials at once as it decides."""
    import kfusion

    def ranges(hp, name):
        low, high = PENALTIES if name == "l2" else DROPOUTS
        hp.Float(name, low, high, sampling="log" if name == "l2" else "linear")

    (x, y), judging = rows
    hypermodel = kfusion.FusionHyperModel(
        branch_builders(has_images), task="binary", fusions="concat", optimizers="adam",
        head_depths=1,
        units=UNITS, head_units=UNITS, dropouts=ranges, l2s=ranges, batch_sizes=BATCH,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        tuner = kfusion.search_fusion(
            hypermodel, x, y, validation_data=judging, directory=folder, max_trials=trials,
            epochs=EPOCHS, parallel_trials=parallel_trials, seed=seed, verbose=0,
        )  # fmt: skip
        done = [t for t in tuner.oracle.trials.values() if t.status == "COMPLETED"]
        return len(done), tuner.get_best_models(1)[0]


class TimeIsOverError(Exception):
    """Ends a search of KerasTuner's, which has no limit of its own."""


def search_keras_tuner(rows, seed, *, trials, seconds=None, has_images=False, name):
    """One of KerasTuner's tuners, as its guides have it."""
    import keras_tuner

    started, done = time.perf_counter(), []

    class Timed(getattr(keras_tuner, name)):
        def on_trial_end(self, trial):
            super().on_trial_end(trial)
            done.append(trial.trial_id)
            if len(done) == trials or (seconds and time.perf_counter() - started > seconds):
                raise TimeIsOverError

    (x, y), judging = rows
    objective = keras_tuner.Objective("val_AUC", "max")
    amount = {"max_epochs": EPOCHS} if name == "Hyperband" else {"max_trials": trials or 10**6}
    with tempfile.TemporaryDirectory() as folder:
        own_build = partial(build, has_images=has_images)
        tuner = Timed(own_build, objective, directory=folder, seed=seed + 1, **amount)
        epochs = {} if name == "Hyperband" else {"epochs": EPOCHS}
        with contextlib.suppress(TimeIsOverError):
            tuner.search(x, y, validation_data=judging, batch_size=BATCH, verbose=0, **epochs)
        return len(done), tuner.get_best_models(1)[0]


class OptunaSpace:
    """What `build` asks of hyperparameters, asked of an Optuna trial."""

    def __init__(self, trial):
        self.trial = trial

    def Float(self, name, low, high, sampling="linear"):  # noqa: N802
        return self.trial.suggest_float(name, low, high, log=sampling == "log")

    def Choice(self, name, values):  # noqa: N802
        return self.trial.suggest_categorical(name, values)


def search_optuna(rows, seed, *, trials, seconds=None, has_images=False):
    """Optuna's default sampler and a plain `fit`."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    (x, y), judging = rows
    best = {"value": -1.0, "model": None}

    def objective(trial):
        model = build(OptunaSpace(trial), has_images)
        history = model.fit(
            x, y, validation_data=judging, epochs=EPOCHS, batch_size=BATCH, verbose=0
        )
        value = history.history["val_AUC"][-1]
        if value > best["value"]:
            best.update(value=value, model=model)
        return value

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(objective, trials, timeout=seconds)
    return len(study.trials), best["model"]


OTHERS = {
    "keras_tuner random": partial(search_keras_tuner, name="RandomSearch"),
    "keras_tuner bayesian": partial(search_keras_tuner, name="BayesianOptimization"),
    "keras_tuner hyperband": partial(search_keras_tuner, name="Hyperband"),
    "optuna and keras": search_optuna,
}


def told(contender):
    """What every line says."""
    import keras

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {
        "contender": contender,
        "backend": keras.backend.backend(),
        "keras": keras.__version__,
        "peak_mb_of_all": peak,
    }


def measure_speed(options):
    """Prints a line for each contender."""
    rows, rates = make_image_rows() if options.images else make_rows(), {}
    few = {"trials": options.few, "has_images": options.images}
    contenders = {"kfusion, one by one": partial(search_kfusion, **few, parallel_trials=1)}
    if not options.images:
        contenders = {"kfusion": partial(search_kfusion, trials=options.trials)} | contenders
    ours = next(iter(contenders))
    contenders |= {name: partial(OTHERS[name], **few) for name in options.against}
    for repeat in range(options.repeats + 1):
        for name, search in contenders.items():
            started = time.perf_counter()
            number, _ = search(rows, repeat)
            if repeat:
                rates.setdefault(name, []).append(60 * number / (time.perf_counter() - started))
    for name, values in rates.items():
        against = [ours / other for ours, other in zip(rates[ours], values, strict=True)]
        line = told(name) | {
            "images": options.images,
            "trials_per_minute": round(float(np.median(values)), 1),
            "lowest_highest": np.round([min(values), max(values)], 1).tolist(),
            "kfusion_times_this": round(float(np.median(against)), 2),
        }
        print(json.dumps(line), flush=True)


def measure_quality(options):
    """Prints the exact AUC, on rows never seen, of what each contender found in the same time."""
    import kfusion

    rows, (x, y) = make_rows(), make_rows()[1]
    half = len(y) // 2
    judging = ({name: part[:half] for name, part in x.items()}, y[:half])
    unseen = ({name: part[half:] for name, part in x.items()}, y[half:])
    rows, found, numbers = (rows[0], judging), {}, {}
    for seed in range(options.quality):
        started = time.perf_counter()
        results = {"kfusion": search_kfusion(rows, seed, trials=options.trials)}
        seconds = time.perf_counter() - started
        for name in options.against:
            results[name] = OTHERS[name](rows, seed, trials=None, seconds=seconds)
        for name, (number, model) in results.items():
            scores = kfusion.evaluate(model, *unseen, task="binary")
            found.setdefault(name, []).append(scores["auc"])
            numbers.setdefault(name, []).append(number)
    for name, values in found.items():
        behind = np.array(found["kfusion"]) - values
        spread = behind.std(ddof=1) / np.sqrt(len(behind)) if len(behind) > 1 else None
        line = told(name) | {
            "seeds": len(values),
            "median_trials": float(np.median(numbers[name])),
            "mean_auc": round(float(np.mean(values)), 4),
            "kfusion_minus_this": round(float(behind.mean()), 4),
            "standard_error": None if spread is None else round(float(spread), 4),
        }
        print(json.dumps(line), flush=True)


def main():
    """Runs a process for each backend, or this one if `KERAS_BACKEND` says which."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=96, help="of kfusion")
    parser.add_argument("--few", type=int, default=4, help="trials of those who train one by one")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--quality", type=int, default=0, help="seeds; 0 measures speed")
    parser.add_argument("--images", action="store_true", help="end to end, from pixels")
    parser.add_argument("--against", nargs="+", choices=OTHERS, default=list(OTHERS))
    options = parser.parse_args()
    measure = measure_quality if options.quality else measure_speed
    run_on_each(lambda: measure(options))


if __name__ == "__main__":
    main()
