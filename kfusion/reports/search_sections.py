"""The section on a search: what it tried, what mattered, and what it says nothing about."""

from __future__ import annotations

from typing import Any

from kfusion.reports.blocks import Section, Warnings, to_table
from kfusion.reports.inline_svg import to_panels, to_picture
from kfusion.reports.subject import Subject
from kfusion.search.study_plots import plot_slices, plot_values

# In the order of the page: what each picture is called, and what to see in it.
CAPTIONS = {
    "history": (
        "History",
        "Each completed trial's score, in their order, and the best so far.",
    ),
    "importances": (
        "Importances",
        "How much each hyperparameter mattered, by two measures. Where they disagree, trust "
        "neither: what a sampler settles on late looks important for that alone.",
    ),
    "values": (
        "Values tried",
        "How often each value was proposed, and what became of the trials. A value with a low bar "
        "was hardly tried: the study says little about it.",
    ),
    "slices": (
        "Slices",
        "The score over each hyperparameter, one point a completed trial, later ones more solid.",
    ),
    "parallel": (
        "Parallel coordinates",
        "Each line is a trial, better ones more solid: such lines that run together show what good "
        "settings share.",
    ),
    "learning_curves": ("Learning curves of the best trials", "The objective by epoch."),
    "confusion": (
        "Confusion of the best trial",
        "Which classes it takes for which, on the rows that judged it.",
    ),
}
# Best trials in the table, and the most important hyperparameters in the pictures.
NUM_TRIALS, NUM_PARAMETERS = 5, 9
# Below so many for each hyperparameter, importances are mostly chance.
FEW_TRIALS = 10


def search_section(subject: Subject) -> Section | None:
    """Warnings first, since they say how far to trust the rest."""
    analysis = subject.analysis
    if analysis is None:
        return None
    blocks: list = []
    if analysis.warnings:
        blocks.append(Warnings("What the study does not show", analysis.warnings))
    done = analysis.trials[analysis.trials["state"] == "completed"]
    if len(done):
        best = done.sort_values("value", ascending=analysis.direction == "min").head(NUM_TRIALS)
        shown = best.drop(columns=["state", "message"]).dropna(axis=1, how="all")
        settings = [name for name in analysis.parameters if name in shown]
        shown[settings] = shown[settings].map(_spell)
        shown["value"] = [f"{value:.4f}" for value in shown["value"]]
        if "seconds" in shown:
            shown["seconds"] = [f"{seconds:,.0f}" for seconds in shown["seconds"]]
        shown["number"] = [
            f"trial {number}{' (defaults)' if number == 0 else ''}" for number in shown["number"]
        ]
        shown = shown.rename(columns={"value": analysis.objective}).set_index("number")
        # A trial a column: hyperparameters are many, and a page is narrow.
        frame = shown.astype(str).T.reset_index(names="")
        blocks.append(to_table(frame, "The best trials."))
    names = subject.task.class_names if subject.task is not None else ()
    pictures = analysis.plots(NUM_PARAMETERS, class_names=names or None)
    if subject.intervals is None:
        # It stands beside the verdict.
        pictures.pop("history", None)
    if subject.results:
        pictures.pop("confusion", None)
    # A panel by itself, so that a phone has them one below the other.
    shown = analysis.parameters[:NUM_PARAMETERS]
    panels = {
        "values": {each: plot_values(analysis.values, [each]) for each in shown},
        "slices": {
            each: plot_slices(analysis.trials, [each], analysis.objective, analysis.log)
            for each in shown
            if len(done)
        },
    }
    for name, (title, caption) in CAPTIONS.items():
        place = f"search-{name.replace('_', '-')}"
        if panels.get(name):
            text = f"{title}. {caption}"
            blocks.append(to_panels(panels[name], place, alt=title, caption=text))
        elif name in pictures:
            if name == "importances" and len(done) < FEW_TRIALS * len(analysis.parameters):
                caption += (
                    f" From {len(done)} trials of {len(analysis.parameters)} hyperparameters they "
                    "are a hint at most."
                )
            blocks.append(
                to_picture(pictures[name], place, alt=title, caption=f"{title}. {caption}")
            )
    return Section("search", "Search", blocks)


def _spell(value: Any) -> str:
    """A hyperparameter as its author would have written it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
