"""How much each branch counted for each row of a model with gated fusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pandas as pd

from kfusion.layers import GatedFusion
from kfusion.models.prediction import predict


def gate_values(model: keras.Model, x: Mapping[str, Any]) -> pd.DataFrame:
    """Reads a gated fusion's gates row by row.

    A gate says how much of the fused vector comes from a branch; for each row they sum to 1. They
    tell what the model lets through, not what it would lose without: see `shapley_values`.

    Source: Arevalo et al., 2017, arXiv:1702.01992.

    Args:
        model: A model with one `GatedFusion`, as from `build_fusion_model(fusion="gated")`.
        x: Dict of arrays by input name.

    Returns:
        DataFrame of `(rows, branches)`: the mean gate over the units, by name of the branch.

    Raises:
        ValueError: If the model has no gated fusion, or several.
    """
    found = [layer for layer in model.layers if isinstance(layer, GatedFusion)]
    if len(found) != 1:
        raise ValueError(
            f'`model` must have one GatedFusion, as with fusion="gated". {model.name!r} has '
            f"{len(found)}."
        )
    (fusion,) = found
    vectors = fusion.input
    gates = _Gates(fusion)(vectors)
    flat = keras.layers.Flatten(dtype="float32")(gates)
    values = predict(keras.Model(model.input, flat), x)
    by_branch = values.reshape(len(values), len(vectors), -1).mean(axis=2)
    names = [vector._keras_history.operation.name for vector in vectors]
    return pd.DataFrame(by_branch.astype(np.float64), columns=names)


class _Gates(keras.layers.Layer):
    """The gates of a fusion, at inference."""

    def __init__(self, fusion: GatedFusion):
        super().__init__()
        self.fusion = fusion

    def call(self, inputs):
        return self.fusion.gates(inputs, training=False)
