"""What members see of an input besides itself: a trained network's features, a few components."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
from keras import ops

from kfusion.branches import image_branch
from kfusion.data.inputs import TABULAR
from kfusion.data.tables import TableSchema
from kfusion.layers import MaskedPool
from kfusion.models.latent_semantics import latent_semantics
from kfusion.models.prediction import predict
from kfusion.models.principal_components import fit_principal_components
from kfusion.models.trained_branches import branch_from

NUM_COMPONENTS = 32


def features_of(name: str) -> str:
    """Name of what a trained network makes of an image; with a dot, which no input has."""
    return f"{name}.features"


def components_of(name: str) -> str:
    """Name of the components of an input."""
    return f"{name}.components"


def make_encoders(
    x: Mapping[str, np.ndarray],
    schema: TableSchema | None,
    present: Mapping[str, np.ndarray],
    *,
    backbone: str | keras.Model | None = None,
    seed: int = 0,
) -> dict[str, keras.Model]:
    """Models that make further inputs of members, by the name of what they make.

    Of each input but the table: principal components of what rows have of it; of texts, latent
    semantics. Of each image, where there is a backbone: its features, of which the components are
    then taken. Of several images per row both are means over those that are there.

    Args:
        x: Encoded inputs by name.
        schema: `TableSchema` of table and texts, or None.
        present: `(rows,)` booleans by input: which rows have it.
        backbone: A Keras model, a `.keras` file, or a name in `keras.applications`; or None.
        seed: Int.

    Returns:
        `keras.Model` by name, from an input of `x` or from features made before.
    """
    texts = {} if schema is None else {text.input_name: text for text in schema.texts}
    encoders: dict[str, keras.Model] = {}
    for name, array in x.items():
        if name == TABULAR:
            continue
        made = components_of(name)
        if name in texts:
            encoders[made] = latent_semantics(
                array, texts[name].vocabulary.num_tokens, seed=seed, input_name=name, name=made
            )
            continue
        source, values = name, array[present.get(name, slice(None))]
        if backbone is not None and values.dtype == np.uint8:
            encoder = _features(backbone, values.shape[1:], name)
            encoders[features_of(name)] = encoder
            source, values = features_of(name), predict(encoder, {name: values})
        encoders[made] = _components(values, source, made, seed)
    return encoders


def _features(backbone: str | keras.Model, shape: tuple[int, ...], name: str) -> keras.Model:
    is_set = len(shape) == 4
    image_shape = shape[1:] if is_set else shape
    if isinstance(backbone, str) and not Path(backbone).suffix:
        branch = image_branch(
            image_shape, backbone=backbone, weights="imagenet", trainable=False, input_name=name
        )
    else:
        branch = branch_from(backbone, dtype="uint8", shape=image_shape, input_name=name)
    if is_set:
        return _mean_over_set(branch, shape, name, features_of(name))
    return keras.Model(branch.inputs, branch.output, name=features_of(name))


def _components(values: np.ndarray, source: str, made: str, seed: int) -> keras.Model:
    if values.dtype == np.uint8 and values.ndim == 5:
        images = values.reshape(-1, *values.shape[2:])
        images = images[images.any(axis=(1, 2, 3))]
        layer = fit_principal_components(images, NUM_COMPONENTS, seed=seed, name="components")
        return _mean_over_set(layer, values.shape[1:], source, made)
    layer = fit_principal_components(values, NUM_COMPONENTS, seed=seed, name="components")
    inputs = keras.Input(values.shape[1:], dtype=str(values.dtype), name=source)
    return keras.Model(inputs, layer(inputs), name=made)


def _mean_over_set(encode, shape: tuple[int, ...], source: str, made: str) -> keras.Model:
    """What a network or layer makes of each of several images, on average over those there."""
    inputs = keras.Input(shape, dtype="uint8", name=source)
    each = encode(ops.reshape(inputs, (-1, *shape[1:])))
    each = ops.reshape(each, (-1, shape[0], each.shape[-1]))
    is_there = ops.any(ops.not_equal(inputs, 0), axis=(2, 3, 4))
    return keras.Model(inputs, MaskedPool(name="mean")([each, is_there]), name=made)
