"""Trials trained at once: the same trials, points that differ in dials, nothing lost."""

import warnings
from functools import partial

import keras
import keras_tuner
import numpy as np
import pytest

from kfusion import FusionHyperModel, OptunaTuner, embedding_branch, evaluate, search_fusion
from kfusion.search import trials_together
from kfusion.search import tuner as tuner_module
from kfusion.search.proposals import Proposals
from kfusion.search.trial_rows import FitArguments
from kfusion.search.trials_together import trials_at_once, why_one_by_one
from kfusion.seeds import derive_seed
from kfusion.stacked.many_fits import fit_many

DIALS = {
    *("first_dropout", "second_dropout", "dropout", "l2"),
    *("learning_rate_factor", "weight_decay", "label_smoothing"),
}


def draw(rows, seed):
    generator = np.random.default_rng(seed)
    x = {name: generator.normal(size=(rows, 4)).astype("float32") for name in ("first", "second")}
    return x, (x["first"][:, 0] + x["second"][:, 1] + generator.normal(size=rows) > 0).astype(int)


TRAIN, VALIDATION = draw(64, 0), draw(40, 1)


def make(branch=embedding_branch, **changes):
    parts = {
        "units": [2, 3],
        "head_units": [2],
        "head_depths": 1,
        "dropouts": lambda hp, name: hp.Float(name, 0.0, 0.5),
        "l2s": [1e-4, 1e-3],
        "optimizers": "adam",
        "fusions": "concat",
        **changes,
    }
    branches = {
        "first": partial(branch, 4, input_name="first", name="first_branch"),
        "second": partial(embedding_branch, 4, input_name="second", name="second_branch"),
    }
    return FusionHyperModel(branches, task="binary", **parts)


def search(directory, hypermodel=None, **keywords):
    own = {"validation_data": VALIDATION, "max_trials": 8, "parallel_trials": 4, "epochs": 2}
    return search_fusion(
        hypermodel or make(), *TRAIN, directory=directory, **{**own, "verbose": 0, **keywords}
    )


def values_of(tuner):
    return [trial.hyperparameters.values for trial in tuner.oracle.trials.values()]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    shares = {"label_smoothings": lambda hp, name: hp.Float(name, 0.0, 0.4)}
    return search(tmp_path_factory.mktemp("study"), make(**shares))


def test_groups_differ_in_dials_alone(searched):
    values = values_of(searched)
    assert len(values) == 8
    for group in (values[:4], values[4:]):
        for name in set(group[0]) - DIALS:
            assert len({each[name] for each in group}) == 1, name
        for name in ("dropout", "label_smoothing"):
            assert len({each[name] for each in group}) == 4


def test_the_next_group_is_of_another_structure(searched):
    values = values_of(searched)
    assert len({(each["first_units"], each["second_units"]) for each in values}) == 2


def test_the_sampler_chooses_the_structures_of_half_the_groups(tmp_path, monkeypatch):
    drawn, draw_structure = [], Proposals.draw_structure

    def note(self, *arguments):
        drawn.append(draw_structure(self, *arguments))
        return drawn[-1]

    monkeypatch.setattr(Proposals, "draw_structure", note)
    hypermodel = make(units=[2, 3, 4, 5], head_units=[2, 3, 4, 5])
    oracle = OptunaTuner(hypermodel, "val_loss", 24, directory=tmp_path).oracle
    widths, structures = ("first_units", "second_units", "head_units"), []
    while trials := oracle.create_trials(4, hypermodel.dials):
        structures.append([trials[0].hyperparameters.get(name) for name in widths])
        for trial in trials:
            # So that a sampler would rather stay with the widest.
            narrow = sum(5 - trial.hyperparameters.get(name) for name in widths)
            oracle.update_trial(trial.trial_id, {"val_loss": float(narrow)})
            trial.status = "COMPLETED"
            oracle.end_trial(trial)
    assert len({tuple(structure) for structure in structures}) == 6
    # The first group is that of the defaults.
    assert [values is not None for values in drawn[:4]] == [False, True, True, False]
    assert len({structure[2] for structure in structures[:3]}) == 3


