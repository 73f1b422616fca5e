"""What training from image files takes: memory at two sizes of table, and how well steps are fed.

JPEGs of 64 x 64 to 128 x 128 are written once, and linked under as many names as there are rows.
Each size is trained in a process of its own, which tells its peak memory. Rates are of images:
decoded by one thread a core and nothing else, before and after training; through the batches
alone, as for a model that takes no time; and in training. `waiting` is the share of the last epoch
in which the training loop was blocked because no batch was ready.

usage: python benchmarks/streaming.py [--rows 2000 20000] [--epochs 2] [--small] [--cache]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
from PIL import Image

DISTINCT = 1000
BATCH = 64


def write_table(folder: Path, rows: int) -> Path:
    """Links `rows` names to `DISTINCT` images, and writes the table that names them."""
    random = np.random.default_rng(0)
    sources = folder / "sources"
    if not sources.exists():
        sources.mkdir()
        for number in range(DISTINCT):
            side = int(random.integers(64, 129))
            coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
            smooth = np.asarray(coarse.resize((side, side)), np.float64)
            noisy = np.clip(smooth + random.normal(0, 12, smooth.shape), 0, 255)
            Image.fromarray(noisy.astype(np.uint8)).save(sources / f"{number}.jpg", quality=90)
    names = [f"{rows}/{row // 1000}/{row}.jpg" for row in range(rows)]
    for row, name in enumerate(names):
        if row % 1000 == 0:
            (folder / name).parent.mkdir(parents=True)
        os.link(sources / f"{row % DISTINCT}.jpg", folder / name)
    y = np.arange(rows) % 3 == 0
    table = pd.DataFrame({"image": names, "size": random.normal(size=rows) + y, "y": y.astype(int)})
    table.to_csv(folder / f"{rows}.csv", index=False)
    return folder / f"{rows}.csv"


def peak() -> int:
    """Bytes of memory that this process ever had at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def rate_of_decoding(images, rows: int) -> float:
    """Images a second by one thread a core."""
    from kfusion.data.lazy_rows import in_advance

    starts = range(0, rows, BATCH)
    started = time.perf_counter()
    for _ in in_advance(lambda start: images[start : start + BATCH], starts):
        pass
    return rows / (time.perf_counter() - started)


class Waiting:
    """Seconds that whoever trains is blocked for want of a batch, told by Keras' own queue."""

    def __init__(self):
        from keras.src.trainers.data_adapters.py_dataset_adapter import OrderedEnqueuer

        self.seconds = 0.0
        get = OrderedEnqueuer.get

        def timed(enqueuer):
            batches = get(enqueuer)
            while True:
                started = time.perf_counter()
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                finally:
                    self.seconds += time.perf_counter() - started
                yield batch

        OrderedEnqueuer.get = timed


def rate_of_batches(data) -> float:
    """Images a second for a model that takes no time."""
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    from kfusion.data.row_batches import ShuffledBatches

    adapter = PyDatasetAdapter(ShuffledBatches(data.x, data.y, batch_size=BATCH, seed=0))
    adapter.on_epoch_begin()
    started = time.perf_counter()
    rows = sum(len(y) for _, y in adapter._get_iterator())
    rate = rows / (time.perf_counter() - started)
    adapter.on_epoch_end()
    return rate


def small_network(shape):
    """A network that takes next to no time, so that decoding is what takes it."""
    import keras

    image = keras.Input(shape)
    maps = keras.layers.Conv2D(4, 8, strides=8, activation="relu")(image)
    return keras.Model(image, maps)


def train(data, validation, arguments: argparse.Namespace) -> dict:
    """Rates of the last epoch's steps, without its validation."""
    import keras

    import kfusion as kf

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.started, waiting.seconds = time.perf_counter(), 0.0

        def on_train_batch_end(self, batch, logs=None):
            self.seconds = time.perf_counter() - self.started
            self.waited = waiting.seconds

    waiting, clock = Waiting(), Clock()
    branches = {
        "image": kf.image_branch(
            data.image_shape,
            backbone=small_network(data.image_shape) if arguments.small else "conv",
            units=32,
        ),
        "tabular": kf.tabular_branch(data.schema, units=16),
    }
    model = kf.build_fusion_model(branches, task=data.task)
    kf.fit(
        model, data.x, data.y, task=data.task, validation_data=(validation.x, validation.y),
        epochs=arguments.epochs, batch_size=BATCH, seed=0, callbacks=[clock], verbose=0,
    )  # fmt: skip
    found = {"trained": round(len(data) / clock.seconds)}
    if not arguments.in_memory:
        found["waiting"] = round(clock.waited / clock.seconds, 3)
    return found


def measure(csv: Path, arguments: argparse.Namespace) -> dict:
    """One line: what one size of table takes."""
    import keras

    import kfusion as kf

    started = peak()
    data = kf.load_table(
        csv,
        image_column="image",
        target="y",
        image_shape=(arguments.shape, arguments.shape, 3),
        streaming=not arguments.in_memory,
        use_cache=arguments.cache,
        verbose=0,
    )
    rows, held = data.split(0.1)
    found = {
        "rows": len(data),
        "streaming": not arguments.in_memory,
        "cache": arguments.cache,
        "backend": keras.backend.backend(),
        "decoded_mb": round(data.images.nbytes / 1e6),
    }
    found["loaded_mb"] = round(peak() / 1e6)
    if not arguments.in_memory:
        found["decoded"] = round(rate_of_decoding(rows.images, min(len(rows), 10_000)))
        found["batches"] = round(rate_of_batches(rows[: min(len(rows), 10_000)].with_schema()))
    found["fed_mb"] = round(peak() / 1e6)
    found |= train(rows, held, arguments)
    if not arguments.in_memory and not arguments.cache:
        found["decoded_after"] = round(rate_of_decoding(rows.images, min(len(rows), 10_000)))
    return {**found, "start_mb": round(started / 1e6), "peak_mb": round(peak() / 1e6)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[2000, 20_000])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--shape", type=int, default=64, help="height and width (%(default)s)")
    parser.add_argument("--small", action="store_true", help="train a network of no weight")
    parser.add_argument("--cache", action="store_true", help="keep decoded images on disk")
    parser.add_argument("--in-memory", action="store_true", help="the same without streaming")
    parser.add_argument("--csv", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.csv is not None:
        print(json.dumps(measure(arguments.csv, arguments)), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "KFUSION_CACHE": str(Path(folder) / "cache")}
        for rows in arguments.rows:
            csv = write_table(Path(folder), rows)
            command = [sys.executable, __file__, *sys.argv[1:], "--csv", str(csv)]
            subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    main()
