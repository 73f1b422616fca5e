"""Rows that are made when they are asked for, and tell of it."""

from kfusion.data.lazy_rows import LazyRows


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
