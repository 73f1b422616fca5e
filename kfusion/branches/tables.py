"""The branch of a table: encoded columns -> scaled, flagged and embedded -> hidden layers."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from kfusion.branches.dropout_rates import last_rates, listed_rates
from kfusion.data.tables import NumberColumn, TableSchema
from kfusion.layers import (
    BatchEnsembleDense,
    CategoryEmbedding,
    MemberMean,
    NormalizedDense,
    NumberScaling,
    PeriodicEmbedding,
    QuantileScaling,
)
from kfusion.layers.normalized_dense import MOMENTUM


def tabular_branch(
    schema_or_num_columns: TableSchema | int,
    *,
    units: int | Sequence[int] = (128, 64),
    encoder: str = "mlp",
    members: int = 16,
    numeric_scaling: str = "quantile",
    numeric_embedding: str | None = None,
    dropout: float | Sequence[float] = 0.0,
    l2: float = 0.0,
    input_name: str = "tabular",
    name: str = "tabular_branch",
) -> keras.Model:
    """Builds a branch from an encoded table to features.

    With a schema, numbers are scaled by the training rows' quantiles, missing values are flagged
    and categories embedded. With a number of columns all of them are taken as numbers, missing
    ones as 0 with a flag, and normalised by the batches' own statistics.

    Args:
        schema_or_num_columns: `TableSchema`, or int.
        units: Widths of the hidden layers; an int is one layer.
        encoder: "mlp", or "tabm": many networks in one, which share most of their weights
            (Gorishniy et al., 2024, arXiv:2410.24210). The branch gives the mean of their
            features; `build_unimodal_model` trains each of them and averages what they predict.
            It likes `dropout=0.1` and a higher rate: `fit(..., learning_rate=3e-3)`.
        members: Int, number of the networks of "tabm"; 16 to 32 are usual.
        numeric_scaling: How numbers are scaled with a schema: "quantile" makes them standard
            normals by rank, so that neither units nor skew nor outliers matter; "robust" keeps
            their distances (median, quartiles, smooth bound).
        numeric_embedding: None, or "periodic": a learned vector for each number (Gorishniy et
            al., 2022, arXiv:2203.05556).
        dropout: Float in [0, 1), rate after each hidden layer; or a sequence of rates, the last one
            that of the last layer.
        l2: Float, L2 penalty on the kernels.
        input_name: Name of the input.
        name: Name of the model.

    Returns:
        `keras.Model` from `(rows, columns)` float32, NaN where missing, to `(rows, units[-1])`.

    Raises:
        ValueError: If the encoder, scaling or embedding is unknown, there are no columns, units
            or members, or the schema was saved before there were quantiles.
    """
    _check_choice("encoder", encoder, ("mlp", "tabm"))
    _check_choice("numeric_scaling", numeric_scaling, ("quantile", "robust"))
    _check_choice("numeric_embedding", numeric_embedding, (None, "periodic"))
    if members < 1:
        raise ValueError(f"`members` must be 1 or more. Received: members={members}.")
    widths = (units,) if isinstance(units, int) else tuple(units)
    if not widths or min(widths) < 1:
        raise ValueError(f"`units` must name at least one width of 1 or more. Received: {units!r}.")
    if isinstance(schema_or_num_columns, TableSchema):
        inputs = keras.Input((schema_or_num_columns.num_columns,), name=input_name)
        features = _encoded_table(inputs, schema_or_num_columns, numeric_scaling, numeric_embedding)
    else:
        if not isinstance(schema_or_num_columns, (int, np.integer)):
            raise TypeError(
                "A tabular branch takes a TableSchema (`TableSchema.fit(frame)`) or a number of "
                f"columns. Received: {type(schema_or_num_columns).__name__}."
            )
        num_columns = int(schema_or_num_columns)
        if num_columns < 1:
            raise ValueError(f"A table needs at least one column. Received: {num_columns}.")
        inputs = keras.Input((num_columns,), name=input_name)
        scaling = NumberScaling(
            [0.0] * num_columns,
            [1.0] * num_columns,
            flagged=range(num_columns),
            limit=0,
            name="numbers",
        )
        features = keras.layers.BatchNormalization(momentum=MOMENTUM, name="scale")(scaling(inputs))
        features = _embed_numbers(features, num_columns, numeric_embedding)
    if isinstance(dropout, (int, float)):
        dropout = [dropout] * len(widths)
    rates = last_rates(listed_rates(dropout), len(widths))
    for i, width in enumerate(widths):
        if encoder == "tabm":
            hidden = BatchEnsembleDense(
                width,
                members,
                random_signs=i == 0,
                dropout=rates[i],
                l2=l2,
                name=f"hidden_{i + 1}",
            )
        else:
            hidden = NormalizedDense(width, dropout=rates[i], l2=l2, name=f"hidden_{i + 1}")
        features = hidden(features)
    if encoder == "tabm":
        features = MemberMean(name="features")(features)
    return keras.Model(inputs, features, name=name)


def _encoded_table(inputs, schema: TableSchema, scaling: str, embedding: str | None):
    """Scaled numbers, missing flags and category vectors, side by side."""
    numbers, categories = schema.numbers, schema.categories
    parts = []
    if numbers:
        scaled = _number_scaling(numbers, scaling)(
            inputs[:, : len(numbers)] if categories else inputs
        )
        parts.append(_embed_numbers(scaled, len(numbers), embedding))
    if categories:
        embedded = CategoryEmbedding([column.num_codes for column in categories], name="categories")
        parts.append(embedded(inputs[:, len(numbers) :] if numbers else inputs))
    return keras.layers.Concatenate(name="columns")(parts) if len(parts) > 1 else parts[0]


def _number_scaling(columns: Sequence[NumberColumn], scaling: str) -> keras.layers.Layer:
    flagged = [i for i, column in enumerate(columns) if 0 < column.missing_rate < 1]
    if scaling == "robust":
        return NumberScaling(
            [column.center for column in columns],
            [column.spread for column in columns],
            flagged=flagged,
            name="numbers",
        )
    unknown = [
        column.name for column in columns if not column.quantiles and column.missing_rate < 1
    ]
    if unknown:
        raise ValueError(
            f"The schema has no quantiles of {unknown}: it was saved by an older kfusion. Learn it "
            'again (`TableSchema.fit`), or pass `numeric_scaling="robust"`.'
        )
    return QuantileScaling(
        [column.quantiles for column in columns], flagged=flagged, name="numbers"
    )


def _embed_numbers(scaled, num_numbers: int, embedding: str | None):
    """Vectors of the scaled numbers, in front of the flags that follow them."""
    if embedding is None:
        return scaled
    vectors = PeriodicEmbedding(name="number_vectors")
    if scaled.shape[-1] == num_numbers:
        return vectors(scaled)
    return keras.layers.Concatenate(name="vectors_and_flags")(
        [vectors(scaled[:, :num_numbers]), scaled[:, num_numbers:]]
    )


def _check_choice(argument: str, given: str | None, choices: Sequence[str | None]) -> None:
    if given not in choices:
        listed = " or ".join("None" if choice is None else f'"{choice}"' for choice in choices)
        raise ValueError(f"`{argument}` must be {listed}. Received: {argument}={given!r}.")
