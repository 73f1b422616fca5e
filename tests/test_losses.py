"""Losses against those of Keras, NumPy formulas, and the class rates that models learn."""

from functools import partial

import keras
import numpy as np
import pytest
from scipy import special

from kfusion.losses import (
    FocalCrossentropy,
    MeanOverMembers,
    PriorShiftedCrossentropy,
    SmoothedCrossentropy,
)

RANDOM = np.random.default_rng(0)
# Both ends, where logarithms are not finite, are among them.
POSITIVE = np.append(RANDOM.random(30), [0.0, 0.0, 1.0, 1.0]).astype(np.float32)[:, None]
LABELS = np.append(RANDOM.integers(2, size=30), [0, 1, 0, 1])
PROBABILITIES = np.append(RANDOM.dirichlet(np.ones(4), 40), np.eye(4), axis=0).astype(np.float32)
CLASSES = np.append(RANDOM.integers(4, size=40), [0, 0, 0, 3])
ONE_HOT = np.eye(4, dtype=np.float32)[CLASSES]
RARE = {"training_rates": [0.5, 0.5], "true_rates": [0.95, 0.05]}
LONG_TAIL = {"training_rates": [0.25] * 4, "true_rates": [0.6, 0.3, 0.09, 0.01]}
TASKS = pytest.mark.parametrize(
    ("y", "predicted", "rates"),
    [(LABELS, POSITIVE, RARE), (CLASSES, PROBABILITIES, LONG_TAIL)],
    ids=["binary", "multiclass"],
)


def per_row(loss, y, predicted):
    loss.reduction = None
    return keras.ops.convert_to_numpy(loss(y, predicted))


def train(model, loss, x, y, weights, steps):
    """Repeats one batch of all rows, so that training ends at the loss's minimum."""
    model.compile(keras.optimizers.Adam(0.1), loss=loss)
    repeated = [np.concatenate([part] * steps) for part in (x, y, weights)]
    model.fit(*repeated[:2], sample_weight=repeated[2], batch_size=len(y), shuffle=False, verbose=0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_is_that_of_keras(gamma):
    y, positive = LABELS[:30], POSITIVE[:30]
    ours = per_row(FocalCrossentropy(gamma), y, positive)
    theirs = per_row(keras.losses.BinaryFocalCrossentropy(gamma=gamma), y[:, None], positive)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    ours = per_row(FocalCrossentropy(gamma), CLASSES, PROBABILITIES)
    one_hot = keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=gamma)
    theirs = per_row(one_hot, ONE_HOT, PROBABILITIES)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("share", [None, "0.1", True])
def test_shares_that_are_no_numbers_are_refused(share):
    with pytest.raises(TypeError, match="`label_smoothing` must be a number, 0 for none"):
        SmoothedCrossentropy(share)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
@pytest.mark.parametrize(
    "make", [SmoothedCrossentropy, lambda share: FocalCrossentropy(0.0, label_smoothing=share)]
)
def test_smoothed_labels_are_those_of_keras(make, share):
    theirs = keras.losses.BinaryCrossentropy(label_smoothing=share)
    np.testing.assert_allclose(
        per_row(make(share), LABELS[:30], POSITIVE[:30]),
        per_row(theirs, LABELS[:30, None], POSITIVE[:30]),
        rtol=1e-4,
        atol=1e-6,
    )
    theirs = keras.losses.CategoricalCrossentropy(label_smoothing=share)
    np.testing.assert_allclose(
        per_row(make(share), CLASSES, PROBABILITIES),
        per_row(theirs, ONE_HOT, PROBABILITIES),
        rtol=1e-4,
        atol=1e-5,
    )


def test_two_smoothed_labels_worked_by_hand():
    # Targets 0.95 and 0.05 of two classes; 0.8, 0.1 and 0.1 of three.
    sure = -0.95 * np.log(0.8) - 0.05 * np.log(0.2)
    assert float(SmoothedCrossentropy(0.1)(np.array([1]), np.array([[0.8]]))) == pytest.approx(
        sure, rel=1e-5
    )
    sure = -0.8 * 0.5**2 * np.log(0.5) - 0.1 * (0.7**2 * np.log(0.3) + 0.8**2 * np.log(0.2))
    focal = FocalCrossentropy(2.0, label_smoothing=0.3)
    assert float(focal(np.array([0]), np.array([[0.5, 0.3, 0.2]]))) == pytest.approx(sure, rel=1e-5)


