"""One worker of a search that any number of processes share; see search_on_slurm.sh.

usage: python examples/search_together.py --directory DIR [--trials 40] [--epochs 20]
"""

from __future__ import annotations

import argparse
import json
import os
from functools import partial

import kfusion as kf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", required=True, help="seen by all workers")
    parser.add_argument("--trials", type=int, default=40, help="of all workers together")
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()

    # The same rows in every worker: a study refuses others.
    train, held = kf.datasets.load_landcover().split(0.2, seed=0)
    builders = {
        "image": partial(kf.image_branch, train.image_shape),
        "tabular": partial(kf.tabular_branch, train.schema),
    }
    tuner = kf.search_fusion(
        kf.FusionHyperModel(builders, task=train.task),
        train.x,
        train.y,
        validation_data=(held.x, held.y),
        directory=arguments.directory,
        max_trials=arguments.trials,
        epochs=arguments.epochs,
    )
    trials = tuner.oracle.trials.values()
    told = {
        "worker": os.environ.get("SLURM_ARRAY_TASK_ID", "0"),
        "finished": sum(trial.status not in ("RUNNING", "IDLE") for trial in trials),
        "best_so_far": tuner.oracle.get_best_trials(1)[0].trial_id,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
