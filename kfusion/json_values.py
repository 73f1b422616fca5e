"""Numbers and settings as JSON can hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any


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
    """What a setting is, the same in every process: functions and layers are their names."""
    if isinstance(value, Mapping):
        return {str(key): describe(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(part) for part in value]
    if isinstance(value, partial):
        return [describe(value.func), describe(value.args), describe(value.keywords)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__qualname__", type(value).__qualname__)
