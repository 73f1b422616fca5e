"""Searching with KerasTuner: its tuners, our objective, trials that can be built again."""

from functools import partial

import keras
import keras_tuner
import numpy as np
import pytest

from kfusion import (
    FusionHyperModel,
    StepDecay,
    build_fusion_model,
    build_unimodal_model,
    evaluate,
    fit,
    image_branch,
    predict,
    search_fusion,
    tabular_branch,
    task,
)
from kfusion.layers import DAFT, CrossAttentionFusion, FiLM
from kfusion.optimizers import LEARNING_RATES

pytestmark = pytest.mark.usefixtures("eagerly")

BUILDERS = {
    "first": partial(tabular_branch, 3, name="first"),
    "second": partial(tabular_branch, 2, input_name="other", name="second"),
}
SMALL = {
    "units": [4, 8],
    "head_units": [4],
    "head_depths": [0, 1],
    "dropouts": [0.0, 0.2],
    "l2s": [0.0, 1e-3],
    "optimizers": ["adam", "sgd"],
    "fusions": ["concat", "weighted"],
}


def draw(rows, seed):
    generator = np.random.default_rng(seed)
    x = {
        "tabular": generator.normal(size=(rows, 3)).astype("float32"),
        "other": generator.normal(size=(rows, 2)).astype("float32"),
    }
    noise = generator.normal(size=rows)
    return x, (x["tabular"][:, 0] + x["other"][:, 0] + noise > 0).astype(int)


TRAIN, VALIDATION = draw(64, 0), draw(80, 1)


def search(directory, hypermodel=None, **keywords):
    return search_fusion(
        hypermodel or FusionHyperModel(BUILDERS, task="binary", **SMALL),
        *TRAIN,
        directory=directory,
        **{"validation_data": VALIDATION, "max_trials": 2, "epochs": 2, "verbose": 0, **keywords},
    )


def search_with_stock_tuner(tuner, directory):
    """KerasTuner's own engine on our space."""
    hypermodel = FusionHyperModel(BUILDERS, task="binary", seed=0, **SMALL)
    amount = {"max_epochs": 2} if tuner is keras_tuner.Hyperband else {"max_trials": 2}
    made = tuner(
        hypermodel,
        objective=keras_tuner.Objective(*hypermodel.task.objective),
        directory=directory,
        **amount,
    )
    epochs = {} if tuner is keras_tuner.Hyperband else {"epochs": 2}
    made.search(*TRAIN, validation_data=VALIDATION, verbose=0, **epochs)
    return made


