"""Tables in CSV and Parquet files."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from kfusion.data.tables import check_unique_columns

_CHUNK_ROWS = 50_000
# Of a DataFrame whose index was saved with it.
_SAVED_INDEX = re.compile(r"__index_level_\d+__")
_PARQUET = (".parquet", ".pq")


def read_table(
    path_or_frame: str | os.PathLike | pd.DataFrame, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Reads a table, of a file only the columns asked for.

    Args:
        path_or_frame: Path of a file, Parquet if it ends so (".parquet", ".pq") and else CSV (see
            `read_csv`); or a DataFrame.
        columns: Names of those to keep, in the table's order; by default all.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If a Parquet file is given and pyarrow is not installed.
        ValueError: If the file cannot be read, or has a column name twice.
    """
    if isinstance(path_or_frame, pd.DataFrame):
        check_unique_columns(list(path_or_frame.columns))
        return path_or_frame.reset_index(drop=True)
    if not _is_parquet(path_or_frame):
        return read_csv(path_or_frame, columns)
    names = name_columns(path_or_frame)
    kept = names if columns is None else [name for name in names if name in set(columns)]
    with _told(path_or_frame):
        table = _parquet().read_table(path_or_frame, columns=kept)
        return table.to_pandas(ignore_metadata=True)


def name_columns(path_or_frame: str | os.PathLike | pd.DataFrame) -> list[str]:
    """The names of a table's columns; nothing else of a file is read. Raises as `read_table`."""
    if isinstance(path_or_frame, pd.DataFrame):
        return list(path_or_frame.columns)
    with _told(path_or_frame):
        if not _is_parquet(path_or_frame):
            return [name for name in _read_header(path_or_frame)[0] if name.strip()]
        names = _parquet().read_schema(path_or_frame).names
    names = [name for name in names if not _SAVED_INDEX.fullmatch(name)]
    check_unique_columns(names)
    return names


def read_csv(path: str | os.PathLike, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Reads a CSV file as text, missing only where a field is empty.

    Words like "NA" are left alone here: in a column of numbers the schema reads them as missing,
    in a column of text they are a category (North America). The delimiter is whichever of
    comma, semicolon, tab and bar the header holds most often; beside any but the comma, numbers
    may have a decimal comma. A column without a name, as a saved index has, is left out with a
    warning.

    Args:
        path: Path of the file.
        columns: Names of those to keep, in the file's order; by default all.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is empty, no UTF-8 text, no table, or has a column name twice.
    """
    with _told(path):
        names, delimiter = _read_header(path)
        with warnings.catch_warnings():
            # pandas would drop the surplus fields of rows that are longer than the header.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            parts = pd.read_csv(
                path,
                sep=delimiter,
                dtype=str,
                keep_default_na=False,
                na_values=[""],
                encoding="utf-8-sig",
                index_col=False,
                chunksize=_CHUNK_ROWS,
            )
            # All columns are parsed, since rows are not counted out with `usecols`.
            with parts:
                kept = [_kept(part, names, columns) for part in parts]
    frame = pd.concat(kept, ignore_index=True)
    if not all(name.strip() for name in names):
        warnings.warn(
            f"{path} has a column without a name, which is left out (a saved index?).", stacklevel=2
        )
    return _with_decimal_points(frame, delimiter)


def _kept(part: pd.DataFrame, names: Sequence[str], columns: Sequence[str] | None) -> pd.DataFrame:
    """The columns asked for, none of them nameless."""
    asked = set(names if columns is None else columns)
    return part.loc[:, [bool(name.strip()) and name in asked for name in names]]


def _read_header(path: str | os.PathLike) -> tuple[list[str], str]:
    """The names in a CSV's first line, empty ones too, and its delimiter."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        delimiter = max(",;\t|", key=first.count)
        file.seek(0)
        names = next(csv.reader(file, delimiter=delimiter), [])
    if not first.strip():
        raise ValueError(f"{path} is empty, or its first line is.")
    check_unique_columns([name for name in names if name.strip()])
    return names, delimiter


def _is_parquet(path: str | os.PathLike) -> bool:
    return Path(path).suffix.lower() in _PARQUET


def _parquet():
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "Parquet files need pyarrow: `pip install 'kfusion[parquet]'`."
        ) from error
    return pyarrow.parquet


@contextlib.contextmanager
def _told(path: str | os.PathLike) -> Iterator[None]:
    """Every failure to read a file as an error that names it."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8.") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise ValueError(
            f"{path} is not a table that can be read: {str(error).strip()}."
        ) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no file {path}.") from error
    except IsADirectoryError as error:
        raise ValueError(f"{path} is a folder, not a CSV file.") from error
    except ValueError as error:
        if not type(error).__module__.startswith("pyarrow"):
            raise
        raise ValueError(f"{path} is not a Parquet file that can be read: {error}") from error


def _with_decimal_points(frame: pd.DataFrame, delimiter: str) -> pd.DataFrame:
    """Replaces decimal commas in columns where all is numbers and some have one."""
    if delimiter == ",":
        return frame
    for name in frame.columns:
        texts = frame[name].dropna()
        has_comma = texts.str.contains(",")
        if has_comma.any() and texts[has_comma].str.fullmatch(r"\s*[+-]?\d*,\d+\s*").all():
            frame[name] = frame[name].str.replace(",", ".")
    return frame
