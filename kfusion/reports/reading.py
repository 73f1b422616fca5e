"""The parts of a report, read from a result of any kind."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kfusion.evidence.estimates import JudgedRows, estimate
from kfusion.evidence.paired_comparison import format_pvalue
from kfusion.reports.given_data import describe_columns, describe_shapes
from kfusion.reports.run_reading import read_pair, read_run_folder
from kfusion.reports.subject import Intervals, Subject
from kfusion.tasks import Task
from kfusion.validation.cross_validation import CrossValidation
from kfusion.versions import library_versions

if TYPE_CHECKING:
    from kfusion.doctor.findings import Diagnosis
    from kfusion.search.analysis import StudyAnalysis
    from kfusion.validation.comparison import Comparison

# What epochs are watched by, the first that was logged.
RISING = ("auc", "accuracy", "r2", "f1", "precision", "recall")
WATCHED = ("val_auc", "val_rmse", "val_loss", "auc", "rmse", "loss")


def read_subject(result: Any) -> Subject:
    """Reads what a report can say of a result.

    Args:
        result: As in `report`.

    Returns:
        `Subject`.

    Raises:
        TypeError: If it is of no kind that is known.
        FileNotFoundError: If it is a folder without a finished run.
        ValueError: If it is a pair of runs of different tasks.
    """
    if isinstance(result, (str, os.PathLike)):
        return read_run_folder(Path(result))
    if isinstance(result, (list, tuple)) and len(result) == 2:
        return read_pair(Path(result[0]), Path(result[1]))
    for kind in type(result).__mro__:
        # By name, so that nothing is loaded that made no result here.
        reader = READERS.get(f"{kind.__module__}.{kind.__qualname__}")
        if reader is not None:
            return reader(result)
    raise TypeError(
        "`result` must be a fitted estimator, a Comparison, a CrossValidation, a tuner or its "
        "analysis, a Diagnosis, a History, the folder of a run, or two of these. Received: "
        f"{type(result).__name__}."
    )


def _read_comparison(result: Comparison) -> Subject:
    kept = result.best if result.pairs else result.best_single
    names = list(result.results)
    own = [result.estimates[name] for name in names]
    settings = {k: v for k, v in result.settings.items() if k in ("repeats", "confidence", "seed")}
    return Subject(
        title=f"{len(names)} candidates on the same {result.settings['folds']} folds",
        verdict=result.verdict,
        notes=[
            result.describe_choice(),
            *(f"{name} failed: {message}" for name, message in result.failures.items()),
        ],
        task=result.task,
        results=result.results,
        kept=kept,
        reference=result.best_single,
        groups=result.groups,
        intervals=Intervals(
            names,
            [each.value for each in own],
            [each.low for each in own],
            [each.high for each in own],
            result.score.name,
            result.estimates[result.best_single].value,
            "the best single input",
        ),
        scores=_candidates_frame(result),
        settings=settings,
        histories=_histories(result.results),
        metric=result.task.objective.name,
        versions=result.settings["versions"],
        **_of_rows(result.task, result.results[kept], result.groups),
    )


def _candidates_frame(result: Comparison) -> pd.DataFrame:
    """One row per candidate that came through, as a reader wants it."""
    interval = f"{100 * result.settings['confidence']:.3g} % interval"
    table = result.to_frame()
    table = table[table["role"] != "failed"].set_index("name")
    pairs = [result.pairs.get(name) for name in table.index]
    frame = pd.DataFrame(
        {
            "": table.index,
            result.score.name: table["mean"],
            interval: [_range(*ends) for ends in zip(table["low"], table["high"], strict=True)],
            "difference": ["" if pair is None else f"{pair.difference:+.4f}" for pair in pairs],
            f"its {interval}": [
                "" if pair is None else _range(pair.low, pair.high) for pair in pairs
            ],
            "p (Holm)": ["" if pair is None else _bare(pair.pvalue) for pair in pairs],
            "sd": table["sd"],
            "seconds": [f"{seconds:,.0f}" for seconds in table["seconds"]],
        }
    )
    # One fold has no spread, and a loaded estimator no times.
    return frame.drop(columns=[name for name in ("sd", "seconds") if not table[name].any()])


def _bare(pvalue: float) -> str:
    return format_pvalue(pvalue).removeprefix("p ").removeprefix("= ")


def _range(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"{low:.4f} to {high:.4f}"


def _read_estimator(result: Any) -> Subject:
    base = _read_comparison(result.evidence_)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        values = result.modality_values()
    notes = [
        *base.notes,
        "Each member was fitted without the rows that judge it, but they chose its best epoch, "
        "which favours all members alike. The blend's weights come from other rows than those "
        "that they are judged by.",
        *(str(warning.message) for warning in told),
    ]
    columns = None if result.schema_ is None else describe_columns(result.schema_)
    facts = dict(base.facts)
    facts |= describe_shapes(result.input_shapes_)
    name = type(result).__name__
    return Subject(
        **{
            **vars(base),
            "title": f"{name} on {base.facts['rows']} rows",
            "notes": notes,
            "scores": _with_inputs(base.scores, result.member_inputs_),
            "facts": facts,
            "columns": columns,
            "modality_values": values,
            "weights": result.weights_,
            "settings": {
                key: value
                for key, value in result.get_params(deep=False).items()
                if value is not None
            },
        }
    )


def _with_inputs(scores: Any, inputs: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The table of members, and what each learned from; the blend from all of them."""
    told = [" + ".join(inputs[name]) if name in inputs else "all members" for name in scores[""]]
    scores.insert(1, "from", told)
    return scores


