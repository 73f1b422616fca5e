"""Flags of missing values, side by side with scaled columns."""

from __future__ import annotations

from collections.abc import Sequence

from keras import ops


def with_missing_flags(scaled, missing, flagged: Sequence[int]):
    """Puts a column behind the scaled ones for each one flagged: 1 where its value is missing."""
    if not flagged:
        return scaled
    flags = ops.take(ops.cast(missing, scaled.dtype), flagged, axis=-1)
    return ops.concatenate([scaled, flags], axis=-1)
