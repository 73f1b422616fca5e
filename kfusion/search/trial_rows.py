"""Which rows train and judge the runs of a trial: those given, or each fold in turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kfusion.data.folds import Fold, make_folds
from kfusion.data.inputs import check_lengths
from kfusion.data.rows import is_several, take_rows

# Arguments of `keras.Model.fit` that have an entry per row, in their order.
ROWS = ("x", "y")
WEIGHTS = "sample_weight"
JUDGES = ("validation_data", "validation_split")


@dataclasses.dataclass(frozen=True)
class FitArguments:
    """What `HyperModel.fit` is called with.

    Attributes:
        positional: `x` and `y`, as far as they are given by position.
        named: The others.
    """

    positional: tuple[Any, ...]
    named: Mapping[str, Any]

    def get(self, name: str) -> Any:
        """The argument of that name, or None."""
        if name in ROWS and ROWS.index(name) < len(self.positional):
            return self.positional[ROWS.index(name)]
        return self.named.get(name)

    def settings(self) -> dict[str, Any]:
        """The numbers and words among them that say how a model is trained, by name."""
        kinds = (bool, int, float, str)
        return {
            name: value
            for name, value in sorted(self.named.items())
            if isinstance(value, kinds) and name != "verbose"
        }

    def of_fold(self, fold: Fold) -> FitArguments:
        """The same with a fold's rows to train on, and its others as validation data."""
        positional = tuple(take_rows(values, fold.train) for values in self.positional)
        named = dict(self.named)
        for name in (*ROWS, WEIGHTS):
            if named.get(name) is not None:
                named[name] = take_rows(named[name], fold.train)
        held = tuple(take_rows(self.get(name), fold.test) for name in ROWS)
        return FitArguments(positional, {**named, JUDGES[0]: held})


def plan_trial_folds(
    arguments: FitArguments, folds: int | Any, groups: Any, seed: int
) -> list[Fold]:
    """The folds that every trial is judged by.

    Of a number of folds, each has all classes in their shares, if `y` holds whole numbers and each
    of them has as many rows, or groups, as there are folds.

    Args:
        arguments: `FitArguments` with arrays `x` and `y`.
        folds: Int, a scikit-learn splitter, or pairs of row positions; see `make_folds`.
        groups: `(rows,)` values that are never split, or None.
        seed: Int.

    Raises:
        ValueError: If other rows are there to judge, `y` is missing, or no folds can be made.
    """
    given = [name for name in JUDGES if arguments.get(name) is not None]
    if given:
        raise ValueError(f"`cv` judges by folds of the rows: leave `{given[0]}` out.")
    y = arguments.get("y")
    if y is None:
        raise ValueError("`cv` needs `x` and `y`, arrays with an entry per row.")
    labels, x = np.asarray(y), arguments.get("x")
    groups = None if groups is None else np.asarray(groups)
    parts = x.values() if isinstance(x, Mapping) else x if is_several(x) else [x]
    check_lengths({**{f"input {i}": part for i, part in enumerate(parts)}, "y": labels})
    classes = _classes(labels, groups, folds) if isinstance(folds, int) else None
    return make_folds(len(labels), folds=folds, labels=classes, groups=groups, seed=seed)


def describe_folds(folds: Sequence[Fold] | None) -> dict[str, np.ndarray]:
    """Their rows, for a digest."""
    return {f"fold {fold.number}": fold.test for fold in folds or ()}


def _classes(labels: np.ndarray, groups: np.ndarray | None, folds: int) -> np.ndarray | None:
    """Labels as numbers from 0, if each class has rows (groups) for all folds; else None."""
    if labels.ndim != 1 or labels.dtype.kind not in "biuf" or (labels != np.round(labels)).any():
        return None
    units = np.arange(len(labels)) if groups is None else groups
    if len(units) != len(labels):
        return None
    _, codes = np.unique(labels, return_inverse=True)
    counts = [len(np.unique(units[codes == code])) for code in range(codes.max() + 1)]
    return codes if min(counts) >= folds else None
