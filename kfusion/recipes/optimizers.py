"""Optimizers on one network with and without dropout: what they reach, and what their loss is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kfusion.doctor.examination import examine
from kfusion.doctor.findings import Diagnosis
from kfusion.optimizers import make_optimizer
from kfusion.plots import PAGE_WIDTH
from kfusion.search.study_plots import PANEL_HEIGHT, plot_learning_curves
from kfusion.tasks import task as make_task

OPTIMIZERS = ("Adagrad", "Adadelta", "RMSprop", "Adam", "Nadam")
# Keras' "l2" is 0.01: with a thousand units a layer the penalty is most of the loss.
L2, BROKEN_L2 = 1e-5, 0.01
WITH_DROPOUT = {False: "", True: " with dropout"}


@dataclasses.dataclass(frozen=True, eq=False)
class OptimizerStudy:
    """What each optimizer reached. Made by `optimizer_study`.

    Attributes:
        table: DataFrame of one row per run: "optimizer", "dropout", "learning_rate",
            "train_accuracy", "test_accuracy" and "loss" at the end, all in inference mode, and
            "penalty_share", which share of that loss is L2 penalty on the weights. Where accuracy
            is low and the share large, the loss falls because weights shrink, not because anything
            is learned.
        diagnoses: `Diagnosis` of each run by name, its history looked at too.
        histories: By run, values of each epoch: "loss" (with the penalty), "accuracy" and, of the
            test rows, "val_loss" and "val_accuracy".
    """

    table: pd.DataFrame
    histories: dict[str, dict[str, list[float]]]
    diagnoses: dict[str, Diagnosis]

    def plot(self) -> Figure:
        """Draws accuracy and loss by epoch, of test rows (full) and training rows (dashed)."""
        settings = list(self.table["dropout"].unique())
        figure = Figure(
            figsize=(PAGE_WIDTH, 1.4 * PANEL_HEIGHT * len(settings)), dpi=200, layout="constrained"
        )
        axes = figure.subplots(len(settings), 2, squeeze=False)
        for dropout, row in zip(settings, axes, strict=True):
            shown = self.table.loc[self.table["dropout"] == dropout, "optimizer"]
            histories = {name: self.histories[name + WITH_DROPOUT[dropout]] for name in shown}
            for ax, metric in zip(row, ("val_accuracy", "val_loss"), strict=True):
                plot_learning_curves(histories, metric, ax=ax)
            row[0].set_title("with dropout" if dropout else "without dropout")
            row[1].set_yscale("log")
        return figure


def optimizer_study(
    x_train: Any,
    y_train: Any,
    x_test: Any,
    y_test: Any,
    *,
    optimizers: Sequence[str] = OPTIMIZERS,
    dropout: Sequence[bool] = (False, True),
    units: int = 1000,
    epochs: int = 200,
    batch_size: int = 128,
    l2: float = L2,
    broken: bool = False,
    seed: int = 0,
    verbose: int | bool = 0,
) -> OptimizerStudy:
    """Trains one network with several optimizers, with and without dropout, from the same start.

    Test rows are looked at after every epoch but choose nothing: no stop, no best weights.

    Args:
        x_train: `(rows, height, width[, channels])` pixels in 0-255.
        y_train: `(rows,)` or `(rows, 1)` labels from 0.
        x_test: As `x_train`.
        y_test: As `y_train`.
        optimizers: Names of Keras optimizers. Each has the rate at which it trains small networks
            (`kfusion.optimizers.LEARNING_RATES`).
        dropout: Of the two networks, which ones; see `build_perceptron`.
        units: Int, width of the hidden layers.
        epochs: Int.
        batch_size: Int.
        l2: Float, penalty on the kernels of the network without dropout.
        broken: Whether to train as was asked about: pixels in 0-255 as they are, an L2 penalty of
            0.01 and each optimizer at Keras' own rate, 0.001 for all five, at which Adadelta and
            Adagrad hardly move.
        seed: Int, of the initial weights, the order of the rows and the dropout of every run.
        verbose: As of `keras.Model.fit`.

    Returns:
        `OptimizerStudy`.

    Raises:
        ValueError: If pixels are not in 0-255 or an optimizer is unknown.
    """
    train, test = (_rows(x_train, y_train), _rows(x_test, y_test))
    num_classes = int(train[1].max()) + 1
    table, histories, diagnoses = [], {}, {}
    for with_dropout in dropout:
        for name in optimizers:
            keras.utils.set_random_seed(seed)
            model = build_perceptron(
                train[0].shape[1:],
                num_classes,
                units=units,
                dropout=with_dropout,
                l2=BROKEN_L2 if broken else l2,
                scaled=not broken,
            )
            # Anew for each model: an optimizer holds moments of the weights it was made for.
            optimizer = (
                keras.optimizers.get(name) if broken else make_optimizer(name, None, 1, None)
            )
            model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
            history = model.fit(
                *train,
                epochs=epochs,
                batch_size=batch_size,
                validation_data=test,
                verbose=int(verbose),
            )
            run = name + WITH_DROPOUT[with_dropout]
            histories[run] = history.history
            diagnoses[run] = examine(
                model,
                *train,
                task=make_task("multiclass", y=train[1]),
                validation_data=test,
                history=history,
                batch_size=batch_size,
                epochs=epochs,
                seed=seed,
            )
            table.append({"optimizer": name, "dropout": with_dropout, **_judge(model, train, test)})
    return OptimizerStudy(pd.DataFrame(table), histories, diagnoses)


def build_perceptron(
    image_shape: Sequence[int],
    num_classes: int,
    *,
    units: int = 1000,
    dropout: bool = False,
    l2: float = L2,
    scaled: bool = True,
) -> keras.Sequential:
    """Two hidden layers and a softmax on all pixels of an image.

    Args:
        image_shape: `(height, width[, channels])`.
        num_classes: Int.
        units: Int, width of the hidden layers.
        dropout: Whether a fifth of the pixels and half of each hidden layer are dropped in
            training, instead of an L2 penalty. Dropout stands in front of the layer whose input
            it thins; He's initial weights suit it, and Keras scales what is left by itself.
        l2: Float, penalty on the hidden layers' kernels.
        scaled: Whether pixels are brought from 0-255 to 0-1 first.

    Returns:
        `keras.Sequential`, uncompiled.
    """
    layers = keras.layers

    def hidden() -> keras.layers.Layer:
        penalty = None if dropout else keras.regularizers.L2(l2)
        return layers.Dense(
            units, activation="relu", kernel_regularizer=penalty, kernel_initializer="he_normal"
        )

    drops = [[layers.Dropout(rate)] if dropout else [] for rate in (0.2, 0.5, 0.5)]
    return keras.Sequential(
        [
            keras.Input(tuple(image_shape)),
            *([layers.Rescaling(1 / 255)] if scaled else []),
            layers.Flatten(),
            *drops[0],
            hidden(),
            *drops[1],
            hidden(),
            *drops[2],
            layers.Dense(num_classes, activation="softmax", name="output"),
        ],
        name="perceptron",
    )


def _rows(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.asarray(x, np.float32)
    if not (pixels.min() >= 0 and 1 < pixels.max() <= 255):
        raise ValueError(
            f"Pixels must lie in 0-255. Received: values from {pixels.min():g} to {pixels.max():g}."
        )
    return pixels, np.asarray(y).reshape(-1)


def _judge(model: keras.Model, train: tuple, test: tuple) -> dict[str, float]:
    loss, train_accuracy = model.evaluate(*train, batch_size=1024, verbose=0)
    _, test_accuracy = model.evaluate(*test, batch_size=1024, verbose=0)
    penalty = sum(float(each) for each in model.losses)
    return {
        "learning_rate": float(model.optimizer.learning_rate),
        "train_accuracy": train_accuracy,
        "test_accuracy": test_accuracy,
        "loss": loss,
        "penalty_share": penalty / loss,
    }
