"""A search on a Ray cluster: its workers share one study.

Starts a local cluster; give `--address` to use one that runs already. The directory must be seen by
all its machines; with `--storage` (a database) it still keeps the weights. Needs the extra `ray`.

usage: python examples/search_on_ray.py [--address auto] [--workers 2] [--trials 20]
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import joblib
import keras_tuner
import ray
from ray.util.joblib import register_ray

import kfusion as kf


def search_on_cluster(tuner: kf.OptunaTuner, *rows: Any, workers: int, **keywords: Any) -> None:
    """Runs a tuner's trials on workers of the cluster that Ray is connected to."""
    register_ray()
    with joblib.parallel_config(backend="ray"):
        tuner.search(*rows, n_jobs=workers, **keywords)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", help="of a cluster (default: start one here)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--directory", default="trials")
    parser.add_argument("--storage", help="URL of a database, in place of a file in the directory")
    arguments = parser.parse_args()

    ray.init(address=arguments.address, include_dashboard=False, log_to_driver=False)
    train, held = kf.datasets.load_landcover().split(0.2, seed=0)
    builders = {
        "image": partial(kf.image_branch, train.image_shape),
        "tabular": partial(kf.tabular_branch, train.schema),
    }
    hypermodel = kf.FusionHyperModel(builders, task=train.task)
    tuner = kf.OptunaTuner(
        hypermodel,
        keras_tuner.Objective(*train.task.objective),
        arguments.trials,
        directory=arguments.directory,
        storage=arguments.storage,
    )
    search_on_cluster(
        tuner,
        train.x,
        train.y,
        workers=arguments.workers,
        validation_data=(held.x, held.y),
        epochs=20,
    )
    print(kf.analyse(tuner).summary())


if __name__ == "__main__":
    main()
