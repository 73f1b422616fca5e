"""Pictures of curves and intervals, one column of a page wide, in colours that all eyes tell apart.

Every function returns a `matplotlib.figure.Figure`, to be shown by a notebook or written by
`figure.savefig("roc.png")`. None touches pyplot or its settings. With `ax=`, they draw into axes of
yours and return the figure these belong to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

from kfusion import metrics
from kfusion.data.inputs import check_lengths
from kfusion.evidence import curves

# Okabe & Ito, Color Universal Design, 2008: the darker ones first, without the yellow.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
LINE_STYLES = ("-", "--", ":", "-.")
# Shares as the first colour, more or less opaque: read on white paper and on a dark page alike.
SHADES = LinearSegmentedColormap.from_list(
    "shades", [(*to_rgb(COLORS[0]), 0.0), (*to_rgb(COLORS[0]), 1.0)]
)
# Above this share a cell is dark enough for white numbers.
DARK_SHARE = 0.85
GUIDE: dict[str, Any] = {"color": "0.55", "linewidth": 0.8, "linestyle": (0, (2, 2))}
# Inches: a column of a page, and the page. Points: text, its numbers, and what is just legible.
COLUMN_WIDTH, PAGE_WIDTH = 3.4, 7.0
TEXT_SIZE, SMALL_SIZE, SMALLEST_SIZE = 8, 7, 5
# Shares of the size of a font: the width of a digit, and the height of a line.
DIGIT_WIDTH, LINE_HEIGHT = 0.65, 1.2


def plot_roc(y: Any, scores_by_name: Mapping[str, Any], *, ax: Axes | None = None) -> Figure:
    """Draws the ROC curve of each candidate, with its area in the legend.

    Args:
        y: `(rows,)` of 0 and 1.
        scores_by_name: Mapping from names to `(rows,)` finite scores, higher means more likely 1.
        ax: Axes to draw into; by default those of a new figure.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        TypeError: If `scores_by_name` is no mapping.
        ValueError: If it is empty or `curves.roc_curve` refuses one; the message names it.

    Example:
        >>> figure = plot_roc([0, 0, 1, 1], {"table": [1, 3, 2, 4], "image": [1, 2, 3, 4]})
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['table (AUC 0.750)', 'image (AUC 1.000)']
    """
    traced = _each(scores_by_name, lambda scores: curves.roc_curve(y, scores), "scores_by_name")
    drawn = new_axes() if ax is None else ax
    drawn.plot([0, 1], [0, 1], **GUIDE)
    for place, (name, curve) in enumerate(traced.items()):
        area = metrics.roc_auc(np.ravel(y), np.ravel(scores_by_name[name]))
        drawn.plot(
            curve.false_positive_rates,
            curve.true_positive_rates,
            label=f"{shown_name(name)} (AUC {area:.3f})",
            **line_of(place),
        )
    finish_unit_square(drawn, "false positive rate", "true positive rate")
    if ax is None:
        fit_figure(drawn)
    return figure_of(drawn)


def plot_precision_recall(
    y: Any, scores_by_name: Mapping[str, Any], *, ax: Axes | None = None
) -> Figure:
    """Draws the precision-recall curve of each candidate, with its average precision.

    Drawn in steps, as average precision sums it. A grey line marks the share of positives, which
    is the precision of random scores.

    Args:
        y: `(rows,)` of 0 and 1.
        scores_by_name: Mapping from names to `(rows,)` finite scores, higher means more likely 1.
        ax: Axes to draw into; by default those of a new figure.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        TypeError: If `scores_by_name` is no mapping.
        ValueError: If it is empty or `curves.precision_recall_curve` refuses one; the message
            names it.

    Example:
        >>> figure = plot_precision_recall([0, 0, 1, 1], {"image": [1, 3, 2, 4]})
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['image (AP 0.833)', 'share of positives (0.500)']
    """
    traced = _each(
        scores_by_name, lambda scores: curves.precision_recall_curve(y, scores), "scores_by_name"
    )
    share = float(np.mean(y))
    drawn = new_axes() if ax is None else ax
    for place, (name, curve) in enumerate(traced.items()):
        area = metrics.average_precision(np.ravel(y), np.ravel(scores_by_name[name]))
        drawn.plot(
            curve.recall,
            curve.precision,
            drawstyle="steps-post",
            label=f"{shown_name(name)} (AP {area:.3f})",
            **line_of(place),
        )
    drawn.axhline(share, label=f"share of positives ({share:.3f})", **GUIDE)
    finish_unit_square(drawn, "recall", "precision")
    if ax is None:
        fit_figure(drawn)
    return figure_of(drawn)


def plot_reliability(
    y: Any,
    probabilities_by_name: Mapping[str, Any],
    *,
    num_bins: int = 10,
    strategy: str = "uniform",
    ax: Axes | None = None,
) -> Figure:
    """Draws predicted probability against observed rate, and below it where the predictions lie.

    Bars are Wilson 95 % intervals: a calibrated model's cross the grey diagonal, all but a few.
    The legend gives the expected calibration error, over its own 15 bins of equal width.

    Args:
        y: `(rows,)` of 0 and 1.
        probabilities_by_name: Mapping from names to `(rows,)` probabilities of class 1.
        num_bins: Int, at most so many points per candidate.
        strategy: "uniform" (bins of equal width) or "quantile" (of equal counts).
        ax: Axes to draw into; by default those of a new figure.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        TypeError: If `probabilities_by_name` is no mapping.
        ValueError: If it is empty or `curves.reliability_curve` refuses one; the message names it.

    Example:
        >>> figure = plot_reliability([0, 1, 1], {"image": [0.2, 0.6, 0.9]})
        >>> figure.axes[0].get_ylabel()
        'observed rate'
    """
    traced = _each(
        probabilities_by_name,
        lambda given: curves.reliability_curve(y, given, num_bins=num_bins, strategy=strategy),
        "probabilities_by_name",
    )
    drawn = new_axes() if ax is None else ax
    histogram = drawn.inset_axes((0, -0.3, 1, 0.22))
    drawn.plot([0, 1], [0, 1], **GUIDE)
    for place, (name, curve) in enumerate(traced.items()):
        positive = np.ravel(probabilities_by_name[name]).astype(np.float64)
        both = np.stack([1 - positive, positive], axis=1)
        error = metrics.expected_calibration_error(np.ravel(y), both)
        line = line_of(place)
        drawn.vlines(curve.predicted, curve.low, curve.high, color=line["color"], linewidth=0.8)
        drawn.plot(
            curve.predicted,
            curve.observed,
            marker="o",
            markersize=3,
            label=f"{shown_name(name)} (ECE {error:.3f})",
            **line,
        )
        counts, edges = np.histogram(positive, bins=20, range=(0, 1))
        histogram.stairs(counts / positive.size, edges, **line)
    finish_unit_square(drawn, "", "observed rate")
    drawn.tick_params(labelbottom=False)
    histogram.set_xlim(drawn.get_xlim())
    set_labels(histogram, "predicted probability", "share of rows")
    if ax is None:
        fit_figure(drawn)
    return figure_of(drawn)


def plot_confusion(
    y: Any, predicted: Any, class_names: Sequence[str], *, ax: Axes | None = None
) -> Figure:
    """Draws which classes are taken for which: rows are true, columns predicted.

    A cell's colour is its share of the rows of the true class, so that rare classes read as well
    as common ones; its number, where there is room for it, the rows themselves. A class without
    rows is grey. With many classes, some names are left out at the edges.

    Args:
        y: `(rows,)` ints from 0 to `classes - 1`.
        predicted: `(rows,)` ints, the predicted classes.
        class_names: Strings in the order of the labels.
        ax: Axes to draw into; by default those of a new figure, a column to a page wide.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: If `curves.confusion` refuses the rows; the message names the row.

    Example:
        >>> figure = plot_confusion([0, 0, 1], [0, 1, 1], ["forest", "grass"])
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['1', '1', '0', '1']
    """
    return plot_confusion_counts(
        curves.confusion(y, predicted, len(class_names)), class_names, ax=ax
    )


def plot_confusion_counts(
    counts: Any, class_names: Sequence[str], *, ax: Axes | None = None
) -> Figure:
    """Draws counts of classes that are there already; see `plot_confusion`.

    Args:
        counts: `(classes, classes)` ints, true classes by predicted ones.
        class_names: Strings in the order of the labels.
        ax: Axes to draw into; by default those of a new figure.
    """
    counts = np.asarray(counts)
    num_classes = len(class_names)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.ma.masked_invalid(counts / np.where(totals, totals, np.nan))
    colors = SHADES.with_extremes(bad="0.8")
    width = min(max(COLUMN_WIDTH, 1.6 + 0.32 * num_classes), PAGE_WIDTH)
    drawn = new_axes(width) if ax is None else ax
    image = drawn.imshow(shares, cmap=colors, vmin=0, vmax=1)
    set_labels(drawn, "predicted class", "true class")
    bar = figure_of(drawn).colorbar(image, cax=drawn.inset_axes((1.03, 0.15, 0.03, 0.7)))
    bar.set_label("share of the true class", fontsize=SMALL_SIZE)
    bar.ax.tick_params(labelsize=SMALL_SIZE)
    # One picture in place of stripes, whose edges would show through.
    cast(QuadMesh, bar.solids).set_rasterized(True)
    _name_cells(drawn, class_names)
    if ax is None:
        fit_figure(drawn)
    _number_cells(drawn, counts, shares)
    return figure_of(drawn)


def plot_intervals(
    names: Sequence[str],
    centers: Any,
    lows: Any,
    highs: Any,
    *,
    reference: float | None = None,
    reference_name: str = "",
    label: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draws a point and an interval per candidate, one line each, first at the top.

    Args:
        names: Strings, one per candidate.
        centers: `(candidates,)` finite floats, the points.
        lows: `(candidates,)` floats, lower ends of the intervals; both NaN where there is none.
        highs: `(candidates,)` floats, upper ends.
        reference: Float, where to draw a vertical line, such as the best single input's score.
        reference_name: String, what the line is, for the legend.
        label: String, what is measured, in its unit.
        ax: Axes to draw into; by default those of a new figure.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: If lengths differ, a number is not finite, or an interval ends before it
            starts; the message names the candidate.

    Example:
        >>> figure = plot_intervals(["image", "fused"], [0.8, 0.9], [0.7, 0.8], [0.9, 1.0])
        >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
        ['image', 'fused']
    """
    names = [str(name) for name in names]
    numbers = {"centers": centers, "lows": lows, "highs": highs}
    check_lengths({"names": names, **numbers})
    points, starts, ends = (np.asarray(values, np.float64) for values in numbers.values())
    for row, name in enumerate(names):
        is_unknown = np.isnan(starts[row]) and np.isnan(ends[row])
        is_interval = is_unknown or -np.inf < starts[row] <= ends[row] < np.inf
        if not (np.isfinite(points[row]) and is_interval):
            raise ValueError(
                "Each candidate must have a finite point and an interval from low to high. "
                f"Received: {points[row]} and {starts[row]} to {ends[row]} for {name!r}."
            )
    rows = np.arange(len(names))
    drawn = ax
    if drawn is None:
        size = (COLUMN_WIDTH, 0.8 + 0.22 * len(names))
        drawn = Figure(figsize=size, dpi=200, layout="constrained").add_subplot()
    drawn.hlines(rows, starts, ends, color=COLORS[0], linewidth=1.5)
    drawn.plot(points, rows, color=COLORS[0], marker="o", markersize=4, linestyle="none")
    drawn.set_yticks(rows, [shown_name(name) for name in names])
    drawn.set_ylim(len(names) - 0.5, -0.5)
    drawn.locator_params(axis="x", nbins=5)
    drawn.grid(axis="x", color="0.9", linewidth=0.6)
    drawn.set_axisbelow(True)
    set_labels(drawn, label, "")
    if reference is not None:
        line: dict[str, Any] = {"color": COLORS[1], "linewidth": 1, "linestyle": "--"}
        drawn.axvline(reference, label=shown_name(reference_name, 48), zorder=0.9, **line)
        if reference_name:
            add_legend(drawn, to_the_left=True)
    return figure_of(drawn)


