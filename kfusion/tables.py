"""What a table's columns mean, learned from training rows, and their encoding as a matrix."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

KINDS = ("number", "boolean", "date", "category")
MISSING_CODE, UNSEEN_CODE, FIRST_CODE = 0, 1, 2
MANY_CATEGORIES = 20

# Words that stand for "no value", but only where every other value of the column is a number or a
# date: in a column of text they may be a category ("NA" is also North America's continent code).
MISSING_WORDS = frozenset({"na", "n/a", "nan", "null", "none", "?", "-", ".", "#n/a"})
ISO_DATE = r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?Z?)?"
# Digits with leading zeros are codes (postcodes, product numbers). Infinity is spelled so that
# one of them is refused as a number, and does not turn the column into categories.
_SPELLED_NUMBER = r"[+-]?(?:(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|(?i:inf(?:inity)?))"
# The characters that TensorFlow's `strings.strip` removes, so that the exported graph agrees.
BLANKS = " \t\n\v\f\r"
# What a column's quantiles number at most: one for each percent.
MAX_QUANTILES = 101
# Format 1 had no quantiles.
_FORMAT, _READABLE_FORMATS = 2, (1, 2)


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
class TableSchema:
    """Each column's kind, scale or vocabulary, and missing rate, as learned from training rows.

    Attributes:
        columns: `NumberColumn` and `CategoryColumn` objects in the frame's order.

    Example:
        >>> frame = pd.DataFrame({"age": [31.0, None, 47.0], "sex": ["f", "m", "f"]})
        >>> schema = TableSchema.fit(frame)
        >>> [column.kind for column in schema.columns]
        ['number', 'category']
        >>> schema.encode(pd.DataFrame({"sex": ["m", "x"], "age": [50, 60]})).tolist()
        [[50.0, 3.0], [60.0, 1.0]]
    """

    columns: tuple[NumberColumn | CategoryColumn, ...]

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
    def matrix_columns(self) -> list[NumberColumn | CategoryColumn]:
        """Columns in the order of the encoded matrix: numbers, then categories."""
        return [*self.numbers, *self.categories]

    @property
    def num_columns(self) -> int:
        """Width of the encoded matrix: one column for each of the frame's."""
        return len(self.columns)

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
                "category", or None to infer). All columns by default.
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
        learned: list[NumberColumn | CategoryColumn] = []
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
            else:
                learned.append(_fit_number(series, kind))
        empty = [column.name for column in learned if column.missing_rate == 1]
        if empty and not allow_empty:
            raise ValueError(
                f"The column(s) {empty} have no value in any of the {len(frame)} rows: drop them "
                "or leave them out of the columns to use."
            )
        return cls(tuple(learned))

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """Turns raw columns into the `tabular` input of a branch.

        Args:
            frame: DataFrame with at least the schema's columns, in any order.

        Returns:
            `(rows, num_columns)` float32: first the numbers, unscaled, NaN where missing, then
            the category codes (0 missing, 1 unseen in training).

        Raises:
            TypeError: If `frame` is no DataFrame, or a name is no string.
            ValueError: If a column is missing or there twice, or a value does not fit its
                column's kind or is infinite.
        """
        _check_frame(frame)
        _check_present(frame, self.names)
        encoded = np.empty((len(frame), self.num_columns), np.float32)
        for position, column in enumerate(self.matrix_columns):
            series = frame[column.name]
            if isinstance(column, NumberColumn):
                encoded[:, position] = _read_numbers(series, column.kind)
            else:
                codes: dict[str | None, int] = {None: MISSING_CODE}
                codes.update({text: FIRST_CODE + i for i, text in enumerate(column.vocabulary)})
                texts, rows = _read_categories(series, column.is_number)
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


def infer_kind(series: pd.Series) -> str:
    """Returns the kind of a raw column: one of `KINDS`. Integers are numbers, however few."""
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return "category"
    if pd.api.types.is_bool_dtype(dtype):
        return "boolean"
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return "date"
    if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype):
        return "number"
    if not (pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype)):
        raise ValueError(
            f"Column {series.name!r} has dtype {dtype}, which is no number, boolean, date or text: "
            "convert it or leave it out."
        )
    texts = pd.Series([str(value).strip(BLANKS) for value in _factorize(series)[1]], dtype=object)
    texts = texts[~texts.str.lower().isin(MISSING_WORDS | {""})]
    if not len(texts):
        return "category"
    if texts.str.lower().isin({"true", "false"}).all():
        return "boolean"
    if texts.str.fullmatch(ISO_DATE).all():
        return "date"
    return "number" if texts.str.fullmatch(_SPELLED_NUMBER).all() else "category"


def is_identifier(series: pd.Series) -> bool:
    """Whether a text column names its rows: over 20 values, nearly all of them different."""
    distinct = series.nunique()
    return bool(distinct > MANY_CATEGORIES and distinct > 0.9 * series.count())


def looks_like_numbers(series: pd.Series) -> bool:
    """Whether all texts are numbers with separators, a currency sign or a percent sign."""
    texts = series.dropna().astype(str).str.strip(BLANKS)
    number = r"[$€£]?\s?[+-]?\d{1,3}(?:[., ']?\d{3})*(?:[.,]\d+)?\s?[%$€£]?"
    # Digits alone are codes with leading zeros, or they would have been numbers.
    return bool(texts.str.contains(r"\D").any()) and bool(texts.str.fullmatch(number).all())


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
    values = _read_numbers(series, kind).astype(np.float64)
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
    texts, rows = _read_categories(series, is_number)
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


