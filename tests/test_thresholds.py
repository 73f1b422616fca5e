"""Thresholds against every possible cut tried one by one, and numbers worked by hand."""

import itertools

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from kfusion.evidence.thresholds import (
    measure_threshold,
    threshold_by_cost,
    threshold_by_sensitivity,
    threshold_by_specificity,
)

# Two positives among five rows; one negative lies between them.
LABELS = [0, 0, 1, 0, 1]
SCORES = [0.1, 0.2, 0.4, 0.6, 0.8]


def random_rows(seed, decimals):
    generator = np.random.default_rng(seed)
    y = (generator.random(40) < 0.3).astype(int)
    y[:2] = 0, 1
    return y, np.clip(generator.normal(0.4 + 0.15 * y, 0.2), 0, 1).round(decimals)


def every_cut(y, scores, weights):
    """(value, missed, false alarms) of a cut at each score and above all of them."""
    for value in [2.0, *sorted(set(scores.tolist()), reverse=True)]:
        flagged = scores >= value
        yield value, weights[(y == 1) & ~flagged].sum(), weights[(y == 0) & flagged].sum()


CASES = list(itertools.product(range(6), [1, 12], [False, True]))


@pytest.mark.parametrize(("seed", "decimals", "is_weighted"), CASES)
def test_no_other_cut_costs_less(seed, decimals, is_weighted):
    y, scores = random_rows(seed, decimals)
    weights = np.random.default_rng(seed).integers(1, 4, 40) if is_weighted else np.ones(40)
    for miss, alarm in [(1.0, 1.0), (7.0, 0.3), (0.1, 0.7), (1e9, 1.0), (1.0, 1e9), (0.0, 1.0)]:
        found = threshold_by_cost(
            y, scores, false_negative_cost=miss, false_positive_cost=alarm, weights=weights
        )
        costs = [
            miss * missed + alarm * false for _, missed, false in every_cut(y, scores, weights)
        ]
        assert found.cost == pytest.approx(min(costs) / weights.sum(), rel=1e-9)


@pytest.mark.parametrize(("seed", "decimals", "is_weighted"), CASES)
def test_no_other_cut_that_reaches_a_share_is_better_in_the_other(seed, decimals, is_weighted):
    y, scores = random_rows(seed, decimals)
    weights = np.random.default_rng(seed).integers(1, 4, 40) if is_weighted else np.ones(40)
    positives, negatives = weights[y == 1].sum(), weights[y == 0].sum()
    shares = [
        (1 - missed / positives, 1 - false / negatives)
        for _, missed, false in every_cut(y, scores, weights)
    ]
    for share in (0.05, 0.5, 0.8, 0.95, 1.0):
        found = threshold_by_sensitivity(y, scores, sensitivity=share, weights=weights)
        assert found.sensitivity >= share - 1e-12
        best = max(specificity for sensitivity, specificity in shares if sensitivity >= share)
        assert found.specificity == pytest.approx(best)
        found = threshold_by_specificity(y, scores, specificity=share, weights=weights)
        assert found.specificity >= share - 1e-12
        best = max(sensitivity for sensitivity, specificity in shares if specificity >= share)
        assert found.sensitivity == pytest.approx(best)


def test_what_a_threshold_says_of_itself_is_what_scikit_learn_says():
    y, scores = random_rows(0, 12)
    found = threshold_by_cost(y, scores, false_negative_cost=3.0, false_positive_cost=2.0)
    predicted = found.predict(scores)
    (left, alarms), (missed, caught) = confusion_matrix(y, predicted)
    assert found.sensitivity == pytest.approx(recall_score(y, predicted))
    assert found.specificity == pytest.approx(left / (left + alarms))
    assert found.precision == pytest.approx(precision_score(y, predicted))
    assert found.share_flagged == pytest.approx((alarms + caught) / 40)
    assert found.cost == pytest.approx((3 * missed + 2 * alarms) / 40)


