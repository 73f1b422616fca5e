"""A sigmoid beside a relu in one concatenation, against a join that brings both to one range.

The system of a practitioner who joined an image network ending in 256 sigmoid units with a table
network ending in 128 relu units and fell from an AUC of 0.73 to 0.67. Five folds, exact AUC, both
inputs alone beside it. VGG16 with `--backbone VGG16 --weights imagenet` (downloaded by Keras), or
a small network that trains in minutes on 2 cores.

usage: python examples/sigmoid_beside_relu.py [--full] [--backbone conv] [--weights imagenet]
    [--folds 5] [--epochs 12] [--jobs 1] [--out FILE.png]
"""

from __future__ import annotations

import argparse

import kfusion as kf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="all rows (needs the extra `demo`)")
    parser.add_argument("--backbone", default="conv", help="VGG16, or any of keras.applications")
    parser.add_argument("--weights", help="imagenet, or a file; by default random ones")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=1, help="folds at once")
    parser.add_argument("--out", help="PNG file for the picture")
    arguments = parser.parse_args()

    found = kf.recipes.vgg16_with_table(
        kf.datasets.load_cropland(full=arguments.full),
        backbone=arguments.backbone,
        weights=arguments.weights,
        with_broken_join=True,
        folds=arguments.folds,
        n_jobs=arguments.jobs,
        epochs=arguments.epochs,
        patience=4,
    )
    print(found.summary())
    for name, pair in found.comparison.pairs.items():
        if name != found.comparison.best:
            print(pair.verdict)
    if arguments.out:
        found.comparison.plot().savefig(arguments.out, dpi=150)


if __name__ == "__main__":
    main()
