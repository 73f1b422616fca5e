"""Sections on the rows: what the data are, and which rows the model gets right and wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from kfusion.evidence.disagreements import which_rows
from kfusion.reports.blocks import Card, Facts, Gallery, Section, Table, to_table
from kfusion.reports.given_data import GivenData, describe_shapes
from kfusion.reports.subject import Subject
from kfusion.tasks import Task
from kfusion.validation.cross_validation import CrossValidation

# Images of the strip, in all and of one class.
NUM_SAMPLES, NUM_OF_CLASS = 18, 3
# Rows listed of each kind.
NUM_ROWS = 6


def data_section(subject: Subject, data: GivenData | None) -> Section | None:
    """How many rows of what there are, what is missing, and some images."""
    facts, counts, columns = dict(subject.facts), subject.row_counts, subject.columns
    if data is not None:
        if "validation rows" not in facts:
            facts.setdefault("rows", f"{len(data):,}")
        if data.groups is not None and subject.groups is None:
            facts.setdefault("groups", f"{len(np.unique(data.groups)):,}")
        facts = {**describe_shapes(data.shapes), **facts}
        if counts is None and data.class_names and data.y is not None:
            rows = np.bincount(data.y, minlength=len(data.class_names))
            counts = pd.DataFrame(
                {"class": data.class_names, "rows": rows, "share": rows / len(data)}
            )
        columns = data.columns if columns is None else columns
    blocks: list = []
    if facts:
        blocks.append(Facts(facts))
    if counts is not None:
        shown = counts.assign(share=[f"{share:.1%}" for share in counts["share"]])
        blocks.append(to_table(shown, "Rows by class."))
    if columns is not None:
        blocks.append(to_table(columns, "Columns of the table, and what they lack."))
    if data is not None and data.images is not None:
        blocks.append(_sample(subject, data, data.images))
    return Section("data", "Data", blocks) if blocks else None


def _sample(subject: Subject, data: GivenData, images: np.ndarray) -> Gallery:
    """Some rows of each class, evenly over the table; of a regression, some of all."""
    labels, names = _labels_of(subject, data)
    seen = images.reshape(len(data), -1).any(axis=1)
    places = np.flatnonzero(seen)
    if labels is None:
        chosen = [(place, "") for place in _evenly(places, NUM_SAMPLES)]
    else:
        each = max(1, min(NUM_OF_CLASS, NUM_SAMPLES // len(names)))
        chosen = [
            (place, name)
            for label, name in list(enumerate(names))[:NUM_SAMPLES]
            for place in _evenly(places[labels[places] == label], each)
        ]
    cards = [
        Card(
            data.image_of(place) or "",
            f"Image of row {data.row_numbers[place]}{f', {name}' if name else ''}",
            [name] if name else [f"row {data.row_numbers[place]}"],
        )
        for place, name in chosen
    ]
    caption = "Images as the model sees them, before its own preprocessing."
    if images.shape[-1] > 3:
        caption += f" The first three of {images.shape[-1]} channels."
    return Gallery(cards, caption)


def _labels_of(subject: Subject, data: GivenData) -> tuple[np.ndarray | None, Sequence[str]]:
    if data.class_names and data.y is not None:
        return data.y, data.class_names
    if subject.task is None or subject.task.kind == "regression" or subject.kept is None:
        return None, ()
    y = subject.results[subject.kept].y
    return (y, subject.task.class_names) if len(y) == len(data) else (None, ())


def _evenly(places: np.ndarray, count: int) -> np.ndarray:
    if len(places) <= count:
        return places
    return places[np.linspace(0, len(places) - 1, count).round().astype(int)]


def rows_section(subject: Subject, data: GivenData | None) -> Section | None:
    """The rows that are predicted best and worst, and those on which two models differ most."""
    if subject.kept is None or not subject.results or subject.task is None:
        return None
    kept = subject.kept
    told = _best_first(subject.task, subject.results[kept])
    worst = f"Predicted worst by {kept}: look at what they have in common, and for wrong labels."
    parts = [(told.iloc[: -NUM_ROWS - 1 : -1], worst)]
    reference = subject.reference
    if reference is not None and reference in subject.results and reference != kept:
        parts.append(_disagreements(subject.task, subject.results, kept, reference))
    parts.append((told.head(NUM_ROWS), f"Predicted best by {kept}."))
    blocks = [_show(subject, data, rows, caption) for rows, caption in parts if len(rows)]
    return Section("rows", "Rows", blocks)


def _best_first(task: Task, result: CrossValidation) -> pd.DataFrame:
    """All judged rows with what is predicted for them, the best predicted first."""
    predictions = result.predictions
    judged = np.flatnonzero(np.isfinite(predictions).all(axis=1))
    y, predictions = result.y[judged], predictions[judged]
    if task.kind == "regression":
        values = predictions[:, 0]
        told = {"true": y.astype(np.float64), "predicted": values, "error": values - y}
        order = np.argsort(np.abs(told["error"]), kind="stable")
    else:
        answers = task.probabilities(predictions)
        names = np.array(task.class_names, object)
        of_truth = answers[np.arange(len(y)), y]
        told = {"true": names[y], "predicted": names[answers.argmax(axis=1)]}
        told["p of true class"] = of_truth
        order = np.argsort(-of_truth, kind="stable")
    return pd.DataFrame({"row": judged, **told}).iloc[order]


def _disagreements(
    task: Task, results: Mapping[str, CrossValidation], kept: str, reference: str
) -> tuple[pd.DataFrame, str]:
    """The rows that one model corrects most and breaks most beside another."""
    ours, theirs = results[kept], results[reference]
    found = which_rows(
        ours.y, ours.predictions, theirs.predictions, task=task, num_rows=NUM_ROWS // 2
    )
    shown = found[["row", "y", "fused", "single", "change"]].rename(
        columns={"y": "true", "fused": kept, "single": reference}
    )
    what = "adds to the true class' probability"
    if task.kind == "regression":
        what = "takes off the squared error"
    return shown, (
        f"Disagreed on most: change is what {kept} {what} beside {reference}. Below 0 it harms."
    )


def _show(
    subject: Subject, data: GivenData | None, frame: pd.DataFrame, caption: str
) -> Gallery | Table:
    """Rows as images with what is told of them, or as a table."""
    places = frame["row"].to_numpy()
    if subject.row_numbers is not None:
        numbers = subject.row_numbers[places]
    else:
        numbers = places if data is None else data.row_numbers[places]
    frame = frame.assign(row=[str(number) for number in numbers])
    found = None if data is None else _find(data, numbers)
    if data is None or data.images is None or found is None:
        return to_table(frame, caption, digits=3)
    rows = to_table(frame, caption, digits=3)
    cards = [
        Card(
            data.image_of(place) or "",
            f"Image of row {number}, true {true}",
            [f"{name} {cell}" for name, cell in zip(rows.header, cells, strict=True)],
        )
        for place, number, true, cells in zip(found, numbers, frame["true"], rows.rows, strict=True)
    ]
    return Gallery(cards, caption)


def _find(data: GivenData, numbers: np.ndarray) -> np.ndarray | None:
    """Where rows of these numbers are in the data; None if one is not there."""
    places = {number: place for place, number in enumerate(data.row_numbers.tolist())}
    found = [places.get(number) for number in numbers.tolist()]
    return None if None in found else np.array(found)
