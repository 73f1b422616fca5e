"""How the cost of each kind of work grows: rows, trials, folds and members, three sizes of each.

Every dimension is measured on its own, the others held still: rows of one training, trials of one
search, folds of one cross-validation, members that train in one program. The smallest size is run
once before, to warm up; then all sizes in turn. A line for each size has the medians of its seconds
and its CPU seconds as ratios to those of the smallest.

usage: python benchmarks/growth.py [--repeats 3] [--only rows trials folds members]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import kfusion as kf

warnings.simplefilter("ignore")
EPOCHS, BATCH, IMAGE, COLUMNS = 3, 32, (12, 12, 3), 8


def draw(rows: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    random = np.random.default_rng(0)
    x = {
        "image": random.integers(0, 256, (rows, *IMAGE)).astype("uint8"),
        "tabular": random.normal(size=(rows, COLUMNS)).astype("float32"),
    }
    return x, (x["tabular"][:, 0] + random.normal(size=rows) > 0).astype(int)


def build_fusion() -> keras.Model:
    branches = {
        "image": kf.image_branch(IMAGE, units=16),
        "tabular": kf.tabular_branch(COLUMNS, units=16),
    }
    return kf.build_fusion_model(branches, task="binary", head_units=16)


def build_head(dropout: float = 0.0) -> keras.Model:
    branch = kf.embedding_branch(COLUMNS, units=16, dropout=dropout, input_name="tabular")
    return kf.build_unimodal_model(branch, task="binary", head_units=16)


def train_fusion(x, y) -> keras.Model:
    model = build_fusion()
    settings = {"validation_data": None, "epochs": EPOCHS, "batch_size": BATCH, "doctor": False}
    kf.fit(model, x, y, task="binary", **settings, verbose=0)
    return model


def of_rows(rows: int) -> None:
    train_fusion(*draw(rows))


def of_trials(trials: int) -> None:
    builders = {
        "image": partial(kf.image_branch, IMAGE),
        "tabular": partial(kf.tabular_branch, COLUMNS),
    }
    # Trials of one size: what is searched is not what a network costs.
    fixed = {"units": 16, "head_units": 16, "head_depths": 1, "fusions": "concat"}
    hypermodel = kf.FusionHyperModel(builders, task="binary", **fixed, optimizers="adam")
    with tempfile.TemporaryDirectory() as folder:
        kf.search_fusion(
            hypermodel,
            *draw(256),
            validation_data=draw(64),
            directory=folder,
            max_trials=trials,
            epochs=EPOCHS,
            verbose=0,
        )


def of_folds(folds: int) -> None:
    kf.cross_validate(train_fusion, *draw(512), task="binary", folds=folds, verbose=0)


def of_members(members: int) -> None:
    kf.fit_many(
        build_head,
        *draw(512),
        task="binary",
        members=[{"seed": number, "dropout": 0.1} for number in range(members)],
        epochs=EPOCHS,
        batch_size=BATCH,
        verbose=0,
    )


DIMENSIONS: dict[str, tuple[Callable[[int], None], tuple[int, int, int]]] = {
    "rows": (of_rows, (1000, 4000, 16000)),
    "trials": (of_trials, (2, 4, 8)),
    "folds": (of_folds, (2, 4, 8)),
    "members": (of_members, (4, 16, 64)),
}


def measure(work: Callable[[int], None], size: int) -> tuple[float, float]:
    """Seconds and CPU seconds."""
    started = time.perf_counter(), time.process_time()
    work(size)
    return time.perf_counter() - started[0], time.process_time() - started[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=DIMENSIONS, default=list(DIMENSIONS))
    arguments = parser.parse_args()
    for dimension in arguments.only:
        work, sizes = DIMENSIONS[dimension]
        measure(work, sizes[0])
        taken = {size: [] for size in sizes}
        for _ in range(arguments.repeats):
            for size in sizes:
                taken[size].append(measure(work, size))
        medians = {
            size: [statistics.median(column) for column in zip(*pairs, strict=True)]
            for size, pairs in taken.items()
        }
        for size, (seconds, cpu) in medians.items():
            smallest = medians[sizes[0]]
            result = {
                "benchmark": "growth",
                "dimension": dimension,
                "size": size,
                "times_the_smallest": size / sizes[0],
                "seconds_ratio": round(seconds / smallest[0], 2),
                "cpu_ratio": round(cpu / smallest[1], 2),
                "repeats": arguments.repeats,
                "backend": keras.backend.backend(),
                "keras": keras.version(),
            }
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