def _each(by_name: Any, trace: Callable, argument: str) -> dict[str, Any]:
    """The curve of each candidate; an error says whose."""
    if not isinstance(by_name, Mapping):
        raise TypeError(
            f"`{argument}` must be a dict from names to arrays of shape (rows,). Received: "
            f"{type(by_name).__name__}."
        )
    if not by_name:
        raise ValueError(f"`{argument}` is empty: there is nothing to draw.")
    traced = {}
    for name, given in by_name.items():
        try:
            traced[name] = trace(given)
        except ValueError as error:
            raise ValueError(f"{name!r} cannot be drawn. {error}") from error
    return traced


def new_axes(width: float = COLUMN_WIDTH) -> Axes:
    figure = Figure(figsize=(width, width), dpi=200)
    figure.set_layout_engine("none")
    return figure.add_subplot()


def fit_figure(ax: Axes, *, margin: float = 0.04) -> None:
    """Gives square axes the width that their labels leave, and the figure the height this takes.

    Matplotlib's own layouts, given axes of a fixed shape, leave white stripes or cut off labels.

    Args:
        ax: The only axes of a figure; others may be their insets.
        margin: Float, inches around all.
    """
    figure = figure_of(ax)
    width = figure.get_figwidth()
    # In rounds: insets reach beyond the axes by a share of their size, which changes in each.
    for _ in range(3):
        outer = figure.get_tightbbox().padded(margin)
        inner = ax.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        left, below = inner.x0 - outer.x0, inner.y0 - outer.y0
        across = max(width - left - (outer.x1 - inner.x1), width / 4)
        total = below + across + outer.y1 - inner.y1
        figure.set_size_inches(width, total)
        ax.set_position((left / width, below / total, across / width, across / total))


