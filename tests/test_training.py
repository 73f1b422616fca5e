"""Training: exact scores, the best weights, the right inputs, the same answer for the same seed."""

import re
from functools import partial

import keras
import numpy as np
import pytest
from sklearn.metrics import log_loss, r2_score, roc_auc_score, root_mean_squared_error
from sklearn.utils.class_weight import compute_class_weight

from kfusion import (
    build_fusion_model,
    build_unimodal_model,
    compile_model,
    evaluate,
    fit,
    image_branch,
    predict,
    tabular_branch,
    task,
)
from kfusion.optimizers import LEARNING_RATES, StepDecay, present_rate
from kfusion.training.batch_sizes import default_batch_size

SHAPE = (6, 6, 3)


def small_model(**keywords):
    keras.utils.set_random_seed(0)
    branch = tabular_branch(3, units=8, **keywords)
    return build_unimodal_model(branch, task="binary", head_units=8)


def draw(rows, seed, noise=1.0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 3)).astype(np.float32)
    y = (x[:, 0] + noise * generator.normal(size=rows) > 0).astype(int)
    return {"tabular": x}, y


TRAIN, VALIDATION = draw(96, 0), draw(300, 1)


def quick_fit(model, x=None, y=None, **keywords):
    """One epoch of `fit` with the data above, unless told otherwise."""
    keywords = {
        "task": "binary",
        "validation_data": VALIDATION,
        "epochs": 1,
        "batch_size": 32,
        "seed": 0,
        "verbose": 0,
        **keywords,
    }
    return fit(model, TRAIN[0] if x is None else x, TRAIN[1] if y is None else y, **keywords)


@pytest.fixture(scope="module")
def model():
    """For tests that need some model and do not mind what it has learned."""
    return small_model()


@pytest.fixture(scope="module")
def trained():
    """A model trained for some epochs, at a rate so high that its scores waver, and its history."""
    model = small_model()
    history = quick_fit(model, epochs=8, learning_rate=0.3, patience=None)
    return model, history.history


class TestScores:
    def test_the_history_equals_scikit_learn(self, trained):
        model, history = trained
        (_x, y), predicted = VALIDATION, predict(model, VALIDATION[0])[:, 0]
        # Of epochs with the same AUC, that of the lower loss is kept.
        losses = history["val_loss"]
        best = max(range(8), key=lambda epoch: (history["val_auc"][epoch], -losses[epoch]))
        assert history["val_auc"][best] == pytest.approx(roc_auc_score(y, predicted), abs=1e-12)
        assert history["val_loss"][best] == pytest.approx(log_loss(y, predicted), abs=1e-6)
        assert history["val_accuracy"][best] == np.mean((predicted > 0.5) == y)

    def test_the_weights_of_the_best_epoch_are_left(self, trained):
        model, history = trained
        assert min(history["val_auc"]) < max(history["val_auc"])
        scores = evaluate(model, *VALIDATION, task="binary")
        assert scores["auc"] == max(history["val_auc"])

    def test_a_regression_is_scored_in_its_own_unit(self):
        x, y = {"tabular": TRAIN[0]["tabular"]}, 500 + 100 * TRAIN[0]["tabular"][:, 1]
        made = task("regression", y=y)
        model = build_unimodal_model(tabular_branch(3, units=8), task=made, head_units=8)
        history = quick_fit(model, x, y, task=made, validation_data=(x, y)).history
        predicted = predict(model, x)[:, 0]
        assert history["val_rmse"] == [pytest.approx(root_mean_squared_error(y, predicted))]
        assert history["val_r2"] == [pytest.approx(r2_score(y, predicted), abs=1e-6)]
        assert history["val_loss"][0] == pytest.approx(np.mean((y - predicted) ** 2) / np.var(y))
        assert history["val_mae"][0] == pytest.approx(np.abs(y - predicted).mean())

    def test_the_loss_of_the_history_leaves_penalties_out(self):
        model = small_model(l2=1.0)
        history = quick_fit(model).history
        assert history["loss"][0] > 5
        assert history["val_loss"][0] < 2

    def test_predicts_every_row_once_whatever_the_batch(self, model):
        x, _ = VALIDATION
        whole = predict(model, x, batch_size=300)
        for batch_size in (1000, 128, 7):
            np.testing.assert_allclose(predict(model, x, batch_size=batch_size), whole, atol=1e-6)
        one = predict(model, {"tabular": x["tabular"][5:6]})
        np.testing.assert_allclose(one, whole[5:6], atol=1e-6)

    def test_callbacks_see_the_exact_scores(self, model):
        seen = []
        spy = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs))
        history = quick_fit(model, callbacks=[spy]).history
        assert seen[0]["val_auc"] == history["val_auc"][0]

    def test_the_history_holds_the_rate_after_each_epoch(self, model):
        halved = {"learning_rate": 0.01, "learning_rate_schedule": StepDecay(0.5, 1)}
        history = quick_fit(model, epochs=2, **halved).history
        assert history["learning_rate"] == pytest.approx([0.005, 0.0025])

    @pytest.mark.parametrize(
        "settings",
        [
            {"warmup_target": 0.4, "warmup_steps": 3},
            {"warmup_target": 0.4, "warmup_steps": 3, "alpha": 0.25},
            {},
        ],
    )
    def test_the_rate_told_of_a_cosine_is_the_one_that_keras_gives(self, settings):
        schedule = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=8, **settings)
        optimizer = keras.optimizers.Adam(schedule)
        for step in range(14):
            optimizer.iterations.assign(step)
            assert present_rate(optimizer) == pytest.approx(float(schedule(step)), abs=1e-7)


