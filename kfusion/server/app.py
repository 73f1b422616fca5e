"""The web application: TensorFlow Serving's REST interface for one exported model."""

from __future__ import annotations

import os
from typing import Any

import anyio
import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from kfusion.data.column_values import CellError
from kfusion.exports.serving import ExportedModel
from kfusion.exports.signatures import ENCODED_SIGNATURE
from kfusion.server.openapi import describe_request, describe_responses
from kfusion.server.reading import Limits, RequestReader, Rows
from kfusion.server.values import RequestError, wrong_cell
from kfusion.versions import library_versions

MODEL = "kfusion"
_TYPES = {
    "string": "DT_STRING",
    "float32": "DT_FLOAT",
    "float16": "DT_HALF",
    "float64": "DT_DOUBLE",
    "bool": "DT_BOOL",
}
_LONGEST_MESSAGE = 2000


def build_app(
    model: ExportedModel, *, limits: Limits | None = None, num_threads: int | None = None
) -> FastAPI:
    """Builds the application that answers for one model.

    It has `POST /v1/models/kfusion:predict` (JSON in TensorFlow Serving's row or column format, or
    a form with one row), `GET /v1/models/kfusion`, `GET /v1/models/kfusion/metadata`,
    `GET /healthz` and `GET /openapi.json`. Whatever is wrong with a request is an answer 4xx,
    `{"error": ...}`. There is no page of documentation, since it would load scripts from
    elsewhere.

    Args:
        model: `ExportedModel`.
        limits: `Limits` of a request.
        num_threads: Int, how many requests are worked on at once; by default one per core.

    Returns:
        A `FastAPI` application.
    """
    limits = limits or Limits()
    reader = RequestReader(model, limits)
    threads = anyio.CapacityLimiter(num_threads or os.cpu_count() or 1)
    app = FastAPI(
        title="kfusion",
        description="An exported model behind TensorFlow Serving's REST interface.",
        version=library_versions().get("kfusion", "unknown"),
        docs_url=None,
        redoc_url=None,
    )
    _add_error_handlers(app)
    _add_status(app, model)

    @app.post(
        f"/v1/models/{MODEL}:predict",
        openapi_extra={"requestBody": describe_request(model, limits)},
        responses=describe_responses(model),
    )
    async def predict(request: Request) -> JSONResponse:
        request = _limit_body(request, limits.max_bytes)
        content_type = request.headers.get("content-type", "")
        if content_type.lower().startswith("multipart/form-data"):
            given: Any = await _read_form(request, limits.max_bytes)
            read: Any = reader.read_form
        else:
            # Whatever it is called, as TensorFlow Serving does: curl calls it a form.
            given, read = await request.body(), reader.read_json
        answer = await anyio.to_thread.run_sync(_answer, model, read, given, limiter=threads)
        return JSONResponse(answer)

    return app


def _answer(model: ExportedModel, read: Any, given: Any) -> dict[str, Any]:
    """Reads one request and answers it; in a thread, so that others are not held up."""
    rows = read(given)
    try:
        return _in_format(model, rows, _ask(model, rows))
    except CellError as error:
        columns = {column.name: column for column in model.schema.columns} if model.schema else {}
        where = rows.places[error.row]
        raise wrong_cell(columns[error.column], error.value, where) from error
    except (ValueError, TypeError) as error:
        raise RequestError(str(error)) from error


def _ask(model: ExportedModel, rows: Rows) -> dict[str, np.ndarray]:
    if rows.signature == ENCODED_SIGNATURE or model.schema is None:
        return model.predict_encoded(rows.arrays)
    return model.predict(rows.frame, rows.arrays or None)


def _in_format(model: ExportedModel, rows: Rows, answers: dict[str, np.ndarray]) -> dict[str, Any]:
    """The answer by rows or by columns; of a single output the bare values."""
    columns = {name: _plain(array) for name, array in answers.items()}
    if model.class_names:
        columns["class_names"] = [list(model.class_names)] * len(columns["class"])
    only = next(iter(columns.values())) if len(columns) == 1 else None
    if rows.by_columns:
        return {"outputs": columns if only is None else only}
    if only is not None:
        return {"predictions": only}
    return {
        "predictions": [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
    }


def _plain(array: np.ndarray) -> list[Any]:
    """Values as JSON can hold them: null where not finite."""
    values = array.astype(object)
    if array.dtype.kind == "f":
        values[~np.isfinite(array)] = None
    return values.tolist()


def _limit_body(request: Request, max_bytes: int) -> Request:
    """The same request, which raises 413 as soon as its body is longer than allowed."""
    too_much = RequestError(f"The request is longer than {max_bytes:,} bytes.", 413)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise too_much
    received = 0

    async def receive():
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise too_much
        return message

    return Request(request.scope, receive)


async def _read_form(request: Request, max_bytes: int) -> list[tuple[str, str | bytes]]:
    async with request.form(max_part_size=max_bytes) as form:
        return [
            (name, await value.read() if isinstance(value, UploadFile) else value)
            for name, value in form.multi_items()
        ]


def _add_status(app: FastAPI, model: ExportedModel) -> None:
    status = {"version": "1", "state": "AVAILABLE"}
    okay = {"error_code": "OK", "error_message": ""}

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(f"/v1/models/{MODEL}")
    async def model_status() -> dict[str, list[dict[str, Any]]]:
        return {"model_version_status": [{**status, "status": okay}]}

    @app.get(f"/v1/models/{MODEL}/metadata")
    async def metadata() -> dict[str, Any]:
        spec = {"name": MODEL, "signature_name": "", "version": "1"}
        signatures = {"signature_def": _signature_defs(model)}
        return {"model_spec": spec, "metadata": {"signature_def": signatures}}


def _signature_defs(model: ExportedModel) -> dict[str, Any]:
    """The signatures as TensorFlow Serving writes them."""
    return {
        name: {
            "inputs": {
                key: _tensor_info(tensor, f"{name}_{key}:0")
                for key, tensor in signature["inputs"].items()
            },
            "outputs": {
                key: _tensor_info(tensor, key) for key, tensor in signature["outputs"].items()
            },
            "method_name": "tensorflow/serving/predict",
        }
        for name, signature in model.signatures.items()
    }


def _tensor_info(tensor: dict[str, Any], name: str) -> dict[str, Any]:
    sizes = [{"size": str(-1 if n is None else n), "name": ""} for n in tensor["shape"]]
    dtype = tensor["dtype"]
    return {
        "dtype": _TYPES.get(dtype, f"DT_{dtype.upper()}"),
        "tensor_shape": {"dim": sizes, "unknown_rank": False},
        "name": name,
    }


def _add_error_handlers(app: FastAPI) -> None:
    def answer(message: str, status: int, headers: Any = None) -> JSONResponse:
        return JSONResponse({"error": message[:_LONGEST_MESSAGE]}, status, headers)

    @app.exception_handler(RequestError)
    async def bad_request(request: Request, error: RequestError) -> JSONResponse:
        return answer(str(error), error.status)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        return answer(error.detail, error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        return answer("The request ended before its body did.", 400)
