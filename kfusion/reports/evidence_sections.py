"""Sections on how good the predictions are: verdict, comparison, curves, confusion, learning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from kfusion.evidence.curve_bands import JudgedScores, precision_recall_band, roc_band
from kfusion.plots import plot_confusion, plot_intervals, plot_reliability
from kfusion.reports.band_plots import (
    MAX_BANDS,
    panels_of,
    plot_precision_recall_bands,
    plot_predicted,
    plot_roc_bands,
)
from kfusion.reports.blocks import Panels, Picture, Section, to_table
from kfusion.reports.inline_svg import to_panels, to_picture
from kfusion.reports.subject import Intervals, Subject
from kfusion.search.study_plots import plot_history, plot_learning_curves
from kfusion.tasks import Task
from kfusion.validation.cross_validation import CrossValidation

# Of more classes, curves are drawn of those that are hardest to tell.
MAX_CLASS_CURVES = 12
# Of more candidates, learning curves would hide each other.
MAX_HISTORIES = 7


def verdict_pictures(subject: Subject) -> list[Picture]:
    """The one plot that supports the verdict, if there is any."""
    if subject.intervals is not None:
        return [_draw_intervals(subject, subject.intervals)]
    analysis = subject.analysis
    if analysis is not None and (analysis.trials["state"] == "completed").any():
        figure = plot_history(analysis.trials, analysis.objective, analysis.direction)
        caption = (
            f"{analysis.objective} of each completed trial, in their order, and the best so far. "
            "A line that has long been flat says that more trials of this kind gain little."
        )
        return [to_picture(figure, "verdict", alt=f"History of {subject.title}", caption=caption)]
    if subject.metric is not None and subject.histories:
        return _draw_learning(subject, [subject.metric], "verdict")
    return []


def _draw_intervals(subject: Subject, intervals: Intervals) -> Picture:
    figure = plot_intervals(
        intervals.names,
        intervals.centers,
        intervals.lows,
        intervals.highs,
        reference=intervals.reference,
        reference_name=intervals.reference_name,
        label=intervals.label,
    )
    listed = ", ".join(
        f"{name} {center:.4f}"
        for name, center in zip(intervals.names, intervals.centers, strict=True)
    )
    caption = f"{intervals.label} of each"
    if subject.task is not None:
        direction = subject.task.score(intervals.label).direction
        caption += f" ({'more' if direction == 'max' else 'less'} is better)"
    if np.isfinite(intervals.lows).any():
        caption += ", with its interval"
    caption += "."
    if intervals.reference is not None:
        caption += (
            " Intervals that overlap say nothing yet of a difference: each row is judged by all, "
            "so that the difference has an interval of its own, in the verdict."
        )
    return to_picture(figure, "verdict", alt=f"{intervals.label}: {listed}", caption=caption)


def comparison_section(subject: Subject) -> Section | None:
    """The table of what was compared."""
    if subject.scores is None:
        return None
    caption = f"Scores of rows that did not train what predicts them.{_describe_score(subject)}"
    if "difference" in subject.scores:
        caption += " Difference: from the best single input."
    if "sd" in subject.scores:
        caption += " sd: of the folds' scores."
    return Section("comparison", "Comparison", [to_table(subject.scores, caption)])


def _describe_score(subject: Subject) -> str:
    """What the AUC of several classes is."""
    is_multiclass = subject.task is not None and subject.task.kind == "multiclass"
    return " auc: of each class against the rest, averaged." if is_multiclass else ""


def curves_section(subject: Subject) -> Section | None:
    """Curves with bands, and confusion; of a regression, true values by predicted ones."""
    task, kept = subject.task, subject.kept
    if task is None or kept is None or not subject.results:
        return None
    if task.kind == "regression":
        return Section("curves", "Predictions", [_draw_predicted(kept, subject.results[kept])])
    pictures = _draw_models(subject, task)
    if task.kind == "multiclass":
        pictures += _draw_classes(subject, task, kept)
    names = _shown_names(subject)
    pictures.append(_draw_reliability(subject, task, names if task.kind == "binary" else [kept]))
    pictures += [
        _draw_confusion(name, subject.results, place, beside=None if subject.is_pair else names[-1])
        for place, name in enumerate(names if subject.is_pair else [kept])
    ]
    return Section("curves", "Curves and confusion", pictures)


def _draw_predicted(name: str, result: CrossValidation) -> Picture:
    y, predictions = _pooled(result)
    figure = plot_predicted(y, predictions[:, 0])
    caption = (
        f"True values against those that {name} predicts. Points above the line were "
        "predicted too low."
    )
    return to_picture(
        figure, "predicted", alt=f"{len(y):,} rows, true and predicted", caption=caption
    )


def _shown_names(subject: Subject) -> list[str]:
    names = dict.fromkeys([subject.kept, subject.reference])
    return [name for name in names if name is not None and name in subject.results]


def _draw_models(subject: Subject, task: Task) -> list[Picture | Panels]:
    """Of what was kept, and what it is held against."""
    names = _shown_names(subject)
    y = subject.results[names[0]].y
    folds = {name: _scores_of_folds(subject.results[name]) for name in names}
    roc = {name: roc_band(y, parts, groups=subject.groups) for name, parts in folds.items()}
    recall = {
        name: precision_recall_band(y, parts, groups=subject.groups)
        for name, parts in folds.items()
    }
    over_folds = ", mean over the folds" if len(folds[names[0]]) > 1 else ""
    if task.kind == "binary":
        what = f"of {task.class_names[1]} for {_listed(names)}{over_folds}"
        return _draw_bands(roc, recall, what, "models", share=float(np.mean(y)))
    what = f"of each class against the rest, averaged, for {_listed(names)}{over_folds}"
    return _draw_bands(roc, recall, what, "models")


def _draw_classes(subject: Subject, task: Task, kept: str) -> list[Picture | Panels]:
    """Of what was kept, each class against the rest."""
    result = subject.results[kept]
    roc, recall = {}, {}
    for label, name in enumerate(task.class_names):
        is_class = (result.y == label).astype(np.int32)
        folds = _scores_of_folds(result, label)
        if any(0 < is_class[rows].sum() < len(rows) for rows, _ in folds):
            roc[name] = roc_band(is_class, folds, groups=subject.groups)
            recall[name] = precision_recall_band(is_class, folds, groups=subject.groups)
    hardest = sorted(roc, key=lambda name: roc[name].area)[:MAX_CLASS_CURVES]
    shown = [name for name in roc if name in hardest]
    what = f"of each class against the rest for {kept}"
    if len(shown) < len(roc):
        what = f"of the {len(shown)} hardest of {len(roc)} classes for {kept}"
    return _draw_bands({n: roc[n] for n in shown}, {n: recall[n] for n in shown}, what, "classes")


def _draw_bands(
    roc, recall, what: str, place: str, *, share: float | None = None
) -> list[Picture | Panels]:
    """In one plot, or of many each in its own."""
    is_banded = any(np.isfinite(band.low).all() for band in roc.values())
    band = " Shaded: where 95 % of resampled rows put it." if is_banded else ""
    areas = ", ".join(f"{name} {each.area:.3f}" for name, each in roc.items())
    precisions = ", ".join(f"{name} {each.area:.3f}" for name, each in recall.items())
    of_roc = {
        "alt": f"ROC {what}. AUC: {areas}",
        "caption": f"ROC {what}: how many are found at the price of how many "
        f"false alarms. The further to the upper left the better.{band}",
    }
    of_recall = {
        "alt": f"Precision and recall {what}. Average precision: {precisions}",
        "caption": f"Precision {what}, at each recall: how many of those called so are. Read it "
        f"where classes are rare.{band}",
    }
    if len(roc) <= MAX_BANDS:
        return [
            to_picture(plot_roc_bands(roc), f"roc-{place}", **of_roc),
            to_picture(
                plot_precision_recall_bands(recall, share), f"precision-recall-{place}", **of_recall
            ),
        ]
    pale = " Pale: the other classes."
    return [
        to_panels(
            panels_of(plot, bands),
            f"{name}-{place}",
            alt=told["alt"],
            caption=told["caption"] + pale,
        )
        for plot, bands, name, told in (
            (plot_roc_bands, roc, "roc", of_roc),
            (plot_precision_recall_bands, recall, "precision-recall", of_recall),
        )
    ]


def _draw_reliability(subject: Subject, task: Task, names: Sequence[str]) -> Picture:
    """Of the positive class; of several, of the predicted class."""
    probabilities = {}
    for name in names:
        y, predictions = _pooled(subject.results[name])
        if task.kind == "binary":
            probabilities[name] = np.clip(predictions[:, 0], 0, 1)
            came_true = y
        else:
            probabilities[name] = np.clip(predictions.max(axis=1), 0, 1)
            came_true = (predictions.argmax(axis=1) == y).astype(np.int32)
    what = "the positive class" if task.kind == "binary" else "the predicted class"
    return to_picture(
        plot_reliability(came_true, probabilities),
        "reliability",
        alt=f"Observed rates by predicted probability, of {what}",
        caption=f"Probabilities of {what} against how often they came true, with 95 % intervals; "
        "below, where they lie. Below the diagonal the model is too sure of itself.",
    )


def _draw_confusion(
    name: str, results: Mapping[str, CrossValidation], place: int, *, beside: str | None
) -> Picture:
    """Which classes a model takes for which, and how many another gets right."""
    result = results[name]
    y, predicted = _predicted_classes(result)
    right = float(np.mean(predicted == y))
    other = ""
    if beside not in (None, name):
        truth, theirs = _predicted_classes(results[beside])
        other = f" ({np.mean(theirs == truth):.1%} by {beside})"
    return to_picture(
        plot_confusion(y, predicted, result.task.class_names),
        f"confusion-{place}",
        alt=f"Confusion matrix of {name}: {right:.0%} of {len(y):,} rows are right",
        caption=f"What {name} takes each class for. Read along a row: the colour is the share of "
        f"the true class, the number its rows. {right:.1%} of {len(y):,} are right{other}.",
    )


def _predicted_classes(result: CrossValidation) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the judged rows, and those that are predicted."""
    y, predictions = _pooled(result)
    return y, result.task.probabilities(predictions).argmax(axis=1)


