"""A pool of predictions: hand-worked numbers, known optima, and members that know nothing."""

import keras
import numpy as np
import pytest
from scipy.optimize import nnls
from scipy.special import log_softmax, softmax

from kfusion.estimators.blending import Blend, fit_blend
from kfusion.layers import LogLinearPool

RANDOM = np.random.default_rng(0)


def draw(strengths, rows=2000, classes=3, seed=0):
    """Labels, and calibrated members with independent evidence of these strengths."""
    random = np.random.default_rng(seed)
    y = random.integers(classes, size=rows)
    members = {}
    for name, strength in strengths.items():
        seen = random.normal(size=(rows, classes))
        seen[np.arange(rows), y] += strength
        # The log-likelihood ratio of a normal shift is linear in what is seen.
        members[name] = softmax(strength * seen, axis=1)
    return y, members


def loss(y, probabilities):
    return -np.mean(np.log(probabilities[np.arange(len(y)), y]))


class TestApply:
    def test_by_hand(self):
        """0.8 and 0.6 with weights 1 and 0.5 and rates of 0.5: odds 4 * sqrt(1.5)."""
        even = np.log([0.5, 0.5])
        blend = Blend(
            {"a": 1.0, "b": 0.5},
            {"a": 1.0, "b": 1.0},
            {"a": 0.0, "b": 0.0},
            {"a": even, "b": even},
            np.array([0.5, 0.5]),
            even,
        )
        found = blend.apply({"a": [[0.2, 0.8]], "b": [[0.4, 0.6]]})
        odds = 4 * np.sqrt(1.5)
        np.testing.assert_allclose(found, [[1 / (1 + odds), odds / (1 + odds)]], atol=1e-12)

    def test_a_member_of_no_weight_may_be_absent(self):
        y, members = draw({"a": 2.0, "copy": 2.0})
        members["wrong"] = members["a"][:, ::-1]
        blend = fit_blend(members, y)
        assert blend.weights["wrong"] == 0
        kept = {name: members[name] for name in ("a", "copy")}
        np.testing.assert_array_equal(blend.apply(kept), blend.apply(members))

    def test_one_of_weight_may_not(self):
        y, members = draw({"a": 1.0, "b": 1.0})
        with pytest.raises(ValueError, match=r"member\(s\) \['b'\] are missing"):
            fit_blend(members, y).apply({"a": members["a"]})


class TestClasses:
    def test_independent_evidence_adds_up(self):
        """Bayes' rule: each member counts once."""
        y, members = draw({"a": 1.0, "b": 0.7}, rows=20_000)
        scales = fit_blend(members, y).scales
        assert scales["a"] == pytest.approx(1, abs=0.05)
        assert scales["b"] == pytest.approx(1, abs=0.05)

    def test_the_same_member_twice_counts_once(self):
        y, members = draw({"a": 1.0}, rows=5000)
        blend = fit_blend({**members, "again": members["a"]}, y)
        assert sum(blend.scales.values()) == pytest.approx(1, abs=0.05)

    def test_one_that_is_too_sure_is_held_back(self):
        y, members = draw({"a": 1.0}, rows=5000)
        bold = softmax(4 * np.log(members["a"]), axis=1)
        blend = fit_blend({"bold": bold}, y)
        assert blend.slopes["bold"] == pytest.approx(0.25, abs=0.03)

    def test_class_rates_that_a_member_was_not_told_are_mostly_put_right(self):
        """A member trained on balanced classes, of data that are not."""
        random = np.random.default_rng(1)
        y = (random.random(20_000) < 0.05).astype(int)
        seen = random.normal(size=y.size) + 2 * y
        balanced = 1 / (1 + np.exp(-(2 * seen - 2)))
        true = 1 / (1 + np.exp(-(2 * seen - 2 + np.log(0.05 / 0.95))))
        blend = fit_blend({"m": np.stack([1 - balanced, balanced], axis=1)}, y)
        found = blend.apply({"m": np.stack([1 - balanced, balanced], axis=1)})
        least = loss(y, np.stack([1 - true, true], axis=1))
        off = loss(y, np.stack([1 - balanced, balanced], axis=1)) - least
        assert loss(y, found) - least < off / 5

    @pytest.mark.parametrize("rows", [100, 400, 2000])
    def test_a_member_that_knows_nothing_costs_next_to_nothing(self, rows):
        gaps = []
        for seed in range(10):
            y, members = draw({"knows": 1.2, "noise": 0.0}, rows + 5000, seed=seed)
            # Sure of what it does not know.
            members["noise"] = softmax(np.random.default_rng(seed).normal(size=(y.size, 3)), 1)
            fitted = {name: part[:rows] for name, part in members.items()}
            blend = fit_blend(fitted, y[:rows])
            fresh = {name: part[rows:] for name, part in members.items()}
            gaps.append(loss(y[rows:], blend.apply(fresh)) - loss(y[rows:], fresh["knows"]))
        assert np.mean(gaps) < 0.02 if rows == 100 else np.mean(gaps) < 0.005

    def test_it_is_not_below_the_best_or_the_mean_on_new_rows(self):
        y, members = draw({"a": 1.0, "b": 0.8, "c": 0.2}, 6000)
        blend = fit_blend({name: part[:1000] for name, part in members.items()}, y[:1000])
        fresh = {name: part[1000:] for name, part in members.items()}
        found = loss(y[1000:], blend.apply(fresh))
        assert found < min(loss(y[1000:], part) for part in fresh.values())
        assert found < loss(y[1000:], np.mean(list(fresh.values()), axis=0))

    def test_no_probability_is_too_small(self):
        y = np.arange(50) % 2
        sure = np.stack([1.0 - y, y], axis=1)
        sure[0] = sure[0, ::-1]
        blend = fit_blend({"sure": sure}, y)
        assert np.isfinite(np.log(blend.apply({"sure": sure}))).all()

    def test_a_class_that_no_row_has(self):
        y, members = draw({"a": 1.0}, classes=4)
        y[y == 3] = 0
        assert np.isfinite(fit_blend(members, y).apply(members)).all()

    def test_rows_of_no_weight_are_absent(self):
        y, members = draw({"a": 1.0, "b": 0.5}, 400)
        weights = np.ones(400)
        weights[300:] = 0
        weighted = fit_blend(members, y, sample_weight=weights)
        without = fit_blend({name: part[:300] for name, part in members.items()}, y[:300])
        for name in members:
            assert weighted.scales[name] == pytest.approx(without.scales[name], abs=1e-6)


