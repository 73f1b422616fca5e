"""What half precision and XLA do to the time of a training here, on one backend.

A fusion of image and table trains some epochs in each precision, with and without `jit_compile`,
all in turn; each model's first epoch, which traces and compiles, is not counted. A line for each
has the ratios of its medians, of seconds and of CPU seconds, which other work on the machine
disturbs less, to those of float32 without.

usage: KERAS_BACKEND=jax python benchmarks/precision.py [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

import kfusion as kf
from kfusion.devices import find_device

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


class EpochTimes(keras.callbacks.Callback):
    """Seconds and CPU seconds of each epoch."""

    def on_train_begin(self, logs=None):
        self.taken = []

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        now = time.perf_counter(), time.process_time()
        self.taken.append(tuple(end - start for start, end in zip(self.started, now, strict=True)))


def train_in(train: kf.FusionData, precision: str, jit: bool, epochs: int) -> tuple[float, ...]:
    """Seconds and CPU seconds of an epoch, the median of all but the first."""
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(0)
    branches = {
        "image": kf.image_branch(train.image_shape),
        "tabular": kf.tabular_branch(train.schema),
    }
    model = kf.build_fusion_model(branches, task=train.task)
    times = EpochTimes()
    kf.fit(
        model,
        train.x,
        train.y,
        task=train.task,
        validation_data=None,
        epochs=epochs,
        batch_size=64,
        jit_compile=jit,
        callbacks=[times],
        doctor=False,
        verbose=0,
    )
    return medians(times.taken[1:])


def medians(pairs: list[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(statistics.median(column) for column in zip(*pairs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    train = kf.datasets.load_landcover()[::4].with_schema()
    # JAX without `jit` runs operation by operation, which nobody would choose.
    jits = (True,) if keras.backend.backend() == "jax" else (False, True)
    contenders = [(precision, jit) for jit in jits for precision in PRECISIONS]
    taken: dict[tuple[str, bool], list] = {each: [] for each in contenders}
    for _ in range(arguments.repeats):
        for each in contenders:
            taken[each].append(train_in(train, *each, arguments.epochs))
    baseline = medians(taken[contenders[0]])
    for (precision, jit), turns in taken.items():
        seconds, cpu = (a / b for a, b in zip(medians(turns), baseline, strict=True))
        result = {
            "benchmark": "precision",
            "precision": precision,
            "jit_compile": jit,
            "seconds_to_float32": round(seconds, 2),
            "cpu_to_float32": round(cpu, 2),
            "repeats": arguments.repeats,
            "device": find_device().kind,
            "backend": keras.backend.backend(),
            "keras": keras.version(),
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
