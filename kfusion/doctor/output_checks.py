"""Checks of what a model gives against its loss, the targets and the metrics that are watched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kfusion.doctor.answers import labels
from kfusion.doctor.case import Case
from kfusion.doctor.drawn_rows import FEW_ROWS, sample_rows
from kfusion.doctor.findings import Finding, Undecided
from kfusion.doctor.graph import activation_of, opened, walk
from kfusion.doctor.loss_terms import Term, loss_terms
from kfusion.doctor.model_runs import name_outputs, numbers, run, told, untouched
from kfusion.doctor.undecided import UndecidableError, decides

RARE_SHARE = 0.1
_SPARSE = "sparse_categorical_crossentropy"
_ONE_HOT = {"categorical_crossentropy", "categorical_focal_crossentropy"}
_BINARY = {"binary_crossentropy", "binary_focal_crossentropy"}
_CROSSENTROPIES = {_SPARSE, *_ONE_HOT, *_BINARY}
_ELEMENTWISE = {
    "mean_squared_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
    "huber",
    "log_cosh",
    "poisson",
}
_RANGES = {
    "relu": (0.0, np.inf),
    "softplus": (0.0, np.inf),
    "exponential": (0.0, np.inf),
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
}


@decides("labels_for_the_loss")
def check_labels(case: Case) -> Iterator[Finding | Undecided]:
    """Labels whose shape or values the loss does not expect."""
    outputs = _symbolic_outputs(case.model)
    for term in loss_terms(case, outputs):
        if len(outputs[term.output].shape) != 2:
            continue
        units = outputs[term.output].shape[-1]
        misshaped = _judge_shapes(case, term, units)
        if misshaped is not None:
            yield misshaped
        else:
            yield from _judge_label_values(case, term, units)


@decides("targets_for_the_loss")
def check_broadcasting(case: Case) -> Iterator[Finding | Undecided]:
    """Targets that a loss compares with the predictions of other rows."""
    if case.train.y.ndim != 1 or case.task.kind != "regression":
        return
    inputs, y = sample_rows(case, FEW_ROWS)
    with untouched(case.model):
        outputs = run(case.model, inputs)
        for term in loss_terms(case, outputs):
            prediction = outputs[term.output]
            if tuple(prediction.shape) != (len(y), 1):
                continue
            with told(f"the loss {term.name} does not take these targets"):
                flat, column = (numbers(term.loss(t, prediction)).mean() for t in (y, y[:, None]))
            if np.isfinite(flat) and not np.isclose(flat, column, rtol=1e-3):
                yield Finding(
                    "targets_broadcast",
                    "error",
                    term.output,
                    f"{term.name} of {len(y)} rows is {flat:.4g} for targets of shape (rows,) and "
                    f"{column:.4g} for (rows, 1), the shape of the predictions",
                    "each prediction is compared with the targets of all rows, and the mean of "
                    "all targets becomes the best answer",
                    "model.fit(x, y[:, None])",
                    {"flat": flat, "column": column},
                )


@decides("activation_for_the_loss")
def check_activations(case: Case) -> Iterator[Finding | Undecided]:
    """An output activation that does not go with the loss or the targets."""
    inputs, _ = sample_rows(case)
    with untouched(case.model):
        outputs, activations = _run_with_activations(case, inputs)
    for term in loss_terms(case, outputs):
        values = numbers(outputs[term.output])
        if values.ndim != 2 or not np.isfinite(values).all():
            continue
        activation = activations.get(term.output) or _measured_activation(values)
        if term.name in _CROSSENTROPIES:
            yield from _judge_probabilities(case, term, activation, values)
        elif term.name in _ELEMENTWISE:
            yield from _judge_targets_in_range(case, term, activation)


@decides("rare_classes")
def check_watched_metrics(case: Case) -> Iterator[Finding | Undecided]:
    """Accuracy as the only score while a class is rare."""
    metrics = _metrics(case.model)
    known = labels(case)
    if known is None or not metrics or not all(map(_is_accuracy, metrics)):
        return
    counts = np.bincount(known)
    shares = counts[counts > 0] / counts.sum()
    rarest, most = float(shares.min()), float(shares.max())
    if rarest < RARE_SHARE and rarest < 0.5 / len(shares) and len(shares) > 1:
        metric = "keras.metrics.AUC()" if len(shares) == 2 else "keras.metrics.F1Score('macro')"
        yield Finding(
            "accuracy_of_rare_classes",
            "warning",
            ", ".join(sorted({_metric_name(metric) for metric in metrics})),
            f"the rarest class has {rarest:.2%} of {len(known)} rows; always answering the most "
            f"frequent one scores {most:.2%}, which leaves {1 - most:.2%} to win",
            "accuracy hardly moves while the model learns, and epochs and models are chosen by "
            "noise",
            f"kf.fit(model, x, y, task=task, validation_data=...)  # watches exact AUC; or {metric}"
            " in compile",
            {"rarest_share": rarest, "most_frequent_share": most},
        )


def _judge_shapes(case: Case, term: Term, units: int) -> Finding | None:
    y = case.train.y
    columns = 1 if y.ndim == 1 else int(np.prod(y.shape[1:]))
    if term.name == _SPARSE and columns > 1:
        return _misshaped(
            term, y, units, "one label per row", "loss='categorical_crossentropy', or y.argmax(-1)"
        )
    if term.name in _ONE_HOT and (columns != units or columns == 1):
        return _misshaped(
            term,
            y,
            units,
            "one column per class",
            "loss='sparse_categorical_crossentropy'"
            if columns == 1
            else f"keras.layers.Dense({columns}, activation='softmax')",
        )
    if term.name in _BINARY | _ELEMENTWISE and columns != units:
        are_classes = units > 1 and columns == 1 and labels(case) is not None
        cure = f"loss='{_SPARSE}'" if are_classes else f"keras.layers.Dense({columns})"
        return _misshaped(term, y, units, "one column per unit", cure)
    return None


def _misshaped(term: Term, y: np.ndarray, units: int, wanted: str, cure: str) -> Finding:
    return Finding(
        "labels_do_not_fit_loss",
        "error",
        term.output,
        f"the targets have shape {y.shape} and the output {units} unit(s), and {term.name} takes "
        f"{wanted}",
        "training stops with an error, or compares columns that have nothing to do with each other",
        cure,
        {"columns": list(y.shape[1:]), "units": units},
    )


def _judge_label_values(case: Case, term: Term, units: int) -> Iterator[Finding]:
    y = np.asarray(case.train.y)
    if y.dtype.kind not in "biuf" or term.name not in _CROSSENTROPIES:
        return
    if term.name == _SPARSE:
        wrong = (y < 0) | (y > units - 1) | (y != np.floor(y))
        wanted = f"labels 0 to {units - 1}, one per unit"
    else:
        wrong, wanted = (y < 0) | (y > 1), "targets of 0 to 1"
    count = int(np.count_nonzero(wrong))
    if count:
        lowest, highest = float(y.min()), float(y.max())
        cure = "y = np.unique(y, return_inverse=True)[1]  # labels from 0"
        if term.name == _SPARSE and lowest >= 0 and len(np.unique(y)) > units:
            cure = f"keras.layers.Dense({int(highest) + 1}, activation='softmax')"
        yield Finding(
            "labels_out_of_range",
            "error",
            term.output,
            f"{term.name} takes {wanted}; {count} targets are others, and all lie in {lowest:g} "
            f"to {highest:g}",
            "the loss is not finite or falls without end, or the backend stops at the first such "
            "row",
            cure,
            {"count": count, "lowest": lowest, "highest": highest, "units": units},
        )


def _judge_probabilities(
    case: Case, term: Term, activation: str | None, values: np.ndarray
) -> Iterator[Finding]:
    units = values.shape[1]
    if activation == "softmax" and units == 1:
        yield _unfit(
            term,
            values,
            "softmax_over_one_unit",
            "error",
            "a softmax of one unit",
            "a softmax over one unit is always 1: the model cannot learn",
            "keras.layers.Dense(1, activation='sigmoid')",
        )
        return
    yield from _judge_from_logits(term, activation, values)
    is_exclusive = term.name in {_SPARSE, *_ONE_HOT} or case.task.kind == "multiclass"
    if activation == "sigmoid" and units > 1 and is_exclusive:
        sums = values.sum(axis=1)
        yield _unfit(
            term,
            values,
            "sigmoid_on_exclusive_classes",
            "warning",
            f"{units} sigmoids for classes of which each row has one sum to {sums.min():.3g} to "
            f"{sums.max():.3g}",
            "the outputs of a row are no probabilities, and classes do not compete",
            f"keras.layers.Dense({units}, activation='softmax') with loss='{_SPARSE}'",
        )
    if activation == "softmax" and term.name in _BINARY:
        yield _unfit(
            term,
            values,
            "binary_loss_of_a_softmax",
            "warning",
            f"{term.name} of a softmax over {units} units",
            "each class is judged as a question of its own, and accuracy counts the columns that "
            "are right, not the rows",
            "loss='categorical_crossentropy'",
        )


def _judge_from_logits(term: Term, activation: str | None, values: np.ndarray) -> Iterator[Finding]:
    if term.from_logits and activation in ("softmax", "sigmoid"):
        # The best that is left: one output of 1, the others 0.
        others = values.shape[1] - 1 if activation == "softmax" else 1
        yield _unfit(
            term,
            values,
            "probabilities_taken_as_logits",
            "error",
            f"the output is a {activation} and the loss has from_logits=True",
            "the loss squeezes probabilities once more and cannot fall below "
            f"{np.log1p(others / np.e):.3g} in any row, where Keras does not undo it: it does on "
            "tensorflow alone, for a last layer",
            f"keras.losses.{type(term.loss).__name__}()  # from_logits=False",
        )
    elif not term.from_logits and activation not in ("softmax", "sigmoid", "hard_sigmoid"):
        outside = float(((values < 0) | (values > 1)).any(axis=1).mean())
        if outside > 0 or activation == "linear":
            wanted = "sigmoid" if term.name in _BINARY else "softmax"
            yield _unfit(
                term,
                values,
                "logits_taken_as_probabilities",
                "error",
                f"the output is {activation or 'no probability'} and {term.name} takes "
                f"probabilities; {outside:.0%} of rows leave 0 to 1",
                "values are clipped to 0 and 1, where the gradient is 0",
                f"activation='{wanted}'"
                + (" or from_logits=True in the loss" if activation == "linear" else ""),
            )


def _unfit(
    term: Term, values: np.ndarray, name: str, severity: str, found: str, effect: str, cure: str
) -> Finding:
    low, high = float(values.min()), float(values.max())
    evidence = f"{found}: outputs of {len(values)} rows lie in {low:.4g} to {high:.4g}"
    measured = {"lowest": low, "highest": high, "units": values.shape[1]}
    return Finding(name, severity, term.output, evidence, effect, cure, measured)


def _judge_targets_in_range(case: Case, term: Term, activation: str | None) -> Iterator[Finding]:
    if activation not in _RANGES or case.train.y.dtype.kind not in "biuf":
        return
    low, high = _RANGES[activation]
    y = case.train.y
    outside = float(np.mean((y < low) | (y > high)))
    if outside > 0:
        yield Finding(
            "targets_outside_of_output",
            "error",
            term.output,
            f"{outside:.1%} of the targets, which lie in {y.min():.4g} to {y.max():.4g}, cannot be "
            f"given by a {activation}, whose values lie in {low:g} to {high:g}",
            "these rows are never predicted, and a relu that is pushed below 0 stays there",
            "keras.layers.Dense(units)  # no activation",
            {"outside": outside, "lowest": float(y.min()), "highest": float(y.max())},
        )


def _symbolic_outputs(model: keras.Model) -> dict[str, Any]:
    if not getattr(model, "outputs", None):
        raise UndecidableError(
            f"the outputs of {model.name!r} are not known: it is a subclassed model"
        )
    structure = model.outputs if isinstance(model, keras.Sequential) else model.output
    return name_outputs(model, structure)


def _run_with_activations(case: Case, inputs) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Outputs by name, and their activations, which a subclassed model does not tell."""
    if opened(case.model) is None:
        return run(case.model, inputs), {}
    walked = walk(case.model, inputs)
    activations = {
        name: activation_of(walked.maker_of(tensor)) for name, tensor in walked.outputs.items()
    }
    return walked.outputs, activations


def _measured_activation(values: np.ndarray) -> str | None:
    """What outputs can only come from: rows that sum to 1 from a softmax."""
    if values.min() >= 0 and np.allclose(values.sum(axis=1), 1, atol=1e-3):
        return "softmax"
    return "linear" if values.min() < 0 or values.max() > 1 else None


def _metrics(model: keras.Model) -> list[Any]:
    """What was given to `compile` as metrics."""
    compiled = getattr(model, "_compile_metrics", None)
    given = [
        getattr(compiled, "_user_metrics", None),
        getattr(compiled, "_user_weighted_metrics", None),
    ]
    return [metric for metric in keras.tree.flatten(given) if metric is not None]


def _metric_name(metric: Any) -> str:
    if isinstance(metric, str):
        return metric
    return str(getattr(metric, "name", None) or getattr(metric, "__name__", metric))


def _is_accuracy(metric: Any) -> bool:
    if isinstance(metric, keras.metrics.Metric):
        return "Accuracy" in type(metric).__name__
    name = _metric_name(metric).lower()
    return name == "acc" or "accuracy" in name


CHECKS = (check_labels, check_broadcasting, check_activations, check_watched_metrics)
