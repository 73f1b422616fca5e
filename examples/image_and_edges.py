"""An image and its edges: search, a look at the study, a longer training, a saved model.

A student joined a network on pixels with one on edges and searched layer size, one dropout rate for
all places, learning rate decay and L2. Training stopped when training accuracy minus validation
accuracy had grown three times running, and a trial was scored at that moment by
((v - chance) / t) + (v - chance). The best values were then picked by hand and trained for longer.

usage: python examples/image_and_edges.py [--out image_and_edges] [--trials 8] [--epochs 50]
    [--final-epochs 40] [--side 64]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import kfusion as kf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("image_and_edges"))
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--final-epochs", type=int, default=40)
    parser.add_argument("--side", type=int, default=64, help="to which images are enlarged")
    arguments = parser.parse_args()

    train, validation, test = kf.datasets.load_landcover().split(0.2, test=0.2)
    rows = [({"image": part.images}, part.y) for part in (train, validation, test)]
    study = kf.recipes.intermediary_space(
        *rows[0],
        task=train.task,
        validation_data=rows[1],
        test_data=rows[2],
        directory=arguments.out,
        max_trials=arguments.trials,
        epochs=arguments.epochs,
        final_epochs=arguments.final_epochs,
        final_batch_size=64,
        # A training as short as this one has no time for a tenth of the rate.
        picked={"learning_rate": 1e-3, "decay_factor": 1.0},
        resize=(arguments.side, arguments.side),
    )
    print(study.analysis.summary())
    print(f"\ntensorboard --logdir {arguments.out / 'logs'}")
    print("picked:", study.picked)
    print("best trial:", study.best_trial_scores["test"])
    print("trained for longer:", study.scores["test"])
    exported = arguments.out / "saved_model"
    kf.export_saved_model(study.model, exported, class_names=train.class_names, overwrite=True)
    print("saved to", exported)


if __name__ == "__main__":
    main()
