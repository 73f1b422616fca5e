"""What an estimator is given -> arrays and a table: the one gate for `fit` and `predict`."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kfusion.data.fusion_data import FusionData
from kfusion.data.images import BadImageError
from kfusion.data.inputs import IMAGE, TABULAR, InputSpec, check_lengths, select_inputs
from kfusion.data.loading import NO_FILE, is_blank, load_images, name_image_inputs

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".npy")
Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True, eq=False)
class Modalities:
    """The inputs of the same rows.

    Attributes:
        arrays: Inputs that are not made of the table, by name: images as uint8, embeddings and
            sequences as float32.
        frame: DataFrame of the raw table, texts among its columns, or None.
        kinds: Kinds of its columns by name, as far as they were given.
    """

    arrays: dict[str, np.ndarray]
    frame: pd.DataFrame | None = None
    kinds: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())) if self.frame is None else self.frame)

    @property
    def column_kinds(self) -> dict[str, str | None]:
        """Kind of each column of the frame, None where it was not given."""
        names = [] if self.frame is None else self.frame.columns
        return {name: self.kinds.get(name) for name in names}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the arrays without rows."""
        return {name: array.shape[1:] for name, array in self.arrays.items()}


def read_modalities(
    x: Any,
    *,
    image_column: str | Sequence[str] | None = None,
    image_folder: str | os.PathLike | None = None,
    text_columns: Sequence[str] = (),
    shapes: Shapes | None = None,
    verbose: int | bool = 0,
) -> Modalities:
    """Takes arrays and a table out of whatever they come in.

    Args:
        x: `FusionData`; a dict with at least one of "tabular", a DataFrame or `(rows, columns)`
            numbers, and other inputs by names of the user's choice: uint8 images `(rows, height,
            width[, channels])`, several a row `(rows, count, height, width, channels)`, embeddings
            `(rows, features)`, sequences `(rows, steps, channels)` and texts, `(rows,)` strings; a
            DataFrame, whose `image_column`, if there is one, holds paths or arrays; or `(rows,
            columns)` numbers.
        image_column: Name of the DataFrame's column of images, or a list of several.
        image_folder: Where relative paths start.
        text_columns: Names of the DataFrame's columns of free text.
        shapes: Shape without rows that arrays must have, by input name: files are resized to it,
            arrays of another are refused. None for that of the first row.
        verbose: 0 hides the progress of reading files.

    Returns:
        `Modalities`.

    Raises:
        TypeError: If `x` is none of these.
        ValueError: If a column or key is missing or unknown, there are no columns, lengths or
            shapes differ, or images are no uint8. The message names the column, key or row.
        BadImageError: If files cannot be read; lists every one by row. An empty cell is no file:
            its image is missing, zeros alone.
    """
    shapes = shapes or {}
    if isinstance(x, FusionData):
        arrays = {name: _check_array(name, a, shapes.get(name)) for name, a in x.arrays.items()}
        return Modalities(arrays, x.frame if x.frame.shape[1] else None, x.column_kinds)
    if isinstance(x, Mapping):
        return _from_mapping(x, shapes, text_columns)
    if not isinstance(x, pd.DataFrame):
        if image_column is not None:
            raise TypeError(
                f"`X` must be a DataFrame with the image column {image_column!r}, or a dict with "
                f'"{IMAGE}" and "{TABULAR}". Received: {type(x).__name__}.'
            )
        return Modalities({}, as_frame(x))
    columns = {} if image_column is None else name_image_inputs(image_column)
    if not columns:
        _warn_of_images(x)
    absent = [column for column in columns.values() if column not in x.columns]
    if absent:
        raise ValueError(f"`X` has no image column {absent[0]!r}. It has: {list(x.columns)}.")
    arrays = {
        name: _from_column(name, x[column], image_folder, shapes.get(name), verbose)
        for name, column in columns.items()
    }
    frame = _named(x.drop(columns=list(columns.values())))
    kinds = _text_kinds(frame, text_columns)
    return Modalities(arrays, frame if frame.shape[1] else None, kinds)


def _warn_of_images(frame: pd.DataFrame) -> None:
    """Says so where a table has names of image files but no column is said to hold images."""
    for name in frame.columns:
        cells = frame[name].head(20).tolist()
        if all(isinstance(cell, str) and cell.lower().endswith(SUFFIXES) for cell in cells):
            warnings.warn(
                f"Column {name!r} holds names of image files, such as {cells[0]!r}, and is taken "
                f"as text: pass `image_column={name!r}` to see the images.",
                stacklevel=4,
            )


def table_of(x: Any) -> pd.DataFrame | None:
    """The table in whatever rows come in, images left aside; None if there is none."""
    if isinstance(x, FusionData):
        return x.frame
    if isinstance(x, Mapping):
        x = x.get(TABULAR)
    if x is None:
        return None
    return _named(x) if isinstance(x, pd.DataFrame) else as_frame(x)