def figure_of(ax: Axes) -> Figure:
    figure = ax.figure
    while not isinstance(figure, Figure):
        figure = figure.figure
    return figure


def line_of(place: int) -> dict[str, Any]:
    """Color and style of the line at a place in the legend; no two alike among the first 28."""
    # Both change with the place, so that neighbours differ without their colors, too.
    style = LINE_STYLES[place % len(LINE_STYLES)]
    return {"color": COLORS[place % len(COLORS)], "linestyle": style, "linewidth": 1.2}


def finish_unit_square(ax: Axes, x_label: str, y_label: str) -> None:
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.02, 1.02)
    ax.set_box_aspect(1)
    set_labels(ax, x_label, y_label)
    add_legend(ax)


def set_labels(ax: Axes, x_label: str, y_label: str) -> None:
    ax.set_xlabel(x_label, fontsize=TEXT_SIZE)
    ax.set_ylabel(y_label, fontsize=TEXT_SIZE)
    ax.tick_params(labelsize=SMALL_SIZE)


def add_legend(ax: Axes, *, to_the_left: bool = False) -> None:
    """Above the axes, where it hides nothing however many lines it has; maybe above names, too."""
    ax.legend(
        loc="lower right" if to_the_left else "lower left",
        bbox_to_anchor=(1 if to_the_left else 0, 1),
        fontsize=SMALL_SIZE,
        frameon=False,
        borderaxespad=0.2,
        labelspacing=0.25,
    )