class TestValues:
    def test_many_rows_give_non_negative_least_squares(self):
        y = RANDOM.normal(size=50_000)
        members = {
            "a": y + RANDOM.normal(size=y.size),
            "b": y + 2 * RANDOM.normal(size=y.size),
            "against": -y + RANDOM.normal(size=y.size),
        }
        stacked = np.stack([part - part.mean() for part in members.values()], axis=1)
        expected, _ = nnls(stacked, y - y.mean())
        found = fit_blend(members, y).weights
        np.testing.assert_allclose(list(found.values()), expected, atol=1e-3)
        assert found["against"] == 0

    def test_a_shift_of_a_member_is_put_right(self):
        y = RANDOM.normal(size=1000)
        blend = fit_blend({"off": y + 5}, y)
        np.testing.assert_allclose(blend.apply({"off": y + 5})[:, 0], y, atol=0.02)


class TestBadInput:
    Y, MEMBERS = draw({"first": 1.0, "second": 1.0}, 60)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"second": MEMBERS["second"][:-1]}, r"'second' must have shape \(60, 3\)"),
            ({"second": MEMBERS["second"][:, :2]}, r"'second' must have shape \(60, 3\)"),
            ({"second": np.full((60, 3), np.nan)}, "'second' is not finite in row 0"),
            ({"second": np.full((60, 3), 0.4)}, "'second' must hold probabilities that sum to 1"),
        ],
    )
    def test_the_member_is_named(self, change, message):
        with pytest.raises(ValueError, match=message):
            fit_blend({**self.MEMBERS, **change}, self.Y)

    @pytest.mark.parametrize(
        ("members", "y", "keywords", "message"),
        [
            ({}, Y, {}, "holds no member"),
            (MEMBERS, Y + 1, {}, "labels 0 to 2"),
            (MEMBERS, Y[:, None], {}, r"`y` must have shape \(rows,\)"),
            (MEMBERS, Y, {"sample_weight": -np.ones(60)}, "`sample_weight` must be 60 finite"),
            ({"a": np.zeros(60)}, np.full(60, np.inf), {}, "`y` must be finite"),
        ],
    )
    def test_what_is_wrong_is_said(self, members, y, keywords, message):
        with pytest.raises(ValueError, match=message):
            fit_blend(members, y, **keywords)


@pytest.mark.parametrize("kind", ["sigmoid", "softmax", "linear"])
def test_the_layer_answers_as_the_blend(kind, tmp_path):
    if kind == "linear":
        y = RANDOM.normal(size=300)
        members = {"a": y + RANDOM.normal(size=300), "b": y + RANDOM.normal(size=300)}
        given = [part[:, None] for part in members.values()]
    else:
        y, members = draw({"a": 1.0, "b": 0.5}, 300, classes=2 if kind == "sigmoid" else 4)
        given = [part[:, 1:] if kind == "sigmoid" else part for part in members.values()]
    blend = fit_blend(members, y)
    expected = blend.apply(members)
    inputs = [keras.Input(part.shape[1:]) for part in given]
    layer = LogLinearPool(2, kind)
    model = keras.Model(inputs, layer(inputs))
    layer.set_blend(blend, list(members))
    model.save(tmp_path / "pool.keras")
    again = keras.saving.load_model(tmp_path / "pool.keras")
    expected = expected[:, 1:] if kind == "sigmoid" else expected
    for each in (model, again):
        np.testing.assert_allclose(each.predict(given, verbose=0), expected, atol=2e-6)


def test_log_softmax_of_the_pool_is_the_loss_it_was_fitted_by():
    """The weights found are a minimum: no step along any of them lowers the penalised loss."""
    y, members = draw({"a": 1.0, "b": 0.6}, 500)
    blend = fit_blend(members, y)
    rows = np.arange(len(y))

    def nll(scales):
        total = blend.base + sum(
            scales[name]
            * (
                np.log((1 - blend.floors[name]) * part + blend.floors[name] * blend.rates)
                - blend.anchors[name]
            )
            for name, part in members.items()
        )
        return -np.mean(log_softmax(total, axis=1)[rows, y])

    best = nll(blend.scales)
    for name in members:
        for factor in (0.8, 1.2):
            assert nll({**blend.scales, name: factor * blend.scales[name]}) > best - 1e-3
