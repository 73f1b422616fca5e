"""Trains the network of `fit_overhead.py` with pytorch-widedeep, once for each line on stdin.

Runs in a Python of its own that has torch and pytorch-widedeep, without kfusion:

    python -m venv FOLDER && FOLDER/bin/pip install torch pytorch-widedeep
    python benchmarks/fit_overhead.py --widedeep FOLDER/bin/python

usage: python benchmarks/widedeep_fit.py ROWS.npz
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings

import numpy as np
import pytorch_widedeep
import torch
from pytorch_widedeep import Trainer
from pytorch_widedeep.callbacks import Callback
from pytorch_widedeep.metrics import Accuracy
from pytorch_widedeep.models import TabMlp, WideDeep


class Images(torch.nn.Module):
    """Two convolutions and the average over positions."""

    output_dim = 32

    def __init__(self):
        super().__init__()
        parts = []
        for before, filters in ((3, 16), (16, 32)):
            convolution = torch.nn.Conv2d(before, filters, 3, padding="same")
            parts += [convolution, torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        self.layers = torch.nn.Sequential(*parts)

    def forward(self, images):
        return self.layers(images).mean(dim=(2, 3))


class Clock(Callback):
    """Notes when epochs start."""

    def __init__(self):
        super().__init__()
        self.starts = []

    def on_train_begin(self, logs=None):
        self.starts.append(time.perf_counter())

    def on_epoch_end(self, epoch, logs=None, metric=None):
        self.starts.append(time.perf_counter())


def build(rows) -> WideDeep:
    columns = [f"c{i}" for i in range(rows["x_tabular"].shape[1])]
    table = TabMlp(
        column_idx={name: i for i, name in enumerate(columns)},
        continuous_cols=columns,
        mlp_hidden_dims=[64, 64],
        mlp_dropout=0.0,
    )
    return WideDeep(
        deeptabular=table,
        deepimage=Images() if "x_image" in rows else None,
        head_hidden_dims=[64],
        head_dropout=0.0,
        pred_dim=int(rows["classes"]),
    )


def train(rows, epochs: int, batch: int, threads: int) -> dict:
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    model, clock = build(rows), Clock()
    names = {"x_tabular": "X_tab", "x_image": "X_img"}
    given = {ours: rows[name] for name, ours in names.items() if name in rows}
    held = {ours: rows[name.replace("x_", "held_")] for name, ours in names.items() if name in rows}
    started, cpu = time.perf_counter(), time.process_time()
    # Batches are made in this process: by default processes made anew for each pass take longer.
    trainer = Trainer(
        model, objective="multiclass", optimizers=torch.optim.Adam(model.parameters()),
        metrics=[Accuracy], callbacks=[clock], verbose=0, num_workers=0,
    )  # fmt: skip
    trainer.fit(
        X_train={**given, "target": rows["y"]}, X_val={**held, "target": rows["held_y"]},
        n_epochs=epochs, batch_size=batch,
    )  # fmt: skip
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
        # As of the others: the start of each epoch.
        "starts": clock.starts[:-1],
        "parameters": sum(each.numel() for each in model.parameters()),
        "last_val_accuracy": trainer.history["val_acc"][-1],
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6),
    }


def main() -> None:
    warnings.simplefilter("ignore")
    rows = dict(np.load(sys.argv[1]).items())
    rows["y"], rows["held_y"] = (rows[name].astype("int64") for name in ("y", "held_y"))
    # Only answers go to stdout.
    answers, sys.stdout = sys.stdout, sys.stderr
    versions = {"torch": torch.__version__, "widedeep": pytorch_widedeep.__version__}
    print(json.dumps(versions), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(train(rows, **asked)), file=answers, flush=True)


if __name__ == "__main__":
    main()
