"""The parts of a report, read from the folder of a run, or of two side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kfusion.data.input_names import only
from kfusion.data.tables import TableSchema
from kfusion.evidence.estimates import JudgedRows
from kfusion.evidence.paired_comparison import PairedComparison, compare_folds
from kfusion.reports.given_data import GivenData, describe_columns, describe_shapes
from kfusion.reports.subject import Intervals, Subject
from kfusion.runs.run_records import RunRecord, read_run
from kfusion.runs.run_sources import read_judged_images

# Where a search within a run keeps its study.
STUDY = Path("trials", "search")
# What of two runs' descriptions may differ and is worth a word.
SETTINGS = ("kept", "image_columns", "target", "shapes", "train_rows", "validation_rows")


def read_run_folder(folder: Path) -> Subject:
    """Reads the folder that `kfusion fit`, `search` or `demo` left.

    Raises:
        FileNotFoundError: If it holds no finished run.
    """
    record = read_run(folder)
    about = record.description
    of_run = record.task
    return Subject(
        title=f"Run {folder.name}: {about['kept']} kept of {len(about['candidates'])} candidates",
        verdict=about["verdict"],
        task=of_run,
        results=record.results,
        kept=about["kept"],
        reference=_best_single(record),
        row_numbers=record.rows,
        groups=record.groups,
        intervals=_intervals(record),
        scores=_scores(record),
        row_counts=_row_counts(about),
        facts=_facts(about),
        columns=describe_columns(TableSchema.from_json(json.dumps(about["schema"]))),
        histories=record.histories,
        metric=of_run.objective.name,
        analysis=_read_trials(folder),
        versions=about.get("versions", {}),
        command=about.get("command", ""),
    )


def read_run_images(folder: Path) -> GivenData | None:
    """The images of a run's validation rows; None if they are not where they were."""
    record = read_run(folder)
    images = read_judged_images(record) if record.results else None
    return None if images is None else GivenData(images, None, record.rows)


def read_pair(first: Path, second: Path) -> Subject:
    """Reads two runs; compares what they kept, if their validation rows are the same.

    Raises:
        FileNotFoundError: If one of them holds no finished run.
        ValueError: If they are one folder, or predict different kinds of target.
    """
    if first.resolve() == second.resolve():
        raise ValueError(f"{first} and {second} are one folder: there is nothing to compare.")
    records = [read_run(first), read_run(second)]
    abouts = [record.description for record in records]
    if abouts[0]["kind"] != abouts[1]["kind"]:
        raise ValueError(
            f"{first} is a run of kind {abouts[0]['kind']!r}, {second} of {abouts[1]['kind']!r}: "
            "they have no score in common."
        )
    names = _names_of(first, second)
    common = _of_both(records, names)
    reason = _why_not_paired(*records)
    if reason:
        return Subject(verdict=f"The runs cannot be compared row by row: {reason}", **common)
    of_run = records[0].task
    own = [record.estimate(record.description["kept"]) for record in records]
    return Subject(
        verdict=_compare(records, names).verdict,
        notes=["Both models were also chosen on these rows."],
        task=of_run,
        results={
            name: record.results[record.description["kept"]]
            for name, record in zip(names, records, strict=True)
        },
        kept=names[0],
        reference=names[1],
        is_pair=True,
        row_numbers=records[0].rows,
        groups=records[0].groups,
        intervals=Intervals(
            names,
            [each.value for each in own],
            [each.low for each in own],
            [each.high for each in own],
            of_run.score().name,
        ),
        row_counts=_row_counts(abouts[0]),
        facts=_facts(abouts[0]),
        **common,
    )


def _of_both(records: list[RunRecord], names: tuple[str, str]) -> dict[str, Any]:
    """What can be said of two runs whatever their rows are."""
    abouts = [record.description for record in records]
    scores = pd.concat({name: _scores(r) for name, r in zip(names, records, strict=True)})
    return {
        "title": f"{names[0]} beside {names[1]}",
        "scores": scores.droplevel(1).rename_axis("run").reset_index(),
        "settings": _differing(names, abouts),
        "versions": abouts[0].get("versions", {}),
        "command": "\n".join(about["command"] for about in abouts if "command" in about),
    }


