"""Small tests against SciPy, hand-worked numbers and simulated truth."""

import numpy as np
import pytest
from scipy import stats

from kfusion.evidence.paired_tests import (
    achieved_power,
    corrected_resampled_ttest,
    holm,
    mcnemar,
    required_rows,
)


def test_corrected_t_of_three_folds_worked_by_hand():
    # Differences 0.1, 0, 0.2: mean 0.1, variance 0.01, times 1 / 3 + 1 / 2.
    test = corrected_resampled_ttest([0.9, 0.8, 0.9], [0.8, 0.8, 0.7], test_fraction=1 / 3)
    assert test.difference == pytest.approx(0.1)
    assert test.standard_error == pytest.approx(np.sqrt(0.01 * 5 / 6))
    assert test.statistic == pytest.approx(np.sqrt(1.2))
    assert test.degrees_of_freedom == 2
    # The distribution function of t with 2 degrees of freedom has a closed form.
    assert test.pvalue == pytest.approx(1 - np.sqrt(1.2) / np.sqrt(2 + 1.2))


def test_reduces_to_the_paired_t_test_when_nothing_is_held_out():
    a, b = np.random.default_rng(0).normal(size=(2, 10))
    ours = corrected_resampled_ttest(a, b, test_fraction=1e-12, confidence=0.9)
    theirs = stats.ttest_rel(a, b)
    assert ours.statistic == pytest.approx(theirs.statistic)
    assert ours.pvalue == pytest.approx(theirs.pvalue)
    assert (ours.low, ours.high) == pytest.approx(theirs.confidence_interval(0.9))


def test_the_more_is_held_out_the_less_sure_is_a_difference():
    a, b = np.random.default_rng(1).normal(size=(2, 10))
    pvalues = [
        corrected_resampled_ttest(a, b, test_fraction=share).pvalue for share in (0.1, 0.2, 0.5)
    ]
    assert stats.ttest_rel(a, b).pvalue < pvalues[0] < pvalues[1] < pvalues[2]


def test_identical_scores_do_not_differ():
    scores = [0.7, 0.8, 0.9]
    test = corrected_resampled_ttest(scores, scores, test_fraction=0.2)
    assert test[:5] == (0, 0, 0, 0, 0)
    assert test.pvalue == 1


def test_the_same_difference_in_all_folds_leaves_no_doubt():
    test = corrected_resampled_ttest([1.0, 2.0], [2.0, 3.0], test_fraction=0.5)
    assert (test.difference, test.standard_error, test.statistic) == (-1, 0, -np.inf)
    assert (test.low, test.high, test.pvalue) == (-1, -1, 0)


def test_the_corrected_t_keeps_its_level_where_the_plain_one_does_not():
    # Two features tell the classes apart alike; ten folds of two repeats, nearest centroids.
    random = np.random.default_rng(2)
    y = np.arange(60) % 2
    rejected = []
    for _ in range(300):
        x = random.normal(size=(60, 2)) + y[:, None]
        scores = []
        for _ in range(2):
            folds = random.permutation(np.arange(30) % 5).repeat(2)
            for fold in range(5):
                train, test = folds != fold, folds == fold
                middle = (x[train & (y == 1)].mean(axis=0) + x[train & (y == 0)].mean(axis=0)) / 2
                scores.append(((x[test] > middle) == y[test, None]).mean(axis=0))
        a, b = np.transpose(scores)
        corrected = corrected_resampled_ttest(a, b, test_fraction=0.2).pvalue
        rejected.append([corrected < 0.05, stats.ttest_rel(a, b).pvalue < 0.05])
    corrected, plain = np.mean(rejected, axis=0)
    assert corrected < 0.08
    assert plain > 0.12


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([1, 2], [1, 2, 3]), {}, "entry for each fold. Received: scores_a.shape=\\(2,\\)"),
        (([[1, 2]], [[1, 2]]), {}, "entry for each fold"),
        (([1], [2]), {}, "at least 2 folds. Received: 1"),
        (([1, 2, 3], [1, np.nan, 3]), {}, "`scores_b` is nan in fold 1"),
        (([1, 2], [2, 3]), {"test_fraction": 0.0}, "`test_fraction` must be in \\(0, 1\\)"),
        (([1, 2], [2, 3]), {"test_fraction": 10}, "Received: test_fraction=10"),
        (([1, 2], [2, 3]), {"confidence": 1.0}, "`confidence` must be in \\(0, 1\\)"),
    ],
)
def test_bad_folds_are_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        corrected_resampled_ttest(*arguments, **{"test_fraction": 0.2, **options})


def test_mcnemar_of_six_rows_worked_by_hand():
    # Five rows that only a has right, one that only b has: 2 (1 + 6) / 2^6.
    test = mcnemar([0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0], [1, 1, 1, 0, 0, 1])
    assert test == (5, 1, pytest.approx(14 / 64))


