"""What a useless input costs: the estimator beside its best single input, one of them pure noise.

Rows of cropland (shipped; groups whole); "image" replaces each image by noise, "table" deals the
rows of the table anew, "both" does both. Per seed, the AUC on rows never seen of the blend, and of
each single input's own members (means over the same folds), of which the best is an oracle.

usage: python benchmarks/useless_input.py [--noise image table both] [--seeds 0 1 ... 9]
    [--rows 800] [--effort default]
"""

from __future__ import annotations

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import kfusion as kf
from kfusion.estimators.fusion_estimators import FusionClassifier

NOISES = ["image", "table", "both"]


def spoil(data: kf.FusionData, noise: str, random) -> dict:
    images, frame = data.images, data.frame
    if noise in ("image", "both"):
        images = random.integers(256, size=images.shape).astype(np.uint8)
    if noise in ("table", "both"):
        frame = frame.iloc[random.permutation(len(frame))].reset_index(drop=True)
    return {"image": images, "tabular": frame}


def measure(noise: str, seed: int, rows: int, effort: str) -> dict:
    keras.backend.clear_session()
    data = kf.datasets.load_cropland()
    random = np.random.default_rng(seed)
    groups = random.permutation(np.unique(data.groups))
    # Whole groups until there are rows enough.
    position = {group: i for i, group in enumerate(groups)}
    order = np.argsort([position[group] for group in data.groups], kind="stable")
    train, test = data[order[:rows]], data[order[rows:]]
    kept = ~np.isin(test.groups, train.groups)
    test = test[kept]
    x, fresh = spoil(train, noise, random), spoil(test, noise, random)
    started = time.perf_counter()
    model = FusionClassifier(effort=effort, random_state=seed)
    model.fit(x, train.y, groups=train.groups)
    seconds = time.perf_counter() - started
    encoded = model._encode_for_members(model._read(fresh, reset=False))
    singles = {
        name: kf.metrics.roc_auc(
            test.y, np.mean([kf.predict(part, encoded) for part in result.models], axis=0)
        )
        for name, result in model.results_.items()
        if name in model.evidence_.singles
    }
    auc = kf.metrics.roc_auc(test.y, model.predict_proba(fresh)[:, 1])
    return {
        "benchmark": "useless_input",
        "noise": noise,
        "seed": seed,
        "rows": len(train),
        "positives": int(train.y.sum()),
        "auc": round(auc, 5),
        "against_best_single": round(auc - max(singles.values()), 5),
        **{f"auc_{name}": round(value, 5) for name, value in singles.items()},
        "weights": {name: round(weight, 4) for name, weight in model.weights_.items()},
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--noise", nargs="+", choices=NOISES, default=NOISES)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--effort", default="default")
    arguments = parser.parse_args()
    gaps: dict[str, list[float]] = {noise: [] for noise in arguments.noise}
    for seed in arguments.seeds:
        for noise in arguments.noise:
            line = measure(noise, seed, arguments.rows, arguments.effort)
            gaps[noise].append(line["against_best_single"])
            print(json.dumps(line), flush=True)
    for noise, values in gaps.items():
        summary = {
            "benchmark": "useless_input_summary",
            "noise": noise,
            "runs": len(values),
            "mean_against_best_single": round(float(np.mean(values)), 5),
            "worst_against_best_single": round(float(np.min(values)), 5),
        }
        print(json.dumps(summary), flush=True)


if __name__ == "__main__":
    main()
