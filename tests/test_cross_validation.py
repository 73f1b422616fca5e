"""Cross-validation: nothing leaks, nothing is lost, folds come out alike however they are run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_predict

from kfusion.data.fingerprints import OtherWorkError
from kfusion.data.fusion_data import FusionData
from kfusion.tasks import task as make_task
from kfusion.validation.cross_validation import FoldError, cross_validate
from kfusion.validation.finished_parts import fold_name

pytestmark = pytest.mark.usefixtures("eagerly")

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(120, 3))
Y = (X[:, 0] + RANDOM.normal(size=120) > 0).astype(int)


def fit_logistic(x, y):
    return LogisticRegression().fit(x, y)


def run(fit=fit_logistic, x=X, y=Y, **keywords):
    return cross_validate(fit, x, y, **{"folds": 4, "verbose": 0, **keywords})


class Constant:
    """Predicts whatever it was given."""

    def __init__(self, answer):
        self.answer = answer

    def __call__(self, x):
        return np.full(len(x), self.answer) if np.ndim(self.answer) == 0 else self.answer


class TestScores:
    def test_out_of_fold_predictions_are_those_of_scikit_learn(self):
        result = run()
        pairs = [(r.fold.train, r.fold.test) for r in result.folds]
        theirs = cross_val_predict(LogisticRegression(), X, Y, cv=pairs, method="predict_proba")
        np.testing.assert_allclose(result.predictions[:, 0], theirs[:, 1], atol=1e-12)

    def test_each_fold_is_scored_by_itself(self):
        result = run(repeats=2)
        frame = result.to_frame()
        assert len(frame) == 8
        (area,) = frame.loc[frame.fold == 5, "auc"]
        rows = result.folds[5].fold.test
        positive = result.folds[5].predictions[Y[rows] == 1, 0]
        negative = result.folds[5].predictions[Y[rows] == 0, 0]
        assert area == pytest.approx((positive[:, None] > negative).mean())
        assert result.summary().loc["auc", "mean"] == pytest.approx(frame["auc"].mean())

    def test_rows_that_no_fold_judges_have_no_prediction(self):
        result = run(order=np.arange(120), folds=3)
        assert np.isnan(result.predictions[:30]).all()
        assert np.isfinite(result.predictions[30:]).all()

    def test_a_regression(self):
        y = X @ [1.0, 2.0, 3.0] + 5
        result = run(lambda x, y: Ridge(1e-9).fit(x, y), y=y)
        assert result.task.kind == "regression"
        assert result.scores("r2") == pytest.approx([1] * 4)

    def test_models_are_kept_on_request_only(self):
        with pytest.raises(RuntimeError, match="`keep_models=True`"):
            _ = run().models
        assert len(run(keep_models=True).models) == 4


class TestNothingLeaks:
    def test_fit_is_handed_training_rows_alone(self):
        seen = []
        result = run(lambda x, y: seen.append((x, y)) or fit_logistic(x, y))
        for (x, y), fold in zip(seen, result.folds, strict=True):
            np.testing.assert_array_equal(x, X[fold.fold.train])
            np.testing.assert_array_equal(y, Y[fold.fold.train])

    def test_groups_given_reach_the_fit(self):
        data = FusionData(
            np.zeros((40, 2, 2, 1), np.uint8), pd.DataFrame({"n": range(40)}), Y[:40], "binary"
        )
        groups = np.arange(40) // 4

        def fit_and_look(part, y):
            np.testing.assert_array_equal(part.groups, groups[part.rows])
            return Constant(0.5)

        cross_validate(fit_and_look, data, folds=2, groups=groups, verbose=0)

    def test_dicts_and_frames_are_cut_alike(self):
        x = {"a": X, "b": pd.DataFrame(X, columns=list("uvw"))}
        as_dict = run(lambda x, y: Both(x, y), x=x)
        np.testing.assert_allclose(as_dict.predictions, run().predictions, atol=1e-12)

    def test_the_schema_knows_training_rows_only(self):
        # Each row's number is far from all others, and each category is seen once.
        frame = pd.DataFrame({"n": 10.0 ** np.arange(12), "c": [f"c{i}" for i in range(12)]})
        data = FusionData(np.zeros((12, 2, 2, 1), np.uint8), frame, np.arange(12) % 2, "binary")
        schemas = []

        def fit_and_look(part, y):
            schemas.append((part.schema, part.frame))
            assert part.frame["n"].tolist() == (10.0**part.rows).tolist()
            return Constant(0.5)

        cross_validate(fit_and_look, data, folds=3, verbose=0)
        for schema, rows in schemas:
            center = next(column.center for column in schema.numbers)
            assert center == pytest.approx(rows["n"].median())
            assert {name for c in schema.categories for name in c.vocabulary} <= set(rows["c"])


class Both:
    def __init__(self, x, y):
        assert len(x["a"]) == len(x["b"]) == len(y)
        np.testing.assert_array_equal(x["a"], x["b"].to_numpy())
        self.model = fit_logistic(x["a"], y)

    def __call__(self, x):
        return self.model.predict_proba(x["b"].to_numpy())


class TestParallel:
    def test_folds_come_out_alike_in_other_processes(self):
        def fit_noise(x, y):
            return Constant(float(np.random.random()))

        alone = run(fit_noise, repeats=2)
        together = run(fit_noise, repeats=2, n_jobs=2)
        np.testing.assert_array_equal(alone.predictions, together.predictions)
        assert len(np.unique(alone.predictions)) > 8

    @pytest.mark.usefixtures("ray_cluster")
    def test_folds_run_on_a_ray_cluster(self):
        np.testing.assert_array_equal(run(n_jobs=2).predictions, run(n_jobs=1).predictions)

    def test_a_keras_model_trains_alike_in_any_order(self, tmp_path):
        # Imported here: the other tests' worker processes do without Keras.
        import keras

        from kfusion import build_unimodal_model, fit, tabular_branch

        task = make_task("binary", y=Y)

        def fit_network(x, y):
            model = build_unimodal_model(tabular_branch(3, units=4, dropout=0.2), task=task)
            fit(model, x, y, task=task, validation_data=None, epochs=2, verbose=0)
            return model

        x = {"tabular": X.astype("float32")}
        result = run(fit_network, x=x, folds=3, directory=tmp_path, keep_models=True)
        assert all(isinstance(model, keras.Model) for model in result.models)
        # Fold 2 once more, with nothing trained before it in the process's way.
        shutil.rmtree(tmp_path / "fold_002")
        again = run(fit_network, x=x, folds=3, directory=tmp_path, keep_models=True)
        np.testing.assert_array_equal(again.predictions, result.predictions)
        losses = [again.folds[i].history["loss"] for i in range(3)]
        assert losses == [result.folds[i].history["loss"] for i in range(3)]
        first, second = again.mean_history()["loss"]
        assert first == pytest.approx(sum(each[0] for each in losses) / 3)
        assert second == pytest.approx(sum(each[1] for each in losses) / 3)
        (tmp_path / "fold_002" / "model.keras").write_bytes(b"PK")
        with pytest.raises(RuntimeError, match="model.keras cannot be read: .* trained again"):
            run(fit_network, x=x, folds=3, directory=tmp_path, keep_models=True)


class TestDirectory:
    def test_finished_folds_are_not_run_again(self, tmp_path):
        calls = []

        def fit_until(x, y):
            calls.append(len(calls))
            if len(calls) == 3:
                raise MemoryError("killed")
            return fit_logistic(x, y)

        with pytest.raises(FoldError, match="Fold 2 failed. MemoryError: killed"):
            run(fit_until, directory=tmp_path)
        result = run(fit_until, directory=tmp_path)
        assert len(calls) == 5
        np.testing.assert_array_equal(result.predictions, run().predictions)
        run(lambda x, y: pytest.fail("ran again"), directory=tmp_path)

    @pytest.mark.parametrize(
        ("changes", "different"),
        [({"y": 1 - Y}, "data"), ({"folds": 3}, "folds"), ({"seed": 1}, "folds, seed")],
    )
    def test_other_work_is_refused_with_what_differs(self, tmp_path, changes, different):
        run(directory=tmp_path)
        message = f"holds another cross-validation: {different} differ"
        with pytest.raises(ValueError, match=message):
            run(directory=tmp_path, **changes)

    def test_two_processes_do_not_work_in_one_directory(self, tmp_path):
        def fit_and_start_again(x, y):
            run(directory=tmp_path)

        with pytest.raises(FoldError, match="Another process is at work in"):
            run(fit_and_start_again, directory=tmp_path)

    def test_models_that_cannot_be_saved_are_refused(self, tmp_path):
        with pytest.raises(
            TypeError, match="needs Keras models. `fit` returned LogisticRegression"
        ):
            run(directory=tmp_path, keep_models=True)

    def test_kills_lose_no_finished_fold_and_repeat_none(self, tmp_path):
        script = Path(__file__).parents[1] / "benchmarks" / "kill_cross_validation.py"
        done = subprocess.run(
            [sys.executable, script, "--kills", "2", "--folds", "6", "--seconds", "0.3"],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        result = json.loads(done.stdout)
        assert result["kills"] == 2
        assert result["finished_folds_lost"] == 0
        assert result["finished_folds_run_again"] == 0
        assert result["equal_to_undisturbed"]

    def test_a_damaged_fold_is_named(self, tmp_path):
        run(directory=tmp_path)
        (tmp_path / "fold_001" / "predictions.npy").write_bytes(b"")
        with pytest.raises(RuntimeError, match="fold_001 is damaged: remove it"):
            run(directory=tmp_path)

    def test_parts_of_nobody_knows_what_are_refused(self, tmp_path):
        run(directory=tmp_path)
        (tmp_path / "about.json").unlink()
        with pytest.raises(OtherWorkError, match="no about.json says of which"):
            run(directory=tmp_path)

    def test_nothing_is_removed_but_what_a_kill_left(self, tmp_path):
        for folder in (".git", ".venv", ".fold_001.x.unfinished"):
            (tmp_path / folder).mkdir()
        run(directory=tmp_path)
        found = {each.name for each in tmp_path.iterdir() if each.is_dir()}
        assert found == {".git", ".venv", *map(fold_name, range(len(found) - 2))}

    def test_one_changed_label_is_other_data(self, tmp_path):
        x = RANDOM.normal(size=(3000, 2))
        y = np.arange(3000) % 2
        run(x=x, y=y, directory=tmp_path)
        y[[1501, 1502]] = y[[1502, 1501]]
        with pytest.raises(ValueError, match="data, folds differ"):
            run(x=x, y=y, directory=tmp_path)

    def test_what_fit_depends_on_can_be_told(self, tmp_path):
        run(directory=tmp_path, about={"strength": 1})
        with pytest.raises(ValueError, match=r"about \(strength\) differ"):
            run(directory=tmp_path, about={"strength": 2})


def test_a_failure_tells_the_line_of_the_users_code():
    def fit(x, y):
        return LogisticRegression(C="many").fit(x, y)

    line = fit.__code__.co_firstlineno + 1
    wanted = rf"Fold 0 failed. .*\(in fit, test_cross_validation.py, line {line}\)"
    with pytest.raises(FoldError, match=wanted):
        cross_validate(fit, X, Y, folds=3, verbose=0)


def test_a_result_is_short_to_look_at():
    result = cross_validate(lambda x, y: LogisticRegression().fit(x, y), X, Y, folds=3, verbose=0)
    assert repr(result) == f"<CrossValidation of 3 folds: auc {result.scores().mean():.4g}>"
    assert len(repr(result.folds[0])) < 100


class TestWhatFitReturns:
    @pytest.mark.parametrize("n_jobs", [1, 2])
    def test_any_exception_comes_back_as_a_failed_fold(self, n_jobs):
        def stop(x, y):
            # One that would end a loop, and one that cannot be pickled.
            raise StopIteration if n_jobs == 1 else json.JSONDecodeError("odd", "text", 0)

        with pytest.raises(FoldError, match="failed. (StopIteration|JSONDecodeError: odd)"):
            run(stop, n_jobs=n_jobs)

    def test_a_classifier_is_no_regression(self):
        with pytest.raises(FoldError, match="is a classifier; the task is a regression"):
            run(lambda x, y: fit_logistic(x, y > 0), y=X[:, 0])

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (np.nan, "`predictions` is not finite in row 0"),
            (1.5, "must hold probabilities in 0-1. Received: .1.5. in row 0"),
            (
                np.zeros((30, 3)),
                r"\(30,\) or \(30, 1\) or \(30, 2\). Received: \(30, 3\)",
            ),
            (np.full((30, 2), 0.4), "must hold probabilities that sum to 1. They sum to 0.8"),
            (np.zeros(7), r"Received: \(7,\)"),
        ],
    )
    def test_wrong_predictions_are_named_with_their_fold(self, answer, message):
        with pytest.raises(FoldError, match=f"Fold 0 failed. ValueError: .*{message}"):
            run(lambda x, y: Constant(answer))

    def test_a_fit_that_returns_nothing(self):
        with pytest.raises(FoldError, match="`fit` returned nothing"):
            run(lambda x, y: None)

    def test_what_cannot_predict(self):
        with pytest.raises(FoldError, match="must return a Keras model, an object with"):
            run(lambda x, y: "model")

    def test_classes_in_another_order(self):
        with pytest.raises(FoldError, match=r"classes are \['no', 'yes'\]; the task's labels"):
            run(lambda x, y: fit_logistic(x, np.where(y, "yes", "no")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": Y[:-1]}, "All inputs must have the same number of rows: x has 120, y has 119"),
        ({"groups": np.zeros(3)}, "`groups` must have one value for each of 120 rows"),
        ({"y": np.where(Y, 7, 3)}, "not the labels 0, 1, ...: .3.0, 7.0."),
        ({"y": np.full(120, np.nan)}, "`y` is nan in row 0"),
    ],
)
def test_rows_that_do_not_fit_are_refused_before_any_training(changes, message):
    with pytest.raises(ValueError, match=message):
        run(lambda x, y: pytest.fail("trained"), **changes)


def test_targets_must_come_from_somewhere():
    with pytest.raises(TypeError, match="`y` is missing"):
        run(y=None)
