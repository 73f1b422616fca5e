"""Scores against scikit-learn, SciPy and hand-worked numbers, with and without weights."""

import functools

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from kfusion import metrics

SEEDS = range(12)
WEIGHTINGS = ["none", "counts", "fractions"]
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(2, size=60)
SMOOTH_SCORES = RANDOM.random(60)
SCORES = {"smooth": SMOOTH_SCORES, "ties": SMOOTH_SCORES.round(1), "constant": np.full(60, 0.3)}
CLASSES = RANDOM.integers(4, size=60)
PROBABILITIES = RANDOM.dirichlet(np.ones(4), size=60)
VALUES = RANDOM.normal(size=60)
PREDICTED = VALUES + RANDOM.normal(size=60)
PAIRS = np.stack([1 - SMOOTH_SCORES, SMOOTH_SCORES], axis=1)
GUESSES = PROBABILITIES.argmax(axis=1)
f1_of_two = functools.partial(metrics.f1, num_classes=2)
f1_of_four = functools.partial(metrics.f1, num_classes=4)

# Every score with rows that it takes.
ALL = [
    (metrics.roc_auc, LABELS, SCORES["ties"]),
    (metrics.average_precision, LABELS, SCORES["ties"]),
    (metrics.sensitivity_at_specificity, LABELS, SCORES["ties"]),
    (metrics.macro_roc_auc, CLASSES, PROBABILITIES.round(1)),
    (metrics.weighted_roc_auc, CLASSES, PROBABILITIES.round(1)),
    (metrics.log_loss, CLASSES, PROBABILITIES),
    (metrics.brier, LABELS, PAIRS),
    (metrics.brier, CLASSES, PROBABILITIES),
    (metrics.expected_calibration_error, LABELS, PAIRS),
    (metrics.expected_calibration_error, CLASSES, PROBABILITIES),
    (metrics.accuracy, CLASSES, GUESSES),
    (metrics.balanced_accuracy, CLASSES, GUESSES),
    (f1_of_two, LABELS, SMOOTH_SCORES > 0.4),
    (f1_of_four, CLASSES, GUESSES),
    (metrics.root_mean_squared_error, VALUES, PREDICTED),
    (metrics.mean_absolute_error, VALUES, PREDICTED),
    (metrics.r2, VALUES, PREDICTED),
]
NAMES = [f"{getattr(score, 'func', score).__name__}-{y.max():.3g}" for score, y, _ in ALL]
every_score = pytest.mark.parametrize(("score", "y", "predictions"), ALL, ids=NAMES)


def draw_weights(weighting, random, rows):
    """None, draws of a bootstrap, or fractions; the latter two with zeros among them."""
    if weighting == "none":
        return None
    weights = random.poisson(1, rows).astype(float)
    return weights if weighting == "counts" else weights * random.random(rows)


def draw_case(seed, weighting, num_classes=2):
    """Few rows with every class among those that count: labels, probabilities, weights."""
    random = np.random.default_rng(seed)
    rows = int(random.integers(3 * num_classes, 40))
    y = np.append(np.arange(num_classes), random.integers(num_classes, size=rows - num_classes))
    probabilities = random.dirichlet(np.ones(num_classes), size=rows)
    weights = draw_weights(weighting, random, rows)
    if weights is not None:
        weights[:num_classes] += 0.5 if weighting == "fractions" else 1
    return y, probabilities, weights


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
def test_auc_is_the_share_of_pairs_ranked_right_as_in_the_mann_whitney_test(scores):
    positive, negative = scores[LABELS == 1], scores[LABELS == 0]
    statistic = stats.mannwhitneyu(positive, negative).statistic
    expected = statistic / (positive.size * negative.size)
    assert metrics.roc_auc(LABELS, scores) == pytest.approx(expected, abs=1e-12)


def test_auc_of_four_rows_worked_by_hand():
    # Positives 0.6 and 0.8 against negatives 0.4 and 0.6: three pairs right, one a tie.
    assert metrics.roc_auc(np.array([0, 1, 0, 1]), np.array([0.4, 0.6, 0.6, 0.8])) == 3.5 / 4


def test_auc_of_weighted_rows_worked_by_hand():
    # The positive ranks above the negative of weight 3 and below that of weight 1.
    y, scores = np.array([0, 1, 0]), np.array([0.1, 0.5, 0.9])
    assert metrics.roc_auc(y, scores, np.array([3.0, 7.0, 1.0])) == 3 / 4


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("decimals", [1, 12])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (metrics.roc_auc, sklearn_metrics.roc_auc_score),
        (metrics.average_precision, sklearn_metrics.average_precision_score),
    ],
)
def test_ranking_scores_are_those_of_scikit_learn(ours, theirs, decimals, weighting):
    for seed in SEEDS:
        y, probabilities, weights = draw_case(seed, weighting)
        scores = probabilities[:, 1].round(decimals)
        expected = theirs(y, scores, sample_weight=weights)
        assert ours(y, scores, weights) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("decimals", [1, 12])
