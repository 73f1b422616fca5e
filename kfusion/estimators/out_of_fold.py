"""What members said of rows that they were not trained on: the blend learned from it, the proof."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kfusion.data.folds import Fold
from kfusion.estimators.bagging import blend_outside, pooled
from kfusion.estimators.presence_blends import PresenceBlends, fit_presence_blends
from kfusion.evidence.delong import number_groups
from kfusion.evidence.disagreements import which_rows
from kfusion.evidence.modality_shapley import shapley_values
from kfusion.json_values import history_as_json
from kfusion.tasks import Task
from kfusion.validation.comparison import Comparison, compare_results
from kfusion.validation.cross_validation import CrossValidation, FoldResult

BLEND = "blend"


@dataclasses.dataclass(frozen=True, eq=False)
class OutOfFold:
    """Members judged on the same folds.

    Attributes:
        results: `CrossValidation` by member.
        modalities: Names of the inputs that each member learned from, by member.
        groups: `(rows,)` values that keep rows together, or None.
        weights: `(rows,)` floats, how much each row counts, or None.
        seed: Int.
        present: `(rows,)` booleans by input: which rows have it.
    """

    results: Mapping[str, CrossValidation]
    modalities: Mapping[str, tuple[str, ...]]
    groups: np.ndarray | None = None
    weights: np.ndarray | None = None
    seed: int = 0
    present: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def task(self) -> Task:
        """`Task` of all members."""
        return self._first.task

    @property
    def y(self) -> np.ndarray:
        """`(rows,)` targets."""
        return self._first.y

    @property
    def _first(self) -> CrossValidation:
        return next(iter(self.results.values()))

    def fit_blends(self) -> PresenceBlends:
        """The blends of all members, learned on all rows that were judged."""
        members = {name: pooled(r.predictions, self.task) for name, r in self.results.items()}
        judged = np.isfinite(next(iter(members.values()))).all(axis=1)
        return fit_presence_blends(
            {name: values[judged] for name, values in members.items()},
            self.y[judged],
            modalities=self.modalities,
            present={name: mask[judged] for name, mask in self.present.items()},
            sample_weight=None if self.weights is None else self.weights[judged],
        )

    def compare(self, *, num_resamples: int | None = None, verbose: int | bool = 0) -> Comparison:
        """All members and the blend, against the best member of one modality.

        The blend is judged fold by fold with weights learned on the other folds. Where no member
        has one modality only, the best of all members is what it is held against.
        `num_resamples` is that of `compare_results`.
        """
        single = [name for name, used in self.modalities.items() if len(used) == 1]
        return compare_results(
            {**self.results, BLEND: self._blend_outside(self.results)},
            singles=single or list(self.modalities),
            groups=self.groups,
            proposed=BLEND,
            num_resamples=num_resamples,
            seed=self.seed,
            verbose=verbose,
        )

    def modality_values(self) -> dict[str, float]:
        """What each modality adds to the score, by Shapley, from refitted blends.

        The score of a set of modalities is that of the blend of the members that learned from
        these alone; that of none is what random scores reach (0.5 for an AUC), or the error of
        the mean. Above 0 is good for any score.

        Warns of modalities of which no member learned alone: what those tell only counts where
        others are there too.
        """
        names = sorted({name for used in self.modalities.values() for name in used})
        sign = self.task.score().sign
        unseen = [name for name in names if (name,) not in self.modalities.values()]
        if unseen and len(names) > 1:
            warnings.warn(
                f"No member learned from {' or '.join(unseen)} alone: by itself it counts as "
                "telling nothing.",
                stacklevel=3,
            )

        def score_of(subset: frozenset[str]) -> float:
            kept = {
                name: result
                for name, result in self.results.items()
                if set(self.modalities[name]) <= subset
            }
            if not kept:
                return sign * self._score_of_nothing()
            return float(sign * self._blend_outside(kept).scores().mean())

        return shapley_values(score_of, names)

    def which_rows(self, comparison: Comparison, num_rows: int | None) -> pd.DataFrame:
        """The rows that the blend corrects, and those that it breaks, against the best single."""
        return which_rows(
            self.y,
            comparison.results[BLEND].predictions,
            self.results[comparison.best_single].predictions,
            task=self.task,
            num_rows=num_rows,
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All but the task, names and seed, as arrays by name."""
        arrays = {"y": self.y, "repeats": np.array([r.fold.repeat for r in self._first.folds])}
        if self.groups is not None:
            arrays["groups"] = number_groups(self.groups, len(self.y))
        if self.weights is not None:
            arrays["weights"] = self.weights
        arrays |= {f"present_{name}": mask for name, mask in self.present.items()}
        for i, result in enumerate(self._first.folds):
            arrays |= {f"train_{i}": result.fold.train, f"test_{i}": result.fold.test}
        for m, found in enumerate(self.results.values()):
            arrays |= {f"member_{m}_{i}": r.predictions for i, r in enumerate(found.folds)}
        return arrays

    def histories(self) -> dict[str, list[dict[str, list[float | None]]]]:
        """What each fold of each member logged, as JSON can hold it."""
        return {
            name: [history_as_json(found.history) for found in result.folds]
            for name, result in self.results.items()
        }

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, np.ndarray],
        modalities: Mapping[str, tuple[str, ...]],
        *,
        task: Task,
        histories: Mapping[str, Sequence[Mapping[str, Sequence[float | None]]]],
        seed: int = 0,
    ) -> OutOfFold:
        """What `to_arrays` and `histories` gave, without the fold models."""
        folds = [
            Fold(i, arrays[f"train_{i}"], arrays[f"test_{i}"], int(repeat))
            for i, repeat in enumerate(arrays["repeats"])
        ]
        results = {
            name: CrossValidation(
                task,
                arrays["y"],
                [
                    FoldResult(f, arrays[f"member_{m}_{f.number}"], 0.0, None, history)
                    for f, history in zip(folds, histories[name], strict=True)
                ],
            )
            for m, name in enumerate(modalities)
        }
        prefix = "present_"
        present = {
            name.removeprefix(prefix): mask
            for name, mask in arrays.items()
            if name.startswith(prefix)
        }
        return cls(results, modalities, arrays.get("groups"), arrays.get("weights"), seed, present)

    def _blend_outside(self, results: Mapping[str, Any]) -> CrossValidation:
        return blend_outside(
            results,
            modalities={name: self.modalities[name] for name in results},
            present=self.present,
            weights=self.weights,
            groups=self.groups,
            seed=self.seed,
        )

    def _score_of_nothing(self) -> float:
        score = self.task.score()
        values = []
        for result in self._first.folds:
            y = self.y[result.fold.test]
            if self.task.kind == "regression":
                guess = np.full((len(y), 1), self.y[result.fold.train].mean())
            else:
                guess = np.full((len(y), self.task.units), 1 / max(self.task.units, 2))
            values.append(score.function(y, self.task.answers(guess), None))
        return float(np.mean(values))
