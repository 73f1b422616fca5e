"""From a CSV or frame whose rows name image files to checked data."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kfusion.data.images import BadImageError
from kfusion.data.loading import load_images, load_table
from kfusion.data.table_files import read_csv
from kfusion.data.tables import TableSchema


@pytest.fixture
def frame(write_images):
    """Ten rows with good images, a number, a category and a binary target."""
    return pd.DataFrame(
        {
            "image": write_images(10),
            "age": np.arange(10) + 0.5,
            "sex": ["f", "m"] * 5,
            "y": [0, 1] * 5,
        }
    )


@pytest.fixture
def load(tmp_path):
    """`load_table` of a frame with images in the test's folder."""

    def load(table, **arguments):
        roles = {"image_column": "image", "target": "y", "image_folder": tmp_path, "verbose": 0}
        return load_table(table, **{**roles, **arguments})

    return load


def write_csv(folder, content):
    path = folder / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_csv_gives_what_the_frame_gives(tmp_path, frame, load):
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    from_csv = load_table(path, image_column="image", target="y", verbose=0)
    from_frame = load(frame)
    np.testing.assert_array_equal(from_csv.images, from_frame.images)
    np.testing.assert_array_equal(from_csv.x["tabular"], from_frame.x["tabular"])
    np.testing.assert_array_equal(from_csv.y, frame["y"])
    assert from_csv.images[:, 0, 0, 0].tolist() == [20 + row for row in range(10)]
    assert from_csv.class_names == ("0", "1")


