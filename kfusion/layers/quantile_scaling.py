"""Raw numbers with missing values -> standard normals by rank, and flags of what was missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import keras
import numpy as np
from keras import ops

from kfusion.layers.inverse_error import inverse_error
from kfusion.layers.missing_flags import with_missing_flags


@keras.saving.register_keras_serializable(package="kfusion")
class QuantileScaling(keras.layers.Layer):
    """Gives each column the shape of a standard normal, and marks missing values.

    A number becomes its rank among the training rows, a share from 0 to 1 that is read between
    the quantiles on a straight line, and the share becomes the standard normal's quantile, at
    most `limit` away from 0. Units, skew and outliers no longer matter, only order. A value that
    several quantiles share takes the middle of their ranks, so the 0 and 1 of a boolean that is
    true half of the time become -0.67 and 0.67. A column of a single value becomes 0. Missing
    values (NaN) become 0, the median, and set their column's flag to 1.

    scikit-learn's `QuantileTransformer(output_distribution="normal")` gives the same, but puts
    the least and the largest value at -5.2 and 5.2, and jumps at values that occur often.

    Args:
        quantiles: For each column, floats from the least to the largest of the training rows'
            values at even shares; none for a column without values.
        flagged: Positions of the columns whose missing values get a flag.
        limit: Float above 0, bound of the result.

    Takes `(rows, columns)` floats and gives `(rows, columns + len(flagged))`.

    Raises:
        ValueError: If a column's quantiles fall or are not finite, or the limit is not above 0.
    """

    def __init__(
        self,
        quantiles: Sequence[Sequence[float]],
        flagged: Sequence[int] = (),
        limit: float = 3.0,
        **kwargs: Any,
    ):
        # Half precision cannot hold raw numbers: scale in float32, then cast.
        super().__init__(autocast=False, **kwargs)
        self.quantiles = [[float(value) for value in column] for column in quantiles]
        self.flagged = [int(position) for position in flagged]
        self.limit = limit
        for position, column in enumerate(self.quantiles):
            # Written so that NaN fails too.
            if not (np.isfinite(column).all() and (np.diff(column) >= 0).all()):
                raise ValueError(
                    f"The quantiles of column {position} must be finite and must not fall. "
                    f"Received: {column}."
                )
        if not limit > 0:
            raise ValueError(f"`limit` must be above 0. Received: limit={limit}.")
        self._lines = _lines(self.quantiles)

    def call(self, inputs):
        values = ops.cast(inputs, "float32")
        missing = ops.isnan(values)
        starts, widths, rises, first = (
            ops.convert_to_tensor(each, "float32") for each in self._lines
        )
        # Filled before the arithmetic: a NaN would reach the gradient through `where`.
        filled = ops.where(missing, ops.zeros_like(values), values)
        passed = ops.clip((ops.expand_dims(filled, -1) - starts) / widths, 0, 1)
        shares = first + ops.sum(rises * passed, axis=-1)
        tail = NormalDist().cdf(-self.limit)
        scaled = math.sqrt(2) * inverse_error(2 * ops.clip(shares, tail, 1 - tail) - 1)
        scaled = ops.where(missing, ops.zeros_like(scaled), scaled)
        return ops.cast(with_missing_flags(scaled, missing, self.flagged), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], len(self.quantiles) + len(self.flagged))

    def get_config(self):
        return {
            **super().get_config(),
            "quantiles": self.quantiles,
            "flagged": self.flagged,
            "limit": self.limit,
        }


def _lines(quantiles: Sequence[Sequence[float]]) -> tuple[np.ndarray, ...]:
    """Each column's distribution function as lines between its distinct quantiles.

    Returns where they start, their widths and by how much they rise, `(columns, lines)`, and the
    share `(columns,)` in front of them. Columns with fewer lines get some that do not rise.
    """
    knots = [_distinct(column) for column in quantiles]
    num_lines = max([1, *(values.size - 1 for values, _ in knots)])
    starts = np.zeros((len(knots), num_lines))
    widths = np.ones_like(starts)
    rises = np.zeros_like(starts)
    for position, (values, shares) in enumerate(knots):
        lines = slice(values.size - 1)
        starts[position, lines] = values[:-1]
        widths[position, lines] = np.diff(values)
        rises[position, lines] = np.diff(shares)
    first = np.array([shares[0] for _, shares in knots])
    return starts, np.minimum(widths, np.finfo(np.float32).max), rises, first


def _distinct(quantiles: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """A column's distinct quantiles, as float32 tells them apart, and the share below each."""
    if len(quantiles) < 2:
        return np.zeros(1), np.array([0.5])
    given = np.asarray(quantiles, np.float32).astype(np.float64)
    # Differences below this would be 0 in float32.
    is_new = np.diff(given, prepend=-np.inf) >= np.finfo(np.float32).tiny
    group = np.cumsum(is_new) - 1
    shares = np.bincount(group, np.linspace(0, 1, given.size)) / np.bincount(group)
    return given[is_new], shares
