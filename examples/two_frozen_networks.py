"""Two CNNs that were trained before, frozen and stacked: is the result better than the better one?

The system of a practitioner with 5 % positives who joined two trained networks, got an AUROC of
0.840 against 0.845 for the better one alone, and knew neither whether that is a difference nor
whether "frozen" was frozen.

usage: python examples/two_frozen_networks.py [--full] [--epochs 10]
"""

import argparse

import keras
import numpy as np

import kfusion as kf


def build_cnn(shape, kernel: int, units: int, dropout: float) -> keras.Model:
    """Convolutions and pooling, two dense layers, a classifier: nothing of kfusion's."""
    layers = keras.layers
    model = keras.Sequential([keras.Input(shape, name="image"), layers.Rescaling(1 / 255)])
    for filters in (16, 32, 64):
        model.add(layers.Conv2D(filters, kernel, padding="same", activation="relu"))
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(2 * units, activation="relu"))
    model.add(layers.Dropout(dropout))
    model.add(layers.Dense(units, activation="relu"))
    model.add(layers.Dense(1, activation="sigmoid"))
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="all rows (needs the extra `demo`)")
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    data = kf.datasets.load_cropland(full=arguments.full)
    positives, negatives = np.flatnonzero(data.y == 1), np.flatnonzero(data.y == 0)
    kept = np.random.default_rng(0).permutation(positives)[: round(0.05 / 0.95 * len(negatives))]
    parts = data[np.sort(np.concatenate([negatives, kept]))].split(0.25, test=0.25)
    train, validation, test = (({"image": part.images}, part.y) for part in parts)
    networks = {
        "first": build_cnn(data.image_shape, 3, 32, 0.5),
        "second": build_cnn(data.image_shape, 5, 64, 0.3),
    }
    settings = {"validation_data": validation, "task": parts[0].task, "balanced_batches": True}
    for network in networks.values():
        kf.fit(network, *train, epochs=arguments.epochs, **settings)
    stack = kf.recipes.stack_frozen_models(
        networks, *train, test_data=test, groups=parts[2].groups, **settings
    )
    print(stack.summary())
    print(stack.rows.head(10).to_string(index=False))


if __name__ == "__main__":
    main()
