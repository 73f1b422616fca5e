"""KerasTuner's programs on an Optuna study: nothing lost, nothing twice, nothing misleading."""

import collections
import json
import os
import signal
import subprocess
import sys

import keras
import keras_tuner
import numpy as np
import optuna
import pytest

from kfusion import OptunaTuner, analyse, refit
from kfusion.search.oracle import rank_costs

pytestmark = pytest.mark.usefixtures("eagerly")

X = np.random.default_rng(0).normal(size=(96, 4)).astype("float32")
Y = (X[:, 0] + X[:, 1] > 0).astype("int32")
ROWS = {"x": X[:64], "y": Y[:64], "validation_data": (X[64:], Y[64:]), "verbose": 0}
MAXIMISE = keras_tuner.Objective("score", "max")


def build_model(hp):
    """As in KerasTuner's guide."""
    model = keras.Sequential([keras.Input((4,))])
    model.add(keras.layers.Dense(hp.Choice("units", [4, 8]), activation="relu"))
    if hp.Boolean("dropout"):
        model.add(keras.layers.Dropout(0.25))
    model.add(keras.layers.Dense(1, activation="sigmoid"))
    rate = hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")
    model.compile(
        optimizer=keras.optimizers.Adam(rate), loss="binary_crossentropy", metrics=["accuracy"]
    )
    return model


def space(declare):
    hp = keras_tuner.HyperParameters()
    declare(hp)
    return hp


def mixed(hp):
    hp.Choice("kind", ["a", "b", "c"])
    with hp.conditional_scope("kind", ["b"]):
        hp.Int("depth", 1, 3)
    with hp.conditional_scope("kind", ["c"]):
        hp.Float("rate", 1e-4, 1.0, sampling="log")


def finite(hp):
    hp.Choice("a", [1, 2, 3])
    hp.Boolean("b")


class Scored(OptunaTuner):
    """Scores values by a function, without a model."""

    def __init__(self, score, declare, **keywords):
        self.score = score
        super().__init__(
            objective=keywords.pop("objective", MAXIMISE),
            hyperparameters=space(declare),
            project_name="study",
            **keywords,
        )

    def run_trial(self, trial, **keywords):
        return self.score(trial)


def by_kind(trial):
    values = trial.hyperparameters.values
    return {"score": len(values["kind"]) + values.get("depth", 0) + values.get("rate", 0.0)}


def points(tuner):
    return [trial.hyperparameters.values for trial in tuner.oracle.trials.values()]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    tuner = OptunaTuner(
        build_model,
        objective="val_accuracy",
        max_trials=3,
        executions_per_trial=3,
        directory=tmp_path_factory.mktemp("study"),
        project_name="quick_start",
    )
    tuner.search(**ROWS, epochs=2)
    return tuner


