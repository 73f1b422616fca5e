"""Raw cells of a column: what kind they are, and their values as numbers, times or texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

# A text column of more values is one of many.
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


class CellError(ValueError):
    """A cell that its column cannot hold.

    Attributes:
        column: Name of the column.
        row: Int, the first row of which this is true.
        value: What the cell holds.
    """

    def __init__(self, message: str, series: pd.Series, row: int):
        super().__init__(message)
        self.column = series.name
        self.row = int(row)
        self.value = series.iloc[row]


def infer_kind(series: pd.Series) -> str:
    """Returns the kind of a raw column, never "text". Integers are numbers, however few."""
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


def read_numbers(series: pd.Series, kind: str) -> np.ndarray:
    """Values as `(rows,)` float32, NaN where missing; dates in days, booleans as 1 and 0."""
    numbers = _read_dates(series) if kind == "date" else read_plain_numbers(series, kind)
    with np.errstate(over="ignore"):
        numbers = numbers.astype(np.float32)
    infinite = np.flatnonzero(np.isinf(numbers))
    if infinite.size:
        raise CellError(
            f"Column {series.name!r} holds an infinite number, or one too large for float32, in "
            f"row {infinite[0]} ({infinite.size} in all): {series.iloc[infinite[0]]}. "
            "Replace it by a missing value or a bound.",
            series,
            infinite[0],
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
        raise CellError(
            f"Column {series.name!r} is a {kind} but row {rows[0]} holds "
            f"{series.iloc[rows[0]]!r} ({rows.size} such rows).{hint}",
            series,
            rows[0],
        )


def read_categories(series: pd.Series, is_number: bool) -> tuple[list[str | None], np.ndarray]:
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


def read_texts(series: pd.Series) -> list[str | None]:
    """Texts as they are, None where missing; raises `TypeError` naming the first that is none."""
    texts = series.astype(object).where(series.notna(), None).tolist()
    for row, text in enumerate(texts):
        if not (text is None or isinstance(text, str)):
            raise TypeError(f"Column {series.name!r} is a text but row {row} holds {text!r}.")
    return texts
