"""Tables in files: only the columns asked for, the same rows from CSV and Parquet."""

import sys

import numpy as np
import pandas as pd
import pytest

from kfusion.data.loading import load_table
from kfusion.data.table_files import name_columns, read_csv, read_table


@pytest.fixture
def frame(write_images):
    """Six rows with images, a number that is missing once, a category, and what nobody uses."""
    return pd.DataFrame(
        {
            "image": write_images(6),
            "age": [1.5, 2.0, np.nan, 4.0, 5.0, 6.0],
            "sex": ["f", "m"] * 3,
            "notes": [f"{row} " * 9 for row in range(6)],
            "y": [0, 1] * 3,
        }
    )


def test_of_a_csv_only_the_columns_asked_for_are_kept(frame, tmp_path):
    frame.to_csv(tmp_path / "rows.csv", index=False)
    assert name_columns(tmp_path / "rows.csv") == list(frame.columns)
    assert list(read_csv(tmp_path / "rows.csv", ["y", "age"])) == ["age", "y"]


def test_a_row_that_is_too_long_is_an_error_whatever_is_asked_for(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n3,4,5\n")
    with pytest.raises(ValueError, match="line 3, saw 3"):
        read_csv(tmp_path / "rows.csv", ["a"])


def test_long_tables_are_read_in_parts(monkeypatch, tmp_path):
    monkeypatch.setattr("kfusion.data.table_files._CHUNK_ROWS", 3)
    (tmp_path / "rows.csv").write_text("a;b\n" + "".join(f"{i},5;x{i}\n" for i in range(8)))
    read = read_csv(tmp_path / "rows.csv")
    assert read["a"].tolist() == [f"{i}.5" for i in range(8)]
    assert read.index.tolist() == list(range(8))


def test_names_that_are_unknown_are_told_beside_all_that_the_file_has(frame, tmp_path):
    frame.to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(ValueError, match=r"lacks the column\(s\) \['rage'\].*'notes'"):
        load_table(
            tmp_path / "rows.csv", image_column="image", target="y", tabular_columns=["rage"]
        )


def test_parquet_holds_what_the_csv_does(frame, tmp_path):
    pytest.importorskip("pyarrow")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    # With an index of its own, which is no column.
    frame.set_index(np.arange(6) * 2).to_parquet(tmp_path / "rows.parquet")
    columns = {"image_column": "image", "target": "y", "tabular_columns": ["age", "sex"]}
    csv, parquet = (
        load_table(tmp_path / name, **columns, verbose=0) for name in ("rows.csv", "rows.parquet")
    )
    np.testing.assert_array_equal(csv.images, parquet.images)
    np.testing.assert_array_equal(csv.x["tabular"], parquet.x["tabular"])
    assert (csv.y.tolist(), csv.column_kinds) == (parquet.y.tolist(), parquet.column_kinds)


def test_of_a_parquet_file_only_the_columns_asked_for_are_read(frame, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    frame.to_parquet(tmp_path / "rows.parquet")
    asked, read = [], parquet.read_table

    def noted(path, columns):
        asked.extend(columns)
        return read(path, columns=columns)

    monkeypatch.setattr(parquet, "read_table", noted)
    assert list(read_table(tmp_path / "rows.parquet", ["y", "age"])) == asked == ["age", "y"]


def test_parquet_files_that_cannot_be_read_are_named(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "rows.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match=r"rows\.parquet is not a Parquet file"):
        read_table(tmp_path / "rows.parquet")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_table(tmp_path / "gone.parquet")


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"pip install 'kfusion\[parquet\]'"):
        read_table(tmp_path / "rows.parquet")