def test_a_model_learns_rates_that_are_drawn_towards_even_ones():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3, "softmax")])
    x, y, weights = np.ones((3, 1)), np.arange(3), np.array([0.8, 0.17, 0.03])
    train(model, SmoothedCrossentropy(0.2), x, y, weights, steps=200)
    learned = model.predict(np.ones((1, 1)), verbose=0)[0]
    np.testing.assert_allclose(learned, 0.8 * weights + 0.2 / 3, rtol=0.01)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Others know no logits.")
@pytest.mark.parametrize(("units", "activation"), [(1, "sigmoid"), (2, "softmax")])
def test_what_is_far_too_sure_is_drawn_back(units, activation):
    """Where probabilities are clipped, at logits of 200, their own slope is 0."""
    layer = keras.layers.Dense(units, activation, use_bias=False)
    model = keras.Sequential([keras.Input((1,)), layer])
    layer.set_weights([np.array([[200.0, -200.0][:units]], np.float32)])
    model.compile(keras.optimizers.SGD(1.0), loss=SmoothedCrossentropy(0.2))
    model.fit(np.ones((4, 1)), np.full(4, units == 1, int), verbose=0)
    # The difference of prediction and smoothed target: 1 - 0.9.
    assert layer.get_weights()[0][0, 0] == pytest.approx(200 - 0.1, abs=1e-3)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_at_equal_rates_nothing_is_shifted(gamma):
    loss = PriorShiftedCrossentropy([0.7, 0.3], [0.7, 0.3], gamma=gamma)
    theirs = keras.losses.BinaryFocalCrossentropy(gamma=gamma)
    y, positive = LABELS[:30], POSITIVE[:30]
    np.testing.assert_allclose(
        per_row(loss, y, positive),
        per_row(theirs, y[:, None], positive),
        rtol=1e-4,
        atol=1e-6,
    )
    loss = PriorShiftedCrossentropy([0.25] * 4, [0.25] * 4)
    theirs = keras.losses.SparseCategoricalCrossentropy()
    np.testing.assert_allclose(
        per_row(loss, CLASSES, PROBABILITIES),
        per_row(theirs, CLASSES, PROBABILITIES),
        rtol=1e-4,
        atol=1e-6,
    )


def test_a_wrong_certainty_costs_the_bound_that_keras_uses():
    # Keras itself is off by a rounding of float32 at 1.
    loss = per_row(FocalCrossentropy(), LABELS[-4:], POSITIVE[-4:])
    bound = -np.log(1e-7)
    np.testing.assert_allclose(loss, [0, bound, bound, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("gamma", "share"), [(0.0, 0.0), (2.0, 0.0), (0.0, 0.2), (2.0, 0.2)])
def test_probabilities_are_compared_at_the_rates_of_the_batches(gamma, share):
    inside = PROBABILITIES[:40].astype(np.float64)
    shifted = inside * 0.25 / np.array(LONG_TAIL["true_rates"])
    shifted /= shifted.sum(axis=1, keepdims=True)
    targets = (1 - share) * ONE_HOT[:40] + share / 4
    loss = PriorShiftedCrossentropy(**LONG_TAIL, gamma=gamma, label_smoothing=share)
    np.testing.assert_allclose(
        per_row(loss, CLASSES[:40], PROBABILITIES[:40]),
        -(targets * (1 - shifted) ** gamma * np.log(shifted)).sum(axis=1),
        rtol=1e-4,
        atol=1e-6,
    )


def test_one_sigmoid_column_is_worth_two_of_a_softmax():
    both = np.concatenate([1 - POSITIVE, POSITIVE], axis=1)
    for loss in (FocalCrossentropy(), PriorShiftedCrossentropy(**RARE)):
        np.testing.assert_allclose(
            per_row(loss, LABELS, POSITIVE), per_row(loss, LABELS, both), rtol=1e-6
        )


def test_a_head_that_starts_at_the_true_rate_starts_undecided_in_the_batches():
    at_the_prior = np.full((2, 1), 0.05, np.float32)
    loss = per_row(PriorShiftedCrossentropy(**RARE), np.array([0, 1]), at_the_prior)
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-5)


def test_a_model_of_three_groups_learns_the_true_rate_of_each_from_balanced_rows():
    # 2,000 rows of which 100 are positive; balanced, each positive one stands for 19.
    positives, negatives = np.array([10, 30, 60]), np.array([990, 570, 340])
    x = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]]
    y = np.repeat([1, 0], 3)
    weights = np.concatenate([19 * positives, negatives]) / 1900
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, "sigmoid", use_bias=False)])
    train(model, PriorShiftedCrossentropy(**RARE), x, y, weights, steps=200)
    learned = model.predict(np.eye(3, dtype=np.float32), verbose=0)[:, 0]
    np.testing.assert_allclose(learned, positives / (positives + negatives), rtol=0.01)


