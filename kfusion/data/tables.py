"""What a table's columns mean, learned from training rows, and their encoding as model inputs."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kfusion.data.column_values import (
    MANY_CATEGORIES,
    infer_kind,
    read_categories,
    read_numbers,
    read_texts,
)
from kfusion.data.input_names import RESERVED
from kfusion.data.inputs import IMAGE, TABULAR
from kfusion.data.plain_names import plain_name
from kfusion.data.texts import Vocabulary

KINDS = ("number", "boolean", "date", "category", "text")
MISSING_CODE, UNSEEN_CODE, FIRST_CODE = 0, 1, 2
# What a column's quantiles number at most: one for each percent.
MAX_QUANTILES = 101
# Format 1 had no quantiles.
_FORMAT, _READABLE_FORMATS = 2, (1, 2)
# Of a text column without a word to learn: its one token is in no text, for punctuation is cut.
NO_WORDS = Vocabulary(("[none]",), 1)


@dataclasses.dataclass(frozen=True)
class NumberColumn:
    """A number, a boolean (1 or 0) or a date (days since 1970-01-01, UTC).

    `quantiles` are its values at even shares of the rows, from the least to the largest.
    """

    name: str
    kind: str
    center: float
    spread: float
    missing_rate: float
    quantiles: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class CategoryColumn:
    """One of a vocabulary of texts, most frequent first; `is_number` if given as numbers."""

    name: str
    vocabulary: tuple[str, ...]
    is_number: bool
    missing_rate: float
    kind: str = "category"

    @property
    def num_codes(self) -> int:
        return FIRST_CODE + len(self.vocabulary)


@dataclasses.dataclass(frozen=True)
class TextColumn:
    """Free text, an input of its own: ids of the tokens of a vocabulary."""

    name: str
    vocabulary: Vocabulary
    missing_rate: float
    kind: str = "text"

    @property
    def input_name(self) -> str:
        """Name of the model's input; see `text_input`."""
        return text_input(self.name)


Column = NumberColumn | CategoryColumn | TextColumn


