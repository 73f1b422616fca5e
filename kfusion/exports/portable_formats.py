"""An exported model as an ONNX or a LiteRT file, checked row by row against the SavedModel."""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kfusion.data.raw_columns import sample_frame
from kfusion.data.tables import FIRST_CODE, MISSING_CODE, UNSEEN_CODE, CategoryColumn, TableSchema
from kfusion.exports.export import SAMPLE_ROWS, TOLERANCE, export_saved_model, sample_inputs
from kfusion.exports.serving import ExportedModel, load_exported
from kfusion.exports.signatures import ENCODED_SIGNATURE

# The first with all that the graph holds.
_OPSET = 18
# A runtime may compute in another order.
_MOST_DIFFERENCE = 10 * TOLERANCE

_PACKAGES = {"onnx": ("tf2onnx", "onnxruntime"), "litert": ("ai_edge_litert.interpreter",)}

Runner = Callable[[dict[str, np.ndarray]], np.ndarray]


def export_onnx(
    model: keras.Model | str | os.PathLike, path: str | os.PathLike, *, overwrite: bool = False
) -> Path:
    """Writes an ONNX file that takes numbers, and checks it with ONNX Runtime.

    It takes what the signature `encoded` of the SavedModel takes: images as uint8 and the encoded
    table as float32; any number of rows. It gives `probabilities` `(rows, classes)`, or of a
    regression `prediction` `(rows,)`. Strings stay outside: beside it, `PATH.json` says which
    inputs there are, and for a table which columns in which order, and the code of each category,
    so that any program can encode rows.

    Needs `pip install 'kfusion[onnx]'`.

    Args:
        model: Folder of `export_saved_model`, or a trained `keras.Model`.
        path: File to write.
        overwrite: Whether to replace files that exist.

    Returns:
        The path.

    Raises:
        FileExistsError: If `path` or `PATH.json` exists and `overwrite` is false.
        FileNotFoundError, ValueError: If the folder is none, or holds something else; or `path` or
            `PATH.json` is a folder.
        ImportError: If the packages are not installed.
        RuntimeError: If the model cannot be converted, or answers invented rows (usual, missing
            and unseen values) otherwise than the SavedModel by more than 1e-4 of the largest
            answer, or of 1. Nothing is left at `path` then.
    """
    check_packages("onnx")
    return _export(model, path, overwrite, _convert_to_onnx, _onnx_runner)


def export_litert(
    model: keras.Model | str | os.PathLike, path: str | os.PathLike, *, overwrite: bool = False
) -> Path:
    """Writes a LiteRT (TensorFlow Lite) file that takes numbers, checked with its interpreter.

    It has built-in operations alone, so that it runs on phones and boards; its signature
    `serving_default` takes and gives the names that `export_onnx` tells.

    Needs `pip install 'kfusion[litert]'`.

    Args:
        model: As of `export_onnx`, as are the other arguments, the file beside, and the errors.
        path: File to write.
        overwrite: Whether to replace files that exist.

    Returns:
        The path.
    """
    check_packages("litert")
    return _export(model, path, overwrite, _convert_to_litert, _litert_runner)


def files_at(path: str | os.PathLike) -> tuple[Path, Path]:
    """What an export to `path` writes: the model, and beside it what it takes."""
    path = Path(path)
    return path, path.with_name(f"{path.name}.json")


def check_packages(kind: str) -> None:
    """Raises ImportError if what "onnx" or "litert" needs is not installed."""
    for module in _PACKAGES[kind]:
        _needed(module, kind)


