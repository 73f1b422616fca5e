"""Checks of targets, and of whether the model runs on its data at all."""

from __future__ import annotations

import re

import numpy as np

from kfusion.doctor.answers import answers, some_rows, targets
from kfusion.doctor.case import Case
from kfusion.doctor.drawn_rows import few_rows
from kfusion.doctor.findings import Finding
from kfusion.doctor.model_runs import predict
from kfusion.doctor.undecided import Said, UndecidableError, decides
from kfusion.models.building import PREDICTION

# Standard deviations of the targets between their mean and that of the answers.
FAR = 10.0
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


def why_it_does_not_run(case: Case) -> Finding | None:
    """What keeps a model from running on some training rows, or None."""
    positions = few_rows(case.train.x, 8, case.seed)
    try:
        predict(case.model, {name: array[positions] for name, array in case.train.x.items()})
    except UndecidableError as error:
        if not case.model.built:
            return None
        shapes = {name: tuple(array.shape[1:]) for name, array in case.train.x.items()}
        return Finding(
            "model_does_not_run",
            "error",
            case.model.name,
            _COLORS.sub("", str(error)),
            f"nothing can be trained; rows have the shapes {shapes}",
            "give the rows that the model was built for, or build it for these",
        )
    return None


def check_missing_targets(case: Case) -> Said:
    """Targets that are missing, or text where numbers are learned."""
    y = case.train.y
    if y.dtype.kind in "OUS":
        yield Finding(
            "targets_are_text",
            "error",
            "y",
            f"y holds {y.dtype}, such as {y.reshape(-1)[0]!r}",
            "losses take numbers",
            "names, y = np.unique(y, return_inverse=True)",
        )
    elif y.dtype.kind == "f" and not np.isfinite(y).all():
        missing = ~np.isfinite(y.reshape(len(y), -1)).all(axis=1)
        yield Finding(
            "targets_missing",
            "error",
            "y",
            f"{missing.sum()} of {len(y)} targets are no finite number, the first in row "
            f"{np.flatnonzero(missing)[0]}",
            "the loss of their batches is NaN, and so is every weight after them",
            "kept = np.isfinite(y); y = y[kept]  # and the same rows of x",
            {"rows": int(missing.sum())},
        )


def check_one_class(case: Case) -> Said:
    """Targets that are all the same."""
    y = targets(case, case.train)
    if y is None or len(y) < 2 or len(np.unique(y)) > 1:
        return
    yield Finding(
        "one_target_only",
        "error",
        "y",
        f"all {len(y)} targets are {case.train.y[0]!r}",
        "there is nothing to learn",
        "look at how y was made",
    )


@decides("targets_far_from_answers")
def check_far_targets(case: Case) -> Said:
    """A regression whose targets lie far from what the model can soon answer."""
    if case.task.kind != "regression":
        return
    judged = some_rows(case, 256, of_validation=False)
    if judged is None or not np.isfinite(judged.y).all() or np.ptp(judged.y) == 0:
        return
    given = answers(case, judged.rows.x).get(PREDICTION)
    if given is None or not np.isfinite(given).all():
        return
    center, spread = float(judged.y.mean()), float(judged.y.std())
    distance = abs(center - float(given.mean())) / spread
    if distance > FAR:
        yield Finding(
            "targets_far_from_answers",
            "warning",
            "y",
            f"targets have mean {center:.4g} and spread {spread:.4g}, answers the mean "
            f"{float(given.mean()):.4g}: {distance:.3g} spreads away",
            "steps of the usual rate take thousands of batches to get there, and nothing else is "
            "learned on the way",
            f"outputs = keras.layers.Rescaling({spread:.4g}, offset={center:.4g})(outputs)  # or "
            "kf.task('regression', y=y), whose head does so",
            {"center": center, "spread": spread, "distance": distance},
        )


CHECKS = (check_missing_targets, check_one_class, check_far_targets)
