"""What half precision and XLA do to the time of a training here, on one backend.

A fusion of image and table trains some epochs in each precision, with and without `jit_compile`,
all in turn; the first turn, which warms up, is not counted, nor is each model's first epoch, which
traces and compiles. A line for each has the ratio of its median to that of float32 without.

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
    """Seconds of each epoch."""

    def on_train_begin(self, logs=None):
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.started)


def seconds_per_epoch(train: kf.FusionData, precision: str, jit: bool, epochs: int) -> float:
    """Of epochs but the first."""
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
    return statistics.median(times.seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    train = kf.datasets.load_landcover()[::2].with_schema()
    # JAX without `jit` runs operation by operation, which nobody would choose.
    jits = (True,) if keras.backend.backend() == "jax" else (False, True)
    contenders = [(precision, jit) for jit in jits for precision in PRECISIONS]
    seconds: dict[tuple[str, bool], list[float]] = {each: [] for each in contenders}
    for turn in range(arguments.repeats + 1):
        for each in contenders:
            taken = seconds_per_epoch(train, *each, arguments.epochs)
            if turn:
                seconds[each].append(taken)
    baseline = statistics.median(seconds[contenders[0]])
    for (precision, jit), taken in seconds.items():
        result = {
            "benchmark": "precision",
            "precision": precision,
            "jit_compile": jit,
            "ratio_to_float32": round(statistics.median(taken) / baseline, 2),
            "ratios": [round(each / baseline, 2) for each in sorted(taken)],
            "device": find_device().kind,
            "backend": keras.backend.backend(),
            "keras": keras.version(),
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
