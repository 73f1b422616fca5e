"""Rows with an image, a table and a target: parts, splits and where the schema comes from."""

import numpy as np
import pandas as pd
import pytest

from kfusion.data.fusion_data import FusionData
from kfusion.data.tables import TableSchema


def make_data(y, *, kind="binary", groups=None, frame=None):
    y = np.asarray(y)
    rows = np.arange(len(y))
    num_classes = 0 if kind == "regression" else int(y.max()) + 1
    return FusionData(
        images=(rows % 256).astype(np.uint8).reshape(-1, 1, 1, 1),
        frame=pd.DataFrame({"row": rows}) if frame is None else frame,
        y=y,
        kind=kind,
        class_names=tuple("abcdefgh"[:num_classes]),
        groups=None if groups is None else np.asarray(groups),
    )


def assert_parts_of(data, parts):
    """Every row is in exactly one part, with its own image, table row, target and group."""
    rows = np.concatenate([part.rows for part in parts])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(data)))
    for part in parts:
        np.testing.assert_array_equal(part.images, data.images[part.rows])
        np.testing.assert_array_equal(part.frame["row"], data.frame["row"].to_numpy()[part.rows])
        np.testing.assert_array_equal(part.y, data.y[part.rows])
        if data.groups is not None:
            np.testing.assert_array_equal(part.groups, data.groups[part.rows])


@pytest.mark.parametrize(
    "rows",
    [slice(1, 4), [3, 1, 2], np.array([0, 5]), np.arange(6) % 2 == 0, [True] * 3 + [False] * 3],
)
def test_a_part_keeps_each_row_together(rows):
    data = make_data([0, 1, 0, 1, 0, 1], groups=[5, 6, 7, 8, 9, 10])
    part = data[rows]
    expected = np.arange(6)[rows]
    assert_parts_of(data, [part, data[np.setdiff1d(np.arange(6), expected)]])
    np.testing.assert_array_equal(part.rows, expected)


def test_rows_of_a_part_of_a_part_count_from_the_whole_table():
    assert make_data([0, 1] * 5)[4:][1:3].rows.tolist() == [5, 6]


def test_one_row_by_number_is_refused():
    with pytest.raises(TypeError, match=r"must be a slice, positions or a mask. Received: 3"):
        make_data([0, 1] * 5)[3]


@pytest.mark.parametrize("groups", [None, np.arange(200) // 4], ids=["rows", "groups"])
@pytest.mark.parametrize(
    ("kind", "y"),
    [
        ("binary", np.random.default_rng(0).random(200) < 0.3),
        ("multiclass", np.random.default_rng(0).integers(3, size=200)),
        ("regression", np.random.default_rng(0).normal(size=200)),
    ],
)
def test_a_split_takes_all_rows_apart_in_about_the_fractions_asked_for(kind, y, groups):
    data = make_data(y, kind=kind, groups=groups)
    parts = data.split(0.2, test=0.2)
    assert_parts_of(data, parts)
    assert [len(part) / 200 for part in parts] == pytest.approx([0.6, 0.2, 0.2], abs=0.03)


@pytest.mark.parametrize("kind", ["binary", "regression"])
@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_in_two_parts(kind, seed):
    random = np.random.default_rng(seed)
    data = make_data(random.integers(2, size=90), kind=kind, groups=random.integers(15, size=90))
    parts = data.split(0.2, test=0.2, seed=seed)
    groups = [set(part.groups) for part in parts]
    assert all(groups)
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_classes_keep_their_shares():
    train, validation = make_data([0] * 50 + [1] * 30 + [2] * 20, kind="multiclass").split(0.2)
    assert np.bincount(train.y).tolist() == [40, 24, 16]
    assert np.bincount(validation.y).tolist() == [10, 6, 4]


@pytest.mark.parametrize("seed", range(10))
def test_every_class_is_among_the_training_rows(seed):
    data = make_data([0] * 20 + [1] * 2, groups=[*range(20), 20, 21])
    assert set(data.split(0.3, seed=seed)[0].y) == {0, 1}


def test_a_class_of_one_row_is_trained_on():
    train, validation = make_data([0] * 20 + [1]).split(0.2)
    assert 1 in train.y
    assert 1 not in validation.y


def test_few_rows_of_each_class_make_fewer_parts_rather_than_an_error():
    train, validation = make_data([0, 1] * 3, groups=range(6)).split(0.2)
    assert set(train.y) == set(validation.y) == {0, 1}


def test_the_same_seed_splits_alike_and_another_does_not():
    data = make_data([0, 1] * 50)
    rows = [data.split(seed=seed)[1].rows.tolist() for seed in (3, 3, 4)]
    assert rows[0] == rows[1] != rows[2]


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        (make_data([0, 1] * 5), {"validation": 0}, r"`validation` must lie in \(0, 0.5\]. .*: 0"),
        (make_data([0, 1] * 5), {"validation": 0.6}, r"`validation` must lie in .* 0.6"),
        (make_data([0, 1] * 5), {"validation": np.nan}, r"`validation` must lie in .* nan"),
        (make_data([0, 1] * 5), {"test": -0.1}, r"`test` must lie in .* -0.1"),
        (make_data([0, 1] * 5), {"validation": 0.5, "test": 0.5}, "leave no training rows"),
        (make_data([0, 1]), {}, "5 parts cannot be made of 2 rows"),
        (make_data([0, 1] * 5, groups=[0, 1] * 5), {}, "5 parts cannot be made of 2 groups"),
        (make_data([0, 1, 2, 3, 4, 5], kind="multiclass"), {}, "No split leaves every class"),
        (
            make_data([0] * 5 + [1] * 5, groups=[0] * 5 + [1] * 5),
            {"validation": 0.5},
            r"No split leaves every class among .* \['a', 'b'\] in 2 groups",
        ),
    ],
)
def test_splits_that_cannot_be_are_refused(data, arguments, message):
    with pytest.raises(ValueError, match=message):
        data.split(**arguments)


