"""Folds: every row judged; classes, groups and time apart as they must be; or one clear error."""

import numpy as np
import pytest
from sklearn.model_selection import LeaveOneGroupOut, StratifiedKFold

from kfusion.data.folds import make_folds

LABELS = np.repeat([0, 1, 2], [50, 30, 10])
GROUPS = np.arange(90) // 3


@pytest.mark.parametrize("labels", [LABELS, None], ids=["classes", "regression"])
@pytest.mark.parametrize("groups", [np.random.default_rng(0).permutation(GROUPS), None])
@pytest.mark.parametrize("repeats", [1, 3])
def test_every_row_is_judged_once_per_repeat(labels, groups, repeats):
    folds = make_folds(90, folds=4, labels=labels, groups=groups, repeats=repeats)
    assert [fold.number for fold in folds] == list(range(4 * repeats))
    for repeat in range(repeats):
        of_repeat = [fold for fold in folds if fold.repeat == repeat]
        assert sorted(np.concatenate([fold.test for fold in of_repeat])) == list(range(90))
    for fold in folds:
        assert sorted(np.concatenate([fold.train, fold.test])) == list(range(90))
        if groups is not None:
            assert not set(groups[fold.train]) & set(groups[fold.test])


def test_classes_keep_their_shares():
    for fold in make_folds(90, folds=5, labels=LABELS):
        assert np.bincount(LABELS[fold.test]).tolist() == [10, 6, 2]


def test_repeats_draw_anew_and_a_seed_repeats_them():
    first, second = (make_folds(90, labels=LABELS, repeats=2, seed=3) for _ in range(2))
    assert all(np.array_equal(a.test, b.test) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0].test, first[5].test)
    other = make_folds(90, labels=LABELS, seed=4)
    assert not np.array_equal(first[0].test, other[0].test)


@pytest.mark.parametrize("seed", range(5))
def test_no_fold_lacks_a_class_that_is_in_just_enough_groups(seed):
    # Class 1 is in 4 of 24 groups: most random assignments of groups to 4 folds lack it somewhere.
    groups = np.arange(96) // 4
    labels = (groups % 6 == 0) & (np.arange(96) % 4 < 2)
    for fold in make_folds(96, folds=4, labels=labels.astype(int), groups=groups, seed=seed):
        assert labels[fold.test].any()


class TestTime:
    def test_the_past_trains_and_the_future_judges(self):
        order = np.random.default_rng(0).permutation(60)
        folds = make_folds(60, folds=5, order=order)
        assert len(folds) == 5
        for fold in folds:
            assert order[fold.train].max() < order[fold.test].min()
        sizes = [fold.train.size for fold in folds]
        assert sizes == sorted(sizes)
        assert sizes[0] == 10
        assert {fold.test.size for fold in folds} == {10}

    def test_rows_of_one_time_stay_together(self):
        order = np.repeat(np.array(["2020", "2021", "2022", "2023"], "datetime64[Y]"), 5)
        for fold in make_folds(20, folds=3, order=order):
            assert not set(order[fold.train]) & set(order[fold.test])

    def test_a_time_that_holds_most_rows_does_not_swallow_folds(self):
        order = np.repeat([0, 1, 2, 3], [2, 90, 4, 4])
        folds = make_folds(100, folds=3, order=order)
        assert [fold.test.size for fold in folds] == [90, 4, 4]

    def test_too_few_times(self):
        with pytest.raises(ValueError, match="3 folds in time need at least 4 different times"):
            make_folds(9, folds=3, order=np.arange(9) % 3)

    def test_time_and_repeats_exclude_each_other(self):
        with pytest.raises(ValueError, match="one order"):
            make_folds(9, folds=3, order=np.arange(9), repeats=2)

    @pytest.mark.parametrize("missing", [np.datetime64("NaT"), None], ids=["NaT", "None"])
    def test_a_missing_time_of_any_kind_is_named(self, missing):
        order = np.array([np.datetime64("2020"), missing, np.datetime64("2021")])
        with pytest.raises(ValueError, match="`order` is missing in row 1"):
            make_folds(3, folds=2, order=order)

    def test_a_missing_number_is_named(self):
        with pytest.raises(ValueError, match="`order` is missing in row 1"):
            make_folds(3, folds=2, order=np.array([1, np.nan, 3]))

    def test_a_class_that_comes_late_only_is_named_with_its_fold(self):
        labels = (np.arange(40) > 30).astype(int)
        with pytest.raises(ValueError, match="Fold 0 has no row of class '1' among its 10 train"):
            make_folds(40, folds=3, labels=labels, order=np.arange(40))