def test_values_that_were_tried_too_seldom_come_before_groups_of_one_structure(tmp_path):
    tuner = search(tmp_path, max_trials=4, min_trials_per_choice=2)
    for name, values in {"first_units": [2, 3], "second_units": [2, 3], "l2": [1e-4, 1e-3]}.items():
        assert sorted(each[name] for each in values_of(tuner)) == sorted(values * 2)


def test_the_score_of_a_trial_is_that_of_its_weights(searched):
    trials = searched.oracle.get_best_trials(3)
    for trial, model in zip(trials, searched.get_best_models(3), strict=True):
        assert trial.score == pytest.approx(evaluate(model, *VALIDATION, task="binary")["auc"])


def test_a_trial_ends_as_if_it_had_been_trained_alone(searched):
    trial = searched.oracle.trials["0006"]
    keywords = searched.hypermodel.keywords(trial.hyperparameters)
    (alone,) = fit_many(
        lambda keywords: searched.hypermodel.build_from(keywords),
        *TRAIN,
        task="binary",
        validation_data=VALIDATION,
        members=[{"keywords": keywords, **keywords["fit"], "seed": derive_seed(0, 6, 0)}],
        epochs=2,
        verbose=0,
    )
    (history,) = searched.oracle.folder.read_history(6)
    for name in ("loss", "val_loss"):
        assert history[name] == pytest.approx(alone.history[name], rel=1e-4)
    assert trial.score == pytest.approx(max(alone.history["val_auc"]))


def test_a_search_that_is_stopped_within_a_group_goes_on(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        keep, seen = OptunaTuner._keep_runs, []

        def stop(self, trial, runs):
            seen.append(trial.trial_id)
            if len(seen) == 2:
                raise KeyboardInterrupt
            keep(self, trial, runs)

        patch.setattr(OptunaTuner, "_keep_runs", stop)
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path, max_trials=3, parallel_trials=3)
    tuner = search(tmp_path, max_trials=3, parallel_trials=3)
    trials = tuner.oracle.trials
    assert [trial.status for trial in trials.values()] == ["COMPLETED"] * 3
    points = {str(sorted(values.items())) for values in values_of(tuner)}
    assert len(points) == 3


def test_each_trial_is_judged_by_every_fold_and_seed(tmp_path):
    tuner = search(
        tmp_path,
        validation_data=None,
        cv=2,
        executions_per_trial=2,
        max_trials=2,
        parallel_trials=2,
    )
    for number, trial in enumerate(tuner.oracle.trials.values()):
        runs = tuner.oracle.folder.read_history(number)
        assert trial.num_runs == len(runs) == 4
        assert trial.score == pytest.approx(np.mean([max(run["val_auc"]) for run in runs]), abs=0.1)
        assert trial.spread > 0


def test_a_study_knows_what_else_its_trials_were_trained_with(tmp_path):
    search(tmp_path, max_trials=1)
    for changes in ({"fit_keywords": {"loss": "focal"}}, {"modality_dropout": 0.5}):
        name = next(iter(changes))
        with pytest.raises(ValueError, match=rf"holds another search: hypermodel \(.*{name}"):
            search(tmp_path, make(**changes), max_trials=2)


def test_weights_of_rows_that_the_hypermodel_has_go_with_the_folds(tmp_path):
    weights = np.linspace(0.1, 2, len(TRAIN[1]))
    scores = []
    for parallel_trials in (1, 4):
        hypermodel = make(fit_keywords={"sample_weight": weights}, dropouts=0.0)
        keywords = {"validation_data": None, "cv": 2, "parallel_trials": parallel_trials}
        tuner = search(tmp_path / str(parallel_trials), hypermodel, max_trials=4, **keywords)
        scores.append(tuner.oracle.trials["0000"].metrics.get_last_value("loss"))
    assert scores[0] == pytest.approx(scores[1], rel=0.05)


def refuse_three(width, *, units, **keywords):
    if units == 3:
        raise RuntimeError("three units cannot be")
    return embedding_branch(width, units=units, **keywords)


