"""How long Python takes to start, to import kfusion, and to print the command line's help.

Whole processes, in turn: nothing, NumPy, `import kfusion`, `kfusion --help`. The last two must
load neither Keras nor TensorFlow, which is told.

usage: python benchmarks/import_time.py [--runs 15]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import numpy as np

PROGRAMS = {
    "nothing": "pass",
    "numpy": "import numpy",
    "import_kfusion": "import kfusion",
    "kfusion_help": "from kfusion.cli import main; main(['--help'])",
}
HEAVY = ("keras", "tensorflow", "jax", "torch", "sklearn", "pandas", "matplotlib")
# Also where a program ends itself, as after its help.
LOADED = """
import atexit, sys
atexit.register(lambda: print([m for m in {heavy} if m in sys.modules], file=sys.stderr))
{program}
"""


def loaded_by(program: str) -> list[str]:
    """Which of the heavy packages a program loads."""
    code = LOADED.format(heavy=HEAVY, program=program)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [name for name in HEAVY if f"'{name}'" in done.stderr]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for number in range(1 + arguments.runs):
        for name, program in PROGRAMS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=True)
            if number:
                seconds[name].append(time.perf_counter() - started)
    nothing = np.array(seconds["nothing"])
    for name, found in seconds.items():
        quartiles = np.quantile(found, [0.25, 0.5, 0.75])
        result = {
            "benchmark": "import_time",
            "program": name,
            "median_ms": round(1000 * float(quartiles[1])),
            "quartiles_ms": [round(1000 * float(each)) for each in quartiles[[0, 2]]],
            "median_ms_above_nothing": round(1000 * float(np.median(np.array(found) - nothing))),
            "loads": loaded_by(PROGRAMS[name]),
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
