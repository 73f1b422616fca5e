"""What an exported model costs: latency of one row, rows a second, against Keras' own export.

The same network three ways, called in turn in one process: `model.export` of Keras ("keras"),
`export_saved_model` through its signature `encoded` ("encoded") and with the encoding of raw
columns in the graph ("raw"); and, if they are installed, its ONNX file in ONNX Runtime and its
LiteRT file. A fused network on the land-cover data, and a `FusionClassifier` of all members.

usage: python benchmarks/inference.py [--calls 300] [--rows 1000] [--models fused]
    [--estimator FOLDER]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import kfusion as kf
from kfusion.data.raw_columns import raw_columns

WARM_UP = 20
BATCHES = (1, 256)
MODELS = ("fused", "estimator")

Call = Callable[[], object]


def tell(**facts) -> None:
    print(json.dumps({"benchmark": "inference", **facts}), flush=True)


def fused_model(data: kf.FusionData) -> keras.Model:
    branches = {
        "image": kf.image_branch(data.image_shape, dropout=0.2),
        "tabular": kf.tabular_branch(data.schema, dropout=0.2),
    }
    return kf.build_fusion_model(branches, task=data.task, dropout=0.2, auxiliary_heads=True)


def fitted_estimator(data: kf.FusionData, folder: str | None) -> kf.FusionClassifier:
    if folder is not None:
        return kf.FusionClassifier.load(folder)
    return kf.FusionClassifier(num_folds=4, epochs=1).fit(data)


def timed(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def write_all(name: str, model: keras.Model, schema: kf.TableSchema, folder: Path) -> None:
    """Each format, with what it took to write and its size."""
    model = kf.prediction_model(model)
    writers = {
        "keras": lambda path: model.export(str(path), verbose=False),
        "kfusion": lambda path: kf.export_saved_model(model, path, schema=schema),
    }
    if importlib.util.find_spec("tf2onnx"):
        writers["onnx"] = lambda path: kf.export_onnx(folder / "kfusion", path)
    if importlib.util.find_spec("ai_edge_litert"):
        writers["litert"] = lambda path: kf.export_litert(folder / "kfusion", path)
    for kind, write in writers.items():
        path = folder / kind
        seconds = timed(lambda write=write, path=path: write(path))
        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        size = sum(each.stat().st_size for each in files)
        tell(model=name, kind=kind, seconds_to_write=round(seconds, 1), megabytes=size / 1e6)


def callers(folder: Path, x: dict, raw: dict) -> dict[str, Call]:
    """A call of the same rows for each kind."""
    tensors = {key: tf.constant(array) for key, array in x.items()}
    columns = {key: tf.constant(array) for key, array in raw.items()}
    plain, ours = (tf.saved_model.load(str(folder / kind)) for kind in ("keras", "kfusion"))
    found: dict[str, Call] = {
        "keras": lambda: plain.signatures["serving_default"](**tensors),
        "encoded": lambda: ours.signatures["encoded"](**tensors),
        "raw": lambda: ours.signatures["serving_default"](**columns),
    }
    if (folder / "onnx").exists():
        import onnxruntime

        session = onnxruntime.InferenceSession(str(folder / "onnx"))
        found["onnx"] = lambda: session.run(["probabilities"], x)
    if (folder / "litert").exists():
        from ai_edge_litert.interpreter import Interpreter

        # Its signature takes the first sizes that it was asked for: one for each batch.
        run = Interpreter(str(folder / "litert")).get_signature_runner("serving_default")
        found["litert"] = lambda: run(**x)
    return found


def measure(name: str, calls: dict[str, Call], batch: int, count: int) -> None:
    """Calls of all kinds in turn; ratios of those that follow one another."""
    milliseconds: dict[str, list[float]] = {kind: [] for kind in calls}
    for number in range(WARM_UP + count):
        for kind, call in calls.items():
            took = 1000 * timed(call)
            if number >= WARM_UP:
                milliseconds[kind].append(took)
    plain = np.array(milliseconds["keras"])
    for kind, found in milliseconds.items():
        quartiles = np.quantile(found, [0.25, 0.5, 0.75])
        tell(
            model=name,
            kind=kind,
            batch=batch,
            median_ms=round(float(quartiles[1]), 3),
            quartiles_ms=[round(float(each), 3) for each in quartiles[[0, 2]]],
            rows_per_second=round(1000 * batch / float(quartiles[1])),
            ratio_to_keras=round(float(np.median(np.array(found) / plain)), 3),
        )


def compare(name: str, model: keras.Model, schema: kf.TableSchema, data, count: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_all(name, model, schema, folder)
        served = kf.load_exported(folder / "kfusion").served_names
        for batch in BATCHES:
            rows = np.arange(batch) % len(data)
            frame, images = data.frame.iloc[rows], data.x["image"][rows]
            x = {"image": images, "tabular": schema.encode(frame)}
            raw = {served[key]: each for key, each in raw_columns(schema, frame).items()}
            calls = callers(folder, x, {**raw, "image": images})
            measure(name, calls, batch, count if batch == 1 else max(10, count // 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--estimator", help="folder of a FusionClassifier on the land cover")
    arguments = parser.parse_args()
    whole = kf.datasets.load_landcover()
    data = whole[np.arange(arguments.rows)].with_schema()
    tell(tensorflow=tf.__version__, keras=keras.__version__, cores=os.cpu_count())
    if "fused" in arguments.models:
        compare("fused", fused_model(data), data.schema, data, arguments.calls)
    if "estimator" in arguments.models:
        estimator = fitted_estimator(data, arguments.estimator)
        compare("estimator", estimator.model_, estimator.schema_, data, arguments.calls)


if __name__ == "__main__":
    main()
