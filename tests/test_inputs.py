"""Inputs of models: picked by name, checked, converted."""

import numpy as np
import pandas as pd
import pytest

from kfusion.data.inputs import InputSpec, check_lengths, read_validation, select_inputs

IMAGE = InputSpec((None, None, 3), "uint8")
TABLE = InputSpec((2,), "float32")


def select_image(image):
    return select_inputs({"image": image}, {"image": IMAGE})["image"]


def test_each_input_gets_the_array_of_its_name_whatever_else_is_there():
    right, other = np.ones((4, 2), np.float32), np.zeros((4, 2), np.float32)
    for x in ({"a": other, "tabular": right}, {"tabular": right, "z": other}):
        assert select_inputs(x, {"tabular": TABLE}).keys() == {"tabular"}
        np.testing.assert_array_equal(select_inputs(x, {"tabular": TABLE})["tabular"], right)


def test_inputs_come_in_the_order_of_the_model():
    x = {"tabular": np.zeros((1, 2)), "image": np.zeros((1, 4, 4, 3), np.uint8)}
    assert list(select_inputs(x, {"image": IMAGE, "tabular": TABLE})) == ["image", "tabular"]


def test_missing_values_of_a_table_pass_and_become_float32():
    selected = select_inputs({"tabular": [[1, np.nan]]}, {"tabular": TABLE})["tabular"]
    assert selected.dtype == np.float32
    np.testing.assert_array_equal(selected, [[1, np.nan]])


def test_images_of_any_size_pass_where_the_model_takes_any():
    assert select_image(np.zeros((2, 5, 7, 3), np.uint8)).shape == (2, 5, 7, 3)


def test_floating_point_images_in_0_to_255_are_rounded():
    image = np.array([0, 0.4, 254.6]).reshape(1, 1, 1, 3)
    rounded = select_image(image)
    assert rounded.dtype == np.uint8
    assert rounded.ravel().tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.full((1, 2, 2, 3), 0.5, np.float32),
            r"uint8 in 0-255 but lies in 0-1 \(float32\): pass",
        ),
        (np.full((1, 2, 2, 3), 256), "lie in 0-255. Received: values from 256 to 256"),
        (np.full((1, 2, 2, 3), -0.5), "lie in 0-255. Received: values from -0.5"),
        (np.full((1, 2, 2, 3), np.nan), "lie in 0-255. Received: values from nan"),
        (np.zeros((1, 2, 2, 1)), r"shape \(rows, any, any, 3\). Received: \(1, 2, 2, 1\)"),
        (np.zeros((2, 2, 3)), r"shape \(rows, any, any, 3\). Received: \(2, 2, 3\)"),
    ],
)
def test_images_that_do_not_fit_are_refused_by_name(image, message):
    with pytest.raises(ValueError, match=rf"`x\['image'\]` must .*{message}"):
        select_image(image)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros((1, 3)), r"must have shape \(rows, 2\). Received: \(1, 3\)"),
        (np.zeros(2), r"must have shape \(rows, 2\). Received: \(2,\)"),
        ([["a", "b"]], "must hold numbers. Received: dtype=<U1"),
        (pd.DataFrame({"a": [1], "b": [2]}), r"is a DataFrame; encode it first: `schema.encode"),
        ([[1, 2], [3, np.inf]], r"infinite number, .* row 1, position \(1,\) \(1 in all\)"),
        ([[1, 1e300]], r"too large for float32, at row 0, position \(1,\)"),
        ([[1, 2], [3]], "its rows differ in length"),
        (5, "must be an array with one entry per row. Received a scalar"),
        (np.zeros((0, 2)), "There are no rows"),
    ],
)
def test_tables_that_do_not_fit_are_refused_by_name(table, message):
    with pytest.raises(ValueError, match=message) as raised:
        select_inputs({"tabular": table}, {"tabular": TABLE})
    assert "x['tabular']" in str(raised.value)


def test_a_missing_input_is_named():
    with pytest.raises(
        ValueError, match=r"`x` lacks the input\(s\) \['tabular'\]. It has: \['b'\]"
    ):
        select_inputs({"b": np.zeros((1, 2))}, {"tabular": TABLE})


def test_unequal_lengths_are_named_even_of_inputs_that_the_model_does_not_use():
    x = {"tabular": np.zeros((3, 2)), "other": np.zeros(2)}
    with pytest.raises(ValueError, match=r"same number of rows: x\['tabular'\] has 3, .* has 2"):
        select_inputs(x, {"tabular": TABLE})


def test_inputs_by_position_are_refused():
    with pytest.raises(TypeError, match=r"`images` must be a dict .*\['tabular'\]. Received: list"):
        select_inputs([np.zeros((1, 2))], {"tabular": TABLE}, name="images")


def test_the_common_number_of_rows_is_returned():
    assert check_lengths({"a": [1, 2, 3], "b": np.zeros((3, 4))}) == 3


def test_keys_that_only_training_or_validation_has_are_named():
    judging = {"b": 3, "a": 4}
    assert read_validation({"a": 1, "b": 2}, (judging, 5)) == (judging, 5)
    with pytest.raises(ValueError, match=r"Only one of them has: \['a', 'c'\]"):
        read_validation({"a": 1, "b": 2}, ({"b": 3, "c": 4}, 5))
