"""Branches of images: pixels -> a convolutional network -> a vector of features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np

from kfusion.branches.dropout_rates import last_rates, listed_rates
from kfusion.data.images import check_image_shape
from kfusion.layers import ApplicationPreprocessing, EdgeMagnitude, NormalizedConv, NormalizedDense
from kfusion.layers.application_preprocessing import find_application
from kfusion.models.trained_models import plain_model, pool_features, run_model

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
            branch of a model draws its own flips and shifts. In front of a backbone that does not
            train, `kfusion.fit(augmented_views=)` saves running it in each epoch.
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
    rates = listed_rates(dropout)
    if backbone == "conv":
        if not trainable:
            raise ValueError(
                'The "conv" backbone starts from random weights: `trainable=False` would keep '
                "them. Leave it out; or give a trained `keras.Model` as `backbone`."
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
    rates = listed_rates(dropout)
    maps = _conv_stages(EdgeMagnitude(name="edges")(pixels), l2=l2, dropouts=rates[:-1])
    features = _features(maps, units, rates[-1], l2)
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
    rates = last_rates(dropouts, len(strides))
    for i, filters in enumerate(CONV_FILTERS[: len(strides)]):
        stage = NormalizedConv(
            filters, strides=strides[i], dropout=rates[i], l2=l2, name=f"stage_{i + 1}"
        )
        maps = stage(maps)
    return maps


def _features(maps, units: int, dropout: float, l2: float):
    return NormalizedDense(units, dropout=dropout, l2=l2, name="features")(pool_features(maps))


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
            'keep them. Give `weights="imagenet"` or a file; or a trained `keras.Model` as '
            "`backbone`, whose own weights stay; or leave `trainable=False` out."
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
