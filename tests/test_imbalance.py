"""Few positives, from balanced batches to a decision, with plain Keras."""

import keras
import numpy as np
import pytest
from scipy import special
from sklearn.metrics import log_loss, roc_auc_score

from kfusion.data.balanced_batches import BalancedBatches
from kfusion.evidence.calibration import fit_isotonic, fit_temperature
from kfusion.evidence.thresholds import measure_threshold, threshold_by_cost
from kfusion.losses import PriorShiftedCrossentropy

COSTS = {"false_negative_cost": 20.0, "false_positive_cost": 1.0}


def draw_rows(num_rows, seed):
    """Six numbers of which three matter, and labels of which about 5 % are positive."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(num_rows, 6)).astype(np.float32)
    logits = 1.5 * x[:, 0] + 1.5 * np.maximum(x[:, 1], 0) - x[:, 2] - 4.75
    return x, (generator.random(num_rows) < special.expit(logits)).astype(int)


X, Y = draw_rows(1000, seed=0)
# In place of out-of-fold rows, those on which calibration and threshold are fitted.
OTHER_X, OTHER_Y = draw_rows(3000, seed=1)
TEST_X, TEST_Y = draw_rows(3000, seed=2)


def train(data, loss, **keywords):
    """Predictions of `OTHER_X` and `TEST_X` by a small network that starts at the class rate."""
    keras.utils.set_random_seed(0)
    start = keras.initializers.Constant(float(special.logit(Y.mean())))
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(16, "relu"),
            keras.layers.Dense(1, "sigmoid", bias_initializer=start),
        ]
    )
    model.compile(keras.optimizers.Adam(3e-3), loss=loss)
    model.fit(data, **keywords, epochs=8, verbose=0)
    return [model.predict(x, batch_size=3000, verbose=0)[:, 0] for x in (OTHER_X, TEST_X)]


@pytest.fixture(scope="module")
def predictions():
    """Pairs of predictions, by how the model was trained."""
    batches = BalancedBatches(X, Y, Y, batch_size=32, seed=0)
    shifted = PriorShiftedCrossentropy(batches.training_rates, batches.true_rates)
    plain = "binary_crossentropy"
    return {
        "plain": train(X, plain, y=Y, batch_size=32),
        "balanced": train(batches, shifted),
        "balanced, not shifted": train(BalancedBatches(X, Y, Y, batch_size=32, seed=0), plain),
    }


def test_about_one_row_in_twenty_is_positive():
    for y in (Y, OTHER_Y, TEST_Y):
        assert 0.04 < y.mean() < 0.065


def test_balanced_training_ranks_rows_and_keeps_the_true_rate(predictions):
    plain, balanced = predictions["plain"][1], predictions["balanced"][1]
    assert balanced.mean() == pytest.approx(Y.mean(), abs=0.012)
    assert predictions["balanced, not shifted"][1].mean() > 0.15
    assert roc_auc_score(TEST_Y, balanced) > 0.8
    assert roc_auc_score(TEST_Y, balanced) > roc_auc_score(TEST_Y, plain) - 0.02


def test_calibration_keeps_or_lowers_the_log_loss_of_other_rows(predictions):
    other, test = predictions["balanced"]
    before = log_loss(TEST_Y, test)
    for fit in (fit_temperature, fit_isotonic):
        assert log_loss(TEST_Y, fit(OTHER_Y, other).apply(test)) < before + 0.005
    # Here there is much to mend, for a curve; a temperature alone does not change the rate.
    other, test = predictions["balanced, not shifted"]
    calibrated = fit_isotonic(OTHER_Y, other).apply(test)
    assert log_loss(TEST_Y, calibrated) < log_loss(TEST_Y, test) - 0.1
    assert calibrated.mean() == pytest.approx(TEST_Y.mean(), abs=0.015)


@pytest.mark.parametrize("calibrate", [None, fit_temperature, fit_isotonic])
def test_a_threshold_by_cost_is_cheaper_than_one_half(predictions, calibrate):
    other, test = predictions["balanced"]
    if calibrate is not None:
        calibration = calibrate(OTHER_Y, other)
        other, test = calibration.apply(other), calibration.apply(test)
    found = threshold_by_cost(OTHER_Y, other, **COSTS)
    assert found.value < 0.3
    here = measure_threshold(TEST_Y, test, value=found.value, **COSTS)
    assert here.cost < 0.7 * measure_threshold(TEST_Y, test, value=0.5, **COSTS).cost
