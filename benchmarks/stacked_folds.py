"""Four networks of one structure, apart or as one: is it worth joining the folds of a member?

Apart, each fold is computed by itself; stacked, the folds' kernels lie side by side in the first
layer, and behind it each fold has its group of a convolution and its part of a batched product.
Random weights, constants of one graph each; both called in turn.

usage: python benchmarks/stacked_folds.py [--calls 150]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

FOLDS, WARM_UP = 4, 10
FILTERS, WIDTHS = (3, 32, 64, 128), (128, 64, 64, 6)
SHAPES = {"image": (24, 24, 3), "table": (128,)}


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(scale=0.1, size=(FOLDS, *shape)).astype("float32")


KERNELS = [draw(3, 3, *ends) for ends in itertools.pairwise(FILTERS)]
MATRICES = [draw(*ends) for ends in itertools.pairwise(WIDTHS)]


def stages(maps, kernels):
    for kernel in kernels:
        maps = tf.nn.relu(tf.nn.conv2d(maps, kernel, 1, "SAME"))
        maps = tf.nn.max_pool2d(maps, 2, 2, "SAME")
    return tf.reduce_mean(maps, [1, 2])


def apart(inputs):
    answers = []
    for fold in range(FOLDS):
        is_image = len(inputs.shape) == 4
        hidden = stages(inputs, [each[fold] for each in KERNELS]) if is_image else inputs
        for matrix in MATRICES[:-1]:
            hidden = tf.nn.relu(hidden @ matrix[fold])
        answers.append(tf.nn.softmax(hidden @ MATRICES[-1][fold]))
    return tf.add_n(answers) / FOLDS


def stacked(inputs):
    first, *others = MATRICES
    if len(inputs.shape) == 4:
        hidden = stages(inputs, [np.concatenate(each, axis=-1) for each in KERNELS])
        hidden = tf.reshape(hidden, (-1, FOLDS, FILTERS[-1]))
        hidden = tf.nn.relu(tf.einsum("rkf,kfu->rku", hidden, first))
    else:
        hidden = tf.nn.relu(inputs @ np.concatenate(first, axis=-1))
        hidden = tf.reshape(hidden, (-1, FOLDS, WIDTHS[1]))
    for matrix in others[:-1]:
        hidden = tf.nn.relu(tf.einsum("rkf,kfu->rku", hidden, matrix))
    answers = tf.nn.softmax(tf.einsum("rkf,kfu->rku", hidden, others[-1]))
    return tf.reduce_mean(answers, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=150)
    calls = parser.parse_args().calls
    for name, shape in SHAPES.items():
        signature = [tf.TensorSpec((None, *shape))]
        both = [
            tf.function(each, input_signature=signature).get_concrete_function()
            for each in (apart, stacked)
        ]
        for batch in (1, 64, 256):
            inputs = tf.random.stateless_uniform((batch, *shape), (0, 0))
            seconds: list[list[float]] = [[], []]
            for number in range(WARM_UP + (calls if batch == 1 else calls // 5)):
                for took, function in zip(seconds, both, strict=True):
                    started = time.perf_counter()
                    function(inputs)
                    if number >= WARM_UP:
                        took.append(time.perf_counter() - started)
            ratios = np.array(seconds[1]) / np.array(seconds[0])
            quartiles = np.quantile(ratios, [0.25, 0.5, 0.75]).round(3).tolist()
            gap = np.abs(both[0](inputs).numpy() - both[1](inputs).numpy()).max()
            result = {
                "benchmark": "stacked_folds",
                "network": name,
                "batch": batch,
                "median_ms_apart": round(1000 * float(np.median(seconds[0])), 3),
                "ratio_stacked_to_apart": quartiles[1],
                "ratio_quartiles": [quartiles[0], quartiles[2]],
                "largest_difference": float(gap),
            }
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
