"""Raw numbers with missing values -> bounded numbers around 0 and flags of what was missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kfusion.layers.missing_flags import with_missing_flags


@keras.saving.register_keras_serializable(package="kfusion")
class NumberScaling(keras.layers.Layer):
    """Scales columns robustly, clips them smoothly, and marks missing values.

    `z = (x - center) / spread`, then `z / sqrt(1 + (z / limit)**2)`, which is nearly `z` around 0
    and never exceeds `limit`: an outlier keeps its side but not its weight. Missing values (NaN)
    become 0, the centre, and set their column's flag to 1. Columns of spread 0 become 0.

    Source: robust scaling with smooth clipping of Holzmüller et al., 2024, "Better by Default",
    arXiv:2407.04491.

    Args:
        center: Floats, one per column.
        spread: Floats, one per column, not negative.
        flagged: Positions of the columns whose missing values get a flag.
        limit: Float, bound of the result; 0 means none.

    Takes `(rows, columns)` floats and gives `(rows, columns + len(flagged))`.
    """

    def __init__(
        self,
        center: Sequence[float],
        spread: Sequence[float],
        flagged: Sequence[int] = (),
        limit: float = 3.0,
        **kwargs: Any,
    ):
        # Half precision cannot hold raw numbers: scale in float32, then cast.
        super().__init__(autocast=False, **kwargs)
        if len(center) != len(spread):
            raise ValueError(
                f"`center` and `spread` must be equally long. Received: {len(center)} and "
                f"{len(spread)}."
            )
        self.center = [float(value) for value in center]
        self.spread = [float(value) for value in spread]
        self.flagged = [int(position) for position in flagged]
        self.limit = limit

    def call(self, inputs):
        values = ops.cast(inputs, "float32")
        missing = ops.isnan(values)
        factor = [1 / spread if spread else 0.0 for spread in self.spread]
        # Filled before the arithmetic: a NaN would reach the gradient through `where`.
        filled = ops.where(missing, ops.convert_to_tensor(self.center, "float32"), values)
        scaled = (filled - ops.convert_to_tensor(self.center, "float32")) * ops.convert_to_tensor(
            factor, "float32"
        )
        if self.limit:
            # Beyond a million limits the result is the limit, and the square would overflow.
            scaled = ops.clip(scaled, -1e6 * self.limit, 1e6 * self.limit)
            scaled = scaled / ops.sqrt(1 + ops.square(scaled / self.limit))
        return ops.cast(with_missing_flags(scaled, missing, self.flagged), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], len(self.center) + len(self.flagged))

    def get_config(self):
        return {
            **super().get_config(),
            "center": self.center,
            "spread": self.spread,
            "flagged": self.flagged,
            "limit": self.limit,
        }
