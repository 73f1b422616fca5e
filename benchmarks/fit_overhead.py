"""What `kfusion.fit` costs beside `keras.Model.fit` and pytorch-widedeep, on the same network.

Land-cover rows, a network of plain Keras layers, the same batches, epochs and threads:

- keras: `compile` with accuracy and `fit` with `validation_data`, in batches of 256 as kfusion's.
- keras_exact: `fit` and, after each epoch, what `kfusion.fit` gives: predictions of all validation
  rows, scikit-learn's log loss, macro AUC and accuracy, and the best weights at the end.
- kfusion: `kfusion.fit` as it is, doctor's examination included.
- widedeep, widedeep_one_thread: pytorch-widedeep's `Trainer` with accuracy, in a Python of its own
  (see `widedeep_fit.py`), with as many threads as there are cores, and with one. Without
  `--widedeep` it is left out, and a line says so.

All take turns in one run, in another order each time; the first turn of each is not counted. A line
has the ratios of each turn to the one of "keras", also of the processor's time, which other work on
the machine disturbs less. "epoch" is the median time between the starts of two epochs behind the
first; "start" is all that is not epochs: compiling, tracing, checks, the last weights.

usage: python benchmarks/fit_overhead.py [--repeats 3] [--epochs 6] [--networks table both]
    [--backends tensorflow jax] [--widedeep PYTHON] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

BATCH, VALIDATION_BATCH = 64, 256
NETWORKS = ("table", "both")
SIDES = ("keras", "keras_exact", "kfusion")
# Of pytorch-widedeep.
THREADS = {"widedeep": os.cpu_count() or 1, "widedeep_one_thread": 1}


class Rows(NamedTuple):
    """Training and validation rows, as all sides take them."""

    x: dict[str, np.ndarray]
    y: np.ndarray
    held_x: dict[str, np.ndarray]
    held_y: np.ndarray
    classes: int

    @property
    def validation(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        return self.held_x, self.held_y


def load_rows(network: str) -> Rows:
    """The table's numbers standardised, and images from 0 to 1 for the network that has both."""
    import kfusion as kf

    train, held = kf.datasets.load_landcover().split(0.2)
    tables = [np.nan_to_num(part.x["tabular"]) for part in (train, held)]
    mean, spread = tables[0].mean(axis=0), tables[0].std(axis=0) + 1e-6
    given = []
    for part, table in zip((train, held), tables, strict=True):
        x = {"tabular": ((table - mean) / spread).astype("float32")}
        if network == "both":
            x["image"] = part.x["image"].astype("float32") / 255
        given.append(x)
    return Rows(given[0], train.y, given[1], held.y, train.task.units)


def build(rows: Rows, seed: int | None = 0):
    """The network that all sides train; `widedeep_fit.py` has the same."""
    import keras

    if seed is not None:
        keras.utils.set_random_seed(seed)
    inputs = {name: keras.Input(each.shape[1:], name=name) for name, each in rows.x.items()}
    table = inputs["tabular"]
    for units in (64, 64):
        table = keras.layers.Dense(units, activation="relu")(table)
    features = table
    if "image" in inputs:
        image = inputs["image"]
        for filters in (16, 32):
            image = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(image)
            image = keras.layers.MaxPooling2D(2)(image)
        image = keras.layers.GlobalAveragePooling2D()(image)
        features = keras.layers.Concatenate()([table, image])
    features = keras.layers.Dense(64, activation="relu")(features)
    return keras.Model(inputs, keras.layers.Dense(rows.classes, activation="softmax")(features))


def make_clock():
    """Notes when epochs start."""
    import keras

    class Clock(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.starts: list[float] = []

        def on_epoch_begin(self, epoch, logs=None):
            self.starts.append(time.perf_counter())

    return Clock()


def fit_keras(model, rows: Rows, epochs: int, clock) -> None:
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        rows.x, rows.y, validation_data=rows.validation, epochs=epochs, batch_size=BATCH,
        validation_batch_size=VALIDATION_BATCH, callbacks=[clock], verbose=0,
    )  # fmt: skip


def fit_keras_exact(model, rows: Rows, epochs: int, clock) -> None:
    import keras
    from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

    class Exact(keras.callbacks.Callback):
        best, weights = -1.0, None

        def on_epoch_end(self, epoch, logs=None):
            found = self.model.predict(rows.held_x, batch_size=VALIDATION_BATCH, verbose=0)
            found = found.astype("float64")
            found /= found.sum(axis=1, keepdims=True)
            logs["val_loss"] = log_loss(rows.held_y, found)
            logs["val_accuracy"] = accuracy_score(rows.held_y, found.argmax(axis=1))
            logs["val_auc"] = roc_auc_score(rows.held_y, found, multi_class="ovr")
            if logs["val_auc"] > self.best:
                self.best, self.weights = logs["val_auc"], self.model.get_weights()

        def on_train_end(self, logs=None):
            self.model.set_weights(self.weights)

    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        rows.x, rows.y, epochs=epochs, batch_size=BATCH, callbacks=[Exact(), clock], verbose=0
    )


def fit_kfusion(model, rows: Rows, epochs: int, clock) -> None:
    import kfusion as kf

    kf.fit(
        model, rows.x, rows.y, task=kf.task("multiclass", num_classes=rows.classes),
        validation_data=rows.validation, epochs=epochs, batch_size=BATCH, patience=None,
        callbacks=[clock], verbose=0,
    )  # fmt: skip


FITS: dict[str, Callable[..., None]] = {
    "keras": fit_keras,
    "keras_exact": fit_keras_exact,
    "kfusion": fit_kfusion,
}


