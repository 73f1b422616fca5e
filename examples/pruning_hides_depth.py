"""A pruner throws the deeper networks away; the study's analysis says so, and `depth_study` does not.

Two spirals need depth, but a deep network of small weights starts slowly: after a few epochs the
shallow ones are ahead. A pruner that looks then leaves a study whose most important parameter has
one value in nearly all trials, found out by hand from a histogram in the project that this replays.

usage: python examples/pruning_hides_depth.py [--out pruning_hides_depth] [--trials 30]
    [--epochs 40] [--jobs 1]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np

import kfusion as kf


def two_spirals(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of two spirals that turn around each other once."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, rows)
    turn = np.sqrt(random.uniform(0.02, 1, rows))
    angle = 2 * np.pi * turn + np.pi * y
    x = 2 * turn[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (x + random.normal(scale=0.03, size=x.shape)).astype("float32"), y


def build_model(hp):
    layers, start = keras.layers, keras.initializers.RandomNormal(stddev=0.3)
    model = keras.Sequential([keras.Input((2,))])
    for _ in range(hp.Int("z_layers", 1, 3)):
        units = hp.Choice("units", [16, 32])
        model.add(layers.Dense(units, activation="sigmoid", kernel_initializer=start))
    model.add(layers.Dense(1, activation="sigmoid"))
    rate = hp.Float("learning_rate", 5e-3, 2e-2, sampling="log")
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("pruning_hides_depth"))
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=1, help="processes that search at once")
    arguments = parser.parse_args()
    for aggressive in (True, False):
        study = kf.recipes.depth_study(
            build_model,
            *two_spirals(1000, 0),
            validation_data=two_spirals(1000, 1),
            directory=arguments.out,
            max_trials=arguments.trials,
            epochs=arguments.epochs,
            aggressive_pruning=aggressive,
            n_jobs=arguments.jobs,
            batch_size=50,
        )
        print(f"\n=== {'pruned' if aggressive else 'explored'} ===\n{study.summary()}")


if __name__ == "__main__":
    main()
