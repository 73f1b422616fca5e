"""A trained model as a TensorFlow SavedModel that takes raw columns and has checked itself."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kfusion.branches.text import text_vectorization
from kfusion.data.inputs import TABULAR, InputSpec
from kfusion.data.raw_columns import (
    encode_tensors,
    raw_columns,
    raw_dtype,
    sample_frame,
    served_names,
)
from kfusion.data.tables import TableSchema
from kfusion.exports.card_facts import CardFacts
from kfusion.exports.inference_graph import inference_model
from kfusion.exports.model_card import write_model_card
from kfusion.exports.serving import DESCRIPTION_FILE, ENCODED_SIGNATURE, FORMAT, RAW_SIGNATURE
from kfusion.layers import (
    CategoryEmbedding,
    Frozen,
    MemberMean,
    NumberScaling,
    Presence,
    QuantileScaling,
)
from kfusion.models.building import prediction_model, presence_name
from kfusion.models.prediction import feed, input_specs
from kfusion.models.trained_models import layers_within
from kfusion.tasks import Task
from kfusion.versions import library_versions
from kfusion.whole_folders import whole_folder

TOLERANCE = 1e-5
# Weights up to so many bytes are constants of the graph; a graph of 2 GB could not be written.
_MOST_CONSTANTS = 2**26
SAMPLE_ROWS = 64
_KINDS = {"sigmoid": "binary", "softmax": "multiclass", "linear": "regression"}


def export_saved_model(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    schema: TableSchema | None = None,
    class_names: Sequence[str] | None = None,
    image_columns: Mapping[str, str] | None = None,
    overwrite: bool = False,
    facts: CardFacts | None = None,
) -> Path:
    """Writes a SavedModel that TensorFlow alone can serve, and checks that it answers the same.

    Its signature `serving_default` takes the model's inputs that are not made of the table, such
    as `image`, uint8 `(rows, height, width, channels)`, and every raw column of the table by its
    name, `(rows,)`: categories and text as strings ("" is missing), dates as ISO 8601 strings,
    numbers and booleans as float32 (NaN is missing). TensorFlow allows
    ASCII letters, digits and underscores in names; `served_names` in the folder's `kfusion.json`
    says what became of others. Its signature
    `encoded` takes the model's own inputs. Both answer `probabilities` `(rows, classes)`, `class`
    `(rows,)` and `class_names` `(rows, classes)`, or, for a regression, `prediction` `(rows,)`.

    What is written is `inference_model(model)`, with weights of up to 64 MB as constants of the
    graph, so that nothing is computed for a request that is the same for all.

    The result is loaded in a fresh process that has TensorFlow but not kfusion, and made to
    predict invented rows (usual, missing and unseen values) through both. A model card
    (`README.md`, with an example request) and `signature.json` lie beside it. Nothing is left at
    `path` if the answers differ from the Keras model's by more than 1e-5.

    Args:
        model: A trained `keras.Model`; of several heads the one called "prediction" is kept.
        path: Folder to write. It appears whole or not at all.
        schema: `TableSchema` that encodes the `tabular` input and those of text; without it only
            the encoded inputs are served. Text columns that the model does not take are left out.
        class_names: Names in the order of the labels; by default the labels.
        image_columns: Name of the column of image files in the user's tables by input name, kept
            for `kfusion predict`; by default each input's own name.
        overwrite: Whether to replace a folder that exists.
        facts: `CardFacts` for the model card: what is known of the rows and the scores.

    Returns:
        The path.

    Raises:
        FileExistsError: If `path` exists and `overwrite` is false.
        ValueError: If the schema or class names do not fit the model.
        RuntimeError: If the backend is not tensorflow, or the check fails.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"A SavedModel is written on the tensorflow backend, not {keras.backend.backend()}: "
            "save with `model.save('model.keras')`, then load and export it in a process with "
            "KERAS_BACKEND=tensorflow."
        )
    model = prediction_model(model)
    kind = _prediction_kind(model)
    names = _check_class_names(kind, int(model.outputs[0].shape[-1]), class_names)
    specs = input_specs(model)
    if schema is not None:
        schema = schema.only({TABULAR, *specs})
        _check_schema(schema, model)
    served = inference_model(model)
    answer = _answering(served, kind, names)
    signatures = {ENCODED_SIGNATURE: (lambda inputs: answer(inputs), _model_specs(model))}
    vectorizers: dict[str, keras.layers.Layer] = {}
    if schema is not None:
        vectorizers = {text.name: text_vectorization(text.vocabulary) for text in schema.texts}
        signatures[RAW_SIGNATURE] = _raw_signature(model, answer, schema, vectorizers)
    else:
        signatures[RAW_SIGNATURE] = signatures[ENCODED_SIGNATURE]
    description = {
        "format": FORMAT,
        "kind": kind,
        "class_names": list(names),
        "image_columns": _image_columns(specs, image_columns or {}),
        "inputs": {name: [list(spec.shape), spec.dtype] for name, spec in specs.items()},
        "may_be_missing": _may_be_missing(model),
        "schema": None if schema is None else json.loads(schema.to_json()),
        "served_names": {} if schema is None else served_names(schema, list(specs)),
        "versions": library_versions(),
        "exported_on": datetime.date.today().isoformat(),
    }
    with whole_folder(path, overwrite=overwrite, known_by=DESCRIPTION_FILE) as folder:
        archive = keras.export.ExportArchive()
        if answer.captured_inputs:
            archive.track(served)
        for vectorizer in vectorizers.values():
            archive.track(vectorizer)
        for name, (function, signature) in signatures.items():
            archive.add_endpoint(name, function, input_signature=[signature])
        archive.write_out(str(folder), verbose=False)
        text = json.dumps(description, ensure_ascii=False, indent=1)
        (folder / DESCRIPTION_FILE).write_text(text, encoding="utf-8")
        write_model_card(folder, description, facts)
        _check_served(folder, model, kind, schema)
    return Path(path)