def test_the_frame_given_is_not_changed(frame, load):
    frame["age"] = frame["age"].astype(str)
    before = frame.copy()
    load(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_image_paths_start_at_the_image_folder_or_at_the_root(tmp_path, frame, load):
    frame["image"] = [f"../{tmp_path.name}/{name}" for name in frame["image"]]
    frame.loc[0, "image"] = str(tmp_path / "0.png")
    assert len(load(frame)) == 10


def test_relative_paths_of_a_frame_start_at_the_working_directory(tmp_path, frame, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(load_table(frame, image_column="image", target="y", verbose=0)) == 10


def test_every_bad_file_is_listed_by_row(tmp_path, frame, load):
    (tmp_path / "2.png").write_text("no image")
    (tmp_path / "5.png").unlink()
    frame.loc[7, "image"] = None
    with pytest.raises(BadImageError, match="3 of 10 images cannot be read") as raised:
        load(frame)
    assert [(bad.row, bad.reason) for bad in raised.value.bad_images] == [
        (2, "the file is not an image of a known kind"),
        (5, "the file does not exist"),
        (7, 'the table names no file; `on_missing_image="keep"` allows it'),
    ]


def test_rows_with_bad_images_are_dropped_where_asked_for(tmp_path, frame, load):
    (tmp_path / "2.png").unlink()
    frame["place"] = list("aabbccddee")
    with pytest.warns(UserWarning, match=r"Dropped 1 rows .* 1 of 10 .*\n  row 2: .*2.png"):
        data = load(frame, on_bad_image="drop", group_column="place")
    kept = [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert data.rows.tolist() == kept
    assert data.images[:, 0, 0, 0].tolist() == [20 + row for row in kept]
    assert data.frame["age"].tolist() == [row + 0.5 for row in kept]
    assert data.y.tolist() == [row % 2 for row in kept]
    assert len(np.unique(data.groups)) == 5
    # The rows left are a whole table again, whose schema comes from them.
    assert data.schema.numbers[0].center == np.median(np.array(kept) + 0.5)


def test_dropping_every_row_is_refused(frame, load):
    with pytest.raises(ValueError, match=r"No rows are left.\n10 of 10 images cannot be read"):
        load(frame.assign(image="gone.png"), on_bad_image="drop")


def test_dropping_every_row_of_a_class_is_refused(frame, load):
    frame.loc[frame["y"] == 1, "image"] = "gone.png"
    with (
        pytest.warns(UserWarning, match="Dropped 5 rows"),
        pytest.raises(ValueError, match=r"No rows of class\(es\) \['1'\] are left"),
    ):
        load(frame, on_bad_image="drop")


@pytest.mark.parametrize("url", ["https://example.org/a.png", "s3://bucket/a.png"])
def test_urls_are_refused_with_their_row(frame, load, url):
    frame.loc[[3, 4], "image"] = url
    message = f"URLs, e.g. '{url}' in row 3 (2 in all): download the images"
    with pytest.raises(ValueError, match=re.escape(message)):
        load(frame)


def test_images_alone_are_read_as_in_a_table(tmp_path, write_images):
    images, bad_images = load_images([*write_images(2), ""], image_folder=tmp_path, verbose=0)
    assert images[:, 0, 0, 0].tolist() == [20, 21, 0]
    assert [(bad.row, bad.path, bad.reason) for bad in bad_images] == [
        (2, "(empty)", "the table names no file")
    ]


@pytest.mark.parametrize(
    ("values", "kind", "class_names", "y"),
    [
        ([0, 1] * 5, "binary", ("0", "1"), [0, 1] * 5),
        ([7.0, 5.0] * 5, "binary", ("5", "7"), [1, 0] * 5),
        (["7", "5"] * 5, "binary", ("5", "7"), [1, 0] * 5),
        (["no", "yes"] * 5, "binary", ("no", "yes"), [0, 1] * 5),
        ([True, False] * 5, "binary", ("False", "True"), [1, 0] * 5),
        (["NA", "EU"] * 5, "binary", ("EU", "NA"), [1, 0] * 5),
        (pd.Categorical(["lo", "hi"] * 5, ["lo", "hi", "x"]), "binary", ("lo", "hi"), [0, 1] * 5),
        ([3, 1, 2, 3, 1, 2, 3, 1, 2, 1], "multiclass", ("1", "2", "3"), [2, 0, 1] * 3 + [0]),
        (
            [1, 2, 10, 9] * 2 + [1, 2],
            "multiclass",
            ("1", "2", "9", "10"),
            [0, 1, 3, 2] * 2 + [0, 1],
        ),
        ([0.5, 1.5] * 5, "regression", (), [0.5, 1.5] * 5),
        (["0.5", "1.5"] * 5, "regression", (), [0.5, 1.5] * 5),
    ],
)
def test_whole_numbers_and_texts_are_classes_and_other_numbers_a_regression(
    frame, load, values, kind, class_names, y
):
    data = load(frame.assign(y=values))
    assert (data.kind, data.class_names) == (kind, class_names)
    np.testing.assert_array_equal(data.y, np.float32(y))


@pytest.mark.parametrize(("count", "kind"), [(20, "multiclass"), (21, "regression")])
def test_more_than_20_whole_numbers_are_a_regression(write_images, load, count, kind):
    frame = pd.DataFrame({"image": write_images(42), "a": range(42), "y": np.arange(42) % count})
    assert load(frame).kind == kind


def test_the_kind_asked_for_is_taken(frame, load):
    assert load(frame, kind="regression").kind == "regression"
    assert load(frame.assign(y=[0.5, 1.5] * 5), kind="binary").class_names == ("0.5", "1.5")


@pytest.mark.parametrize(
    ("values", "arguments", "message"),
    [
        ([1.0, np.nan] * 5, {}, r"Target 'y' has no value in 5 row\(s\): \[1, 3, 5, 7, 9\]. Fill"),
        (["a", " "] * 5, {}, r"Target 'y' has no value in 5 row"),
        (["1", "2"] * 4 + ["3", "?"], {}, r"Target 'y' has no value in 1 row\(s\): \[9\]"),
        (["a", None] * 5, {}, r"Target 'y' has no value in 5 row"),
        ([1.0, np.inf] * 5, {}, r"`target y` is inf in row 1 \(5 in all\)"),
        ([1] * 10, {}, "Target 'y' has one class only .'1' in all 10 rows"),
        (["a"] * 10, {}, "Target 'y' has one class only"),
        ([0.5] * 10, {}, r"one class or value only \(0.5 in all 10 rows\)"),
        (["a", "b"] * 5, {"kind": "regression"}, "Target 'y' must hold numbers for a regression"),
        (["a", "b", "c", "a", "b"] * 2, {"kind": "binary"}, '"binary" task has 2 classes'),
        ([0, 1] * 5, {"kind": "ranking"}, "`kind` must be one of"),
    ],
)
def test_targets_that_cannot_be_learned_are_refused(frame, load, values, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(frame.assign(y=values), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "z"}, r"`target` names no column of the table: 'z'. It has: \['image', 'age'"),
        ({"image_column": "z"}, "`image_column` names no column of the table: 'z'"),
        ({"group_column": "z"}, "`group_column` names no column of the table: 'z'"),
        ({"group_column": "y"}, "must be different columns"),
        ({"tabular_columns": ["age", "y"]}, "Column 'y' cannot be both `target` and a feature"),
        ({"tabular_columns": {"image": None}}, "cannot be both `image_column` and a feature"),
        ({"tabular_columns": ["z"]}, r"lacks the column\(s\) \['z'\]"),
        ({"tabular_columns": ["age", "age"]}, r"more than once: \['age'\]"),
        ({"tabular_columns": []}, "no column to learn from"),
        ({"tabular_columns": {"sex": "number"}}, "Column 'sex' is a number but row 0 holds 'f'"),
        ({"on_bad_image": "skip"}, "`on_bad_image` must be .* Received: 'skip'"),
        ({"image_shape": (4, 4)}, r"must be \(height, width, channels\)"),
    ],
)
def test_roles_that_do_not_fit_the_table_are_refused(frame, load, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(frame, **arguments)


def test_one_name_is_no_list_of_columns(frame, load):
    with pytest.raises(TypeError, match=r"must be a list of names. Received: 'age'"):
        load(frame, tabular_columns="age")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"age": [np.inf, *range(9)]}, "Column 'age' holds an infinite number, .* row 0"),
        ({"age": [None] * 10}, r"column\(s\) \['age'\] have no value in any of the 10 rows"),
        ({"age": [["a", "list"]] * 10}, "Column 'age' holds lists"),
    ],
)
def test_columns_that_cannot_be_learned_are_refused(frame, load, columns, message):
    with pytest.raises(ValueError, match=message):
        load(frame.assign(**columns))


