"""Keras optimizers by name, at rates that train and change as training goes on."""

from __future__ import annotations

import dataclasses
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


COSINE, CONSTANT = "cosine", "constant"


@dataclasses.dataclass(frozen=True)
class StepDecay:
    """A learning rate that is multiplied by a factor every so many epochs.

    Attributes:
        factor: Float in (0, 1].
        epochs: Int, from one step to the next.

    Raises:
        ValueError: If one of them is outside of its range.

    Example:
        >>> schedule = StepDecay(0.5, epochs=100).schedule(0.001, steps_per_epoch=10)
        >>> [round(float(schedule(10 * epoch)), 6) for epoch in (0, 99, 100, 200)]
        [0.001, 0.001, 0.0005, 0.00025]
    """

    factor: float
    epochs: int

    def __post_init__(self) -> None:
        if not 0 < self.factor <= 1:
            raise ValueError(f"`factor` must lie in (0, 1]. Received: {self.factor}.")
        if self.epochs < 1:
            raise ValueError(f"`epochs` must be 1 or more. Received: {self.epochs}.")

    def schedule(
        self, learning_rate: float, steps_per_epoch: int
    ) -> keras.optimizers.schedules.LearningRateSchedule:
        """The Keras schedule that starts at a rate."""
        return keras.optimizers.schedules.ExponentialDecay(
            learning_rate, self.epochs * steps_per_epoch, self.factor, staircase=True
        )


def make_schedule(
    learning_rate: float, schedule: str | StepDecay, num_steps: int, steps_per_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """What becomes of a learning rate as training goes on.

    Args:
        learning_rate: Float, the highest rate.
        schedule: "cosine" (rises over a twentieth of the steps, falls to 0), "constant" or
            `StepDecay`.
        num_steps: Int, of the whole training.
        steps_per_epoch: Int.

    Raises:
        ValueError: If there is no schedule of that name.
    """
    if isinstance(schedule, StepDecay):
        return schedule.schedule(learning_rate, steps_per_epoch)
    if schedule == CONSTANT:
        return learning_rate
    if schedule != COSINE:
        raise ValueError(
            f'`learning_rate_schedule` must be "{COSINE}", "{CONSTANT}" or `StepDecay`. Received: '
            f"{schedule!r}."
        )
    warm_up = max(1, num_steps // 20)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=learning_rate / warm_up,
        warmup_target=learning_rate,
        warmup_steps=warm_up,
        decay_steps=max(1, num_steps - warm_up),
    )


def present_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The learning rate that an optimizer's next step has."""
    given = optimizer.get_config().get("learning_rate")
    is_of_keras = isinstance(given, dict) and given.get("registered_name") is None
    if is_of_keras and given["class_name"] == "CosineDecay":
        step = int(keras.ops.convert_to_numpy(optimizer.iterations))
        return _cosine_rate(step, **given["config"])
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def rate_at(schedule: keras.optimizers.schedules.LearningRateSchedule, step: int) -> float:
    """The learning rate that a schedule has at a step."""
    if type(schedule) is keras.optimizers.schedules.CosineDecay:
        return _cosine_rate(step, **schedule.get_config())
    return float(keras.ops.convert_to_numpy(schedule(step)))


def _cosine_rate(
    step: int,
    *,
    initial_learning_rate: float,
    decay_steps: int,
    alpha: float,
    warmup_target: float | None,
    warmup_steps: int,
    **_: object,
) -> float:
    """That of `keras.optimizers.schedules.CosineDecay`.

    Which compiles a condition anew each time that it is asked on JAX, for longer than an epoch of a
    small network takes: so its formula is worked out here.
    """
    highest = initial_learning_rate
    if warmup_target is not None:
        highest = warmup_target
        if step < warmup_steps:
            rise = warmup_target - initial_learning_rate
            return initial_learning_rate + rise * step / warmup_steps
        step -= warmup_steps
    cosine = 0.5 * (1 + math.cos(math.pi * min(step, decay_steps) / decay_steps))
    return highest * ((1 - alpha) * cosine + alpha)


def optimizer_at(
    optimizer: keras.optimizers.Optimizer, learning_rate: float
) -> keras.optimizers.Optimizer:
    """A fresh optimizer like the one given, but at a constant rate.

    Under "mixed_float16" that may be one which scales the loss; the rate is that of the one within.
    """
    config = optimizer.get_config()
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        within = optimizer_at(optimizer.inner_optimizer, learning_rate)
        return type(optimizer)(**{**config, "inner_optimizer": within})
    return type(optimizer).from_config({**config, "learning_rate": learning_rate})


def highest_rate(optimizer: str, learning_rate: float | None, factor: float) -> float:
    """The rate given, or a usual one of the optimizer named times a factor.

    Raises:
        ValueError: If it is not above 0.
    """
    if learning_rate is None:
        learning_rate = factor * LEARNING_RATES.get(optimizer.lower(), 1e-3)
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"`learning_rate` must be above 0. Received: {learning_rate}.")
    return learning_rate


def make_optimizer(
    optimizer,
    learning_rate,
    learning_rate_factor,
    weight_decay,
    *,
    schedule=CONSTANT,
    num_steps=1,
    steps_per_epoch=1,
):
    """Makes the optimizer that `compile_model` describes, or returns the instance given."""
    if isinstance(optimizer, keras.optimizers.Optimizer):
        if learning_rate is not None or weight_decay is not None:
            raise ValueError(
                "An optimizer instance brings its own `learning_rate` and `weight_decay`: give "
                "them to it, or name the optimizer."
            )
        return optimizer
    name = str(optimizer).lower()
    if learning_rate is None or isinstance(learning_rate, (int, float)):
        learning_rate = highest_rate(name, learning_rate, learning_rate_factor)
        learning_rate = make_schedule(learning_rate, schedule, num_steps, steps_per_epoch)
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