def _prediction_kind(model: keras.Model) -> str:
    """The task's kind, from the activation of the layer that answers."""
    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        shapes = [tuple(output.shape) for output in model.outputs]
        raise ValueError(f"A model to export has one output (rows, units). Received: {shapes}.")
    # A Sequential model has no `operations`; in a nested model the inner one's last layer counts,
    # of an ensemble's mean what is averaged.
    operations = getattr(model, "operations", model.layers)
    last = [each for each in operations if not isinstance(each, MemberMean)][-1]
    if isinstance(last, Frozen):
        last = last.model
    if isinstance(last, keras.Model):
        return _prediction_kind(last)
    if isinstance(last, keras.layers.Rescaling):
        return "regression"
    activation = getattr(last, "activation", type(last).__name__.lower())
    name = activation if isinstance(activation, str) else activation.__name__
    if name not in _KINDS:
        raise ValueError(f"The model must end in one of {sorted(_KINDS)}. Received: {name}.")
    units = model.outputs[0].shape[-1]
    if name != "softmax" and units != 1:
        raise ValueError(f"A model that ends in {name} must have 1 unit. Received: {units}.")
    return _KINDS[name]


def _check_class_names(kind: str, units: int, class_names: Sequence[str] | None) -> tuple[str, ...]:
    if kind == "regression":
        if class_names:
            raise ValueError("A regression has no class names.")
        return ()
    num_classes = 2 if kind == "binary" else units
    if class_names is None:
        return tuple(str(label) for label in range(num_classes))
    if len(class_names) != num_classes:
        raise ValueError(
            f"The model has {num_classes} classes. Received: class_names={list(class_names)}."
        )
    return tuple(str(name) for name in class_names)