class TestKerasTunersProgram:
    def test_the_best_trial_has_the_mean_and_spread_of_its_runs(self, searched):
        (best,) = searched.oracle.get_best_trials(1)
        histories = searched.oracle.folder.read_history(int(best.trial_id))
        values = [max(history["val_accuracy"]) for history in histories]
        assert len(values) == 3
        assert best.score == pytest.approx(np.mean(values))
        assert best.spread == pytest.approx(np.std(values, ddof=1))

    def test_the_weights_are_those_of_the_median_run(self, searched):
        (best,) = searched.oracle.get_best_trials(1)
        histories = searched.oracle.folder.read_history(int(best.trial_id))
        median = np.median([max(history["val_accuracy"]) for history in histories])
        (model,) = searched.get_best_models(1)
        _, accuracy = model.evaluate(*ROWS["validation_data"], verbose=0)
        assert accuracy == pytest.approx(median, abs=1e-6)

    def test_the_first_trial_is_that_of_the_defaults(self, searched):
        defaults = {"units": 4, "dropout": False, "learning_rate": 1e-3}
        assert points(searched)[0] == defaults

    def test_its_reports(self, searched, capsys):
        searched.results_summary(2)
        searched.search_space_summary()
        assert "learning_rate" in capsys.readouterr().out
        assert searched.remaining_trials == 0

    def test_a_longer_training_afterwards(self, searched, tmp_path):
        model = refit(searched, ROWS["x"], ROWS["y"], epochs=1, verbose=0)
        held = ROWS["validation_data"]
        on_all = refit(
            searched, ROWS["x"], ROWS["y"], validation_data=held, on_all_rows=True, verbose=0
        )
        assert [w.shape for w in model.weights] == [w.shape for w in on_all.weights]
        rows = []

        class Told(keras_tuner.HyperModel):
            def build(self, hp):
                return build_model(hp)

            def fit(self, hp, model, x, y, epochs, **keywords):
                rows.append((len(x), epochs, "validation_data" in keywords))
                history = model.fit(x, y, epochs=epochs, **keywords).history
                return {"val_loss": history.get("val_loss", history["loss"])[-1]}

        tuner = OptunaTuner(Told(), "val_loss", 1, directory=tmp_path)
        tuner.search(**ROWS, epochs=3)
        refit(tuner, ROWS["x"], ROWS["y"], validation_data=held, verbose=0)
        refit(tuner, ROWS["x"], ROWS["y"], validation_data=held, on_all_rows=True, verbose=0)
        (history,) = tuner.oracle.folder.read_history(0)
        best = 1 + int(np.argmin(history["val_loss"]))
        assert rows == [(64, 3, True), (64, best, True), (96, best, False)]
        with pytest.raises(ValueError, match="`on_all_rows` needs `validation_data`"):
            refit(searched, ROWS["x"], ROWS["y"], on_all_rows=True)

    def test_the_same_seed_trains_the_same_trials(self, searched, tmp_path):
        again = OptunaTuner(
            build_model,
            objective="val_accuracy",
            max_trials=2,
            executions_per_trial=3,
            directory=tmp_path,
        )
        again.search(**ROWS, epochs=2)
        first = [trial.score for trial in searched.oracle.trials.values()][:2]
        assert [trial.score for trial in again.oracle.trials.values()] == first

    def test_braces_may_be_in_the_name_of_a_folder(self, tmp_path):
        tuner = OptunaTuner(build_model, "val_loss", 1, directory=tmp_path / "a {run}")
        assert tuner.oracle.trials == {}

    def test_other_settings_of_fit_are_another_study(self, searched):
        with pytest.raises(ValueError, match=r"holds another search: fit \(epochs\) differ"):
            searched.search(**ROWS, epochs=3)

    def test_other_data_are_another_study(self, searched):
        with pytest.raises(ValueError, match="holds another search: data differ"):
            searched.search(**{**ROWS, "y": 1 - ROWS["y"]}, epochs=2)