def test_macro_auc_is_the_mean_of_those_of_scikit_learn(decimals, weighting):
    for seed in SEEDS:
        y, probabilities, weights = draw_case(seed, weighting, num_classes=4)
        rounded = probabilities.round(decimals)
        areas = [
            sklearn_metrics.roc_auc_score(y == k, rounded[:, k], sample_weight=weights)
            for k in range(4)
        ]
        expected = pytest.approx(np.mean(areas), abs=1e-12)
        assert metrics.macro_roc_auc(y, rounded, weights) == expected


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weighted_auc_is_that_of_scikit_learn(weighting):
    for seed in SEEDS:
        y, probabilities, weights = draw_case(seed, weighting, num_classes=4)
        expected = sklearn_metrics.roc_auc_score(
            y, probabilities, multi_class="ovr", average="weighted", sample_weight=weights
        )
        ours = metrics.weighted_roc_auc(y, probabilities, weights)
        assert ours == pytest.approx(expected, abs=1e-12)


def test_macro_auc_leaves_out_classes_without_rows():
    y = np.where(CLASSES == 3, 0, CLASSES)
    areas = [sklearn_metrics.roc_auc_score(y == k, PROBABILITIES[:, k]) for k in range(3)]
    assert metrics.macro_roc_auc(y, PROBABILITIES) == pytest.approx(np.mean(areas), abs=1e-12)


@pytest.mark.parametrize("score", [metrics.macro_roc_auc, metrics.weighted_roc_auc])
def test_a_class_of_weightless_rows_is_absent_from_mean_auc(score):
    there = CLASSES != 3
    expected = score(CLASSES[there], PROBABILITIES[there])
    assert score(CLASSES, PROBABILITIES, there.astype(float)) == pytest.approx(expected, abs=1e-12)


def test_auc_depends_on_ranks_alone():
    scores = SCORES["ties"]
    ranks = np.unique(scores, return_inverse=True)[1].astype(np.uint16)
    assert metrics.roc_auc(LABELS, ranks) == metrics.roc_auc(LABELS, scores)
    order = np.argsort(scores)
    assert metrics.roc_auc(LABELS[order], scores[order]) == metrics.roc_auc(LABELS, scores)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("specificity", [0, 0.5, 0.75, 0.9, 1])
def test_sensitivity_is_the_best_point_of_the_roc_curve_of_scikit_learn(specificity, weighting):
    for seed in SEEDS:
        y, probabilities, weights = draw_case(seed, weighting)
        scores = probabilities[:, 1].round(1)
        false_rates, true_rates, _ = sklearn_metrics.roc_curve(
            y, scores, sample_weight=weights, drop_intermediate=False
        )
        expected = true_rates[1 - false_rates >= specificity - 1e-9].max()
        ours = metrics.sensitivity_at_specificity(y, scores, weights, specificity=specificity)
        assert ours == pytest.approx(expected, abs=1e-12)


def test_a_specificity_that_is_met_exactly_counts_as_met():
    # Ten negatives, of which one outranks the positives: a specificity of 0.9.
    y = np.repeat([0, 1, 0], [9, 3, 1])
    assert metrics.sensitivity_at_specificity(y, np.arange(13), specificity=0.9) == 1
    assert metrics.sensitivity_at_specificity(y, np.arange(13), specificity=0.91) == 0
    # So it does where the sums of weights are a last bit off.
    assert metrics.sensitivity_at_specificity(y, np.arange(13), np.full(13, 1 / 3)) == 1


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_scores_of_classes_are_those_of_scikit_learn(weighting):
    for seed in SEEDS:
        y, probabilities, weights = draw_case(seed, weighting, num_classes=4)
        predicted = probabilities.argmax(axis=1)
        there = slice(None) if weights is None else weights > 0
        rows = (y[there], predicted[there])
        given = {"sample_weight": None if weights is None else weights[there]}
        pairs = [
            (metrics.accuracy, sklearn_metrics.accuracy_score(*rows, **given)),
            (metrics.balanced_accuracy, sklearn_metrics.balanced_accuracy_score(*rows, **given)),
            (f1_of_four, sklearn_metrics.f1_score(*rows, average="macro", **given)),
        ]
        for ours, expected in pairs:
            assert ours(y, predicted, weights) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_f1_of_two_classes_is_that_of_the_positive_one(weighting):
    for seed in SEEDS:
        y, probabilities, weights = draw_case(seed, weighting)
        predicted = probabilities.argmax(axis=1)
        expected = sklearn_metrics.f1_score(y, predicted, sample_weight=weights)
        assert f1_of_two(y, predicted, weights) == pytest.approx(expected, abs=1e-12)