def test_thresholds_of_five_rows_worked_by_hand():
    # A dear miss: both positives are caught for one false positive, cut between 0.2 and 0.4.
    dear = threshold_by_cost(LABELS, SCORES, false_negative_cost=5.0, false_positive_cost=1.0)
    assert dear.value == pytest.approx(0.3)
    assert (dear.sensitivity, dear.specificity) == (1.0, pytest.approx(2 / 3))
    assert (dear.precision, dear.share_flagged) == (pytest.approx(2 / 3), 0.6)
    assert dear.cost == pytest.approx(1 / 5)
    # A cheap one: the upper positive alone, cut between 0.6 and 0.8; the other one is missed.
    cheap = threshold_by_cost(LABELS, SCORES, false_negative_cost=1.0, false_positive_cost=5.0)
    assert cheap.value == pytest.approx(0.7)
    assert (cheap.sensitivity, cheap.specificity, cheap.cost) == (0.5, 1.0, pytest.approx(1 / 5))


def test_of_equally_cheap_cuts_the_highest_is_taken():
    # Costs 0.1 for both: 0.3 has one false positive, 0.7 one miss.
    found = threshold_by_cost(LABELS, SCORES, false_negative_cost=0.1, false_positive_cost=0.1)
    assert found.value == pytest.approx(0.7)


def test_rows_of_equal_probability_stay_together():
    # Four rows at 0.5, of which one is positive: all or none.
    y, scores = [0, 0, 0, 1, 1, 0], [0.5, 0.5, 0.5, 0.5, 0.9, 0.1]
    all_four = threshold_by_sensitivity(y, scores, sensitivity=0.6)
    assert (all_four.value, all_four.sensitivity) == (pytest.approx(0.3), 1.0)
    assert all_four.specificity == 0.25
    none = threshold_by_specificity(y, scores, specificity=0.3)
    assert (none.value, none.sensitivity, none.specificity) == (pytest.approx(0.7), 0.5, 1.0)


def test_the_outermost_cuts_lie_between_the_rows_and_0_or_1():
    all_rows = threshold_by_cost(LABELS, SCORES, false_negative_cost=1.0, false_positive_cost=0.0)
    assert all_rows.sensitivity == 1.0
    everything = threshold_by_sensitivity([1, 0, 1], [0.2, 0.4, 0.6], sensitivity=1.0)
    assert (everything.value, everything.share_flagged) == (pytest.approx(0.1), 1.0)
    nothing = threshold_by_specificity([1, 0, 1], [0.2, 0.4, 0.3], specificity=1.0)
    assert (nothing.value, nothing.share_flagged) == (pytest.approx(0.7), 0.0)
    assert np.isnan(nothing.precision)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_certain_rows_can_be_left_and_flagged(dtype):
    y, scores = [0, 1, 0], np.array([1.0, 0.5, 0.0], dtype)
    nothing = threshold_by_specificity(y, scores, specificity=1.0)
    assert not (scores >= nothing.value).any()
    everything = threshold_by_sensitivity([1, 1, 0], scores[::-1], sensitivity=1.0)
    assert everything.value == 0.0
    assert (scores >= everything.value).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neighbours_in_floating_point_are_told_apart(dtype):
    # From 1 down and from 0.3 up, each the next number that the type knows.
    for start in (1.0, 0.3):
        scores = [dtype(start)]
        for _ in range(5):
            scores.append(np.nextafter(scores[-1], dtype(0)))
        scores = np.array(scores, dtype)
        y = np.array([1, 1, 1, 0, 0, 0])
        for order in (slice(None), slice(None, None, -1)):
            found = threshold_by_sensitivity(y[order], scores[order], sensitivity=1.0)
            np.testing.assert_array_equal(scores >= found.value, y == 1)