class TestProposals:
    @pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "cmaes"])
    def test_no_point_twice_and_conditions_hold(self, sampler, tmp_path):
        if sampler == "cmaes":
            pytest.importorskip("cmaes")
        tuner = Scored(by_kind, mixed, max_trials=15, sampler=sampler, directory=tmp_path)
        tuner.search(verbose=0)
        found = points(tuner)
        assert len({json.dumps(point, sort_keys=True) for point in found}) == 15
        for point in found:
            assert ("depth" in point) == (point["kind"] == "b")
            assert ("rate" in point) == (point["kind"] == "c")

    @pytest.mark.parametrize("sampler", ["grid", "tpe", "random"])
    def test_a_space_with_no_points_left_ends_the_search(self, sampler, tmp_path):
        tuner = Scored(
            lambda trial: {"score": trial.hyperparameters.get("a")},
            finite,
            max_trials=50,
            sampler=sampler,
            directory=tmp_path,
        )
        tuner.search(verbose=0)
        assert len(points(tuner)) == 6
        assert tuner.get_best_hyperparameters()[0].get("a") == 3

    def test_every_value_of_a_choice_is_completed_so_often(self, tmp_path):
        def declare(hp):
            hp.Choice("kind", ["one point", "b", "c"])
            with hp.conditional_scope("kind", ["b", "c"]):
                hp.Float("x", 0.0, 1.0)
                hp.Int("depth", 1, 3)

        tuner = Scored(
            # The sampler is drawn to the kind that has no points left.
            lambda trial: {"score": len(trial.hyperparameters.get("kind"))},
            declare,
            max_trials=14,
            min_trials_per_choice=4,
            directory=tmp_path,
        )
        tuner.search(verbose=0)
        kinds = collections.Counter(point["kind"] for point in points(tuner))
        depths = collections.Counter(point.get("depth") for point in points(tuner))
        assert kinds["one point"] == 1
        assert min(kinds["b"], kinds["c"]) >= 4
        assert min(depths[1], depths[2], depths[3]) >= 4

    @pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "grid"])
    def test_a_search_that_was_stopped_goes_on_as_if_it_had_not(self, sampler, tmp_path):
        def declare(hp):
            hp.Choice("kind", ["a", "b", "c"])
            hp.Float("x", 0.0, 1.0, step=0.1)

        def run(name, *stops):
            for stop in stops:
                tuner = Scored(
                    lambda trial: {"score": trial.hyperparameters.get("x")},
                    declare,
                    max_trials=stop,
                    sampler=sampler,
                    directory=tmp_path / name,
                )
                tuner.search(verbose=0)
            return points(tuner)

        assert run("at once", 28) == run("in parts", 5, 25, 28)

    @pytest.mark.parametrize("sampler", ["tpe", "grid"])
    def test_hyperparameters_that_come_up_while_models_are_built(self, sampler, tmp_path):
        class Growing(OptunaTuner):
            def run_trial(self, trial, **keywords):
                hp = trial.hyperparameters
                units = [hp.Choice(f"units_{i}", [1, 2, 3]) for i in range(hp.Int("layers", 1, 2))]
                return {"score": sum(units)}

        for max_trials in (4, 6, 30):
            tuner = Growing(
                objective=MAXIMISE,
                hyperparameters=space(lambda hp: hp.Int("layers", 1, 2)),
                max_trials=max_trials,
                sampler=sampler,
                directory=tmp_path,
            )
            tuner.search(verbose=0)
        found = points(tuner)
        assert tuner.oracle.get_best_trials(1)[0].score == 6
        complete = [json.dumps(point, sort_keys=True) for point in found if len(point) == 3]
        assert len(set(complete)) == len(complete) == 18
        # The study knows what came up.
        for trial, point in zip(tuner.oracle.study.trials, found, strict=True):
            assert trial.params == point

    @pytest.mark.parametrize("sampler", ["tpe", "grid"])
    def test_steps_are_the_numbers_that_are_written(self, sampler, tmp_path):
        tuner = Scored(
            lambda trial: {"score": trial.hyperparameters.get("rate")},
            lambda hp: hp.Float("rate", 0.0, 0.3, step=0.1),
            max_trials=9,
            sampler=sampler,
            directory=tmp_path,
        )
        tuner.search(verbose=0)
        assert sorted(point["rate"] for point in points(tuner)) == [0.0, 0.1, 0.2, 0.3]

    def test_a_range_of_one_number_has_an_end(self, tmp_path):
        tuner = Scored(
            lambda trial: {"score": trial.hyperparameters.get("a")},
            lambda hp: (hp.Choice("a", [1, 2, 3]), hp.Float("rate", 0.5, 0.5)),
            max_trials=9,
            directory=tmp_path,
        )
        tuner.search(verbose=0)
        assert [point["rate"] for point in points(tuner)] == [0.5] * 3

    def test_a_range_of_many_whole_numbers_is_not_counted_out(self, tmp_path):
        tuner = Scored(
            lambda trial: {"score": 1.0},
            lambda hp: hp.Int("number", 0, 2**40),
            max_trials=3,
            directory=tmp_path,
        )
        tuner.search(verbose=0)
        assert len(points(tuner)) == 3

    def test_it_finds_what_is_better(self, tmp_path):
        def declare(hp):
            hp.Float("x", 0.0, 1.0)
            hp.Choice("kind", ["bad", "good"])

        def score(trial):
            values = trial.hyperparameters.values
            return {"score": (values["kind"] == "good") - (values["x"] - 0.3) ** 2}

        tuner = Scored(score, declare, max_trials=40, directory=tmp_path)
        tuner.search(verbose=0)
        best = tuner.get_best_hyperparameters()[0]
        assert best.get("kind") == "good"
        assert abs(best.get("x") - 0.3) < 0.05


