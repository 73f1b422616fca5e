"""Runs a benchmark in a process for each backend."""

import os
import subprocess
import sys


def run_on_each(measure, backends=("tensorflow", "jax")):
    """Calls `measure` if `KERAS_BACKEND` says which; else runs this program once for each."""
    if "KERAS_BACKEND" in os.environ:
        measure()
        return
    for backend in backends:
        environment = {**os.environ, "KERAS_BACKEND": backend}
        subprocess.run([sys.executable, *sys.argv], env=environment, check=True)
