"""What Keras' `fit` is given of checked rows: arrays, or batches that are made on the way."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kfusion.data.balanced_batches import BalancedBatches
from kfusion.data.lazy_rows import MOST_BYTES, LazyRows
from kfusion.data.row_batches import ShuffledBatches


def training_rows(
    inputs: Any,
    outputs: Any,
    labels: np.ndarray,
    *,
    batch_size: int,
    seed: int | None,
    sample_weight: Any = None,
    balanced: bool = False,
    shuffle: bool = True,
    multiple: int = 1,
    repeat: bool = False,
) -> dict[str, Any]:
    """Arguments of `keras.Model.fit`.

    Args:
        inputs: Arrays as the model takes them.
        outputs: Targets, one array per output.
        labels: `(rows,)` targets.
        batch_size: Int.
        seed: Int or None.
        sample_weight: Weights, one array per output; or None.
        balanced: Whether each batch holds all classes equally often.
        shuffle: Whether each epoch has an order of its own.
        multiple: Int, how many devices share a batch.
        repeat: Whether rows of a last batch that they cannot share evenly are repeated; else it is
            filled up with rows of no weight.
    """
    keywords = {
        "batch_size": batch_size,
        "seed": seed,
        "sample_weight": sample_weight,
        "multiple": multiple,
        "repeat": repeat,
    }
    if balanced:
        return {"x": BalancedBatches(inputs, outputs, labels, **keywords), "shuffle": shuffle}
    streams = any(map(_is_streamed, keras.tree.flatten(inputs)))
    if streams or multiple > 1:
        # The rows are shuffled, so their batches need not be.
        batches = ShuffledBatches(inputs, outputs, shuffle=shuffle, **keywords)
        return {"x": batches, "shuffle": False}
    return {
        "x": inputs,
        "y": outputs,
        "sample_weight": sample_weight,
        "batch_size": batch_size,
        "shuffle": shuffle,
    }


def _is_streamed(array: Any) -> bool:
    """Whether only the rows of a batch are read: on tensorflow Keras copies whole memory maps."""
    is_copied = isinstance(array, np.memmap) and keras.backend.backend() == "tensorflow"
    return isinstance(array, LazyRows) or (is_copied and array.nbytes > MOST_BYTES)