def _read_numbers(series: pd.Series, kind: str) -> np.ndarray:
    """Values as `(rows,)` float32, NaN where missing; dates in days, booleans as 1 and 0."""
    numbers = _read_dates(series) if kind == "date" else read_plain_numbers(series, kind)
    with np.errstate(over="ignore"):
        numbers = numbers.astype(np.float32)
    infinite = np.flatnonzero(np.isinf(numbers))
    if infinite.size:
        raise ValueError(
            f"Column {series.name!r} holds an infinite number, or one too large for float32, in "
            f"row {infinite[0]} ({infinite.size} in all): {series.iloc[infinite[0]]}. "
            "Replace it by a missing value or a bound."
        )
    return numbers


def read_plain_numbers(series: pd.Series, kind: str) -> np.ndarray:
    """Numbers or booleans or their texts as float64, NaN where missing; raises on anything else."""
    dtype = series.dtype
    if pd.api.types.is_datetime64_any_dtype(dtype):
        raise ValueError(f"Column {series.name!r} is a {kind} in the schema but holds dates.")
    if pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_numeric_dtype(dtype):
        numbers = series.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        missing = is_missing_text(series)
        texts = series.where(~missing).map(_spell_boolean, na_action="ignore")
        numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        _refuse_first(series, np.isnan(numbers) & ~missing.to_numpy(), kind)
    if kind == "boolean":
        _refuse_first(series, ~(np.isnan(numbers) | np.isin(numbers, (0, 1))), kind)
    return numbers


def _spell_boolean(value: Any) -> Any:
    word = str(value).strip(BLANKS).lower()
    return {"true": 1.0, "false": 0.0}.get(word, value)


def read_times(series: pd.Series) -> pd.Series:
    """Datetimes or their texts as UTC timestamps, NaT where missing; raises on anything else."""
    if pd.api.types.is_numeric_dtype(series.dtype):
        raise ValueError(f"Column {series.name!r} is a date in the schema but holds numbers.")
    are_datetimes = pd.api.types.is_datetime64_any_dtype(series.dtype)
    missing = series.isna() if are_datetimes else is_missing_text(series)
    times = pd.to_datetime(series.where(~missing), utc=True, errors="coerce", format="mixed")
    unclear = times.isna()
    if not are_datetimes:
        # Text such as 03/04/2020 would be read month first, "now" as the time of reading.
        is_text = series.map(lambda value: isinstance(value, str))
        is_iso = series.where(is_text, "").str.strip(BLANKS).str.fullmatch(ISO_DATE)
        unclear |= is_text & ~is_iso.astype(bool)
    _refuse_first(series, (unclear & ~missing).to_numpy(), "date")
    return times


def _read_dates(series: pd.Series) -> np.ndarray:
    # An epoch in seconds: one in nanoseconds would limit the dates to 1677-2262.
    since_epoch = read_times(series) - pd.Timestamp(0, tz="UTC").as_unit("s")
    return (since_epoch / pd.Timedelta(days=1)).to_numpy(np.float64)


def is_missing_text(series: pd.Series) -> pd.Series:
    """Whether each value of a column of numbers or dates is missing, blank or a word for it."""
    words = series.astype(object).map(lambda v: str(v).strip(BLANKS).lower(), na_action="ignore")
    return series.isna() | words.isin(MISSING_WORDS | {""})


def _refuse_first(series: pd.Series, wrong: np.ndarray, kind: str) -> None:
    rows = np.flatnonzero(wrong)
    if rows.size:
        hint = " Write dates as ISO 8601 (2020-12-31), or give datetimes." if kind == "date" else ""
        raise ValueError(
            f"Column {series.name!r} is a {kind} but row {rows[0]} holds "
            f"{series.iloc[rows[0]]!r} ({rows.size} such rows).{hint}"
        )


def _read_categories(series: pd.Series, is_number: bool) -> tuple[list[str | None], np.ndarray]:
    """Distinct values as texts, None (last) where missing, and each row's position among them."""
    rows, distinct = _factorize(category_values(series, is_number))
    rows[rows < 0] = len(distinct)
    return [*(category_text(value) for value in distinct), None], rows


def category_values(series: pd.Series, is_number: bool) -> pd.Series:
    """Raw values of a category column as objects, None where missing.

    Categories that are numbers become float32, as the exported graph takes them, so that 3, 3.0
    and "3" are one; other values among them stay text, which no vocabulary holds.
    """
    values = series.astype(object)
    if not is_number:
        return values
    numbers = pd.to_numeric(values.map(_spell_boolean, na_action="ignore"), errors="coerce")
    with np.errstate(over="ignore"):
        numbers = numbers.astype(np.float32)
    _refuse_first(series, np.isinf(numbers.to_numpy()), "category of finite numbers")
    return values.where(numbers.isna() & ~is_missing_text(series), numbers.astype(object))


def _factorize(series: pd.Series) -> tuple[np.ndarray, pd.Index]:
    """Each row's position among the distinct values, -1 where missing, and those values."""
    try:
        return pd.factorize(series)
    except TypeError:
        raise ValueError(
            f"Column {series.name!r} holds lists or other collections: turn them into numbers or "
            "text, or leave the column out."
        ) from None


def category_text(value: Any) -> str | None:
    """The vocabulary entry of a raw value: text without outer blanks, whole numbers as integers."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, (bool, np.bool_)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        if np.isnan(value):
            return None
        return np.format_float_positional(value, trim="-")
    return str(value).strip(BLANKS) or None


def _column_from_dict(fields: dict[str, Any]) -> NumberColumn | CategoryColumn:
    if fields["kind"] != "category":
        return NumberColumn(**{**fields, "quantiles": tuple(fields.get("quantiles", ()))})
    return CategoryColumn(**{**fields, "vocabulary": tuple(fields["vocabulary"])})
