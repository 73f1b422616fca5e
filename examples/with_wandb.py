"""Weights & Biases of a training: scores and rates by epoch, settings and a confusion matrix.

needs: pip install '.[trackers]'
usage: python examples/with_wandb.py [--mode offline] [--folder .] [--epochs 5]
then:  wandb sync wandb/offline-run-*   (or --mode online from the start)
"""

from __future__ import annotations

import argparse

import wandb
from wandb.integration.keras import WandbMetricsLogger

import kfusion as kf
from kfusion.plots import plot_confusion


def run(data: kf.FusionData, folder: str, *, mode: str = "offline", epochs: int = 5) -> None:
    train, validation = data.split(0.2, seed=0)
    branches = {
        "image": kf.image_branch(data.image_shape),
        "tabular": kf.tabular_branch(train.schema),
    }
    model = kf.build_fusion_model(branches, task=train.task, fusion="multiply")
    settings = {"fusion": "multiply", "epochs": epochs, "rows": len(train)}
    with wandb.init(project="land-cover", config=settings, dir=folder, mode=mode) as tracked:
        kf.fit(
            model,
            train.x,
            train.y,
            task=train.task,
            validation_data=(validation.x, validation.y),
            epochs=epochs,
            callbacks=[WandbMetricsLogger()],
        )
        predicted = kf.predict(model, validation.x).argmax(axis=1)
        figure = plot_confusion(validation.y, predicted, validation.class_names)
        tracked.log({"confusion": wandb.Image(figure)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=["offline", "online"], default="offline")
    parser.add_argument("--folder", default=".")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    run(
        kf.datasets.load_landcover(),
        arguments.folder,
        mode=arguments.mode,
        epochs=arguments.epochs,
    )
