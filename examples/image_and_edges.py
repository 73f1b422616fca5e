"""An image and its edges: a short search, a longer training with its best values, a saved model.

The system of a student who joined a network on pixels with one on edges, searched layer size,
dropout and penalties, then trained the best setting for longer. Runs in a few minutes on 2 cores.

usage: python examples/image_and_edges.py [--out image_and_edges_model]
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial

import kfusion as kf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="image_and_edges_model")
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    arguments = parser.parse_args()

    train, validation, test = kf.datasets.load_landcover().split(0.2, test=0.2)
    builders = {
        "image": partial(kf.image_branch, train.image_shape),
        "edges": partial(kf.edge_branch, train.image_shape),
    }
    hypermodel = kf.FusionHyperModel(builders, task=train.task, optimizers=["adam"])
    validation_data = (validation.x, validation.y)
    with tempfile.TemporaryDirectory() as folder:
        tuner = kf.search_fusion(
            hypermodel,
            train.x,
            train.y,
            validation_data=validation_data,
            directory=folder,
            max_trials=arguments.trials,
            epochs=5,
        )
    tuner.results_summary(num_trials=3)

    # The values found are the builders' own keywords.
    found = hypermodel.keywords(tuner.get_best_hyperparameters()[0])
    branches = {name: build(**found[name]) for name, build in builders.items()}
    model = kf.build_fusion_model(branches, task=train.task, **found["model"])
    kf.fit(
        model,
        train.x,
        train.y,
        task=train.task,
        validation_data=validation_data,
        epochs=arguments.epochs,
        **found["fit"],
    )
    print("image and edges:", kf.evaluate(model, test.x, test.y, task=train.task))

    alone = kf.build_unimodal_model(builders["image"](), task=train.task)
    kf.fit(
        alone,
        train.x,
        train.y,
        task=train.task,
        validation_data=validation_data,
        epochs=arguments.epochs,
    )
    print("image alone:    ", kf.evaluate(alone, test.x, test.y, task=train.task))
    kf.export_saved_model(model, arguments.out, class_names=train.class_names, overwrite=True)
    print("saved to", arguments.out)


if __name__ == "__main__":
    main()
