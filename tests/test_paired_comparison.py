"""Two sets of predictions: the verdict, its numbers, and the rows it would need."""

import math

import numpy as np
import pytest
from scipy import stats

from kfusion import metrics
from kfusion.evidence.bootstrap import UndefinedStatisticError
from kfusion.evidence.delong import delong_test
from kfusion.evidence.estimates import JudgedRows, estimate
from kfusion.evidence.paired_comparison import compare_folds, compare_predictions
from kfusion.tasks import task

RANDOM = np.random.default_rng(0)
Y = RANDOM.integers(2, size=400)
A = Y + RANDOM.normal(size=400)
B = Y + 2 * RANDOM.normal(size=400)


def as_probabilities(scores):
    return 1 / (1 + np.exp(-scores))


def test_the_auc_is_compared_by_delongs_test():
    result, expected = compare_predictions(Y, A, B), delong_test(Y, A, B)
    assert result.method == "DeLong"
    assert result.difference == pytest.approx(expected.difference, abs=1e-12)
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert result.pvalue == pytest.approx(expected.pvalue, abs=1e-12)
    assert (result.score_a, result.score_b) == pytest.approx((expected.area_a, expected.area_b))


def test_bootstrap_and_delong_agree():
    result = compare_predictions(Y, A, A + 0.6 * B)
    assert result.pvalues["bootstrap"] == pytest.approx(result.pvalues["delong"], abs=0.05)
    by_bootstrap = compare_predictions(Y, A, B, score="average_precision")
    assert by_bootstrap.method == "paired bootstrap"
    assert by_bootstrap.low < by_bootstrap.difference < by_bootstrap.high


def test_the_interval_of_an_rmse_difference_is_that_of_theory():
    y = RANDOM.normal(size=2000)
    a, b = y + RANDOM.normal(size=2000), y + 1.1 * RANDOM.normal(size=2000)
    result = compare_predictions(y, a, b)
    # An RMSE is the root of a mean of squares: its error by the delta method.
    parts = (y - a) ** 2 / (2 * result.score_a) - (y - b) ** 2 / (2 * result.score_b)
    expected = parts.std(ddof=1) / math.sqrt(2000)
    assert result.standard_error == pytest.approx(expected, rel=0.1)
    assert result.gain == -result.difference > 0


def test_more_than_two_classes_are_compared_class_by_class():
    y = RANDOM.integers(3, size=300)
    logits = np.eye(3)[y] * 2 + RANDOM.normal(size=(300, 3))
    a = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    b = np.roll(a, 1, axis=0)
    result = compare_predictions(y, a, b)
    assert result.method == "DeLong"
    assert result.score_a == pytest.approx(metrics.macro_roc_auc(y, a))
    assert result.is_shown
    assert result.pvalues["bootstrap"] < 0.01


def test_groups_widen_the_interval_of_rows_that_repeat_each_other():
    y, a, b = (np.repeat(values[:100], 4) for values in (Y, A, B))
    rows = compare_predictions(y, a, b)
    groups = compare_predictions(y, a, b, groups=np.repeat(np.arange(100), 4))
    honest = compare_predictions(Y[:100], A[:100], B[:100])
    assert rows.standard_error == pytest.approx(honest.standard_error / 2, rel=0.05)
    assert groups.standard_error == pytest.approx(honest.standard_error, rel=0.05)
    assert groups.unit == "groups with positives"
    assert groups.count == Y[:100].sum()
    assert "mcnemar" not in groups.pvalues


class TestVerdict:
    def test_no_evidence_says_how_many_positives_would_be_needed(self):
        generator = np.random.default_rng(1)
        y = np.repeat([0, 1], [950, 50])
        common = y + generator.normal(size=1000)
        a, b = (common + 0.3 * generator.normal(size=1000) for _ in range(2))
        result = compare_predictions(y, a, b, names=("fused", "image only"))
        assert not result.is_shown
        reach = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * result.standard_error
        assert result.needed == pytest.approx(50 * (reach / result.difference) ** 2)
        assert result.verdict.startswith(f"fused {result.score_a:.3f} against image only ")
        assert "no evidence of a difference with 50 positives; about " in result.verdict
        assert "would be needed to show one of this size with a power of 80 %" in result.verdict

    @pytest.mark.parametrize(("a", "b", "word"), [(A, B, "better"), (B, A, "worse")])
    def test_evidence_says_which_way(self, a, b, word):
        result = compare_predictions(Y, a, b, names=("mine", "theirs"))
        assert f"evidence that mine is {word} with" in result.verdict

    def test_less_is_better_for_errors(self):
        y = RANDOM.normal(size=300)
        result = compare_predictions(y, y + 0.1 * RANDOM.normal(size=300), y + 1.0)
        assert result.difference < 0 < result.gain
        assert "evidence that a is better" in result.verdict

    def test_a_model_beside_itself(self):
        result = compare_predictions(Y, A, A)
        assert result.difference == 0
        assert result.pvalues == {"bootstrap": 1.0, "delong": 1.0}
        assert math.isinf(result.needed)
        assert "no evidence of a difference with" in result.verdict
        assert "needed" not in result.verdict
        assert result.to_dict()["needed"] is None

    def test_power_of_a_difference_of_two_standard_errors(self):
        result = compare_predictions(Y, A, A + 0.6 * B)
        shift = abs(result.difference) / result.standard_error
        expected = stats.norm.cdf(shift - 1.959964) + stats.norm.cdf(-shift - 1.959964)
        assert result.power == pytest.approx(expected, abs=1e-5)


