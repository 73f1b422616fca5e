"""Does everything but the export work on this backend? Prints one line of JSON.

usage: KERAS_BACKEND=jax python benchmarks/backends.py [--models image_edges_table vgg16_table]

Builds a fusion of image, edges and table, and one of a VGG16 at 64x64 (no weights) and a table
with text and missing values. Trains a step of each on random rows, predicts, saves and loads. On
the tensorflow backend it also exports the second and asks it for raw rows.
"""

import argparse
import json
import tempfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from kfusion import (
    TableSchema,
    build_fusion_model,
    edge_branch,
    export_saved_model,
    fit,
    image_branch,
    load_exported,
    predict,
    tabular_branch,
)

ROWS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    models = {"image_edges_table": try_three_branches, "vgg16_table": try_application}
    parser.add_argument("--models", nargs="+", choices=models, default=list(models))
    arguments = parser.parse_args()
    result = {"backend": keras.backend.backend(), "keras": keras.version()}
    for name in arguments.models:
        keras.utils.set_random_seed(0)
        result[name] = models[name](np.random.default_rng(0))
    print(json.dumps(result))


def try_three_branches(generator: np.random.Generator) -> dict[str, object]:
    x = {
        "image": generator.integers(256, size=(ROWS, 12, 12, 3), dtype=np.uint8),
        "tabular": generator.normal(size=(ROWS, 4)).astype(np.float32),
    }
    fusion = build_fusion_model(
        {
            "image": image_branch((12, 12, 3), units=8, augment=True, dropout=0.1),
            "edges": edge_branch((12, 12, 3), units=8),
            "tabular": tabular_branch(4, units=8),
        },
        task="binary",
        fusion="gated",
        auxiliary_heads=True,
    )
    return try_out(fusion, x)


def try_application(generator: np.random.Generator) -> dict[str, object]:
    frame = pd.DataFrame(
        {"age": [31.0, np.nan, 47.0, 58.0] * 4, "site": ["north", None, "NA", "south"] * 4}
    )
    schema = TableSchema.fit(frame)
    x = {
        "image": generator.integers(256, size=(ROWS, 64, 64, 3), dtype=np.uint8),
        "tabular": schema.encode(frame),
    }
    vgg16 = build_fusion_model(
        {
            "image": image_branch((64, 64, 3), backbone="VGG16", units=8),
            "tabular": tabular_branch(schema, units=8),
        },
        task="binary",
        fusion="weighted",
    )
    result = try_out(vgg16, x)
    if keras.backend.backend() == "tensorflow":
        with tempfile.TemporaryDirectory() as folder:
            path = export_saved_model(vgg16, Path(folder) / "model", schema=schema)
            answer = load_exported(path).predict(frame, x["image"])["probabilities"][:, 1:]
        result["export_difference"] = float(np.abs(answer - predict(vgg16, x)).max())
    return result


def try_out(model: keras.Model, x: dict[str, np.ndarray]) -> dict[str, object]:
    """Trains a step, predicts, saves, loads and predicts again."""
    y = np.arange(ROWS) % 2
    before = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    history = fit(
        model,
        x,
        y,
        task="binary",
        validation_data=(x, y),
        epochs=1,
        batch_size=ROWS,
        optimizer="sgd",
        seed=0,
        verbose=0,
    ).history
    predictions = predict(model, x)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        loaded = keras.saving.load_model(Path(folder) / "model.keras", compile=False)
    moved = [
        not np.array_equal(keras.ops.convert_to_numpy(weight), old)
        for weight, old in zip(model.trainable_weights, before, strict=True)
    ]
    return {
        "weights_moved": sum(moved) / len(moved),
        "val_auc": history["val_auc"][-1],
        "finite": bool(np.isfinite(predictions).all()),
        "load_difference": float(np.abs(predict(loaded, x) - predictions).max()),
    }


if __name__ == "__main__":
    main()
