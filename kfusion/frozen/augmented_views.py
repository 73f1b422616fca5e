"""Augmented views of rows: seeds from what the rows are, and one view drawn in each step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kfusion.frozen.feature_store import DIGEST_BYTES
from kfusion.frozen.frozen_parts import Step, Value, is_augmentation

# With dots, which no input's name has.
SEEDS = "views.seeds"
IS_AUGMENTED = "views.is_augmented"
_SEED_BYTES = 8


def view_digests(digests: np.ndarray, num_views: int) -> np.ndarray:
    """A digest of each view of each row, a row's views one behind the other.

    Args:
        digests: `(rows, 16)` uint8, as of `digest_rows`.
        num_views: Int, views of a row. The first is the plain one and has the row's own digest.

    Returns:
        `(rows * num_views, 16)` uint8.
    """
    found = np.repeat(digests[:, None], num_views, axis=1)
    for row, digest in enumerate(digests):
        for view in range(1, num_views):
            found[row, view] = np.frombuffer(_derived(digest, view, DIGEST_BYTES), np.uint8)
    return found.reshape(-1, DIGEST_BYTES)


def view_seeds(digests: np.ndarray, num_generators: int) -> np.ndarray:
    """`(views, num_generators, 2)` int32 of 0 or more: seeds of views with these digests."""
    found = [
        _derived(digest, number, _SEED_BYTES)
        for digest in digests
        for number in range(num_generators)
    ]
    seeds = np.frombuffer(b"".join(found), "<u4").reshape(len(digests), num_generators, 2)
    return (seeds >> 1).astype(np.int32)


def seed_states(layer: keras.layers.Layer) -> list[Any]:
    """The random state of augmentation and dropout, wherever it is in a layer."""
    return [v for v in layer.variables if v.path.endswith("seed_generator_state")]


def num_generators(steps: Sequence[Step]) -> int:
    """How many seeds a row needs for the augmentation among some calls."""
    return sum(
        len(seed_states(step.operation)) for step in steps if is_augmentation(step.operation)
    )


def seeded_steps(steps: Sequence[Step]) -> tuple[dict[str, Value], list[Step]]:
    """Calls in which augmentation has each row's own seeds.

    Args:
        steps: Calls in order.

    Returns:
        What the calls take besides, by name: `SEEDS`, as of `view_seeds`, and `IS_AUGMENTED`,
        `(rows,)` booleans. And the calls, which give the values that they gave.
    """
    seeds = Value(keras.KerasTensor((None, num_generators(steps), 2), "int32", name=SEEDS))
    is_augmented = Value(keras.KerasTensor((None,), "bool", name=IS_AUGMENTED))
    found, first = [], 0
    for step in steps:
        if is_augmentation(step.operation):
            layer = _AugmentedRows(step.operation, first)
            first += len(layer.states)
            step = Step(layer, (*step.positional, seeds, is_augmented), {}, step.outputs)
        found.append(step)
    return {SEEDS: seeds, IS_AUGMENTED: is_augmented}, found


class _AugmentedRows(keras.layers.Layer):
    """Augments each row alone, with seeds of its own, whatever the mode is.

    Args:
        augmentation: The layer that augments; its random state stays as it is.
        first: Int, position of its first generator's seeds among those of a row.
    """

    def __init__(self, augmentation: keras.layers.Layer, first: int):
        super().__init__(autocast=False)
        self.augmentation, self.first = augmentation, first
        self.states = seed_states(augmentation)
        # TensorFlow's loop over rows is not for XLA.
        self.supports_jit = keras.backend.backend() != "tensorflow"

    def call(self, images, seeds, is_augmented):
        def augment(row):
            image, own_seeds, own_is_augmented = row
            mapping = [
                (state, keras.ops.cast(own_seeds[self.first + i], state.dtype))
                for i, state in enumerate(self.states)
            ]
            # Some layers draw at inference too, though they do nothing with it.
            with keras.StatelessScope(state_mapping=mapping):
                augmented, plain = (
                    self.augmentation(image[None], training=mode) for mode in (True, False)
                )
            return keras.ops.where(own_is_augmented, augmented, plain)[0]

        # TensorFlow vectorizes not all layers, and JAX is slow where it does not.
        by_row = keras.ops.vectorized_map if keras.backend.backend() == "jax" else keras.ops.map
        return by_row(augment, (images, seeds, is_augmented))


class DrawnView(keras.layers.Layer):
    """Takes one view of each row: in training one drawn of the augmented ones, else the plain one.

    All arrays that it is given have the same view of a row taken.

    Args:
        num_augmented: Int, the augmented views of a row.

    Input:
        List of `(rows, 1 + num_augmented, ...)`, the first view the plain one; where nothing
        trains, `(rows, 1, ...)` will do.

    Output:
        List of `(rows, ...)`.
    """

    def __init__(self, num_augmented: int):
        super().__init__(autocast=False)
        self.num_augmented = num_augmented
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, features, training=None):
        if not training:
            return [views[:, 0] for views in features]
        rows = keras.ops.shape(features[0])[0]
        drawn = keras.random.randint(
            (rows,), 1, 1 + self.num_augmented, dtype="int32", seed=self.seed_generator
        )
        return [_taken(views, drawn) for views in features]


def _taken(views: Any, numbers: Any) -> Any:
    """`(rows, ...)`: of each row the view of this number."""
    numbers = keras.ops.reshape(numbers, (-1,) + (1,) * (len(views.shape) - 1))
    return keras.ops.squeeze(keras.ops.take_along_axis(views, numbers, axis=1), axis=1)


def _derived(digest: np.ndarray, number: int, size: int) -> bytes:
    salt = number.to_bytes(hashlib.blake2b.SALT_SIZE, "little")
    return hashlib.blake2b(digest.tobytes(), digest_size=size, salt=salt).digest()