def test_probabilities_are_also_compared_by_the_classes_they_tell():
    a, b = as_probabilities(3 * (A - 0.5)), as_probabilities(3 * (B - 0.5))
    result = compare_predictions(Y, a, b)
    right_a, right_b = (a > 0.5) == Y, (b > 0.5) == Y
    only_a, only_b = np.sum(right_a & ~right_b), np.sum(right_b & ~right_a)
    expected = stats.binomtest(int(only_a), int(only_a + only_b)).pvalue
    assert result.pvalues["mcnemar"] == pytest.approx(expected)
    assert "mcnemar" not in compare_predictions(Y, A, B).pvalues


class TestSeparation:
    """Predictions that are all in order: no variance, but few rows prove little."""

    Y = np.repeat([0, 1], [25, 10])
    # 10 of 10 right, by hand: 0.025 ** (1 / 10) = 0.6915.
    LOW = stats.binomtest(10, 10).proportion_ci(0.95).low

    def test_an_auc_of_1_has_the_exact_interval_of_the_smaller_class(self):
        assert pytest.approx(0.6915, abs=1e-4) == self.LOW
        whole = [JudgedRows(np.arange(35), np.arange(35.0)[None, :, None])]
        halves = [
            JudgedRows(r, r[None, :, None] / 35) for r in (np.arange(35)[i::2] for i in (0, 1))
        ]
        for folds in (whole, halves):
            found = estimate(self.Y, folds, task=task("binary"), score=task("binary").score("auc"))
            assert (found.value, found.method) == (1.0, "Clopper-Pearson")
            assert (found.low, found.high) == pytest.approx((self.LOW, 1.0))

    def test_groups_count_in_place_of_rows(self):
        groups = np.arange(35) // 5
        folds = [JudgedRows(np.arange(35), np.arange(35.0)[None, :, None])]
        binary = task("binary")
        found = estimate(self.Y, folds, task=binary, score=binary.score("auc"), groups=groups)
        # Two groups of positives.
        assert found.low == pytest.approx(stats.binomtest(2, 2).proportion_ci(0.95).low)

    def test_two_that_both_separate_may_differ_by_what_either_may_lack(self):
        result = compare_predictions(self.Y, np.arange(35), np.arange(35) ** 2)
        assert (result.low, result.high) == pytest.approx((self.LOW - 1, 1 - self.LOW))
        assert (result.pvalue, result.is_shown) == (1.0, False)
        assert result.verdict.endswith(
            "difference +0.000, 95 % interval [-0.308, 0.308]: no evidence of a difference with 10 "
            "positives"
        )

    @pytest.mark.parametrize(("rarest", "is_shown"), [(5, False), (6, True)])
    def test_one_that_is_always_right_and_one_that_is_always_wrong(self, rarest, is_shown):
        y = np.repeat([0, 1], [25, rarest])
        result = compare_predictions(y, y, -y)
        # As a coin that falls on one side each time.
        assert result.pvalue == pytest.approx(stats.binomtest(rarest, rarest).pvalue)
        assert result.is_shown == is_shown == (result.low > 0)

    def test_no_scores_of_the_lower_ends_auc_separate_more_often_than_told(self):
        random = np.random.default_rng(0)
        # Each positive row above all negative ones or below all; or all normally distributed.
        steps = np.where(random.random((4000, 10)) < self.LOW, 1.0, -1.0), np.zeros((4000, 25))
        shift = math.sqrt(2) * stats.norm.ppf(self.LOW)
        normal = random.normal(shift, size=(4000, 10)), random.normal(size=(4000, 25))
        rates = [np.mean(up.min(axis=1) > down.max(axis=1)) for up, down in (steps, normal)]
        assert rates[0] == pytest.approx(0.025, abs=0.005)
        assert rates[1] < 0.025