class TestGiven:
    def test_a_splitter_of_scikit_learn(self):
        splitter = StratifiedKFold(3, shuffle=True, random_state=0)
        folds = make_folds(90, folds=splitter, labels=LABELS)
        theirs = list(splitter.split(np.zeros(90), LABELS))
        assert all(np.array_equal(f.test, t) for f, (_, t) in zip(folds, theirs, strict=True))

    def test_masks_are_positions(self):
        mask = np.arange(6) < 4
        (fold,) = make_folds(6, folds=[(mask, ~mask)])
        assert fold.train.tolist() == [0, 1, 2, 3]
        assert fold.test.tolist() == [4, 5]

    def test_folds_made_before_keep_their_repeats(self):
        made = make_folds(20, folds=2, repeats=2)
        assert [fold.repeat for fold in make_folds(20, folds=made)] == [0, 0, 1, 1]

    @pytest.mark.parametrize(
        ("pair", "message"),
        [
            (([0, 1, 2], [2, 3]), "Fold 0 trains on 1 of its own test rows, e.g. row 2"),
            (([0, 1], [7]), "Fold 0 names row 7 of a table of 6 rows"),
            (([0, 0], [1]), "Fold 0 names a row more than once"),
            (([0.5], [1]), "Fold 0 must hold row positions"),
            (([], [1]), "Fold 0 must hold row positions"),
            (([True, False], [1]), "Fold 0 must hold row positions"),
        ],
    )
    def test_wrong_rows_are_named(self, pair, message):
        with pytest.raises(ValueError, match=message):
            make_folds(6, folds=[pair])

    @pytest.mark.parametrize("folds", [3.5, "five", True, [(1, 2, 3)], [5]])
    def test_what_is_no_fold_is_refused(self, folds):
        with pytest.raises(TypeError, match="must be a"):
            make_folds(6, folds=folds)

    def test_no_fold_at_all(self):
        with pytest.raises(ValueError, match="holds no fold"):
            make_folds(6, folds=[])

    def test_a_split_group_is_named(self):
        with pytest.raises(ValueError, match=r"Fold 0 splits 1 group\(s\), e.g. .*'b'"):
            make_folds(4, folds=[([0, 1], [2, 3])], groups=np.array(["a", "b", "b", "c"]))

    def test_groups_with_one_class_each_leave_a_fold_without_the_other(self):
        labels, groups = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])
        with pytest.raises(ValueError, match="Fold 0 has no row of class '0' among its 2 training"):
            make_folds(4, folds=LeaveOneGroupOut(), labels=labels, groups=groups)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_rows": 3}, "5 folds cannot be made of 3 rows"),
        ({"num_rows": 90, "groups": np.arange(90) // 30}, "5 folds cannot be made of 3 groups"),
        (
            {"num_rows": 90, "labels": np.repeat([0, 1], [87, 3]), "class_names": ("sick", "well")},
            "Class 'well' is in 3 rows only, fewer than the 5 folds",
        ),
        (
            {"num_rows": 90, "labels": (GROUPS == 7).astype(int), "groups": GROUPS},
            "Class '1' is in 1 groups only",
        ),
        ({"num_rows": 90, "folds": 1}, "at least 2 folds"),
        ({"num_rows": 90, "labels": LABELS[:-1]}, "`labels` has 89 entries for 90 rows"),
    ],
    ids=["rows", "groups", "class", "class in groups", "one fold", "lengths"],
)
def test_too_little_of_anything_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_folds(**arguments)