@pytest.fixture(
    scope="module", params=[None, keras_tuner.RandomSearch, keras_tuner.BayesianOptimization]
)
def searched(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trials")
    return (
        search(folder) if request.param is None else search_with_stock_tuner(request.param, folder)
    )


class TestSearch:
    def test_is_a_keras_tuner_with_the_tasks_own_objective(self, searched):
        assert isinstance(searched, keras_tuner.Tuner)
        assert searched.oracle.objective == keras_tuner.Objective("val_auc", "max")
        completed = [t for t in searched.oracle.trials.values() if t.status == "COMPLETED"]
        assert len(completed) >= 2
        scores = [trial.score for trial in searched.oracle.get_best_trials(len(completed))]
        assert scores == sorted(scores, reverse=True)

    def test_the_best_model_scores_what_its_trial_scored(self, searched):
        (best,) = searched.oracle.get_best_trials(1)
        (model,) = searched.get_best_models(1)
        scores = evaluate(model, *VALIDATION, task="binary")
        assert scores["auc"] == pytest.approx(best.score, abs=1e-6)

    def test_the_best_hyperparameters_are_keywords_that_build_it_again(self, searched):
        hypermodel = searched.hypermodel
        while not isinstance(hypermodel, FusionHyperModel):
            hypermodel = hypermodel.hypermodel
        (hp,) = searched.get_best_hyperparameters(1)
        keywords = hypermodel.keywords(hp)
        branches = {name: builder(**keywords[name]) for name, builder in BUILDERS.items()}
        model = build_fusion_model(branches, task="binary", **keywords["model"])
        (best,) = searched.get_best_models(1)
        assert [w.shape for w in model.weights] == [w.shape for w in best.weights]
        model.set_weights(best.get_weights())
        x = VALIDATION[0]
        np.testing.assert_allclose(predict(model, x), predict(best, x), atol=1e-6)
        fit(
            model,
            *TRAIN,
            task="binary",
            validation_data=None,
            epochs=1,
            verbose=0,
            **keywords["fit"],
        )


def test_a_regression_minimises_the_error(tmp_path):
    (x, _), (held, _) = TRAIN, VALIDATION
    made = task("regression", y=x["tabular"][:, 0])
    tuner = search_fusion(
        FusionHyperModel(BUILDERS, task=made, **SMALL),
        x,
        x["tabular"][:, 0],
        validation_data=(held, held["tabular"][:, 0]),
        directory=tmp_path,
        max_trials=2,
        epochs=1,
        verbose=0,
    )
    assert tuner.oracle.objective == keras_tuner.Objective("val_rmse", "min")
    best, other = tuner.oracle.get_best_trials(2)
    assert best.score <= other.score


class TestFailures:
    def test_when_every_trial_fails_the_first_failure_is_quoted(self, tmp_path):
        def broken(units, dropout, l2):
            raise ValueError(f"no branch today: {units} {dropout} {l2}")

        hypermodel = FusionHyperModel(
            {"first": BUILDERS["first"], "broken": broken}, task="binary", **SMALL
        )
        with pytest.raises(Exception, match="no branch today"):
            search(tmp_path, hypermodel)

    def test_a_fault_that_every_trial_would_meet_ends_the_search(self, tmp_path):
        hypermodel = FusionHyperModel(
            BUILDERS, task="binary", fit_keywords={"class_weight": "wrong"}, **SMALL
        )
        with pytest.raises(ValueError, match="`class_weight` must be None"):
            search(tmp_path, hypermodel)

    def test_callbacks_for_every_run_belong_to_the_search(self):
        with pytest.raises(ValueError, match="`fit_keywords` cannot hold callbacks"):
            FusionHyperModel(BUILDERS, task="binary", fit_keywords={"callbacks": []})

    def test_when_every_trial_diverges_the_first_failure_is_quoted(self, tmp_path):
        diverging = {**SMALL, "learning_rate_factors": (1e30, 1e35), "optimizers": ["sgd"]}
        hypermodel = FusionHyperModel(BUILDERS, task="binary", **diverging)
        with (
            pytest.warns(UserWarning, match="failed"),
            pytest.raises(RuntimeError, match="None of 2 trials completed.*diverged"),
        ):
            search(tmp_path, hypermodel)

    def test_a_folder_of_another_search_is_refused(self, tmp_path):
        search(tmp_path, FusionHyperModel(BUILDERS, task="binary", **SMALL))
        other = FusionHyperModel(BUILDERS, task="binary", **{**SMALL, "units": [5]})
        with pytest.raises(ValueError, match=r"search: space \(first_units, second_units\) differ"):
            search(tmp_path, other)
        tuner = search(tmp_path, other, overwrite=True, max_trials=1)
        assert tuner.get_best_hyperparameters()[0].get("first_units") == 5

    def test_a_search_of_nothing_is_refused(self, tmp_path):
        hypermodel = FusionHyperModel(BUILDERS, task="binary", **SMALL)
        with pytest.raises(ValueError, match="`max_trials` must be 1 or more. Received: 0"):
            search_fusion(
                hypermodel, {}, [], validation_data=({}, []), directory=tmp_path, max_trials=0
            )


class TestSpace:
    def test_built_models_are_refused(self):
        built = {name: builder() for name, builder in BUILDERS.items()}
        with pytest.raises(TypeError, match="builders, called anew for every trial"):
            FusionHyperModel(built, task="binary")
        with pytest.raises(TypeError, match="builders, called anew for every trial"):
            FusionHyperModel({**BUILDERS, "third": "conv"}, task="binary")

    def test_an_unknown_fusion_is_refused(self):
        with pytest.raises(ValueError, match=r"`fusions` must be among .*Received: \['sum'\]"):
            FusionHyperModel(BUILDERS, task="binary", fusions=["concat", "sum"])

    def test_fusions_of_maps_are_searched_when_asked_for(self):
        hp = keras_tuner.HyperParameters()
        FusionHyperModel(BUILDERS, task="binary").declare_hyperparameters(hp)
        (usual,) = [part.values for part in hp.space if part.name == "fusion"]
        assert usual == ["concat", "gated", "low_rank", "multiply", "weighted"]
        fusions = ["film", "daft", "cross_attention"]
        hypermodel = FusionHyperModel(BUILDERS, task="binary", fusions=fusions)
        for name, layer in zip(fusions, (FiLM, DAFT, CrossAttentionFusion), strict=True):
            hp = keras_tuner.HyperParameters()
            hp.Fixed("fusion", name)
            assert isinstance(hypermodel.build(hp).get_layer("fusion"), layer)

    def test_holds_every_part_that_is_searched(self):
        hp = keras_tuner.HyperParameters()
        FusionHyperModel(BUILDERS, task="binary").build(hp)
        assert set(hp.values) == {
            *("fusion", "head_units", "head_depth", "dropout", "l2"),
            *("optimizer", "learning_rate_factor", "learning_rate_schedule"),
            *("batch_size", "first_units", "first_dropout", "second_units", "second_dropout"),
        }

    def test_a_weight_decay_of_0_is_none(self):
        hp = keras_tuner.HyperParameters()
        decaying = {"task": "binary", "optimizers": "adamw"}
        own = FusionHyperModel(BUILDERS, **decaying).build(hp).optimizer.weight_decay
        assert own == keras.optimizers.AdamW().weight_decay == 0.004
        hp = keras_tuner.HyperParameters()
        none = FusionHyperModel(BUILDERS, weight_decays=[0.0, 1e-3], **decaying).build(hp)
        assert hp.get("weight_decay") == none.optimizer.weight_decay == 0

    def test_smoothed_labels_are_no_part_of_a_space_that_does_not_say_so(self):
        hp = keras_tuner.HyperParameters()
        model = FusionHyperModel(BUILDERS, task="binary").build(hp)
        assert "label_smoothing" not in hp.values
        assert model.loss == "binary_crossentropy"
        for shares, share in (([0.0, 0.1], 0.0), ([0.2, 0.1], 0.2)):
            hp = keras_tuner.HyperParameters()
            hypermodel = FusionHyperModel(BUILDERS, task="binary", label_smoothings=shares)
            model = hypermodel.build(hp)
            assert hypermodel.keywords(hp)["fit"]["label_smoothing"] == share
            assert getattr(model.loss, "label_smoothing", 0.0) == share

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"label_smoothings": [0, 1.5]}, "must be 0 or more and below 1. Received: 1.5"),
            ({"label_smoothings": 0.1, "task": "regression"}, "is for classes; a regression"),
            (
                {"label_smoothings": 0.1, "fit_keywords": {"loss": "hinge"}},
                "give another loss one of its own",
            ),
            ({"fit_keywords": {"label_smoothing": 0.1}}, "cannot hold .*narrow .*`label_smoothing"),
            ({"optimizers": ["adm"]}, r"`optimizers` must be among .*Received: \['adm'\]"),
            ({"learning_rate_factors": (10, 0.1)}, r"must be `\(lowest, highest\)`"),
            ({"units": [0, 8]}, r"`units` must be 1 or more. Received: \[0\]"),
            ({"dropouts": 1.5}, r"`dropouts` must be 0 or more and below 1. Received: \[1.5\]"),
            ({"fit_keywords": {"bath_size": 3}}, r"`fit_keywords` .*Received: \['bath_size'\]"),
        ],
    )
    def test_what_no_trial_could_use_is_told_at_once(self, changes, told):
        with pytest.raises(ValueError, match=told):
            FusionHyperModel(BUILDERS, **{"task": "binary", **changes})

    def test_a_keyword_that_no_tuner_takes_is_told_at_once(self, tmp_path):
        hypermodel = FusionHyperModel(BUILDERS, task="binary")
        with pytest.raises(TypeError, match=r"among .*'sampler'.*Received: \['max_trails'\]"):
            search_fusion(hypermodel, {}, [], cv=2, directory=tmp_path, max_trails=3)

    def test_a_narrowed_space_is_fixed(self):
        narrow = {
            "fusions": ["gated"],
            "optimizers": "sgd",
            "learning_rate_schedules": ["step"],
            "decay_factors": (0.5, 0.5),
            "decay_epochs": 100,
            "learning_rate_factors": (2.0, 2.0),
            "units": [8],
            "head_units": [16],
            "head_depths": [2],
            "dropouts": [0.25],
            "l2s": [1e-3],
            "weight_decays": [1e-4],
            "label_smoothings": 0.1,
            "batch_sizes": [16],
        }
        hypermodel = FusionHyperModel(BUILDERS, task="binary", **narrow)
        oracle = keras_tuner.oracles.RandomSearchOracle(
            objective=keras_tuner.Objective("val_auc", "max"), max_trials=9
        )
        hp = oracle.get_space()
        hypermodel.build(hp)
        oracle.update_space(hp)
        drawn = [oracle.populate_space(str(i))["values"] for i in range(3)]
        assert drawn[0] == drawn[1] == drawn[2]
        hp.values = drawn[0]
        branch = {"units": 8, "dropout": 0.25, "l2": 1e-3}
        assert hypermodel.keywords(hp) == {
            "model": {
                "fusion": "gated",
                "head_units": 16,
                "head_depth": 2,
                "dropout": 0.25,
                "l2": 1e-3,
            },
            "fit": {
                "optimizer": "sgd",
                "learning_rate_factor": 2.0,
                "learning_rate_schedule": StepDecay(0.5, epochs=100),
                "weight_decay": 1e-4,
                "label_smoothing": 0.1,
                "batch_size": 16,
            },
            "first": branch,
            "second": branch,
        }
        model = hypermodel.build(hp)
        assert isinstance(model.optimizer, keras.optimizers.SGD)
        assert float(model.optimizer.learning_rate) == pytest.approx(2 * LEARNING_RATES["sgd"])

    def test_dropout_that_rises_towards_the_features(self):
        image = partial(image_branch, (24, 24, 3))
        hypermodel = FusionHyperModel(
            {"image": image, "second": BUILDERS["second"]},
            task="binary",
            rising_dropout=True,
            dropouts=lambda hp, name: hp.Float(name, 0.3, 0.7, default=0.5),
        )
        hp = keras_tuner.HyperParameters()
        model = hypermodel.build(hp)
        assert "image_dropout" not in hp.values
        rates = {
            layer.name: layer.dropout
            for layer in model._flatten_layers()
            if hasattr(layer, "dropout")
        }
        expected = {"stage_1": 0.1, "stage_2": 0.2, "stage_3": 0.3, "features": 0.4}
        assert {name: rates[name] for name in expected} == pytest.approx(expected)
        assert rates["hidden_1"] == pytest.approx(0.4)
        assert max(rates.values()) == 0.5

    def test_further_keywords_of_builders(self):
        parts = {"first": {"encoder": ["mlp", "tabm"], "members": 4}}
        hypermodel = FusionHyperModel(BUILDERS, task="binary", branch_parts=parts)
        hp = keras_tuner.HyperParameters()
        hypermodel.declare_hyperparameters(hp)
        assert hp.values["first_encoder"] == "mlp"
        hp.values["first_encoder"] = "tabm"
        found = hypermodel.keywords(hp)["first"]
        assert (found["encoder"], found["members"]) == ("tabm", 4)
        for wrong, message in (
            ({"third": {}}, r"names \['third'\]"),
            ({"first": {"augment": True}}, r"'first' does not take \['augment'\]"),
            ({"first": {"units": 3}}, r"cannot hold \['units'\]"),
        ):
            with pytest.raises(ValueError, match=message):
                FusionHyperModel(BUILDERS, task="binary", branch_parts=wrong)

    def test_a_tuple_of_two_is_a_range_and_a_list_a_choice(self):
        hp = keras_tuner.HyperParameters()
        choice = {"learning_rate_factors": [0.5, 1.0, 2.0]}
        FusionHyperModel(BUILDERS, task="binary", **choice).declare_hyperparameters(hp)
        (factor,) = [each for each in hp.space if each.name == "learning_rate_factor"]
        assert factor.values == [0.5, 1.0, 2.0]
        with pytest.raises(ValueError, match=r"`learning_rate_factors` must be `\(lowest, high"):
            FusionHyperModel(BUILDERS, task="binary", learning_rate_factors=(0.5, 1.0, 2.0))

    def test_what_cannot_be_declared(self):
        hp = keras_tuner.HyperParameters()
        wrong = {"dropouts": lambda hp, name: hp.Float("drop", 0.0, 0.5)}
        with pytest.raises(ValueError, match="'first_dropout' must declare the name"):
            FusionHyperModel(BUILDERS, task="binary", **wrong).declare_hyperparameters(hp)
        with pytest.raises(ValueError, match="no values for 'head_units'"):
            FusionHyperModel(BUILDERS, task="binary", head_units=[]).declare_hyperparameters(hp)

    def test_a_step_is_there_only_where_it_decays(self):
        hypermodel = FusionHyperModel(
            BUILDERS, task="binary", learning_rate_schedules=["cosine", "step"]
        )
        hp = keras_tuner.HyperParameters()
        hypermodel.declare_hyperparameters(hp)
        assert hypermodel.keywords(hp)["fit"]["learning_rate_schedule"] == "cosine"
        hp.values |= {"learning_rate_schedule": "step", "decay_factor": 0.4, "decay_epochs": 10}
        found = hypermodel.keywords(hp)["fit"]["learning_rate_schedule"]
        assert found == StepDecay(0.4, epochs=10)


