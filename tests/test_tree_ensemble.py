"""Boosted trees as a Keras layer against scikit-learn's own predictions."""

import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from kfusion.exports.export import export_saved_model
from kfusion.layers import TreeEnsemble
from kfusion.models.fitted_trees import read_fitted_trees
from kfusion.models.tree_conversion import tree_ensemble

ROOT = Path(__file__).parents[1]


def fit(estimator, table, y):
    # Small fits on several threads mostly wait for each other.
    with threadpool_limits(1):
        return estimator.fit(table, y)


def expected_of(estimator, table):
    """What the layer gives: the second of two classes' probability, all of more, or values."""
    if isinstance(estimator, HistGradientBoostingRegressor):
        return estimator.predict(table)[:, None]
    probabilities = estimator.predict_proba(table)
    return probabilities[:, 1:] if probabilities.shape[1] == 2 else probabilities


def answer(layer, table):
    """Compiled on jax, where single operations take long to start."""
    if keras.backend.backend() != "jax":
        return keras.ops.convert_to_numpy(layer(table))
    return keras.Sequential([keras.Input(table.shape[1:]), layer]).predict_on_batch(table)


def check_equal(layer, estimator, table):
    check_close(answer(layer, table), expected_of(estimator, table))


def check_close(got, expected):
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * scale)


def draw_table(generator, rows, numbers, categories):
    """Numbers with ties, then category codes 0, 3, 6, ... of each column; a tenth is missing."""
    columns = [generator.normal(size=rows).round(2) for _ in range(numbers)]
    columns += [3 * generator.integers(count, size=rows) for count in categories]
    table = np.column_stack(columns).astype("float32")
    table[generator.random(table.shape) < 0.1] = np.nan
    return table


def draw_targets(generator, table, kind):
    score = np.nan_to_num(table / np.nanmax(np.abs(table), axis=0, initial=1)).sum(axis=1)
    score += 0.3 * generator.normal(size=len(score))
    if kind == "regression":
        return score
    classes = 2 if kind == "binary" else int(generator.integers(3, 7))
    return np.digitize(score, np.quantile(score, np.arange(1, classes) / classes))