def _name_cells(ax: Axes, class_names: Sequence[str]) -> None:
    """Names as many rows and columns as there is room for, evenly."""
    cell = _cell_points(ax, len(class_names))
    step = math.ceil(LINE_HEIGHT * SMALL_SIZE / cell)
    named = range(0, len(class_names), step)
    names = [shown_name(class_names[label]) for label in named]
    fits_across = DIGIT_WIDTH * SMALL_SIZE * max(len(name) for name in names) < 0.9 * step * cell
    ax.set_xticks(named, names, rotation=0 if fits_across else 90)
    ax.set_yticks(named, names)


def _number_cells(ax: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    """Writes the counts into the cells, if they can be read there; zeros pale."""
    room = 0.85 * _cell_points(ax, len(counts))
    size = min(TEXT_SIZE, room / (DIGIT_WIDTH * max(len(str(counts.max())), 2)))
    if size < SMALLEST_SIZE:
        return
    for (true, predicted), count in np.ndenumerate(counts):
        color = "0.6" if not count else "white" if shares[true, predicted] > DARK_SHARE else "black"
        ax.text(predicted, true, f"{count}", ha="center", va="center", size=size, color=color)


def _cell_points(ax: Axes, num_classes: int) -> float:
    """Side of a cell of a square table in points, as the figure is laid out by now."""
    figure = figure_of(ax)
    figure.draw_without_rendering()
    extent = ax.get_window_extent()
    return min(extent.width, extent.height) * 72 / figure.dpi / num_classes


def shown_name(name: Any, length: int = 28) -> str:
    """A name as Matplotlib writes it as it is: short, no formula, and not hidden in a legend."""
    name = str(name)
    short = name if len(name) <= length else name[: length - 1] + "…"
    shown = short.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