class TestStopping:
    def test_stops_when_nothing_improves(self):
        # Without batch normalisation, whose moving statistics move on even so.
        inputs = keras.Input((3,), name="tabular")
        model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(inputs))
        slow = keras.optimizers.SGD(1e-30)
        history = quick_fit(model, epochs=20, patience=2, optimizer=slow).history
        assert len(history["val_auc"]) == 3

    def test_without_validation_rows_all_epochs_are_trained(self, model):
        told = quick_fit(model, epochs=3, patience=1, validation_data=None)
        history = told.history
        assert len(history["loss"]) == told.best_epoch + 1 == 3
        assert not [name for name in history if name.startswith("val_")]

    def test_divergence_in_the_first_epoch_is_an_error(self):
        with pytest.raises(RuntimeError, match="diverged in its first epoch.*Lower `learning_rate"):
            quick_fit(small_model(), optimizer=keras.optimizers.SGD(1e38), epochs=3)

    def test_divergence_later_keeps_the_best_weights_and_warns(self):
        model = small_model()
        optimizer = keras.optimizers.SGD(
            keras.optimizers.schedules.PiecewiseConstantDecay([4], [0.01, 1e38])
        )
        with pytest.warns(UserWarning, match="diverged in epoch 2 and was stopped"):
            told = quick_fit(model, optimizer=optimizer, epochs=6)
        history = told.history
        assert (len(history["val_auc"]), told.best_epoch) == (2, 0)
        assert evaluate(model, *VALIDATION, task="binary")["auc"] == history["val_auc"][0]