def _read_folds(result: CrossValidation) -> Subject:
    task, score = result.task, result.task.score()
    judged = [JudgedRows(r.fold.test, r.predictions[None]) for r in result.folds]
    own = estimate(result.y, judged, task=task, score=score, groups=result.groups, num_resamples=0)
    by_fold = own.by_fold[:, 0]
    nothing = [math.nan] * len(by_fold)
    interval = "" if math.isnan(own.low) else f", 95 % interval {own.low:.4f} to {own.high:.4f}"
    return Subject(
        title=f"Cross-validation of one model on {len(result.y):,} rows",
        verdict=f"{score.name} {own.value:.4f}, the mean over {len(by_fold)} folds{interval}.",
        task=task,
        results={"model": result},
        kept="model",
        groups=result.groups,
        intervals=Intervals(
            ["mean over the folds", *(f"fold {r.fold.number}" for r in result.folds)],
            [own.value, *by_fold],
            [own.low, *nothing],
            [own.high, *nothing],
            score.name,
        ),
        scores=result.to_frame(),
        histories=_histories({"model": result}),
        metric=task.objective.name,
        versions=library_versions(),
        **_of_rows(task, result, result.groups),
    )


def _histories(results: Mapping[str, CrossValidation]) -> dict[str, dict[str, list[float]]]:
    """Means over the folds, of those that are networks."""
    means = {name: result.mean_history() for name, result in results.items()}
    return {name: history for name, history in means.items() if history}


def _of_rows(task: Task, result: CrossValidation, groups: np.ndarray | None) -> dict[str, Any]:
    """Counts of rows by class, which of them judge, and what else is known of them."""
    y, folds = result.y, result.folds
    judged = np.unique(np.concatenate([found.fold.test for found in folds]))
    facts = {"rows": f"{len(y):,}"}
    if groups is not None:
        facts["groups"] = f"{len(np.unique(groups)):,}"
    if len(judged) < len(y):
        facts["rows that judge"] = f"{len(judged):,}"
        if groups is not None:
            facts["groups that judge"] = f"{len(np.unique(groups[judged])):,}"
    facts["folds"] = f"{len(folds)}" if len(folds) > 1 else "1 split"
    if task.kind == "regression":
        facts["target"] = f"{np.min(y):.4g} to {np.max(y):.4g}, mean {np.mean(y):.4g}"
        return {"facts": facts}
    counts = np.bincount(y, minlength=len(task.class_names))
    frame = pd.DataFrame({"class": task.class_names, "rows": counts, "share": counts / len(y)})
    return {"facts": facts, "row_counts": frame}


def _read_tuner(tuner: Any) -> Subject:
    from kfusion.search.analysis import analyse

    task = getattr(tuner.hypermodel, "task", None)
    base = _read_analysis(analyse(tuner), () if task is None else task.class_names)
    if tuner.nested is None:
        return Subject(**{**vars(base), "task": task})
    nested = _read_folds(tuner.nested)
    return Subject(
        **{
            **vars(nested),
            "title": base.title,
            "verdict": base.verdict,
            "notes": [f"The whole search, repeated on the rows outside of each fold: "
                      f"{nested.verdict}"],
            "analysis": base.analysis,
        }
    )  # fmt: skip


