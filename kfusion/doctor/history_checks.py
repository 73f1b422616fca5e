"""Checks of how a training went, epoch by epoch, and of what held it back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kfusion.doctor.answers import answers, score, some_rows, targets
from kfusion.doctor.case import Case
from kfusion.doctor.data_checks import unscaled_inputs
from kfusion.doctor.findings import Finding, Undecided
from kfusion.doctor.learning_checks import ruling_penalties
from kfusion.doctor.model_runs import numbers
from kfusion.doctor.undecided import Said, decides
from kfusion.models.building import PREDICTION

# Words in names of metrics that are better when larger, and of those that are when smaller.
_RISING = ("accuracy", "acc", "auc", "r2", "f1", "precision", "recall", "prc", "iou")
_FALLING = ("loss", "error", "rmse", "mae", "mse", "crossentropy")
# By how much a score must pass chance, and training must lead validation, to be told.
ABOVE_CHANCE, GAP = 0.03, 0.1
RISEN = 10.0
# Share by which a validation loss must rise after its best epoch, and rows that tell what the model
# that was kept says now.
WORSE_LOSS, MOST_JUDGED = 0.05, 2_000


def check_divergence(case: Case) -> Said:
    """A loss, or weights, that are not finite; a loss that rose by orders of magnitude."""
    loss = _series(case.history or {}, "loss")
    wrong = np.flatnonzero(~np.isfinite(loss))
    lost = [
        weight.path
        for weight in case.model.weights
        if "float" in str(weight.dtype) and not np.isfinite(numbers(weight)).all()
    ]
    if wrong.size or lost:
        found = []
        if wrong.size:
            found.append(f"the loss is {loss[wrong[0]]} from epoch {wrong[0] + 1} on")
        if lost:
            found.append(f"{len(lost)} weights are not finite, such as {lost[0]!r}")
        epoch = int(wrong[0]) + 1 if wrong.size else None
        yield _diverged("error", " and ".join(found), {"epoch": epoch})
        return
    if len(loss) < 2:
        return
    lowest = int(loss.argmin())
    is_above_start = loss[-1] > RISEN * max(loss[0], 1e-12)
    if is_above_start or loss[-1] > 10 * RISEN * max(loss[lowest], 1e-3):
        yield _diverged(
            "error" if is_above_start else "warning",
            f"the loss rose from {loss[lowest]:.3g} in epoch {lowest + 1} to {loss[-1]:.3g}",
            {"epoch": lowest + 1, "lowest": float(loss[lowest]), "last": float(loss[-1])},
        )


def _diverged(severity: str, evidence: str, values: Mapping[str, Any]) -> Finding:
    return Finding(
        "training_diverged",
        severity,
        "history",
        evidence,
        "steps are larger than what the loss's surface bears: what was learned is lost",
        "model.compile(keras.optimizers.Adam(1e-4, clipnorm=1.0), ...)  # and scale inputs",
        values,
    )


@decides("at_chance")
def check_chance(case: Case) -> Said:
    """Scores that stay at chance, whether the loss falls or not, and why."""
    history = case.history or {}
    loss = _series(history, "loss")
    if len(loss) < 2 or not np.isfinite(loss).all():
        return
    y = targets(case, case.train)
    if y is None:
        yield Undecided("at_chance", "targets are not labels or values")
        return
    at = {}
    for name in _scores(history):
        chance = chance_level(name, y, case)
        values = _series(history, name)
        if chance is None or not np.isfinite(values).all():
            continue
        if values[-1] > chance + ABOVE_CHANCE + _noise(chance, len(y)):
            return
        at[name] = (float(values[-1]), chance)
    judged = some_rows(case, 512, of_validation=False)
    if not at or judged is None:
        return
    answer = answers(case, judged.rows.x).get(PREDICTION)
    if answer is None:
        yield Undecided("at_chance", "the model's answers do not fit the task")
        return
    measured = score(case.task, judged.y, answer)
    # Accuracy stays at the rate of a frequent class while the order of the answers is learned.
    is_ranked = measured > (0.1 if case.task.kind == "regression" else 0.6)
    if is_ranked and relative_spread(case, answer) > 0.03:
        return
    yield _chance_finding(case, loss, at, answer, measured, judged.y)


def _chance_finding(case: Case, loss, at, answer, measured: float, y: np.ndarray) -> Finding:
    name, (value, chance) = next(iter(at.items()))
    has_fallen = loss[-1] < 0.9 * loss[0]
    spread, share = relative_spread(case, answer), ruling_penalties(case)
    causes, cures = [], []
    if unscaled := unscaled_inputs(case):
        causes.append(f"the input(s) {unscaled} reach the first weights unscaled")
        cures.append("inputs -> keras.layers.Rescaling(1 / 255) or Normalization() -> first layer")
    if spread < 1e-3:
        causes.append(
            f"all rows get the same answer (their standard deviation is {spread:.1g} of what a "
            "perfect model's would be): hidden units are dead, saturated or penalised away"
        )
        cures.append("BatchNormalization before each activation, and a lower learning rate")
    if share:
        causes.append(f"penalties are {share:.0%} of the loss, whose fall is theirs")
        cures.append("kernel_regularizer=keras.regularizers.L2(1e-5)  # Keras' 'l2' is 0.01")
    fall = "falls" if has_fallen else "does not fall"
    return Finding(
        "loss_falls_at_chance" if has_fallen else "at_chance",
        "error",
        "history",
        f"the loss {fall} ({loss[0]:.4g} to {loss[-1]:.4g} in {len(loss)} epochs) and {name} is "
        f"{value:.3f} where guessing gives {chance:.3f}; the model's own "
        f"{'R2' if case.task.kind == 'regression' else 'AUC'} on {len(y)} training rows is "
        f"{measured:.3f}" + "".join(f"; {cause}" for cause in causes),
        "the model has learned how frequent the classes are, not the rows"
        if case.task.kind != "regression"
        else "the model has learned the mean of the target, not the rows",
        cures[0]
        if cures
        else "model.compile(keras.optimizers.Adam(1e-4), ...)  # another rate; "
        "then check that rows and labels belong together",
        {"regularization_share": share, "spread": spread, "score": measured, "causes": causes},
    )


def relative_spread(case: Case, answer: np.ndarray) -> float:
    """How much answers differ between rows, against those of a model that is always right."""
    if case.task.kind == "regression":
        return float(answer.std()) / case.task.spread
    rates = answer.mean(axis=0)
    return float((answer.std(axis=0) / np.sqrt(np.maximum(rates * (1 - rates), 1e-9))).max())


def chance_level(name: str, y: np.ndarray, case: Case) -> float | None:
    """What guessing reaches in a metric by its name, or None if it is not known."""
    if case.task.kind == "regression":
        return 0.0 if "r2" in name else None
    if "auc" in name:
        return 0.5
    if "acc" in name and "top" not in name:
        # Binary accuracy of one-hot rows counts every zero.
        rates = np.bincount(y) / len(y)
        return None if "binary" in name and case.task.kind == "multiclass" else float(rates.max())
    return None


@decides("overfit")
def check_overfitting(case: Case) -> Said:
    """Training scores that leave validation scores behind, where that costs the model kept.

    It costs where the validation score falls, or the validation loss rises, after its best epoch by
    more than its noise, and the model does not have that epoch's weights. The gap alone is no
    fault: what a model knows by heart may leave what it says of other rows as it was. Overfitting
    begins where the gap grows for three epochs in a row (`OverfitGapStopping`).
    """
    history = case.history or {}
    rows = 0 if case.validation is None else len(case.validation)
    for name in _scores(history):
        train, validation = _series(history, name), _series(history, f"val_{name}")
        if len(train) != len(validation) or len(train) < 4:
            continue
        gap = train - validation
        if not np.isfinite(gap).all():
            continue
        last = float(np.mean(gap[-3:]))
        noise = _noise(float(validation[-1]), rows) if rows else 0.0
        if last < max(GAP, noise) or last < gap[0] + GAP / 2:
            continue
        loss = _series(history, "val_loss")
        margin = max(WORSE_LOSS * abs(loss.min(initial=np.inf)), 3 * _bends(loss))
        score_fell = _costs(case, name, -validation, max(noise / 2, 0.005))
        if score_fell or _costs(case, "loss", loss, margin):
            yield _overfit_finding(name, train, validation, loss, score_fell)
        return


def _costs(case: Case, name: str, values: np.ndarray, margin: float) -> bool:
    """Whether the last epochs are worse than the best one and the model is not that epoch's.

    Args:
        case: `Case`.
        name: Of the score, or "loss".
        values: `(epochs,)` of the validation rows; better when smaller.
        margin: What noise may differ by.
    """
    if len(values) < 4 or not np.isfinite(values).all():
        return False
    best, last = float(values.min()), float(np.mean(values[-3:]))
    if last - best <= margin:
        return False
    judged = some_rows(case, MOST_JUDGED)
    answer = None if judged is None else answers(case, judged.rows.x).get(PREDICTION)
    if judged is None or answer is None or name not in ("loss", *case.task.score_names):
        return True
    own = case.task.scores(judged.y, answer, names=[name])[name]
    # Whatever is not the best epoch's, such as a loss of another kind, counts as not kept.
    return not abs((own if name == "loss" else -own) - best) < (last - best) / 2


def _overfit_finding(
    name: str, train: np.ndarray, validation: np.ndarray, loss: np.ndarray, score_fell: bool
) -> Finding:
    gap = train - validation
    last, opened, best = float(np.mean(gap[-3:])), opening_epoch(gap), int(validation.argmax())
    risen = ""
    if len(loss):
        lowest = int(loss.argmin())
        risen = (
            f"; the validation loss was lowest ({loss[lowest]:.3g}) in epoch {lowest + 1} and "
            f"ends at {np.mean(loss[-3:]):.3g}"
        )
    return Finding(
        "overfit",
        "warning" if score_fell else "note",
        f"history: {name}",
        f"{name} ends at {np.mean(train[-3:]):.3f} in training and "
        f"{np.mean(validation[-3:]):.3f} in validation, a gap of {last:.3f}; it opened in "
        f"epoch {opened + 1}, validation was best ({validation[best]:.3f}) in epoch {best + 1}"
        f"{risen}",
        "the model learns its training rows by heart; what it learned after that epoch does "
        "not carry over"
        if score_fell
        else "the model grows surer than it is right: its probabilities are worse than they were",
        "kf.fit(..., patience=10)  # keeps the best epoch's weights; or "
        f"OverfitGapStopping(metric={name!r}), more dropout, augmentation or L2",
        {"gap": last, "opened": opened + 1, "best_epoch": best + 1},
    )


def opening_epoch(gap: np.ndarray, times: int = 3) -> int:
    """The first epoch, from 0, from which the gap grew so often in a row, or is half its widest."""
    grown = np.diff(gap) > 0
    for epoch in range(len(grown) - times + 1):
        if grown[epoch : epoch + times].all():
            return epoch
    return int(np.flatnonzero(gap >= gap.max() - abs(gap.max()) / 2)[0])


def check_length(case: Case) -> Said:
    """A training that was cut off while it improved, or was best in its first epoch."""
    history = case.history or {}
    name, values, sign = validation_series(history, case)
    if len(values) < 4 or not np.isfinite(values).all():
        return
    better = sign * values
    best = int(better.argmax())
    steps = np.diff(better)
    noise = _bends(better)
    if best == 0:
        fall = float(better[0] - np.mean(better[-3:]))
        if fall > 2 * noise and fall > 0.01 * abs(better[0]):
            yield Finding(
                "best_in_first_epoch",
                "warning",
                f"history: {name}",
                f"{name} was best in epoch 1 ({values[0]:.4g}) and is {values[-1]:.4g} after "
                f"{len(values)}",
                "each epoch made the model worse: steps are too large, or it overfits at once",
                "model.compile(keras.optimizers.Adam(1e-4), ...)  # a tenth of the rate; in "
                "fine-tuning, kf.freeze(model) first",
                {"first": float(values[0]), "last": float(values[-1])},
            )
        return
    third = max(2, len(values) // 3)
    late, whole = float(better[-1] - better[-1 - third]), float(better[-1] - better[0])
    is_rising = best >= len(values) - 2 and np.mean(steps[-third:] > 0) > 0.6
    if is_rising and late > max(0.1 * whole, 3 * noise) and late > _worth(name, values, case):
        yield Finding(
            "stopped_too_early",
            "note",
            f"history: {name}",
            f"{name} was still improving: {values[-1 - third]:.4g} to {values[-1]:.4g} in the last "
            f"{third} of {len(values)} epochs, {late / whole:.0%} of all that it gained",
            "the score is that of an unfinished training, not to be held against a finished one",
            f"fit(..., epochs={3 * len(values)}), with early stopping",
            {"late_gain": late, "whole_gain": whole},
        )


def _worth(name: str, values: np.ndarray, case: Case) -> float:
    """The least gain that is worth more epochs: beyond the noise of the validation rows."""
    if any(word in name for word in _FALLING):
        return 0.02 * abs(float(values[-1]))
    rows = 1000 if case.validation is None else max(len(case.validation), 1)
    return max(0.01, _noise(float(values[-1]), rows) / 2)


def validation_series(history: Mapping[str, Sequence[float]], case: Case):
    """The series that says best how well validation went: `(name, values, 1 or -1)`."""
    wanted = case.task.objective.name
    scores = [f"val_{name}" for name in _scores(history) if f"val_{name}" in history]
    names = [wanted, *sorted(scores, key=lambda name: "auc" not in name), "val_loss"]
    name = next((name for name in names if name in history), "")
    sign = -1 if any(word in name for word in _FALLING) else 1
    return name, _series(history, name), sign


def _scores(history: Mapping[str, Sequence[float]]) -> list[str]:
    """Names of the training's metrics that are better when larger."""
    return [
        name
        for name in history
        if not name.startswith("val_")
        and any(word in name for word in _RISING)
        and not any(word in name for word in _FALLING)
    ]


def _series(history: Mapping[str, Sequence[float]], name: str) -> np.ndarray:
    return np.asarray(history.get(name, ()), np.float64)


def _bends(values: np.ndarray) -> float:
    """The noise of a series: what an epoch differs from the line between its neighbours by."""
    bends = values[1:-1] - (values[:-2] + values[2:]) / 2
    return float(np.median(abs(bends)) * 1.48 / math.sqrt(1.5)) if len(bends) else 0.0


def _noise(share: float, rows: int) -> float:
    """Two standard errors of a share of so many rows."""
    share = min(max(share, 0.05), 0.95)
    return 2 * math.sqrt(share * (1 - share) / max(rows, 1))


CHECKS = (check_divergence, check_chance, check_overfitting, check_length)