def learning_section(subject: Subject) -> Section | None:
    """How trainings went, epoch by epoch."""
    if not subject.histories or subject.metric is None:
        return None
    logged = {metric for history in subject.histories.values() for metric in history}
    metrics = [name for name in (subject.metric, "val_loss", "loss") if name in logged]
    if "val_loss" in logged:
        metrics = [name for name in metrics if name != "loss"]
    if subject.intervals is None:
        metrics = [name for name in metrics if name != subject.metric]
    pictures = _draw_learning(subject, list(dict.fromkeys(metrics)), "learning")
    return Section("learning", "Learning curves", pictures) if pictures else None


def _draw_learning(subject: Subject, metrics: Sequence[str], place: str) -> list[Picture]:
    histories = dict(list(subject.histories.items())[:MAX_HISTORIES])
    pictures = []
    for number, metric in enumerate(metrics):
        known = {
            name: {key: _finite(values) for key, values in history.items()}
            for name, history in histories.items()
            if metric in history
        }
        if not known:
            continue
        both = any(metric.removeprefix("val_") in history for history in known.values())
        has_pairs = metric.startswith("val_") and both
        parts = " of validation rows (full) and training rows (dashed)" if has_pairs else ""
        has_folds = any(len(subject.results[n].folds) > 1 for n in known if n in subject.results)
        caption = f"{metric} by epoch{parts}{', means over the folds' if has_folds else ''}."
        if has_pairs:
            caption += (
                " Where the two part, the model learns its training rows by heart; where both "
                "still move, it was stopped early."
            )
        pictures.append(
            to_picture(
                plot_learning_curves(known, metric),
                f"{place}-{number}",
                alt=f"{metric} by epoch of {_listed(list(known))}",
                caption=caption,
            )
        )
    return pictures


def _finite(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _scores_of_folds(result: CrossValidation, label: int | None = None) -> list[JudgedScores]:
    """Of one class, or as they are: of the positive class, or of all."""
    place = 0 if result.task.units == 1 else label
    return [
        JudgedScores(r.fold.test, r.predictions if place is None else r.predictions[:, place])
        for r in result.folds
    ]


def _pooled(result: CrossValidation) -> tuple[np.ndarray, np.ndarray]:
    """Targets and predictions of all folds' test rows, one below the other."""
    rows = np.concatenate([r.fold.test for r in result.folds])
    return result.y[rows], np.concatenate([r.predictions for r in result.folds])


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
