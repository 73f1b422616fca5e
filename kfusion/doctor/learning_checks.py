"""Checks of what drives the weights: penalties against the loss, and the learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator

import keras
import numpy as np

from kfusion.doctor.case import Case
from kfusion.doctor.drawn_rows import sample_rows
from kfusion.doctor.findings import Finding, Undecided
from kfusion.doctor.graph import layers_in
from kfusion.doctor.layer_calls import own_weights
from kfusion.doctor.loss_terms import data_loss, loss_terms
from kfusion.doctor.model_runs import numbers, run, untouched
from kfusion.doctor.undecided import decides
from kfusion.optimizers import LEARNING_RATES

MAX_PENALTY_SHARE, HOPELESS_PENALTY_SHARE = 0.5, 0.9
# In decades. Two below the usual is where trained models are tuned on.
MAX_DECADES_ABOVE, MAX_DECADES_BELOW = 1.99, 2.05
STEPS_IF_UNKNOWN = 1000


@decides("penalties_rule_the_loss")
def check_penalties(case: Case) -> Iterator[Finding | Undecided]:
    """Penalties on weights and activities against the loss of the predictions."""
    if not case.model.built or not _has_penalties(case.model):
        return
    inputs, y = sample_rows(case)
    with untouched(case.model):
        outputs = run(case.model, inputs, training=True)
        penalty = sum(float(numbers(each)) for each in case.model.losses)
        data = float(numbers(data_loss(loss_terms(case, outputs), y, outputs)))
    # Once a model has learned, its loss is small, and a small penalty may be most of it.
    worth = abs(data)
    if case.task.kind != "regression":
        worth = max(worth, math.log(max(2, case.task.units)))
    share = penalty / (penalty + worth) if penalty > 0 else 0.0
    if share > MAX_PENALTY_SHARE:
        layer, part = _largest_penalty(case.model)
        factor = 10.0 ** np.floor(np.log10(0.1 * worth / penalty)) if worth else 0.0
        yield Finding(
            "penalties_rule_the_loss",
            "error" if share > HOPELESS_PENALTY_SHARE else "warning",
            layer,
            f"penalties are {penalty:.4g} of a loss of {penalty + data:.4g}; the largest is that "
            f"of {layer!r}, {part:.4g}",
            "training shrinks the weights first: the loss falls from epoch to epoch and the "
            "predictions stay where they are",
            f"a penalty of {factor:g} times what it is now, or none and Dropout",
            {"penalty": penalty, "data_loss": data, "share": share},
        )


def ruling_penalties(case: Case) -> float:
    """The share of penalties in the loss where they rule it, otherwise 0."""
    found = [each for each in check_penalties(case) if isinstance(each, Finding)]
    return found[0].values["share"] if found else 0.0


@decides("learning_rate")
def check_learning_rate(case: Case) -> Iterator[Finding | Undecided]:
    """The compiled learning rate against the usual one of its optimizer."""
    optimizer = getattr(case.model, "optimizer", None)
    usual = LEARNING_RATES.get(type(optimizer).__name__.lower())
    if optimizer is None or usual is None:
        return
    rate = _highest_rate(case, optimizer)
    if not rate > 0:
        yield Finding(
            "learning_rate_not_above_zero",
            "error",
            optimizer.name,
            f"the learning rate is {rate:g}",
            "nothing is learned",
            f"{type(optimizer).__name__}({usual:g})",
            {"rate": rate, "usual": usual},
        )
        return
    decades = float(np.log10(rate / usual))
    if decades >= MAX_DECADES_ABOVE or decades <= -MAX_DECADES_BELOW:
        is_high = decades > 0
        yield Finding(
            "learning_rate_off",
            "warning",
            optimizer.name,
            f"the learning rate of {type(optimizer).__name__} is {rate:.3g}, {abs(decades):.1f} "
            f"decades {'above' if is_high else 'below'} the usual {usual:g}",
            "the loss jumps or ends as NaN" if is_high else "weights hardly move in any epoch",
            f"keras.optimizers.{type(optimizer).__name__}({usual:g}), or the rate that "
            "kf.learning_rate_range_test(model, x, y, task=task).suggested measures",
            {"rate": rate, "usual": usual, "decades": decades},
        )


def _has_penalties(model: keras.Model) -> bool:
    return bool(model.losses) or any(
        getattr(layer, "activity_regularizer", None) is not None for layer in layers_in(model)
    )


def _largest_penalty(model: keras.Model) -> tuple[str, float]:
    """The layer whose own weights cost most; of a penalty on activities, the model."""
    found = {model.name: 0.0}
    for layer in layers_in(model):
        for weight in own_weights(layer):
            if weight.regularizer is not None:
                value = float(numbers(weight.regularizer(weight)))
                found[layer.name] = found.get(layer.name, 0.0) + value
    return max(found.items(), key=lambda pair: pair[1])


def _highest_rate(case: Case, optimizer: keras.optimizers.Optimizer) -> float:
    """The rate, or the highest of a schedule over the training."""
    schedule = optimizer._learning_rate
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return float(numbers(optimizer.learning_rate))
    per_epoch = -(-len(case.train) // case.batch_size)
    steps = case.epochs * per_epoch if case.epochs else STEPS_IF_UNKNOWN
    probed = np.unique(np.linspace(0, steps, 50).astype(int))
    return max(float(numbers(schedule(step))) for step in probed)


CHECKS = (check_penalties, check_learning_rate)