def _check_schema(schema: TableSchema, model: keras.Model) -> None:
    specs = input_specs(model)
    if schema.matrix_columns:
        if TABULAR not in specs:
            raise ValueError(f"The model has no input {TABULAR!r} for the schema: {sorted(specs)}.")
        width = specs[TABULAR].shape[0]
        if width != schema.num_columns:
            raise ValueError(
                f"The schema has {schema.num_columns} columns; the model takes {width}."
            )
    elif not schema.texts:
        raise ValueError(f"The model has no input for the schema's columns: {sorted(specs)}.")
    for text in schema.texts:
        length = specs[text.input_name].shape[0]
        if length != text.vocabulary.length:
            raise ValueError(
                f"The model takes {length} tokens of {text.name!r}, the schema has "
                f"{text.vocabulary.length}: pass that of the training rows, `train.schema`."
            )
    scales = [[column.center for column in schema.numbers], [c.spread for c in schema.numbers]]
    quantiles = [list(column.quantiles) for column in schema.numbers]
    num_codes = [column.num_codes for column in schema.categories]
    for layer in layers_within(model):
        is_scaling = isinstance(layer, NumberScaling) and layer.limit
        if (
            (is_scaling and [layer.center, layer.spread] != scales)
            or (isinstance(layer, QuantileScaling) and layer.quantiles != quantiles)
            or (isinstance(layer, CategoryEmbedding) and layer.num_codes != num_codes)
        ):
            raise ValueError(
                "The schema is not the one that the model's tabular branch was built from: pass "
                "that of the training rows, `train.schema`."
            )


def _image_columns(specs: Mapping[str, InputSpec], given: Mapping[str, str]) -> dict[str, str]:
    """The column of each input that a file could hold; those given first, in their order."""
    images = [
        name for name, spec in specs.items() if spec.dtype == "uint8" and len(spec.shape) == 3
    ]
    ordered = [name for name in given if name in images]
    ordered += [name for name in images if name not in given]
    return {name: given.get(name, name) for name in ordered}


def _may_be_missing(model: keras.Model) -> list[str]:
    """Names of the inputs of which the model knows rows that lack them."""
    known = [layer.name for layer in layers_within(model) if isinstance(layer, Presence)]
    return [name for name in input_specs(model) if presence_name(name) in known]


def _answering(model: keras.Model, kind: str, names: tuple[str, ...]) -> Any:
    """The graph from a model's inputs to its answers, traced once for all signatures."""
    import tensorflow as tf

    variables = (model.trainable_variables, model.non_trainable_variables)
    are_constants = model.count_params() * 4 <= _MOST_CONSTANTS
    arrays = [[np.asarray(each) for each in some] for some in variables] if are_constants else []

    def run(inputs):
        given = feed(model, inputs)
        if not are_constants:
            return _answer(model(given, training=False), kind, names)
        weights = [[tf.constant(each) for each in some] for some in arrays]
        predictions, _ = model.stateless_call(*weights, given, training=False)
        return _answer(predictions, kind, names)

    traced = tf.function(run, input_signature=[_model_specs(model)], autograph=False)
    # Called as it is, TensorFlow would trace it twice.
    return traced.get_concrete_function()


def _raw_signature(
    model: keras.Model,
    answer: Callable[..., Any],
    schema: TableSchema,
    vectorizers: Mapping[str, keras.layers.Layer],
):
    import tensorflow as tf

    signature = _model_specs(model)
    encoded = {text.input_name: text.name for text in schema.texts}
    others = [name for name in signature if name not in encoded and name != TABULAR]
    served = served_names(schema, list(signature))

    def serve(raw):
        inputs = {name: raw[name] for name in others}
        columns = {column: raw[name] for column, name in served.items()}
        if TABULAR in signature:
            inputs[TABULAR] = encode_tensors(schema, columns)
        for name, column in encoded.items():
            ids = vectorizers[column](columns[column])
            inputs[name] = tf.cast(ids, signature[name].dtype)
        return answer(inputs)

    given = {name: signature[name] for name in others}
    for column in schema.columns:
        name = served[column.name]
        given[name] = tf.TensorSpec((None,), raw_dtype(column), name=name)
    return serve, given


