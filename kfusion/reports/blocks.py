"""What the sections of a page are made of; the template knows how each looks."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

# Characters of a cell above which it is broken into lines.
LONG_TEXT = 30
# Pixels: of a character of a table, between columns, and of the narrowest place for a table.
_CHARACTER, _BETWEEN_COLUMNS, _NARROWEST = 7.5, 18, 350
# Nothing, a number, a share or a range.
_NUMBERS = re.compile(r"(< ?)?([-+]?[\d,]+(\.\d+)?(e[-+]\d+)?( ?%)?( to |$))*")


@dataclasses.dataclass(frozen=True)
class Warnings:
    """Sentences to heed, below one that says what they are."""

    title: str
    texts: Sequence[str]
    kind: str = "warnings"


@dataclasses.dataclass(frozen=True)
class Facts:
    """Short texts by name, side by side."""

    entries: Mapping[str, str]
    kind: str = "facts"


@dataclasses.dataclass(frozen=True)
class Code:
    """A line to copy."""

    text: str
    kind: str = "code"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A plot.

    Attributes:
        svg: The `<svg>` element, escaped where it has to be.
        caption: What to see in it.
        width: Int, in pixels, in which its texts are as large as the page's small print.
    """

    svg: Markup
    caption: str
    width: int
    kind: str = "picture"


@dataclasses.dataclass(frozen=True)
class Panels:
    """Plots of one kind, as many side by side as there is room for.

    Attributes:
        svgs: The `<svg>` elements, alike in size.
        caption: What to see in them.
        width: Int, in pixels, of each; see `Picture`.
    """

    svgs: Sequence[Markup]
    caption: str
    width: int
    kind: str = "panels"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        header: Names of the columns.
        rows: Cells, row by row.
        is_number: Whether a column holds numbers, which stand to the right.
        caption: What it shows.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_number: Sequence[bool]
    caption: str
    kind: str = "table"

    @property
    def may_scroll(self) -> bool:
        """Whether it may be wider than a phone, or than half a page; by the length of its texts."""
        total = 0.0
        for place, name in enumerate(self.header):
            # Of headings and long texts the words are wrapped.
            words = [len(word) for word in str(name).split()]
            texts = [min(len(row[place]), LONG_TEXT) for row in self.rows]
            total += _CHARACTER * max([*words, *texts], default=0) + _BETWEEN_COLUMNS
        return total > _NARROWEST


@dataclasses.dataclass(frozen=True)
class Card:
    """A row's image and lines of text on it."""

    uri: str
    alt: str
    lines: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Images of rows side by side."""

    cards: Sequence[Card]
    caption: str
    kind: str = "gallery"


@dataclasses.dataclass(frozen=True)
class Notice:
    """Something found, with entries by name; `severity` sets its colour."""

    severity: str
    title: str
    entries: Mapping[str, str]
    kind: str = "notice"


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: Its anchor.
        title: Its heading.
        blocks: What it holds, in order.
    """

    name: str
    title: str
    blocks: Sequence[Any]


def to_table(frame: pd.DataFrame, caption: str, *, digits: int = 4) -> Table:
    """A DataFrame as a table: numbers to so many decimals, what is missing left empty.

    Args:
        frame: Its columns as the table's; the index is left out.
        caption: What the table shows.
        digits: Int, decimals of numbers that are no counts.
    """
    rows = [[_spell(cell, digits) for cell in row] for row in frame.itertuples(index=False)]
    is_number = [
        all(_NUMBERS.fullmatch(cell) for cell in column) for column in zip(*rows, strict=True)
    ]
    return Table([str(name) for name in frame.columns], rows, is_number, caption)


def _spell(cell: Any, digits: int) -> str:
    if cell is None or (isinstance(cell, (float, np.floating)) and np.isnan(cell)):
        return ""
    if isinstance(cell, (bool, np.bool_)):
        return "yes" if cell else "no"
    if isinstance(cell, (int, np.integer)):
        return f"{cell:,}"
    if isinstance(cell, (float, np.floating)):
        cell = float(cell)
        return f"{cell:,.{digits}f}" if 1e-3 <= abs(cell) < 1e5 or not cell else f"{cell:.3g}"
    return str(cell)
