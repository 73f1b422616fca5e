"""A branch made from a model that you have already trained."""

from __future__ import annotations

import os
from collections.abc import Sequence

import keras
from keras import ops

from kfusion.models.trained_models import (
    cut_at,
    plain_model,
    pool_features,
    read_model,
    run_model,
    taken_by,
)

USUAL_INPUT_NAMES = {1: "tabular", 3: "image"}


def branch_from(
    model: keras.Model | str | os.PathLike,
    layer: str | None = None,
    trainable: bool = False,
    *,
    shape: Sequence[int | None] | None = None,
    dtype: str | None = None,
    input_name: str | None = None,
    name: str | None = None,
) -> keras.Model:
    """Makes a branch of a model that you have already trained.

    Its preprocessing stays what it was: the branch takes what the model took. Its weights are
    shared, not copied: frozen in the branch, they are frozen in the model too. `unfreeze` lets
    the last layers of a frozen branch train on later.

    Args:
        model: A Keras model with one input: Functional, Sequential, of `keras.applications` or
            KerasHub, or subclassed (registered for serialisation, if the result is to be saved
            and loaded); or the path of a `.keras` file.
        layer: Name of the layer to cut at, which may be a model inside the model; None keeps the
            whole, head included. Not for subclassed models.
        trainable: Whether its weights train on; layers that you froze one by one stay so. If
            not, it is `kfusion.layers.Frozen`: in inference mode throughout, BatchNormalization
            fixed and Dropout off.
        shape: Shape of the input without rows, such as (64, 64, 3), for a model that takes
            images of any size or does not know what it takes.
        dtype: Dtype of the branch's input, if not the model's own: "uint8" lets it share the
            input of an `image_branch`. Values are only cast.
        input_name: Name of the branch's input; by default "image" for rank 4 and "tabular" for
            rank 2.
        name: Name of the branch; by default the model's with "_branch" after it.

    Returns:
        `keras.Model` to `(rows, features)`; maps and sequences are averaged.

    Raises:
        TypeError: If `model` is neither a Keras model nor a path.
        ValueError: If the model has several inputs or outputs, does not take `shape`, tells no
            shape, or cannot be cut at `layer`.

    Example:
        >>> trained = keras.Sequential(
        ...     [
        ...         keras.Input((5,)),
        ...         keras.layers.Dense(8, activation="relu", name="hidden"),
        ...         keras.layers.Dense(1, activation="sigmoid"),
        ...     ],
        ...     name="trained",
        ... )
        >>> branch = branch_from(trained, "hidden")
        >>> branch.name, branch.output.shape, branch.trainable_weights
        ('trained_branch', (None, 8), [])
    """
    model = read_model(model)
    structure = taken_by(model, shape)
    taken = keras.tree.flatten(structure)
    if len(taken) != 1:
        raise ValueError(f"A branch has one input; {model.name!r} has {len(taken)}.")
    (taken,) = taken
    shape = _checked_shape(model, tuple(taken.shape[1:]), shape)
    inputs = keras.Input(
        shape,
        dtype=dtype or taken.dtype,
        name=input_name or USUAL_INPUT_NAMES.get(len(shape), taken.name),
    )
    values = inputs if inputs.dtype == taken.dtype else ops.cast(inputs, taken.dtype)
    part = plain_model(model) if layer is None else cut_at(model, layer)
    features = run_model(part, keras.tree.pack_sequence_as(structure, [values]), trainable)
    features = pool_features(features, repr(model.name))
    return keras.Model(inputs, features, name=name or f"{model.name}_branch")


def _checked_shape(model: keras.Model, taken: tuple, shape: Sequence[int | None] | None) -> tuple:
    if shape is None:
        return taken
    shape = tuple(shape)
    fits = len(shape) == len(taken) and all(
        size in (None, given) for size, given in zip(taken, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{model.name!r} takes {taken} without rows. Received: shape={shape}.")
    return shape
