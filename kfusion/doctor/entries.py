"""What of an input reaches the first layer that learns from it, after the model's own scaling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from kfusion.doctor.drawn_rows import few_rows
from kfusion.doctor.layer_calls import NORMALIZING, calls, digests, own_weights, rolled
from kfusion.doctor.model_runs import numbers

# Root mean square from which numbers are far from unit scale, and far enough to stop learning.
LARGE, VERY_LARGE = 20.0, 50.0
# Standard deviation below which images hardly differ for a layer that starts at random.
FLAT = 0.02


class Entry(NamedTuple):
    """The first layer with weights that an input reaches.

    Attributes:
        layer: The layer.
        values: `(rows, ..., columns)` float64, what it is given of this input; of a table the
            columns that come from it.
        normalizer: The layer itself or the next one that learns, if that normalises; else None.
        normalized: What enters the normaliser, or None.
    """

    layer: Any
    values: np.ndarray
    normalizer: Any = None
    normalized: np.ndarray | None = None

    @property
    def root_mean_square(self) -> float:
        """Of `values`."""
        return root_mean_square(self.values)

    @property
    def is_normalized(self) -> bool:
        """Whether the scale of what enters does not matter: it is divided out before it counts."""
        return self.normalizer is not None


def root_mean_square(values: np.ndarray) -> float:
    """Over all finite values, 0 if there are none."""
    finite = values[np.isfinite(values)].astype(np.float64)
    return float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0


def find_entry(
    model: keras.Model, x: Mapping[str, np.ndarray], name: str, seed: int = 0
) -> Entry | None:
    """Finds by running the model where an input first meets weights.

    Layers that an input reaches are those given something else when its rows are exchanged.
    Embeddings are passed over: codes have no scale.

    Args:
        model: Any `keras.Model`.
        x: Arrays `(rows, ...)` by the name of the input.
        name: Of the input.
        seed: Int, of the draw of rows.

    Returns:
        `Entry`, or None if the input reaches no such layer.

    Raises:
        UndecidableError: If the model does not run on these rows.
    """
    positions = few_rows(x, 64, seed)
    batch = {key: array[positions] for key, array in x.items()}
    others = rolled(batch, name)
    before, after = digests(model, batch), digests(model, others)
    reached = [number for number in before if before[number] != after.get(number)]
    found = calls(model, batch, set(reached))
    learning = [
        number
        for number in reached
        if (
            own_weights(found[number].operation) or isinstance(found[number].operation, NORMALIZING)
        )
        and "Embedding" not in type(found[number].operation).__name__
    ]
    if not learning:
        return None
    first = found[learning[0]]
    changed = calls(model, others, {learning[0]})[learning[0]]
    values = _what_changes(first.tensors[0], changed.tensors[0])
    following = [first] + [found[number] for number in learning[1:2]]
    for call in following:
        if isinstance(call.operation, NORMALIZING):
            return Entry(first.operation, values, call.operation, call.tensors[0])
    return Entry(first.operation, values)


def _what_changes(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The last axis' positions in which two arrays differ: those that come from the input."""
    values, others = np.asarray(values, np.float64), np.asarray(others, np.float64)
    if values.shape != others.shape:
        return values
    differs = ~((values == others) | (np.isnan(values) & np.isnan(others)))
    return values[..., differs.reshape(-1, values.shape[-1]).any(axis=0)]


def foreign_scale(entry: Entry) -> float | None:
    """How far what enters a trained BatchNormalization lies from what it was trained on.

    The root mean square of `(x - moving mean) / sqrt(moving variance)`, 1 for what it knows; None
    if it is no such layer, or one that has seen nothing yet.
    """
    layer = entry.normalizer
    if not isinstance(layer, keras.layers.BatchNormalization) or entry.normalized is None:
        return None
    mean, variance = numbers(layer.moving_mean), numbers(layer.moving_variance)
    if (mean == 0).all() and (variance == 1).all():
        return None
    axis = layer.axis % entry.normalized.ndim
    values = np.moveaxis(entry.normalized, axis, -1).astype(np.float64)
    standard = (values - mean) / np.sqrt(variance + layer.epsilon)
    return root_mean_square(standard)
