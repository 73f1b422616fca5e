"""Rows that a fusion corrects or breaks, against rows worked by hand and scikit-learn's scores."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from kfusion.evidence.disagreements import which_rows
from kfusion.tasks import task

Y = [1, 0, 1, 0, 1]
FUSED = np.array([0.9, 0.6, 0.7, 0.2, 0.5])
SINGLE = np.array([0.4, 0.1, 0.6, 0.2, 0.9])
RANDOM = np.random.default_rng(0)


def test_rows_worked_by_hand():
    found = which_rows(Y, FUSED, SINGLE)
    # Changes of the true class' probability: +0.5, -0.5, +0.1, 0 and -0.4; 0.5 is called class 0.
    assert found["row"].tolist() == [0, 1, 4, 2]
    assert found["change"].to_numpy() == pytest.approx([0.5, -0.5, -0.4, 0.1])
    assert found["corrected"].tolist() == [True, False, False, False]
    assert found["broken"].tolist() == [False, True, True, False]
    assert found["y"].tolist() == ["1", "0", "1", "1"]
    assert found["fused"].tolist() == ["1", "1", "0", "1"]
    assert found["single"].tolist() == ["0", "0", "1", "1"]
    assert found["fused_probability"].to_numpy() == pytest.approx([0.9, 0.4, 0.5, 0.7])
    assert found["single_probability"].to_numpy() == pytest.approx([0.4, 0.9, 0.9, 0.6])


def test_a_regressions_rows_worked_by_hand():
    found = which_rows([1.0, 2.5, 7.0], [1.5, 2.5, 4.0], [3.0, 2.0, 6.0], task="regression")
    # Squared errors: 0.25 after 4, 0 after 0.25, 9 after 1.
    assert found["row"].tolist() == [2, 0, 1]
    assert found["change"].tolist() == [-8, 3.75, 0.25]
    assert found["fused_error"].tolist() == [9, 0.25, 0]
    assert found["single_error"].tolist() == [1, 4, 0.25]
    assert found["corrected"].tolist() == [False, True, True]
    assert found["broken"].tolist() == [True, False, False]
    assert found["single"].tolist() == [6, 3, 2]


def test_corrected_less_broken_rows_are_the_difference_in_accuracy():
    y = RANDOM.integers(3, size=300)
    fused, single = RANDOM.dirichlet(np.ones(3), size=(2, 300))
    found = which_rows(y, fused, single, num_rows=None)
    expected = accuracy_score(y, fused.argmax(1)) - accuracy_score(y, single.argmax(1))
    assert (found["corrected"].sum() - found["broken"].sum()) / 300 == pytest.approx(expected)
    assert not (found["corrected"] & found["broken"]).any()


def test_both_directions_get_their_share_of_rows():
    y = np.zeros(200, int)
    fused = np.concatenate([np.full(150, 0.1), np.full(50, 0.5)])
    single = np.concatenate([np.linspace(0.9, 0.2, 150), np.linspace(0.45, 0.4, 50)])
    found = which_rows(y, fused, single, task="binary", num_rows=3)
    assert found["row"].tolist() == [0, 1, 2, 199, 198, 197]
    assert len(which_rows(y, fused, single, task="binary", num_rows=None)) == 200


def test_all_forms_of_predictions_are_taken():
    columns = np.stack([1 - FUSED, FUSED], axis=1)
    flat = which_rows(Y, FUSED, SINGLE)
    assert which_rows(Y, FUSED[:, None], SINGLE).equals(flat)
    assert which_rows(Y, columns, SINGLE, task="binary")["row"].tolist() == flat["row"].tolist()


def test_classes_are_told_by_name():
    found = which_rows(Y, FUSED, SINGLE, task=task("binary", class_names=["benign", "malignant"]))
    assert found["single"].tolist() == ["benign", "benign", "malignant", "malignant"]


def test_rows_that_were_never_judged_are_left_out():
    fused = np.where(np.arange(5) == 0, np.nan, FUSED)
    assert which_rows(Y, fused, SINGLE)["row"].tolist() == [1, 4, 2]
    with pytest.raises(ValueError, match="No row has predictions of both"):
        which_rows(Y, np.full(5, np.nan), SINGLE)


def test_rows_that_do_not_change_are_not_listed():
    assert which_rows(Y, FUSED, FUSED).empty


def test_bad_input_is_an_error_that_names_the_row():
    with pytest.raises(ValueError, match="same number of rows: y has 5, fused has 4"):
        which_rows(Y, FUSED[1:], SINGLE)
    late = np.where(np.arange(5) == 0, np.nan, SINGLE)
    with pytest.raises(ValueError, match=r"`fused` must hold probabilities .* \[1.2\] in row 3"):
        which_rows(Y, np.where(np.arange(5) == 3, 1.2, FUSED), late)
    with pytest.raises(ValueError, match="`num_rows` must be 1 or more, or None. Received: 0"):
        which_rows(Y, FUSED, SINGLE, num_rows=0)
    with pytest.raises(ValueError, match="must have shape"):
        which_rows(Y, np.zeros((5, 3)), SINGLE)
