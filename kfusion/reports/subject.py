"""What a report is about: the parts that a result has; those that it lacks are empty."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kfusion.tasks import Task
from kfusion.validation.cross_validation import CrossValidation

if TYPE_CHECKING:
    from kfusion.doctor.findings import Diagnosis
    from kfusion.search.analysis import StudyAnalysis


@dataclasses.dataclass(frozen=True)
class Intervals:
    """Scores with their intervals, as `plot_intervals` draws them.

    Attributes:
        names: What is scored.
        centers: The scores.
        lows: Lower ends; NaN where there is no interval.
        highs: Upper ends.
        label: Name of the score.
        reference: Score to hold the others against, or None.
        reference_name: What it is of.
    """

    names: Sequence[str]
    centers: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]
    label: str
    reference: float | None = None
    reference_name: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """The parts of a result.

    Attributes:
        title: What was made.
        verdict: One sentence.
        notes: Sentences that belong to the verdict.
        task: `Task`, or None.
        results: `CrossValidation` by name, all of the same rows and folds.
        kept: Name of the result that curves, confusion and rows are of.
        reference: Name of the one it is held against, or None.
        is_pair: Whether the two are alike, none a reference of the other.
        row_numbers: `(rows,)` ints, which rows of the data the results' rows are; None for the
            same ones.
        groups: `(rows,)` values that keep rows together, or None.
        intervals: `Intervals`, or None.
        scores: DataFrame of what was compared, or None.
        row_counts: DataFrame of rows by class, or None.
        facts: What else is known of the data, by name.
        columns: DataFrame of the table's columns: name, kind and share missing; or None.
        histories: Values of each epoch by metric, by name.
        metric: Name of the metric that was watched over the epochs.
        analysis: `StudyAnalysis`, or None.
        modality_values: Shapley values by modality.
        weights: Weights in the blend by member.
        diagnosis: `Diagnosis`, or None.
        settings: What was asked for, by name.
        versions: Versions by library.
        command: The line that made it, or "".
    """

    title: str
    verdict: str
    notes: Sequence[str] = ()
    task: Task | None = None
    results: Mapping[str, CrossValidation] = dataclasses.field(default_factory=dict)
    kept: str | None = None
    reference: str | None = None
    is_pair: bool = False
    row_numbers: np.ndarray | None = None
    groups: np.ndarray | None = None
    intervals: Intervals | None = None
    scores: pd.DataFrame | None = None
    row_counts: pd.DataFrame | None = None
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    columns: pd.DataFrame | None = None
    histories: Mapping[str, Mapping[str, Sequence[float]]] = dataclasses.field(default_factory=dict)
    metric: str | None = None
    analysis: StudyAnalysis | None = None
    modality_values: Mapping[str, float] = dataclasses.field(default_factory=dict)
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    diagnosis: Diagnosis | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    command: str = ""
