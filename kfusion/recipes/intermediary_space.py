"""An image and its edges, each through a small AlexNet, joined, searched and trained for longer."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner

from kfusion.layers import EdgeMagnitude
from kfusion.models.prediction import evaluate
from kfusion.optimizers import StepDecay
from kfusion.search.analysis import StudyAnalysis, analyse
from kfusion.search.refitting import refit
from kfusion.search.tuner import OptunaTuner
from kfusion.tasks import Task
from kfusion.training.compiling import compile_model
from kfusion.training.fitting import fit
from kfusion.training.overfitting import OverfitGapStopping, overfit_score

IMAGE, EDGES = "image", "edges"
# Filters in units of the layer size, kernel, whether a pooling follows, share of the dropout.
IMAGE_STAGES = ((2, 11, True, 0.2), (2, 5, True, 0.4), (2, 3, False, 0.6), (1, 3, True, 0.0))
EDGE_STAGES = ((2, 11, True, 0.4), (2, 5, True, 0.6), (1, 3, True, 0.0))
FLAT_SHARE = 0.8
LEAST_SIDE = 63
SEARCH_RATE, FINAL_RATE = 1e-3, 1e-4
DECAY_EPOCHS, FINAL_DECAY = 100, 0.5
OVERFIT_EPOCHS = 3
# What is picked after the search.
PICKED = ("layer_size", "dropout", "l2", "decay_factor", "learning_rate")


def build_intermediary_space(
    image_shape: Sequence[int],
    edge_shape: Sequence[int] | None,
    layer_size: int,
    dropout: float,
    num_classes: int,
    *,
    l2: float = 0.0,
    resize: tuple[int, int] | None = None,
    name: str = "intermediary_space",
) -> keras.Model:
    """Builds the network of an image and its edges: two convolutional towers and three layers.

    With S the layer size, each tower ends in 2 S features; both are rectified side by side, and
    layers of 3 S, S and `num_classes` follow. Sides shrink as PyTorch's do: `(n + 4 - 11) // 4 + 1`
    in the first convolution, `(n - 3) // 2 + 1` in each pooling. An image of 224 comes to 55, 27,
    13 and 6: there `nn.Linear(S * 7 * 7, S * 2)` of the image tower's original fails. It is right
    for sides of 255 to 286, and `nn.Linear(S * 6 * 6, S * 2)` of the edges for 223 to 254, so both
    were images of 256 beside edges of 224, or the like. Here the width follows from the sides.
    Flattened maps are in the order of height, width, channels; the start is Keras' own.

    Args:
        image_shape: `(height, width, channels)` of the input "image", uint8.
        edge_shape: `(height, width, 1)` of the input "edges", uint8; None makes them of the
            image, by `kfusion.layers.EdgeMagnitude`.
        layer_size: Int, S.
        dropout: Float in [0, 1), the main rate, in front of the last three layers; 0.2, 0.4, 0.6
            and 0.8 of it in the towers.
        num_classes: Int.
        l2: Float, penalty on all kernels.
        resize: `(height, width)` to bring images and edges to: at least 63 x 63.
        name: Name of the model.

    Returns:
        Uncompiled `keras.Model` from a dict of inputs to `(rows, num_classes)` probabilities.

    Raises:
        ValueError: If a side is below 63, of which the last pooling leaves nothing.
    """
    image = keras.Input(tuple(image_shape), dtype="uint8", name=IMAGE)
    inputs = {IMAGE: image}
    maps = {IMAGE: keras.layers.Rescaling(1 / 255, name="pixels")(image)}
    if edge_shape is None:
        maps[EDGES] = EdgeMagnitude(name="edges_of_image")(image)
    else:
        inputs[EDGES] = keras.Input(tuple(edge_shape), dtype="uint8", name=EDGES)
        maps[EDGES] = keras.layers.Rescaling(1 / 255, name="edge_pixels")(inputs[EDGES])
    penalty = keras.regularizers.L2(l2) if l2 else None
    ends = []
    for key, stages in ((IMAGE, IMAGE_STAGES), (EDGES, EDGE_STAGES)):
        given = maps[key]
        if resize is not None:
            given = keras.layers.Resizing(*resize, name=f"{key}_resize")(given)
        if min(given.shape[1:3]) < LEAST_SIDE:
            raise ValueError(
                f"Sides must be {LEAST_SIDE} or more. Received: {key} of {given.shape[1]} x "
                f"{given.shape[2]}; pass `resize=({LEAST_SIDE}, {LEAST_SIDE})` or more."
            )
        ends.append(_tower(given, key, stages, layer_size, dropout, penalty))
    hidden = keras.layers.Concatenate(name="joined")(ends)
    for i, units in enumerate((3 * layer_size, layer_size, num_classes)):
        hidden = keras.layers.ReLU(name=f"relu_{i + 1}")(hidden)
        hidden = keras.layers.Dropout(dropout, name=f"dropout_{i + 1}")(hidden)
        hidden = keras.layers.Dense(units, kernel_regularizer=penalty, name=f"dense_{i + 1}")(
            hidden
        )
    prediction = keras.layers.Softmax(dtype="float32", name="prediction")(hidden)
    return keras.Model(inputs, prediction, name=name)


def _tower(maps, key: str, stages, layer_size: int, dropout: float, penalty):
    layers = keras.layers
    for i, (filters, kernel, pools, share) in enumerate(stages, 1):
        if i == 1:
            maps = layers.ZeroPadding2D(2, name=f"{key}_padding")(maps)
        maps = layers.Conv2D(
            filters * layer_size,
            kernel,
            strides=4 if i == 1 else 1,
            padding="valid" if i == 1 else "same",
            activation="relu",
            kernel_regularizer=penalty,
            name=f"{key}_conv_{i}",
        )(maps)
        if pools:
            maps = layers.MaxPooling2D(3, strides=2, name=f"{key}_pool_{i}")(maps)
        if share:
            maps = layers.Dropout(share * dropout, name=f"{key}_dropout_{i}")(maps)
    flat = layers.Flatten(name=f"{key}_flat")(maps)
    flat = layers.Dropout(FLAT_SHARE * dropout, name=f"{key}_dropout_flat")(flat)
    return layers.Dense(2 * layer_size, kernel_regularizer=penalty, name=f"{key}_dense")(flat)


class IntermediarySpace(keras_tuner.HyperModel):
    """The space of `build_intermediary_space`: layer size 8-28, dropout 0.3-0.7, decay, L2.

    The learning rate of Adam, 0.001 at first, is multiplied by 0.3-0.8 every 100 epochs; L2 is
    1e-4 to 0.1. A trial counts by its last epoch, where `OverfitGapStopping` has stopped it.

    Args:
        image_shape: As of `build_intermediary_space`.
        edge_shape: The same.
        task: `Task` of several classes.
        resize: As of `build_intermediary_space`.
        chance: Float, what guessing reaches: see `kfusion.overfit_score`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        edge_shape: Sequence[int] | None,
        *,
        task: Task,
        resize: tuple[int, int] | None = None,
        chance: float | None = None,
    ):
        super().__init__()
        if task.kind != "multiclass":
            raise ValueError(f'`task` must be "multiclass". Received: {task.kind!r}.')
        self.image_shape = tuple(image_shape)
        self.edge_shape = None if edge_shape is None else tuple(edge_shape)
        self.task = task
        self.resize = resize
        self.chance = 1 / len(task.class_names) if chance is None else chance

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Builds and compiles the model of one trial; called by the tuner."""
        model = build_intermediary_space(
            self.image_shape,
            self.edge_shape,
            hp.Int("layer_size", 8, 28, default=18),
            hp.Float("dropout", 0.3, 0.7, default=0.5),
            self.task.units,
            l2=hp.Float("l2", 1e-4, 1e-1, sampling="log", default=3e-3),
            resize=self.resize,
        )
        hp.Float("decay_factor", 0.3, 0.8, default=0.55)
        compile_model(model, task=self.task, learning_rate=hp.Fixed("learning_rate", SEARCH_RATE))
        return model

    def fit(self, hp, model, x, y=None, **keywords: Any) -> dict[str, float]:
        """Trains the model of one trial; called by the tuner."""
        history = fit(
            model,
            x,
            y,
            task=self.task,
            learning_rate=hp.get("learning_rate"),
            learning_rate_schedule=StepDecay(hp.get("decay_factor"), DECAY_EPOCHS),
            patience=None,
            doctor=False,
            **keywords,
        ).history
        last = {name: values[-1] for name, values in history.items()}
        score = overfit_score(last["accuracy"], last["val_accuracy"], chance=self.chance)
        return {**last, "score": score}


@dataclasses.dataclass(frozen=True, eq=False)
class IntermediarySpaceStudy:
    """A search and the training that followed. Made by `intermediary_space`.

    Attributes:
        tuner: `OptunaTuner`.
        analysis: `StudyAnalysis`.
        picked: The values trained with.
        model: The trained `keras.Model`, with the weights of its best epoch on validation rows.
        scores: By "train", "validation" and, if there are any, "test": the model's scores.
        best_trial_scores: The same of the best trial's model.
    """

    tuner: OptunaTuner
    analysis: StudyAnalysis
    picked: dict[str, Any]
    model: keras.Model
    scores: dict[str, dict[str, float]]
    best_trial_scores: dict[str, dict[str, float]]


def intermediary_space(
    x: Mapping[str, Any],
    y: Any,
    *,
    task: Task,
    validation_data: tuple[Mapping[str, Any], Any],
    test_data: tuple[Mapping[str, Any], Any] | None = None,
    directory: str | os.PathLike,
    max_trials: int = 50,
    epochs: int = 50,
    final_epochs: int = 500,
    final_batch_size: int = 512,
    picked: Mapping[str, Any] | None = None,
    resize: tuple[int, int] | None = None,
    chance: float | None = None,
    n_jobs: int = 1,
    seed: int = 0,
    verbose: int | bool = 1,
) -> IntermediarySpaceStudy:
    """Searches the network of an image and its edges, picks values, and trains it for longer.

    A trial ends when training accuracy minus validation accuracy has grown three epochs running,
    and counts by `kfusion.overfit_score` of that moment. The final training takes the larger layer
    size of the two best trials and the means of their dropout and L2, starts at a tenth of the
    rate, 0.0001, and halves it every 100 epochs. Curves and hyperparameters of all trials are in
    `directory`/logs for TensorBoard, pictures in `directory`/pictures.

    Args:
        x: Dict of "image", `(rows, height, width, channels)` uint8, and maybe "edges", `(rows,
            height, width, 1)` uint8; without these, edges are made of the images.
        y: `(rows,)` labels from 0.
        task: `Task` of several classes.
        validation_data: `(x, y)` of the rows that judge trials and epochs.
        test_data: `(x, y)` of rows that choose nothing.
        directory: Folder; a search that was stopped goes on there.
        max_trials: Int.
        epochs: Int, the most of a trial.
        final_epochs: Int.
        final_batch_size: Int.
        picked: Values in place of those picked, by name: "layer_size", "dropout", "l2",
            "decay_factor", "learning_rate".
        resize: As of `build_intermediary_space`.
        chance: Float, what guessing reaches, for the score; by default one over the number of
            classes. The original took 0.5 for four classes: below that accuracy, a model scores
            the better the more it overfits.
        n_jobs: Int, processes that search at once.
        seed: Int.
        verbose: 0 hides the progress.

    Returns:
        `IntermediarySpaceStudy`.

    Raises:
        ValueError: If `picked` holds other names: lists them.
        TypeError, ValueError, RuntimeError: As of `build_intermediary_space`, `OptunaTuner` and
            `fit`.
    """
    if unknown := sorted(set(picked or {}) - set(PICKED)):
        raise ValueError(f"`picked` must hold values of {list(PICKED)}. Received also: {unknown}.")
    shapes = {key: x[key].shape[1:] for key in (IMAGE, EDGES) if key in x}
    tuner = OptunaTuner(
        IntermediarySpace(
            shapes[IMAGE], shapes.get(EDGES), task=task, resize=resize, chance=chance
        ),
        keras_tuner.Objective("score", "max"),
        max_trials,
        directory=os.fspath(directory),
        project_name="search",
        log_dir=Path(directory) / "logs",
        seed=seed,
    )
    rows: dict[str, Any] = {"validation_data": validation_data, "verbose": int(verbose)}
    stop = OverfitGapStopping(patience=OVERFIT_EPOCHS)
    tuner.search(x, y, epochs=epochs, callbacks=[stop], n_jobs=n_jobs, **rows)
    analysis = analyse(tuner)
    analysis.save_plots(Path(directory) / "pictures", class_names=task.class_names)
    values = _between_the_two_best(tuner)
    values.values.update(picked or {})
    model = refit(
        tuner,
        x,
        y,
        epochs=final_epochs,
        batch_size=final_batch_size,
        hyperparameters=values,
        **rows,
    )
    judged = {"train": (x, y), "validation": validation_data, "test": test_data}
    (best,) = tuner.get_best_models(1)
    scores = [
        {name: evaluate(each, *data, task=task) for name, data in judged.items() if data}
        for each in (model, best)
    ]
    return IntermediarySpaceStudy(tuner, analysis, dict(values.values), model, *scores)


def _between_the_two_best(tuner: OptunaTuner) -> keras_tuner.HyperParameters:
    found = tuner.get_best_hyperparameters(2)
    first, second = found[0], found[-1]
    picked = first.copy()
    picked.values["layer_size"] = max(first.get("layer_size"), second.get("layer_size"))
    for name in ("dropout", "l2"):
        picked.values[name] = (first.get(name) + second.get(name)) / 2
    picked.values["decay_factor"], picked.values["learning_rate"] = FINAL_DECAY, FINAL_RATE
    return picked
