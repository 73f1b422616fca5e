"""Candidates beside each input alone: same folds, an honest reference, failures reported."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

from kfusion import FusionData
from kfusion.data.folds import make_folds
from kfusion.evidence.estimates import JudgedRows, estimate
from kfusion.tasks import task as make_task
from kfusion.validation.baselines import boosted_trees, fused, single_input, standard_single_inputs
from kfusion.validation.comparison import choose_single, compare
from kfusion.validation.cross_validation import CrossValidation, FoldResult

pytestmark = pytest.mark.usefixtures("eagerly")

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(240, 3))
Y = (X.sum(axis=1) + RANDOM.normal(size=240) > 0).astype(int)


class OnColumns:
    """A logistic regression on some columns."""

    def __init__(self, *columns):
        self.columns = list(columns)

    def __call__(self, x, y):
        model = LogisticRegression().fit(x[:, self.columns], y)
        return lambda rows: model.predict_proba(rows[:, self.columns])


SINGLES = {"first": OnColumns(0), "second": OnColumns(1)}


def run(candidates=None, **keywords):
    settings = {"single_inputs": SINGLES, "folds": 4, "verbose": 0, "num_resamples": 200}
    chosen = {"both": OnColumns(0, 1, 2)} if candidates is None else candidates
    return compare(chosen, X, Y, **{**settings, **keywords})


class TestResult:
    def test_what_joins_all_columns_beats_the_best_of_them(self):
        result = run(
            {"both": OnColumns(0, 1, 2), "constant": lambda x, y: lambda r: np.full(len(r), 0.5)}
        )
        assert result.best == "both"
        assert result.pairs["both"].is_shown
        assert "both" in result.verdict
        assert "evidence that both is better" in result.verdict
        assert result.estimates["constant"].value == 0.5
        assert "constant is worse" in result.pairs["constant"].verdict

    def test_candidates_and_single_inputs_meet_the_same_folds(self):
        result = run()
        tests = [[r.fold.test.tolist() for r in cv.folds] for cv in result.results.values()]
        assert tests[0] == tests[1] == tests[2]

    def test_pvalues_are_corrected_for_their_number(self):
        result = run({f"c{i}": OnColumns(0, 1, 2) for i in range(3)})
        raw = result.pairs["c0"].pvalues["delong"]
        assert result.pairs["c0"].pvalue == pytest.approx(min(1, 3 * raw))

    def test_a_frame_json_text_and_a_picture(self, tmp_path):
        result = run(repeats=2)
        frame = result.to_frame()
        assert frame["name"].tolist() == ["first", "second", "both"]
        assert frame["role"].tolist() == ["single input", "single input", "candidate"]
        by_fold = result.results["both"].scores("auc")
        assert frame["mean"][2] == pytest.approx(by_fold.mean())
        assert frame["sd"][2] == pytest.approx(by_fold.std(ddof=1))
        assert frame["low"][2] < frame["mean"][2] < frame["high"][2]
        assert {"p_delong", "p_bootstrap", "p_corrected_t", "p_holm"} <= set(frame)
        about = json.loads(result.to_json())
        assert about["verdict"] == result.verdict
        assert about["candidates"][2]["p_holm"] == result.pairs["both"].pvalue
        assert result.verdict in result.summary()
        result.plot().savefig(tmp_path / "plot.png")
        assert (tmp_path / "plot.png").stat().st_size > 1000

    def test_any_score_of_the_task(self):
        result = run(score="log_loss")
        assert result.score.direction == "min"
        assert result.best == "both"
        assert result.pairs["both"].difference < 0 < result.pairs["both"].gain


class TestBestSingle:
    def results(self, quality):
        """Single inputs whose probabilities are right in the folds named and random elsewhere."""
        generator = np.random.default_rng(1)
        y = np.arange(80) % 2
        task = make_task("binary")
        folds = make_folds(80, folds=4, labels=y)
        singles = {}
        for name, good in quality.items():
            made = []
            for fold in folds:
                truth = y[fold.test] * 0.8 + 0.1
                noise = generator.random(len(fold.test))
                made.append(FoldResult(fold, (truth if fold.number in good else noise)[:, None], 0))
            singles[name] = CrossValidation(task, y, made)
        return singles, task.score()

    def test_it_is_chosen_without_the_rows_that_it_judges(self):
        # "lucky" is perfect on fold 0 alone: only a choice that looks at fold 0 takes it there.
        singles, score = self.results({"lucky": {0}, "steady": {1, 2, 3}})
        chosen, is_nested = choose_single(singles, score)
        assert is_nested
        assert chosen[0] == "steady"

    def test_one_split_leaves_no_other_rows_to_choose_on(self):
        result = run(folds=[(np.arange(160), np.arange(160, 240))])
        assert not result.is_nested
        assert "on the judged rows themselves" in result.summary()
        assert "p_corrected_t" not in result.to_frame()

    def test_the_choice_is_told(self):
        assert "chosen on the other folds' rows" in run().summary()


class TestFailures:
    def crash(self, x, y):
        raise ZeroDivisionError("no more rows")

    def test_a_candidate_that_crashes_is_reported_and_the_others_go_on(self):
        with pytest.warns(UserWarning, match="'broken' failed. Fold 0 failed. ZeroDiv"):
            result = run({"broken": self.crash, "both": OnColumns(0, 1, 2)})
        line = self.crash.__code__.co_firstlineno + 1
        place = f"in crash, test_comparison.py, line {line}"
        message = f"Fold 0 failed. ZeroDivisionError: no more rows ({place})"
        assert result.failures == {"broken": message}
        assert list(result.pairs) == ["both"]
        assert f"broken  failed: {message}" in result.summary()
        assert result.to_frame()["role"].tolist()[-1] == "failed"
        json.loads(result.to_json())

    def test_a_process_that_dies_is_a_failure_too(self):
        with pytest.warns(UserWarning, match="'killed' failed. TerminatedWorkerError"):
            result = run({"killed": lambda x, y: os._exit(1), "both": OnColumns(0)}, n_jobs=2)
        assert list(result.pairs) == ["both"]

    def test_no_single_input_left(self):
        with (
            pytest.warns(UserWarning, match="'only' failed"),
            pytest.raises(RuntimeError, match="No single input came through: .*no more rows"),
        ):
            run(single_inputs={"only": self.crash})

    def test_a_directory_of_other_work_is_no_failure_of_a_candidate(self, tmp_path):
        run(directory=tmp_path)
        with pytest.raises(ValueError, match="holds another cross-validation: folds differ"):
            run(directory=tmp_path, folds=3)


class TestBadInput:
    @pytest.mark.parametrize(
        ("candidates", "keywords", "error", "message"),
        [
            ({"first": OnColumns(0)}, {}, ValueError, "Two candidates are named 'first'"),
            (["multiply", "multiply"], {}, ValueError, "must be different names"),
            ({"a": 3}, {}, TypeError, "Candidate 'a' must be a callable"),
            (
                {"a": OnColumns(0)},
                {"single_inputs": None},
                ValueError,
                "and `single_inputs`: what a",
            ),
            ({"a": OnColumns(0)}, {"single_inputs": {}}, ValueError, "nothing to compare with"),
            ({"a": OnColumns(0)}, {"epochs": 3}, TypeError, r"Nothing takes .* \['epochs'\]"),
            ({"a": OnColumns(0)}, {"score": "rmse"}, ValueError, "`score` must be one of"),
            ({"a": OnColumns(0)}, {"folds": 1}, ValueError, "at least 2 folds"),
            ({"a": OnColumns(0)}, {"confidence": 95}, ValueError, "`confidence` must be in"),
            ({"a": OnColumns(0)}, {"num_resamples": 1}, ValueError, "must be an int of 2 or"),
            ({"the best single input": OnColumns(0)}, {}, ValueError, "rename yours"),
            (["mulitply"], {}, ValueError, "Received: fusion='mulitply'"),
            ([], {}, ValueError, "must be different names"),
        ],
    )
    def test_mistakes_are_told_before_anything_is_fitted(
        self, candidates, keywords, error, message
    ):
        with pytest.raises(error, match=message):
            run(candidates, **keywords)


def odd_data(kind="binary", rows=90):
    """Small images and a table with gaps; both say something of the target."""
    generator = np.random.default_rng(2)
    signal = generator.normal(size=rows)
    images = 128 + 30 * signal[:, None, None, None] + generator.normal(size=(rows, 5, 6, 2)) * 30
    number = signal + generator.normal(size=rows)
    frame = pd.DataFrame(
        {
            "number": np.where(generator.random(rows) < 0.4, np.nan, number),
            "category": generator.choice(["a", "b", None], size=rows),
        }
    )
    y = {
        "binary": (signal > 0).astype(np.int32),
        "multiclass": np.digitize(signal, [-0.5, 0.5]).astype(np.int32),
        "regression": signal.astype(np.float32),
    }[kind]
    names = {"binary": ("no", "yes"), "multiclass": ("low", "middle", "high"), "regression": ()}
    pixels = np.clip(images, 0, 255).astype(np.uint8)
    return FusionData(pixels, frame, y, kind, names[kind], groups=np.arange(rows) // 2)


def test_equal_inputs_are_no_reason_to_call_a_third_one_better():
    """A candidate equal to the better of two like inputs: a mixed reference alone would lose."""
    generator = np.random.default_rng(0)
    better = 0
    for _ in range(20):
        y = np.arange(200) % 2
        x = generator.normal(size=(200, 3)) + 0.8 * y[:, None]
        singles = {f"input {i}": OnColumns(i) for i in range(3)}
        first = compare(
            {"again": OnColumns(0)},
            x,
            y,
            single_inputs=singles,
            folds=5,
            num_resamples=0,
            verbose=0,
        )
        pair = first.pairs["again"]
        better += pair.is_shown and pair.gain > 0
    assert better <= 1


class TestOneGroupPerFold:
    def test_the_folds_are_the_sample(self):
        groups = np.arange(240) // 60
        result = run(groups=groups, score="auc")
        pair = result.pairs["both"]
        assert pair.method == "t over folds"
        differences = result.results["both"].scores() - result.results[result.best_single].scores()
        expected = stats.ttest_1samp(differences, 0).pvalue
        assert pair.pvalues["folds_t"] >= expected - 1e-12
        assert pair.unit == "groups with positives"

    def test_few_groups_in_a_fold_do_not_make_it_surer(self):
        """Groups of equal rows: the variance is that between groups, whatever the folds."""
        generator = np.random.default_rng(3)
        rejections = 0
        for _ in range(60):
            groups = np.repeat(np.arange(32), 4)
            y = np.arange(128) % 2
            noise = generator.normal(size=(2, 32))[:, groups] + generator.normal(size=(2, 128))
            predictions = (y + noise)[:, :, None]
            parts = [np.flatnonzero(groups // 8 == fold) for fold in range(4)]
            folds = [JudgedRows(rows, predictions[:, rows]) for rows in parts]
            kind = make_task("binary")
            found = estimate(
                y, folds, task=kind, score=kind.score(), groups=groups, num_resamples=2
            )
            rejections += found.pvalues["delong"] < 0.05
        assert rejections <= 9

    @pytest.mark.parametrize(("size", "method"), [(60, "t over folds"), (10, "paired bootstrap")])
    def test_fewer_groups_than_a_variance_needs(self, size, method):
        """4 folds of 1 group each, and of 6 groups each."""
        assert run(groups=np.arange(240) // size).pairs["both"].method == method


def test_the_json_says_what_judged_and_with_what():
    about = json.loads(run(groups=np.arange(240) // 2, repeats=2, confidence=0.9).to_json())
    assert about["rows"] == 240
    assert about["class_rows"] == {"0": int(np.sum(Y == 0)), "1": int(np.sum(Y == 1))}
    assert (about["groups"], about["folds"], about["repeats"]) == (120, 8, 2)
    assert (about["confidence"], about["versions"]["numpy"]) == (0.9, np.__version__)


def test_candidates_are_trained_before_what_they_have_to_beat():
    fitted = []

    def noted(name, fit):
        return lambda x, y: fitted.append(name) or fit(x, y)

    singles = {name: noted(name, fit) for name, fit in SINGLES.items()}
    result = run({"both": noted("both", OnColumns(0, 1, 2))}, single_inputs=singles)
    assert fitted[0] == "both"
    assert list(result.results) == ["first", "second", "both"]
    assert repr(result) == f"<Comparison of 3 by auc: {result.verdict}>"


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_fusions_by_name_stand_beside_the_standard_inputs(kind):
    result = compare(["multiply"], odd_data(kind), folds=2, epochs=1, num_resamples=50, verbose=0)
    assert list(result.results) == [
        "image only",
        "table only",
        "table only (boosted trees)",
        "plain concat",
        "multiply",
    ]
    assert not result.failures
    assert list(result.pairs) == ["plain concat", "multiply"]
    assert result.pairs["multiply"].unit.startswith("groups")


class TestBaselines:
    def test_boosted_trees_take_gaps_and_categories_as_they_are(self):
        data = odd_data(rows=300)
        # The category alone tells the class, but only as a category: "b" lies between.
        data.frame["category"] = np.where(data.y == 1, "b", np.where(np.arange(300) % 2, "a", "c"))
        train, test = data[:200].with_schema(), data[200:]
        model = boosted_trees()(train, train.y)
        answers = model.predict_proba(test.with_schema(train.schema))
        assert np.mean(answers.argmax(axis=1) == test.y) == 1

    def test_what_is_no_fusion_data_is_refused_with_what_to_do(self):
        data = odd_data()
        with pytest.raises(TypeError, match="This fits FusionData"):
            boosted_trees()({"image": data.images, "tabular": data.frame}, data.y)

    @pytest.mark.parametrize("make", [single_input, fused])
    def test_a_keyword_that_fit_does_not_take_is_told_at_once(self, make):
        with pytest.raises(TypeError, match=r"does not take the keyword\(s\) \['epoch'\]"):
            make("image" if make is single_input else "concat", epoch=3)
        with pytest.raises(ValueError, match="`validation` must lie in"):
            make("image" if make is single_input else "concat", validation=0.7)

    def test_the_standard_inputs_hand_on_what_fit_takes(self):
        fits = standard_single_inputs(epochs=1, learning_rate=float("nan"))
        data = odd_data()
        with pytest.raises(ValueError, match="`learning_rate` must be above 0"):
            fits["image only"](data, data.y)
