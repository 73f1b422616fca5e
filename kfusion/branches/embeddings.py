"""The branch of an embedding that another model computed before."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from kfusion.branches.dropout_rates import last_rates, listed_rates
from kfusion.layers import NormalizedDense, ObservedNormalization


def embedding_branch(
    num_features: int,
    *,
    units: int | Sequence[int] = 128,
    dropout: float | Sequence[float] = 0.0,
    l2: float = 0.0,
    input_name: str = "embedding",
    name: str = "embedding_branch",
) -> keras.Model:
    """Builds a branch from an embedding that was computed before, such as a frozen network's.

    Each feature is batch-normalised; a row whose embedding is missing (NaN) counts as average.

    Args:
        num_features: Int, width of the embedding.
        units: Widths of the hidden layers; an int is one layer.
        dropout: Float in [0, 1), rate after the last hidden layer; or a sequence of rates, the last
            one that of the last layer.
        l2: Float, L2 penalty on the kernels.
        input_name: Name of the input.
        name: Name of the model.

    Returns:
        `keras.Model` from `(rows, num_features)` float32 to `(rows, units[-1])`.

    Raises:
        ValueError: If there are no features or units.
    """
    widths = (units,) if isinstance(units, int) else tuple(units)
    if num_features < 1 or not widths or min(widths) < 1:
        raise ValueError(
            "`num_features` and each of `units` must be 1 or more. Received: "
            f"num_features={num_features}, units={units!r}."
        )
    inputs = keras.Input((num_features,), name=input_name)
    features = ObservedNormalization(name="scale")(inputs)
    rates = last_rates(listed_rates(dropout), len(widths))
    for i, width in enumerate(widths):
        hidden = NormalizedDense(width, dropout=rates[i], l2=l2, name=f"hidden_{i + 1}")
        features = hidden(features)
    return keras.Model(inputs, features, name=name)
