"""Keras optimizers by name, at rates that train, with warm-up and cosine."""

from __future__ import annotations

import math

import keras

# Learning rates at which each optimizer trains small networks; Keras' own default for Adadelta,
# 0.001, does not train at all.
LEARNING_RATES = {
    "adadelta": 1.0,
    "adagrad": 0.02,
    "adam": 1e-3,
    "adamax": 2e-3,
    "adamw": 1e-3,
    "lion": 1e-4,
    "nadam": 1e-3,
    "rmsprop": 1e-3,
    "sgd": 0.02,
}


def make_optimizer(optimizer, learning_rate, learning_rate_factor, weight_decay, num_steps):
    """Makes the optimizer that `compile_model` describes, or returns the instance given."""
    if isinstance(optimizer, keras.optimizers.Optimizer):
        if learning_rate is not None or weight_decay is not None:
            raise ValueError(
                "An optimizer instance brings its own `learning_rate` and `weight_decay`: give "
                "them to it, or name the optimizer."
            )
        return optimizer
    name = str(optimizer).lower()
    if learning_rate is None:
        learning_rate = learning_rate_factor * LEARNING_RATES.get(name, 1e-3)
    if isinstance(learning_rate, (int, float)):
        if not (math.isfinite(learning_rate) and learning_rate > 0):
            raise ValueError(f"`learning_rate` must be above 0. Received: {learning_rate}.")
        if num_steps is not None:
            warm_up = max(1, num_steps // 20)
            learning_rate = keras.optimizers.schedules.CosineDecay(
                initial_learning_rate=learning_rate / warm_up,
                warmup_target=learning_rate,
                warmup_steps=warm_up,
                decay_steps=max(1, num_steps - warm_up),
            )
    config = {"learning_rate": learning_rate}
    if weight_decay is not None:
        config["weight_decay"] = weight_decay
    if name == "sgd":
        config["momentum"] = 0.9
    try:
        optimizer_class = type(keras.optimizers.get(name))
    except ValueError:
        names = sorted(LEARNING_RATES)
        raise ValueError(
            f"`optimizer` must be a Keras optimizer or its name, such as {names}. Received: "
            f"optimizer={optimizer!r}."
        ) from None
    return optimizer_class(**config)
