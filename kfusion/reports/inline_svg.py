"""Matplotlib figures as elements of a page that is light or dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from kfusion.plots import COLORS
from kfusion.reports.blocks import Panels, Picture

# The page's custom properties in place of colours: black is the colour of its text.
THEME = {
    **{color.lower(): f"var(--mark-{place})" for place, color in enumerate(COLORS)},
    "#000000": "currentColor",
    "#e6e6e6": "var(--grid)",
    **dict.fromkeys(("#8c8c8c", "#999999", "#b3b3b3"), "var(--faint)"),
}
# How much larger than on paper: 8 points are 13 pixels.
SCALE = 1.25 * 96 / 72
_COLOR = re.compile(r"#[0-9a-f]{6}")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_XLINK = "{http://www.w3.org/1999/xlink}href"


def to_picture(figure: Figure, name: str, *, alt: str, caption: str) -> Picture:
    """Draws a figure as SVG whose colours and font are the page's.

    Args:
        figure: `matplotlib.figure.Figure`.
        name: Text of letters, digits and dashes, in front of every id: no two pictures of a page
            may share one.
        alt: What it shows, for those who do not see it.
        caption: What to see in it.
    """
    file = io.BytesIO()
    # Texts as texts, ids that are the same each time.
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}),
        warnings.catch_warnings(),
    ):
        # The reader's browser has the fonts, not this machine.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for parent in root.iter():
        for child in list(parent):
            # Matplotlib's styles would be those of the whole page.
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = dict(_attribute(key, value, name) for key, value in element.attrib.items())
    width = float(root.attrib.pop("width").removesuffix("pt"))
    root.attrib.pop("height")
    root.attrib.pop("version", None)
    root.attrib |= {"role": "img", "aria-label": alt}
    text = ElementTree.tostring(root, encoding="unicode")
    return Picture(Markup(text), caption, round(width * SCALE))


def to_panels(figures: Mapping[str, Figure], name: str, *, alt: str, caption: str) -> Panels:
    """Draws figures that are alike; arguments as of `to_picture`.

    Args:
        figures: By what each shows.
        name: In front of every id, with a number.
        alt: What all show.
        caption: What to see in them.
    """
    pictures = [
        to_picture(figure, f"{name}-{place}", alt=f"{alt}: {shown}", caption="")
        for place, (shown, figure) in enumerate(figures.items())
    ]
    return Panels([each.svg for each in pictures], caption, max(each.width for each in pictures))


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _attribute(key: str, value: str, name: str) -> tuple[str, str]:
    if key == "id":
        return key, f"{name}-{value}"
    if key == _XLINK:
        return "href", value.replace("#", f"#{name}-", 1) if value.startswith("#") else value
    if key in ("style", "fill", "stroke"):
        value = _COLOR.sub(lambda found: THEME.get(found[0], found[0]), value)
    return key, _REFERENCE.sub(rf"url(#{name}-\1)", value)
