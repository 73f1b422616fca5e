"""What a training step takes in memory beside what `batch_size="memory"` estimates, on a CPU.

Each network trains on a large batch in a process of its own; how much its memory has grown at most
is divided by the estimate for that batch.

usage: KERAS_BACKEND=jax python benchmarks/step_memory.py
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROWS = {"images": 2048, "table": 65536, "ensemble": 16384}


def measure(kind: str) -> None:
    import keras
    import numpy as np

    import kfusion as kf
    from kfusion.models.prediction import feed
    from kfusion.training.memory_batches import estimate_step, train_on_rows_of

    random, rows = np.random.default_rng(0), ROWS[kind]
    if kind == "images":
        x = {"image": random.integers(0, 256, (rows, 32, 32, 3)).astype("uint8")}
        branch = kf.image_branch((32, 32, 3))
    else:
        x = {"tabular": random.normal(size=(rows, 30)).astype("float32")}
        wide = {"units": 512} if kind == "table" else {"encoder": "tabm"}
        branch = kf.tabular_branch(30, **wide)
    model = kf.build_unimodal_model(branch, task="binary")
    kf.compile_model(model, task="binary")
    labels = np.arange(rows) % 2
    outputs = dict.fromkeys(model.output, labels) if isinstance(model.output, dict) else labels
    inputs = feed(model, x)
    step = train_on_rows_of(model, inputs, outputs)
    step(16)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        step(rows)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    estimated = estimate_step(model, inputs)
    result = {
        "benchmark": "step_memory",
        "network": kind,
        "rows": rows,
        "taken_to_estimated": round(grown / (estimated(rows) - estimated(16)), 2),
        "backend": keras.backend.backend(),
        "keras": keras.version(),
    }
    print(json.dumps(result), flush=True)


def main() -> None:
    if len(sys.argv) == 2:
        measure(sys.argv[1])
        return
    for kind in ROWS:
        subprocess.run([sys.executable, __file__, kind], check=True)


if __name__ == "__main__":
    main()