def test_a_model_of_three_classes_learns_their_true_rates_from_balanced_rows():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3, "softmax")])
    rates = [0.8, 0.17, 0.03]
    loss = PriorShiftedCrossentropy([1 / 3] * 3, rates)
    train(model, loss, np.ones((3, 1)), np.arange(3), np.ones(3), steps=200)
    np.testing.assert_allclose(model.predict(np.ones((1, 1)), verbose=0)[0], rates, rtol=0.01)


def test_a_logistic_regression_on_balanced_rows_keeps_the_true_mean():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(10_000, 2)).astype(np.float32)
    y = (generator.random(10_000) < special.expit(x @ [1.0, -0.5] - 3.4)).astype(int)
    rate = y.mean()
    assert 0.04 < rate < 0.06
    positive = np.flatnonzero(y == 1)
    rows = np.append(positive, generator.choice(np.flatnonzero(y == 0), positive.size))
    means = {}
    for loss in (
        PriorShiftedCrossentropy([0.5, 0.5], [1 - rate, rate]),
        keras.losses.BinaryCrossentropy(),
    ):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "sigmoid")])
        train(model, loss, x[rows], y[rows], np.ones(rows.size), steps=120)
        means[loss.name] = model.predict(x, batch_size=5000, verbose=0).mean()
    assert means["prior_shifted_crossentropy"] == pytest.approx(rate, abs=0.01)
    assert means["binary_crossentropy"] > 0.35


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("activation", ["linear", "sigmoid", "softmax"])
def test_certain_predictions_have_a_finite_slope(gamma, activation):
    # Linear with weight 1: the predictions are 0 and 1 themselves; else logits of -200 and 200.
    units = 2 if activation == "softmax" else 1
    x = np.array([[0.0], [0.0], [1.0], [1.0]], np.float32)
    scale = 1.0
    if activation != "linear":
        x, scale = 2 * x - 1, 200.0
    for loss in (
        FocalCrossentropy(gamma),
        FocalCrossentropy(gamma, label_smoothing=0.1),
        PriorShiftedCrossentropy(**RARE, gamma=gamma),
        SmoothedCrossentropy(0.1),
    ):
        layer = keras.layers.Dense(units, activation, use_bias=False)
        model = keras.Sequential([keras.Input((1,)), layer])
        layer.set_weights([np.full((1, units), scale, np.float32) * [1, -1][:units]])
        model.compile(keras.optimizers.SGD(1.0), loss=loss)
        history = model.fit(x, np.array([0, 1, 0, 1]), verbose=0).history
        assert np.isfinite(history["loss"]).all()
        assert np.isfinite(layer.get_weights()[0]).all()


@TASKS
def test_row_weights_count(y, predicted, rates):
    weights = RANDOM.random(len(y))
    for loss in (FocalCrossentropy(), PriorShiftedCrossentropy(**rates), SmoothedCrossentropy()):
        weighted = float(loss(y, predicted, sample_weight=weights))
        rows = per_row(loss, y, predicted)
        assert weighted == pytest.approx(np.mean(weights * rows), rel=1e-5)


@TASKS
def test_float16_predictions_are_compared_in_float32(y, predicted, rates):
    halved = predicted.astype(np.float16)
    for loss in (FocalCrossentropy(), PriorShiftedCrossentropy(**rates), SmoothedCrossentropy()):
        value = loss(y, halved)
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        assert float(value) == float(loss(y, halved.astype(np.float32)))
        assert np.isfinite(float(value))


@TASKS
def test_a_column_of_labels_is_as_good_as_a_row(y, predicted, rates):
    for loss in (FocalCrossentropy(), PriorShiftedCrossentropy(**rates), SmoothedCrossentropy()):
        assert float(loss(y, predicted)) == float(loss(y[:, None], predicted))


@pytest.mark.parametrize(
    "loss",
    [
        FocalCrossentropy(gamma=1.5, label_smoothing=0.1, reduction="sum"),
        PriorShiftedCrossentropy(**RARE, gamma=0.5, label_smoothing=0.2, name="shifted"),
        SmoothedCrossentropy(0.3, reduction="sum"),
    ],
    ids=["focal", "shifted", "smoothed"],
)
def test_a_saved_model_keeps_its_loss(loss, tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "sigmoid")])
    model.compile("sgd", loss=loss)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").loss
    assert type(loaded) is type(loss)
    assert loaded.get_config() == loss.get_config()
    assert float(loaded(LABELS, POSITIVE)) == float(loss(LABELS, POSITIVE))