def test_a_builder_that_fails_fails_its_own_trials_alone(tmp_path):
    hypermodel = make(refuse_three, dropouts=0.0, l2s=0.0, learning_rate_factors=[1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuner = search(tmp_path, hypermodel, sampler="grid", max_trials=4)
    for trial in tuner.oracle.trials.values():
        fails = trial.hyperparameters.get("first_units") == 3
        assert trial.status == ("FAILED" if fails else "COMPLETED")
        assert not fails or "three units cannot be" in trial.message


def test_a_model_that_diverges_fails_its_trial_alone(tmp_path, monkeypatch):
    def fit_and_break(*arguments, **keywords):
        fits = fit_many(*arguments, **keywords)
        fits.fits[0].history["loss"][-1] = np.nan
        fits.fits[1].failure = "Predictions are not finite."
        return fits

    monkeypatch.setattr(trials_together, "fit_many", fit_and_break)
    with pytest.warns(UserWarning, match="Trial 000. failed"):
        tuner = search(tmp_path, max_trials=3, parallel_trials=3)
    found = [(trial.status, trial.message or "") for trial in tuner.oracle.trials.values()]
    assert [status for status, _ in found] == ["FAILED", "FAILED", "COMPLETED"]
    assert "The loss is nan after epoch 2" in found[0][1]
    assert "Predictions are not finite." in found[1][1]


class TestWhoDecides:
    def arguments(self, **changes):
        named = {"x": TRAIN[0], "y": TRAIN[1], "validation_data": VALIDATION, "epochs": 2}
        return FitArguments((), {**named, **changes})

    @pytest.mark.parametrize(("max_trials", "expected"), [(12, 1), (20, 4), (60, 10), (None, 128)])
    def test_the_sampler_hears_of_results_six_times(self, max_trials, expected):
        assert trials_at_once(max_trials, 1, self.arguments(), longest_choice=3) == expected

    @pytest.mark.parametrize(("max_trials", "expected"), [(20, 4), (40, 4), (140, 10)])
    def test_each_value_of_a_long_choice_has_two_groups_where_trials_suffice(
        self, max_trials, expected
    ):
        assert trials_at_once(max_trials, 1, self.arguments(), longest_choice=7) == expected

    def test_processes_share_the_trials_of_a_generation(self):
        assert trials_at_once(96, 2, self.arguments(), 1) == 8
        assert trials_at_once(60, 8, self.arguments(), 1) == 1

    def test_images_are_trained_one_by_one(self):
        images = {"image": np.zeros((64, 8, 8, 3), "uint8")}
        assert trials_at_once(None, 1, self.arguments(x=images), 1) == 1

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"callbacks": [keras.callbacks.EarlyStopping()]}, "callbacks watch one"),
            ({"balanced_batches": True}, "given balanced_batches"),
            ({"batch_size": "memory"}, '`batch_size="memory"` looks at one'),
            ({"seed": 3}, "given seed"),
            ({"x": [TRAIN[0]["first"]]}, "dict of arrays"),
        ],
    )
    def test_what_needs_one_training_at_a_time_is_named(self, changes, reason):
        assert reason in why_one_by_one(make(), self.arguments(**changes))

    def test_batches_as_large_as_memory_are_looked_for_one_by_one(self):
        searched = make(batch_sizes=[16, "memory"])
        assert '`batch_size="memory"` looks' in why_one_by_one(searched, self.arguments())

    def test_other_hypermodels_are_trained_one_by_one(self):
        assert "no FusionHyperModel" in why_one_by_one(keras_tuner.HyperModel(), self.arguments())
        assert why_one_by_one(make(), self.arguments()) is None

    def test_a_number_that_cannot_be_is_an_error(self, tmp_path):
        with pytest.raises(ValueError, match="`parallel_trials=4` cannot be: a pruner needs one"):
            search(tmp_path, pruner="median")
        with pytest.raises(ValueError, match='"auto" or 1 or more. Received: 0'):
            search(tmp_path, parallel_trials=0)

    def test_another_objective_than_the_task_s_is_judged_one_by_one(self, tmp_path):
        tuner = OptunaTuner(make(), "val_loss", 4, directory=tmp_path)
        keywords = {"validation_data": VALIDATION, "epochs": 2, "verbose": 0}
        with pytest.raises(ValueError, match="an objective that is not the task's needs one"):
            tuner.search(*TRAIN, parallel_trials=4, **keywords)

    def test_with_a_pruner_nobody_is_asked_for_several(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tuner_module, "TrialsTogether", lambda *_, **__: pytest.fail("at once"))
        tuner = search(tmp_path, pruner="median", parallel_trials="auto", max_trials=1)
        assert len(tuner.oracle.trials) == 1
