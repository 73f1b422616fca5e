"""What heads on a frozen network cost with its features cached, against running it in each epoch.

A network with random weights, frozen, on random images beside a table. "one_head" is a head of so
many epochs, features computed within; "trials" are so many heads in turn, of which only the first
computes them. The two ways alternate, a trial of each; the first of each kind, which also warms up
TensorFlow, is not counted for "one_head". Of trials that run the network in each epoch only some
are run, and their median stands for the rest ("extrapolated" says so).

With `--augmented-views 4` images are flipped and shifted in front of the network: that many views
of each training row are cached, against augmenting and running the network in each epoch.

usage: python benchmarks/feature_cache.py [--network VGG16] [--rows 500] [--repeats 2] [--trials 20]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import kfusion as kf
from kfusion.frozen.frozen_features import IN_MEMORY

SIDE = 96


def make_data(rows: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    random = np.random.default_rng(0)
    x = {
        "image": random.integers(0, 256, (rows, SIDE, SIDE, 3), dtype=np.uint8),
        "tabular": random.normal(size=(rows, 8)).astype("float32"),
    }
    return x, (x["tabular"][:, 0] + random.normal(size=rows) > 0).astype(int)


def make_network(application: str) -> keras.Model:
    inputs = keras.Input((SIDE, SIDE, 3), name="image")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    backbone = getattr(keras.applications, application)(
        input_shape=(SIDE, SIDE, 3), include_top=False, weights=None, pooling="avg"
    )
    return keras.Model(inputs, backbone(scaled), name="network")


def sides(augmented_views: int) -> dict[str, dict]:
    """Keywords of `fit` for each way."""
    if augmented_views:
        return {"whole": {}, "cached": {"augmented_views": augmented_views}}
    return {"whole": {"feature_cache": False}, "cached": {"feature_cache": "auto"}}


def image_branch(network: keras.Model, augment: bool) -> keras.Model:
    if not augment:
        return kf.branch_from(network, dtype="uint8")
    shape = (SIDE, SIDE, 3)
    return kf.image_branch(shape, backbone=network, trainable=False, augment=True, units=16)


def run_trial(
    network, data, epochs: int, number: int, side: str, augmented_views: int
) -> dict[str, float]:
    """Seconds and CPU seconds of building and training one head."""
    x, y = data
    cut = len(y) * 4 // 5
    train, held = (
        ({name: array[part] for name, array in x.items()}, y[part])
        for part in (slice(cut), slice(cut, None))
    )
    keras.utils.set_random_seed(number)
    started, cpu = time.perf_counter(), time.process_time()
    branches = {
        "image": image_branch(network, augmented_views > 0),
        "tabular": kf.tabular_branch(8, units=16),
    }
    model = kf.build_fusion_model(branches, task="binary", head_units=16 * (1 + number % 4))
    built = time.perf_counter()
    kf.fit(
        model,
        *train,
        task="binary",
        validation_data=held,
        epochs=epochs,
        batch_size=64,
        patience=None,
        seed=number,
        doctor=False,
        verbose=0,
        **sides(augmented_views)[side],
    )
    ended = time.perf_counter()
    keras.backend.clear_session()
    gc.collect()
    return {
        "seconds": ended - started,
        "building": built - started,
        "cpu": time.process_time() - cpu,
    }


def median(trials: list[dict[str, float]], name: str = "seconds") -> float:
    return statistics.median(trial[name] for trial in trials)


def one_head(
    network, data, epochs: int, repeats: int, augmented_views: int
) -> tuple[dict, list[dict[str, float]]]:
    """Both ways in turn, with nothing known before; also returns the trials that ran all."""
    whole, cached = [], []
    for turn in range(repeats + 1):
        IN_MEMORY.clear()
        ours = run_trial(network, data, epochs, turn, "cached", augmented_views)
        if turn:
            cached.append(ours)
            whole.append(run_trial(network, data, epochs, turn, "whole", augmented_views))
    pairs = list(zip(whole, cached, strict=True))
    result = {
        "benchmark": "feature_cache",
        "what": "one_head",
        "rows": len(data[1]),
        "epochs": epochs,
        "augmented_views": augmented_views,
        "repeats": repeats,
        "seconds_whole": round(median(whole), 2),
        "seconds_cached": round(median(cached), 2),
        "ratio_of_medians": round(median(whole) / median(cached), 2),
        "paired_ratios": [round(a["seconds"] / b["seconds"], 2) for a, b in pairs],
        "cpu_whole": round(median(whole, "cpu"), 2),
        "cpu_cached": round(median(cached, "cpu"), 2),
        "cpu_ratio_of_medians": round(median(whole, "cpu") / median(cached, "cpu"), 2),
    }
    return result, whole


def many_trials(
    network, data, epochs: int, trials: int, augmented_views: int, whole: list[dict[str, float]]
) -> dict:
    """So many heads of which the first computes the features."""
    IN_MEMORY.clear()
    cached = [
        run_trial(network, data, epochs, number, "cached", augmented_views)
        for number in range(trials)
    ]
    total = sum(trial["seconds"] for trial in cached)
    total_cpu = sum(trial["cpu"] for trial in cached)
    later = cached[1:]
    return {
        "benchmark": "feature_cache",
        "what": "trials",
        "rows": len(data[1]),
        "epochs": epochs,
        "augmented_views": augmented_views,
        "trials": trials,
        "extrapolated": f"median of {len(whole)} trials that run the network, times {trials}",
        "ratio": round(trials * median(whole) / total, 2),
        "cpu_ratio": round(trials * median(whole, "cpu") / total_cpu, 2),
        "ratio_of_each_further_trial": round(median(whole) / median(later), 2),
        "seconds_first": round(cached[0]["seconds"], 2),
        "seconds_later": round(median(later), 2),
        "seconds_later_building": round(median(later, "building"), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="VGG16")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--augmented-views", type=int, default=0)
    parser.add_argument("--only-side", choices=sides(0), help="one head of this side, tell nothing")
    arguments = parser.parse_args()
    views = arguments.augmented_views
    network, data = make_network(arguments.network), make_data(arguments.rows)
    if arguments.only_side:
        run_trial(network, data, arguments.epochs, 0, arguments.only_side, views)
        return
    result, whole = one_head(network, data, arguments.epochs, arguments.repeats, views)
    print(json.dumps({"network": arguments.network, **result}), flush=True)
    result = many_trials(network, data, arguments.epochs, arguments.trials, views, whole)
    print(json.dumps({"network": arguments.network, **result}), flush=True)


if __name__ == "__main__":
    main()