def test_the_schema_is_learned_from_the_training_rows_alone():
    y = np.array([0, 1] * 20)
    rows = make_data(y).split()[1].rows
    colours = np.array(["seen"] * 40, object)
    colours[rows] = "held out"
    sizes = np.ones(40)
    sizes[rows] = 1e6
    data = make_data(y, frame=pd.DataFrame({"row": range(40), "size": sizes, "colour": colours}))
    data.x  # noqa: B018  A schema of all rows, that must not reach the parts.
    train, validation = data.split()
    assert train.schema.categories[0].vocabulary == ("seen",)
    assert [column.center for column in train.schema.numbers][1] == 1
    # Code 1 is that of categories unseen in training.
    assert validation.x["tabular"][:, 2].tolist() == [1] * len(rows)
    assert validation.schema == train.schema


def test_a_part_has_no_schema_until_it_is_said_which():
    data = make_data([0, 1] * 5)
    assert data.schema.numbers[0].center == 4.5
    with pytest.raises(RuntimeError, match=r"a part of a table and have no schema yet.*split\(\)"):
        data[:4].x  # noqa: B018
    train = data[:4].with_schema()
    assert train.schema.numbers[0].center == 1.5
    assert data[4:].with_schema(train.schema).schema is train.schema


def test_parts_of_training_rows_keep_their_schema():
    train, _ = make_data([0, 1] * 20).split()
    assert train[:5].schema is train.schema


def test_a_column_that_a_part_lacks_is_missing_there_and_no_error():
    frame = pd.DataFrame({"row": range(20), "rare": [1.0, 2.0] + [np.nan] * 18})
    data = make_data([0, 1] * 10, frame=frame)
    assert np.isnan(data[2:].with_schema().x["tabular"][:, 1]).all()


def test_the_kinds_of_columns_of_the_whole_table_hold_for_its_parts():
    frame = pd.DataFrame({"row": range(20), "code": ["x", "y"] + ["7"] * 18})
    data = make_data([0, 1] * 10, frame=frame)
    kinds = TableSchema.fit(frame).kinds
    data = FusionData(data.images, frame, data.y, "binary", ("a", "b"), column_kinds=kinds)
    assert data[2:].with_schema().schema.kinds["code"] == "category"


def test_the_task_knows_the_class_rates_of_the_rows():
    task = make_data([0, 0, 0, 1]).task
    assert (task.kind, task.class_names, task.class_rates) == ("binary", ("a", "b"), (0.75, 0.25))


def test_the_inputs_are_images_and_the_encoded_table():
    data = make_data([0, 1, 0, 1])
    assert data.x.keys() == {"image", "tabular"}
    assert data.x["image"] is data.images
    np.testing.assert_array_equal(data.x["tabular"], [[0], [1], [2], [3]])
    assert data.image_shape == (1, 1, 1)


def test_unequal_numbers_of_rows_are_refused():
    with pytest.raises(ValueError, match="same number of rows: image has 3, frame has 2, y has 3"):
        make_data([0, 1, 1], frame=pd.DataFrame({"row": [1, 2]}))
