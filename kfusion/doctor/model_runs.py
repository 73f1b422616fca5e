"""A model run on some rows: what it gives, by name, while the model stays as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from kfusion.doctor.drawn_rows import batches
from kfusion.doctor.undecided import UndecidableError
from kfusion.models.building import PREDICTION
from kfusion.models.trained_models import taken_by

MOST_LETTERS = 300


def untouched(model: keras.Model) -> keras.StatelessScope:
    """A scope in which variables keep their values: statistics, seeds and metrics as well."""
    # Penalties read their weights from the scope itself.
    held = [(variable, variable.value) for variable in model.trainable_variables]
    return keras.StatelessScope(held, collect_losses=True)


def run(
    model: keras.Model, inputs: Mapping[str, np.ndarray], training: bool = False
) -> dict[str, Any]:
    """What a model gives for one batch, tensors by name; call it within `untouched(model)`.

    Raises:
        UndecidableError: If the model does not run on these rows, or has no weights yet.
    """
    check_built(model)
    with told(f"{model.name!r} does not run on its data"):
        return name_outputs(model, model(feed(model, inputs), training=training))


def predict(model: keras.Model, x: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a model gives at inference for all rows, arrays by name.

    Raises:
        UndecidableError: As `run`.
    """
    parts = []
    for batch in batches(x):
        with untouched(model):
            outputs = run(model, batch)
        parts.append({name: keras.ops.convert_to_numpy(each) for name, each in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check_built(model: keras.Model) -> None:
    """Raises `UndecidableError` for a model that has no weights yet: a run would make them."""
    if not model.built:
        raise UndecidableError(
            f"{model.name!r} has no weights yet: fit it, or call it on data once"
        )


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Turns any error within, of code that is the user's, into `UndecidableError`."""
    try:
        yield
    except UndecidableError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:MOST_LETTERS]
        raise UndecidableError(f"{what}: {type(error).__name__}: {reason}") from error


def feed(model: keras.Model, inputs: Mapping[str, np.ndarray]) -> Any:
    """Arrays by name -> the structure that the model is called with."""
    if getattr(model, "inputs", None):
        return keras.tree.map_structure(lambda taken: inputs[taken.name], taken_by(model))
    if list(inputs) != [f"input_{i + 1}" for i in range(len(inputs))]:
        return dict(inputs)
    arrays = list(inputs.values())
    return arrays if len(arrays) > 1 else arrays[0]


def name_outputs(model: keras.Model, outputs: Any) -> dict[str, Any]:
    """What a model gave, or its symbolic outputs, by name."""
    flat = keras.tree.flatten(outputs)
    if isinstance(outputs, Mapping) and len(outputs) == len(flat):
        return dict(outputs)
    names = list(getattr(model, "output_names", None) or [])
    if len(names) != len(flat):
        names = [PREDICTION] if len(flat) == 1 else [f"output_{i + 1}" for i in range(len(flat))]
    return dict(zip(names, flat, strict=True))


def prediction_name(outputs: Mapping[str, Any]) -> str:
    """Which of the outputs is the model's own answer: "prediction", or the first."""
    return PREDICTION if PREDICTION in outputs else next(iter(outputs))


def numbers(value: Any) -> np.ndarray:
    """A tensor or weight as float64."""
    return np.asarray(keras.ops.convert_to_numpy(value), np.float64)
