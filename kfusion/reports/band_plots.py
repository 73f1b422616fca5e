"""Pictures of curves with their bands, and of values against predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kfusion.evidence.curve_bands import CurveBand
from kfusion.plots import (
    COLORS,
    GUIDE,
    SMALL_SIZE,
    figure_of,
    finish_unit_square,
    fit_figure,
    line_of,
    new_axes,
    set_labels,
    shown_name,
)

# Of so many curves bands would hide each other.
MAX_BANDS = 4
PALE: dict[str, Any] = {"color": "0.7", "linewidth": 0.6, "alpha": 0.5}
# Inches: of a panel of several.
PANEL_WIDTH = 1.6


def panels_of(plot: Callable[..., Figure], bands: Mapping[str, CurveBand]) -> dict[str, Figure]:
    """Each curve in a figure of its own, with its band, in front of all others.

    Args:
        plot: `plot_roc_bands` or `plot_precision_recall_bands`.
        bands: By name.
    """
    figures = {}
    for name, band in bands.items():
        others = [each for each in bands.values() if each is not band]
        ax = new_axes(PANEL_WIDTH)
        figures[name] = plot({name: band}, beside=others, ax=ax)
        legend = ax.get_legend()
        if legend is not None:
            # A line of the legend would be wider than the axes.
            (text,) = legend.get_texts()
            legend.remove()
            ax.set_title("\n(".join(text.get_text().rsplit(" (", 1)), fontsize=SMALL_SIZE, pad=4)
        ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        ax.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        fit_figure(ax)
    return figures


def plot_roc_bands(
    bands: Mapping[str, CurveBand],
    *,
    beside: Sequence[CurveBand] = (),
    ax: Axes | None = None,
) -> Figure:
    """Draws ROC curves with their bands, if there are no more than 4, and areas in the legend.

    Args:
        bands: By name, as of `roc_band`.
        beside: Others, pale and without a name.
        ax: Axes to draw into; by default those of a new figure.
    """
    drawn = new_axes() if ax is None else ax
    drawn.plot([0, 1], [0, 1], **GUIDE)
    for band in beside:
        drawn.plot(np.append(0, band.x), np.append(0, band.y), **PALE)
    for place, (name, band) in enumerate(bands.items()):
        label = f"{shown_name(name)} (AUC {band.area:.3f})"
        drawn.plot(np.append(0, band.x), np.append(0, band.y), label=label, **line_of(place))
        if len(bands) <= MAX_BANDS:
            _shade(drawn, band, place, None)
    finish_unit_square(drawn, "false positive rate", "true positive rate")
    if ax is None:
        fit_figure(drawn)
    return figure_of(drawn)


def plot_precision_recall_bands(
    bands: Mapping[str, CurveBand],
    share: float | None = None,
    *,
    beside: Sequence[CurveBand] = (),
    ax: Axes | None = None,
) -> Figure:
    """Draws precision-recall curves with their bands, if there are no more than 4.

    Args:
        bands: By name, as of `precision_recall_band`.
        share: Float, share of positives, which is the precision of random scores, as a line; None
            where the curves are of different classes.
        beside: Others, pale and without a name.
        ax: Axes to draw into; by default those of a new figure.
    """
    drawn = new_axes() if ax is None else ax
    for band in beside:
        drawn.plot(band.x, band.y, drawstyle="steps-pre", **PALE)
    for place, (name, band) in enumerate(bands.items()):
        label = f"{shown_name(name)} (AP {band.area:.3f})"
        drawn.plot(band.x, band.y, drawstyle="steps-pre", label=label, **line_of(place))
        if len(bands) <= MAX_BANDS:
            _shade(drawn, band, place, "pre")
    if share is not None:
        drawn.axhline(share, label=f"share of positives ({share:.3f})", **GUIDE)
    finish_unit_square(drawn, "recall", "precision")
    if ax is None:
        fit_figure(drawn)
    return figure_of(drawn)


def plot_predicted(y: Any, predicted: Any, *, ax: Axes | None = None) -> Figure:
    """Draws the values of a regression against what was predicted; on the line they are equal.

    Args:
        y: `(rows,)` floats.
        predicted: `(rows,)` floats.
        ax: Axes to draw into; by default those of a new figure.
    """
    drawn = new_axes() if ax is None else ax
    ends = np.array([min(np.min(y), np.min(predicted)), max(np.max(y), np.max(predicted))])
    ends += np.array([-0.03, 0.03]) * ((ends[1] - ends[0]) or 1.0)
    drawn.plot(ends, ends, **GUIDE)
    # Many points are one picture: as shapes they would make the page slow.
    drawn.scatter(
        predicted, y, s=6, color=COLORS[0], alpha=0.5, linewidths=0, rasterized=len(y) > 2000
    )
    drawn.set_xlim(*ends)
    drawn.set_ylim(*ends)
    drawn.set_box_aspect(1)
    set_labels(drawn, "predicted value", "true value")
    if ax is None:
        fit_figure(drawn)
    return figure_of(drawn)


def _shade(ax: Axes, band: CurveBand, place: int, step: Any) -> None:
    if np.isfinite(band.low).all():
        ax.fill_between(
            band.x,
            band.low,
            band.high,
            step=step,
            color=line_of(place)["color"],
            alpha=0.18,
            linewidth=0,
        )
