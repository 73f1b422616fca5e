"""One HTML file of all that a result says."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import jinja2

from kfusion.reports.blocks import Section
from kfusion.reports.data_sections import data_section, rows_section
from kfusion.reports.evidence_sections import (
    comparison_section,
    curves_section,
    learning_section,
    verdict_pictures,
)
from kfusion.reports.given_data import GivenData, read_data
from kfusion.reports.other_sections import (
    doctor_section,
    environment_section,
    modalities_section,
)
from kfusion.reports.reading import read_subject
from kfusion.reports.run_reading import read_run_images
from kfusion.reports.search_sections import search_section
from kfusion.reports.subject import Subject

TEMPLATE = "page.html.j2"


def report(result: Any, path: str | os.PathLike, *, data: Any = None, command: str = "") -> Path:
    """Writes a page on a result: one file that opens anywhere, without a server or a network.

    The verdict and the plot that supports it come first; then, as far as the result has them, the
    data, the comparison, curves with bands, confusion, learning curves, the search, what modalities
    bring, rows predicted best and worst, what the doctor found, and how to make it again.

    Args:
        result: A fitted `FusionClassifier` or `FusionRegressor`; a `Comparison`; a
            `CrossValidation`; an `OptunaTuner`, an Optuna study or its `analyse`; a `Diagnosis`;
            the `History` of a training; the folder of a run of `kfusion fit`, `search` or `demo`;
            or two such folders, which are put side by side.
        path: HTML file to write; one that is there is replaced.
        data: The rows that the result is of, for images and columns: `FusionData`, or what an
            estimator was fitted on. Of a run, the whole table or the validation rows; by default
            the images of these, if its table and they are still where they were.
        command: The line that made the result, to be shown; by default what a run kept.

    Returns:
        The path.

    Raises:
        TypeError: If `result` is of no kind that is known.
        ValueError: If `data` has other rows than the result, a score is undefined in a fold of a
            `CrossValidation`, or two runs predict different kinds of target.
        FileNotFoundError: If a folder holds no finished run.

    Example:
        >>> import tempfile
        >>> from kfusion.doctor import Diagnosis
        >>> path = report(Diagnosis([], num_checks=12), Path(tempfile.mkdtemp()) / "report.html")
        >>> "Nothing was found in 12 checks." in path.read_text(encoding="utf-8")
        True
    """
    subject = read_subject(result)
    if command:
        subject = dataclasses.replace(subject, command=command)
    given = None
    if data is not None:
        given = read_data(data, **_image_settings(result))
        _check_rows(subject, given)
    elif isinstance(result, (str, os.PathLike)):
        given = read_run_images(Path(result))
    text = render(subject, given)
    path = Path(path)
    path.write_text(text, encoding="utf-8")
    return path


def render(subject: Subject, data: GivenData | None = None) -> str:
    """The page as text.

    Args:
        subject: `Subject`.
        data: `GivenData`, or None.
    """
    sections = [
        data_section(subject, data),
        comparison_section(subject),
        curves_section(subject),
        learning_section(subject),
        search_section(subject),
        modalities_section(subject),
        rows_section(subject, data),
        doctor_section(subject),
        environment_section(subject),
    ]
    there: list[Section] = [section for section in sections if section is not None]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kfusion.reports", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(TEMPLATE).render(
        subject=subject, pictures=verdict_pictures(subject), sections=there
    )


def _image_settings(result: Any) -> dict[str, Any]:
    """How an estimator reads images, so that `data` may be what it was fitted on."""
    if not hasattr(result, "image_column"):
        return {}
    return {
        "image_column": result.image_column,
        "image_folder": result.image_folder,
        "text_columns": result.text_columns,
        "shapes": result.input_shapes_,
    }


def _check_rows(subject: Subject, data: GivenData) -> None:
    """Raises `ValueError` if images would be shown beside other rows' answers."""
    if subject.kept is None or not subject.results or subject.row_numbers is not None:
        return
    rows = len(subject.results[subject.kept].y)
    if rows != len(data):
        raise ValueError(
            f"`data` must have the rows of the result, {rows:,}. Received: {len(data):,} rows."
        )
