"""Cross-validation on a Ray cluster: one line says where the folds run.

Starts a local cluster; give `--address` to use one that runs already. Needs the extra `ray`.

usage: python examples/folds_on_ray.py [--address auto] [--jobs 2]
"""

from __future__ import annotations

import argparse

import joblib
import ray
from ray.util.joblib import register_ray

import kfusion as kf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", help="of a cluster (default: start one here)")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()

    data = kf.datasets.load_cropland()
    ray.init(address=arguments.address, include_dashboard=False, log_to_driver=False)
    register_ray()
    with joblib.parallel_config(backend="ray"):
        result = kf.cross_validate(kf.boosted_trees(), data, folds=5, n_jobs=arguments.jobs)
    print(result.to_frame(["auc", "average_precision", "brier"]).to_string(index=False))
    print(result.summary().to_string())


if __name__ == "__main__":
    main()
