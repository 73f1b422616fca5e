"""Pictures of a study: its history, importances, what was tried and how it did, learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kfusion.plots import (
    COLORS,
    COLUMN_WIDTH,
    GUIDE,
    PAGE_WIDTH,
    SHADES,
    SMALL_SIZE,
    TEXT_SIZE,
    add_legend,
    shown_name,
)

# What became of a trial, in the order of the stack.
STATE_COLORS = {
    "completed": COLORS[0],
    "pruned": COLORS[5],
    "failed": COLORS[1],
    "running": "0.7",
}
# Inches per row of bars, the height of a panel, and of a line above it.
ROW_HEIGHT, PANEL_HEIGHT, LEGEND_LINE = 0.17, 1.9, 0.13
# Of lines whose styles tell validation rows from training rows.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MAX_COLUMNS = 3


def plot_history(trials: pd.DataFrame, objective: str, direction: str) -> Figure:
    """Draws each completed trial's value, with its spread over runs, and the best so far.

    Args:
        trials: As of `StudyAnalysis`.
        objective: Label of the axis.
        direction: "min" or "max".
    """
    done = trials[trials["state"] == "completed"]
    figure, (ax,) = _panels(1, COLUMN_WIDTH, PANEL_HEIGHT + 2 * LEGEND_LINE)
    spread = done["spread"].astype(float).fillna(0.0)
    ax.errorbar(
        done["number"],
        done["value"],
        yerr=spread if spread.any() else None,
        fmt="o",
        markersize=3,
        linewidth=0.8,
        color=COLORS[0],
        label="trial",
    )
    best = done["value"].cummax() if direction == "max" else done["value"].cummin()
    ax.step(done["number"], best, where="post", color=COLORS[1], linewidth=1.2, label="best so far")
    add_legend(ax)
    return _finish(figure, ax, "trial", objective)


def plot_importances(importances: pd.DataFrame) -> Figure:
    """Draws bars of both importances by parameter, the most important on top.

    Args:
        importances: As of `StudyAnalysis`.
    """
    rows = importances.iloc[::-1]
    height = max(1.0, 0.6 + 2 * ROW_HEIGHT * len(rows))
    figure, (ax,) = _panels(1, COLUMN_WIDTH, height)
    places = np.arange(len(rows))
    for shift, name, color in ((0.2, "fanova", COLORS[0]), (-0.2, "ped_anova", COLORS[5])):
        ax.barh(places + shift, rows[name], height=0.36, color=color, label=_spelled(name))
    ax.set_yticks(places, [shown_name(name) for name in rows.index])
    ax.set_xlim(left=0)
    figure.legend(ncols=2, fontsize=SMALL_SIZE, frameon=False, loc="outside upper center")
    return _finish(figure, ax, "importance", None)


def plot_values(values: pd.DataFrame, parameters: Sequence[str]) -> Figure:
    """Draws how often each value was proposed, and what became of the trials.

    Args:
        values: As of `StudyAnalysis`.
        parameters: Names, one panel each.
    """
    figure, axes = _panels(len(parameters))
    for ax, name in zip(axes, parameters, strict=True):
        part = values[values["parameter"] == name]
        places, below = np.arange(len(part)), np.zeros(len(part))
        for state, color in STATE_COLORS.items():
            if values[state].any():
                ax.bar(places, part[state], bottom=below, color=color, label=state)
                below = below + part[state].to_numpy()
        _name_values(ax, part["value"])
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        _finish(figure, ax, name, "trials" if ax is axes[0] else None)
    handles, labels = axes[0].get_legend_handles_labels()
    columns = 4 if len(parameters) > 1 else 2
    figure.legend(
        handles,
        labels,
        ncols=columns,
        fontsize=SMALL_SIZE,
        frameon=False,
        loc="outside upper center",
    )
    return figure


def plot_slices(
    trials: pd.DataFrame, parameters: Sequence[str], objective: str, log: Sequence[str] = ()
) -> Figure:
    """Draws the objective of each completed trial over each parameter, later trials more solid.

    Args:
        trials: As of `StudyAnalysis`.
        parameters: Names, one panel each.
        objective: Label of the axis.
        log: Names of parameters on a logarithmic scale.
    """
    done = trials[trials["state"] == "completed"]
    figure, axes = _panels(len(parameters))
    for ax, name in zip(axes, parameters, strict=True):
        part = done[done[name].notna()]
        where, labels = _places(part[name])
        ax.scatter(where, part["value"], c=part["number"], cmap=SHADES, vmin=-len(done) / 2, s=10)
        if labels is not None:
            _name_values(ax, labels)
        elif pd.api.types.is_integer_dtype(part[name].dropna()):
            ax.set_xticks(sorted(part[name].unique())[:10])
        elif name in log:
            ax.set_xscale("log")
            marks = np.geomspace(part[name].min(), part[name].max(), 3)
            ax.set_xticks(marks, [f"{mark:.2g}" for mark in marks])
            ax.minorticks_off()
        _finish(figure, ax, name, objective if ax is axes[0] else None)
    return figure


def plot_parallel(
    trials: pd.DataFrame,
    parameters: Sequence[str],
    objective: str,
    direction: str,
    log: Sequence[str] = (),
) -> Figure:
    """Draws each completed trial as a line through its parameters, the best ones on top.

    Args:
        trials: As of `StudyAnalysis`.
        parameters: Names in the order of the axes.
        objective: Name of the last axis.
        direction: "min" or "max".
        log: Names of parameters on a logarithmic scale.
    """
    done = trials[trials["state"] == "completed"]
    done = done.sort_values("value", ascending=direction == "max")
    figure, (ax,) = _panels(1, PAGE_WIDTH, 2.6)
    columns = [*parameters, "value"]
    heights = []
    for place, name in enumerate(columns):
        where, labels = _places(done[name])
        low, high = np.nanmin(where), np.nanmax(where)
        scaled = np.log([where, np.full_like(where, low)]) if name in log else [where, low]
        above = scaled[0] - scaled[1]
        heights.append(above / (np.nanmax(above) or 1))
        ax.vlines(place, 0, 1, **GUIDE)
        ends = [f"{low:.3g}", f"{high:.3g}"] if labels is None else [labels[0], labels[-1]]
        for height, text in zip((-0.02, 1.02), ends, strict=True):
            ax.text(
                place,
                height,
                shown_name(text, 16),
                ha="center",
                va="top" if height < 0 else "bottom",
                fontsize=SMALL_SIZE,
            )
    ranks = np.linspace(0, 1, len(done))
    for line, rank in zip(np.array(heights).T, ranks, strict=True):
        ax.plot(line, color=SHADES(0.15 + 0.85 * rank), linewidth=0.8)
    # Every second name is a line lower, so that neighbours do not touch.
    names = [
        "\n" * (place % 2) + shown_name(name, 22)
        for place, name in enumerate([*parameters, objective])
    ]
    ax.set_xticks(range(len(columns)), names, fontsize=SMALL_SIZE)
    ax.tick_params(axis="x", length=0, pad=12)
    ax.set_yticks([])
    ax.set_ylim(-0.12, 1.12)
    for side in ("top", "right", "left", "bottom"):
        ax.spines[side].set_visible(False)
    return figure


def plot_learning_curves(
    histories: Mapping[str, Mapping[str, Sequence[float]]], metric: str, ax: Any = None
) -> Figure:
    """Draws a metric by epoch, of validation rows (full) and training rows (dashed).

    Args:
        histories: By name, values of each epoch by metric.
        metric: Name of the validation's metric, such as "val_auc"; without "val_" the training's.
        ax: Axes to draw into; by default those of a new figure.
    """
    if ax is None:
        _, (ax,) = _panels(1, COLUMN_WIDTH, PANEL_HEIGHT + LEGEND_LINE * len(histories))
    for place, (name, history) in enumerate(histories.items()):
        color = COLORS[place % len(COLORS)]
        for key, style in ((metric, "-"), (metric.removeprefix("val_"), "--")):
            if key in history and (style == "-" or key != metric):
                epochs = np.arange(1, len(history[key]) + 1)
                label = shown_name(name) if style == "-" else None
                ax.plot(
                    epochs,
                    history[key],
                    style,
                    color=color,
                    linewidth=1.1,
                    label=label,
                    marker=MARKERS[place % len(MARKERS)],
                    markersize=3,
                    markevery=max(1, len(epochs) // 8),
                )
    add_legend(ax)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _finish(ax.figure, ax, "epoch", metric)


def _panels(count: int, width: float | None = None, height: float = PANEL_HEIGHT):
    columns = min(count, MAX_COLUMNS)
    rows = math.ceil(count / columns)
    width = PAGE_WIDTH * columns / MAX_COLUMNS if width is None else width
    figure = Figure(figsize=(width, height * rows), dpi=200, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[count:]:
        ax.remove()
    return figure, list(axes[:count])


def _finish(figure: Figure, ax: Any, x_label: str | None, y_label: str | None) -> Figure:
    ax.set_xlabel(shown_name(x_label or ""), fontsize=TEXT_SIZE)
    ax.set_ylabel(shown_name(y_label or ""), fontsize=TEXT_SIZE)
    ax.tick_params(labelsize=SMALL_SIZE)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return figure


def _places(values: pd.Series) -> tuple[np.ndarray, list[Any] | None]:
    """Positions of values on an axis, and the names of these if they are no numbers or few."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        few = sorted(values.dropna().unique())
        is_choice = pd.api.types.is_float_dtype(values) and len(few) < min(6, values.count())
        if not is_choice:
            return values.to_numpy(float), None
        # On one scale, 0 and 0.00001 would be one place.
        places = [math.nan if math.isnan(value) else few.index(value) for value in values]
        return np.array(places, float), [f"{value:.4g}" for value in few]
    names = sorted(values.dropna().unique(), key=str)
    places = [names.index(value) if value in names else math.nan for value in values]
    return np.array(places, float), names


def _name_values(ax: Any, values: Sequence[Any]) -> None:
    texts = [shown_name(value, 20) for value in values]
    is_long = max(map(len, texts), default=0) * len(texts) > 24
    ax.set_xticks(range(len(texts)), texts)
    if is_long:
        ax.tick_params(axis="x", rotation=30)
        for label in ax.get_xticklabels():
            label.set_horizontalalignment("right")


def _spelled(name: str) -> str:
    return {"fanova": "fANOVA", "ped_anova": "PED-ANOVA"}[name]
