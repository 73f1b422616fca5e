"""The most memory that each side of the other benchmarks holds at once, in a process of its own.

The operating system's account of each process (`ru_maxrss`), imports included; this one imports
nothing large, which the account of a child would begin with. A line has the side's ratio to the
first of its part, which is what others do. pytorch-widedeep's and streaming's are in the lines of
`fit_overhead.py` and `streaming.py`.

usage: python benchmarks/peak_memory.py [--parts a b c d f g]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
HEADS = "import many_heads as m; m.{train}(8, m.make_rows(), 0)"
EXPORT = """
import sys
import inference as i
import kfusion as kf
from pathlib import Path
data = kf.datasets.load_landcover()
i.write_all("fused", i.fused_model(data), data.schema, Path(sys.argv[1]))
"""
# Loads an exported model and asks it for a row of zeros a hundred times.
SERVE = """
import sys
import tensorflow as tf
ask = tf.saved_model.load(sys.argv[1]).signatures[sys.argv[2]]
given = ask.structured_input_signature[1].values()
row = {each.name: tf.zeros([1, *each.shape[1:]], each.dtype) for each in given}
for _ in range(100):
    ask(**row)
"""


def script(name: str, *arguments: str) -> list[str]:
    return [str(HERE / name), *arguments]


def programs(part: str, folder: str) -> dict[str, list[str]]:
    """Arguments of Python for each side of a part; first what others do."""
    if part == "f":
        run(["-c", EXPORT, folder])
        signatures = {"keras": "serving_default", "kfusion": "encoded"}
        return {
            side: ["-c", SERVE, str(Path(folder) / side), name] for side, name in signatures.items()
        }
    trainers = {
        "keras_tuner, 8 trials": "train_keras_tuner",
        "optuna, 8 trials": "train_optuna",
        "kfusion one by one, 8 trials": "train_fresh",
        "kfusion stacked, 8 trials": "train_stacked",
    }
    small = ("--network", "MobileNetV2", "--rows", "400", "--epochs", "3")
    return {
        "a": {side: ["-c", HEADS.format(train=train)] for side, train in trainers.items()},
        "b": {
            side: script("feature_cache.py", *small, "--only-side", side)
            for side in ("whole", "cached")
        },
        "c": {
            side: script("fit_overhead.py", "--networks", "both", "--only-side", side)
            for side in ("keras", "keras_exact", "kfusion")
        },
        "d": {
            side: script("cross_validation.py", "--only-side", side)
            for side in ("plain_loop", "kfusion")
        },
        "g": {
            "numpy": ["-c", "import numpy"],
            "kfusion": ["-c", "import kfusion"],
            "kfusion --help": ["-m", "kfusion", "--help"],
        },
    }[part]


def run(arguments: list[str]) -> float:
    """Megabytes that a Python process held at most."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), environment.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{arguments} ended with {process.returncode}.")
    return used.ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=list("abcdfg"), default=list("abcdfg"))
    for part in parser.parse_args().parts:
        first = None
        with tempfile.TemporaryDirectory() as folder:
            for side, arguments in programs(part, folder).items():
                peak = run(arguments)
                first = first or peak
                line = {"benchmark": "peak_memory", "part": part, "side": side}
                line |= {"peak_mb": round(peak), "ratio": round(peak / first, 3)}
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
