"""Rows with an image and a table for tests of features, and rows that tell when they are made."""

import numpy as np

from kfusion.data.lazy_rows import LazyRows

_RANDOM = np.random.default_rng(0)
X = {
    "image": _RANDOM.integers(0, 4, (60, 4, 4, 1)).astype("uint8"),
    "tabular": _RANDOM.normal(size=(60, 3)).astype("float32"),
}
Y = (X["image"].sum((1, 2, 3)) + 4 * X["tabular"][:, 0] > 24).astype(int)
TRAIN = ({name: values[:40] for name, values in X.items()}, Y[:40])
HELD = ({name: values[40:] for name, values in X.items()}, Y[40:])


class CountedRows(LazyRows):
    """Rows that tell how many were asked for at once."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.asked = []

    def make(self, positions):
        self.asked.append(len(positions))
        return self.array[positions]

    def take(self, rows):
        return CountedRows(self.array[rows])
