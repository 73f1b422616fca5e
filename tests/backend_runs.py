"""Programs on a backend of Keras, each in a process of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run_on(backend, *command, **environment):
    """What Python prints, given a command line; the test is skipped if there is no such backend."""
    if backend != "tensorflow" and not importlib.util.find_spec(backend):
        pytest.skip(f"needs pip install kfusion[{backend}]")
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT), **environment},
        check=False,
    )
    assert not done.returncode, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
