"""The bootstrap against formulas of means, scikit-learn's weighted scores, and simulated truth."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from kfusion.evidence.bootstrap import Bootstrap, bootstrap, bootstrap_interval
from kfusion.evidence.delong import delong_test

VALUES = np.random.default_rng(0).normal(3.0, 2.0, size=40)


def mean_of(values):
    return lambda weights: weights @ values / weights.sum()


def accuracy(y, predicted, weights):
    return np.average(y == predicted, weights=weights)


def auc(y, scores, weights):
    """Without ties, quicker than scikit-learn's, which it is held against."""
    order = np.argsort(scores)
    positive = (weights * y)[order]
    negative = weights[order] - positive
    pairs = positive.sum() * negative.sum()
    return positive @ np.cumsum(negative) / pairs if pairs else np.nan


def made_of(replicates, **fields):
    """A Bootstrap of one statistic whose replicates are known."""
    return Bootstrap(
        **{
            "estimate": np.array(0.0),
            "replicates": np.reshape(replicates, (-1, 1)).astype(float),
            "num_units": 10,
            "degrees_of_freedom": np.array(np.inf),
            **fields,
        }
    )


def test_the_standard_error_of_a_mean_is_the_textbook_one():
    resampled = bootstrap(mean_of(VALUES), 40, num_resamples=4000)
    assert resampled.estimate == pytest.approx(VALUES.mean())
    assert resampled.standard_error == pytest.approx(stats.sem(VALUES), rel=0.04)


def test_the_interval_of_a_mean_of_normal_values_is_about_that_of_the_t_test():
    resampled = bootstrap(mean_of(VALUES), 40, num_resamples=4000)
    expected = stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)
    assert resampled.interval() == pytest.approx(expected, abs=0.1 * np.ptp(expected))


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("freedom", [5, 30, np.inf])
def test_the_interval_of_normal_replicates_has_the_reach_of_hesterbergs(confidence, freedom):
    # Replicates spread by s sqrt((n - 1) / n): expanding them gives the t interval of a mean.
    grid = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    shrink = 1.0 if np.isinf(freedom) else np.sqrt(freedom / (freedom + 1))
    resampled = made_of(grid * shrink, degrees_of_freedom=np.array(float(freedom)))
    reach = stats.t.ppf((1 + confidence) / 2, freedom)
    assert resampled.interval(confidence) == pytest.approx((-reach, reach), rel=1e-3)


def test_the_pvalue_counts_replicates_on_the_far_side_and_ties_by_half():
    resampled = made_of([-1, 0, 0] + 17 * [2])
    assert resampled.pvalue() == pytest.approx(2 * (1 + 2 / 2) / 20)
    assert resampled.pvalue(null=2.0) == pytest.approx(2 * (17 / 2) / 20)
    assert resampled.pvalue(null=3.0) == pytest.approx(1 / 21)
    assert made_of([0] * 20).pvalue() == 1


def test_the_pvalue_is_below_5_percent_where_the_95_percent_interval_leaves_out_0():
    random = np.random.default_rng(1)
    seen = set()
    for _ in range(60):
        values = random.normal(0.7, 1.0, size=12)
        resampled = bootstrap(mean_of(values), 12, num_resamples=500)
        low, high = resampled.interval()
        pvalue = resampled.pvalue()
        if abs(pvalue - 0.05) > 0.005:
            assert (pvalue < 0.05) == (low > 0 or high < 0)
            seen.add(pvalue < 0.05)
    assert seen == {True, False}


def test_weights_stand_for_rows_that_are_there_several_times():
    y = np.arange(30) % 2
    scores = y + np.random.default_rng(2).normal(size=30)
    pairs = []

    def statistic(weights):
        times = weights.astype(int)
        repeated = sklearn_metrics.roc_auc_score(y.repeat(times), scores.repeat(times))
        pairs.append([auc(y, scores, weights), repeated])
        return 0.0

    bootstrap(statistic, 30, num_resamples=20)
    ours, theirs = np.transpose(pairs)
    assert ours == pytest.approx(theirs)


