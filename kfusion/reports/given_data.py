"""The rows that a result is of, as a user hands them over for their images and columns."""

from __future__ import annotations

import base64
import dataclasses
import io
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from kfusion.estimator_inputs import read_modalities
from kfusion.fusion_data import FusionData
from kfusion.tables import TableSchema

# Pixels of an image's longer side.
MAX_SIDE = 96


@dataclasses.dataclass(frozen=True, eq=False)
class GivenData:
    """Rows to show.

    Attributes:
        images: `(rows, height, width, channels)` uint8, or None.
        columns: DataFrame of the table's columns, as of `describe_columns`, or None.
        row_numbers: `(rows,)` ints: what each row is called.
        y: `(rows,)` labels or values, or None.
        class_names: Names in the order of the labels.
        groups: `(rows,)` values, or None.
    """

    images: np.ndarray | None
    columns: pd.DataFrame | None
    row_numbers: np.ndarray
    y: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.row_numbers)

    def image_of(self, place: int) -> str | None:
        """A row's image as a data URI; None if there is none."""
        return None if self.images is None else to_data_uri(self.images[place])


def read_data(data: Any, **settings: Any) -> GivenData:
    """Takes rows as an estimator takes them.

    Args:
        data: `FusionData`, or what `FusionClassifier` takes as `X`.
        **settings: For `read_modalities`, such as `image_column`.

    Raises:
        TypeError, ValueError: As `read_modalities`.
    """
    given = read_modalities(data, **settings)
    columns = None
    if given.frame is not None:
        kinds = dict(given.kinds) or None
        columns = describe_columns(TableSchema.fit(given.frame, kinds, allow_empty=True))
    if not isinstance(data, FusionData):
        return GivenData(given.images, columns, np.arange(len(given)))
    return GivenData(given.images, columns, data.rows, data.y, data.class_names, data.groups)


def describe_columns(schema: TableSchema) -> pd.DataFrame | None:
    """Name, kind and share missing of each column; None if there are none."""
    if not schema.columns:
        return None
    return pd.DataFrame(
        {
            "column": [column.name for column in schema.columns],
            "kind": [column.kind for column in schema.columns],
            "missing": [f"{column.missing_rate:.1%}" for column in schema.columns],
        }
    )


def to_data_uri(pixels: np.ndarray) -> str:
    """An image as a small PNG within a page; of more than three channels, the first three.

    Args:
        pixels: `(height, width, channels)` uint8.
    """
    channels = pixels.shape[-1]
    image = Image.fromarray(pixels[..., :3] if channels >= 3 else pixels[..., 0])
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