def as_frame(matrix: Any, names: Sequence[str] | None = None) -> pd.DataFrame:
    """A matrix of numbers as a DataFrame, its columns called "column_0" and so on, or as given."""
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise ValueError(f"A table must have shape (rows, columns). Received: {matrix.shape}.")
    names = names or [f"column_{i}" for i in range(matrix.shape[1])]
    return pd.DataFrame(matrix, columns=names)


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame whose rows count from 0; its columns, if numbered, are called as a matrix's."""
    frame = frame.reset_index(drop=True)
    if not any(isinstance(name, str) for name in frame.columns):
        frame.columns = [f"column_{name}" for name in frame.columns]
    return frame


def _from_mapping(x: Mapping[str, Any], shapes: Shapes, text_columns: Sequence[str]) -> Modalities:
    strange = [name for name in x if not isinstance(name, str)]
    if strange or not x:
        raise ValueError(f"`X` must have inputs by name. Received: {list(x)}.")
    check_lengths({f"X[{key!r}]": part for key, part in x.items()})
    frame = x.get(TABULAR)
    if frame is not None:
        frame = _named(frame) if isinstance(frame, pd.DataFrame) else as_frame(frame)
    if IMAGE in x and _holds_text(x[IMAGE]):
        raise ValueError(
            f"`X[{IMAGE!r}]` holds strings. For paths of files pass a DataFrame and `image_column`."
        )
    # In an order that is not that of the dict.
    texts = {name: x[name] for name in sorted(x) if name != TABULAR and _holds_text(x[name])}
    if texts:
        clash = [] if frame is None else [name for name in texts if name in frame.columns]
        if clash:
            raise ValueError(f"`X` has the text {clash[0]!r} twice: by itself and in the table.")
        columns = pd.DataFrame({name: np.asarray(part, object) for name, part in texts.items()})
        frame = columns if frame is None else frame.join(columns)
    arrays = {
        name: _check_array(name, part, shapes.get(name))
        for name, part in x.items()
        if name != TABULAR and name not in texts
    }
    kinds = {} if frame is None else _text_kinds(frame, [*texts, *text_columns])
    return Modalities(arrays, frame, kinds)


def _holds_text(part: Any) -> bool:
    cells = np.asarray(part)
    return cells.ndim == 1 and cells.dtype.kind in "OUST"


def _text_kinds(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, str]:
    if isinstance(names, str):
        raise TypeError(f"`text_columns` must be a list of names. Received: {names!r}.")
    absent = [name for name in names if name not in frame.columns]
    if absent:
        raise ValueError(f"`X` has no text column {absent[0]!r}. It has: {list(frame.columns)}.")
    return dict.fromkeys(names, "text")


def _from_column(name: str, column: pd.Series, folder, shape, verbose) -> np.ndarray:
    cells = column.tolist()
    arrays = {row: cell for row, cell in enumerate(cells) if isinstance(cell, np.ndarray)}
    if not arrays:
        images, bad = load_images(column, shape, image_folder=folder, verbose=verbose)
        bad = [each for each in bad if each.path != NO_FILE]
        if bad:
            raise BadImageError(bad, len(column))
        return images
    others = {row: cell for row, cell in enumerate(cells) if row not in arrays}
    is_empty = is_blank(pd.Series(others, dtype=object))
    wrong = [row for row in others if not is_empty[row]]
    if wrong:
        raise ValueError(
            f"Column {column.name!r} holds arrays, but not in row {wrong[0]}: {cells[wrong[0]]!r}."
        )
    first, known = next((row, cell.shape) for row, cell in arrays.items())
    odd = [row for row, cell in arrays.items() if cell.shape != known]
    if odd:
        raise ValueError(
            f"The images of column {column.name!r} must have one shape: row {first} has "
            f"{known}, row {odd[0]} has {cells[odd[0]].shape} ({len(odd)} in all)."
        )
    nothing = np.zeros(known, np.uint8)
    stacked = np.stack([arrays.get(row, nothing) for row in range(len(cells))])
    return _check_images(name, stacked, shape)


def _check_array(name: str, array: Any, shape: tuple[int, ...] | None) -> np.ndarray:
    """Images of any kind as uint8, embeddings and sequences as float32."""
    array = np.asarray(array)
    if name == IMAGE or array.ndim > 3 or (array.dtype == np.uint8 and array.ndim == 3):
        return _check_images(name, array, shape)
    if array.ndim not in (2, 3):
        raise ValueError(
            f"`X[{name!r}]` must be images, an embedding (rows, features), a sequence (rows, "
            f"steps, channels) or strings. Received: shape {array.shape}, dtype {array.dtype}."
        )
    spec = InputSpec(tuple(shape or array.shape[1:]), "float32")
    return select_inputs({name: array}, {name: spec}, "X")[name]


def _check_images(name: str, images: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim not in (4, 5):
        raise ValueError(
            f"Images must have shape (rows, height, width, channels). Received: {images.shape}."
        )
    spec = InputSpec(tuple(shape or images.shape[1:]), "uint8")
    return select_inputs({name: images}, {name: spec}, "X")[name]
