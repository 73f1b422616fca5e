"""One value of a request, checked against the column or the input that it is for."""

from __future__ import annotations

import base64
import binascii
import math
import re
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from kfusion.data.column_values import BLANKS, ISO_DATE, MISSING_WORDS
from kfusion.data.images import check_image_shape, decode_image
from kfusion.data.inputs import InputSpec
from kfusion.data.tables import Column

BYTES_KEY = "b64"
_SHOWN = reprlib.Repr()
_SHOWN.maxlevel, _SHOWN.maxstring = 2, 60
_WANTED = {
    "number": "finite numbers of float32",
    "boolean": "true, false, 1 or 0",
    "date": "ISO 8601 dates of the calendar as text, such as 2020-12-31",
    "category": "text or finite numbers",
    "text": "text",
}


class RequestError(ValueError):
    """A request that cannot be answered, and why; `status` is that of HTTP."""

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


def shown(value: Any) -> str:
    """A value as messages quote it: cut short, however long or deep it is."""
    return _SHOWN.repr(value)


def read_cell(column: Column, value: Any, where: str) -> Any:
    """Returns a column's value as a cell of a table would hold it: a number, text or None.

    Args:
        column: The column.
        value: A value of JSON; None is missing, `{"b64": ...}` holds the bytes of a text.
        where: What messages begin with.

    Raises:
        RequestError: If the value is of another type, infinite, no UTF-8, or no ISO 8601 date in
            a column of dates. What a text spells is left to the schema.
    """
    if isinstance(value, dict) and value.keys() == {BYTES_KEY}:
        value = _decode_text(value[BYTES_KEY], f"{where}: column {column.name!r}")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        if _is_utf8(value) and (column.kind != "date" or _is_date_or_missing(value)):
            return value
    elif _is_number(value) and column.kind not in ("date", "text"):
        return value
    raise wrong_cell(column, value, where)


def wrong_cell(column: Column, value: Any, where: str) -> RequestError:
    """What is raised of a value that its column cannot hold."""
    if isinstance(value, np.generic):
        value = value.item()
    return RequestError(
        f"{where}: column {column.name!r} must hold {_WANTED[column.kind]}, or null where a value "
        f"is missing. Received: {shown(value)}."
    )


def read_array(
    name: str,
    spec: InputSpec,
    value: Any,
    where: str,
    *,
    may_be_missing: Sequence[str],
    max_pixels: int,
) -> np.ndarray:
    """Returns one row of an input: an image, or an array of numbers.

    Args:
        name: Name of the input.
        spec: What the model takes.
        value: A nested list; for an image also `{"b64": ...}` or the bytes of a file; None where
            it is missing.
        where: What messages begin with.
        may_be_missing: Names of the inputs that rows may lack.
        max_pixels: Int, the most that a file's image may have.

    Raises:
        RequestError: If the value does not fit, a file cannot be decoded, or the input is missing
            and must not be.
    """
    where = f"{where}: input {name!r}"
    if value is None or value == b"":
        if name not in may_be_missing:
            known = ", ".join(map(repr, may_be_missing)) or "no input"
            raise RequestError(f"{where} is missing; rows may lack {known}.")
        nothing = np.nan if spec.dtype.startswith("float") else 0
        return np.full([size or 1 for size in spec.shape], nothing, spec.dtype)
    if isinstance(value, dict) and value.keys() == {BYTES_KEY}:
        value = decode_base64(value[BYTES_KEY], where)
    if isinstance(value, bytes):
        return _decode_file(spec, value, where, max_pixels)
    return _read_numbers(spec, value, where)


def decode_base64(text: Any, where: str) -> bytes:
    """Returns the bytes of a value of `{"b64": ...}`."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise RequestError(f"{where} is no base64 ({error}): {shown(text)}.") from None


def _decode_text(text: Any, where: str) -> str:
    try:
        return decode_base64(text, where).decode()
    except UnicodeDecodeError:
        raise RequestError(f"{where} holds bytes that are no UTF-8: {shown(text)}.") from None


def _decode_file(spec: InputSpec, content: bytes, where: str, max_pixels: int) -> np.ndarray:
    sizes = [size for size in spec.shape if size is not None]
    if spec.dtype != "uint8" or len(spec.shape) != 3 or len(sizes) != 3:
        raise RequestError(f"{where} is no image that a file could hold: give a nested list.")
    try:
        return decode_image(content, check_image_shape(sizes), max_pixels=max_pixels)
    except ValueError as error:
        raise RequestError(f"{where} cannot be read: {error}.") from None


def _read_numbers(spec: InputSpec, value: Any, where: str) -> np.ndarray:
    wanted = ", ".join("any" if size is None else str(size) for size in spec.shape)
    try:
        array = np.asarray(value)
        if array.dtype == object and spec.dtype.startswith("float"):
            # null is NaN; texts stay what they are and are refused.
            array = np.asarray(np.where(array == None, np.nan, array).tolist())  # noqa: E711
    except (ValueError, RecursionError, OverflowError):
        raise RequestError(
            f"{where} must be a nested list of shape ({wanted}). Received lists of unequal length "
            f"or depth: {shown(value)}."
        ) from None
    fits = array.ndim == len(spec.shape) and all(
        size in (None, given) for size, given in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        hint = ' Write a file as {"b64": "..."}.' if isinstance(value, str) else ""
        raise RequestError(f"{where} must have shape ({wanted}). Received: {array.shape}.{hint}")
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        if array.dtype.kind not in "iuf":
            raise RequestError(f"{where} must hold numbers. Received: {shown(value)}.")
        with np.errstate(over="ignore"):
            numbers = array.astype(dtype)
        wrong = array[np.isinf(numbers)]
    else:
        limits = np.iinfo(dtype)
        if array.dtype.kind not in "iu":
            raise RequestError(f"{where} must hold whole numbers. Received: {shown(value)}.")
        wrong = array[(array < limits.min) | (array > limits.max)]
        numbers = array.astype(dtype)
    if wrong.size:
        raise RequestError(
            f"{where} must hold values that fit {spec.dtype}. Received: {wrong[0]} ({wrong.size} "
            "such values)."
        )
    return numbers


def _is_number(value: Any) -> bool:
    """Whether it is a finite number or a boolean."""
    try:
        return isinstance(value, (bool, int, float)) and math.isfinite(value)
    except OverflowError:
        return False


def _is_utf8(text: str) -> bool:
    """JSON may hold half a character: a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_date_or_missing(text: str) -> bool:
    text = text.strip(BLANKS)
    return text.lower() in MISSING_WORDS | {""} or bool(re.fullmatch(ISO_DATE, text))
