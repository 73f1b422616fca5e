"""The rows that a result is of, as a user hands them over for their images and columns."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from kfusion.data.fusion_data import FusionData
from kfusion.data.inputs import IMAGE
from kfusion.data.tables import TableSchema
from kfusion.estimators.estimator_inputs import read_modalities

# Pixels of an image's longer side.
MAX_SIDE = 96


@dataclasses.dataclass(frozen=True, eq=False)
class GivenData:
    """Rows to show.

    Attributes:
        images: `(rows, height, width, channels)` uint8, the first of several; or None.
        columns: DataFrame of the table's columns, as of `describe_columns`, or None.
        row_numbers: `(rows,)` ints: what each row is called.
        shapes: Shape of what a row has of each input beside the table.
        y: `(rows,)` labels or values, or None.
        class_names: Names in the order of the labels.
        groups: `(rows,)` values, or None.
    """

    images: np.ndarray | None
    columns: pd.DataFrame | None
    row_numbers: np.ndarray
    shapes: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
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
        schema = TableSchema.fit(given.frame, given.column_kinds, allow_empty=True)
        columns = describe_columns(schema)
    images = next((a for a in given.arrays.values() if a.dtype == np.uint8), None)
    if images is not None and images.ndim == 5:
        images = images[:, 0]
    if not isinstance(data, FusionData):
        return GivenData(images, columns, np.arange(len(given)), given.shapes)
    return GivenData(
        images, columns, data.rows, given.shapes, data.y, data.class_names, data.groups
    )


def describe_shapes(shapes: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Sizes of what a row has of each input beside the table, by what it is called."""
    return {
        "images" if name == IMAGE else name: " x ".join(map(str, shape))
        for name, shape in shapes.items()
    }


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
