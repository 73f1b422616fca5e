"""What the doctor says of penalties and rates, and the range test of the rate."""

import keras
import numpy as np
import pytest
from doctor_cases import findings, make_case
from keras import layers
from sklearn.datasets import load_digits

import kfusion
from kfusion.doctor.learning_checks import check_learning_rate, check_penalties
from kfusion.optimizers import LEARNING_RATES, make_optimizer

PIXELS, DIGITS = load_digits(return_X_y=True)
PIXELS = (PIXELS / 16).astype("float32")
SPARSE = "sparse_categorical_crossentropy"


def network(optimizer="adam", penalty=None, units=64, **keywords):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(units, "relu", kernel_regularizer=penalty, name="hidden_1"),
            layers.Dense(units, "relu", kernel_regularizer=penalty, name="hidden_2", **keywords),
            layers.Dense(10, "softmax"),
        ]
    )
    model.compile(optimizer, SPARSE, metrics=["accuracy"])
    return model


def case_of(model, **keywords):
    return make_case(model, PIXELS, DIGITS, "multiclass", **keywords)


class TestPenalties:
    def test_that_are_the_whole_loss(self):
        # The network whose accuracy stayed at 0.1: two layers of 1000 units under "l2".
        model = network(penalty="l2", units=1000, kernel_initializer="he_normal")
        said = findings(check_penalties, case_of(model))["penalties_rule_the_loss"]
        kernels = [model.get_layer(f"hidden_{i}").kernel.numpy() for i in (1, 2)]
        penalty = sum(0.01 * np.square(kernel).sum() for kernel in kernels)
        assert said.values["penalty"] == pytest.approx(penalty, rel=1e-4)
        assert said.values["share"] > 0.8
        assert said.subject == "hidden_2"

    def test_the_loss_beside_them_is_that_of_the_predictions(self):
        model = network(penalty="l2", units=1000)
        case = make_case(model, PIXELS[:200], DIGITS[:200], "multiclass")
        said = findings(check_penalties, case)["penalties_rule_the_loss"]
        bare = keras.Model(model.inputs, model.outputs)
        probabilities = bare.predict(PIXELS[:200], verbose=0)
        entropy = -np.log(probabilities[np.arange(200), DIGITS[:200]]).mean()
        assert said.values["data_loss"] == pytest.approx(entropy, rel=1e-4)

    def test_of_activities_count(self):
        model = network(activity_regularizer=keras.regularizers.L1(10.0))
        assert findings(check_penalties, case_of(model))["penalties_rule_the_loss"].severity

    @pytest.mark.parametrize("penalty", [None, keras.regularizers.L2(1e-4)])
    def test_that_are_small_are_silent(self, penalty):
        assert not list(check_penalties(case_of(network(penalty=penalty))))


class TestLearningRate:
    @pytest.mark.parametrize(
        ("optimizer", "decades"),
        [
            (keras.optimizers.Adam(0.1), 2),
            (keras.optimizers.Adam(1e-6), -3),
            (keras.optimizers.SGD(1e-5), -3.3),
            # Keras' own default, which does not train.
            (keras.optimizers.Adadelta(), -3),
        ],
    )
    def test_decades_off(self, optimizer, decades):
        found = findings(check_learning_rate, case_of(network(optimizer)))
        assert found["learning_rate_off"].values["decades"] == pytest.approx(decades, abs=0.01)

    def test_of_zero(self):
        found = findings(check_learning_rate, case_of(network(keras.optimizers.Adam(0.0))))
        assert list(found) == ["learning_rate_not_above_zero"]

    @pytest.mark.parametrize("name", sorted({*LEARNING_RATES} - {"adadelta"}))
    def test_defaults_of_keras_and_kfusion_are_silent(self, name):
        schedule = make_optimizer(
            name, None, 1.0, None, schedule="cosine", num_steps=1000, steps_per_epoch=50
        )
        for optimizer in (name, schedule, keras.optimizers.Adam(1e-5)):
            model = network(optimizer)
            assert not list(check_learning_rate(case_of(model, epochs=20)))


class TestRangeTest:
    def test_suggests_a_rate_that_trains_and_leaves_the_model_alone(self):
        model = network("sgd")
        before = [value.copy() for value in model.get_weights()]
        task = kfusion.task("multiclass", y=DIGITS)
        found = kfusion.learning_rate_range_test(model, PIXELS, DIGITS, task=task)
        assert all(map(np.array_equal, before, model.get_weights()))
        assert float(model.optimizer.learning_rate) == pytest.approx(0.01)
        assert len(found.rates) == len(found.losses) <= 100
        assert np.ptp(np.diff(np.log(found.rates))) < 1e-6
        assert found.losses[0] == pytest.approx(np.log(10), rel=0.2)
        assert found.losses.max() <= 4 * found.losses.min()

        losses = {}
        for rate in (found.suggested, found.suggested / 1000):
            trained = network(keras.optimizers.SGD(rate))
            history = trained.fit(PIXELS, DIGITS, epochs=3, verbose=0).history
            losses[rate] = history["loss"][-1]
        assert losses[found.suggested] < 0.6 < losses[found.suggested / 1000]

    def test_rejects_rates_in_the_wrong_order(self):
        with pytest.raises(ValueError, match="`lowest` must lie above 0 and below `highest`"):
            kfusion.learning_rate_range_test(
                network(), PIXELS, DIGITS, task="binary", lowest=1.0, highest=0.1
            )

    def test_rejects_batches_of_no_rows(self):
        with pytest.raises(ValueError, match="`batch_size` must be 1 or more. Received: 0"):
            kfusion.learning_rate_range_test(
                network(), PIXELS, DIGITS, task="multiclass", batch_size=0
            )
