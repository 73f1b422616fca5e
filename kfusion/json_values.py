"""Numbers and settings as JSON can hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np


def none_if_not_finite(value: Any) -> Any:
    """A value as JSON can hold it: NaN and infinity are None, tuples lists."""
    if isinstance(value, dict):
        return {name: none_if_not_finite(part) for name, part in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return list(value) if isinstance(value, tuple) else value


def history_as_json(history: Mapping[str, Sequence[float | None]]) -> dict[str, list[float | None]]:
    """Values of each epoch by metric, as JSON can hold them."""
    return {
        metric: [None if value is None else none_if_not_finite(float(value)) for value in values]
        for metric, values in history.items()
    }


def describe(value: Any) -> Any:
    """What a setting is, the same in every process: a function is its name.

    An object is the name of its class, with its config if it has one as Keras' losses do.
    """
    if isinstance(value, Mapping):
        return {str(key): describe(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(part) for part in value]
    if isinstance(value, partial):
        return [describe(value.func), describe(value.args), describe(value.keywords)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "__qualname__"):
        return value.__qualname__
    config = getattr(value, "get_config", None)
    name = type(value).__qualname__
    return name if config is None else [name, describe(config())]
