"""Models kept as they are while others train, and the second stage in which their ends train on."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from kfusion.layers import Frozen
from kfusion.models.trained_models import plain_model, read_model, run_model, taken_by


def freeze(model: keras.Model | str | os.PathLike, name: str | None = None) -> keras.Model:
    """Makes a model that answers as the one given does and cannot change.

    `model.trainable = False` leaves Dropout active in `fit`. In the model made here the weights
    are fixed, BatchNormalization uses the statistics that it has and Dropout is off: in `fit` as
    a part of another model, saved and loaded, cloned and exported. Setting `trainable = True` on
    it, or on a model around it, changes nothing; `unfreeze` does.

    Args:
        model: Any Keras model that knows its inputs, or the path of a `.keras` file. Its weights
            are shared, not copied, so that they are frozen in it too.
        name: Name of the new model; by default the model's with "_frozen" after it.

    Returns:
        Functional `keras.Model` with the inputs and outputs of the one given, uncompiled.

    Raises:
        TypeError: If `model` is neither a Keras model nor a path.
        ValueError: If a model has no known input: it was never built.

    Example:
        >>> trained = keras.Sequential(
        ...     [keras.Input((5,)), keras.layers.Dense(8), keras.layers.Dropout(0.5)],
        ...     name="trained",
        ... )
        >>> frozen = freeze(trained)
        >>> frozen.trainable = True
        >>> frozen.name, frozen.trainable_weights
        ('trained_frozen', [])
    """
    model = read_model(model)
    inputs = keras.tree.map_structure(
        lambda taken: keras.Input(taken.shape[1:], dtype=taken.dtype, name=taken.name),
        taken_by(model),
    )
    outputs = run_model(plain_model(model), inputs, trainable=False)
    return keras.Model(inputs, outputs, name=name or f"{model.name}_frozen")


def unfreeze(
    model: keras.Model,
    *,
    last: int | Sequence[str] | str,
    learning_rate: float = 1e-5,
    branch: str | None = None,
) -> keras.Model:
    """Lets the last layers of a frozen branch train on: the second stage of fine-tuning.

    Train the rest first, then unfreeze and train again at a low rate. The branch keeps running
    in inference mode: Dropout stays off, and BatchNormalization keeps its weights and statistics.
    What is unfrozen is part of the model: saved, loaded and cloned with it. Calling this again
    replaces it.

    A compiled model is compiled again with the loss, metrics and kind of optimizer that it had,
    at the constant rate given and with fresh optimizer state. A model that is not compiled stays
    so. `kfusion.fit` always compiles anew: give the low rate to it as well,
    `fit(model, ..., learning_rate=1e-5)`.

    Args:
        model: The model to train, with a branch of `branch_from` or a part from `freeze` in it.
        last: How many layers train, counted from the last, BatchNormalization and layers without
            weights to train left out and models within the model opened; or their names, that of
            a model for all in it; or "all".
        learning_rate: Float above 0, of the optimizer if the model is compiled.
        branch: Name of the branch, if several parts are frozen: the name of its model, or the
            path that the error lists.

    Returns:
        The model given.

    Raises:
        ValueError: If nothing is frozen in the model, `branch` does not tell which, there are no
            such layers, the rate is not above 0, or the model cannot be compiled again.

    Example:
        >>> trained = keras.Sequential(
        ...     [keras.Input((5,)), keras.layers.Dense(8), keras.layers.Dense(4, name="end")],
        ...     name="trained",
        ... )
        >>> model = unfreeze(freeze(trained), last=1)
        >>> [tuple(weight.shape) for weight in model.trainable_weights]
        [(8, 4), (4,)]
    """
    frozen = _find(model, branch)
    positions = _positions(frozen, last)
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"`learning_rate` must be above 0. Received: {learning_rate}.")
    settings = _compile_settings(model, learning_rate) if model.compiled else None
    frozen.unfreeze(positions)
    if settings is not None:
        model.compile(**settings)
    return model


def _find(model: keras.Model, branch: str | None) -> Frozen:
    found = dict(_frozen_within(model))
    if not found:
        raise ValueError(
            f"Nothing is frozen in {model.name!r}: `branch_from` and `freeze` make what is."
        )
    chosen = {
        path: layer for path, layer in found.items() if branch is None or _named(path, branch)
    }
    if len({id(layer) for layer in chosen.values()}) != 1:
        raise ValueError(
            f"`branch` must name one of the frozen parts of {model.name!r}: {list(found)}. "
            f"Received: branch={branch!r}."
        )
    return next(iter(chosen.values()))


def _frozen_within(model: keras.Model, path: str = "") -> Iterator[tuple[str, Frozen]]:
    for layer in model.layers:
        if isinstance(layer, Frozen):
            yield f"{path}{layer.name}", layer
        elif isinstance(layer, keras.Model):
            yield from _frozen_within(layer, f"{path}{layer.name}/")


def _positions(frozen: Frozen, last: int | Sequence[str] | str) -> list[int]:
    paths = [path for path, _ in frozen.layers_that_can_train()]
    if last == "all":
        return list(range(len(paths)))
    if isinstance(last, (int, np.integer)) and not isinstance(last, bool):
        if not 1 <= last <= len(paths):
            raise ValueError(
                f"`last` must be from 1 to {len(paths)}, the number of layers of "
                f"{frozen.model.name!r} that can train. Received: last={last}."
            )
        return list(range(len(paths) - last, len(paths)))
    if isinstance(last, (str, bool)) or not isinstance(last, Sequence) or not last:
        raise ValueError(
            '`last` must be a number of layers, a list of their names or "all". Received: '
            f"last={last!r}."
        )
    unknown = [name for name in last if not any(_named(path, name) for path in paths)]
    if unknown:
        raise ValueError(
            f"{frozen.model.name!r} has no layer(s) {unknown} that can train (BatchNormalization "
            f"stays frozen). It has: {paths}."
        )
    return [i for i, path in enumerate(paths) if any(_named(path, name) for name in last)]


def _named(path: str, name: str) -> bool:
    """Whether a path is or contains a name: "a/b/c" has the names "a", "b", "c" and "a/b"."""
    return f"/{name}/" in f"/{path}/"


def _compile_settings(model: keras.Model, learning_rate: float) -> dict[str, Any]:
    """Arguments to compile the model as it was, with a fresh optimizer of another rate."""
    config = model.get_compile_config()
    # The loss itself: Keras' config of it lacks arguments (3.15: `delta` of Huber).
    config.pop("loss", None)
    optimizer = (config.get("optimizer") or {}).get("config", {})
    # Under half precision, the optimizer may stand inside one that scales the loss.
    while "inner_optimizer" in optimizer:
        optimizer = optimizer["inner_optimizer"]["config"]
    optimizer["learning_rate"] = learning_rate
    try:
        settings = keras.saving.deserialize_keras_object(config)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{model.name!r} cannot be compiled again, since Keras does not know its metrics or "
            "optimizer by name: register them with `keras.saving.register_keras_serializable()`."
        ) from error
    return {**settings, "loss": model.loss}
