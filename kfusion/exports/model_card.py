"""The model card beside an export, and its signatures as data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from kfusion.data.inputs import TABULAR, InputSpec
from kfusion.data.raw_columns import raw_dtype
from kfusion.data.tables import CategoryColumn, Column, TextColumn
from kfusion.exports.card_facts import CardFacts
from kfusion.exports.example_requests import example_request, iso_date
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
    named = _with_columns(description, signatures)
    text = json.dumps(named, ensure_ascii=False, indent=1)
    (folder / SIGNATURE_FILE).write_text(text + "\n", encoding="utf-8")
    card = render_model_card(description, facts or CardFacts(), signatures)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


def _with_columns(description: Mapping[str, Any], signatures: Mapping[str, Any]) -> dict[str, Any]:
    """The signatures, and of which column of the user's table each raw input is."""
    columns = {served: name for name, served in description["served_names"].items()}
    columns |= description["image_columns"]
    inputs = {
        name: {**tensor, "column": columns[name]} if name in columns else tensor
        for name, tensor in signatures[RAW_SIGNATURE]["inputs"].items()
    }
    return {**signatures, RAW_SIGNATURE: {**signatures[RAW_SIGNATURE], "inputs": inputs}}


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
        exported_on=description["exported_on"],
    )


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
        return f"{iso_date(low)} to {iso_date(high)}"
    return f"{low:.6g} to {high:.6g}"


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
