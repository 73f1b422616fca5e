"""Rows taken out of, and put together from, whatever a model is given."""

import numpy as np
import pandas as pd
import pytest

from kfusion.data.rows import join_rows, take_rows

ARRAY = np.arange(12).reshape(6, 2)
FRAME = pd.DataFrame({"a": [5, 6, 7, 8, 9, 10], "b": list("uvwxyz")})


def listed(x):
    if isinstance(x, dict):
        return {name: listed(part) for name, part in x.items()}
    if isinstance(x, list):
        return [listed(part) for part in x]
    return x.to_dict("list") if isinstance(x, pd.DataFrame) else x.tolist()


@pytest.mark.parametrize(
    "x", [ARRAY, FRAME, FRAME["a"], {"image": ARRAY, "table": FRAME}, [ARRAY, ARRAY[:, 0]]]
)
def test_parts_joined_are_the_whole(x):
    first, last = take_rows(x, np.arange(4)), take_rows(x, np.array([4, 5]))
    assert listed(join_rows(first, last)) == listed(x)


def test_a_list_of_numbers_has_rows():
    assert take_rows([3, 4, 5], np.array([2, 0])).tolist() == [5, 3]
    assert join_rows([3, 4], [5]).tolist() == [3, 4, 5]


def test_a_frame_counts_its_rows_anew():
    assert take_rows(FRAME, np.array([5, 1])).loc[1, "b"] == "v"