def test_an_extra_key_does_not_feed_the_wrong_array(model):
    (x, y), other = VALIDATION, np.full((300, 3), 9, np.float32)
    for extra in (
        {"another": other, **x},
        {**x, "zzz": other},
        {"a": other, **x, "z": other[:, 0]},
    ):
        np.testing.assert_array_equal(predict(model, extra), predict(model, x))
        assert evaluate(model, extra, y, task="binary") == evaluate(model, x, y, task="binary")
    plain, with_extra = small_model(), small_model()
    quick_fit(plain)
    quick_fit(
        with_extra,
        {"another": other[:96], **TRAIN[0]},
        validation_data=({"another": other, **x}, y),
    )
    for ours, theirs in zip(with_extra.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


class TestSeed:
    @staticmethod
    def build():
        keras.utils.set_random_seed(3)
        return build_fusion_model(
            {
                "image": image_branch(SHAPE, units=8, augment=True, dropout=0.3),
                "tabular": tabular_branch(3, units=8, dropout=0.3),
            },
            task="binary",
            head_units=8,
            dropout=0.3,
        )

    def test_the_same_seed_gives_identical_weights_and_another_gives_others(self):
        images = np.random.default_rng(0).integers(256, size=(64, *SHAPE), dtype=np.uint8)
        x = {"image": images, "tabular": TRAIN[0]["tabular"][:64]}
        weights = []
        for seed in (0, 0, 1):
            model = self.build()
            np.random.default_rng().random(seed + 1)
            keras.random.uniform((seed + 1,))
            quick_fit(model, x, TRAIN[1][:64], validation_data=None, seed=seed)
            weights.append(model.get_weights())
        for first, second in zip(weights[0], weights[1], strict=True):
            np.testing.assert_array_equal(first, second)
        assert any(not np.array_equal(*pair) for pair in zip(weights[0], weights[2], strict=True))


class TestClassWeight:
    y = (np.arange(96) % 4 == 0).astype(int)

    def test_balanced_equals_scikit_learns_weights_on_rows(self):
        by_class = compute_class_weight("balanced", classes=np.array([0, 1]), y=self.y)
        ways = [
            {"class_weight": "balanced"},
            {"class_weight": dict(enumerate(by_class))},
            {"sample_weight": by_class[self.y]},
        ]
        models = [small_model() for _ in ways]
        for model, way in zip(models, ways, strict=True):
            quick_fit(model, y=self.y, validation_data=None, **way)
        for model in models[1:]:
            for ours, theirs in zip(models[0].get_weights(), model.get_weights(), strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"class_weight": "even"}, 'must be None, "balanced" or weights by label'),
            ({"class_weight": {0: 1.0}}, r"no weight for the label\(s\) \[1\]"),
            ({"class_weight": "balanced", "task": "regression"}, "no classes to weigh"),
            ({"sample_weight": np.ones(5)}, "sample_weight has 5, y has 96"),
        ],
    )
    def test_weights_that_do_not_fit_are_refused(self, model, keywords, message):
        with pytest.raises(ValueError, match=message):
            quick_fit(model, y=self.y, **{"validation_data": None, **keywords})

    def test_weights_of_classes_have_their_labels(self, model):
        message = r"a dict of weights by label, .* Received: \[1.0, 2.0\]"
        with pytest.raises(TypeError, match=message):
            quick_fit(model, y=self.y, class_weight=[1.0, 2.0])


def rare(rows, seed):
    """Few positives, told by the first of three numbers."""
    x, _ = draw(rows, seed)
    chances = 1 / (1 + np.exp(4.5 - 2.5 * x["tabular"][:, 0]))
    return x, (np.random.default_rng(seed + 100).random(rows) < chances).astype(int)


