"""What lies beside an exported model for people to read: a card, an example, its signatures."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from PIL import Image

from kfusion.data.images import PICTURE_CHANNELS
from kfusion.data.inputs import TABULAR, InputSpec
from kfusion.data.raw_columns import raw_dtype
from kfusion.data.tables import CategoryColumn, Column, TextColumn
from kfusion.evidence.estimates import Estimate
from kfusion.exports.signatures import (
    ENCODED_SIGNATURE,
    RAW_SIGNATURE,
    array_specs,
    describe_signatures,
    read_schema,
    read_specs,
)

CARD_FILE, SIGNATURE_FILE = "README.md", "signature.json"
_TEMPLATE = "model_card.md.j2"
# What Hugging Face calls scores, where it is something else.
_METRICS = {"auc": "roc_auc"}
_LISTED, _LONGEST_TEXT = 20, 60
# More values of an input that is no image would fill the page.
_LONGEST_EXAMPLE = 256
_EXAMPLE_WORDS = 5


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
            "trained on.",
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


def write_model_card(
    folder: Path, description: Mapping[str, Any], facts: CardFacts | None = None
) -> None:
    """Writes `README.md` and `signature.json` beside an exported model.

    Args:
        folder: Where `kfusion.json` is.
        description: Its content.
        facts: `CardFacts`, or None if nothing was measured.
    """
    specs, schema = read_specs(description), read_schema(description)
    signatures = describe_signatures(
        specs,
        schema,
        description["served_names"],
        kind=description["kind"],
        num_classes=len(description["class_names"]),
    )
    text = json.dumps(signatures, ensure_ascii=False, indent=1)
    (folder / SIGNATURE_FILE).write_text(text + "\n", encoding="utf-8")
    card = render_model_card(description, facts or CardFacts(), signatures)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


def render_model_card(
    description: Mapping[str, Any], facts: CardFacts, signatures: Mapping[str, Any]
) -> str:
    """The model card as Markdown, with a front matter as Hugging Face reads it."""
    specs, schema = read_specs(description), read_schema(description)
    kind = description["kind"]
    names = description["served_names"]
    example = example_request(description)
    source = resources.files("kfusion").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    raw, encoded = signatures[RAW_SIGNATURE], signatures[ENCODED_SIGNATURE]
    return _ENVIRONMENT.from_string(source).render(
        facts=facts,
        kind=kind,
        subject=_subject(description, facts),
        tags=_tags(specs, kind),
        metric=_METRICS.get(facts.score or "", facts.score),
        inputs=[name for name in specs if name != TABULAR],
        images={n: specs[n].shape for n in description["image_columns"] if n in specs},
        image_columns=description["image_columns"],
        may_be_missing=description["may_be_missing"],
        arrays={name: raw["inputs"][name] for name in array_specs(specs, schema)},
        columns=[_column_row(c, names[c.name]) for c in ([] if schema is None else schema.columns)],
        outputs=raw["outputs"],
        encoded=encoded["inputs"],
        example=None if example is None else json.dumps(example, ensure_ascii=False, indent=1),
        versions=description["versions"],
    )


def example_request(description: Mapping[str, Any]) -> dict[str, Any] | None:
    """A request for one row that an exported model answers, as `kfusion serve` takes it.

    Its values are the median of each number and the most frequent category; its image is grey.

    Args:
        description: Content of `kfusion.json`.

    Returns:
        `{"instances": [{...}]}`, or None if an input that is no image has too many values to be
        written down.
    """
    specs, schema = read_specs(description), read_schema(description)
    instance: dict[str, Any] = {}
    for name, spec in specs.items():
        if schema is not None and name in schema.input_names:
            continue
        shape = [size or 1 for size in spec.shape]
        if spec.dtype == "uint8" and len(shape) == 3:
            content = _grey_image(*shape)
            instance[name] = {"b64": base64.b64encode(content).decode()}
        elif np.prod(shape) > _LONGEST_EXAMPLE:
            return None
        else:
            instance[name] = np.zeros(shape, spec.dtype).tolist()
    for column in () if schema is None else schema.columns:
        instance[description["served_names"][column.name]] = _usual_value(column)
    return {"instances": [instance]}


def cell(text: Any) -> str:
    """Any text as one cell of a Markdown table: on one line, cut short, nothing of it markup."""
    line = _one_line(text)
    if len(line) > _LONGEST_TEXT:
        line = line[: _LONGEST_TEXT - 1] + "…"
    return _escape(line)


def sentence(text: Any) -> str:
    """Any text as one line of Markdown, nothing of it markup."""
    return _escape(_one_line(text))


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())


def _escape(line: str) -> str:
    return re.sub(r"([\\`|*_<>\[\]&~$#])", r"\\\1", line)


def _tags(specs: Mapping[str, InputSpec], kind: str) -> list[str]:
    tags = ["kfusion", "regression" if kind == "regression" else f"{kind}-classification"]
    tags += ["image"] * any(spec.dtype == "uint8" for spec in specs.values())
    tags += ["tabular"] * (TABULAR in specs)
    return tags + ["multimodal"] * (len(specs) > 1)


def _column_row(column: Column, served_name: str) -> dict[str, Any]:
    return {
        "served": served_name,
        "name": column.name,
        "kind": column.kind,
        "dtype": raw_dtype(column),
        "values": _values(column),
        "missing": column.missing_rate,
    }


def _values(column: Column) -> str:
    """The categories, words, or least and largest number, of the training rows; escaped."""
    if isinstance(column, TextColumn):
        vocabulary = column.vocabulary
        return f"{len(vocabulary.tokens)} known words; the first {vocabulary.length} are read"
    if isinstance(column, CategoryColumn):
        shown = ", ".join(cell(text) for text in column.vocabulary[:_LISTED])
        more = len(column.vocabulary) - _LISTED
        return f"{shown} and {more} more" if more > 0 else shown or "none"
    if column.kind == "boolean":
        return "1 (true) or 0"
    if not column.quantiles:
        return "not measured"
    low, high = column.quantiles[0], column.quantiles[-1]
    if column.kind == "date":
        return f"{_date(low)} to {_date(high)}"
    return f"{low:.6g} to {high:.6g}"


def _usual_value(column: Column) -> Any:
    if isinstance(column, TextColumn):
        return " ".join(column.vocabulary.tokens[:_EXAMPLE_WORDS])
    if isinstance(column, CategoryColumn):
        if not column.vocabulary:
            return -1.0 if column.is_number else ""
        return float(column.vocabulary[0]) if column.is_number else column.vocabulary[0]
    if column.kind == "date":
        return _date(column.center)
    return float(round(column.center)) if column.kind == "boolean" else column.center


def _date(days: float) -> str:
    return str(np.datetime64(int(days // 1), "D"))


def _grey_image(height: int, width: int, channels: int) -> bytes:
    """An image file; of numbers of channels that no picture has, an array of one pixel."""
    file = io.BytesIO()
    if channels in PICTURE_CHANNELS:
        grey = np.full((height, width, channels), 128, np.uint8)
        Image.fromarray(grey.squeeze(-1) if channels == 1 else grey).save(file, "PNG")
    else:
        np.save(file, np.full((1, 1, channels), 128, np.uint8))
    return file.getvalue()


def _subject(description: Mapping[str, Any], facts: CardFacts) -> str:
    """What is predicted from what, as the beginning of a sentence."""
    kind, schema = description["kind"], read_schema(description)
    what = "A regression" if kind == "regression" else f"A {kind} classifier"
    if facts.target:
        what += f" of {cell(facts.target)}"
    if description["class_names"]:
        what += f" ({', '.join(cell(name) for name in description['class_names'])})"
    sources = [f"`{name}`" for name in description["inputs"] if schema is None or name != TABULAR]
    if schema is not None:
        sources.append(f"{schema.num_columns} columns of a table")
    return f"{what} from {' and '.join(sources)}"


def _score(value: float | None) -> str:
    if value is None:
        return "not known"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.6g}"


def _share(value: float) -> str:
    return f"{value:.1%}"


def _shape(tensor: Mapping[str, Any]) -> str:
    sizes = ["rows", *("any" if size is None else str(size) for size in tensor["shape"][1:])]
    return f"({', '.join(sizes)})"


_ENVIRONMENT = jinja2.Environment(
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
    autoescape=False,
)
_ENVIRONMENT.filters |= {
    "cell": cell,
    "sentence": sentence,
    "score": _score,
    "share": _share,
    "shape": _shape,
}
