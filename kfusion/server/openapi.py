"""What the requests and answers of one model look like, for `/openapi.json`."""

from __future__ import annotations

from typing import Any

from kfusion.data.inputs import InputSpec
from kfusion.data.tables import Column
from kfusion.exports.serving import ExportedModel
from kfusion.exports.signatures import ENCODED_SIGNATURE, RAW_SIGNATURE, array_specs
from kfusion.server.reading import Limits
from kfusion.server.values import BYTES_KEY

_BYTES = {
    "type": "object",
    "properties": {BYTES_KEY: {"type": "string", "contentEncoding": "base64"}},
    "required": [BYTES_KEY],
    "additionalProperties": False,
}
_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
    "additionalProperties": False,
}


def describe_request(model: ExportedModel, limits: Limits) -> dict[str, Any]:
    """The body of a prediction's request, as OpenAPI's Request Body Object."""
    names = _values_by_name(model)
    instance = {"type": "object", "properties": names, "additionalProperties": False}
    lists = {name: {"type": "array", "items": value} for name, value in names.items()}
    inputs = {"type": "object", "properties": lists, "additionalProperties": False}
    row = {
        name: {"type": "string", "contentMediaType": "application/octet-stream"}
        if name in model.image_shapes
        else {"type": "string"}
        for name in names
    }
    return {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [
                        _request("instances", _list_of(instance, limits.max_rows)),
                        _request("inputs", inputs),
                    ]
                }
            },
            "multipart/form-data": {
                "schema": {"type": "object", "properties": row, "additionalProperties": False}
            },
        },
    }


def describe_responses(model: ExportedModel) -> dict[int | str, dict[str, Any]]:
    """The answers to a prediction's request by status, as FastAPI takes them."""
    by_row: dict[str, Any] = {"type": ["number", "null"]}
    by_column: dict[str, Any] = {"type": "array", "items": by_row}
    if model.class_names:
        names = {"type": "string", "enum": list(model.class_names)}
        outputs = {
            "probabilities": {"type": "array", "items": by_row},
            "class": names,
            "class_names": {"type": "array", "items": names},
        }
        by_row = _object(outputs)
        by_column = _object({n: {"type": "array", "items": v} for n, v in outputs.items()})
    answers = [
        _object({"predictions": {"type": "array", "items": by_row}}),
        _object({"outputs": by_column}),
    ]
    bad = {"application/json": {"schema": _ERROR}}
    return {
        200: {
            "description": "Predictions by row, or outputs by column",
            "content": {"application/json": {"schema": {"oneOf": answers}}},
        },
        400: {"description": "The request does not fit the model", "content": bad},
        413: {"description": "The request is too large", "content": bad},
    }


def _values_by_name(model: ExportedModel) -> dict[str, Any]:
    """A value of each input and column by the name that it is served under."""
    specs = array_specs(model.specs, model.schema)
    names = {}
    if model.schema is not None:
        for column in model.schema.columns:
            names[model.served_names[column.name]] = _of_column(column)
    arrays = {name: _of_array(spec, name, model) for name, spec in specs.items()}
    return {**arrays, **names}


def _of_column(column: Column) -> dict[str, Any]:
    types = {
        "number": ["number", "string", "boolean", "null"],
        "boolean": ["boolean", "number", "string", "null"],
        "date": ["string", "null"],
        "category": ["string", "number", "boolean", "null"],
        "text": ["string", "null"],
    }
    kind = f"{column.name}: {column.kind}"
    return {"description": kind, "anyOf": [{"type": types[column.kind]}, _BYTES]}


def _of_array(spec: InputSpec, name: str, model: ExportedModel) -> dict[str, Any]:
    whole = spec.dtype.startswith(("int", "uint"))
    value: dict[str, Any] = {"type": "integer" if whole else "number"}
    if spec.dtype == "uint8":
        value |= {"minimum": 0, "maximum": 255}
    for size in reversed(spec.shape):
        value = {"type": "array", "items": value}
        if size is not None:
            value |= {"minItems": size, "maxItems": size}
    choices = [value]
    if spec.dtype == "uint8" and len(spec.shape) == 3:
        choices.append(_BYTES)
    if name in model.may_be_missing:
        choices.append({"type": "null"})
    return {"description": f"{spec.dtype} {spec.shape}", "anyOf": choices}


def _request(key: str, value: dict[str, Any]) -> dict[str, Any]:
    signatures = {"type": "string", "enum": [RAW_SIGNATURE, ENCODED_SIGNATURE]}
    return {
        "type": "object",
        "properties": {key: value, "signature_name": signatures},
        "required": [key],
        "additionalProperties": False,
    }


def _list_of(items: dict[str, Any], most: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
