"""Checks of the arrays that go into a model: right keys, shapes, types and ranges, or one error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from kfusion.data.lazy_rows import LazyRows, as_rows

# The inputs of a table's one image column, and of its columns but for text.
IMAGE, TABULAR = "image", "tabular"


class InputSpec(NamedTuple):
    """What a model asks of one named input: shape without rows (None for any) and dtype."""

    shape: tuple[int | None, ...]
    dtype: str


def select_inputs(
    x: Mapping[str, Any], specs: Mapping[str, InputSpec], name: str = "x"
) -> dict[str, np.ndarray]:
    """Picks a model's own inputs by name and checks them.

    Keys that the model does not use are left out, so an image-only model takes the data of a
    fused one; they must still have as many rows as the others.

    Floating point images in 0-255 are rounded to uint8. In 0-1 they are refused, since rescaling
    by guess would hide a mistake: multiply them by 255.

    Args:
        x: Mapping from input names to `(rows, ...)` arrays.
        specs: What the model asks for.
        name: How `x` is called in error messages.

    Returns:
        The model's inputs, in its order, as NumPy arrays of its dtypes. Streamed images stay so.

    Raises:
        TypeError: If `x` is no mapping.
        ValueError: If a key is missing, lengths differ, there are no rows, or an array has another
            rank, size, number of channels, type or range than the model's input.
    """
    if not isinstance(x, Mapping):
        raise TypeError(
            f"`{name}` must be a dict of arrays by input name: {sorted(specs)}. Received: "
            f"{type(x).__name__}."
        )
    missing = [key for key in specs if key not in x]
    if missing:
        raise ValueError(f"`{name}` lacks the input(s) {missing}. It has: {list(x)}.")
    check_lengths({f"{name}[{key!r}]": value for key, value in x.items()})
    return {key: _check_array(x[key], spec, f"{name}[{key!r}]") for key, spec in specs.items()}


def check_lengths(arrays: Mapping[str, Any]) -> int:
    """Returns the common number of rows of named arrays, or raises `ValueError` with each one's."""
    lengths = {name: _num_rows(array, name) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} has {rows}" for name, rows in lengths.items())
        raise ValueError(f"All inputs must have the same number of rows: {listed}.")
    rows = next(iter(lengths.values()))
    if not rows:
        raise ValueError(f"There are no rows in {', '.join(lengths)}.")
    return rows


def _check_same_keys(x: Mapping[str, Any], validation_x: Mapping[str, Any]) -> None:
    """Raises `ValueError` naming the keys that only one of two inputs has."""
    if not (isinstance(x, Mapping) and isinstance(validation_x, Mapping)):
        return
    if set(x) != set(validation_x):
        raise ValueError(
            f"Training and validation inputs must have the same keys. Only one of them has: "
            f"{sorted(set(x) ^ set(validation_x), key=str)}."
        )


def read_validation(x: Any, validation_data: Any) -> tuple[Any, Any]:
    """Inputs and targets of the rows that judge.

    Args:
        x: Training inputs, which must have the same keys.
        validation_data: What was given for the pair.

    Raises:
        TypeError: If it is no pair.
        ValueError: If only one of both inputs has some keys.
    """
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
        raise TypeError(
            f"`validation_data` must be a pair (x, y). Received: {type(validation_data).__name__}."
        )
    judging_x, judging_y = validation_data
    _check_same_keys(x, judging_x)
    return judging_x, judging_y


def _num_rows(array: Any, name: str) -> int:
    try:
        shape = np.shape(array)
    except ValueError as error:
        raise ValueError(f"`{name}` must be an array: its rows differ in length.") from error
    if not shape:
        raise ValueError(f"`{name}` must be an array with one entry per row. Received a scalar.")
    return shape[0]


def _check_array(value: Any, spec: InputSpec, name: str) -> Any:
    if hasattr(value, "columns"):
        raise ValueError(
            f"`{name}` is a DataFrame; encode it first: `schema.encode(frame)` with the schema "
            "that the branch was built from."
        )
    array = as_rows(value)
    if array.dtype.kind not in "biuf":
        hint = ""
        if "int" in spec.dtype and len(spec.shape) == 1:
            hint = " Texts are encoded first: `vocabulary.encode(texts)`, see `Vocabulary.encode`."
        raise ValueError(f"`{name}` must hold numbers. Received: dtype={array.dtype}.{hint}")
    wanted = ("rows", *("any" if size is None else size for size in spec.shape))
    fits = array.ndim == len(wanted) and all(
        size in (None, given) for size, given in zip(spec.shape, array.shape[1:], strict=True)
    )
    if not fits:
        shown = ", ".join(str(size) for size in wanted)
        raise ValueError(f"`{name}` must have shape ({shown}). Received: {array.shape}.")
    if isinstance(array, LazyRows):
        return array
    if spec.dtype == "uint8":
        return _check_image(array, name)
    with np.errstate(over="ignore"):
        array = array.astype(spec.dtype, copy=False)
    infinite = np.argwhere(np.isinf(array))
    if infinite.size:
        row, *position = infinite[0].tolist()
        raise ValueError(
            f"`{name}` holds an infinite number, or one too large for {spec.dtype}, at row {row}, "
            f"position {tuple(position)} ({len(infinite)} in all)."
        )
    return array


def _check_image(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 255):
        raise ValueError(f"`{name}` must lie in 0-255. Received: values from {low:g} to {high:g}.")
    if array.dtype.kind == "f" and 0 < high <= 1:
        raise ValueError(
            f"`{name}` must be uint8 in 0-255 but lies in 0-1 ({array.dtype}): pass "
            "`(image * 255).round().astype('uint8')`."
        )
    return np.round(array).astype(np.uint8)
