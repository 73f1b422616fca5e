"""One branch's positions, looked at by the others."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from kfusion.layers.fused_shapes import MAPS, TOKENS, VECTORS, fused_widths
from kfusion.layers.normalized_dense import build_projections


@keras.saving.register_keras_serializable(package="kfusion")
class CrossAttentionFusion(keras.layers.Layer):
    """Lets the other branches choose which positions of the first one's maps to look at.

    Every position of the first branch's maps is a token, and so is every vector of the others;
    all are projected to one width and batch-normalised, and those of the first get a learned
    position. The others' tokens then query, within each row, those of the first and their own (so
    that there is a choice where the first is a single vector too, and that a table may look past
    the image): `mean over queries of q + attention(q, [first; q])`.

    Source: multi-head attention of Vaswani et al., 2017, "Attention Is All You Need",
    arXiv:1706.03762.

    Args:
        units: Int, common width of the tokens; by default the largest of the branches.
        num_heads: Int, attention heads, each of `units / num_heads` rounded up.
        use_positions: Whether a learned vector, 0 at the start, is added to each position of the
            first branch; it fixes the size of the maps.

    Takes a list of maps `(rows, height, width, channels)`, tokens `(rows, steps, width)` or a
    vector `(rows, width)`, and one or more vectors or tokens; gives `(rows, units)`.
    """

    takes_maps = True

    def __init__(
        self,
        units: int | None = None,
        num_heads: int = 4,
        use_positions: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if num_heads < 1 or (units is not None and units < 1):
            raise ValueError(
                "`num_heads` and `units` must be 1 or more. Received: "
                f"num_heads={num_heads}, units={units}."
            )
        self.units = units
        self.num_heads = num_heads
        self.use_positions = use_positions

    def build(self, input_shape):
        widths = self._widths(input_shape)
        units = self.units or max(widths)
        self._projections = build_projections(widths, units, "linear", self.dtype_policy, TOKENS)
        sizes = tuple(input_shape[0][1:-1])
        if self.use_positions and sizes:
            if None in sizes:
                raise ValueError(
                    f"`{self.name}` learns a vector for each position, so their number must be "
                    f"known. Received: {tuple(input_shape[0])}. Pass `use_positions=False`."
                )
            self._positions = self.add_weight(
                shape=(math.prod(sizes), units), initializer="zeros", name="positions"
            )
        # Without biases: one of the keys would move all scores alike.
        self._attention = keras.layers.MultiHeadAttention(
            self.num_heads,
            math.ceil(units / self.num_heads),
            use_bias=False,
            dtype=self.dtype_policy,
            name="attention",
        )
        self._attention.build((None, None, units), (None, None, units))
        self.built = True

    def call(self, inputs, training=None):
        first, *others = [
            projection(_as_tokens(features), training=training)
            for projection, features in zip(self._projections, inputs, strict=True)
        ]
        if self.use_positions and len(inputs[0].shape) > VECTORS:
            first = first + self._positions
        queries = ops.concatenate(others, axis=1)
        attended = self._attention(queries, ops.concatenate([first, queries], axis=1))
        return ops.mean(queries + attended, axis=1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], self.units or max(self._widths(input_shape)))

    def _widths(self, input_shape):
        return fused_widths(
            self.name, input_shape, first=(VECTORS, TOKENS, MAPS), others=(VECTORS, TOKENS)
        )

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "num_heads": self.num_heads,
            "use_positions": self.use_positions,
        }


def _as_tokens(features):
    """`(rows, .., width)` -> `(rows, tokens, width)`."""
    sizes = features.shape[1:-1]
    rows, tokens = (ops.shape(features)[0], -1) if None in sizes else (-1, math.prod(sizes))
    return ops.reshape(features, (rows, tokens, features.shape[-1]))