@pytest.mark.parametrize("accuracies", [(0.8, 0.8), (0.9, 0.7), (0.5, 0.95)])
def test_mcnemar_is_the_binomial_test_of_the_rows_on_which_models_differ(accuracies):
    random = np.random.default_rng(3)
    y = random.integers(3, size=200)
    a, b = (np.where(random.random(200) < share, y, (y + 1) % 3) for share in accuracies)
    only_a, only_b = np.sum((a == y) & (b != y)), np.sum((a != y) & (b == y))
    test = mcnemar(y, a, b)
    assert (test.only_a_right, test.only_b_right) == (only_a, only_b)
    assert test.pvalue == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
    assert mcnemar(y, b, a) == (only_b, only_a, test.pvalue)


def test_models_right_on_the_same_rows_do_not_differ():
    # Both are wrong in row 0, in different ways.
    assert mcnemar(list("abc"), list("bbc"), list("cbc")) == (0, 0, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [0, 1], [0]), "entry for each row. Received: .*predicted_b.shape=\\(1,\\)"),
        (([], [], []), "entry for each row"),
        (([0, 1], [0.0, np.nan], [0, 1]), "`predicted_a` is nan in row 1"),
    ],
)
def test_bad_predictions_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        mcnemar(*arguments)


def test_holm_of_four_tests_worked_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04, times 4, 3, 2, 1: 0.04, 0.06, 0.06, and not 0.04 but 0.06.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    named = {"image": 0.04, "table": 0.01, "both": 0.03, "none": 0.02}
    expected = {"image": 0.06, "table": 0.04, "both": 0.06, "none": 0.06}
    assert holm(named) == pytest.approx(expected)


def test_holm_stops_at_1_and_leaves_one_test_alone():
    assert holm([0.6, 0.9]).tolist() == [1.0, 1.0]
    assert holm({"only": 0.03}) == {"only": 0.03}
    assert holm([]).tolist() == []


def test_holm_does_not_count_what_is_not_known():
    adjusted = holm({"a": float("nan"), "b": 0.01, "c": 0.04, "d": float("nan")})
    assert adjusted == pytest.approx({"a": np.nan, "b": 0.02, "c": 0.04, "d": np.nan}, nan_ok=True)


def test_holm_rejects_at_its_level_what_the_stepwise_rule_rejects():
    random = np.random.default_rng(4)
    for _ in range(100):
        pvalues = random.beta(0.3, 3, size=8)
        rejected = np.zeros(8, bool)
        for step, test in enumerate(np.argsort(pvalues)):
            if pvalues[test] > 0.05 / (8 - step):
                break
            rejected[test] = True
        assert ((holm(pvalues) <= 0.05) == rejected).all()


@pytest.mark.parametrize("pvalues", [[0.5, 1.2], [-0.1], [[0.1, 0.2]]])
def test_holm_takes_probabilities_only(pvalues):
    with pytest.raises(ValueError, match="floats from 0 to 1. Received: .*\\["):
        holm(pvalues)


def test_required_rows_of_a_difference_of_two_errors_worked_by_hand():
    # (1.959964 + 0.841621)^2 = 7.84888, over 2^2.
    assert required_rows(0.02, 0.01, 1000) == pytest.approx(1962.22, abs=0.01)
    assert required_rows(-0.02, 0.01, 1000) == required_rows(0.02, 0.01, 1000)
    assert required_rows(0.0, 0.01, 1000) == np.inf
    assert required_rows(0.1, 0.0, 1000) == 0


@pytest.mark.parametrize("power", [0.5, 0.8, 0.99])
def test_as_many_rows_as_required_have_the_power_that_was_asked_for(power):
    rows = required_rows(0.03, 0.02, 500, power=power, alpha=0.01)
    error = 0.02 * np.sqrt(500 / rows)
    assert achieved_power(0.03, error, alpha=0.01) == pytest.approx(power, abs=1e-6)


def test_power_is_how_often_draws_are_significant():
    draws = np.random.default_rng(5).normal(0.015, 0.01, size=200_000)
    significant = 2 * stats.norm.sf(np.abs(draws / 0.01)) < 0.05
    assert achieved_power(0.015, 0.01) == pytest.approx(significant.mean(), abs=0.004)


def test_power_goes_from_the_level_to_1():
    assert achieved_power(0.0, 0.01, alpha=0.1) == 0.1
    assert achieved_power(1e-9, 0.01, alpha=0.1) == pytest.approx(0.1)
    assert achieved_power(0.1, 0.0) == 1
    assert achieved_power(-0.05, 0.01) == achieved_power(0.05, 0.01) > 0.99


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: required_rows(np.nan, 0.1, 10), "`difference` must be finite"),
        (lambda: required_rows(0.1, -0.1, 10), "standard_error=-0.1"),
        (lambda: required_rows(0.1, 0.1, 10, power=1.0), "`power` must be in \\(0, 1\\)"),
        (lambda: required_rows(0.1, 0.1, 10, alpha=5), "Received: alpha=5"),
        (lambda: achieved_power(0.1, np.inf), "`standard_error` finite"),
        (lambda: achieved_power(0.1, 0.1, alpha=0.0), "`alpha` must be in \\(0, 1\\)"),
    ],
)
def test_bad_numbers_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
