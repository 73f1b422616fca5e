"""Raw columns as tensors, encoded inside a TensorFlow graph exactly as `TableSchema` encodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from kfusion.data.column_values import (
    ISO_DATE,
    MISSING_WORDS,
    category_text,
    category_values,
    read_texts,
    read_times,
)
from kfusion.data.plain_names import plain_names
from kfusion.data.tables import (
    FIRST_CODE,
    MISSING_CODE,
    UNSEEN_CODE,
    CategoryColumn,
    Column,
    TableSchema,
    TextColumn,
)

# Stands for a value that is no number in a column of numeric categories: in no vocabulary.
_UNSEEN_NUMBER = np.finfo(np.float32).max


def raw_dtype(column: Column) -> str:
    """What a raw column is served as: "string" for text and dates, else "float32"."""
    if isinstance(column, CategoryColumn):
        return "float32" if column.is_number else "string"
    return "string" if column.kind in ("date", "text") else "float32"


def served_names(schema: TableSchema, inputs: Sequence[str] = ()) -> dict[str, str]:
    """The names under which a SavedModel serves the columns, by column name; see `plain_names`.

    Args:
        schema: `TableSchema`.
        inputs: Names of the model's inputs.
    """
    return plain_names(schema.names, [name for name in inputs if name not in schema.input_names])


def raw_columns(schema: TableSchema, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Turns a frame into the arrays that an exported model takes, by column name.

    Args:
        schema: `TableSchema`.
        frame: DataFrame with at least its columns.

    Returns:
        `(rows,)` arrays: float32 with NaN for missing; text as objects with "" for missing;
        dates as ISO 8601 text in UTC.

    Raises:
        TypeError, ValueError: As `TableSchema.encode`.
    """
    encoded = schema.encode(frame)
    raw: dict[str, np.ndarray] = {}
    for position, column in enumerate(schema.matrix_columns):
        series = frame[column.name]
        if isinstance(column, CategoryColumn):
            raw[column.name] = _raw_categories(column, series)
        elif column.kind == "date":
            raw[column.name] = _raw_dates(series)
        else:
            raw[column.name] = encoded[:, position]
    for text in schema.texts:
        texts = read_texts(frame[text.name])
        raw[text.name] = np.array([cell or "" for cell in texts], dtype=object)
    return raw


def encode_tensors(schema: TableSchema, raw: dict[str, Any]) -> Any:
    """Encodes raw columns in the graph; the twin of `TableSchema.encode`.

    Args:
        schema: `TableSchema`.
        raw: `(rows,)` TensorFlow tensors of `raw_dtype`, by column name.

    Returns:
        `(rows, num_columns)` float32 tensor.
    """
    import tensorflow as tf

    encoded = []
    for number in schema.numbers:
        values = raw[number.name]
        if number.kind == "date":
            encoded.append(_days(values, number.name))
            continue
        fits = tf.math.is_nan(values) | tf.math.is_finite(values)
        if number.kind == "boolean":
            fits &= tf.math.is_nan(values) | tf.equal(values, 0) | tf.equal(values, 1)
        wanted = "0, 1 or NaN" if number.kind == "boolean" else "finite numbers or NaN"
        encoded.append(_checked(values, fits, f"Column {number.name!r} must hold {wanted}."))
    for category in schema.categories:
        values = raw[category.name]
        if category.is_number:
            known = tf.constant([float(text) for text in category.vocabulary], tf.float32)
            missing = tf.math.is_nan(values)
        else:
            known = tf.constant(list(category.vocabulary), tf.string)
            values = tf.strings.strip(values)
            missing = tf.equal(values, "")
        matches = tf.cast(tf.equal(values[:, None], known[None, :]), tf.float32)
        offsets = tf.range(len(category.vocabulary), dtype=tf.float32) + (FIRST_CODE - UNSEEN_CODE)
        codes = UNSEEN_CODE + tf.reduce_sum(matches * offsets, axis=1)
        encoded.append(tf.where(missing, float(MISSING_CODE), codes))
    return tf.stack(encoded, axis=1)


