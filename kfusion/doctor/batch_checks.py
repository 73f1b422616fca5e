"""Checks of batches: too small to normalise by, and answers that depend on the other rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from kfusion.doctor.case import Case
from kfusion.doctor.drawn_rows import FEW_ROWS, sample_rows
from kfusion.doctor.findings import Finding, Undecided
from kfusion.doctor.graph import layers_in
from kfusion.doctor.model_runs import numbers, run, untouched
from kfusion.doctor.undecided import decides

MIN_BATCH = 8
MAX_SHARE_OF_START = 0.05
# Of the largest output: what rounding in products of matrices of other sizes may differ by.
TOLERANCE = 1e-3


@decides("rows_depend_on_each_other")
def check_rows_are_independent(case: Case) -> Iterator[Finding | Undecided]:
    """Whether an answer at inference depends on chance or on the batch that a row is in."""
    inputs, _ = sample_rows(case, FEW_ROWS)
    count = len(next(iter(inputs.values())))
    order = np.r_[0, 1 + np.random.default_rng(case.seed).permutation(count - 1)]
    # In one scope: in another, random layers would start from the same seed again.
    with untouched(case.model):

        def answers(rows):
            batch = {name: array[rows] for name, array in inputs.items()}
            return _flat(run(case.model, batch))

        together, again = answers(np.arange(count)), answers(np.arange(count))
        largest = max(float(np.abs(together).max()), 1e-6)
        if not np.isfinite(together).all():
            return
        if (change := float(np.abs(together - again).max())) > TOLERANCE * largest:
            yield Finding(
                "random_at_inference",
                "error",
                case.model.name,
                f"the same rows predicted twice differ by up to {change:.3g}; the largest output "
                f"is {largest:.3g}",
                "scores are drawn by chance, and what is served is not what was judged",
                "noise and dropout only where `training` is true: keras.layers.Dropout in place of "
                "keras.random in `call`",
                {"difference": change},
            )
            return
        alone = float(np.abs(answers(np.arange(1)) - together[:1]).max())
        permuted = float(np.abs(answers(order)[:1] - together[:1]).max())
    change = max(alone, permuted)
    if change > TOLERANCE * largest:
        yield Finding(
            "rows_depend_on_each_other",
            "error",
            case.model.name,
            f"row 0 changes by {alone:.3g} when it is predicted alone and by {permuted:.3g} among "
            f"the same {count - 1} rows in another order; the largest output is {largest:.3g}",
            "a row's answer depends on what it is served with, and scores on the batch size",
            "layers that work on each row: no softmax, mean or attention over axis 0, no batch "
            "statistics at inference",
            {"alone": alone, "permuted": permuted},
        )


@decides("batches_of_normalization")
def check_batches(case: Case) -> Iterator[Finding | Undecided]:
    """BatchNormalization against the size of batches and the number of steps."""
    layers = [layer for layer in layers_in(case.model) if _normalizes_by_batch(layer)]
    if not layers:
        return
    rows, size = len(case.train), case.batch_size
    if size < MIN_BATCH:
        yield Finding(
            "small_batch_for_normalization",
            "warning",
            layers[0].name,
            f"{len(layers)} BatchNormalization layer(s) and batches of {size} rows",
            "the mean and variance of so few rows are noise, and differ from those at inference",
            "model.fit(..., batch_size=32), or keras.layers.LayerNormalization",
            {"batch_size": size, "layers": len(layers)},
        )
    elif rows % size == 1:
        yield Finding(
            "last_batch_of_one_row",
            "warning",
            layers[0].name,
            f"{rows} rows in batches of {size}: the last has 1 row, and there are {len(layers)} "
            "BatchNormalization layer(s)",
            "the variance of one row is 0: every feature of it is 0, and the moving variance is "
            "drawn towards 0 in each epoch",
            f"model.fit(..., batch_size={size + 1 if rows % (size + 1) != 1 else size + 2})",
            {"rows": rows, "batch_size": size},
        )
    yield from _judge_momentum(case, layers)


def _judge_momentum(
    case: Case, layers: list[keras.layers.BatchNormalization]
) -> Iterator[Finding | Undecided]:
    if case.epochs is None:
        yield Undecided("statistics_of_the_start", "the number of epochs is not known")
        return
    steps = case.epochs * math.ceil(len(case.train) / case.batch_size)
    slowest = max(layers, key=lambda layer: layer.momentum)
    share = float(slowest.momentum) ** steps
    if share > MAX_SHARE_OF_START:
        enough = max(0.5, round(MAX_SHARE_OF_START ** (4 / steps), 2))
        yield Finding(
            "statistics_of_the_start",
            "warning",
            slowest.name,
            f"momentum {slowest.momentum:g} over {steps} steps: {share:.0%} of the moving mean and "
            "variance are still the 0 and 1 that they start at",
            "the model predicts with other statistics than it was trained with: validation looks "
            "bad while training looks good",
            f"keras.layers.BatchNormalization(momentum={enough:g})",
            {"momentum": slowest.momentum, "steps": steps, "share": share},
        )


def _normalizes_by_batch(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization) and layer.trainable


def _flat(outputs: Mapping[str, Any]) -> np.ndarray:
    """`(rows, values)` of all outputs."""
    parts = map(numbers, outputs.values())
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


CHECKS = (check_rows_are_independent, check_batches)
