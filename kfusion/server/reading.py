"""Requests in TensorFlow Serving's formats, or as forms, as rows of raw columns and images."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kfusion.data.inputs import TABULAR, InputSpec
from kfusion.data.tables import Column
from kfusion.exports.serving import ExportedModel
from kfusion.exports.signatures import ENCODED_SIGNATURE, RAW_SIGNATURE, array_specs
from kfusion.server.values import BYTES_KEY, RequestError, read_array, read_cell, shown

_LISTED = 50


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        max_bytes: Int, of its body.
        max_rows: Int.
        max_pixels: Int, of an image before it is resized.
    """

    max_bytes: int = 32 * 2**20
    max_rows: int = 1024
    max_pixels: int = 50_000_000


class Rows(NamedTuple):
    """The rows of one request.

    Attributes:
        signature: Name of the signature that is asked.
        frame: DataFrame of raw columns, or None.
        arrays: `(rows, ...)` arrays by input name.
        places: How messages call each row, as the request has it.
        by_columns: Whether the answer is wanted by columns ("outputs"), not by rows.
    """

    signature: str
    frame: pd.DataFrame | None
    arrays: dict[str, np.ndarray]
    places: Sequence[str]
    by_columns: bool = False


class _Door(NamedTuple):
    """What one signature takes; `names` has every name by which a value may be given."""

    arrays: Mapping[str, InputSpec]
    columns: Mapping[str, Column]
    names: Mapping[str, str]


class RequestReader:
    """Reads requests for one exported model.

    A value may be named as `served_names` says, or by the column's own name; where the two are
    at odds, the former counts. A column of image files stands for its input.

    Args:
        model: `ExportedModel`.
        limits: `Limits`.
    """

    def __init__(self, model: ExportedModel, limits: Limits):
        self.limits = limits
        # A table without any value is one whose columns are left out.
        self._may_be_missing = [name for name in model.may_be_missing if name != TABULAR]
        self._doors = {
            name: _make_door(model, has_table=name == RAW_SIGNATURE and model.schema is not None)
            for name in (RAW_SIGNATURE, ENCODED_SIGNATURE)
        }

    def read_json(self, body: bytes) -> Rows:
        """Reads `{"instances": [...]}` or `{"inputs": {...}}`, with a `signature_name` or none.

        Raises:
            RequestError: If it is something else; the message names the instance, the column and
                the value.
        """
        request = _parse(body)
        unknown = sorted(request.keys() - {"instances", "inputs", "signature_name"})
        if unknown:
            raise RequestError(f"The request has unknown keys: {shown(unknown)}.")
        signature = request.get("signature_name") or RAW_SIGNATURE
        if not isinstance(signature, str) or signature not in self._doors:
            raise RequestError(
                f"`signature_name` must be one of {sorted(self._doors)}. Received: "
                f"{shown(signature)}."
            )
        door = self._doors[signature]
        if ("instances" in request) == ("inputs" in request):
            raise RequestError('The request must have "instances" or "inputs", one of them.')
        if "instances" in request:
            return self._read_instances(signature, door, request["instances"])
        return self._read_inputs(signature, door, request["inputs"])

    def read_form(self, fields: Sequence[tuple[str, str | bytes]]) -> Rows:
        """Reads one row from the fields of a form: texts for columns, files for images.

        A name that the model does not have is read as browsers and curl write it: %22 for a quote,
        %0D and %0A for the end of a line (HTML standard, "multipart form data").

        Raises:
            RequestError: As `read_json`.
        """
        door = self._doors[RAW_SIGNATURE]
        unescaped = {_unescape(name): name for name in door.names}
        named = [
            (name if name in door.names else unescaped.get(_unescape(name), name), value)
            for name, value in fields
        ]
        row = dict.fromkeys([*door.arrays, *door.columns])
        for name, value in _resolve(door, named, "The form"):
            if name in door.columns and isinstance(value, bytes):
                raise RequestError(f"The form: column {name!r} must be text, no file.")
            if name in door.arrays and isinstance(value, str):
                if value:
                    raise RequestError(f"The form: input {name!r} must be a file.")
                value = b""
            row[name] = value
        table = {name: [value] for name, value in row.items()}
        return self._read_table(RAW_SIGNATURE, door, table, ["The form"])

    def _read_instances(self, signature: str, door: _Door, instances: Any) -> Rows:
        if not isinstance(instances, list):
            raise RequestError(f"`instances` must be a list. Received: {shown(instances)}.")
        rows = self._check_count(len(instances), "`instances`")
        places = [f"instances[{row}]" for row in range(rows)]
        table = {name: [None] * rows for name in (*door.arrays, *door.columns)}
        for row, instance in enumerate(instances):
            for name, value in _resolve(door, _by_name(door, instance, places[row]), places[row]):
                table[name][row] = value
        return self._read_table(signature, door, table, places)

    def _read_inputs(self, signature: str, door: _Door, inputs: Any) -> Rows:
        given = dict(_resolve(door, _by_name(door, inputs, "`inputs`"), "`inputs`"))
        for name, values in given.items():
            if not isinstance(values, list):
                raise RequestError(
                    f"`inputs`: {name!r} must be a list with a value for each row. Received: "
                    f"{shown(values)}."
                )
        lengths = {name: len(values) for name, values in given.items()}
        if len(set(lengths.values())) > 1:
            raise RequestError(f"`inputs` must have equal lengths. Received: {shown(lengths)}.")
        rows = self._check_count(next(iter(lengths.values()), 0), "`inputs`")
        absent = {name: [None] * rows for name in (*door.arrays, *door.columns)}
        places = [f"inputs, row {row}" for row in range(rows)]
        return self._read_table(signature, door, {**absent, **given}, places, by_columns=True)

    def _check_count(self, rows: int, what: str) -> int:
        if not rows:
            raise RequestError(f"{what} has no rows.")
        if rows > self.limits.max_rows:
            raise RequestError(
                f"{what} has {rows} rows; {self.limits.max_rows} at a time are answered.", 413
            )
        return rows

    def _read_table(
        self,
        signature: str,
        door: _Door,
        table: Mapping[str, Sequence[Any]],
        places: Sequence[str],
        *,
        by_columns: bool = False,
    ) -> Rows:
        arrays = {
            name: np.stack(
                [
                    read_array(
                        name,
                        spec,
                        value,
                        place,
                        may_be_missing=self._may_be_missing,
                        max_pixels=self.limits.max_pixels,
                    )
                    for value, place in zip(table[name], places, strict=True)
                ]
            )
            for name, spec in door.arrays.items()
        }
        frame = None
        if door.columns:
            frame = pd.DataFrame(
                {
                    column.name: _read_column(column, table[name], places)
                    for name, column in door.columns.items()
                }
            )
        return Rows(signature, frame, arrays, places, by_columns)


