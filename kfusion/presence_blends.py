"""Which members answer for a row that lacks an input: a blend for each set of inputs there is."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from kfusion.blending import Blend, fit_blend

Present = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class PresenceBlends:
    """Blends by the inputs that a row has. Made by `fit_presence_blends`.

    Attributes:
        whole: `Blend` of all members, for rows that have all inputs.
        inputs: Names of the inputs that may be missing.
        partial: `Blend` by what a row has of them, of the members that learned from no others; of
            none, one in which no member counts.
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
            blend = self.partial.get(inputs)
            if blend is not None:
                pooled[rows] = blend.apply({name: part[rows] for name, part in predictions.items()})
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
    any. Where these rows are none or lack a class, there is no such blend.

    Args:
        predictions: As of `fit_blend`.
        y: `(rows,)` labels from 0, or target values.
        modalities: Names of the inputs that each member learned from, by member.
        present: `(rows,)` booleans by input; inputs that are not in it always count as there.
        sample_weight: `(rows,)` floats, or None.
        wanted: Sets of inputs to learn blends for; None for all that may come up.

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
    for inputs in subsets(known):
        if wanted is not None and inputs not in wanted:
            continue
        lacking = set(known) - inputs
        members = [name for name in predictions if not lacking & set(modalities[name])]
        rows = np.logical_and.reduce([everything, *(present[name] for name in inputs)])
        if not members:
            partial[inputs] = dataclasses.replace(whole, weights=dict.fromkeys(whole.weights, 0.0))
        elif _can_learn(y, rows, is_regression):
            partial[inputs] = fit(members, rows)
    return PresenceBlends(whole, tuple(known), partial)


def rows_by_presence(present: Present) -> Iterator[tuple[frozenset[str], np.ndarray]]:
    """Positions of the rows that lack something, by what they have."""
    for inputs in subsets(list(present)):
        marks = [mask if name in inputs else ~mask for name, mask in present.items()]
        rows = np.flatnonzero(np.logical_and.reduce(marks))
        if rows.size:
            yield inputs, rows


def subsets(names: Collection[str]) -> Iterator[frozenset[str]]:
    """All but the whole, the largest first."""
    for size in reversed(range(len(names))):
        yield from map(frozenset, itertools.combinations(names, size))


def _can_learn(y: np.ndarray, rows: np.ndarray, is_regression: bool) -> bool:
    if is_regression:
        return bool(rows.any())
    return len(np.unique(y[rows])) == len(np.unique(y))
