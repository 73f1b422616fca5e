"""The program of KerasTuner's guide, with its tuner's class changed and nothing else.

The guide's digits are downloaded; these come with scikit-learn. `--tuner` runs the same program
with KerasTuner's own classes.

Source: https://keras.io/keras_tuner/getting_started/

usage: python examples/keras_tuner_quick_start.py [--tuner OptunaTuner] [--trials 3] [--out my_dir]
"""

from __future__ import annotations

import argparse

import keras
import keras_tuner
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import kfusion as kf

TUNERS = {
    "OptunaTuner": kf.OptunaTuner,
    "RandomSearch": keras_tuner.RandomSearch,
    "BayesianOptimization": keras_tuner.BayesianOptimization,
}


def build_model(hp):
    model = keras.Sequential()
    model.add(layers.Flatten())
    # Tune the number of layers.
    for i in range(hp.Int("num_layers", 1, 3)):
        model.add(
            layers.Dense(
                # Tune number of units separately.
                units=hp.Int(f"units_{i}", min_value=32, max_value=512, step=32),
                activation=hp.Choice("activation", ["relu", "tanh"]),
            )
        )
    if hp.Boolean("dropout"):
        model.add(layers.Dropout(rate=0.25))
    model.add(layers.Dense(10, activation="softmax"))
    learning_rate = hp.Float("lr", min_value=1e-4, max_value=1e-2, sampling="log")
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tuner", choices=TUNERS, default="OptunaTuner")
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--out", default="my_dir")
    arguments = parser.parse_args()

    digits = load_digits()
    x, y = (
        digits.images.astype("float32")[..., None] / 16,
        keras.utils.to_categorical(digits.target),
    )
    order = np.random.default_rng(0).permutation(len(x))
    (x_train, x_val, x_test), (y_train, y_val, y_test) = (
        np.split(part[order], [1200, 1500]) for part in (x, y)
    )
    tuner = TUNERS[arguments.tuner](
        hypermodel=build_model,
        objective="val_accuracy",
        max_trials=arguments.trials,
        executions_per_trial=2,
        overwrite=True,
        directory=arguments.out,
        project_name="helloworld",
    )
    tuner.search_space_summary()
    tuner.search(x_train, y_train, epochs=2, validation_data=(x_val, y_val))
    best_model = tuner.get_best_models(num_models=2)[0]
    best_model.summary()
    tuner.results_summary()
    print("test accuracy:", best_model.evaluate(x_test, y_test, verbose=0)[1])

    # Retrain with the entire dataset.
    best_hps = tuner.get_best_hyperparameters(5)
    model = build_model(best_hps[0])
    model.fit(np.concatenate((x_train, x_val)), np.concatenate((y_train, y_val)), epochs=1)


if __name__ == "__main__":
    main()