def _export(
    model: Any, path: str | os.PathLike, overwrite: bool, convert: Callable, make_runner: Callable
) -> Path:
    path, description = files_at(path)
    for file in (path, description):
        if file.exists() and not overwrite:
            raise FileExistsError(f"{file} exists. Choose another path or pass `overwrite=True`.")
        if file.is_dir():
            raise ValueError(f"{file} is a folder; a file is written.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        folder = model
        if isinstance(model, keras.Model):
            folder = export_saved_model(model, Path(scratch) / "exported")
        exported = load_exported(folder)
        written = Path(scratch) / "written"
        convert(exported, written)
        _check(exported, make_runner(written, _answer_name(exported)))
        text = json.dumps(describe_encoding(exported), ensure_ascii=False, indent=1)
        described = Path(scratch) / "described"
        described.write_text(text + "\n", encoding="utf-8")
        os.replace(described, description)
        os.replace(written, path)
    return path


def describe_encoding(exported: ExportedModel) -> dict[str, Any]:
    """What a program without kfusion must know to encode rows: inputs, columns, codes, outputs.

    Returns:
        `inputs` and `outputs` by name, dtype and shape; `class_names`; and for a table `columns`,
        in their order: a number, boolean or date (days since 1970-01-01, UTC) as float32, NaN
        where missing; a category as its code, also float32, with those of `missing` and `unseen`.
        Of texts, `token_ids` by input: the words from id 2 on, 1 for others, 0 behind the end.
    """
    signature = exported.signatures[ENCODED_SIGNATURE]
    answer = _answer_name(exported)
    described: dict[str, Any] = {
        "kind": exported.kind,
        "inputs": signature["inputs"],
        "outputs": {answer: signature["outputs"][answer]},
        "class_names": list(exported.class_names),
    }
    if exported.schema is not None:
        described["columns"] = _describe_columns(exported.schema)
        described["token_ids"] = {
            text.input_name: {
                "column": text.name,
                "length": text.vocabulary.length,
                "words": list(text.vocabulary.tokens),
            }
            for text in exported.schema.texts
        }
    return described


def _describe_columns(schema: TableSchema) -> list[dict[str, Any]]:
    columns: list[dict[str, Any]] = []
    for column in schema.matrix_columns:
        told: dict[str, Any] = {"name": column.name, "kind": column.kind}
        if isinstance(column, CategoryColumn):
            told["codes"] = {text: FIRST_CODE + i for i, text in enumerate(column.vocabulary)}
            told |= {"missing": MISSING_CODE, "unseen": UNSEEN_CODE}
        columns.append(told)
    return columns


def _answer_name(exported: ExportedModel) -> str:
    return "prediction" if exported.kind == "regression" else "probabilities"


def _numbers_door(exported: ExportedModel):
    """A TensorFlow function from the encoded inputs to the answer's numbers alone."""
    import tensorflow as tf

    door = exported._loaded.signatures[ENCODED_SIGNATURE]
    answer = _answer_name(exported)
    names = list(exported.specs)

    def run(*tensors):
        return {answer: door(**dict(zip(names, tensors, strict=True)))[answer]}

    signature = [
        tf.TensorSpec((None, *spec.shape), spec.dtype, name=name)
        for name, spec in exported.specs.items()
    ]
    return tf.function(run, input_signature=signature, autograph=False)


def _convert_to_onnx(exported: ExportedModel, path: Path) -> None:
    tf2onnx = _needed("tf2onnx", "onnx")
    function = _numbers_door(exported)
    try:
        tf2onnx.convert.from_function(
            function,
            input_signature=list(function.input_signature),
            opset=_OPSET,
            output_path=str(path),
        )
    except Exception as error:
        raise RuntimeError(f"The model cannot be written as ONNX: {error}") from error


def _convert_to_litert(exported: ExportedModel, path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.exported = exported._loaded
    function = _numbers_door(exported).get_concrete_function()
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"serving_default": function})
        try:
            content = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
        except Exception as error:
            raise RuntimeError(f"The model cannot be written as LiteRT: {error}") from error
    path.write_bytes(content)


def _onnx_runner(path: Path, answer: str) -> Runner:
    session = _needed("onnxruntime", "onnx").InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    return lambda inputs: session.run([answer], inputs)[0]


def _litert_runner(path: Path, answer: str) -> Runner:
    interpreter = _needed("ai_edge_litert.interpreter", "litert").Interpreter(str(path))
    run = interpreter.get_signature_runner("serving_default")
    return lambda inputs: run(**inputs)[answer]


def _check(exported: ExportedModel, run: Runner) -> None:
    """Compares what a file answers with the SavedModel, a batch at once and a row alone."""
    inputs = sample_inputs(exported.specs)
    if exported.schema is not None:
        inputs |= exported.schema.inputs(sample_frame(exported.schema, SAMPLE_ROWS))
    answer = _answer_name(exported)
    expected = exported.predict_encoded(inputs)[answer]
    first = {name: array[:1] for name, array in inputs.items()}
    try:
        given, alone = run(inputs), run(first)
    except Exception as error:
        raise RuntimeError(f"The file cannot be run: {error}. Nothing was written.") from error
    # NaN counts as far off.
    gaps = np.abs(np.concatenate([given, alone]) - np.concatenate([expected, expected[:1]]))
    by_row = np.where(np.isnan(gaps), np.inf, gaps).reshape(len(gaps), -1).max(axis=1)
    allowed = _MOST_DIFFERENCE * max(1.0, float(np.max(np.abs(expected))))
    wrong = np.flatnonzero(by_row > allowed)
    if wrong.size:
        raise RuntimeError(
            "The file answers otherwise than the SavedModel by up to "
            f"{by_row.max():.3g}, more than {allowed:.3g}, in {wrong.size} of {len(by_row)} "
            f"invented rows, such as {wrong[:5].tolist()}. Nothing was written."
        )


def _needed(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is not installed, which this format needs: pip install 'kfusion[{extra}]'."
        ) from error
