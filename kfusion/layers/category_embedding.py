"""Category codes of several columns -> their learned vectors, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


def embedding_units(num_codes: int) -> int:
    """Width of a column's vectors: `1.6 * n**0.56`, at most 32 (a rule of the fastai library)."""
    return min(32, round(1.6 * num_codes**0.56))


def _is_float(inputs) -> bool:
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(inputs.dtype))


@keras.saving.register_keras_serializable(package="kfusion")
class CategoryEmbedding(keras.layers.Layer):
    """Learns a vector for every code of every column, "missing" and "unseen" included.

    Source: Guo & Berkhahn, 2016, "Entity Embeddings of Categorical Variables", arXiv:1604.06737.

    Args:
        num_codes: Ints, one per column: codes run from 0 to `num_codes - 1`.

    Takes `(rows, columns)` whole numbers, as floats or ints, and gives `(rows, units)` where
    `units` is the sum of each column's `embedding_units`. NaN counts as code 0 (missing), other
    codes that are out of range as code 1 (unseen).
    """

    def __init__(self, num_codes: Sequence[int], **kwargs: Any):
        # Half precision cannot hold codes above 2048: look up in full precision, then cast.
        super().__init__(autocast=False, **kwargs)
        self.num_codes = [int(count) for count in num_codes]
        self._embeddings = [
            keras.layers.Embedding(
                count, embedding_units(count), dtype=self.dtype_policy, name=f"column_{i}"
            )
            for i, count in enumerate(self.num_codes)
        ]

    def build(self, input_shape):
        for embedding in self._embeddings:
            embedding.build((input_shape[0],))
        self.built = True

    def call(self, inputs):
        codes = ops.where(ops.isnan(inputs), 0.0, inputs) if _is_float(inputs) else inputs
        codes = ops.cast(codes, "int32")
        known = ops.convert_to_tensor(self.num_codes, "int32")
        codes = ops.where((codes < 0) | (codes >= known), 1, codes)
        return ops.concatenate(
            [embedding(codes[:, i]) for i, embedding in enumerate(self._embeddings)], axis=-1
        )

    def compute_output_shape(self, input_shape):
        return (input_shape[0], sum(embedding_units(count) for count in self.num_codes))

    def get_config(self):
        return {**super().get_config(), "num_codes": self.num_codes}
