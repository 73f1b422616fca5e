"""Asks an exported model with TensorFlow alone: no kfusion, raw strings and pixels.

Works for models whose images need no resizing. A row that names no file is sent as zeros, which
models that list "image" in `may_be_missing` of the folder's kfusion.json know as missing. Names of
columns are those of `served_names` there; values are text or numbers as its schema says, empty
where missing.

usage: python examples/serve_without_kfusion.py kfusion-demo/saved_model kfusion-demo/landcover.csv
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

ROWS = 5


def read_image(folder: Path, name: str, shape: list[int]) -> np.ndarray:
    if not name:
        return np.zeros(shape, np.uint8)
    return np.asarray(Image.open(folder / name)).reshape(shape)


def main(model_dir: str, csv_path: str) -> None:
    loaded = tf.saved_model.load(model_dir)
    serve = loaded.signatures["serving_default"]
    description = json.loads((Path(model_dir) / "kfusion.json").read_text(encoding="utf-8"))
    with open(csv_path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:ROWS]

    column = description["image_columns"]["image"]
    shape = description["inputs"]["image"][0]
    images = [read_image(Path(csv_path).parent, row[column], shape) for row in rows]
    given = {"image": tf.constant(np.stack(images))}
    dtypes = serve.structured_input_signature[1]
    for name, served in description["served_names"].items():
        values = [row[name] for row in rows]
        if dtypes[served].dtype == tf.float32:
            values = [float(value or "nan") for value in values]
        given[served] = tf.constant(values)

    answers = serve(**given)
    for row, name, probabilities in zip(
        rows, answers["class"].numpy(), answers["probabilities"].numpy(), strict=True
    ):
        print(json.dumps([row[column], name.decode(), [round(float(p), 6) for p in probabilities]]))
    assert "kfusion" not in sys.modules


if __name__ == "__main__":
    main(*sys.argv[1:])
