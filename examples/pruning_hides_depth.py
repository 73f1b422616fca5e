"""A pruner throws the deeper networks away; the study's analysis says so, the default does not.

Two spirals need depth, but a deep network of small weights starts slowly: after a few epochs the
shallow ones are ahead. A pruner that looks then leaves a study whose most important parameter has
one value in nearly all trials, found out by hand from a histogram in the project replayed here.

usage: python examples/pruning_hides_depth.py [--out DIR] [--trials 30] [--epochs 40] [--jobs 1]
"""

import argparse

import keras
import numpy as np

import kfusion as kf


def two_spirals(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    y, turn = random.integers(0, 2, rows), np.sqrt(random.uniform(0.02, 1, rows))
    angle = 2 * np.pi * turn + np.pi * y
    x = 2 * turn[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (x + random.normal(scale=0.03, size=x.shape)).astype("float32"), y


def build_model(hp):
    dense, start = keras.layers.Dense, keras.initializers.RandomNormal(stddev=0.3)
    model = keras.Sequential([keras.Input((2,))])
    for _ in range(hp.Int("z_layers", 1, 3)):
        model.add(dense(hp.Choice("units", [16, 32]), "sigmoid", kernel_initializer=start))
    model.add(dense(1, activation="sigmoid"))
    rate = hp.Float("learning_rate", 5e-3, 2e-2, sampling="log")
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="pruning_hides_depth")
    for name, default in {"trials": 30, "epochs": 40, "jobs": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    for aggressive in (True, False):
        study = kf.recipes.depth_study(
            build_model,
            *two_spirals(1000, 0),
            validation_data=two_spirals(1000, 1),
            aggressive_pruning=aggressive,
            directory=given.out,
            max_trials=given.trials,
            epochs=given.epochs,
            n_jobs=given.jobs,
            batch_size=50,
        )
        print(f"\naggressive pruning: {aggressive}\n{study.summary()}")


if __name__ == "__main__":
    main()
