"""DeLong's test against published numbers, its definition pair by pair, and simulated truth."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from kfusion.evidence.delong import (
    area_interval,
    auc_influence,
    combine_influences,
    covariance_of,
    degrees_of_freedom,
    delong_test,
    influence_test,
)

# Patients of DeLong, DeLong & Clarke-Pearson, 1988, with complete records, as in the SAS/STAT
# User's Guide, PROC LOGISTIC, "Comparing Receiver Operating Characteristic Curves": albumin, total
# protein, Krebs-Goplerud score, and 0 for the event. Lower proteins and higher scores tell of it.
RECORDS = """
    3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0
    1.6 5.6 5 1   3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1
    4.3 7.0 4 1   3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1
    3.0 4.7 8 0   4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1
    3.2 5.1 5 1   2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1
    3.5 6.2 5 1   2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1
    3.6 6.6 5 1
"""
PATIENTS = np.array(RECORDS.split(), float).reshape(-1, 4)
EVENT = (PATIENTS[:, 3] == 0).astype(int)
ALBUMIN, PROTEIN, SCORE = -PATIENTS[:, 0], -PATIENTS[:, 1], PATIENTS[:, 2]


def draw_scores(random, rows, positives, areas, correlation=0.5):
    """Labels, and scores of two models with these AUCs, normal in both classes."""
    y = (np.arange(rows) < positives).astype(int)
    first, second = random.normal(size=(2, rows))
    scores = np.stack([first, correlation * first + np.sqrt(1 - correlation**2) * second])
    return y, scores + y * np.sqrt(2) * stats.norm.ppf(areas)[:, None]


def covariance_pair_by_pair(y, scores):
    """Areas and covariance straight from the paper's definitions."""
    positive, negative = scores[:, y == 1], scores[:, y == 0]
    wins = (positive[:, :, None] > negative[:, None, :]) + 0.5 * (
        positive[:, :, None] == negative[:, None, :]
    )
    of_positive, of_negative = wins.mean(axis=2), wins.mean(axis=1)
    covariance = np.cov(of_positive) / positive.shape[1] + np.cov(of_negative) / negative.shape[1]
    return wins.mean(axis=(1, 2)), covariance


def test_areas_and_errors_of_the_patients_of_1988_are_those_that_sas_prints():
    areas, influence = auc_influence(EVENT, np.stack([ALBUMIN, SCORE, PROTEIN]))
    assert areas == pytest.approx([0.7366, 0.7258, 0.6478], abs=5e-5)
    errors = np.sqrt(np.diag(covariance_of(influence)))
    assert errors == pytest.approx([0.0927, 0.1028, 0.1000], abs=5e-5)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        # Estimate, standard error, limits, chi-square, p-value against the K-G score.
        (ALBUMIN, (0.0108, 0.0953, -0.1761, 0.1976, 0.0127, 0.9102)),
        (PROTEIN, (-0.0780, 0.1046, -0.2830, 0.1271, 0.5554, 0.4561)),
    ],
    ids=["albumin", "protein"],
)
def test_differences_between_the_patients_scores_are_those_that_sas_prints(scores, expected):
    test = delong_test(EVENT, scores, SCORE, reference="normal")
    found = (*test[2:6], test.statistic**2, test.pvalue)
    assert found == pytest.approx(expected, abs=5e-5)


def test_all_three_scores_of_the_patients_differ_as_little_as_sas_prints():
    areas, influence = auc_influence(EVENT, np.stack([ALBUMIN, PROTEIN, SCORE]))
    contrasts = np.array([[1, 0, -1], [0, 1, -1]])
    covariance = contrasts @ covariance_of(influence) @ contrasts.T
    chi_square = contrasts @ areas @ np.linalg.solve(covariance, contrasts @ areas)
    assert chi_square == pytest.approx(2.5340, abs=5e-5)
    assert stats.chi2.sf(chi_square, 2) == pytest.approx(0.2817, abs=5e-5)


