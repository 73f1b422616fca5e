"""Everything but the export works on every backend of Keras, each in a process of its own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Tests that every backend must pass; "file" or "file::class".
EVERYWHERE = [
    "test_balanced_batches.py",
    "test_freezing.py::TestFrozenStaysAsItIs",
    "test_losses.py",
    "test_residual.py",
]


def run_on(backend, *command):
    if backend != "tensorflow" and not importlib.util.find_spec(backend):
        pytest.skip(f"needs pip install kfusion[{backend}]")
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert not done.returncode, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_what_holds_on_tensorflow_holds_on_others(backend):
    files = [f"tests/{name}" for name in EVERYWHERE]
    printed = run_on(backend, "-m", "pytest", "-n0", "-p", "no:cacheprovider", *files)
    assert "[100%]" in printed


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_builds_trains_predicts_and_saves(backend):
    printed = run_on(backend, "benchmarks/backends.py")
    result = json.loads(printed.splitlines()[-1])
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