def test_weights_say_how_often_each_row_was_drawn():
    seen = []

    def statistic(weights):
        seen.append(weights)
        return 0.0

    bootstrap(statistic, 25, num_resamples=30)
    assert (seen[0] == 1).all()
    left_out, drawn = np.array(seen[1:26]), np.array(seen[26:])
    assert sorted(left_out.argmin(axis=1)) == list(range(25))
    assert (left_out.sum(axis=1) == 24).all()
    assert (drawn.sum(axis=1) == 25).all()
    assert (drawn == np.floor(drawn)).all()
    # A row's chance to be missing is (24 / 25)^25 = 0.36.
    assert (drawn == 0).mean() == pytest.approx(0.36, abs=0.04)


def test_groups_are_drawn_whole():
    groups = np.array(["b", "a", "c", "a", "b", "d", "a"])
    drawn = []
    bootstrap(lambda weights: float(len(drawn) if drawn.append(weights) else 0), 7, groups=groups)
    drawn = np.array(drawn)
    for group in "abcd":
        members = drawn[:, groups == group]
        assert (members == members[:, :1]).all()
    once_each = drawn[:, [1, 0, 2, 5]]
    assert (once_each[5:].sum(axis=1) == 4).all()


def test_rows_written_down_twice_in_one_group_are_no_more_rows():
    once = bootstrap(mean_of(VALUES), 40)
    twice = bootstrap(mean_of(np.tile(VALUES, 2)), 80, groups=np.tile(np.arange(40), 2))
    assert twice.num_units == once.num_units == 40
    assert twice.interval() == pytest.approx(once.interval())


def test_the_same_seed_draws_the_same_rows():
    one, same, other = (bootstrap(mean_of(VALUES), 40, seed=seed) for seed in (3, 3, 4))
    assert (one.replicates == same.replicates).all()
    assert (one.replicates != other.replicates).any()


def test_several_statistics_of_the_same_draws_come_side_by_side():
    def statistic(weights):
        mean = weights @ VALUES / weights.sum()
        return np.array([mean, 10 * mean, -mean])

    resampled = bootstrap(statistic, 40, num_resamples=300)
    alone = bootstrap(mean_of(VALUES), 40, num_resamples=300)
    assert resampled.replicates.shape == (300, 3)
    low, high = resampled.interval()
    assert low == pytest.approx([alone.interval()[0], 10 * alone.interval()[0], -high[0]])
    error = alone.standard_error
    assert resampled.standard_error == pytest.approx([error, 10 * error, error])
    assert resampled.pvalue(null=VALUES.mean()).shape == (3,)


def test_the_error_of_a_difference_of_aucs_is_about_delongs():
    random = np.random.default_rng(5)
    y = np.arange(300) % 3 // 2
    scores = random.normal(size=(2, 300)) + y * [[1.2], [0.9]] + random.normal(size=300)
    resampled = bootstrap(
        lambda weights: auc(y, scores[0], weights) - auc(y, scores[1], weights),
        300,
        num_resamples=500,
    )
    test = delong_test(y, *scores)
    assert resampled.estimate == pytest.approx(test.difference)
    assert resampled.standard_error == pytest.approx(test.standard_error, rel=0.08)
    assert resampled.degrees_of_freedom == pytest.approx(test.degrees_of_freedom, rel=0.1)


def test_few_rows_that_decide_have_few_degrees_of_freedom():
    values = np.zeros(1000)
    values[:8] = np.random.default_rng(6).normal(size=8)
    few = bootstrap(mean_of(values), 1000, num_resamples=50)
    many = bootstrap(mean_of(np.tile(VALUES, 25)), 1000, num_resamples=50)
    assert 3 < few.degrees_of_freedom < 12
    assert many.degrees_of_freedom > 300


def test_a_large_group_counts_even_if_its_rows_are_average():
    groups = np.minimum(np.arange(40), 19)
    resampled = bootstrap(mean_of(VALUES), 40, groups=groups, num_resamples=50)
    # Sizes of 19 times 1 and once 21.
    assert resampled.degrees_of_freedom <= 40**2 / (19 + 21**2) - 1 + 1e-9


def test_draws_where_the_statistic_is_undefined_are_left_out():
    y = (np.arange(60) < 2).astype(int)
    scores = y + np.random.default_rng(7).normal(size=60)
    resampled = bootstrap(lambda weights: auc(y, scores, weights), 60, num_resamples=300)
    # Neither of two rows is drawn with a chance of (58 / 60)^60 = 0.13.
    assert len(resampled.replicates) == pytest.approx(300 * 0.87, abs=20)
    assert np.isfinite(resampled.interval()).all()


