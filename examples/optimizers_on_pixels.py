"""Five optimizers on one network: loss falls, accuracy does not, and what cures it.

A student trained two layers of 1,000 units on CIFAR-10 with five optimizers, with and without
dropout. Losses fell as low as one likes, and accuracy stayed at 0.1: pixels were in 0-255, most of
the loss was L2 penalty, and two optimizers had rates that hardly move. Both the set-up as it was
asked about and the cured one run here, on scikit-learn's digits or, with a network, on CIFAR-10.

usage: python examples/optimizers_on_pixels.py [--cifar10] [--out optimizers_on_pixels]
    [--epochs 20] [--units 1000]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import kfusion as kf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", action="store_true", help="downloaded by Keras")
    parser.add_argument("--out", type=Path, default=Path("optimizers_on_pixels"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--units", type=int, default=1000)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    if arguments.cifar10:
        (x_train, y_train), (x_test, y_test) = keras.datasets.cifar10.load_data()
    else:
        digits = load_digits()
        x_train, x_test, y_train, y_test = train_test_split(
            digits.images / 16 * 255, digits.target, test_size=0.2, random_state=0
        )
    for name in ("broken", "cured"):
        study = kf.recipes.optimizer_study(
            x_train,
            y_train,
            x_test,
            y_test,
            units=arguments.units,
            epochs=arguments.epochs,
            broken=name == "broken",
        )
        print(f"\n=== {name} ===\n{study.table.round(4).to_string(index=False)}")
        study.plot().savefig(arguments.out / f"{name}.png")


if __name__ == "__main__":
    main()
