"""What is known of a model's rows and scores, for the card beside its export."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from kfusion.evidence.estimates import Estimate


class ScoreLine(NamedTuple):
    """One model's score; `low` and `high` are None where no interval was measured."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    method: str | None = None


@dataclasses.dataclass(frozen=True)
class CardFacts:
    """What is known of a model's rows and scores; what was not measured is empty or None.

    Attributes:
        rows: Int, how many rows it learned from.
        class_rows: How many of each class, by name.
        groups: Int, how many groups that were never split.
        missing_inputs: Share of rows that lack an input, by its name.
        target: Name of the column that is predicted.
        score: Name of the score by which models were compared.
        lines: `ScoreLine` of each model compared.
        exported: Name of the one that was exported.
        confidence: Float, of the intervals.
        others: Further scores of the exported model by name.
        how: Sentences: on which rows the scores were measured.
        verdict: One sentence.
    """

    rows: int | None = None
    class_rows: Mapping[str, int] = dataclasses.field(default_factory=dict)
    groups: int | None = None
    missing_inputs: Mapping[str, float] = dataclasses.field(default_factory=dict)
    target: str | None = None
    score: str | None = None
    lines: tuple[ScoreLine, ...] = ()
    exported: str | None = None
    confidence: float | None = None
    others: Mapping[str, float] = dataclasses.field(default_factory=dict)
    how: str | None = None
    verdict: str | None = None


def facts_of_comparison(comparison: Mapping[str, Any], **more: Any) -> CardFacts:
    """What a comparison tells.

    Args:
        comparison: What `Comparison.to_json` wrote, read as JSON.
        **more: Further fields of `CardFacts`.
    """
    folds, repeats = comparison["folds"], comparison["repeats"]
    drawn = f"{folds} folds" if folds > 1 else "one split"
    if repeats > 1:
        drawn += f" (drawn {repeats} times)"
    whole = "" if comparison["groups"] is None else ", groups kept whole"
    return CardFacts(
        **{
            "rows": comparison["rows"],
            "class_rows": comparison["class_rows"],
            "groups": comparison["groups"],
            "score": comparison["score"],
            "lines": tuple(
                ScoreLine(row["name"], row["mean"], row["low"], row["high"], row["method"])
                for row in comparison["candidates"]
                if row["role"] != "failed"
            ),
            "exported": comparison["best"],
            "confidence": comparison["confidence"],
            "how": f"Means over {drawn}{whole}: each model is judged by rows that it was not "
            f"trained on, {comparison['judged_rows']:,} of {comparison['rows']:,} in all.",
            "verdict": comparison["verdict"],
            **more,
        }
    )


def facts_of_run(run: Mapping[str, Any], estimates: Mapping[str, Estimate]) -> CardFacts:
    """What a training folder tells.

    Args:
        run: Its `run.json`.
        estimates: `Estimate` by candidate, as far as its predictions were kept.
    """
    score = "rmse" if run["kind"] == "regression" else "auc"
    candidates = {candidate["name"]: candidate for candidate in run["candidates"]}
    kept = candidates[run["kept"]]
    others = {name: kept[name] for name in ("loss", "accuracy", "mae", "r2") if name in kept}
    return CardFacts(
        rows=run["train_rows"],
        class_rows=run.get("class_rows", {}),
        groups=run.get("groups"),
        target=run.get("target"),
        score=score,
        lines=tuple(
            _score_line(name, each[score], estimates.get(name)) for name, each in candidates.items()
        ),
        exported=run["kept"],
        confidence=0.95 if estimates else None,
        others=others,
        how=f"Scores of {run['validation_rows']} validation rows that also chose the epochs and "
        "the model, and are too good for it.",
        verdict=run["verdict"],
    )


def _score_line(name: str, value: float, own: Estimate | None) -> ScoreLine:
    if own is None or math.isnan(own.low):
        return ScoreLine(name, value)
    return ScoreLine(name, value, own.low, own.high, own.method)
