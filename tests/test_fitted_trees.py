"""The layout of scikit-learn's trees that kfusion reads, and what happens to another one."""

import numpy as np
import pytest
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.exceptions import NotFittedError
from threadpoolctl import threadpool_limits

from kfusion.models import fitted_trees
from kfusion.models.fitted_trees import NODE_FIELDS, read_fitted_trees


@pytest.fixture
def estimator():
    """One tree of one split on column 1: categories 5 and 9 to one side, 6 to the other."""
    codes = np.repeat([5.0, 6.0, 9.0], 20)
    table = np.column_stack([np.zeros(60), codes])
    trees = HistGradientBoostingRegressor(
        max_iter=1, learning_rate=1, max_depth=1, categorical_features=[1], min_samples_leaf=5
    )
    with threadpool_limits(1):
        return trees.fit(table, np.where(codes == 6, 3.0, 0.0))


def test_the_installed_scikit_learn_has_the_layout_that_is_read(estimator):
    (iteration,) = estimator._predictors
    (tree,) = iteration
    assert set(tree.nodes.dtype.names) == {*NODE_FIELDS, "count", "gain", "depth", "bin_threshold"}
    assert tree.raw_left_cat_bitsets.dtype == np.uint32
    assert tree.raw_left_cat_bitsets.shape == (1, 8)
    assert estimator._baseline_prediction.shape == (1, 1)
    encoder = estimator._preprocessor.named_transformers_["encoder"]
    np.testing.assert_array_equal(encoder.categories_, [[5, 6, 9]])
    # Inside, the column of categories is the first, and bit i of its sets the i-th category.
    assert tree.nodes["feature_idx"][0] == 0
    left = set(np.flatnonzero([tree.raw_left_cat_bitsets[0, 0] >> i & 1 for i in range(32)]))
    assert left in ({1}, {0, 2})


def test_reads_a_split_of_categories_as_by_hand(estimator):
    trees = read_fitted_trees(estimator)
    assert trees.num_columns == 2
    assert trees.activation == "linear"
    assert trees.baseline.tolist() == [1.0]
    assert trees.roots.tolist() == [0]
    assert trees.is_leaf.tolist() == [False, True, True]
    assert trees.columns[0] == 1
    assert trees.sets.tolist() == [0, -1, -1]
    assert {column: codes.tolist() for column, codes in trees.categories.items()} == {1: [5, 6, 9]}
    in_left = trees.values[trees.left[0]]
    assert sorted(trees.values[1:].tolist()) == pytest.approx([-1, 2])
    expected = [False, True, False] if in_left > 0 else [True, False, True]
    assert trees.left_categories[0, :3].tolist() == expected


def test_other_estimators_are_refused():
    with pytest.raises(TypeError, match="HistGradientBoosting.* GradientBoostingClassifier"):
        read_fitted_trees(GradientBoostingClassifier())


def test_an_estimator_that_is_not_fitted_is_refused():
    with pytest.raises(NotFittedError, match="not fitted yet"):
        read_fitted_trees(HistGradientBoostingClassifier())


def test_text_is_refused_since_the_layer_takes_numbers():
    table = np.repeat([["north"], ["south"]], 20, axis=0)
    trees = HistGradientBoostingClassifier(max_iter=1, categorical_features=[0])
    with threadpool_limits(1):
        trees.fit(table, np.repeat([0, 1], 20))
    with pytest.raises(ValueError, match="column 0 must be numbers: .*'north', 'south'"):
        read_fitted_trees(trees)


def test_another_layout_is_named(estimator):
    tree = estimator._predictors[0][0]
    tree.nodes = tree.nodes[["value", "left", "right", "is_leaf"]]
    with pytest.raises(RuntimeError, match="in another way than 1.7 .*'num_threshold'.* not found"):
        read_fitted_trees(estimator)
    del estimator._predictors
    estimator._is_fitted = True
    with pytest.raises(RuntimeError, match="in another way .*'_predictors'"):
        read_fitted_trees(estimator)


def test_trees_that_mean_something_else_are_noticed(estimator):
    # As if a later version kept the sets of categories that go right.
    tree = estimator._predictors[0][0]
    original = tree.predict

    def predict(*arguments, **keywords):
        return -original(*arguments, **keywords)

    tree.predict = predict
    with pytest.raises(RuntimeError, match="do not answer as kfusion reads them"):
        read_fitted_trees(estimator)


def test_checks_itself_on_rows_that_reach_missing_and_unmet_categories(estimator, monkeypatch):
    seen = []
    original = fitted_trees._descend
    monkeypatch.setattr(
        fitted_trees, "_descend", lambda trees, rows: seen.append(rows) or original(trees, rows)
    )
    read_fitted_trees(estimator)
    (rows,) = seen
    assert {5, 6, 9, 10} <= set(rows[:, 1])
    assert np.isnan(rows[:, 1]).any()
