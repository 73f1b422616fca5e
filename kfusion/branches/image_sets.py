"""The branch of several images per row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kfusion.branches.images import image_branch
from kfusion.data.images import check_image_shape
from kfusion.layers import MaskedPool, RepeatPresent


def image_set_branch(
    shape: Sequence[int],
    *,
    pooling: str = "mean",
    input_name: str = "images",
    name: str = "image_set_branch",
    **image_keywords: Any,
) -> keras.Model:
    """Builds a branch from several uint8 images per row, in no order, to features.

    One image network sees each of them; what it says of those that are there is pooled. An image
    that is black throughout (all 0) is not there; a row without any has features of 0. In training
    the network sees copies of other images in the place of black ones, so that these do not enter
    the batch statistics of its BatchNormalization layers; the features of copies do not count.

    Args:
        shape: `(count, height, width, channels)`, where `count` is the most images that a row has.
        pooling: "mean", or "max", for what counts if one image shows it.
        input_name: Name of the input.
        name: Name of the model.
        **image_keywords: For `image_branch`, such as `units`, `backbone` or `dropout`.

    Returns:
        `keras.Model` from `(rows, *shape)` uint8 to `(rows, units)`.

    Raises:
        TypeError: If `image_branch` does not take a keyword.
        ValueError: If the shape is none of a set of images, or as `image_branch`.
    """
    if len(shape) != 4 or shape[0] < 1:
        raise ValueError(
            "`shape` must be (count, height, width, channels) with a count of 1 or more. Received: "
            f"shape={tuple(shape)}."
        )
    count = int(shape[0])
    image_shape = check_image_shape(shape[1:])
    inputs = keras.Input((count, *image_shape), dtype="uint8", name=input_name)
    network = image_branch(image_shape, name="each_image", **image_keywords)
    is_there = ops.any(ops.not_equal(inputs, 0), axis=(2, 3, 4))
    images = ops.reshape(inputs, (-1, *image_shape))
    features = network(RepeatPresent(name="seen")([images, ops.reshape(is_there, (-1, 1))]))
    features = ops.reshape(features, (-1, count, features.shape[-1]))
    pooled = MaskedPool(pooling, name="features")([features, is_there])
    return keras.Model(inputs, pooled, name=name)