class TestFailures:
    def test_a_failed_trial_keeps_its_reason_and_the_search_goes_on(self, tmp_path):
        def score(trial):
            if trial.hyperparameters.get("a") == 2:
                raise MemoryError("this one is too big")
            return {"score": np.inf if trial.hyperparameters.get("a") == 3 else 1.0}

        tuner = Scored(score, finite, max_trials=6, sampler="grid", directory=tmp_path)
        with pytest.warns(UserWarning, match="failed. MemoryError: this one is too big"):
            tuner.search(verbose=0)
        trials = list(tuner.oracle.trials.values())
        assert [trial.status for trial in trials] == ["COMPLETED"] * 2 + ["FAILED"] * 4
        assert "this one is too big" in trials[2].message
        assert trials[4].message == "Not finite: score = inf."
        (warning,) = [w for w in analyse(tuner).warnings if "trials failed" in w]
        assert warning.startswith("4 of 6 trials failed. The first one: MemoryError")

    def test_when_all_fail_the_first_reason_is_told(self, tmp_path):
        def broken(trial):
            raise ZeroDivisionError(f"no luck with {trial.trial_id}")

        tuner = Scored(broken, finite, max_trials=2, directory=tmp_path)
        with (
            pytest.warns(UserWarning, match="failed"),
            pytest.raises(RuntimeError, match="None of 2 trials completed.*no luck with 0000"),
        ):
            tuner.search(verbose=0)

    def test_training_that_diverges(self, tmp_path):
        def diverging(hp):
            model = build_model(hp)
            model.compile(keras.optimizers.SGD(1e30), "mse")
            return model

        tuner = OptunaTuner(diverging, "val_loss", 1, directory=tmp_path)
        with (
            pytest.warns(UserWarning, match="training diverged"),
            pytest.raises(RuntimeError, match="diverged"),
        ):
            tuner.search(**ROWS, epochs=3)

    def test_a_model_that_is_too_large(self, tmp_path):
        tuner = OptunaTuner(build_model, "val_loss", 1, directory=tmp_path, max_model_size=5)
        with (
            pytest.warns(UserWarning, match="Oversized"),
            pytest.raises(RuntimeError, match="Oversized model"),
        ):
            tuner.search(**ROWS, epochs=1)

    def test_an_objective_that_is_not_reported_lists_those_that_are(self, tmp_path):
        objective = keras_tuner.Objective("val_f1", "max")
        tuner = OptunaTuner(build_model, objective, 3, directory=tmp_path)
        with pytest.raises(keras_tuner.errors.FatalValueError, match="'val_f1' is not .*val_loss"):
            tuner.search(**ROWS, epochs=1)

    def test_a_forgotten_validation_is_told(self, tmp_path):
        tuner = OptunaTuner(build_model, "val_loss", 1, directory=tmp_path)
        rows = {name: value for name, value in ROWS.items() if name != "validation_data"}
        with pytest.raises(
            keras_tuner.errors.FatalValueError, match="There are no validation rows"
        ):
            tuner.search(**rows, epochs=1)

    def test_a_time_limit_stops_a_run_after_its_epoch(self, tmp_path):
        tuner = OptunaTuner(
            build_model, "val_loss", 1, directory=tmp_path, max_seconds_per_trial=1e-9
        )
        tuner.search(**ROWS, epochs=50)
        (history,) = tuner.oracle.folder.read_history(0)
        assert len(history["loss"]) == 1


class TestPruning:
    @staticmethod
    def learning(trial, tuner_of):
        report = tuner_of().oracle.reporter(trial)
        slow = trial.hyperparameters.get("a") == 3
        for epoch in range(6):
            value = epoch / 5 if slow else 0.5
            if report is not None and report(epoch, value):
                trial.is_pruned = True
                break
        return {"score": value}

    def search(self, directory, **keywords):
        tuners = []
        tuner = Scored(
            lambda trial: self.learning(trial, lambda: tuners[0]),
            lambda hp: (hp.Choice("a", [1, 2, 3]), hp.Float("x", 0.0, 1.0)),
            directory=directory,
            **keywords,
        )
        tuners.append(tuner)
        tuner.search(verbose=0)
        return tuner

    def test_what_a_pruner_threw_away_is_told_in_words(self, tmp_path):
        tuner = self.search(
            tmp_path,
            max_trials=30,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=1),
            sampler="random",
        )
        analysis = analyse(tuner)
        assert any(
            w.startswith("a = 3 was proposed") and w.endswith("the study says nothing about it.")
            for w in analysis.warnings
        )
        row = analysis.values.query("parameter == 'a' and value == 3").iloc[0]
        assert row["pruned"] == row["proposed"] > 1

    def test_values_that_are_to_be_explored_are_not_pruned(self, tmp_path):
        tuner = self.search(
            tmp_path,
            max_trials=12,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=1),
            min_trials_per_choice=3,
        )
        row = analyse(tuner).values.query("parameter == 'a' and value == 3").iloc[0]
        assert row["completed"] >= 3

    def test_nothing_is_pruned_unless_asked_for(self, tmp_path):
        tuner = self.search(tmp_path, max_trials=10)
        assert {trial.status for trial in tuner.oracle.trials.values()} == {"COMPLETED"}


