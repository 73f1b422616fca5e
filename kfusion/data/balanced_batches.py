"""Batches for training in which every class is as frequent as every other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kfusion.data.row_batches import RowBatches


class BalancedBatches(RowBatches):
    """Feeds `keras.Model.fit` batches that hold each class equally often.

    For rare classes: with 5 % positives a plain batch of 16 often has none. Within an epoch the
    classes take turns row by row, so the counts of two classes in a batch differ by 1 at most, and
    with more classes than rows in a batch each has its turn a few batches on. The rows of a class
    come from a shuffled cycle: none comes back before all of the class were seen, in whatever
    epoch that is. An epoch is as many batches as a plain one, so it repeats rare rows and leaves
    out frequent ones, as PyTorch's `WeightedRandomSampler` with inverse class rates does.

    A model trained on these batches alone takes all classes for equally likely. Compile it with
    `PriorShiftedCrossentropy(batches.training_rates, batches.true_rates)` to get probabilities at
    the true rates.

    Args:
        inputs: Array with one entry per row, or a list, tuple or dict of such arrays. Memory maps
            and streamed images stay on disk: only the rows of a batch are read.
        outputs: Array of targets, or a list, tuple or dict of them, one per output of the model.
        labels: `(rows,)` ints from 0, the classes to balance; mostly the targets themselves.
        batch_size: Int, rows in every batch, the last one of an epoch included.
        seed: Int that fixes the order; None draws another each time.
        sample_weight: Array of row weights or one per output, as `keras.Model.fit` takes it;
            None for none.
        **kwargs: `workers`, `use_multiprocessing` and `max_queue_size` of `keras.utils.PyDataset`.

    Attributes:
        true_rates: Floats, share of each label from 0 among all rows.
        training_rates: Floats, share of each label in the batches: the same for all that have
            rows, else 0.

    Raises:
        ValueError: If arrays differ in length, labels are not ints from 0 or hold one class only,
            or `batch_size` is below 1.
        TypeError: If `batch_size` is no int.

    Example:
        >>> labels = np.array([0] * 90 + [1] * 10)
        >>> features = np.arange(100.0)[:, None]
        >>> batches = BalancedBatches(features, labels, labels, batch_size=16, seed=0)
        >>> len(batches)
        7
        >>> x, y = batches[0]
        >>> x.shape, np.bincount(y).tolist()
        ((16, 1), [8, 8])
        >>> batches.true_rates, batches.training_rates
        ((0.9, 0.1), (0.5, 0.5))
    """

    def __init__(
        self,
        inputs,
        outputs,
        labels,
        *,
        batch_size: int,
        seed: int | None,
        sample_weight=None,
        **kwargs,
    ):
        super().__init__(
            inputs,
            outputs,
            labels,
            batch_size=batch_size,
            seed=seed,
            sample_weight=sample_weight,
            **kwargs,
        )
        labels = _checked_labels(labels)
        counts = np.bincount(labels)
        self.true_rates = tuple((counts / labels.size).tolist())
        self.training_rates = tuple(((counts > 0) / np.count_nonzero(counts)).tolist())
        self._members = [np.flatnonzero(labels == label) for label in np.flatnonzero(counts)]
        self._waiting = [np.empty(0, np.int64) for _ in self._members]
        self._order = self._draw_epoch()

    def _draw_epoch(self) -> np.ndarray:
        """Row numbers of an epoch in order: the classes, shuffled, in turn."""
        num_slots = len(self) * self.batch_size
        turns = self._generator.permutation(len(self._members))
        order = np.empty(num_slots, np.int64)
        for turn, member in enumerate(turns):
            slots = order[turn :: len(turns)]
            slots[:] = self._draw(member, slots.size)
        return order

    def _draw(self, member: int, count: int) -> np.ndarray:
        """The next `count` rows of a class, through as many shuffled cycles as that takes."""
        rows, waiting = self._members[member], self._waiting[member]
        num_cycles = max(0, math.ceil((count - waiting.size) / rows.size))
        cycles = self._generator.permuted(np.tile(rows, (num_cycles, 1)), axis=1)
        waiting = np.concatenate([waiting, cycles.ravel()])
        self._waiting[member] = waiting[count:]
        return waiting[:count]


def _checked_labels(labels: Any) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "biu":
        raise ValueError(
            "`labels` must be ints of shape (rows,). Received: "
            f"shape={labels.shape}, dtype={labels.dtype}."
        )
    labels = labels.astype(np.int64)
    if labels.size and labels.min() < 0:
        row = int(np.argmin(labels))
        raise ValueError(f"`labels` must be 0 or more. Received: {labels[row]} in row {row}.")
    if labels.size and labels.min() == labels.max():
        raise ValueError(
            f"`labels` holds one class only ({labels[0]}): there is nothing to balance."
        )
    return labels
