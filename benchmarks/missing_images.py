"""Scores where images are missing: a blend by what a row has, learned stand-ins, and zeros.

On rows never seen of the shipped land cover, for each share of missing images in training and in
the rows that judge: `FusionClassifier`; a fused network with `modality_dropout`, which puts a
learned vector in the image's place; the same network that takes zeros for an image; and the table
network alone. A line is one share and fold.

usage: python benchmarks/missing_images.py [--shares 0 0.25 0.5 0.75 1] [--folds 2] [--epochs 12]
    [--trained-whole]
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

import kfusion as kf


def network(train, modality_dropout):
    keras.utils.set_random_seed(0)
    branches = {
        "image": kf.image_branch(train.image_shape),
        "tabular": kf.tabular_branch(train.schema),
    }
    return kf.build_fusion_model(branches, task=train.task, modality_dropout=modality_dropout)


def table_alone(train):
    keras.utils.set_random_seed(0)
    return kf.build_unimodal_model(kf.tabular_branch(train.schema), task=train.task)


def without_images(x, share, seed):
    """The same rows with a share of the images replaced by zeros."""
    gone = np.random.default_rng(seed).permutation(len(x["image"]))[
        : round(share * len(x["image"]))
    ]
    images = x["image"].copy()
    images[gone] = 0
    return {**x, "image": images}


def score(task, y, predictions):
    return round(float(task.scores(y, predictions, names=["auc"])["auc"]), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shares", type=float, nargs="+", default=[0, 0.25, 0.5, 0.75, 1])
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--trained-whole", action="store_true", help="no image missing in training")
    arguments = parser.parse_args()
    data = kf.datasets.load_landcover()
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for number, (kept, held) in enumerate(folds.split(data.y, data.y, data.groups)):
        if number == arguments.folds:
            break
        train, test = data[kept].with_schema(), data[held]
        test = test.with_schema(train.schema)
        shares = [0.0] if arguments.trained_whole else [s for s in arguments.shares if s < 1]
        for trained in shares:
            x = without_images(train.x, trained, 1)
            classifier = kf.FusionClassifier(effort="fast")
            frames = {"image": x["image"], "tabular": train.frame}
            classifier.fit(frames, train.y, groups=train.groups)
            models = {
                "stand-ins": network(train, 0.3),
                "zeros": network(train, None),
                "table alone": table_alone(train),
            }
            for model in models.values():
                kf.fit(
                    model,
                    x,
                    train.y,
                    task=train.task,
                    validation_data=None,
                    epochs=arguments.epochs,
                    seed=0,
                    verbose=0,
                )
            judged = arguments.shares if arguments.trained_whole or not trained else [trained, 1.0]
            for share in judged:
                fresh = without_images(test.x, share, 2)
                given = {"image": fresh["image"], "tabular": test.frame}
                found = {
                    "classifier": score(train.task, test.y, classifier.predict_proba(given)),
                    **{
                        n: score(train.task, test.y, kf.predict(m, fresh))
                        for n, m in models.items()
                    },
                }
                line = {"fold": number, "missing_in_training": trained, "missing": share, **found}
                print(json.dumps({"benchmark": "missing_images", **line}), flush=True)


if __name__ == "__main__":
    main()