def _make_door(model: ExportedModel, *, has_table: bool) -> _Door:
    arrays = dict(model.specs)
    columns = {}
    own_names: dict[str, str] = {}
    own_names |= {column: name for name, column in model.image_columns.items()}
    if has_table and model.schema is not None:
        arrays = array_specs(arrays, model.schema)
        columns = {model.served_names[column.name]: column for column in model.schema.columns}
        own_names |= model.served_names
    return _Door(arrays, columns, own_names | {name: name for name in (*arrays, *columns)})


def _unescape(name: str) -> str:
    """A field's name with quotes and ends of lines as they are, the latter all alike."""
    name = re.sub("%(22|0D|0A)", lambda found: chr(int(found[1], 16)), name, flags=re.IGNORECASE)
    return re.sub("\r\n?", "\n", name)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body)
    except RecursionError:
        raise RequestError("The request is no JSON that can be read: it is too deep.") from None
    except ValueError as error:
        raise RequestError(f"The request is no JSON: {error}.") from None
    if not isinstance(request, dict):
        raise RequestError(f"The request must be an object. Received: {shown(request)}.")
    return request


def _by_name(door: _Door, given: Any, where: str) -> Sequence[tuple[str, Any]]:
    """Pairs of name and value; a model of one input takes its value without the name."""
    known = (*door.arrays, *door.columns)
    if isinstance(given, dict) and (len(known) > 1 or given.keys() != {BYTES_KEY}):
        return list(given.items())
    if len(known) == 1:
        return [(known[0], given)]
    raise RequestError(
        f"{where} must be an object of values by name: {shown(list(known))}. Received: "
        f"{shown(given)}."
    )


def _resolve(
    door: _Door, given: Sequence[tuple[str, Any]], where: str
) -> Iterator[tuple[str, Any]]:
    seen = set()
    for own_name, value in given:
        name = door.names.get(own_name)
        if name is None:
            raise RequestError(
                f"{where}: the model has no input or column {shown(own_name)}. It has: "
                f"{[*door.arrays, *door.columns][:_LISTED]}."
            )
        if name in seen:
            raise RequestError(f"{where}: {name!r} is given twice.")
        seen.add(name)
        yield name, value


def _read_column(column, values: Sequence[Any], places: Sequence[str]) -> np.ndarray:
    cells = [read_cell(column, value, place) for value, place in zip(values, places, strict=True)]
    if column.kind == "number" and not any(isinstance(cell, str) for cell in cells):
        return np.array([np.nan if cell is None else cell for cell in cells], np.float64)
    return np.array([*cells, None], object)[:-1]
