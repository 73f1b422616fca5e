"""Sections on what modalities bring, what the doctor found, and how to make it again."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

import numpy as np
import pandas as pd

from kfusion.plots import plot_intervals
from kfusion.reports.blocks import Code, Facts, Notice, Picture, Section, to_table
from kfusion.reports.inline_svg import to_picture
from kfusion.reports.subject import Subject


def modalities_section(subject: Subject) -> Section | None:
    """What each modality adds, and how much each member counts in the blend."""
    blocks = []
    if subject.modality_values:
        caption = (
            "What each modality adds to the score beside all others, by Shapley, from blends of "
            "the members that learned from it. Left of the line it harms."
        )
        blocks.append(
            _draw_points(subject.modality_values, "shapley", "adds to the score", caption)
        )
    if subject.weights:
        caption = (
            "How much each member counts in the blend, on log-probabilities: 0 to 3, of any sum. "
            "Of two that say the same, one may take the weight of both."
        )
        blocks.append(_draw_points(subject.weights, "weights", "weight in the blend", caption))
    return Section("modalities", "Modalities", blocks) if blocks else None


def _draw_points(values: Mapping[str, float], name: str, label: str, caption: str) -> Picture:
    nothing = np.full(len(values), np.nan)
    figure = plot_intervals(
        list(values), list(values.values()), nothing, nothing, reference=0.0, label=label
    )
    listed = ", ".join(f"{key} {value:.4f}" for key, value in values.items())
    return to_picture(figure, name, alt=f"{label}: {listed}", caption=caption)


def doctor_section(subject: Subject) -> Section | None:
    """All findings with evidence and cure, then the checks that could not decide."""
    diagnosis = subject.diagnosis
    if diagnosis is None or not (diagnosis.findings or diagnosis.undecided):
        return None
    blocks: list = [
        Notice(
            finding.severity,
            f"{finding.name} ({finding.subject})",
            {"found": finding.evidence, "effect": finding.effect, "cure": finding.cure},
        )
        for finding in diagnosis.findings
    ]
    if diagnosis.undecided:
        frame = pd.DataFrame(
            {
                "check": [each.name for each in diagnosis.undecided],
                "why": [each.reason for each in diagnosis.undecided],
            }
        )
        blocks.append(to_table(frame, "Checks that could not decide."))
    return Section("doctor", "The doctor's findings", blocks)


def environment_section(subject: Subject) -> Section | None:
    """Settings, versions, and the line that does it again."""
    blocks: list = [Code(line) for line in subject.command.splitlines()]
    if subject.settings:
        texts = [str(value) for value in subject.settings.values()]
        frame = pd.DataFrame({"setting": list(subject.settings), "value": texts})
        blocks.append(to_table(frame, "Settings."))
    if subject.versions:
        today = datetime.date.today().isoformat()
        blocks.append(Facts({**subject.versions, "report of": today}))
    return Section("environment", "To make it again", blocks) if blocks else None
