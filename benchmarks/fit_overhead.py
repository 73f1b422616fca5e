"""What `kfusion.fit` costs on top of `keras.Model.fit` for the same model, data and epochs.

Both compile the same optimizer and loss and look at the validation rows after every epoch: Keras
with its own loss and accuracy, kfusion with exact scores. They take turns in one process; the
first turn of each is not counted.

usage: python benchmarks/fit_overhead.py [--repeats 5] [--epochs 5]
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


def build(train: kf.FusionData) -> keras.Model:
    keras.utils.set_random_seed(0)
    branches = {
        "image": kf.image_branch(train.image_shape),
        "tabular": kf.tabular_branch(train.schema),
    }
    return kf.build_fusion_model(branches, task=train.task)


def seconds_of_keras(train: kf.FusionData, x, validation, epochs: int) -> float:
    model = build(train)
    started = time.perf_counter()
    model.compile("adam", train.task.loss, metrics=["accuracy"])
    model.fit(x, train.y, validation_data=validation, epochs=epochs, batch_size=64, verbose=0)
    return time.perf_counter() - started


def seconds_of_kfusion(train: kf.FusionData, x, validation, epochs: int) -> float:
    model = build(train)
    started = time.perf_counter()
    kf.fit(
        model,
        x,
        train.y,
        task=train.task,
        validation_data=validation,
        epochs=epochs,
        batch_size=64,
        verbose=0,
    )
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    train, held = kf.datasets.load_landcover().split(0.2)
    x, validation = train.x, (held.x, held.y)
    ratios, ours, bare = [], [], []
    for turn in range(arguments.repeats + 1):
        pair = (
            seconds_of_keras(train, x, validation, arguments.epochs),
            seconds_of_kfusion(train, x, validation, arguments.epochs),
        )
        if turn:
            bare.append(pair[0])
            ours.append(pair[1])
            ratios.append(pair[1] / pair[0])
    result = {
        "benchmark": "fit_overhead",
        "rows": len(train),
        "epochs": arguments.epochs,
        "ratio_of_medians": round(statistics.median(ours) / statistics.median(bare), 3),
        "paired_ratios": [round(ratio, 3) for ratio in sorted(ratios)],
        "keras": keras.version(),
        "backend": keras.backend.backend(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