class TestSeveralObjectives:
    def test_trials_that_no_other_beats_come_first(self, tmp_path):
        objectives = [MAXIMISE, keras_tuner.Objective("cost", "min")]
        tuner = Scored(
            lambda trial: {
                "score": trial.hyperparameters.get("a"),
                "cost": trial.hyperparameters.get("a") + 2 * trial.hyperparameters.get("b"),
            },
            finite,
            objective=objectives,
            max_trials=6,
            sampler="grid",
            directory=tmp_path,
        )
        tuner.search(verbose=0)
        best = [trial.hyperparameters.values for trial in tuner.oracle.get_best_trials(3)]
        assert best == [{"a": a, "b": False} for a in (3, 2, 1)]

    def test_the_number_of_parameters_is_an_objective(self, tmp_path):
        objectives = ["val_loss", "num_parameters"]
        tuner = OptunaTuner(build_model, objectives, 2, directory=tmp_path, sampler="random")
        tuner.search(**ROWS, epochs=1)
        sizes = {
            trial.hyperparameters.get("units"): trial.metrics.get_best_value("num_parameters")
            for trial in tuner.oracle.trials.values()
        }
        assert all(size == 4 * units + units + units + 1 for units, size in sizes.items())

    def test_ranks(self):
        costs = [[1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [3.0, 3.0], [2.0, 4.0]]
        assert rank_costs(costs, 5) == [0, 1, 2, 4, 3]
        assert rank_costs([[3.0], [1.0], [2.0]], 2) == [1, 2]

    def test_epochs_are_judged_by_what_they_log(self, tmp_path):
        objectives = ["val_loss", keras_tuner.Objective("num_parameters", "min")]
        tuner = OptunaTuner(build_model, objectives, 1, directory=tmp_path)
        tuner.search(**ROWS, epochs=5, callbacks=[keras.callbacks.LearningRateScheduler(rising)])
        (history,) = tuner.oracle.folder.read_history(0)
        (trial,) = tuner.oracle.get_best_trials(1)
        assert np.argmin(history["val_loss"]) < 4
        assert trial.metrics.get_best_value("val_loss") == pytest.approx(min(history["val_loss"]))
        (model,) = tuner.get_best_models(1)
        loss = model.evaluate(*ROWS["validation_data"], verbose=0)[0]
        assert loss == pytest.approx(min(history["val_loss"]), rel=1e-5)

    def test_a_list_of_one_is_one(self, tmp_path):
        tuner = Scored(by_kind, mixed, objective=[MAXIMISE], pruner="median", directory=tmp_path)
        assert tuner.oracle.objective == MAXIMISE


def rising(epoch, rate):
    """A learning rate that wrecks the model in the end."""
    return rate if epoch < 2 else 1e3


class TestStudyFolder:
    def test_another_space_or_objective_is_refused(self, tmp_path):
        Scored(by_kind, mixed, max_trials=1, directory=tmp_path).search(verbose=0)
        with pytest.raises(
            ValueError, match=r"holds another search: space \(a, b, depth, kind, rate\) differ"
        ):
            Scored(by_kind, finite, directory=tmp_path)
        with pytest.raises(ValueError, match="holds another search: objectives differ"):
            Scored(
                by_kind,
                mixed,
                objective=keras_tuner.Objective("score", "min"),
                directory=tmp_path,
            )
        Scored(by_kind, finite, directory=tmp_path, overwrite=True)

    def test_a_corrupt_file_is_named_and_kept(self, tmp_path):
        Scored(by_kind, mixed, directory=tmp_path)
        file = tmp_path / "study" / "study.db"
        file.write_bytes(b"nonsense" * 500)
        with pytest.raises(ValueError, match=r"study.db is corrupt .*It is left as it is"):
            Scored(by_kind, mixed, directory=tmp_path)
        assert file.read_bytes() == b"nonsense" * 500

    def test_a_folder_of_a_stock_tuner_is_refused(self, tmp_path):
        keywords = {"directory": tmp_path, "project_name": "stock", "max_trials": 1}
        keras_tuner.RandomSearch(build_model, "val_loss", **keywords).search(**ROWS, epochs=1)
        with pytest.raises(ValueError, match=r"search of KerasTuner's own tuners \(oracle.json\)"):
            OptunaTuner(build_model, "val_loss", **keywords)

    def test_a_trial_that_was_finished_meanwhile_is_not_begun_again(self, tmp_path):
        first = Scored(by_kind, mixed, max_trials=2, directory=tmp_path)
        second = Scored(by_kind, mixed, max_trials=2, directory=tmp_path)
        trial = first.oracle.create_trial("first")
        read = second.oracle._read_trials()
        first.oracle.update_trial(trial.trial_id, {"score": 1.0})
        trial.status = "COMPLETED"
        first.oracle.end_trial(trial)
        assert second.oracle._adopt(read) is None
        assert second.oracle.create_trial("second").trial_id == "0001"

    def test_a_damaged_record_is_named_and_kept(self, tmp_path):
        Scored(by_kind, mixed, directory=tmp_path)
        record = tmp_path / "study" / "about.json"
        record.write_text("{")
        with pytest.raises(ValueError, match=r"about.json is damaged: .*It is left as it is"):
            Scored(by_kind, mixed, directory=tmp_path)
        assert record.read_text() == "{"

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "study").touch()
        with pytest.raises(OSError, match="study"):
            Scored(by_kind, mixed, directory=tmp_path)

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"sampler": "best"}, "`sampler` must be an Optuna sampler or one of"),
            ({"pruner": "hard"}, "`pruner` must be None, an Optuna pruner or one of"),
            ({"sampler": "grid"}, "needs a `step` for rate"),
        ],
    )
    def test_settings(self, keywords, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            Scored(by_kind, mixed, directory=tmp_path, **keywords)

    def test_a_space_without_parameters(self, tmp_path):
        def fixed(hp):
            return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])

        with pytest.raises(ValueError, match="The space has no parameters"):
            OptunaTuner(fixed, "val_loss", directory=tmp_path)

    def test_optuna_opens_it(self, tmp_path):
        tuner = Scored(by_kind, mixed, max_trials=4, directory=tmp_path)
        tuner.search(verbose=0)
        url = f"sqlite:///{tmp_path / 'study' / 'study.db'}"
        study = optuna.load_study(study_name="kfusion", storage=url)
        assert study.best_value == tuner.oracle.get_best_trials(1)[0].score
        assert study.metric_names == ["score"]