def test_a_class_that_is_nowhere_is_left_as_it_is():
    loss = PriorShiftedCrossentropy([0.5, 0.5, 0.0], [0.9, 0.1, 0.0])
    predicted = np.array([[0.6, 0.2, 0.2]], np.float32)
    shifted = np.array([0.6 * 0.5 / 0.9, 0.2 * 0.5 / 0.1, 0.2])
    assert float(loss(np.array([1]), predicted)) == pytest.approx(
        -np.log(shifted[1] / shifted.sum()), rel=1e-5
    )


@pytest.mark.parametrize(
    ("training_rates", "true_rates", "message"),
    [
        ([0.5, 0.5], [0.5, 0.3, 0.2], "`training_rates` has 2 classes, `true_rates` 3"),
        ([0.5, 0.5], [0.9, 0.2], "`true_rates` must be shares of 0 or more that sum to 1"),
        ([1.5, -0.5], [0.9, 0.1], "`training_rates` must be shares"),
        ([0.5, np.nan], [0.9, 0.1], "`training_rates` must be shares"),
        ([1.0], [1.0], "of 2 classes at least"),
        ([0.5, 0.5], [1.0, 0.0], "Class 1 must have both rates above 0, .* true rate 0."),
    ],
)
def test_rates_that_cannot_be_are_errors(training_rates, true_rates, message):
    with pytest.raises(ValueError, match=message):
        PriorShiftedCrossentropy(training_rates, true_rates)


def test_a_negative_gamma_is_an_error():
    with pytest.raises(ValueError, match="`gamma` must be .* Received: -1"):
        FocalCrossentropy(-1)
    with pytest.raises(ValueError, match="`gamma` must be .* Received: nan"):
        PriorShiftedCrossentropy(**RARE, gamma=float("nan"))


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_labels_cannot_lose_is_an_error(share):
    for make in (
        SmoothedCrossentropy,
        partial(FocalCrossentropy, 2.0),
        partial(PriorShiftedCrossentropy, *RARE.values(), 0.0),
    ):
        with pytest.raises(ValueError, match=f"must be 0 or more and below 1. Received: {share}"):
            make(share)


def test_predictions_and_labels_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match="rates of 2 classes, but the model predicts 4"):
        PriorShiftedCrossentropy(**RARE)(CLASSES, PROBABILITIES)
    with pytest.raises(ValueError, match="turn one-hot labels into `y.argmax"):
        FocalCrossentropy()(ONE_HOT, PROBABILITIES)
    for loss in (FocalCrossentropy(), SmoothedCrossentropy()):
        with pytest.raises(ValueError, match="must be \\(rows, 1\\) of a sigmoid"):
            loss(LABELS, POSITIVE[:, 0])


@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        keras.losses.SparseCategoricalCrossentropy(),
        FocalCrossentropy(),
        PriorShiftedCrossentropy(**LONG_TAIL),
        SmoothedCrossentropy(),
    ],
    ids=lambda loss: getattr(loss, "name", loss),
)
def test_the_loss_of_an_ensemble_is_the_mean_of_its_members(loss):
    members = RANDOM.dirichlet(np.ones(4), (len(CLASSES), 3)).astype(np.float32)
    ours = per_row(MeanOverMembers(loss), CLASSES, members)
    function = keras.losses.get(loss)
    function = getattr(function, "call", function)
    alone = [np.asarray(function(CLASSES[:, None], members[:, i])) for i in range(3)]
    np.testing.assert_allclose(ours, np.mean(alone, axis=0), rtol=1e-5)


@pytest.mark.parametrize("loss", ["binary_crossentropy", "mean_squared_error"])
def test_the_loss_of_an_ensemble_of_single_values(loss):
    members = RANDOM.random((len(LABELS), 3, 1)).astype(np.float32)
    ours = per_row(MeanOverMembers(loss), LABELS.astype(np.float32), members)
    p, y = members[:, :, 0], LABELS[:, None]
    alone = {
        "binary_crossentropy": -np.log(np.where(y == 1, p, 1 - p)),
        "mean_squared_error": (p - y) ** 2,
    }[loss]
    np.testing.assert_allclose(ours, alone.mean(axis=1), rtol=1e-4)


def test_the_loss_of_an_ensemble_is_rebuilt_from_its_config():
    loss = MeanOverMembers(FocalCrossentropy(gamma=0.5))
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.loss.gamma == 0.5


def test_the_loss_of_an_ensemble_refuses_a_single_prediction():
    with pytest.raises(ValueError, match=r"must be \(rows, members, units\). Received: .*34, 1"):
        MeanOverMembers("binary_crossentropy")(LABELS, POSITIVE)