def measure_turn(side: str, rows: Rows, epochs: int) -> dict[str, Any]:
    """Seconds of one training, of its processor time, and when its epochs started."""
    import keras

    keras.backend.clear_session()
    gc.collect()
    model, clock = build(rows), make_clock()
    started, cpu = time.perf_counter(), time.process_time()
    FITS[side](model, rows, epochs, clock)
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
        "starts": clock.starts,
        "parameters": model.count_params(),
    }


class Widedeep:
    """The other Python, which trains when it is told to and sleeps in between."""

    def __init__(self, python: str, rows: Rows, folder: str):
        path = Path(folder) / "rows.npz"
        parts = {f"x_{name}": array for name, array in rows.x.items()}
        parts |= {f"held_{name}": array for name, array in rows.held_x.items()}
        np.savez(path, y=rows.y, held_y=rows.held_y, classes=rows.classes, **parts)
        script = Path(__file__).with_name("widedeep_fit.py")
        self.process = subprocess.Popen(
            [python, str(script), str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            # Packages of this Python are none of its own. Threads that wait by spinning take many
            # times as long where other work has a core.
            env={**os.environ, "PYTHONPATH": "", "OMP_WAIT_POLICY": "PASSIVE"},
        )  # fmt: skip
        self.versions = self._read()

    def measure_turn(self, epochs: int, threads: int) -> dict[str, Any]:
        asked = {"epochs": epochs, "batch": BATCH, "threads": threads}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return self._read()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def _read(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"The other Python ended with {self.process.wait()}.")
        return json.loads(line)


def epoch_seconds(turn: dict[str, Any]) -> float:
    """Of an epoch behind the first, which also traces and compiles."""
    return statistics.median(np.diff(turn["starts"])[1:])


def tell(network: str, epochs: int, turns: dict[str, list[dict]], versions: dict) -> None:
    for side, found in turns.items():
        line = {"benchmark": "fit_overhead", "network": network, "side": side, "epochs": epochs}
        pairs = list(zip(found, turns["keras"], strict=True))
        for name in ("seconds", "cpu"):
            ratios = [ours[name] / plain[name] for ours, plain in pairs]
            line[f"{name}_ratio"] = round(statistics.median(ratios), 3)
            line[f"{name}_ratios"] = [round(ratio, 3) for ratio in sorted(ratios)]
        ratios = [epoch_seconds(ours) / epoch_seconds(plain) for ours, plain in pairs]
        line["epoch_ratio"] = round(statistics.median(ratios), 3)
        line["epoch_ratios"] = [round(ratio, 3) for ratio in sorted(ratios)]
        each = [epoch_seconds(turn) for turn in found]
        starts = [turn["seconds"] - epochs * one for turn, one in zip(found, each, strict=True)]
        line["median_epoch_ms"] = round(1000 * statistics.median(each), 1)
        line["median_start_ms"] = round(1000 * statistics.median(starts))
        if "peak_mb" in found[-1]:
            line["peak_mb"] = found[-1]["peak_mb"]
        print(json.dumps({**line, **versions}), flush=True)


def compare(network: str, options: argparse.Namespace) -> None:
    """All sides in turn, and a line for each."""
    import keras

    rows = load_rows(network)
    versions = {"backend": keras.backend.backend(), "keras": keras.version(), "rows": len(rows.y)}
    turns: dict[str, list[dict]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        other = Widedeep(options.widedeep, rows, folder) if options.widedeep else None
        if other is not None:
            turns |= {side: [] for side in THREADS}
            versions |= other.versions
        sides = list(turns)
        for number in range(options.repeats + 1):
            for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
                if side in THREADS:
                    turn = other.measure_turn(options.epochs, THREADS[side])
                else:
                    turn = measure_turn(side, rows, options.epochs)
                if number:
                    turns[side].append(turn)
        if other is not None:
            other.close()
    sizes = {turn["parameters"] for found in turns.values() for turn in found}
    if len(sizes) > 1:
        raise RuntimeError(f"The sides must train one network. Their parameters: {sizes}.")
    tell(network, options.epochs, turns, versions)


def profile(network: str, options: argparse.Namespace) -> None:
    """Where a warm `kfusion.fit` spends its time, on stderr."""
    rows = load_rows(network)
    for _ in range(2):
        measure_turn("kfusion", rows, options.epochs)
    profiler = cProfile.Profile()
    profiler.runcall(measure_turn, "kfusion", rows, options.epochs)
    pstats.Stats(profiler, stream=sys.stderr).sort_stats("cumulative").print_stats("kfusion", 40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--backends", nargs="+", default=["tensorflow", "jax"])
    parser.add_argument("--widedeep", metavar="PYTHON", help="one with torch, pytorch-widedeep")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--only-side", choices=SIDES, help="train this side once, tell nothing")
    options = parser.parse_args()
    # The doctor speaks of these data, not of time.
    warnings.simplefilter("ignore")
    if options.only_side:
        for network in options.networks:
            measure_turn(options.only_side, load_rows(network), options.epochs)
        return
    if "KERAS_BACKEND" in os.environ:
        for network in options.networks:
            (profile if options.profile else compare)(network, options)
        return
    if not options.widedeep:
        reason = "no --widedeep PYTHON given"
        print(json.dumps({"benchmark": "fit_overhead", "side": "widedeep", "skipped": reason}))
    for backend in options.backends:
        environment = {**os.environ, "KERAS_BACKEND": backend}
        subprocess.run([sys.executable, *sys.argv], env=environment, check=True)


if __name__ == "__main__":
    main()