def sample_frame(schema: TableSchema, rows: int, seed: int = 0) -> pd.DataFrame:
    """Invents rows that meet every case of a schema: usual, missing and unseen values."""
    generator = np.random.default_rng(seed)
    frame: dict[str, Any] = {}
    for column in schema.columns:
        missing = generator.random(rows) < 0.2
        if isinstance(column, TextColumn):
            frame[column.name] = _sample_texts(column, rows, generator)
            continue
        if isinstance(column, CategoryColumn):
            known: list[Any] = list(column.vocabulary)
            values = known + ([-0.5, np.nan] if column.is_number else ["never seen before", ""])
            drawn = [values[i] for i in generator.integers(len(values), size=rows)]
            frame[column.name] = np.array(
                [float(value) for value in drawn] if column.is_number else drawn,
                dtype=np.float64 if column.is_number else object,
            )
            continue
        numbers = column.center + (column.spread or 1.0) * generator.normal(size=rows)
        if column.kind == "date":
            days = pd.to_timedelta(np.clip(numbers, -36_000, 72_000).round(3), unit="D")
            texts = (pd.Timestamp(0) + days).strftime("%Y-%m-%dT%H:%M:%S").to_numpy(object)
            frame[column.name] = np.where(missing, "", texts)
        else:
            if column.kind == "boolean":
                numbers = generator.integers(2, size=rows).astype(np.float64)
            frame[column.name] = np.where(missing, np.nan, numbers.astype(np.float32))
    return pd.DataFrame(frame)


def _sample_texts(column: TextColumn, rows: int, generator: np.random.Generator) -> list[str]:
    """Known and unknown words, none, and more than are read."""
    words = np.array([*column.vocabulary.tokens, "Never, seen before!"], dtype=object)
    lengths = generator.integers(column.vocabulary.length + 3, size=rows)
    return [" ".join(generator.choice(words, length)) for length in lengths]


def _raw_categories(column: CategoryColumn, series: pd.Series) -> np.ndarray:
    if column.is_number:
        values = category_values(series, is_number=True)
        is_text = [isinstance(value, str) for value in values]
        return values.where(np.logical_not(is_text), _UNSEEN_NUMBER).to_numpy(np.float32)
    return np.array([category_text(value) or "" for value in series.astype(object)], dtype=object)


def _raw_dates(series: pd.Series) -> np.ndarray:
    texts = read_times(series).dt.strftime("%Y-%m-%dT%H:%M:%S.%f")
    return texts.astype(object).where(texts.notna(), "").to_numpy(object)


def _checked(values: Any, fits: Any, message: str) -> Any:
    """The values, or an error from the graph that names the column and some that do not fit."""
    import tensorflow as tf

    wrong = tf.boolean_mask(values, ~fits)
    check = tf.debugging.Assert(tf.reduce_all(fits), [f"{message} Received:", wrong])
    with tf.control_dependencies([check]):
        return tf.identity(values)


def _days(texts: Any, name: str) -> Any:
    """ISO 8601 texts -> days since 1970-01-01 as float32, NaN where missing."""
    import tensorflow as tf

    texts = tf.strings.strip(texts)
    words = tf.constant(["", *sorted(MISSING_WORDS)])
    missing = tf.reduce_any(tf.equal(tf.strings.lower(texts)[:, None], words[None, :]), axis=1)
    message = f"Column {name!r} must hold ISO 8601 dates."
    readable = missing | tf.strings.regex_full_match(texts, ISO_DATE)
    texts = tf.where(missing, "1970-01-01", _checked(texts, readable, message))
    texts = tf.strings.regex_replace(texts, "Z$", "")
    length = tf.strings.length(texts)
    texts = tf.where(
        length == 10, texts + "T00:00:00", tf.where(length == 16, texts + ":00", texts)
    )

    def part(start: int, width: int, dtype: Any = tf.int64) -> Any:
        return tf.strings.to_number(tf.strings.substr(texts, start, width), dtype)

    year, month, day = part(0, 4), part(5, 2), part(8, 2)
    hour, minute, second = part(11, 2), part(14, 2), part(17, 32, tf.float64)
    is_leap = ((year % 4 == 0) & (year % 100 != 0)) | (year % 400 == 0)
    lengths = tf.constant([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], tf.int64)
    length = tf.gather(lengths, tf.clip_by_value(month, 1, 12) - 1)
    length += tf.cast(is_leap & tf.equal(month, 2), tf.int64)
    exists = (month >= 1) & (month <= 12) & (day >= 1) & (day <= length)
    exists &= (hour < 24) & (minute < 60) & (second < 60)
    day = _checked(day, exists, message)
    # Days of the civil calendar by counting years from March, when the leap day comes last.
    year -= tf.cast(month <= 2, tf.int64)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days = 365 * year + year // 4 - year // 100 + year // 400 + day_of_year - 719_468
    seconds = 3600 * hour + 60 * minute
    time_of_day = (tf.cast(seconds, tf.float64) + second) / 86_400
    whole = tf.cast(tf.cast(days, tf.float64) + time_of_day, tf.float32)
    return tf.where(missing, float("nan"), whole)
