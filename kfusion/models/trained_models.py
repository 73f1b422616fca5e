"""Keras models that are there already: what they take, parts of them, running them in others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from kfusion.layers import Frozen


def read_model(model: keras.Model | str | os.PathLike) -> keras.Model:
    """Returns the model given, or the one in the `.keras` file named, uncompiled."""
    if isinstance(model, (str, os.PathLike)):
        return keras.models.load_model(model, compile=False)
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a keras.Model or the path of a .keras file. Received: "
            f"{type(model).__name__}."
        )
    return model


def taken_by(model: keras.Model, shape: Sequence[int | None] | None = None) -> Any:
    """What a model takes: a KerasTensor, or a list or dict of them; shapes start with the rows.

    Args:
        model: A Keras model.
        shape: Shape without rows, used if the model does not tell its own.

    Returns:
        KerasTensors in the structure that the model is called with.

    Raises:
        ValueError: If neither tells.
    """
    if isinstance(model, keras.Sequential) and not model.built and shape is not None:
        model.build((None, *shape))
    if ends := _ends(model):
        return ends[0]
    shapes = (model.get_build_config() or {}).get("input_shape")
    if shapes is None and shape is not None:
        shapes = (None, *shape)
    if shapes is None:
        raise ValueError(
            f"{model.name!r} has no known input: call it on data once first, or pass `shape=` "
            "(without rows) to `branch_from`."
        )
    return keras.tree.map_shape_structure(
        lambda size: keras.KerasTensor((None, *size[1:]), name=f"{model.name}_input"), shapes
    )


def plain_model(model: keras.Model) -> keras.Model:
    """The same layers without what `compile` added, which a model around it would report and save.

    A model of a class that runs or saves itself in its own way is returned as it is.
    """
    graph = functional(model)
    if graph is None:
        return model
    usual = keras.Sequential if isinstance(model, keras.Sequential) else type(graph)
    return graph if type(model).get_config is usual.get_config else model


def layers_within(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """All layers of a model and of the models inside it."""
    for layer in model.layers:
        yield layer
        inner = layer.model if isinstance(layer, Frozen) else layer
        if isinstance(inner, keras.Model):
            yield from layers_within(inner)


def cut_at(model: keras.Model, layer: str) -> keras.Model:
    """The part of a model that ends with the layer named; weights are shared.

    Raises:
        ValueError: If the model's inside is not known, or it has no such layer, runs it more than
            once, gets several outputs from it, or could not be loaded again once cut.
    """
    graph = functional(model)
    if graph is None:
        raise ValueError(
            f"{model.name!r} is a subclassed model, which cannot be cut at `layer={layer!r}`: "
            "leave `layer` out, and give the model itself the output that you need."
        )
    names = [each.name for each in graph.layers if not isinstance(each, keras.layers.InputLayer)]
    if layer not in names:
        raise ValueError(f"{model.name!r} has no layer {layer!r}. It has: {names}.")
    outputs = []

    def run(operation, *arguments, **keywords):
        output = operation(*arguments, **keywords)
        if operation.name == layer:
            outputs.append(output)
        return output

    # `get_layer(layer).output` would be wrong for a model within the model and for layers that
    # another model used first.
    again = keras.models.clone_model(graph, clone_function=lambda same: same, call_function=run)
    if len(outputs) != 1:
        raise ValueError(
            f"{model.name!r} runs {layer!r} {len(outputs)} times: cut it at a layer that runs once."
        )
    part = keras.Model(again.input, _one_output(outputs[0], f"Layer {layer!r}"), name=model.name)
    if plain_model(model) is model:
        _check_loadable(part, model)
    return part


def run_model(model: keras.Model, inputs, trainable: bool):
    """Calls a model inside another: to train on, or frozen."""
    if not trainable:
        return Frozen(model, name=f"frozen_{model.name}")(inputs)
    if not model.trainable_weights:
        # Set anew: on tensorflow Keras skips a flag that is set already, and what is below.
        model.trainable = False
        model.trainable = True
    return model(inputs)


def pool_features(features, source: str = "The network"):
    """Brings any features to `(rows, features)`: maps and sequences are averaged."""
    features = _one_output(features, source)
    rank = len(features.shape)
    if rank == 4:
        pool = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name="pool")
    elif rank == 3:
        pool = keras.layers.GlobalAveragePooling1D(name="pool")
    elif rank == 2:
        return features
    else:
        raise ValueError(
            f"{source} must give vectors, sequences or maps: (rows, features), (rows, steps, "
            f"features) or (rows, height, width, features). Received: {features.shape}."
        )
    return pool(features)


def functional(model: keras.Model) -> keras.Model | None:
    """The model as a Functional one of the same layers; None if its class runs it otherwise."""
    ends = _ends(model)
    if ends is None:
        return None
    graph = keras.Model(*ends, name=model.name)
    return graph if type(model).call in (type(graph).call, keras.Sequential.call) else None


def _ends(model: keras.Model) -> tuple[Any, Any] | None:
    """Input and output of a model whose inside is known: Functional, or Sequential if built."""
    if not (getattr(model, "inputs", None) and getattr(model, "outputs", None)):
        return None
    if isinstance(model, keras.Sequential):
        return model.inputs[0], model.outputs[0]
    return model.input, model.output


def _check_loadable(part: keras.Model, model: keras.Model) -> None:
    """A model that saves itself in its own way may be made of layers that cannot be loaded."""
    for layer in part.layers:
        try:
            type(layer).from_config(layer.get_config())
        except (TypeError, ValueError, NotImplementedError) as error:
            raise ValueError(
                f"{model.name!r} cannot be cut: its layer {layer.name!r} ({type(layer).__name__}) "
                "could not be loaded again from what it saves. Leave `layer` out."
            ) from error


def _one_output(output, source: str):
    found = keras.tree.flatten(output)
    if len(found) != 1:
        raise ValueError(
            f"{source} gives {len(found)} outputs, and a branch is made from one: choose a layer "
            "in front of it with `layer=`."
        )
    return found[0]