def random_fit(seed):
    """An estimator of random settings, and rows that have categories that it has not met."""
    generator = np.random.default_rng(seed)
    numbers, kind = seed % 5, ["binary", "multiclass", "regression"][seed % 3]
    # Every fifth fit has categories alone; some have one column.
    categories = generator.integers(
        2, 91, size=[1, 0, 2][seed // 3 % 3] if numbers else 1 + seed % 2
    )
    table = draw_table(generator, int(generator.integers(80, 400)), numbers, categories)
    y = draw_targets(generator, table, kind)
    if seed % 4 == 0:
        table[:, -1] = np.nan if len(categories) else np.where(y > np.median(y), np.nan, 1)
    settings = {
        "max_iter": int(generator.integers(5, 80)),
        "max_leaf_nodes": [4, 31, 15, None][seed % 4],
        "max_depth": generator.choice([1, 3, None]),
        "min_samples_leaf": int(generator.choice([5, 20])),
        "learning_rate": float(generator.choice([0.03, 0.1, 1.0])),
        "early_stopping": bool(seed % 2),
        "categorical_features": [False] * numbers + [True] * len(categories),
        "random_state": 0,
    }
    trees = (
        HistGradientBoostingRegressor if kind == "regression" else HistGradientBoostingClassifier
    )
    estimator = fit(trees(**settings), table, y)
    return estimator, np.concatenate([table, draw_table(generator, 100, numbers, categories + 5)])


@pytest.fixture(scope="module")
def classifier():
    """Trees of several classes; 90 categories in column 0, numbers in the others."""
    generator = np.random.default_rng(0)
    table = draw_table(generator, 600, 2, [90])[:, [2, 0, 1]]
    y = draw_targets(generator, table, "multiclass")
    estimator = HistGradientBoostingClassifier(
        max_iter=20, categorical_features=[0], min_samples_leaf=5
    )
    return fit(estimator, table, y), table


@pytest.mark.parametrize("seed", range(20))
def test_equals_scikit_learn_on_random_fits(seed):
    estimator, table = random_fit(seed)
    check_equal(tree_ensemble(estimator), estimator, table)


def test_the_random_fits_are_of_all_kinds():
    fits = [random_fit(seed)[0] for seed in range(20)]
    trees = [read_fitted_trees(estimator) for estimator in fits]
    assert {each.activation for each in trees} == {"linear", "sigmoid", "softmax"}
    assert sum(estimator.n_features_in_ == 1 for estimator in fits) >= 2
    assert sum(len(each.left_categories) > 0 for each in trees) >= 8
    assert max(len(codes) for each in trees for codes in each.categories.values()) > 80
    assert any(not len(codes) for each in trees for codes in each.categories.values())
    assert any(len(each.categories) == each.num_columns for each in trees)
    assert sum(np.isinf(each.thresholds[~each.is_leaf]).any() for each in trees) >= 2
    assert any(estimator.n_iter_ < estimator.max_iter for estimator in fits)


def test_two_trees_worked_by_hand():
    # Tree 0: column 1 <= 2.5 (missing left)? then 1, else column 0 in {4, 7} (others right)?
    # 10 : 20. Tree 1 is one leaf, 0.5. The sum starts at 100.
    layer = TreeEnsemble([[1, 0, 1], [0, 1, 1], [0, 0, 2]], 1, category_columns=1, max_codes=3)
    layer.build((None, 2))
    weights = {
        "columns": [1],
        "thresholds": [2.5],
        "missing_left": [True],
        "code_columns": [0],
        "codes": [[4, 5, 7]],
        "set_columns": [0],
        "left_codes": [[True, False, True, False]],
        "leaf_values": [0.5, 1, 10, 20],
        "positions": [0, 1, 1, 0, 0, 1],
        "baseline": [100],
    }
    assert [weight.name for weight in layer.weights] == list(weights)
    for weight in layer.weights:
        weight.assign(np.array(weights[weight.name]))
    nan = np.nan
    table = [[4, 2.5], [4, 2.6], [5, 3], [7, 3], [6, 3], [-1, 3], [nan, 3], [5, nan], [nan, nan]]
    got = answer(layer, np.array(table, "float32"))[:, 0]
    np.testing.assert_array_equal(got - 100.5, [1, 10, 20, 10, 20, 20, 20, 1, 1])


def fit_one_column(values):
    """Trees on few distinct values, each in many rows, that tell each value from its neighbours."""
    generator = np.random.default_rng(0)
    table = generator.choice(values, size=(20 * len(values), 1))
    trees = HistGradientBoostingRegressor(min_samples_leaf=1, max_leaf_nodes=None, max_iter=3)
    estimator = fit(trees, table, values.searchsorted(table[:, 0]) % 2)
    assert len(np.unique(estimator.predict(values[:, None]).round(6))) > 1
    return estimator


def test_rows_near_a_threshold_go_the_same_way():
    # Neighbours in float32: the middle between them, their threshold, is none.
    ones = np.float32(1) + np.arange(-20, 20).astype("float32") * np.finfo("float32").eps
    # Their middles are not normal, which some processors take for 0.
    smallest = np.finfo("float32").tiny * np.array([-1.5, -1, 0, 1, 1.5], "float32")
    powers = (10.0 ** np.linspace(-30, 30, 100)).astype("float32")
    for values in (ones, smallest, powers, -powers[::-1]):
        estimator = fit_one_column(values)
        thresholds = read_fitted_trees(estimator).thresholds.astype("float32")
        up, down = (np.nextafter(thresholds, np.float32(end)) for end in (np.inf, -np.inf))
        rows = np.concatenate([values, thresholds, up, down, [np.inf, -np.inf, np.nan]])
        is_normal = ~(np.abs(rows) < np.finfo("float32").tiny) | (rows == 0)
        check_equal(tree_ensemble(estimator), estimator, rows[is_normal, None].astype("float32"))


def test_many_trees_add_up_exactly():
    generator = np.random.default_rng(0)
    table = generator.normal(size=(300, 3)).astype("float32")
    y = np.digitize(table.sum(axis=1) + generator.normal(size=300), [-1, 1])
    estimator = HistGradientBoostingClassifier(
        max_iter=500, max_leaf_nodes=4, learning_rate=0.3, min_samples_leaf=5
    )
    estimator = fit(estimator, table, y)
    assert np.abs(estimator.decision_function(table)).max() > 8
    check_equal(tree_ensemble(estimator), estimator, table)


@pytest.mark.parametrize("loss", ["absolute_error", "poisson", "gamma", "quantile"])
def test_equals_every_loss_of_a_regression(loss):
    generator = np.random.default_rng(0)
    table = generator.normal(size=(200, 2)).astype("float32")
    estimator = HistGradientBoostingRegressor(loss=loss, quantile=0.7, max_iter=20)
    estimator = fit(estimator, table, np.exp(table[:, 0] + 1))
    check_equal(tree_ensemble(estimator), estimator, table)


def test_trees_without_a_split_give_the_same_to_every_row():
    table = np.random.default_rng(0).normal(size=(30, 2)).astype("float32")
    estimator = HistGradientBoostingClassifier(min_samples_leaf=100, max_iter=3)
    estimator = fit(estimator, table, np.arange(30) % 3)
    layer = tree_ensemble(estimator)
    assert layer.levels == [[0, 0, 9]]
    check_equal(layer, estimator, table)


def test_raw_scores_are_those_before_the_probabilities(classifier):
    estimator, table = classifier
    layer = tree_ensemble(estimator, raw=True, name="scores")
    assert layer.name == "scores"
    check_close(answer(layer, table), estimator.decision_function(table))


def test_takes_trees_that_were_fitted_on_a_frame():
    generator = np.random.default_rng(0)
    sizes = generator.normal(size=300)
    frame = pd.DataFrame({"size": sizes, "site": generator.choice([10, 20, 30], 300)})
    frame["site"] = frame["site"].astype("category")
    estimator = HistGradientBoostingClassifier(max_iter=10)
    fit(estimator, frame, (sizes > 0) ^ (frame["site"] == 20))
    layer = tree_ensemble(estimator)
    rows = np.array([[0.3, 20], [0.3, 10], [-1, 30], [-1, 20], [2, 15], [np.nan, np.nan]])
    expected = estimator.predict_proba(pd.DataFrame(rows, columns=["size", "site"]))[:, 1:]
    check_close(answer(layer, rows.astype("float32")), expected)


def test_half_precision_cannot_blur_thresholds_or_codes():
    codes = np.arange(4000, 4060, dtype="float32")
    table = np.column_stack([np.repeat(codes, 20), np.tile(codes, 20)])
    y = table[:, 0] % 2 + 2 * (table[:, 1] > 4041)
    estimator = HistGradientBoostingRegressor(categorical_features=[0], max_iter=10)
    estimator = fit(estimator, table, y)
    layer = tree_ensemble(estimator)

    half = TreeEnsemble.from_config({**layer.get_config(), "dtype": "mixed_float16"})
    half.build((None, 2))
    half.set_weights(layer.get_weights())
    np.testing.assert_allclose(answer(half, table)[:, 0], estimator.predict(table), atol=2e-3)


def test_stays_as_it_is_while_layers_behind_it_learn(classifier):
    estimator, table = classifier
    layer = tree_ensemble(estimator, raw=True)
    before = layer.get_weights()
    model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    head = model.layers[-1].get_weights()[0]
    model.fit(table, table[:, :1] > 0, verbose=0)
    assert not np.array_equal(model.layers[-1].get_weights()[0], head)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not layer.trainable_weights


def test_is_the_same_after_saving_and_loading(classifier, tmp_path):
    estimator, table = classifier
    model = keras.Sequential([keras.Input((3,)), tree_ensemble(estimator)])
    model.save(tmp_path / "trees.keras")
    loaded = keras.saving.load_model(tmp_path / "trees.keras")
    check_equal(loaded.layers[-1], estimator, table)
    # What there is of the trees lies in the weights.
    assert len(json.dumps(loaded.layers[-1].get_config())) < 1000


def test_an_exported_model_answers_the_same(classifier, tmp_path):
    # The export itself compares the two in a process that knows no kfusion, without such rows.
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("a SavedModel is written on tensorflow")
    estimator, table = classifier
    inputs = keras.Input((3,), name="tabular")
    scores = tree_ensemble(estimator, raw=True)(inputs)
    model = keras.Model({"tabular": inputs}, keras.layers.Softmax()(scores))
    folder = export_saved_model(model, tmp_path / "model")
    unmet = np.array([[1000, 0, np.nan], [-3, np.nan, 9], [np.nan] * 3], "float32")
    rows = np.concatenate([table, unmet])
    served = tf.saved_model.load(str(folder))
    got = served.signatures["serving_default"](tabular=tf.constant(rows))["probabilities"]
    check_close(got, estimator.predict_proba(rows))


def test_codes_that_float32_cannot_hold_are_refused():
    codes = np.repeat([2**24, 2**24 + 1], 20).astype("float64")[:, None]
    estimator = HistGradientBoostingClassifier(categorical_features=[0], max_iter=2)
    estimator = fit(estimator, codes, codes[:, 0] > 2**24)
    with pytest.raises(ValueError, match="column 0 must be exact in float32.*16777217"):
        tree_ensemble(estimator)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": []}, "three counts for each level"),
        ({"levels": [[0, 2]]}, "three counts for each level.*Received: \\[\\[0, 2\\]\\]"),
        ({"levels": [[1, 0, 0]]}, "level 0 of `levels` has 1 splits but level 1 has 0 nodes"),
        ({"levels": [[1, 1, 0], [0, 0, 3]]}, "has 2 splits but level 1 has 3 nodes"),
        ({"levels": [[0, 0, 3]], "scores": 2}, "2 score\\(s\\) need as many trees.*3 roots"),
        ({"levels": [[0, 0, 3]], "scores": 0}, "0 score\\(s\\) need as many trees"),
        ({"levels": [[0, 1, 0], [0, 0, 2]]}, "need `category_columns`.* 0 and 0, and 1 such"),
        ({"levels": [[0, 0, 1]], "activation": "exp"}, "one of .*'exponential'.*'exp'"),
    ],
)
def test_levels_that_are_no_trees_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TreeEnsemble(**arguments)


def test_a_table_of_another_width_is_refused(classifier):
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 3"):
        tree_ensemble(classifier[0])(np.zeros((2, 4), "float32"))
