"""A pruner throws the deeper networks away; the study's analysis says so, and the default does not.

Two spirals need depth, but a deep network of small weights starts slowly: after a few epochs the
shallow ones are ahead. A pruner that looks then leaves a study whose most important parameter has
one value in nearly all trials, found out by hand from a histogram in the project that this replays.
Here `analyse` says it in words, and the same search without pruner, every depth tried to the end,
finds the better model. Both leave their pictures.

usage: python examples/pruning_hides_depth.py [--out pruning_hides_depth] [--trials 30]
    [--epochs 40]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np
import optuna

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
    model = keras.Sequential([keras.Input((2,))])
    for _ in range(hp.Int("z_layers", 1, 3)):
        model.add(
            keras.layers.Dense(
                hp.Choice("units", [16, 32]),
                activation="sigmoid",
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.3),
            )
        )
    model.add(keras.layers.Dense(1, activation="sigmoid"))
    rate = hp.Float("learning_rate", 5e-3, 2e-2, sampling="log")
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("pruning_hides_depth"))
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=40)
    arguments = parser.parse_args()
    train, held = two_spirals(1000, 0), two_spirals(1000, 1)

    aggressive = optuna.pruners.PercentilePruner(25.0, n_startup_trials=1)
    for name, keywords in {
        "pruned": {"pruner": aggressive},
        "default": {"min_trials_per_choice": 5},
    }.items():
        tuner = kf.OptunaTuner(
            build_model,
            "val_accuracy",
            arguments.trials,
            directory=arguments.out,
            project_name=name,
            **keywords,
        )
        tuner.search(
            *train, validation_data=held, epochs=arguments.epochs, batch_size=50, verbose=0
        )
        study = kf.analyse(tuner)
        print(f"\n=== {name} ===\n{study.summary()}")
        (best,) = tuner.oracle.get_best_trials(1)
        print(f"best: {best.score:.4f} with {best.hyperparameters.values}")
        for path in study.save_plots(arguments.out / f"{name}_pictures"):
            print(path)


if __name__ == "__main__":
    main()
