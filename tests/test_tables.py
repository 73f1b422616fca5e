"""Table schemas: kinds of columns, their encoding, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest

from kfusion.data.column_values import category_text, infer_kind, is_identifier
from kfusion.data.tables import TableSchema


def encode_one(values, kind=None, **arguments):
    """Fits one column and encodes it again."""
    frame = pd.DataFrame({"c": values})
    return TableSchema.fit(frame, {"c": kind}, **arguments).encode(frame)[:, 0].tolist()


def vocabulary(values, kind=None, **arguments):
    schema = TableSchema.fit(pd.DataFrame({"c": values}), {"c": kind}, **arguments)
    return schema.categories[0].vocabulary


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1.5, 2.0, None], "number"),
        ([1, 2, 1, 2], "number"),
        (pd.array([1, None, 3], dtype="Int64"), "number"),
        (["1", "2.5", "-3e2", ".5", "4."], "number"),
        (["1", "NA", "?", " ", "n/a", "7"], "number"),
        (["1", "2", "inf"], "number"),
        ([True, False], "boolean"),
        ([True, None, False], "boolean"),
        (pd.array([True, None], dtype="boolean"), "boolean"),
        (["true", "False", "NA"], "boolean"),
        (pd.to_datetime(["2020-01-01", None]), "date"),
        (pd.to_datetime(["2020-01-01"]).tz_localize("Europe/Berlin"), "date"),
        (["2020-01-31", "2020-02-01T12:30", "2020-02-01 12:30:59.5Z", "?"], "date"),
        (["31.01.2020"], "category"),
        (["red", "blue"], "category"),
        (["1", "two"], "category"),
        (["EU", "NA", "AS"], "category"),
        (["01067", "10115"], "category"),
        (["1_000"], "category"),
        (pd.Categorical([1, 2, 1]), "category"),
        ([None, None], "category"),
    ],
)
def test_kinds_are_inferred_from_what_a_person_would_read(values, kind):
    assert infer_kind(pd.Series(values, name="c")) == kind


def test_integers_with_few_values_become_categories_when_asked_for():
    frame = pd.DataFrame({"stage": [3, 1, 3], "grade": pd.Categorical([7, 7, 8])})
    assert TableSchema.fit(frame).kinds == {"stage": "number", "grade": "category"}
    assert TableSchema.fit(frame, {"stage": "category"}).kinds == {"stage": "category"}


def test_north_america_is_a_category_and_not_a_missing_value():
    assert encode_one(["NA", "EU", "NA", None]) == [2, 3, 2, 0]


def test_words_for_missing_are_missing_among_numbers():
    assert encode_one(["4", "NA", "?", "", "-"]) == pytest.approx(
        [4, np.nan, np.nan, np.nan, np.nan], nan_ok=True
    )


def test_the_matrix_holds_numbers_first_and_category_codes_last():
    train = pd.DataFrame({"colour": ["b", "a", "b", None], "age": [1.0, None, 3.0, 4.0]})
    schema = TableSchema.fit(train)
    new = pd.DataFrame({"age": [9.0, None, 7.0, 8.0], "colour": ["a", "b", None, "purple"]})
    encoded = schema.encode(new)
    assert encoded.dtype == np.float32
    # b is most frequent: code 2, then a: 3; missing 0; unseen 1.
    np.testing.assert_array_equal(encoded, [[9, 3], [np.nan, 2], [7, 0], [8, 1]])


def test_equally_frequent_categories_are_in_alphabetical_order():
    assert vocabulary(["z", "m", "a", "m", "z", "a", "k", "k", "k"]) == ("k", "a", "m", "z")


def test_blanks_around_a_text_do_not_make_another_category():
    assert encode_one([" red", "red ", "red", "blue"]) == [2, 2, 2, 3]


def test_a_number_category_is_the_same_as_integer_float_and_text():
    schema = TableSchema.fit(pd.DataFrame({"c": [3, 3, 5]}), {"c": "category"})
    for same in ([3, 5, 9], [3.0, 5.0, 9.0], ["3", "5.0", "x"]):
        assert schema.encode(pd.DataFrame({"c": same}))[:, 0].tolist() == [2, 3, 1]


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (3.0, "3"), (0.5, "0.5"), (True, "1"), (" a ", "a"), ("", None), (np.nan, None)],
)
def test_a_category_is_spelled_in_one_way(value, text):
    assert category_text(value) == text


def test_only_the_most_frequent_categories_keep_a_code_under_a_cap():
    values = ["a"] * 3 + ["b"] * 2 + ["c"]
    assert encode_one(values, max_categories=2) == [2, 2, 2, 3, 3, 1]


def test_categories_seen_once_share_the_unseen_code_where_there_are_many():
    values = [*(f"once {i}" for i in range(19)), "twice", "twice", "thrice", "thrice", "thrice"]
    assert vocabulary(values) == ("thrice", "twice")
    assert encode_one(values) == [1] * 19 + [3, 3, 2, 2, 2]


def test_categories_seen_once_keep_their_code_where_there_are_few():
    values = [f"{i:02d}x" for i in range(20)]
    assert encode_one(values) == list(range(2, 22))


@pytest.mark.parametrize("values", [[1.0, 2.0], ["a", "b"], [True, False]])
def test_one_column_makes_a_matrix_of_one_column(values):
    frame = pd.DataFrame({"only": values})
    schema = TableSchema.fit(frame)
    assert schema.encode(frame).shape == (2, schema.num_columns) == (2, 1)


def test_a_table_of_texts_alone_becomes_codes_alone():
    frame = pd.DataFrame({"a": ["x", "y", "x"], "b": ["u", None, "v"]})
    schema = TableSchema.fit(frame)
    assert schema.numbers == []
    assert schema.encode(frame).tolist() == [[2, 2], [3, 0], [2, 3]]


def test_dates_become_days_since_1970():
    dates = ["1970-01-02", "1969-12-31", "1970-01-01T06:00", "2000-03-01T00:00:00Z", ""]
    # 2000-03-01: 30 years of 365 days, 7 leap days before 2000, 31 + 29 days of 2000.
    expected = [1, -1, 0.25, 30 * 365 + 7 + 31 + 29, np.nan]
    assert encode_one(dates) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    "dates",
    [
        pd.to_datetime(["1970-01-02", None]),
        pd.to_datetime(["1970-01-02", None]).tz_localize("UTC"),
        pd.to_datetime(["1970-01-01 19:00", None]).tz_localize("America/New_York"),
    ],
)
def test_datetimes_become_days_in_utc(dates):
    assert encode_one(dates) == pytest.approx([1, np.nan], nan_ok=True)


def test_dates_that_stand_for_never_are_read():
    days = (np.datetime64("9999-12-31", "D") - np.datetime64("1970-01-01", "D")).astype(int)
    assert encode_one(["9999-12-31", "1970-01-01"]) == [days, 0]


def test_booleans_become_one_zero_and_missing():
    assert encode_one([True, None, False]) == pytest.approx([1, np.nan, 0], nan_ok=True)
    assert encode_one(["true", "NA", "FALSE"]) == pytest.approx([1, np.nan, 0], nan_ok=True)


def test_the_scale_is_the_median_and_the_interquartile_range_of_the_rows_given():
    values = np.random.default_rng(0).normal(size=101).astype(np.float32)
    column = TableSchema.fit(pd.DataFrame({"c": values})).numbers[0]
    series = pd.Series(values.astype(float))
    assert column.center == pytest.approx(series.median())
    assert column.spread == pytest.approx(series.quantile(0.75) - series.quantile(0.25))


def test_quantiles_are_the_percentiles_of_the_rows_given():
    values = np.random.default_rng(0).lognormal(size=500).astype(np.float32)
    frame = pd.DataFrame({"c": np.append(values, [np.nan] * 20)})
    quantiles = TableSchema.fit(frame).numbers[0].quantiles
    np.testing.assert_allclose(quantiles, np.percentile(values, range(101)), rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "quantiles"),
    [
        ([3.0, None, 1.0, 0.1], (0.1, 1, 3)),
        (["2020-01-02", "1970-01-01"], (0, 18263)),
        ([True, False, True], (0, 1, 1)),
        ([7, 7], (7, 7)),
    ],
)
def test_a_few_values_are_their_own_quantiles(values, quantiles):
    assert TableSchema.fit(pd.DataFrame({"c": values})).numbers[0].quantiles == quantiles


def test_rows_not_given_change_nothing():
    frame = pd.DataFrame({"n": [1.0, 2, 3, 1e6], "c": ["a", "a", "b", "only there"]})
    schema = TableSchema.fit(frame.iloc[:3])
    assert schema.numbers[0].center == 2
    assert schema.numbers[0].quantiles == (1, 2, 3)
    assert schema.categories[0].vocabulary == ("a", "b")
    assert schema.encode(frame.iloc[3:]).tolist() == [[1e6, 1]]


@pytest.mark.parametrize(
    ("values", "center", "spread"), [([5.0] * 4, 5, 0), ([0.0] * 9 + [6.0], 0, 3)]
)
def test_a_column_that_is_constant_or_nearly_so_gets_half_its_range(values, center, spread):
    column = TableSchema.fit(pd.DataFrame({"c": values})).numbers[0]
    assert (column.center, column.spread) == (center, spread)


@pytest.mark.parametrize("values", [[1.0, 2.0], ["a", "b"]])
def test_a_column_with_most_values_missing_keeps_what_it_has(values):
    frame = pd.DataFrame({"c": pd.Series([*values, None, None, None])})
    schema = TableSchema.fit(frame)
    assert schema.columns[0].missing_rate == pytest.approx(0.6)
    assert schema.encode(frame)[:2, 0].tolist() in ([1, 2], [2, 3])


def test_the_frame_index_plays_no_part():
    frame = pd.DataFrame({"n": ["1", "?", "3"], "c": ["x", "y", "x"], "d": ["2020-01-01"] * 3})
    schema = TableSchema.fit(frame)
    shuffled = frame.set_index(pd.Index([7, 7, 7]))
    np.testing.assert_array_equal(schema.encode(shuffled), schema.encode(frame))


def test_a_schema_read_from_its_json_encodes_alike():
    frame = pd.DataFrame(
        {
            "größe": [1.5, None, 3.0],
            "d": ["2020-01-01", "2021-01-01", ""],
            "b": [True, False, True],
            "c": ["ä", "b", None],
            "s": pd.Categorical([4, 4, 5]),
        }
    )
    schema = TableSchema.fit(frame)
    again = TableSchema.from_json(schema.to_json())
    assert again == schema
    np.testing.assert_array_equal(again.encode(frame), schema.encode(frame))


def test_a_schema_written_before_there_were_quantiles_encodes_as_it_did():
    frame = pd.DataFrame({"n": [1.5, None, 3.0], "c": ["ä", "b", None]})
    schema = TableSchema.fit(frame)
    content = json.loads(schema.to_json())
    del content["columns"][0]["quantiles"]
    old = TableSchema.from_json(json.dumps({**content, "format": 1}))
    assert old.numbers[0].quantiles == ()
    np.testing.assert_array_equal(old.encode(frame), schema.encode(frame))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "5",
        "{}",
        json.dumps({"format": 99, "columns": []}),
        json.dumps({"format": 1, "columns": [{"kind": "number"}]}),
        json.dumps({"format": 1, "columns": ["age"]}),
    ],
)
def test_text_that_is_no_schema_is_refused(text):
    with pytest.raises(ValueError, match="not a table schema written by kfusion"):
        TableSchema.from_json(text)


def test_columns_to_use_are_those_named_and_in_that_order():
    frame = pd.DataFrame({"a": [1, 2], "b": [3, 4], "c": [5, 6]})
    schema = TableSchema.fit(frame, ["c", "a"])
    assert schema.names == ["c", "a"]
    assert schema.encode(frame).tolist() == [[5, 1], [6, 2]]


def test_a_column_without_values_is_refused_unless_allowed():
    frame = pd.DataFrame({"a": [1, 2], "empty": [None, None], "nan": [np.nan, np.nan]})
    with pytest.raises(ValueError, match=r"\['empty', 'nan'\] have no value in any of the 2 rows"):
        TableSchema.fit(frame)
    encoded = TableSchema.fit(frame, allow_empty=True).encode(frame)
    np.testing.assert_array_equal(encoded, [[1, np.nan, 0], [2, np.nan, 0]])


NUMBERS = pd.DataFrame({"a": [1.0, 2.0]})


@pytest.mark.parametrize(
    ("frame", "columns", "error", "message"),
    [
        ([1, 2], None, TypeError, "must be a pandas DataFrame. Received: list"),
        (pd.DataFrame({3: [1]}), None, TypeError, "must be strings. Received: 3; set"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), None, ValueError, r"more than once: \['a'\]"),
        (NUMBERS, ["b"], ValueError, r"lacks the column\(s\) \['b'\]. It has: \['a'\]"),
        (NUMBERS, ["a", "a"], ValueError, r"more than once: \['a'\]"),
        (NUMBERS, "a", TypeError, "`columns` must be a list of names. Received: columns='a'"),
        (NUMBERS, {"a": "words"}, ValueError, "Column 'a' must be one of .* kind='words'"),
        (NUMBERS, [], ValueError, "needs at least one column"),
        (NUMBERS[:0], None, ValueError, "the frame has none"),
        (pd.DataFrame({"a": [1, np.inf, np.inf]}), None, ValueError, r"'a' .* row 1 \(2 in all\)"),
        (pd.DataFrame({"a": ["1", "-inf"]}), None, ValueError, "'a' holds an infinite .* row 1"),
        (pd.DataFrame({"a": [1, 1e300]}), None, ValueError, "'a' .*too large for float32, in row"),
        (pd.DataFrame({"a": [[1], [2]]}), None, ValueError, "'a' holds lists or other collections"),
        (pd.DataFrame({"a": [1j]}), None, ValueError, "'a' has dtype complex128"),
        (pd.DataFrame({"a": ["2020-13-01"]}), None, ValueError, "'a' is a date but row 0 holds"),
        (NUMBERS, {"a": "boolean"}, ValueError, "'a' is a boolean but row 1 holds"),
        (NUMBERS, {"a": "date"}, ValueError, "'a' is a date in the schema but holds numbers"),
        (
            pd.DataFrame({"a": [2**24, 2**24 + 1]}),
            {"a": "category"},
            ValueError,
            "'a' has categories that are numbers too long",
        ),
    ],
)
def test_a_table_that_cannot_be_learned_is_refused_by_name(frame, columns, error, message):
    with pytest.raises(error, match=message):
        TableSchema.fit(frame, columns)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ({"n": [1, 2], "d": ["2020-01-01"] * 2}, r"lacks the column\(s\) \['b'\]"),
        ({"n": [1, "many"]}, r"Column 'n' is a number but row 1 holds 'many' \(1 such rows\)"),
        (
            {"n": pd.to_datetime(["2020-01-01"] * 2)},
            "'n' is a number in the schema but holds dates",
        ),
        ({"n": [1, np.inf]}, "'n' holds an infinite number, .* row 1"),
        ({"b": [1, 2]}, "'b' is a boolean but row 1 holds"),
        ({"d": ["2020-01-01", "soon"]}, "'d' is a date but row 1 holds 'soon'"),
        ({"d": [1, 2]}, "'d' is a date in the schema but holds numbers"),
    ],
)
def test_new_rows_that_do_not_fit_the_schema_are_refused_by_column_and_row(new, message):
    good = {"n": [1, 2], "b": [True, False], "d": ["2020-01-01"] * 2}
    schema = TableSchema.fit(pd.DataFrame(good))
    if "lacks" not in message:
        new = {**good, **new}
    with pytest.raises(ValueError, match=message):
        schema.encode(pd.DataFrame(new))


@pytest.mark.parametrize(
    ("values", "identifies"),
    [
        ([f"patient {i}" for i in range(30)], True),
        ([f"patient {i}" for i in range(20)], False),
        ([f"town {i % 22}" for i in range(40)], False),
        ([*(f"patient {i}" for i in range(30)), None, None], True),
    ],
)
def test_texts_that_nearly_all_differ_name_their_rows(values, identifies):
    assert is_identifier(pd.Series(values)) is identifies


@pytest.mark.parametrize("text", ["03/04/2020", "now", "20200501"])
def test_dates_whose_order_would_be_guessed_are_refused(text):
    schema = TableSchema.fit(pd.DataFrame({"d": ["2020-01-01", "2020-02-01"]}))
    with pytest.raises(ValueError, match="'d' is a date but row 0 holds .*ISO 8601"):
        schema.encode(pd.DataFrame({"d": [text]}))


def test_a_category_that_is_a_number_is_the_same_in_single_and_double_precision():
    schema = TableSchema.fit(pd.DataFrame({"c": [0.1, 0.3, 0.1]}), {"c": "category"})
    single = pd.DataFrame({"c": np.array([0.1, 0.3], np.float32)})
    assert schema.encode(single).ravel().tolist() == [2, 3]
