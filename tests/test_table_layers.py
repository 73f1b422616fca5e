"""What the layers of tables compute, against scikit-learn and numbers worked out by hand."""

import keras
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.preprocessing import QuantileTransformer

from kfusion import layers


def normals(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def percentiles(values, count=101):
    return np.quantile(values, np.linspace(0, 1, count)).tolist()


def scale(quantiles, values, **keywords):
    """One column's values, scaled."""
    layer = layers.QuantileScaling([quantiles], **keywords)
    return np.asarray(layer(np.asarray(values, "float32")[:, None]))[:, 0]


class TestQuantileScaling:
    @pytest.mark.parametrize("draw", ["normal", "lognormal", "standard_cauchy"])
    def test_equals_scikit_learns_away_from_the_ends(self, draw):
        generator = np.random.default_rng(0)
        train, new = (getattr(generator, draw)(size=2000) for _ in range(2))
        reference = QuantileTransformer(n_quantiles=101, output_distribution="normal")
        expected = reference.fit(train[:, None]).transform(new[:, None])[:, 0]
        got = scale(percentiles(train), new)
        inside = abs(expected) < 2.9
        assert inside.mean() > 0.97
        np.testing.assert_allclose(got[inside], expected[inside], atol=2e-4)
        np.testing.assert_allclose(got[~inside], 3 * np.sign(expected[~inside]), atol=0.1)

    def test_gives_training_rows_a_standard_normal_whatever_their_shape(self):
        train = np.exp(2 * normals(5000)) * 1e6
        got = scale(percentiles(train), train)
        assert np.mean(got) == pytest.approx(0, abs=0.01)
        assert np.std(got) == pytest.approx(1, abs=0.02)
        assert got.max() == pytest.approx(3, abs=1e-5)

    def test_is_read_on_a_straight_line_between_quantiles(self):
        got = scale([0, 10, 20, 40, 60], [0, 5, 10, 20, 30, 60])
        shares = [0, 0.125, 0.25, 0.5, 0.625, 1]
        np.testing.assert_allclose(got, np.clip(norm.ppf(shares), -3, 3), atol=1e-5)

    def test_keeps_order_and_stays_within_its_bounds_anywhere(self):
        train = np.round(normals(200), 1)
        values = [-3.4e38, -1e9, *np.sort(normals(300, seed=1)), 1e9, 3.4e38]
        got = scale(percentiles(train), values, limit=2.0)
        assert np.all(np.diff(got) >= -1e-6)
        assert got[[0, -1]] == pytest.approx([-2, 2], abs=1e-5)

    def test_a_boolean_becomes_the_middles_of_its_ranks(self):
        half = percentiles([0] * 50 + [1] * 50, count=100)
        assert scale(half, [0, 1]) == pytest.approx(norm.ppf([0.25, 0.75]), abs=0.02)
        rare = percentiles([0] * 900 + [1] * 100)
        assert scale(rare, [0, 1]) == pytest.approx(norm.ppf([0.45, 0.95]), abs=0.06)

    def test_whole_numbers_become_the_middles_of_their_ranks_as_in_scikit_learn(self):
        train = np.random.default_rng(0).poisson(2, size=3000)
        reference = QuantileTransformer(n_quantiles=101, output_distribution="normal")
        values = np.arange(1, 5)  # the least is put at -5.2 there
        expected = reference.fit(train[:, None]).transform(values[:, None])[:, 0]
        np.testing.assert_allclose(scale(percentiles(train), values), expected, atol=1e-4)

    @pytest.mark.parametrize("quantiles", [[], [7.0], [7.0] * 101])
    def test_a_column_of_one_value_or_none_becomes_0(self, quantiles):
        np.testing.assert_array_equal(scale(quantiles, [7, -1e30, 1e30, np.nan]), [0] * 4)

    def test_missing_values_become_the_median_and_are_marked(self):
        layer = layers.QuantileScaling([[0, 1, 2], [5, 6, 7]], flagged=[1])
        got = layer(np.array([[np.nan, 6], [1, np.nan]], "float32"))
        np.testing.assert_allclose(got, [[0, 0, 0], [0, 0, 1]], atol=1e-6)

    @pytest.mark.parametrize(
        "quantiles", [[1e9, 1e9 + 64, 1e9 + 640], [-3.4e38, 0, 3.4e38], [0, 1e-45, 1e-44, 1]]
    )
    def test_units_far_from_1_stay_finite_and_in_order(self, quantiles):
        got = scale(quantiles, quantiles)
        assert np.isfinite(got).all()
        assert np.all(np.diff(got) >= 0)
        assert got[-1] > 0.5

    def test_raw_numbers_survive_half_precision(self):
        layer = layers.QuantileScaling([[1e6, 1e6 + 1, 1e6 + 2]], dtype="mixed_float16")
        got = np.asarray(layer(np.array([[1e6], [1e6 + 1], [1e6 + 2]], "float32")))[:, 0]
        np.testing.assert_allclose(got, [-3, 0, 3], atol=0.01)

    @pytest.mark.parametrize("quantiles", [[0, 2, 1], [0, np.nan, 1]])
    def test_quantiles_that_fall_or_are_not_finite_are_refused(self, quantiles):
        with pytest.raises(ValueError, match="quantiles of column 1 must be finite and must not"):
            layers.QuantileScaling([[0, 1], quantiles])

    def test_a_bound_of_0_is_refused(self):
        with pytest.raises(ValueError, match="`limit` must be above 0. Received: limit=0"):
            layers.QuantileScaling([[0, 1]], limit=0)


class TestBatchEnsembleDense:
    def test_is_a_dense_layer_for_each_member(self):
        layer = layers.BatchEnsembleDense(4, 3, activation="tanh")
        inputs = normals(6, 3, 5)
        layer(inputs)
        layer.set_weights(
            [normals(*weight.shape, seed=i) for i, weight in enumerate(layer.weights)]
        )
        weights = {weight.name: np.asarray(weight) for weight in layer.weights}
        got = np.asarray(layer(inputs))
        for member in range(3):
            # A kernel of its own, of rank one apart from the others'.
            kernel = weights["kernel"] * np.outer(
                weights["input_scales"][member], weights["output_scales"][member]
            )
            alone = np.tanh(inputs[:, member] @ kernel + weights["bias"][member])
            np.testing.assert_allclose(got[:, member], alone, rtol=1e-4, atol=1e-5)

    def test_a_plain_vector_goes_to_every_member(self):
        layer = layers.BatchEnsembleDense(4, 3, random_signs=True)
        inputs = normals(6, 5)
        copies = np.repeat(inputs[:, None], 3, axis=1)
        np.testing.assert_allclose(layer(inputs), layer(copies), rtol=1e-6)
        assert tuple(layer.compute_output_shape((None, 5))) == (None, 3, 4)

    def test_only_random_signs_make_members_differ_at_the_start(self):
        inputs = normals(6, 50)
        alike = np.asarray(layers.BatchEnsembleDense(4, 3)(inputs))
        np.testing.assert_array_equal(alike[:, 0], alike[:, 1])
        keras.utils.set_random_seed(0)
        layer = layers.BatchEnsembleDense(4, 3, random_signs=True)
        apart = np.asarray(layer(inputs))
        assert not np.allclose(apart[:, 0], apart[:, 1])
        signs = np.asarray(layer.weights[1])
        assert set(signs.ravel().tolist()) == {-1, 1}
        assert abs(signs.mean()) < 0.3

    def test_members_share_all_but_vectors(self):
        layer = layers.BatchEnsembleDense(100, 16)
        layer.build((None, 100))
        assert layer.count_params() == 100 * 100 + 16 * 3 * 100

    def test_dropout_is_drawn_for_each_member(self):
        layer = layers.BatchEnsembleDense(50, 2, activation=None, dropout=0.5)
        dropped = np.asarray(layer(np.ones((1, 3), "float32"), training=True)) == 0
        assert not np.array_equal(dropped[:, 0], dropped[:, 1])


def test_members_are_averaged_one_by_one():
    members = normals(4, 3, 2)
    np.testing.assert_allclose(layers.MemberMean()(members), members.mean(axis=1), rtol=1e-6)


class TestPeriodicEmbedding:
    def test_is_the_formula_of_the_paper_for_each_column(self):
        layer = layers.PeriodicEmbedding(units=4, frequencies=3, frequency_scale=1.0)
        inputs = normals(6, 2)
        got = np.asarray(layer(inputs)).reshape(6, 2, 4)
        frequencies, kernel, bias = (np.asarray(weight) for weight in layer.weights)
        for column in range(2):
            angles = 2 * np.pi * np.outer(inputs[:, column], frequencies[column])
            waves = np.hstack([np.cos(angles), np.sin(angles)])
            expected = np.maximum(waves @ kernel[column] + bias[column], 0)
            np.testing.assert_allclose(got[:, column], expected, rtol=1e-3, atol=1e-4)

    def test_frequencies_start_at_the_scale_asked_for(self):
        layer = layers.PeriodicEmbedding(frequencies=1000, frequency_scale=0.3)
        layer.build((None, 2))
        assert np.std(layer.weights[0]) == pytest.approx(0.3, rel=0.1)