def _model_specs(model: keras.Model) -> dict[str, Any]:
    import tensorflow as tf

    return {
        name: tf.TensorSpec((None, *spec.shape), spec.dtype, name=name)
        for name, spec in input_specs(model).items()
    }


def _answer(predictions: Any, kind: str, names: tuple[str, ...]) -> dict[str, Any]:
    """What both signatures give; class names once per row, as servers that split rows need."""
    import tensorflow as tf

    if kind == "regression":
        return {"prediction": predictions[:, 0]}
    if kind == "binary":
        predictions = tf.concat([1 - predictions, predictions], axis=1)
    table = tf.constant(names)
    return {
        "probabilities": predictions,
        "class": tf.gather(table, tf.argmax(predictions, axis=1)),
        "class_names": tf.repeat(table[None, :], tf.shape(predictions)[0], axis=0),
    }


def _check_served(folder: Path, model: keras.Model, kind: str, schema: TableSchema | None) -> None:
    """Compares the written model with the Keras model, through both doors, in a fresh process."""
    inputs = sample_inputs(input_specs(model))
    sample: dict[str, Any] = {}
    if schema is not None:
        frame = sample_frame(schema, SAMPLE_ROWS)
        encoded = schema.inputs(frame)
        raw = {name: array for name, array in inputs.items() if name not in encoded}
        inputs |= encoded
        served = served_names(schema, list(inputs))
        raw |= {served[name]: array for name, array in raw_columns(schema, frame).items()}
    else:
        raw = inputs
    for signature, arrays in {RAW_SIGNATURE: raw, ENCODED_SIGNATURE: inputs}.items():
        for name, array in arrays.items():
            is_text = array.dtype == object
            sample[f"{signature}/{name}"] = array.astype(np.str_) if is_text else array
    # On the processor on both sides: a GPU's own rounding is no fault of the export. Not through
    # `predict`: to trace a model of many folds takes a hundred times as long as to run it.
    with keras.device("cpu"):
        expected = np.asarray(model(feed(model, inputs), training=False), np.float32)
    expected = expected[:, 0] if kind == "regression" else Task(kind).probabilities(expected)
    with tempfile.TemporaryDirectory() as scratch:
        sample_path = Path(scratch) / "sample.npz"
        np.savez(sample_path, expected=expected, **sample)
        program = Path(__file__).with_name("served_check.py")
        done = subprocess.run(
            [sys.executable, "-P", str(program), str(folder), str(sample_path)],
            capture_output=True,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"The exported model cannot be served:\n{done.stderr[-2000:]}")
    differences = json.loads(done.stdout.splitlines()[-1])
    scale = max(1.0, float(np.max(np.abs(expected))))
    wrong = {name: gap for name, gap in differences.items() if not gap <= TOLERANCE * scale}
    if wrong:
        raise RuntimeError(
            f"The exported model differs from the Keras model by {wrong} on invented rows, more "
            f"than {TOLERANCE:g}: nothing was written."
        )


def sample_inputs(specs: Mapping[str, InputSpec], rows: int = SAMPLE_ROWS) -> dict[str, np.ndarray]:
    """Invents rows of a model's own inputs: pixels, ids of tokens, numbers."""
    generator = np.random.default_rng(0)
    inputs = {}
    for name, spec in specs.items():
        shape = (rows, *(size or 8 for size in spec.shape))
        if spec.dtype == "uint8":
            inputs[name] = generator.integers(256, size=shape, dtype=np.uint8)
        elif np.issubdtype(spec.dtype, np.integer):
            # Ids of tokens: those that every vocabulary has.
            inputs[name] = generator.integers(3, size=shape).astype(spec.dtype)
        else:
            inputs[name] = generator.normal(size=shape).astype(spec.dtype)
    return inputs