def test_macro_f1_of_a_class_that_is_only_predicted_is_zero_and_of_an_unseen_one_left_out():
    # Class 0: 2 right of 3 true and 2 predicted, 0.8; class 1: 0; classes 2 and 3: unseen.
    y, predicted = np.array([0, 0, 0]), np.array([0, 0, 1])
    assert f1_of_four(y, predicted) == pytest.approx(0.4)
    assert sklearn_metrics.f1_score(y, predicted, average="macro") == pytest.approx(0.4)


def test_balanced_accuracy_leaves_out_classes_that_are_only_predicted():
    y, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    assert metrics.balanced_accuracy(y, predicted) == 0.75


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("num_classes", [2, 4])
def test_scores_of_probabilities_are_those_of_scikit_learn(num_classes, weighting):
    labels = range(num_classes)
    for seed in SEEDS:
        y, probabilities, weights = draw_case(seed, weighting, num_classes)
        given = {"labels": labels, "sample_weight": weights}
        pairs = [
            (metrics.log_loss, sklearn_metrics.log_loss(y, probabilities, **given)),
            (metrics.brier, sklearn_metrics.brier_score_loss(y, probabilities, **given)),
        ]
        for ours, expected in pairs:
            assert ours(y, probabilities, weights) == pytest.approx(expected, abs=1e-12)


def test_brier_score_is_halved_for_two_classes_only():
    # One row, said to be of its class with 0.6: 0.4 squared, or that and what went elsewhere.
    assert metrics.brier(np.array([1]), np.array([[0.4, 0.6]])) == pytest.approx(0.16)
    assert metrics.brier(np.array([1]), np.array([[0.3, 0.6, 0.1]])) == pytest.approx(0.26)


def test_a_wrong_certainty_costs_the_bound_that_keras_uses():
    certain = np.array([[1.0, 0.0]])
    assert metrics.log_loss(np.array([1]), certain) == pytest.approx(-np.log(1e-7))


@pytest.mark.parametrize("num_bins", [1, 5, 15])
def test_calibration_error_is_the_mean_gap_of_the_curve_of_scikit_learn(num_bins):
    def expected(hits, confidences):
        edges = np.linspace(0, 1, num_bins + 1)
        observed, predicted = calibration_curve(hits, confidences, n_bins=num_bins)
        bins = np.searchsorted(edges[1:-1], confidences)
        return abs(observed - predicted) @ np.unique(bins, return_counts=True)[1] / len(hits)

    for seed in SEEDS:
        y, probabilities, _ = draw_case(seed, "none")
        ours = metrics.expected_calibration_error(y, probabilities, num_bins=num_bins)
        assert ours == pytest.approx(expected(y, probabilities[:, 1]), abs=1e-12)
        y, probabilities, _ = draw_case(seed, "none", num_classes=4)
        ours = metrics.expected_calibration_error(y, probabilities, num_bins=num_bins)
        hits = (y == probabilities.argmax(axis=1)).astype(int)
        assert ours == pytest.approx(expected(hits, probabilities.max(axis=1)), abs=1e-12)


def test_calibration_error_worked_by_hand():
    # Of 2 bins, the lower one holds 0.5, its upper edge: predicted 0.3, observed 0.5. The upper
    # one: predicted 0.8, observed 1, of half the weight.
    positive = np.array([0.1, 0.5, 0.8])
    probabilities = np.stack([1 - positive, positive], axis=1)
    error = metrics.expected_calibration_error(np.array([0, 1, 1]), probabilities, num_bins=2)
    assert error == pytest.approx((2 * 0.2 + 1 * 0.2) / 3)
    weights = np.array([1, 1, 0])
    error = metrics.expected_calibration_error(
        np.array([0, 1, 1]), probabilities, weights, num_bins=2
    )
    assert error == pytest.approx(0.2)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (metrics.root_mean_squared_error, sklearn_metrics.root_mean_squared_error),
        (metrics.mean_absolute_error, sklearn_metrics.mean_absolute_error),
        (metrics.r2, sklearn_metrics.r2_score),
    ],
)
def test_scores_of_values_are_those_of_scikit_learn(ours, theirs, weighting):
    for seed in SEEDS:
        weights = draw_weights(weighting, np.random.default_rng(seed), VALUES.size)
        expected = theirs(VALUES, PREDICTED, sample_weight=weights)
        assert ours(VALUES, PREDICTED, weights) == pytest.approx(expected, abs=1e-12)


def test_r2_of_a_constant_target_is_not_a_number():
    # The mean of these differs from each of them in the last bit.
    assert np.isnan(metrics.r2(np.full(3, 0.1), np.array([0.1, 0.2, 0.3])))
    weights = np.array([1, 1, 1, 0])
    assert np.isnan(metrics.r2(np.array([0.1, 0.1, 0.1, 5]), np.arange(4), weights))
    # The squares of these differences are too small for a float.
    assert np.isnan(metrics.r2(np.array([0, 1e-200]), np.arange(2)))


