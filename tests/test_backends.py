"""Everything but the export works on every backend of Keras, each in a process of its own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_builds_trains_predicts_and_saves(backend):
    if backend != "tensorflow" and not importlib.util.find_spec(backend):
        pytest.skip(f"needs pip install kfusion[{backend}]")
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "backends.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert not done.returncode, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["backend"] == backend
    for model in ("image_edges_table", "vgg16_table"):
        assert result[model]["finite"], model
        assert result[model]["weights_moved"] == 1, model
        assert result[model]["load_difference"] < 1e-5, model
        assert 0 <= result[model]["val_auc"] <= 1, model
    if backend == "tensorflow":
        assert result["export_difference"] < 1e-5
    else:
        assert result["export_difference"] is None