KILLED = """
import os, signal, sys
import keras_tuner
import kfusion as kf

class Killed(kf.OptunaTuner):
    def run_trial(self, trial, **keywords):
        if trial.hyperparameters.get("a") == 2 and not trial.hyperparameters.get("b"):
            os.kill(os.getpid(), signal.SIGKILL)
        return {"score": trial.hyperparameters.get("a")}

hp = keras_tuner.HyperParameters()
hp.Choice("a", [1, 2, 3])
hp.Boolean("b")
Killed(
    objective=keras_tuner.Objective("score", "max"),
    hyperparameters=hp,
    sampler="grid",
    max_trials=6,
    directory=sys.argv[1],
    project_name="study",
).search(verbose=0)
"""


def test_a_trial_that_kills_its_process_is_tried_twice_and_no_other_is_lost(tmp_path):
    codes = [
        subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path)],
            check=False,
            env={**os.environ, "KERAS_BACKEND": "jax"},
        ).returncode
        for _ in range(3)
    ]
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0]
    tuner = Scored(by_kind, finite, max_trials=6, sampler="grid", directory=tmp_path)
    trials = list(tuner.oracle.trials.values())
    assert [trial.status for trial in trials].count("COMPLETED") == 5
    assert trials[2].message == "Ended its process 2 times."
    assert len({json.dumps(point) for point in points(tuner)}) == 6


class TestProcesses:
    def test_two_processes_share_a_study(self, tmp_path):
        tuner = Scored(by_kind, mixed, max_trials=8, directory=tmp_path)
        tuner.search(verbose=0, n_jobs=2)
        found = points(tuner)
        assert len({json.dumps(point, sort_keys=True) for point in found}) == 8
        assert all(trial.status == "COMPLETED" for trial in tuner.oracle.trials.values())

    def test_what_cannot_be_sent_is_refused(self, tmp_path):
        lock = __import__("threading").Lock()

        def score(trial):
            with lock:
                return {"score": 1.0}

        tuner = Scored(score, mixed, directory=tmp_path)
        with pytest.raises(TypeError, match="it cannot be pickled"):
            tuner.search(verbose=0, n_jobs=2)