def test_single_precision_is_no_loss():
    y, predicted = VALUES.astype(np.float32) + 1000, PREDICTED.astype(np.float32) + 1000
    expected = sklearn_metrics.r2_score(y.astype(float), predicted.astype(float))
    assert metrics.r2(y, predicted) == pytest.approx(expected, abs=1e-12)


@every_score
def test_weights_are_numbers_of_rows(score, y, predictions):
    counts = np.random.default_rng(1).poisson(1, len(y))
    repeated = score(np.repeat(y, counts), np.repeat(predictions, counts, axis=0))
    assert score(y, predictions, counts) == pytest.approx(repeated, abs=1e-12)


@every_score
def test_only_the_ratios_of_weights_matter(score, y, predictions):
    weights = np.random.default_rng(2).random(len(y))
    expected = pytest.approx(score(y, predictions, weights), abs=1e-12)
    assert score(y, predictions, weights / weights.sum()) == expected
    assert score(y, predictions, np.full(len(y), 3)) == pytest.approx(score(y, predictions))


@every_score
def test_a_row_of_weight_zero_may_hold_anything(score, y, predictions):
    weights = np.append(np.ones(len(y)), 0)
    anything = predictions[:1] if predictions.dtype.kind in "bi" else predictions[:1] * np.nan
    longer = np.append(predictions, anything, axis=0)
    expected = score(y, predictions)
    assert score(np.append(y, y[:1]), longer, weights) == pytest.approx(expected, abs=1e-12)


@every_score
def test_a_score_of_no_rows_is_not_a_number(score, y, predictions):
    assert np.isnan(score(y, predictions, np.zeros(len(y))))
    assert np.isnan(score(y[:0], predictions[:0]))


@every_score
def test_scores_are_plain_floats(score, y, predictions):
    assert type(score(y, predictions)) is float
    assert type(score(y, predictions, np.ones(len(y)))) is float


@pytest.mark.parametrize("label", [0, 1])
def test_ranking_scores_of_one_class_are_not_numbers(label):
    y, scores = np.full(3, label), np.arange(3)
    assert np.isnan(metrics.roc_auc(y, scores))
    assert np.isnan(metrics.sensitivity_at_specificity(y, scores))
    assert np.isnan(metrics.macro_roc_auc(y, PROBABILITIES[:3]))
    assert np.isnan(metrics.weighted_roc_auc(y, PROBABILITIES[:3]))


def test_average_precision_needs_positives_only():
    assert np.isnan(metrics.average_precision(np.zeros(3), np.arange(3)))
    assert metrics.average_precision(np.ones(3), np.arange(3)) == 1


def test_weightless_rows_make_no_second_class():
    y, scores, weights = np.array([0, 1, 1]), np.array([0.1, 0.2, 0.3]), np.array([0, 2, 1])
    assert np.isnan(metrics.roc_auc(y, scores, weights))
    assert np.isnan(metrics.average_precision(1 - y, scores, weights))


def test_f1_without_a_positive_row_or_prediction_is_not_a_number():
    assert np.isnan(f1_of_two(np.zeros(3, int), np.zeros(3, int)))
    assert f1_of_two(np.zeros(3, int), np.ones(3, int)) == 0


class TestShapes:
    Y = np.array([0, 1, 1, 0, 1])
    SCORES = np.array([0.2, 0.7, 0.4, 0.5, 0.9])

    @pytest.mark.parametrize("score", [metrics.roc_auc, metrics.average_precision])
    def test_a_column_is_its_rows(self, score):
        assert score(self.Y, self.SCORES[:, None]) == score(self.Y[:, None], self.SCORES)
        assert score(self.Y[:, None], self.SCORES) == score(self.Y, self.SCORES)

    def test_a_column_of_values_is_not_set_against_a_row_of_targets(self):
        errors = self.Y - self.SCORES
        found = metrics.root_mean_squared_error(self.Y, self.SCORES[:, None])
        assert found == pytest.approx(np.sqrt(np.mean(errors**2)), abs=1e-12)

    @pytest.mark.parametrize(
        ("y", "scores", "weights"),
        [
            (Y, SCORES[:-1], None),
            (Y, SCORES, np.ones(4)),
            (np.eye(2)[Y], SCORES, None),
        ],
        ids=["predictions", "weights", "one-hot"],
    )
    @pytest.mark.parametrize("score", [metrics.roc_auc, metrics.mean_absolute_error])
    def test_other_lengths_are_refused(self, score, y, scores, weights):
        with pytest.raises(ValueError, match=r"must have shape \(rows,\)"):
            score(y, scores, weights)