class TestRareClasses:
    def test_balanced_batches_rank_rows_and_keep_the_true_rate(self):
        # So many that chance moves the rate of positives little, and the training ends near it.
        (x, y), validation = rare(3000, 0), rare(2000, 1)
        keras.utils.set_random_seed(0)
        branch = tabular_branch(3, units=8)
        model = build_unimodal_model(branch, task=task("binary", y=y), head_units=8)
        keywords = {"epochs": 5, "batch_size": 64, "learning_rate": 0.01}
        keywords |= {"balanced_batches": True, "validation_data": validation}
        history = quick_fit(model, x, y, **keywords).history
        answers = predict(model, validation[0])[:, 0]
        assert answers.mean() == pytest.approx(validation[1].mean(), abs=0.015)
        assert max(history["val_auc"]) > 0.85
        # The loss of predictions at the true rate, not at that of the batches.
        assert min(history["val_loss"]) < 0.2

    def test_auxiliary_heads_are_balanced_too(self):
        x, y = rare(300, 0)
        branches = {
            "all": tabular_branch(3, units=4, name="all"),
            "again": tabular_branch(3, units=4, name="again"),
        }
        model = build_fusion_model(branches, task="binary", auxiliary_heads=True)
        quick_fit(model, x, y, balanced_batches=True, loss="focal")
        assert np.isfinite(predict(model, x)).all()

    def test_focal_loss_is_kerass_own(self):
        model = small_model()
        compile_model(model, task="binary", loss="focal")
        x, y = VALIDATION
        answers = predict(model, x)[:, 0]
        expected = keras.losses.BinaryFocalCrossentropy(gamma=2.0)(y[:, None], answers[:, None])
        assert float(model.loss(y, answers[:, None])) == pytest.approx(float(expected), rel=1e-5)

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"balanced_batches": True, "class_weight": "balanced"}, "no `class_weight` beside"),
            ({"balanced_batches": True, "task": "regression"}, "needs a task with classes"),
            ({"balanced_batches": True, "loss": "hinge"}, "alone. Received: loss='hinge'"),
            ({"loss": "focal", "task": "regression"}, "is for classes"),
            ({"label_smoothing": 0.1, "task": "regression"}, "is for classes; a regression"),
            ({"label_smoothing": 1}, "must be 0 or more and below 1. Received: 1"),
            (
                {"label_smoothing": 0.1, "loss": keras.losses.BinaryCrossentropy()},
                "give another loss one of its own, such as",
            ),
        ],
    )
    def test_what_excludes_each_other(self, model, keywords, message):
        with pytest.raises(ValueError, match=message):
            quick_fit(model, **keywords)


class TestLabelSmoothing:
    def test_a_binary_task_trains_as_with_the_loss_of_keras(self):
        share, keywords = 0.3, {"class_weight": {0: 1.0, 1: 3.0}, "epochs": 3}
        ours, theirs = small_model(), small_model()
        told = quick_fit(ours, label_smoothing=share, **keywords).history
        loss = keras.losses.BinaryCrossentropy(label_smoothing=share)
        assert told["loss"] == pytest.approx(
            quick_fit(theirs, loss=loss, **keywords).history["loss"], rel=1e-5
        )
        for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)
        # What is scored is not smoothed.
        answers = predict(ours, VALIDATION[0])[:, 0]
        assert min(told["val_loss"]) == pytest.approx(log_loss(VALIDATION[1], answers), rel=1e-4)

    def test_without_it_the_loss_is_the_tasks_own(self):
        model = small_model()
        quick_fit(model)
        assert model.loss == "binary_crossentropy"

    @pytest.mark.parametrize("keywords", [{"loss": "focal"}, {"balanced_batches": True}])
    def test_it_reaches_the_other_losses_of_classes(self, keywords):
        model = small_model()
        quick_fit(model, label_smoothing=0.2, **keywords)
        assert model.loss.label_smoothing == 0.2


class TestCountStart:
    def test_the_weights_before_training_may_be_the_best(self):
        trained = small_model()
        quick_fit(trained, epochs=15)
        start = trained.get_weights()
        told = quick_fit(trained, epochs=3, learning_rate=5.0, count_start=True)
        assert told.best_epoch is None
        for before, after in zip(start, trained.get_weights(), strict=True):
            np.testing.assert_array_equal(before, after)

    def test_without_validation_rows_nothing_judges_them(self):
        with pytest.raises(ValueError, match="`count_start=True` needs `validation_data`"):
            quick_fit(small_model(), validation_data=None, count_start=True)

    def test_they_do_not_compete_unless_asked_for(self):
        trained = small_model()
        quick_fit(trained, epochs=15)
        start = trained.get_weights()
        quick_fit(trained, epochs=3, learning_rate=5.0)
        assert not np.array_equal(start[0], trained.get_weights()[0])