def test_a_table_without_rows_or_without_features_is_refused(frame, load):
    with pytest.raises(ValueError, match="The table has no rows"):
        load(frame[:0])
    with pytest.raises(ValueError, match="no column to learn from besides its image and target"):
        load(frame[["image", "y"]])


def test_groups_are_kept_out_of_the_features_and_whole_in_splits(frame, load):
    data = load(frame.assign(place=list("aabbccddee")), group_column="place")
    assert data.schema.names == ["age", "sex"]
    train, validation = data.split()
    assert not set(train.groups) & set(validation.groups)


@pytest.mark.parametrize("missing", [None, np.nan, ""])
def test_rows_without_a_group_are_refused(frame, load, missing):
    frame["place"] = [*"aabbccdd", missing, missing]
    with pytest.raises(ValueError, match=r"'place' has no value in row 8 \(2 in all\): give each"):
        load(frame, group_column="place")


def test_identifiers_are_left_out_with_a_warning_unless_named(write_images, load):
    frame = pd.DataFrame(
        {
            "image": write_images(30),
            "name": [f"n{i}" for i in range(30)],
            "a": 1.5,
            "y": [0, 1] * 15,
        }
    )
    with pytest.warns(UserWarning, match=r"Left out as identifiers, .*: \['name'\]"):
        assert load(frame).schema.names == ["a"]
    assert load(frame, tabular_columns=["name", "a"]).schema.names == ["name", "a"]


def test_columns_and_kinds_asked_for_are_taken(frame, load):
    data = load(frame.assign(stage=[1, 2] * 5), tabular_columns={"stage": "category", "age": None})
    assert data.schema.kinds == {"stage": "category", "age": "number"}


def test_long_codes_that_are_categories_are_not_rounded(frame, load):
    # 2**24 + 1 is no float32, 2**64 + 1 no float64.
    for code in (2**24, 2**64):
        codes = frame.assign(code=[str(code), str(code + 1)] * 5)
        data = load(codes, tabular_columns={"code": "category"})
        assert set(data.schema.categories[0].vocabulary) == {str(code), str(code + 1)}


def test_missing_values_of_a_csv_are_words_only_among_numbers(tmp_path, write_images):
    rows = zip(write_images(4), ["1", "NA", "", "4"], ["NA", "EU", "", "NA"], "abab", strict=True)
    path = write_csv(tmp_path, "image,n,c,y\n" + "\n".join(",".join(row) for row in rows))
    data = load_table(path, image_column="image", target="y", verbose=0)
    expected = [[1, 2], [np.nan, 3], [np.nan, 0], [4, 2]]
    np.testing.assert_array_equal(data.x["tabular"], expected)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_may_have_any_usual_delimiter(tmp_path, delimiter, encoding):
    content = f'größe{delimiter}b\n1{delimiter}"x{delimiter}y"\n'
    read = read_csv(write_csv(tmp_path, content.encode(encoding)))
    assert read.to_dict("list") == {"größe": ["1"], "b": [f"x{delimiter}y"]}