class TestFolds:
    FOLDS = np.array_split(np.arange(400), 4)

    def judged(self, a, b):
        return [JudgedRows(rows, np.stack([a[rows], b[rows]])[:, :, None]) for rows in self.FOLDS]

    def test_models_of_different_folds_are_never_ranked_together(self):
        # The same ranking in each fold, at levels that lie far apart.
        shifted = as_probabilities(A) / 10 + np.repeat([0.1, 0.7, 0.3, 0.5], 100)
        result = compare_folds(
            Y,
            self.judged(shifted, as_probabilities(A)),
            task=task("binary"),
            score=task("binary").score(),
            names=("a", "b"),
        )
        assert result.difference == pytest.approx(0, abs=1e-12)
        assert result.standard_error == pytest.approx(0, abs=1e-12)

    def test_folds_of_their_own_are_independent(self):
        """The variance of a mean of k folds is the sum of theirs over k squared."""
        result = estimate(Y, self.judged(A, B), task=task("binary"), score=task("binary").score())
        errors = [delong_test(Y[r], A[r], B[r]).standard_error for r in self.FOLDS]
        assert result.standard_error == pytest.approx(math.sqrt(np.sum(np.square(errors))) / 4)

    def test_repeats_of_the_same_predictions_add_no_evidence(self):
        once = self.judged(A, B)
        settings = {"task": task("binary"), "score": task("binary").score()}
        single, repeated = (estimate(Y, folds, **settings) for folds in (once, once * 3))
        assert repeated.standard_error == pytest.approx(single.standard_error)

    def test_a_class_of_one_row_has_no_variance_and_is_resampled(self):
        y = np.zeros(40, int)
        y[[3, 25]] = 1
        rows = [np.arange(20), np.arange(20, 40)]
        folds = [JudgedRows(r, RANDOM.random((1, 20, 1))) for r in rows]
        found = estimate(y, folds, task=task("binary"), score=task("binary").score())
        assert found.method == "paired bootstrap"

    def test_the_interval_of_one_auc_keeps_to_1(self):
        y = np.repeat([0, 1], [60, 12])
        scores = y + 0.35 * RANDOM.normal(size=72)
        folds = [JudgedRows(np.arange(72), scores[None, :, None])]
        found = estimate(y, folds, task=task("binary"), score=task("binary").score())
        assert found.value > 0.9
        assert found.low < found.value <= found.high <= 1

    def test_without_an_interval_the_scores_are_told_all_the_same(self, monkeypatch):
        def undefined(*arguments, **settings):
            raise UndefinedStatisticError("a class was drawn too rarely")

        monkeypatch.setattr("kfusion.evidence.estimates.bootstrap", undefined)
        result = compare_predictions(Y, A, B, score="average_precision")
        assert math.isnan(result.low)
        assert result.verdict.endswith("positives: there are too few of them")
        assert result.to_dict()["pvalue"] is None

    def test_a_fold_of_one_class_is_named(self):
        y = np.repeat([0, 1], 20)
        folds = [JudgedRows(np.arange(20), RANDOM.random((1, 20, 1)))]
        with pytest.raises(
            ValueError, match="The score 'auc' is undefined for the test rows of fold 0"
        ):
            estimate(y, folds, task=task("binary"), score=task("binary").score())


@pytest.mark.parametrize(
    ("a", "options", "message"),
    [
        (A[:-1], {}, r"`a` of a binary task must have shape \(400,\) or \(400, 1\) or"),
        (np.where(np.arange(400) == 7, np.nan, A), {}, "`a` is not finite in row 7"),
        (A, {"score": "log_loss"}, "`a` must hold probabilities in 0-1"),
        (np.full((400, 2), 0.3), {}, "`a` must hold probabilities that sum to 1. They sum to 0.6"),
        (A, {"score": "rmse"}, "`score` must be one of .*auc.* for a binary task"),
        (A, {"groups": np.zeros(3)}, "`groups` must have one value for each of 400 rows"),
        (A, {"groups": np.zeros(400)}, "2 groups"),
        (A, {"names": ("m", "m")}, "`names` must be two different names"),
        (A, {"names": ("m",)}, "`names` must be two different names"),
    ],
)
def test_what_cannot_be_compared_is_refused(a, options, message):
    with pytest.raises(ValueError, match=message):
        compare_predictions(Y, a, B, **options)