def _why_not_paired(first: RunRecord, second: RunRecord) -> str:
    """Why two runs' validation rows are not the same; empty if they are."""
    for record in (first, second):
        if not record.results:
            return (
                f"{record.folder} was written by a version that kept no predictions; run it anew."
            )
    classes = [list(record.description["class_names"]) for record in (first, second)]
    if classes[0] != classes[1]:
        return f"their classes are {classes[0]} and {classes[1]}."
    if not np.array_equal(first.rows, second.rows):
        shared = len(np.intersect1d(first.rows, second.rows))
        return (
            f"they were judged by {len(first.rows):,} and {len(second.rows):,} rows, of which "
            f"{shared:,} are the same. Give both the same table, --seed, --group and --validation."
        )
    targets = [next(iter(record.results.values())).y for record in (first, second)]
    different = np.flatnonzero(targets[0] != targets[1])
    if different.size:
        return (
            f"{different.size:,} of the {len(first.rows):,} rows that judged them have other "
            f"targets, such as row {first.rows[different[0]]}: they are of different tables."
        )
    return ""


def _compare(records: list[RunRecord], names: tuple[str, str]) -> PairedComparison:
    kept = [record.results[record.description["kept"]] for record in records]
    both = np.stack([result.folds[0].predictions for result in kept])
    return compare_folds(
        kept[0].y,
        [JudgedRows(np.arange(len(kept[0].y)), both)],
        task=records[0].task,
        score=records[0].task.score(),
        names=names,
        groups=records[0].groups,
    )


def _names_of(first: Path, second: Path) -> tuple[str, str]:
    a, b = first.resolve(), second.resolve()
    return (a.name, b.name) if a.name != b.name else (str(first), str(second))


def _differing(names: tuple[str, str], abouts: list[Mapping[str, Any]]) -> dict[str, str]:
    """Settings by run, as far as they differ."""
    return {
        f"{key} of {name}": str(about.get(key))
        for key in SETTINGS
        for name, about in zip(names, abouts, strict=True)
        if abouts[0].get(key) != abouts[1].get(key)
    }


def _best_single(record: RunRecord) -> str | None:
    score = record.task.score()
    schema = TableSchema.from_json(json.dumps(record.description["schema"]))
    names = [only(key) for key in (*record.description["shapes"], *schema.input_names)]
    singles = {
        about["name"]: about[score.name]
        for about in record.description["candidates"]
        if about["name"] in names and about[score.name] is not None
    }
    return max(singles, key=lambda name: score.sign * singles[name]) if singles else None


def _intervals(record: RunRecord) -> Intervals:
    score = record.task.score().name
    scored = {
        about["name"]: about[score]
        for about in record.description["candidates"]
        if about[score] is not None
    }
    own = {name: record.estimate(name) for name in scored if name in record.results}
    reference = _best_single(record)
    return Intervals(
        list(scored),
        list(scored.values()),
        [own[name].low if name in own else math.nan for name in scored],
        [own[name].high if name in own else math.nan for name in scored],
        score,
        None if reference is None else scored[reference],
        f"the best single input ({reference})",
    )


def _scores(record: RunRecord) -> pd.DataFrame:
    frame = pd.DataFrame(record.description["candidates"])
    frame = frame.drop(columns=["hyperparameters", "trials"], errors="ignore")
    kept = frame["name"] == record.description["kept"]
    frame["seconds"] = [f"{seconds:,.1f}" for seconds in frame["seconds"]]
    return frame.rename(columns={"name": ""}).assign(kept=np.where(kept, "kept", ""))


def _row_counts(about: Mapping[str, Any]) -> pd.DataFrame | None:
    rows = about.get("data", {}).get("class_rows")
    if not rows or not rows["train"]:
        return None
    frame = pd.DataFrame(rows).rename(
        columns={"train": "training rows", "validation": "validation rows"}
    )
    total = frame.sum(axis=1)
    return frame.assign(share=total / total.sum()).rename_axis("class").reset_index()


def _facts(about: Mapping[str, Any]) -> dict[str, str]:
    facts = {
        "training rows": f"{about['train_rows']:,}",
        "validation rows": f"{about['validation_rows']:,}",
    }
    groups = about.get("data", {}).get("groups")
    if groups and groups["train"] is not None:
        facts["training groups"] = f"{groups['train']:,}"
        facts["validation groups"] = f"{groups['validation']:,}"
    return facts | describe_shapes(about["shapes"])


def _read_trials(folder: Path) -> Any:
    """What the study of a search within a run says; None if there was no search."""
    if not (folder / STUDY).is_dir():
        return None
    from kfusion.search.analysis import analyse

    return analyse(folder / STUDY)