def test_contributions_of_four_rows_worked_by_hand():
    # Positives 0.4 and 0.8 against negatives 0.1 and 0.4: V10 is 3/4 and 1, V01 is 1 and 3/4.
    areas, influence = auc_influence([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
    assert areas.tolist() == [0.875]
    assert influence == pytest.approx(np.array([[0.125, -0.125, -0.125, 0.125]]) / np.sqrt(2))
    assert covariance_of(influence) == pytest.approx(1 / 32)


@pytest.mark.parametrize("decimals", [0, 1, 12], ids=["many ties", "ties", "no ties"])
@pytest.mark.parametrize("positives", [2, 20, 55])
def test_areas_and_covariance_are_those_of_the_definition(decimals, positives):
    y, scores = draw_scores(np.random.default_rng(0), 60, positives, [0.8, 0.7])
    y, scores = np.roll(y, 7), np.roll(scores, 7, axis=1).round(decimals)
    areas, influence = auc_influence(y, scores)
    expected_areas, expected_covariance = covariance_pair_by_pair(y, scores)
    assert areas == pytest.approx(expected_areas, abs=1e-14)
    assert areas == pytest.approx([sklearn_metrics.roc_auc_score(y, row) for row in scores])
    assert covariance_of(influence) == pytest.approx(expected_covariance, abs=1e-14)


def test_the_standard_error_is_about_that_of_a_bootstrap():
    random = np.random.default_rng(1)
    y, scores = draw_scores(random, 400, 150, [0.85, 0.75])
    test = delong_test(y, *scores)
    draws = []
    for _ in range(1000):
        rows = random.integers(400, size=400)
        areas, _ = auc_influence(y[rows], scores[:, rows])
        draws.append(areas[0] - areas[1])
    assert test.standard_error == pytest.approx(np.std(draws), rel=0.06)


@pytest.mark.parametrize("same", [lambda scores: scores, np.exp], ids=["identical", "same order"])
def test_models_that_rank_alike_do_not_differ(same):
    y, scores = draw_scores(np.random.default_rng(2), 50, 20, [0.8, 0.7])
    test = delong_test(y, scores[0], same(scores[0]))
    assert (test.difference, test.standard_error, test.low, test.high) == (0, 0, 0, 0)
    assert (test.statistic, test.pvalue) == (0, 1)


def test_the_second_model_against_the_first_is_the_mirror_image():
    y, scores = draw_scores(np.random.default_rng(3), 80, 30, [0.8, 0.7])
    one, other = delong_test(y, *scores), delong_test(y, *scores[::-1])
    assert (other.low, other.high) == (-one.high, -one.low)
    assert (other.statistic, other.pvalue) == (-one.statistic, one.pvalue)


def test_classes_that_change_places_with_scores_turned_round_give_the_same():
    y, scores = draw_scores(np.random.default_rng(4), 80, 30, [0.8, 0.7])
    assert delong_test(1 - y, *-scores) == pytest.approx(delong_test(y, *scores))


def test_complete_separation_against_none_leaves_no_doubt_and_no_variance():
    test = delong_test([0, 0, 0, 1, 1, 1], [1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1])
    assert (test.area_a, test.area_b, test.standard_error) == (1.0, 0.5, 0.0)
    assert (test.statistic, test.pvalue) == (np.inf, 0.0)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_interval_leaves_out_0_at_the_level_of_the_pvalue(confidence):
    y, scores = draw_scores(np.random.default_rng(5), 60, 12, [0.9, 0.75])
    pvalue = delong_test(y, *scores).pvalue
    assert delong_test(y, *scores, confidence=1 - pvalue).low == pytest.approx(0, abs=1e-12)
    test = delong_test(y, *scores, confidence=confidence)
    reach = stats.t.ppf((1 + confidence) / 2, test.degrees_of_freedom) * test.standard_error
    assert (test.low, test.high) == pytest.approx(
        (test.difference - reach, test.difference + reach)
    )


def test_groups_of_four_rows_worked_by_hand():
    # The contributions 1, -1, 2, -2 sum to 3 and -3 in the two groups: 2 / 1 * (9 + 9).
    influence = np.array([[1.0, -1.0, 2.0, -2.0]])
    assert covariance_of(influence, groups=["x", "y", "x", "y"]).tolist() == [[36.0]]
    assert covariance_of(influence).tolist() == [[10.0]]


def test_groups_of_one_row_are_rows():
    y, scores = draw_scores(np.random.default_rng(6), 50, 20, [0.8, 0.7])
    _, influence = auc_influence(y, scores)
    alone = covariance_of(influence, groups=np.arange(50)[::-1])
    assert alone == pytest.approx(covariance_of(influence) * 50 / 49)
    influence = influence[0]
    assert degrees_of_freedom(influence, np.arange(50)) == degrees_of_freedom(influence)


def test_rows_written_down_twice_in_one_group_are_no_more_rows():
    y, scores = draw_scores(np.random.default_rng(7), 200, 80, [0.8, 0.7])
    once = delong_test(y, *scores)
    twice = delong_test(
        np.tile(y, 2), *np.tile(scores, 2), groups=[f"patient {row}" for row in range(200)] * 2
    )
    assert twice.difference == pytest.approx(once.difference)
    assert twice.standard_error == pytest.approx(once.standard_error, rel=0.01)


def test_a_mean_over_folds_of_different_rows_adds_their_variances():
    random = np.random.default_rng(8)
    parts, variances = [], []
    for fold in range(4):
        y, scores = draw_scores(random, 50, 20, [0.8, 0.7])
        _, influence = auc_influence(y, scores)
        parts.append((np.arange(50) * 4 + fold, influence))
        variances.append(covariance_of(influence))
    combined = combine_influences(parts, 200)
    assert covariance_of(combined) == pytest.approx(np.mean(variances, axis=0) / 4)


def test_the_same_fold_repeated_tells_nothing_new():
    y, scores = draw_scores(np.random.default_rng(9), 50, 20, [0.8, 0.7])
    _, influence = auc_influence(y, scores)
    repeated = combine_influences([(np.arange(50), influence)] * 3, 50)
    assert repeated == pytest.approx(influence, abs=1e-15)


def test_rows_in_no_fold_contribute_nothing():
    combined = combine_influences([([4, 1], np.array([[2.0, 6.0]]))], 5)
    assert combined.tolist() == [[0, 6, 0, 0, 2]]


def test_degrees_of_freedom_of_a_difference_of_means_are_about_those_of_welch():
    # A mean's contributions are deviations over the square root of n (n - 1).
    random = np.random.default_rng(10)
    ours, theirs = [], []
    for _ in range(200):
        samples = random.normal(size=15), 0.5 * random.normal(size=60)
        parts = [
            (sample - sample.mean()) / np.sqrt(len(sample) * (len(sample) - 1))
            for sample in samples
        ]
        ours.append(degrees_of_freedom(np.concatenate(parts)))
        theirs.append(stats.ttest_ind(*samples, equal_var=False).df)
    assert np.median(ours) == pytest.approx(np.median(theirs), rel=0.1)


def test_degrees_of_freedom_lie_between_1_and_the_groups_less_1():
    influence = np.random.default_rng(11).normal(size=1000)
    groups = np.arange(1000) % 10
    assert 7 < degrees_of_freedom(influence, groups) <= 9
    # Nearly all rows are of one group.
    assert degrees_of_freedom(influence, np.maximum(0, np.arange(1000) - 990)) < 1.1
    assert degrees_of_freedom(np.zeros(5)) == np.inf


@pytest.mark.parametrize(
    ("rows", "positives", "areas"),
    [(100, 20, [0.8, 0.8]), (100, 8, [0.85, 0.75]), (300, 150, [0.96, 0.92])],
)
def test_95_percent_intervals_hold_the_truth_as_often_as_that(rows, positives, areas):
    random = np.random.default_rng(12)
    held = []
    for _ in range(500):
        y, scores = draw_scores(random, rows, positives, areas)
        test = delong_test(y, *scores)
        held.append(test.low <= areas[0] - areas[1] <= test.high)
    # Two standard errors of 500 draws are 2 points.
    assert 0.93 <= np.mean(held) <= 0.98


def test_95_percent_intervals_of_grouped_rows_hold_the_truth_but_not_if_groups_are_ignored():
    random = np.random.default_rng(13)
    groups = np.repeat(np.arange(30), random.geometric(0.1, size=30))
    held = []
    for _ in range(400):
        _, shared = draw_scores(random, 30, 0, [0.8, 0.7])
        _, own = draw_scores(random, len(groups), 0, [0.8, 0.7])
        y = (random.normal(size=30)[groups] + random.normal(size=len(groups)) > 0.5).astype(int)
        shift = np.sqrt(2) * stats.norm.ppf([0.8, 0.7])[:, None]
        scores = np.sqrt(0.5) * (shared[:, groups] + own) + y * shift
        tests = delong_test(y, *scores, groups=groups), delong_test(y, *scores)
        held.append([test.low <= 0.1 <= test.high for test in tests])
    grouped, ignored = np.mean(held, axis=0)
    assert 0.92 <= grouped <= 0.98
    assert ignored < 0.85


def test_the_interval_of_an_area_of_1_is_the_exact_binomial_one_of_the_smaller_class():
    areas, influence = auc_influence([0, 0, 0, 1, 1, 1, 1], np.arange(7))
    expected = stats.binomtest(3, 3).proportion_ci(0.9)
    found = area_interval(areas[0], influence[0], smaller_class=3, confidence=0.9)
    assert found == pytest.approx((expected.low, 1.0))
    opposite = area_interval(0.0, influence[0], smaller_class=3, confidence=0.9)
    assert opposite == pytest.approx((0.0, 1 - expected.low))


def test_the_interval_of_an_area_of_many_rows_is_about_symmetric():
    y, scores = draw_scores(np.random.default_rng(15), 4000, 2000, [0.8, 0.8])
    areas, influence = auc_influence(y, scores[0])
    test = influence_test(areas[0], influence[0], reference="normal")
    found = area_interval(areas[0], influence[0], smaller_class=2000)
    assert found == pytest.approx((test.low, test.high), abs=0.001)


def test_95_percent_intervals_of_an_area_near_1_hold_it_and_end_below_1():
    random = np.random.default_rng(16)
    held = []
    for _ in range(400):
        y, scores = draw_scores(random, 100, 20, [0.95, 0.95])
        areas, influence = auc_influence(y, scores[0])
        low, high = area_interval(areas[0], influence[0], smaller_class=20)
        assert 0 < low < high <= 1
        symmetric = influence_test(areas[0], influence[0], reference="normal")
        held.append([low <= 0.95 <= high, symmetric.low <= 0.95 <= symmetric.high])
    ours, usual = np.mean(held, axis=0)
    assert 0.93 <= ours <= 0.98
    assert usual < 0.92


@pytest.mark.parametrize(
    ("area", "options", "message"),
    [
        (1.1, {}, "`area` must be from 0 to 1 .* Received: area=1.1"),
        (0.5, {"smaller_class": 0}, "smaller_class=0"),
        (0.5, {"confidence": 0.0}, "`confidence` must be in \\(0, 1\\)"),
        (0.5, {"groups": ["x"] * 4}, "at least 2 groups"),
    ],
)
def test_bad_areas_are_named(area, options, message):
    with pytest.raises(ValueError, match=message):
        area_interval(area, np.ones(4), **{"smaller_class": 2, **options})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [1, 2], [1, 2, 3]), "y.shape=\\(2,\\), a.shape=\\(2,\\), b.shape=\\(3,\\)"),
        (([0, 1, 1, 2], [1] * 4, [1] * 4), "`y` must hold 0 and 1 only. Received: 2 in row 3"),
        (([0, 0, 0, 1], [1] * 4, [1] * 4), "at least 2 rows of each class. Received: 1 positive"),
        (([1, 1, 1, 1], [1] * 4, [1] * 4), "Received: 4 positive and 0 negative"),
        (([0, 0, 1, 1], [1] * 4, [1, 1, np.nan, 1]), "nan in row 2 of model 1 \\(1 in all\\)"),
        ((list("aabb"), [1] * 4, [1] * 4), "`y` must be \\(rows,\\) numbers"),
        (([0, 0, 1, 1], list("abcd"), list("abcd")), "`scores` must be"),
    ],
    ids=["lengths", "label", "one positive", "one class", "nan", "text labels", "text scores"],
)
def test_bad_rows_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        delong_test(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": ["x"] * 4}, "at least 2 groups"),
        ({"groups": ["x", "y"]}, "one value for each of 4 rows"),
        ({"groups": ["x", None, "y", None]}, "missing in row 1 \\(2 in all\\)"),
        ({"groups": [0.0, 1.0, 2.0, np.nan]}, "missing in row 3"),
        ({"confidence": 95}, "`confidence` must be in \\(0, 1\\). Received: confidence=95"),
        ({"reference": "z"}, "`reference` must be one of"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        delong_test([0, 0, 1, 1], [1, 2, 3, 4], [1, 3, 2, 4], **options)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "at least one pair"),
        ([([0, 1], np.ones((1, 2))), ([0], np.ones((2, 1)))], "Part 1 must have contributions"),
        ([([0, 5], np.ones((1, 2)))], "The rows of part 0 must lie in 0 to 4. Received: 0 to 5"),
    ],
)
def test_parts_that_do_not_fit_are_named(parts, message):
    with pytest.raises(ValueError, match=message):
        combine_influences(parts, 5)


def test_a_test_of_contributions_is_the_test_of_the_scores():
    y, scores = draw_scores(np.random.default_rng(14), 90, 30, [0.8, 0.7])
    areas, influence = auc_influence(y, scores)
    groups = np.arange(90) // 3
    found = influence_test(areas[0] - areas[1], influence[0] - influence[1], groups=groups)
    assert delong_test(y, *scores, groups=groups)[2:] == found