@dataclasses.dataclass(frozen=True)
class TableSchema:
    """Each column's kind, scale or vocabulary, and missing rate, as learned from training rows.

    Attributes:
        columns: `NumberColumn`, `CategoryColumn` and `TextColumn` objects in the frame's order.

    Example:
        >>> frame = pd.DataFrame({"age": [31.0, None, 47.0], "sex": ["f", "m", "f"]})
        >>> schema = TableSchema.fit(frame)
        >>> [column.kind for column in schema.columns]
        ['number', 'category']
        >>> schema.encode(pd.DataFrame({"sex": ["m", "x"], "age": [50, 60]})).tolist()
        [[50.0, 3.0], [60.0, 1.0]]
    """

    columns: tuple[Column, ...]

    @property
    def names(self) -> list[str]:
        """Column names in the order of the frame."""
        return [column.name for column in self.columns]

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each column by name: what `fit` takes to keep them for other rows."""
        return {column.name: column.kind for column in self.columns}

    @property
    def numbers(self) -> list[NumberColumn]:
        """Columns that become the first columns of the matrix, in its order."""
        return [column for column in self.columns if isinstance(column, NumberColumn)]

    @property
    def categories(self) -> list[CategoryColumn]:
        """Columns that become the last columns of the matrix, in its order."""
        return [column for column in self.columns if isinstance(column, CategoryColumn)]

    @property
    def texts(self) -> list[TextColumn]:
        """Columns that are inputs of their own, none of the matrix."""
        return [column for column in self.columns if isinstance(column, TextColumn)]

    @property
    def input_names(self) -> list[str]:
        """Names of the model's inputs that the columns make; see `inputs`."""
        return [TABULAR] * bool(self.matrix_columns) + [text.input_name for text in self.texts]

    @property
    def matrix_columns(self) -> list[NumberColumn | CategoryColumn]:
        """Columns in the order of the encoded matrix: numbers, then categories."""
        return [*self.numbers, *self.categories]

    @property
    def num_columns(self) -> int:
        """Width of the encoded matrix: one column for each of the frame's that is no text."""
        return len(self.matrix_columns)

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        columns: Sequence[str] | Mapping[str, str | None] | None = None,
        *,
        max_categories: int = 256,
        allow_empty: bool = False,
    ) -> TableSchema:
        """Learns the columns of a table from the rows given, and from no others.

        Kinds are inferred: numbers, booleans, dates (datetimes or ISO 8601 text) and categories
        (text, pandas categoricals). Integers with few values stay numbers unless asked for by
        `columns` or by a categorical dtype. Text that spells numbers is read as numbers.

        Of numbers it learns 101 quantiles (fewer from fewer values), and the median and
        interquartile range (half the full range where that is 0), so heavy tails do not decide
        the scale; see `QuantileScaling` and `NumberScaling`.

        Args:
            frame: DataFrame of training rows; names must be strings, each once.
            columns: Names to use, or a mapping from names to kinds ("number", "boolean", "date",
                "category", "text", or None to infer, which never gives "text"). All columns by
                default.
            max_categories: Int; only this many of the most frequent categories get a code of
                their own, the rest share the code of unseen ones. So do those seen once, in a
                column of more than 20, or a model would learn single rows by heart.
            allow_empty: Accept a column without any value (it then encodes as missing), which
                a small fold may meet though the whole table has values.

        Returns:
            `TableSchema`.

        Raises:
            TypeError: If `frame` is no DataFrame, or a name is no string.
            ValueError: If there are no rows or columns, a name is missing or there twice, a kind
                is unknown, a column has no value, or a value does not fit its column's kind or
                is infinite. The message names the column and the row.
        """
        _check_frame(frame)
        if columns is None:
            columns = list(frame.columns)
        elif isinstance(columns, str):
            raise TypeError(f"`columns` must be a list of names. Received: columns={columns!r}.")
        check_unique_columns(list(columns))
        kinds = dict(columns) if isinstance(columns, Mapping) else dict.fromkeys(columns)
        _check_present(frame, kinds)
        if not kinds:
            raise ValueError("A table schema needs at least one column; the frame has none to use.")
        if not len(frame):
            raise ValueError("A table schema is learned from training rows; the frame has none.")
        learned: list[Column] = []
        for name, kind in kinds.items():
            series = frame[name]
            if kind is None:
                kind = infer_kind(series)
            elif kind not in KINDS:
                raise ValueError(
                    f"Column {name!r} must be one of {list(KINDS)}. Received: kind={kind!r}."
                )
            if kind == "category":
                learned.append(_fit_category(series, max_categories))
            elif kind == "text":
                learned.append(_fit_text(series, allow_empty))
            else:
                learned.append(_fit_number(series, kind))
        empty = [column.name for column in learned if column.missing_rate == 1]
        if empty and not allow_empty:
            raise ValueError(
                f"The column(s) {empty} have no value in any of the {len(frame)} rows: drop them "
                "or leave them out of the columns to use."
            )
        schema = cls(tuple(learned))
        _check_input_names(schema.texts)
        return schema

    def only(self, inputs: Collection[str]) -> TableSchema:
        """The columns that make the given inputs: "tabular", or a text column's."""
        kept = [
            column
            for column in self.columns
            if (column.input_name if isinstance(column, TextColumn) else TABULAR) in inputs
        ]
        return TableSchema(tuple(kept))

    def inputs(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        """Turns raw columns into inputs of a model, by name.

        Args:
            frame: As of `encode`.

        Returns:
            "tabular", as from `encode`, if there are columns other than text; and each text
            column's `(rows, length)` int32 token ids by its `input_name`.

        Raises:
            TypeError, ValueError: As `encode`, and if a text is no string.
        """
        _check_present(frame, self.names)
        matrix = self.encode(frame)
        texts = {
            column.input_name: column.vocabulary.encode(read_texts(frame[column.name]))
            for column in self.texts
        }
        return {**({TABULAR: matrix} if self.matrix_columns else {}), **texts}

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """Turns raw columns into the `tabular` input of a branch.

        Args:
            frame: DataFrame with at least the schema's columns, in any order.

        Returns:
            `(rows, num_columns)` float32: first the numbers, unscaled, NaN where missing, then
            the category codes (0 missing, 1 unseen in training). Text columns are none of it.

        Raises:
            TypeError: If `frame` is no DataFrame, or a name is no string.
            ValueError: If a column is missing or there twice, or a value does not fit its
                column's kind or is infinite.
        """
        _check_frame(frame)
        _check_present(frame, [column.name for column in self.matrix_columns])
        encoded = np.empty((len(frame), self.num_columns), np.float32)
        for position, column in enumerate(self.matrix_columns):
            series = frame[column.name]
            if isinstance(column, NumberColumn):
                encoded[:, position] = read_numbers(series, column.kind)
            else:
                codes: dict[str | None, int] = {None: MISSING_CODE}
                codes.update({text: FIRST_CODE + i for i, text in enumerate(column.vocabulary)})
                texts, rows = read_categories(series, column.is_number)
                coded = np.array([codes.get(text, UNSEEN_CODE) for text in texts])
                encoded[:, position] = coded[rows]
        return encoded

    def to_json(self) -> str:
        """Returns the schema as JSON text, which `from_json` reads."""
        columns = [dataclasses.asdict(column) for column in self.columns]
        return json.dumps({"format": _FORMAT, "columns": columns}, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> TableSchema:
        """Reads what `to_json` wrote; raises `ValueError` if it is anything else."""
        try:
            content = json.loads(text)
            if content["format"] not in _READABLE_FORMATS:
                raise ValueError(
                    f"its format is {content['format']!r}, none of {list(_READABLE_FORMATS)}"
                )
            return cls(tuple(_column_from_dict(fields) for fields in content["columns"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"This is not a table schema written by kfusion: {error}.") from error


def text_input(column: str) -> str:
    """Name of a text column's input: the column's, in ASCII letters, digits and underscores."""
    name = plain_name(column)
    return f"{name}_text" if name in RESERVED | {IMAGE, TABULAR} else name


def check_unique_columns(names: Sequence[Any]) -> None:
    """Raises `ValueError` naming the columns that occur more than once."""
    repeated = sorted(str(name) for name, count in collections.Counter(names).items() if count > 1)
    if repeated:
        raise ValueError(f"Column names must be unique. There more than once: {repeated}.")


def _check_frame(frame: pd.DataFrame) -> None:
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"The table must be a pandas DataFrame. Received: {type(frame).__name__}.")
    for name in frame.columns:
        if not isinstance(name, str):
            raise TypeError(
                f"Column names must be strings. Received: {name!r}; set "
                "`frame.columns = frame.columns.astype(str)`."
            )
    check_unique_columns(list(frame.columns))


def _check_present(frame: pd.DataFrame, names: Sequence[str] | Mapping[str, Any]) -> None:
    absent = [name for name in names if name not in frame.columns]
    if absent:
        raise ValueError(
            f"The table lacks the column(s) {absent}. It has: {list(frame.columns)[:50]}."
        )


def _fit_number(series: pd.Series, kind: str) -> NumberColumn:
    values = read_numbers(series, kind).astype(np.float64)
    present = values[~np.isnan(values)]
    name = str(series.name)
    if not present.size:
        return NumberColumn(name, kind, center=0.0, spread=0.0, missing_rate=1.0)
    low, center, high = np.quantile(present, [0.25, 0.5, 0.75])
    spread = high - low if high > low else (present.max() - present.min()) / 2
    return NumberColumn(
        name,
        kind,
        float(center),
        float(spread),
        missing_rate=1 - present.size / values.size,
        quantiles=_quantiles(present),
    )


def _quantiles(values: np.ndarray) -> tuple[float, ...]:
    """The values at even shares, to the precision of the matrix and in as few digits."""
    shares = np.linspace(0, 1, min(MAX_QUANTILES, values.size))
    return tuple(float(str(value)) for value in np.quantile(values, shares).astype(np.float32))


def _fit_category(series: pd.Series, max_categories: int) -> CategoryColumn:
    is_number = _holds_numbers(series)
    if is_number:
        exact = pd.to_numeric(series.astype(object)).astype(np.float64)
        if exact.nunique() > exact.astype(np.float32).nunique():
            raise ValueError(
                f"Column {series.name!r} has categories that are numbers too long to tell apart as "
                "float32: turn the column into text with `.astype(str)`."
            )
    texts, rows = read_categories(series, is_number)
    counts: collections.Counter[str | None] = collections.Counter()
    for text, count in zip(texts, np.bincount(rows, minlength=len(texts)), strict=True):
        counts[text] += int(count)
    num_missing = counts.pop(None)
    by_frequency = sorted(filter(None, counts), key=lambda text: (-counts[text], text))
    if len(by_frequency) > MANY_CATEGORIES:
        by_frequency = [text for text in by_frequency if counts[text] > 1]
    vocabulary = tuple(by_frequency[:max_categories])
    return CategoryColumn(
        str(series.name), vocabulary, is_number, missing_rate=num_missing / len(series)
    )


def _holds_numbers(series: pd.Series) -> bool:
    """Whether the values were given as numbers (or booleans), not as text."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        return pd.api.types.is_numeric_dtype(series.cat.categories.dtype)
    if pd.api.types.is_object_dtype(series.dtype):
        present = series.dropna()
        return bool(len(present)) and all(isinstance(v, (int, float, np.number)) for v in present)
    return pd.api.types.is_numeric_dtype(series.dtype)


def _fit_text(series: pd.Series, allow_empty: bool) -> TextColumn:
    texts = read_texts(series)
    kind = infer_kind(series)
    if kind != "category":
        raise ValueError(f"Column {series.name!r} holds no text but values of kind {kind!r}.")
    try:
        vocabulary = Vocabulary.fit(texts)
    except ValueError as error:
        if allow_empty:
            return TextColumn(str(series.name), NO_WORDS, 1.0)
        raise ValueError(f"Column {series.name!r} is no text to learn from. {error}") from error
    empty = sum(text is None or not text.strip() for text in texts)
    return TextColumn(str(series.name), vocabulary, empty / len(texts))


def _check_input_names(texts: Sequence[TextColumn]) -> None:
    names = collections.Counter(column.input_name.lower() for column in texts)
    twice = [column.name for column in texts if names[column.input_name.lower()] > 1]
    if twice:
        raise ValueError(f"Rename one of the text columns {twice}: their inputs have one name.")


def _column_from_dict(fields: dict[str, Any]) -> Column:
    if fields["kind"] == "text":
        vocabulary = fields["vocabulary"]
        read = Vocabulary(tuple(vocabulary["tokens"]), int(vocabulary["length"]))
        return TextColumn(**{**fields, "vocabulary": read})
    if fields["kind"] != "category":
        return NumberColumn(**{**fields, "quantiles": tuple(fields.get("quantiles", ()))})
    return CategoryColumn(**{**fields, "vocabulary": tuple(fields["vocabulary"])})
