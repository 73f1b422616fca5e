"""Branches: one named raw input -> its own preprocessing -> a vector of features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np

from kfusion.images import check_image_shape
from kfusion.layers import (
    ApplicationPreprocessing,
    BatchEnsembleDense,
    CategoryEmbedding,
    EdgeMagnitude,
    MemberMean,
    NormalizedConv,
    NormalizedDense,
    NumberScaling,
    PeriodicEmbedding,
    QuantileScaling,
)
from kfusion.layers.application_preprocessing import find_application
from kfusion.layers.normalized_dense import MOMENTUM
from kfusion.tables import NumberColumn, TableSchema
from kfusion.trained_models import plain_model, pool_features, run_model

CONV_FILTERS = (32, 64, 128, 128, 128)
LARGE_SIDE = 96


def image_branch(
    shape: Sequence[int],
    *,
    backbone: str | keras.Model = "conv",
    weights: str | None = None,
    units: int = 128,
    dropout: float | Sequence[float] = 0.0,
    l2: float = 0.0,
    trainable: bool = True,
    augment: bool | keras.layers.Layer = False,
    resize: tuple[int, int] | None = None,
    input_name: str = "image",
    name: str = "image_branch",
) -> keras.Model:
    """Builds a branch from a uint8 image to features.

    Args:
        shape: `(height, width, channels)`, any number of channels.
        backbone: "conv", a small network for small images trained from scratch; the name of a
            network in `keras.applications`, whose own preprocessing is put before it; or a
            `keras.Model` that takes pixels in 0-255 and gives features or feature maps.
        weights: For an application: None, "imagenet" (downloaded by Keras) or a weights file.
        units: Int, width of the features.
        dropout: Float in [0, 1), rate on the features. A sequence holds the rates of several
            places: the last one that of the features, those before it of the last stages of "conv".
            (0.2, 0.4, 0.6, 0.8) rises towards them; what is too much at its start is left out.
        l2: Float, L2 penalty on the kernels that kfusion adds (all of "conv").
        trainable: Whether the backbone trains. If not, it runs in inference mode throughout:
            BatchNormalization fixed and Dropout off.
        augment: Whether to flip and shift training images; or a Keras layer that augments. Each
            branch of a model draws its own flips and shifts.
        resize: `(height, width)` to resize to inside the model: applications need a least size.
        input_name: Name of the input.
        name: Name of the model.

    Returns:
        `keras.Model` from `(rows, *shape)` uint8 to `(rows, units)` features that are batch
        normalised and rectified. An application gets 3 channels: grey is repeated, and other
        numbers of channels are mixed by a learned 1x1 convolution that starts with the first
        three.

    Raises:
        ValueError: If the shape or backbone is unknown, or too small for the application.
    """
    shape = check_image_shape(shape)
    inputs = keras.Input(shape, dtype="uint8", name=input_name)
    pixels = keras.layers.Rescaling(1.0, name="pixels")(inputs)
    if resize is not None:
        pixels = keras.layers.Resizing(*resize, data_format="channels_last", name="resize")(pixels)
    if augment is not False:
        pixels = _augmentation(augment)(pixels)
    rates = _rates(dropout)
    if backbone == "conv":
        if not trainable:
            raise ValueError(
                'The "conv" backbone starts from random weights: `trainable=False` would keep them.'
            )
        maps = _conv_stages(_centered(pixels), l2=l2, dropouts=rates[:-1])
    elif isinstance(backbone, keras.Model):
        maps = run_model(plain_model(backbone), pixels, trainable)
    elif isinstance(backbone, str):
        maps = _application_maps(backbone, weights, pixels, trainable)
    else:
        raise TypeError(
            '`backbone` must be "conv", a name in keras.applications or a keras.Model. Received: '
            f"backbone={backbone!r}."
        )
    features = _features(maps, units, rates[-1], l2)
    return keras.Model(inputs, features, name=name)


def edge_branch(
    shape: Sequence[int],
    *,
    units: int = 64,
    dropout: float | Sequence[float] = 0.0,
    l2: float = 0.0,
    augment: bool | keras.layers.Layer = False,
    input_name: str = "image",
    name: str = "edge_branch",
) -> keras.Model:
    """Builds a branch from a uint8 image to features of its edges.

    The Sobel gradient magnitude, then a small convolutional network: a second view of the same
    image that colour and brightness cannot dominate.

    Args:
        shape: `(height, width, channels)`.
        units: Int, width of the features.
        dropout: As in `image_branch`.
        l2: Float, L2 penalty on the kernels.
        augment: As in `image_branch`.
        input_name: Name of the input; the same as the image branch's shares one input.
        name: Name of the model.

    Returns:
        `keras.Model` from `(rows, *shape)` uint8 to `(rows, units)`.
    """
    inputs = keras.Input(check_image_shape(shape), dtype="uint8", name=input_name)
    pixels = inputs if augment is False else _augmentation(augment)(inputs)
    rates = _rates(dropout)
    maps = _conv_stages(EdgeMagnitude(name="edges")(pixels), l2=l2, dropouts=rates[:-1])
    features = _features(maps, units, rates[-1], l2)
    return keras.Model(inputs, features, name=name)


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
    rates = _last(_rates(dropout), len(widths))
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


def _centered(pixels):
    """0-255 -> about -1 to 1."""
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="center")(pixels)


def _conv_stages(maps, *, l2: float, dropouts: Sequence[float]):
    """Halves the maps until a side is below 4, with more channels at each stage.

    Large images are halved once more at the start, where a convolution costs most.
    """
    side = min(maps.shape[1:3])
    strides = [2 if side >= LARGE_SIDE else 1]
    side = math.ceil(side / strides[0] / 2)
    while side >= 4 and len(strides) < len(CONV_FILTERS):
        strides.append(1)
        side = math.ceil(side / 2)
    rates = _last(dropouts, len(strides))
    for i, filters in enumerate(CONV_FILTERS[: len(strides)]):
        stage = NormalizedConv(
            filters, strides=strides[i], dropout=rates[i], l2=l2, name=f"stage_{i + 1}"
        )
        maps = stage(maps)
    return maps


def _features(maps, units: int, dropout: float, l2: float):
    return NormalizedDense(units, dropout=dropout, l2=l2, name="features")(pool_features(maps))


def _rates(dropout: float | Sequence[float]) -> list[float]:
    """One or more rates in the order of their places."""
    rates = [dropout] if isinstance(dropout, (int, float)) else list(dropout)
    if not rates or not all(0 <= rate < 1 for rate in rates):
        raise ValueError(f"`dropout` must hold rates in [0, 1). Received: {dropout!r}.")
    return rates


def _last(rates: Sequence[float], count: int) -> list[float]:
    """As many rates as there are places: the last ones, or 0 in the first places."""
    return [0.0] * (count - len(rates)) + list(rates[max(0, len(rates) - count) :])


def _augmentation(augment: bool | keras.layers.Layer) -> keras.layers.Layer:
    if isinstance(augment, keras.layers.Layer):
        return augment
    return keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal", data_format="channels_last"),
            keras.layers.RandomTranslation(
                0.1, 0.1, fill_mode="reflect", data_format="channels_last"
            ),
        ],
        name="augment",
    )


def _application_maps(application: str, weights: str | None, pixels, trainable: bool):
    builder, _ = find_application(application)
    if weights is None and not trainable:
        raise ValueError(
            f"{application} without `weights` starts from random ones: `trainable=False` would "
            "keep them."
        )
    channels = pixels.shape[-1]
    if channels == 1:
        pixels = keras.layers.Concatenate(axis=-1, name="grey_to_rgb")([pixels] * 3)
    elif channels != 3:
        mixing = keras.layers.Dense(3, use_bias=False, name="channels_to_rgb")
        pixels = mixing(pixels)
        mixing.set_weights([_first_three(channels)])
    scaled = ApplicationPreprocessing(application, name="preprocessing")(pixels)
    shape = tuple(scaled.shape[1:])
    try:
        network = builder(include_top=False, weights=weights, input_shape=shape)
    except ValueError as error:
        if "Input size must be at least" not in str(error):
            raise
        raise ValueError(
            f"{application} cannot take images of {shape[0]}x{shape[1]}: {error} Pass `resize=`."
        ) from error
    return run_model(network, scaled, trainable)


def _first_three(channels: int) -> np.ndarray:
    """`(channels, 3)` mixing weights: the first three channels, their mean where one lacks."""
    mixing = np.zeros((channels, 3), np.float32)
    for i in range(3):
        mixing[i if i < channels else slice(None), i] = 1.0 if i < channels else 1 / channels
    return mixing


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