class TestOptimizers:
    @pytest.mark.parametrize("optimizer", sorted(LEARNING_RATES))
    def test_each_by_name_trains_a_step(self, optimizer):
        model = keras.Sequential([keras.Input((3,), name="tabular"), keras.layers.Dense(1)])
        before = model.get_weights()[0]
        fit(
            model,
            TRAIN[0],
            TRAIN[0]["tabular"][:, 1],
            task="regression",
            validation_data=None,
            epochs=1,
            batch_size=96,
            optimizer=optimizer,
            verbose=0,
        )
        assert type(model.optimizer).__name__.lower() == optimizer
        after = model.get_weights()[0]
        assert np.isfinite(after).all()
        assert not np.array_equal(after, before)

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"optimizer": "adamm"}, r"such as \['adadelta', .*optimizer='adamm'"),
            ({"optimizer": keras.optimizers.Adam(), "learning_rate": 1.0}, "brings its own"),
            ({"optimizer": keras.optimizers.Adam(), "weight_decay": 1.0}, "brings its own"),
            ({"learning_rate": 0}, "`learning_rate` must be above 0. Received: 0"),
            ({"learning_rate": float("nan")}, "above 0. Received: nan"),
            ({"learning_rate": -1.0}, "above 0. Received: -1.0"),
        ],
    )
    def test_what_makes_no_optimizer_is_refused(self, model, keywords, message):
        with pytest.raises(ValueError, match=message):
            quick_fit(model, **keywords)

    def test_the_rate_rises_over_a_twentieth_of_the_steps_and_falls_to_0(self, model):
        compile_model(
            model, task="binary", learning_rate=0.4, learning_rate_schedule="cosine", num_steps=100
        )
        schedule = model.optimizer._learning_rate
        rates = np.array([float(schedule(step)) for step in range(101)])
        assert np.argmax(rates) == 5
        assert rates[[5, 100]] == pytest.approx([0.4, 0])
        assert np.all(np.diff(rates[:6]) > 0)
        assert np.all(np.diff(rates[5:]) < 0)
        # Half-way down a cosine.
        assert rates[5 + 95 // 2] == pytest.approx(0.2, rel=0.02)

    def test_a_schedule_is_used_as_it_is(self, model):
        schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
        compile_model(model, task="binary", learning_rate=schedule, learning_rate_schedule="cosine")
        assert model.optimizer._learning_rate is schedule

    def test_weight_decay_reaches_the_optimizer(self, model):
        compile_model(model, task="binary", optimizer="adamw", weight_decay=0.125)
        assert model.optimizer.weight_decay == 0.125


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Others trace otherwise.")
@pytest.mark.parametrize(
    "build",
    [
        lambda branch: build_unimodal_model(branch(units=4), task="binary"),
        lambda branch: build_unimodal_model(branch(units=4, encoder="tabm"), task="binary"),
        lambda branch: build_fusion_model(
            {"first": branch(units=4), "second": branch(units=4, name="second")},
            task="binary",
            auxiliary_heads=True,
        ),
    ],
)
def test_the_training_step_is_traced_once(build):
    model = build(partial(tabular_branch, 3))
    train_step, traces = model.train_step, []

    def traced(data):
        traces.append(data)
        return train_step(data)

    model.train_step = traced
    x = {"tabular": np.random.default_rng(0).normal(size=(40, 3)).astype("float32")}
    fit(model, x, np.arange(40) % 2, task="binary", validation_data=None, epochs=2, verbose=0)
    assert len(traces) == 1


class TestErrorsBeforeTraining:
    """Each is raised at once, with the model as it was."""

    X, Y = TRAIN

    @pytest.mark.parametrize(
        ("x", "y", "validation", "message"),
        [
            ({"tabluar": X["tabular"]}, Y, None, r"`x` lacks the input\(s\) \['tabular'\]"),
            (X, Y[:-1], None, "x['tabular'] has 96, y has 95"),
            ({**X, "other": Y[:5]}, Y, None, "x['other'] has 5"),
            ({"tabular": X["tabular"][:, :2]}, Y, None, "shape (rows, 3). Received: (96, 2)"),
            (
                {"tabular": np.where(X["tabular"] > 9, 0, np.inf)},
                Y,
                None,
                "too large for float32, at row 0",
            ),
            (X, Y + 1, None, "must hold the labels 0 to 1, one per class"),
            (X, 0.5 * Y, None, "Received: 0.5 in row"),
            (X, np.eye(2)[Y], None, "one-hot"),
            (X, np.full(96, np.nan), None, "`y` is nan in row 0 (96 in all)"),
            (X, 0 * Y, None, "one class or value only (0 in all 96 rows)"),
            (X, Y, ({**X, "image": Y}, Y), "must have the same keys. Only one of them has: ['ima"),
            (X, Y, (X, Y[:3]), "validation x['tabular'] has 96, validation y has 3"),
            (X, Y, (X, 0 * Y), "one class only ('0'): no AUC can be computed"),
            (X, Y, (X, 2 * Y), "`validation y` must hold the labels 0 to 1"),
        ],
    )
    def test_data_that_does_not_fit(self, model, x, y, validation, message):
        before = model.get_weights()
        if "\\" not in message:
            message = re.escape(message)
        with pytest.raises(ValueError, match=message):
            quick_fit(model, x, y, validation_data=validation)
        for ours, theirs in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(ours, theirs)

    @pytest.mark.parametrize(
        ("x", "validation", "message"),
        [
            (X["tabular"], None, "must be a dict of arrays by input name"),
            (X, X, r"must be a pair \(x, y\)"),
            (X, (X, Y, Y), r"must be a pair \(x, y\)"),
            (X, [X], r"must be a pair \(x, y\)"),
        ],
    )
    def test_data_of_the_wrong_type(self, model, x, validation, message):
        with pytest.raises(TypeError, match=message):
            quick_fit(model, x, validation_data=validation)

    @pytest.mark.parametrize(
        ("batch_size", "error", "message"),
        [
            (0, ValueError, "`batch_size` must be 1 or more. Received: 0"),
            (-1, ValueError, "`batch_size` must be 1 or more. Received: -1"),
            (32.5, TypeError, r"`batch_size` must be an int, .* Received: 32.5 \(float\)"),
            (True, TypeError, "`batch_size` must be an int"),
        ],
    )
    def test_a_batch_size_that_no_step_can_have(self, model, batch_size, error, message):
        before = model.get_weights()
        with pytest.raises(error, match=message):
            quick_fit(model, batch_size=batch_size)
        assert all(map(np.array_equal, before, model.get_weights()))

    @pytest.mark.parametrize(
        ("keywords", "error", "message"),
        [
            ({"epochs": 0}, ValueError, "`epochs` must be 1 or more. Received: 0"),
            ({"epochs": 1.5}, TypeError, r"`epochs` must be an int. Received: 1.5 \(float\)"),
            (
                {"epochs": 3, "initial_epoch": 3},
                ValueError,
                "`epochs` must be more than `initial_epoch`, 3. Received: 3",
            ),
        ],
    )
    def test_epochs_that_train_nothing(self, model, keywords, error, message):
        with pytest.raises(error, match=message):
            quick_fit(model, **keywords)

    def test_a_model_that_was_never_built(self):
        unbuilt = keras.Sequential([keras.layers.Dense(1)], name="unbuilt")
        with pytest.raises(ValueError, match="'unbuilt' has no known inputs"):
            quick_fit(unbuilt)


def test_no_batch_is_left_with_one_row():
    assert [default_batch_size(rows) for rows in (1, 20, 240, 241, 1920, 6401)] == [
        16,
        16,
        16,
        17,
        64,
        65,
    ]
