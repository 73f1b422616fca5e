"""How long an estimator takes to fit, judge itself and export: 32 x 32 images and 13 columns.

Images and columns are drawn; each tells a part of the class, a tenth of the numbers is missing.

usage: python benchmarks/estimator_speed.py [--rows 2000] [--effort default fast] [--export]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd

import kfusion as kf


def draw(rows: int, seed: int) -> tuple[dict, np.ndarray]:
    random = np.random.default_rng(seed)
    y = random.integers(2, size=rows)
    pixels = random.normal(120, 40, size=(rows, 32, 32, 3)) + 4 * y[:, None, None, None]
    numbers = random.normal(size=(rows, 12)) + 0.25 * y[:, None]
    numbers[random.random(numbers.shape) < 0.1] = np.nan
    frame = pd.DataFrame(numbers, columns=[f"number_{i}" for i in range(12)])
    frame["site"] = random.choice(["north", "south", "west"], rows)
    return {"image": pixels.clip(0, 255).astype("uint8"), "tabular": frame}, y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--effort", nargs="+", default=["default"])
    parser.add_argument("--export", action="store_true")
    arguments = parser.parse_args()
    x, y = draw(arguments.rows, 0)
    fresh_x, fresh_y = draw(1000, 1)
    for effort in arguments.effort:
        started = time.perf_counter()
        model = kf.FusionClassifier(effort=effort, random_state=0).fit(x, y)
        fitted = time.perf_counter()
        verdict = model.evidence_.verdict
        found = {
            "benchmark": "estimator_speed",
            "effort": effort,
            "rows": arguments.rows,
            "fit_s": round(fitted - started, 1),
            "evidence_s": round(time.perf_counter() - fitted, 1),
            "fresh_accuracy": round(model.score(fresh_x, fresh_y), 4),
            "verdict": verdict,
        }
        if arguments.export:
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                model.export(Path(folder) / "model")
                found["export_s"] = round(time.perf_counter() - started, 1)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