def test_a_class_in_one_group_leaves_the_whole_range_of_draws():
    y = (np.arange(60) < 5).astype(int)
    scores = y + np.random.default_rng(8).normal(size=60)
    resampled = bootstrap(
        lambda weights: auc(y, scores, weights), 60, groups=np.arange(60) // 5, num_resamples=200
    )
    assert resampled.degrees_of_freedom == 1
    low, high = resampled.interval()
    assert low == pytest.approx(resampled.replicates.min())
    assert high == pytest.approx(resampled.replicates.max())


def test_a_statistic_that_is_mostly_undefined_is_an_error():
    def statistic(weights):
        return weights.mean() if weights[0] == 1 else np.nan

    with pytest.raises(ValueError, match="not finite on 1.. of 200 resamples"):
        bootstrap(statistic, 20, num_resamples=200)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((mean_of(VALUES), 1), {}, "at least 2 rows and 2 resamples. Received: num_rows=1"),
        ((mean_of(VALUES), 40), {"num_resamples": 1}, "num_resamples=1"),
        ((mean_of(VALUES), 40), {"groups": ["x"] * 40}, "at least 2 groups"),
        ((mean_of(VALUES), 40), {"groups": ["x", "y"]}, "one value for each of 40 rows"),
        ((lambda weights: np.nan, 40), {}, "finite on all rows. Received: nan"),
        ((lambda weights: np.ones((2, 2)), 40), {}, "must return a float or \\(k,\\) floats"),
    ],
)
def test_bad_input_is_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap(*arguments, **options)


def test_a_confidence_in_percent_is_an_error():
    with pytest.raises(ValueError, match="`confidence` must be in \\(0, 1\\)"):
        made_of([1, 2, 3]).interval(95)


def test_progress_is_shown_on_stderr_if_asked_for(capsys):
    bootstrap(mean_of(VALUES), 40, num_resamples=20, verbose=1)
    shown = capsys.readouterr()
    assert "bootstrap" in shown.err
    assert shown.out == ""
    bootstrap(mean_of(VALUES), 40, num_resamples=20)
    assert capsys.readouterr().err == ""


def test_the_interval_of_an_accuracy_is_about_the_exact_binomial_one():
    y = np.arange(200) % 2
    predicted = np.where(np.random.default_rng(9).random(200) < 0.8, y, 1 - y)
    right = int((y == predicted).sum())
    expected = stats.binomtest(right, 200).proportion_ci()
    assert bootstrap_interval(accuracy, y, predicted) == pytest.approx(expected, abs=0.01)


def test_weights_of_rows_multiply_those_of_draws():
    y = np.arange(100) % 2
    scores = y + np.random.default_rng(10).normal(size=100)
    fixed = np.where(np.arange(100) < 80, 1.0, 0.0)
    low, high = bootstrap_interval(auc, y, scores, weights=fixed, num_resamples=300)
    assert low < auc(y[:80], scores[:80], np.ones(80)) < high
    scores[80:] = 1000 * (1 - y[80:])
    unmoved = bootstrap_interval(auc, y, scores, weights=fixed, num_resamples=300)
    assert unmoved == pytest.approx((low, high))


def test_an_interval_needs_a_prediction_for_each_row():
    with pytest.raises(ValueError, match="one entry per row. Received: 3, 2 and 3"):
        bootstrap_interval(accuracy, [0, 1, 1], [0, 1])


@pytest.mark.parametrize("tails", ["normal", "heavy"])
def test_95_percent_intervals_of_a_difference_of_rmse_hold_the_truth_as_often(tails):
    random = np.random.default_rng(11)
    held = []
    for _ in range(200):
        errors = random.normal(size=(2, 80)) * [[1.0], [1.5]]
        if tails == "heavy":
            # Student's t with 5 degrees of freedom, at unit variance.
            errors *= np.sqrt(3 / random.chisquare(5, size=80))
        squares = errors.T**2

        def statistic(weights, squares=squares):
            first, second = np.sqrt(weights @ squares / weights.sum())
            return first - second

        low, high = bootstrap(statistic, 80, num_resamples=200).interval()
        held.append(low <= -0.5 <= high)
    # Two standard errors of 200 draws are 3 points.
    assert 0.91 <= np.mean(held) <= 0.985