def test_with_many_calibrated_rows_the_cut_is_the_ratio_of_costs():
    generator = np.random.default_rng(0)
    p = special.expit(generator.normal(-2, 1.5, 200_000))
    y = (generator.random(p.size) < p).astype(int)
    found = threshold_by_cost(y, p, false_negative_cost=9.0, false_positive_cost=1.0)
    assert found.value == pytest.approx(1 / (1 + 9), abs=0.02)
    at_half = measure_threshold(y, p, value=0.5, false_negative_cost=9.0, false_positive_cost=1.0)
    assert found.cost < at_half.cost


def test_weights_count_rows_and_those_of_0_are_not_there():
    weights = [1.0, 1.0, 0.0, 3.0, 1.0]
    found = threshold_by_sensitivity(LABELS, SCORES, sensitivity=1.0, weights=weights)
    # The positive at 0.4 does not count, so the cut lies between 0.6 and 0.8.
    assert (found.value, found.sensitivity) == (pytest.approx(0.7), 1.0)
    measured = measure_threshold(LABELS, SCORES, value=0.5, weights=weights)
    assert measured.specificity == pytest.approx(2 / 5)
    assert measured.share_flagged == pytest.approx(4 / 6)
    assert measured.cost is None


def test_a_column_is_as_good_as_a_row_of_probabilities():
    column = np.array(SCORES)[:, None]
    assert threshold_by_sensitivity(LABELS, column, sensitivity=1.0) == threshold_by_sensitivity(
        LABELS, SCORES, sensitivity=1.0
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": [1] * 5}, "`y` holds one class or value only"),
        ({"y": [0, 1, 2, 0, 1]}, "must hold the labels 0 to 1"),
        ({"y": [0, 1]}, "same number of rows"),
        ({"y": [], "scores": []}, "no rows"),
        ({"scores": [0.1, np.nan, 0.2, 0.3, 0.4]}, "nan in row 1"),
        ({"scores": [0.1, 0.2, 3.0, 0.3, 0.4]}, "must lie in 0 to 1. Received: 3.0 in row 2"),
        ({"scores": np.full((5, 2), 0.5)}, "of two columns take `\\[:, 1\\]`"),
        ({"weights": [1, 1, 1, 1, -1]}, "-1.0 in row 4"),
        ({"sensitivity": 0.0}, "`sensitivity` must be above 0 and at most 1. Received: 0.0"),
        ({"sensitivity": float("nan")}, "Received: nan"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(map(str, value)),
)
def test_bad_rows_and_shares_are_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        threshold_by_sensitivity(
            changes.get("y", LABELS),
            changes.get("scores", SCORES),
            sensitivity=changes.get("sensitivity", 0.9),
            weights=changes.get("weights"),
        )
    if "sensitivity" not in changes:
        with pytest.raises(ValueError, match=message):
            threshold_by_cost(
                changes.get("y", LABELS),
                changes.get("scores", SCORES),
                false_negative_cost=1.0,
                false_positive_cost=1.0,
                weights=changes.get("weights"),
            )


def test_costs_and_values_that_decide_nothing_are_errors():
    with pytest.raises(ValueError, match="One cost at least must be above 0"):
        threshold_by_cost(LABELS, SCORES, false_negative_cost=0.0, false_positive_cost=0.0)
    with pytest.raises(ValueError, match="`false_positive_cost` must be a finite number"):
        threshold_by_cost(LABELS, SCORES, false_negative_cost=1.0, false_positive_cost=-1.0)
    with pytest.raises(ValueError, match="`false_positive_cost` must be .* Received: None"):
        measure_threshold(LABELS, SCORES, value=0.5, false_negative_cost=1.0)
    with pytest.raises(ValueError, match="`specificity` must be above 0 and at most 1"):
        threshold_by_specificity(LABELS, SCORES, specificity=1.1)
    with pytest.raises(ValueError, match="`value` must be a number"):
        measure_threshold(LABELS, SCORES, value=float("nan"))