def _read_study(study: Any) -> Subject:
    from kfusion.search.analysis import analyse

    return _read_analysis(analyse(study))


def _read_analysis(analysis: StudyAnalysis, class_names: Sequence[str] = ()) -> Subject:
    done = analysis.trials[analysis.trials["state"] == "completed"]
    verdict = f"None of {len(analysis.trials)} trials completed."
    notes = []
    if len(done):
        values = done["value"]
        ranked = done.iloc[np.argsort(-values if analysis.direction == "max" else values)]
        best = ranked.iloc[0]
        verdict = (
            f"Trial {best['number']} is the best of {len(analysis.trials)} by "
            f"{analysis.objective}: {best['value']:.4f}"
        )
        if len(ranked) > 1:
            second = ranked.iloc[1]
            verdict += f", before trial {second['number']} with {second['value']:.4f}"
        first = done[done["number"] == 0]
        if len(first) and 0 not in ranked["number"].iloc[:2].to_numpy():
            verdict += f" and the defaults (trial 0) with {first['value'].iloc[0]:.4f}"
        verdict += "."
        notes = [
            "It was picked for its score, which is therefore too good: only rows that had no part "
            "in the search tell how good it is."
        ]
    return Subject(
        title=f"A search of {len(analysis.trials)} trials",
        verdict=verdict,
        notes=notes,
        analysis=analysis,
        versions=library_versions(),
        **_of_judged(analysis, class_names),
    )


def _of_judged(analysis: StudyAnalysis, class_names: Sequence[str]) -> dict[str, Any]:
    """What a study kept of the rows that judged its trials: runs of a trial, and rows by class."""
    found: dict[str, Any] = {}
    runs = analysis.trials["runs"].dropna()
    if len(runs):
        found["facts"] = {"runs of a trial": f"{int(runs.max())}"}
    if analysis.confusion is None:
        return found
    counts = analysis.confusion.sum(axis=1)
    names = list(class_names) or [str(label) for label in range(len(counts))]
    found["facts"] = {
        "rows that judged a run of the best trial": f"{counts.sum():,}",
        "classes": f"{len(counts)}",
        **found.get("facts", {}),
    }
    frame = pd.DataFrame({"class": names, "rows": counts, "share": counts / counts.sum()})
    return {**found, "row_counts": frame}


def _read_diagnosis(diagnosis: Diagnosis) -> Subject:
    severities = [finding.severity for finding in diagnosis]
    listed = ", ".join(
        f"{severities.count(severity)} {severity}{'s' if severities.count(severity) > 1 else ''}"
        for severity in dict.fromkeys(severities)
    )
    verdict = f"Nothing was found in {diagnosis.num_checks} checks."
    if diagnosis:
        verdict = f"{len(diagnosis)} found in {diagnosis.num_checks} checks: {listed}."
    return Subject(
        title="What the doctor says",
        verdict=verdict,
        diagnosis=diagnosis,
        versions=library_versions(),
    )


def _read_history(history: Any) -> Subject:
    logged: Mapping[str, list[float]] = history.history
    metric = next((name for name in WATCHED if name in logged), next(iter(logged)))
    values = np.asarray(logged[metric], np.float64)
    is_more_better = metric.removeprefix("val_") in RISING
    best = int(np.nanargmax(values) if is_more_better else np.nanargmin(values))
    return Subject(
        title=f"Training of {history.model.name}",
        verdict=f"{metric} {values[best]:.4f} in epoch {best + 1} of {len(values)}, its best.",
        histories={history.model.name: logged},
        metric=metric,
        versions=library_versions(),
    )


READERS: dict[str, Callable[[Any], Subject]] = {
    "kfusion.validation.comparison.Comparison": _read_comparison,
    "kfusion.validation.cross_validation.CrossValidation": _read_folds,
    "kfusion.estimators.fusion_estimators._FusionEstimator": _read_estimator,
    "kfusion.search.tuner.OptunaTuner": _read_tuner,
    "kfusion.search.analysis.StudyAnalysis": _read_analysis,
    "optuna.study.study.Study": _read_study,
    "kfusion.doctor.findings.Diagnosis": _read_diagnosis,
    "keras.src.callbacks.history.History": _read_history,
}
