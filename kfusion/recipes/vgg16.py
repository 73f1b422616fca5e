"""A VGG16 on images beside a small network on a table, joined and held against each alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import pandas as pd

from kfusion.branches import image_branch, tabular_branch
from kfusion.data.fusion_data import FusionData
from kfusion.tasks import Task, infer_task
from kfusion.validation.baselines import (
    IMAGE,
    TABULAR,
    Builders,
    as_fusion_data,
    fused,
    network,
    single_input,
)
from kfusion.validation.comparison import Comparison, compare

IMAGE_ALONE, TABLE_ALONE, FUSED = "image alone", "table alone", "fused"
BROKEN = "sigmoid beside relu"
# Widths of the two ends as they were asked about, and of the layer behind them.
IMAGE_UNITS, TABLE_UNITS, HEAD_UNITS = 256, 128, 64
# The least side of an image that VGG16 takes.
LEAST_SIDE = 32
VALIDATION = 0.2


@dataclasses.dataclass(frozen=True, eq=False)
class ImageWithTable:
    """What an image, a table and both reach on the same folds. Made by `vgg16_with_table`.

    Attributes:
        scores: DataFrame of one row per fold and one column per candidate: the task's score (AUC or
            RMSE) of the fold's test rows.
        comparison: `Comparison` of the joined models with the better input alone.
    """

    scores: pd.DataFrame
    comparison: Comparison

    def __repr__(self) -> str:
        return f"<ImageWithTable of {len(self.scores)} folds: {self.comparison.verdict}>"

    def summary(self) -> str:
        """Scores by fold and their means, and the comparison, as text."""
        table = pd.concat([self.scores, self.scores.mean().to_frame("mean").T])
        return f"{table.round(4).to_string()}\n\n{self.comparison.summary()}"


def vgg16_with_table(
    data_or_x: Any,
    y: Any = None,
    *,
    backbone: str = "VGG16",
    weights: str | None = None,
    trainable: bool = True,
    fusion: str | keras.layers.Layer = "concat",
    with_broken_join: bool = False,
    groups: Any = None,
    folds: Any = 5,
    n_jobs: int = 1,
    seed: int = 0,
    verbose: int | bool = 1,
    **keywords: Any,
) -> ImageWithTable:
    """Cross-validates an image network, a table network and both joined, on the same folds.

    The features of both are batch-normalised and rectified before they are joined, 256 of the
    image and 128 of the table, so that they lie in one range; a layer of 64 follows. Early stopping
    looks at a fifth of each fold's training rows, never at its test rows, and scores are exact over
    whole folds: an AUC is no mean over batches.

    Args:
        data_or_x: `FusionData`; or a dict of "image", `(rows, height, width, channels)` uint8, and
            "tabular", `(rows, columns)` numbers, NaN where missing.
        y: `(rows,)` labels from 0 or values, beside a dict.
        backbone: As of `kfusion.image_branch`: any network of `keras.applications`, or "conv".
        weights: None for random ones, "imagenet" (downloaded by Keras), or a file.
        trainable: Whether the backbone is fine-tuned; if not, it runs in inference mode.
        fusion: Name of a fusion, or a Keras layer. "multiply", "weighted" and "gated" have a
            learned parameter that weighs the inputs.
        with_broken_join: Whether to add the join as it was asked about, which fell below the image
            alone: the same networks ending in 256 sigmoid and 128 relu units, side by side.
        groups: `(rows,)` values beside a dict: rows that share one stay in one fold.
        folds: As of `kfusion.compare`.
        n_jobs: Int, folds at once.
        seed: Int.
        verbose: 0 hides the progress.
        **keywords: For `kfusion.fit`, such as `epochs`, `patience` or `balanced_batches`.

    Returns:
        `ImageWithTable`. Images smaller than 32 x 32 are enlarged inside the model for an
        application.

    Raises:
        TypeError: If `y` or `groups` is given beside FusionData, which has both.
        TypeError, ValueError, RuntimeError: As of `kfusion.compare` and `image_branch`.
    """
    data = data_or_x
    if isinstance(data, FusionData):
        if y is not None or groups is not None:
            given = "y" if y is not None else "groups"
            raise TypeError(f"`{given}` goes beside a dict: FusionData brings its own.")
    else:
        data = as_fusion_data(data, np.asarray(y), task=infer_task(y), groups=groups)
    branches = partial(_branch_builders, backbone=backbone, weights=weights, trainable=trainable)
    settings = {"branches": branches, "validation": VALIDATION, **keywords}
    candidates: dict[str, Callable] = {FUSED: fused(fusion, **settings)}
    if with_broken_join:
        candidates[BROKEN] = network(_build_broken_join, **settings)
    comparison = compare(
        candidates,
        data,
        single_inputs={
            IMAGE_ALONE: single_input(IMAGE, **settings),
            TABLE_ALONE: single_input(TABULAR, **settings),
        },
        folds=folds,
        n_jobs=n_jobs,
        seed=seed,
        verbose=verbose,
    )
    scores = pd.DataFrame(
        {name: result.scores() for name, result in comparison.results.items()}
    ).rename_axis("fold")
    return ImageWithTable(scores, comparison)


def _branch_builders(
    train: FusionData, *, backbone: str, weights: str | None, trainable: bool
) -> dict[str, Callable[..., keras.Model]]:
    sides = train.image_shape[:2]
    enlarged = (max(sides[0], LEAST_SIDE), max(sides[1], LEAST_SIDE))
    return {
        IMAGE: partial(
            image_branch,
            train.image_shape,
            backbone=backbone,
            weights=weights,
            trainable=trainable,
            units=IMAGE_UNITS,
            resize=None if backbone == "conv" or enlarged == sides else enlarged,
        ),
        TABULAR: partial(tabular_branch, train.schema, units=TABLE_UNITS),
    }


def _build_broken_join(builders: Builders, *, task: Task) -> keras.Model:
    """The same networks up to their ends, and behind them layers of plain Keras, as asked about."""
    dense = keras.layers.Dense
    branches = {key: build() for key, build in builders.items()}
    # Each branch ends in its one normalised layer: what that takes is what the network gives.
    image, table = (branches[key].layers[-1].input for key in (IMAGE, TABULAR))
    img_output = dense(IMAGE_UNITS, activation="sigmoid")(image)
    numeric_output = dense(TABLE_UNITS, activation="relu")(table)
    concat = keras.layers.Concatenate()([img_output, numeric_output])
    hidden = dense(HEAD_UNITS, activation="relu")(concat)
    main_output = dense(task.units, activation=task.activation, name="main_output")(hidden)
    inputs = {key: branch.input for key, branch in branches.items()}
    return keras.Model(inputs, main_output, name="sigmoid_beside_relu")