class TestNested:
    def test_every_row_is_judged_by_a_search_that_did_not_see_it(self, tmp_path):
        seen = []

        class Watched(FusionHyperModel):
            """Trains nothing, sees all."""

            def build(self, hp):
                self.declare_hyperparameters(hp)
                return build_unimodal_model(BUILDERS["first"](units=4), task="binary")

            def fit(self, hp, model, x, y=None, *, validation_data=None, **keywords):
                rows = [x["tabular"], *([validation_data[0]["tabular"]] if validation_data else [])]
                seen.append(np.concatenate(rows)[:, 0])
                return {"val_auc": 0.5}

        x = TRAIN[0]
        hypermodel = Watched(BUILDERS, task="binary", **SMALL)
        for cv, validation in ((2, None), (None, VALIDATION)):
            seen.clear()
            tuner = search(
                tmp_path / str(cv),
                hypermodel,
                cv=cv,
                validation_data=validation,
                nested=2,
                epochs=1,
                max_trials=1,
            )
            rows = x["tabular"][:, 0]
            if validation is not None:
                rows = np.concatenate([rows, validation[0]["tabular"][:, 0]])
            assert [len(r.fold.test) for r in tuner.nested.folds] == [len(rows) // 2] * 2
            assert np.isfinite(tuner.nested.predictions).all()
            for result in tuner.nested.folds:
                held = set(rows[result.fold.test])
                apart = [part for part in seen if not held & set(part)]
                # A trial on each fold or on one split, and the training of what was picked.
                assert len(apart) == (3 if cv else 1)

    def test_what_cannot_be_estimated(self, tmp_path):
        pairs = [(np.arange(32), np.arange(32, 64))]
        with pytest.raises(ValueError, match="give `cv` as a number or a splitter"):
            search(tmp_path, validation_data=None, cv=pairs, nested=True)
        with pytest.raises(ValueError, match="by `validation_data` or by `cv`: give one"):
            search(tmp_path, cv=2)
