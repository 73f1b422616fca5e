"""What an estimator is given -> images and a table: the one gate for `fit` and `predict`."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kfusion.fusion_data import FusionData
from kfusion.images import BadImageError, rows_with_image
from kfusion.inputs import InputSpec, check_lengths, select_inputs
from kfusion.loading import NO_FILE, is_blank, load_images
from kfusion.tables import TableSchema

IMAGE, TABULAR = "image", "tabular"
# With so many rows that lack a table, members learn what it means.
MIN_EMPTY_ROWS = 20
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".npy")


@dataclasses.dataclass(frozen=True, eq=False)
class Modalities:
    """The inputs of the same rows.

    Attributes:
        images: `(rows, height, width, channels)` uint8, or None.
        frame: DataFrame of the raw table, or None.
        kinds: Kinds of its columns by name, as far as they were given.
    """

    images: np.ndarray | None
    frame: pd.DataFrame | None
    kinds: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(part for part in (self.images, self.frame) if part is not None))


def read_modalities(
    x: Any,
    *,
    image_column: str | None = None,
    image_folder: str | os.PathLike | None = None,
    image_shape: tuple[int, int, int] | None = None,
    verbose: int | bool = 0,
) -> Modalities:
    """Takes images and a table out of whatever they come in.

    Args:
        x: `FusionData`; a dict with "image", `(rows, height, width[, channels])` uint8, and
            "tabular", a DataFrame or `(rows, columns)` numbers, or one of them; a DataFrame, whose
            `image_column`, if there is one, holds paths or arrays; or `(rows, columns)` numbers.
        image_column: Name of the DataFrame's column of images.
        image_folder: Where relative paths start.
        image_shape: `(height, width, channels)` that there must be; files are resized to it, arrays
            of another are refused. None for that of the first image.
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
    if isinstance(x, FusionData):
        return Modalities(_check_images(x.images, image_shape), x.frame, x.column_kinds)
    if isinstance(x, Mapping):
        return _from_mapping(x, image_shape)
    if not isinstance(x, pd.DataFrame):
        if image_column is not None:
            raise TypeError(
                f"`X` must be a DataFrame with the image column {image_column!r}, or a dict with "
                f'"{IMAGE}" and "{TABULAR}". Received: {type(x).__name__}.'
            )
        return Modalities(None, as_frame(x))
    if image_column is None:
        _warn_of_images(x)
        return Modalities(None, _named(x))
    if image_column not in x.columns:
        raise ValueError(f"`X` has no image column {image_column!r}. It has: {list(x.columns)}.")
    images = _from_column(x[image_column], image_folder, image_shape, verbose)
    frame = _named(x.drop(columns=image_column))
    return Modalities(images, frame if frame.shape[1] else None)


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


def present_rows(x: Mapping[str, np.ndarray], schema: TableSchema | None) -> dict[str, np.ndarray]:
    """Which rows have each modality, of those that members can do without.

    An image of zeros alone is missing, and so is a row of a table in which every value is. Where
    there are no other modalities, or enough rows to learn from lack their table, what is missing
    is a value like others.

    Args:
        x: Encoded inputs by name.
        schema: `TableSchema` of the table, or None.

    Returns:
        `(rows,)` booleans by modality.

    Raises:
        ValueError: If no row has an image.
    """
    if schema is None or IMAGE not in x:
        return {}
    images = rows_with_image(x[IMAGE])
    if not images.any():
        raise ValueError("No row has an image: all are empty, or hold zeros alone.")
    present: dict[str, np.ndarray] = {IMAGE: images}
    num_numbers = len(schema.numbers)
    numbers, codes = x[TABULAR][:, :num_numbers], x[TABULAR][:, num_numbers:]
    tables = np.any(~np.isnan(numbers), axis=1) | np.any(codes > 0, axis=1)
    if np.sum(~tables) < MIN_EMPTY_ROWS:
        present[TABULAR] = tables
    return present


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


def _from_mapping(x: Mapping[str, Any], image_shape) -> Modalities:
    unknown = sorted(map(str, x.keys() - {IMAGE, TABULAR}))
    if unknown or not x:
        raise ValueError(
            f'`X` must have "{IMAGE}", "{TABULAR}" or both. Received: {[str(key) for key in x]}.'
        )
    check_lengths({f"X[{key!r}]": part for key, part in x.items()})
    images = _check_images(x[IMAGE], image_shape) if IMAGE in x else None
    frame = x.get(TABULAR)
    if frame is not None:
        frame = _named(frame) if isinstance(frame, pd.DataFrame) else as_frame(frame)
    return Modalities(images, frame)


def _from_column(column: pd.Series, folder, image_shape, verbose) -> np.ndarray:
    cells = column.tolist()
    arrays = {row: cell for row, cell in enumerate(cells) if isinstance(cell, np.ndarray)}
    if not arrays:
        images, bad = load_images(column, image_shape, image_folder=folder, verbose=verbose)
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
    first, shape = next((row, cell.shape) for row, cell in arrays.items())
    odd = [row for row, cell in arrays.items() if cell.shape != shape]
    if odd:
        raise ValueError(
            f"The images of column {column.name!r} must have one shape: row {first} has "
            f"{shape}, row {odd[0]} has {cells[odd[0]].shape} ({len(odd)} in all)."
        )
    nothing = np.zeros(shape, np.uint8)
    return _check_images(np.stack([arrays.get(r, nothing) for r in range(len(cells))]), image_shape)


def _check_images(images: Any, image_shape) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise ValueError(
            f"Images must have shape (rows, height, width, channels). Received: {images.shape}."
        )
    shape = images.shape[1:] if image_shape is None else tuple(image_shape)
    return select_inputs({IMAGE: images}, {IMAGE: InputSpec(shape, "uint8")}, "X")[IMAGE]
