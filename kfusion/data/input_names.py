"""Names of a model's inputs: which there may be, and what models are called after them."""

from __future__ import annotations

import collections
from collections.abc import Sequence

from kfusion.data.inputs import TABULAR
from kfusion.data.plain_names import plain_name

# What layers, members and settings are called.
RESERVED = frozenset(
    {"blend", "components", "features", "fit", "fused", "fusion", "head", "model"}
    | {"pixels", "pool", "prediction", "presence", "scale", "table", "tokens", "trees"}
)


def called(key: str) -> str:
    """What people call an input."""
    return "table" if key == TABULAR else key


def only(key: str) -> str:
    """What a model of one input alone is called."""
    return f"{called(key)} only"


def check_input_names(names: Sequence[str]) -> None:
    """Raises `ValueError` naming an input whose name no model can have, or two with one name.

    Names are ASCII letters, digits and underscores, a letter first. TensorFlow does not tell case
    apart.
    """
    for name in names:
        if plain_name(name) != name:
            raise ValueError(
                "Names of inputs must be ASCII letters, digits and underscores. Received: "
                f"{name!r}."
            )
        if name in RESERVED:
            raise ValueError(
                f"An input cannot be called {name!r}: a part of the models is. Rename it."
            )
    counts = collections.Counter(name.lower() for name in names)
    twice = [name for name in names if counts[name.lower()] > 1]
    if twice:
        raise ValueError(f"Inputs must have different names. Received: {twice}.")