def test_a_csv_is_read_as_text_and_only_empty_fields_are_missing(tmp_path):
    read = read_csv(write_csv(tmp_path, "a,b\n007,NA\n,nan\n"))
    assert read.fillna("missing").to_dict("list") == {"a": ["007", "missing"], "b": ["NA", "nan"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b,a\n1,2,3\n", r"Column names must be unique. There more than once: \['a'\]"),
        ("a,b\n1,é\n".encode("latin-1"), "is not UTF-8 text .*: save it as UTF-8"),
        (b"a,b\n" + b"1,2\n" * 100_000 + b"1,\xe9\n", "is not UTF-8 text"),
        ("a,b\n1,2\n".encode("utf-16"), "is not UTF-8 text"),
        ("", "table.csv is empty"),
        ("\n\n", "table.csv is empty"),
        ("a,b\n1,2\n1,2,3\n", "is not a table that can be read: .* line 3"),
        ("a,b\n1,2,3\n1,2,3\n", "is not a table that can be read: .* loss of data"),
        ('a,b\n"1,2\n', "is not a table that can be read"),
    ],
)
def test_files_that_are_no_table_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_csv(write_csv(tmp_path, content))


def test_a_csv_that_is_missing_or_a_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.csv"):
        load_table(tmp_path / "gone.csv", image_column="image", target="y")
    with pytest.raises(ValueError, match="is a folder, not a CSV file"):
        load_table(tmp_path, image_column="image", target="y")


def test_a_csv_of_a_header_alone_has_no_rows(tmp_path):
    with pytest.raises(ValueError, match="The table has no rows"):
        load_table(write_csv(tmp_path, "image,y\n"), image_column="image", target="y")


def test_columns_of_a_frame_that_are_there_twice_are_refused(frame, load):
    with pytest.raises(ValueError, match=r"more than once: \['age'\]"):
        load(pd.concat([frame, frame[["age"]]], axis=1))


def test_names_that_are_no_text_are_refused(frame, load):
    with pytest.raises(TypeError, match=r"Column names must be strings. Received: 3"):
        load(frame.rename(columns={"age": 3}))


def test_a_saved_index_is_no_feature(tmp_path):
    pd.DataFrame({"a": [5, 6]}).to_csv(tmp_path / "rows.csv")
    with pytest.warns(UserWarning, match="a column without a name"):
        assert list(read_csv(tmp_path / "rows.csv")) == ["a"]


def test_a_semicolon_file_may_have_decimal_commas(tmp_path):
    (tmp_path / "rows.csv").write_text("size;note\n1,5;a,b\n-2;c\n")
    frame = read_csv(tmp_path / "rows.csv")
    assert frame["size"].tolist() == ["1.5", "-2"]
    assert frame["note"].tolist() == ["a,b", "c"]


def test_booleans_asked_for_as_categories_are_known_again_in_a_new_csv(tmp_path):
    frame = pd.DataFrame({"flag": ["True", "False", "NA", "True"]})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    loaded = pd.DataFrame({"flag": [1.0, 0.0, np.nan, 1.0]})
    schema = TableSchema.fit(loaded, {"flag": "category"})
    assert schema.encode(read_csv(tmp_path / "rows.csv")).tolist() == schema.encode(loaded).tolist()


def test_a_target_of_prices_with_a_sign_is_no_classes(tmp_path):
    frame = pd.DataFrame({"image": "x.png", "a": 1.0, "price": [f"€{i}.50" for i in range(40)]})
    with pytest.raises(ValueError, match="holds 40 different texts in 40 rows"):
        load_table(frame, image_column="image", target="price")


@pytest.mark.parametrize(
    ("texts", "warned"),
    [(["1,200", "900"], True), (["12%", "7.5%"], True), (["01234", "99999"], False)],
)
def test_numbers_that_are_read_as_text_are_named(tmp_path, texts, warned):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "x.png")
    frame = pd.DataFrame({"image": "x.png", "price": texts * 5, "y": ["a", "b"] * 5})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_table(frame, image_column="image", target="y", image_folder=tmp_path, verbose=0)
    named = [str(w.message) for w in caught if "look like numbers: ['price']" in str(w.message)]
    assert bool(named) == warned
