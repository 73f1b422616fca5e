"""Which members answer for a row that lacks an input: a blend for each set of inputs there is."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from kfusion.estimators.blending import Blend, fit_blend

Present = Mapping[str, np.ndarray]
# Of more inputs not all sets get a blend of their own: there would be too many.
MAX_ALL_SETS = 3


@dataclasses.dataclass(frozen=True)
class PresenceBlends:
    """Blends by the inputs that a row has. Made by `fit_presence_blends`.

    Attributes:
        whole: `Blend` of all members, for rows that have all inputs.
        inputs: Names of the inputs that may be missing.
        partial: `Blend` by what a row has of them, of the members that learned from no others; of
            none, one in which no member counts. The smallest sets come first.
    """

    whole: Blend
    inputs: tuple[str, ...] = ()
    partial: Mapping[frozenset[str], Blend] = dataclasses.field(default_factory=dict)

    def apply(self, predictions: Mapping[str, Any], present: Present) -> np.ndarray:
        """Pools the members' predictions of rows, each by the blend of the inputs that it has.

        Args:
            predictions: As of `Blend.apply`.
            present: `(rows,)` booleans by input.

        Returns:
            `(rows, classes)` probabilities or `(rows, 1)` values.
        """
        pooled = self.whole.apply(predictions)
        for inputs, rows in rows_by_presence({name: present[name] for name in self.inputs}):
            # As in `PresenceSwitch`: of the sets that a row has, the last.
            fitting = [blend for known, blend in self.partial.items() if known <= inputs]
            if fitting:
                own = {name: part[rows] for name, part in predictions.items()}
                pooled[rows] = fitting[-1].apply(own)
        return pooled


def fit_presence_blends(
    predictions: Mapping[str, Any],
    y: np.ndarray,
    *,
    modalities: Mapping[str, Collection[str]],
    present: Present,
    sample_weight: np.ndarray | None = None,
    wanted: Collection[frozenset[str]] | None = None,
) -> PresenceBlends:
    """Learns how much each member counts in rows that have all inputs, and in those that lack some.

    Each blend is learned from the rows that have at least its inputs, so also where none lacks
    any. Where these rows are none or lack a class, there is no such blend. Of more than 3 inputs
    that may be missing, sets that lack one or have one get a blend, and those that come up in
    these rows; others are answered by that of the largest set within them.

    Args:
        predictions: As of `fit_blend`.
        y: `(rows,)` labels from 0, or target values.
        modalities: Names of the inputs that each member learned from, by member.
        present: `(rows,)` booleans by input; inputs that are not in it always count as there.
        sample_weight: `(rows,)` floats, or None.
        wanted: Sets of inputs that will come up; None for any.

    Returns:
        `PresenceBlends`.
    """
    predictions = {name: np.asarray(part) for name, part in predictions.items()}

    def fit(members: Collection[str], rows: np.ndarray) -> Blend:
        return fit_blend(
            {name: predictions[name][rows] for name in members},
            y[rows],
            sample_weight=None if sample_weight is None else sample_weight[rows],
        )

    is_regression = next(iter(predictions.values())).shape[1] == 1
    everything = np.ones(len(y), bool)
    complete = np.logical_and.reduce([everything, *present.values()])
    # Rows that have all may be too few to learn from.
    whole = fit(
        list(predictions), complete if _can_learn(y, complete, is_regression) else everything
    )
    used = {name for member in predictions for name in modalities[member]}
    known = [name for name in present if name in used]
    partial: dict[frozenset[str], Blend] = {}
    unanswered = None if wanted is None else set(wanted)
    for inputs in reversed(_sets_to_learn({name: present[name] for name in known})):
        if unanswered is not None and not any(inputs <= each for each in unanswered):
            continue
        lacking = set(known) - inputs
        members = [name for name in predictions if not lacking & set(modalities[name])]
        rows = np.logical_and.reduce([everything, *(present[name] for name in inputs)])
        if not members:
            partial[inputs] = dataclasses.replace(whole, weights=dict.fromkeys(whole.weights, 0.0))
        elif _can_learn(y, rows, is_regression):
            partial[inputs] = fit(members, rows)
        else:
            continue
        if unanswered is not None:
            unanswered = {each for each in unanswered if not inputs <= each}
    return PresenceBlends(whole, tuple(known), dict(reversed(partial.items())))


def rows_by_presence(present: Present) -> Iterator[tuple[frozenset[str], np.ndarray]]:
    """Positions of the rows that lack something, by what they have."""
    if not present:
        return
    patterns, numbers = np.unique(
        np.stack([*present.values()], axis=1), axis=0, return_inverse=True
    )
    for number, pattern in enumerate(patterns):
        if not pattern.all():
            inputs = frozenset(itertools.compress(present, pattern))
            yield inputs, np.flatnonzero(numbers.ravel() == number)


def _sets_to_learn(present: Present) -> list[frozenset[str]]:
    """Sets of inputs, not the whole, the smallest first."""
    count = len(present)
    sizes = range(count) if count <= MAX_ALL_SETS else sorted({0, 1, count - 1})
    sets = {frozenset(each) for size in sizes for each in itertools.combinations(present, size)}
    sets |= {inputs for inputs, _ in rows_by_presence(present)}
    # In the order of the inputs, so that the same rows give the same model.
    places = {name: place for place, name in enumerate(present)}
    return sorted(sets, key=lambda names: (len(names), sorted(places[name] for name in names)))


def _can_learn(y: np.ndarray, rows: np.ndarray, is_regression: bool) -> bool:
    if is_regression:
        return bool(rows.any())
    return len(np.unique(y[rows])) == len(np.unique(y))
