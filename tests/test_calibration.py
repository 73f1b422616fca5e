"""Calibrated probabilities against SciPy, scikit-learn, hand-worked numbers and known truths."""

import json

import numpy as np
import pytest
from scipy import optimize, special
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss, roc_auc_score

from kfusion.evidence.calibration import (
    IsotonicCalibration,
    TemperatureScaling,
    calibration_from_dict,
    fit_isotonic,
    fit_temperature,
)

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(-1.5, 1.5, 2000)
Y = (RANDOM.random(2000) < special.expit(LOGITS)).astype(int)
# Too sure of itself by a factor of 2.
BOLD = special.expit(2 * LOGITS)
CLASS_LOGITS = RANDOM.normal(size=(1500, 3))
CLASSES = np.array([RANDOM.choice(3, p=row) for row in special.softmax(CLASS_LOGITS, axis=1)])
BOLD_CLASSES = special.softmax(3 * CLASS_LOGITS, axis=1)
FITS = [fit_temperature, fit_isotonic]


def in_columns(positive):
    return np.stack([1 - positive, positive], axis=1)


def test_temperature_undoes_a_known_overconfidence():
    assert fit_temperature(Y, BOLD).temperature == pytest.approx(2, rel=0.1)
    assert fit_temperature(CLASSES, BOLD_CLASSES).temperature == pytest.approx(3, rel=0.1)


def test_temperature_is_the_slope_of_a_logistic_regression_without_intercept():
    # The maximum of the same likelihood, found by setting its slope to 0 in 1 / temperature.
    def slope(factor):
        return np.sum((Y - special.expit(factor * 2 * LOGITS)) * LOGITS)

    factor = optimize.brentq(slope, 0.1, 2)
    assert fit_temperature(Y, BOLD).temperature == pytest.approx(1 / factor, rel=1e-5)


def test_temperature_of_a_model_that_is_always_equally_sure_worked_by_hand():
    # Right in 3 of 4 rows: log-odds log(9) must become log(3), half of it.
    assert fit_temperature([1, 1, 1, 0], [0.9] * 4).temperature == pytest.approx(2, rel=1e-6)


def test_temperature_keeps_the_auc_and_the_most_likely_class():
    scaled = fit_temperature(Y, BOLD).apply(BOLD)
    assert roc_auc_score(Y, scaled) == roc_auc_score(Y, BOLD)
    classes = fit_temperature(CLASSES, BOLD_CLASSES).apply(BOLD_CLASSES)
    np.testing.assert_array_equal(classes.argmax(1), BOLD_CLASSES.argmax(1))


def test_very_small_float32_probabilities_keep_their_order():
    tiny = np.float32([1e-30, 1e-20, 1e-10, 1e-3])
    assert (np.diff(TemperatureScaling(3.0).apply(tiny)) > 0).all()


def test_one_certainty_that_was_wrong_does_not_undo_the_temperature():
    y, certain = np.append(Y, 0), np.append(BOLD, 1.0)
    assert fit_temperature(y, certain).temperature == pytest.approx(2, rel=0.1)
    assert np.isfinite(np.log(1 - TemperatureScaling(2.0).apply(certain))).all()


def test_an_endless_temperature_is_announced():
    with pytest.warns(UserWarning, match="ended at 0.05, an end of the range .* predicted right"):
        fit_temperature([0, 0, 1, 1], [0.2, 0.3, 0.7, 0.8])
    with pytest.warns(UserWarning, match="ended at 20"):
        fit_temperature([1, 1, 0, 0], [0.2, 0.3, 0.7, 0.8])


def test_isotonic_is_that_of_scikit_learn_between_0_and_1():
    theirs = IsotonicRegression(out_of_bounds="clip").fit(BOLD, Y)
    asked = np.linspace(0, 1, 201)
    expected = theirs.predict(asked)
    inside = (expected > theirs.y_thresholds_[theirs.y_thresholds_ > 0].min()) & (
        expected < theirs.y_thresholds_[theirs.y_thresholds_ < 1].max()
    )
    assert inside.sum() > 150
    ours = fit_isotonic(Y, BOLD).apply(asked)
    np.testing.assert_allclose(ours[inside], expected[inside], rtol=0, atol=1e-12)


def test_isotonic_of_more_classes_is_that_of_each_against_the_rest():
    curves = [
        IsotonicRegression(out_of_bounds="clip").fit(BOLD_CLASSES[:, k], k == CLASSES)
        for k in range(3)
    ]
    shares = np.stack([c.predict(BOLD_CLASSES[:, k]) for k, c in enumerate(curves)], axis=1)
    inside = ((shares > 0.05) & (shares < 0.95)).all(axis=1)
    assert inside.sum() > 300
    expected = shares / shares.sum(axis=1, keepdims=True)
    ours = fit_isotonic(CLASSES, BOLD_CLASSES).apply(BOLD_CLASSES)
    np.testing.assert_allclose(ours[inside], expected[inside], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.sum(axis=1), 1)


def test_isotonic_ends_follow_the_rule_of_succession():
    # 70 rows at 0.1 without a positive, 20 at 0.4 with 5, 30 at 0.9 which are all positive.
    scores = np.repeat([0.1, 0.4, 0.9], [70, 20, 30])
    y = np.concatenate([np.zeros(70), np.ones(5), np.zeros(15), np.ones(30)]).astype(int)
    found = fit_isotonic(y, scores).apply(np.array([0.0, 0.1, 0.4, 0.9, 1.0]))
    np.testing.assert_allclose(found, [1 / 72, 1 / 72, 5 / 20, 31 / 32, 31 / 32])


def test_isotonic_ends_stay_in_order_next_to_a_rarer_stretch():
    # One negative row below 1,000 with 2 positives: 1 / 3 there would be above its neighbours.
    scores = np.repeat([0.1, 0.4, 0.9], [1, 1000, 50])
    y = np.concatenate([[0], [1, 1], np.zeros(998), np.ones(50)]).astype(int)
    found = fit_isotonic(y, scores).apply(np.array([0.1, 0.4, 0.9]))
    np.testing.assert_allclose(found, [2 / 1000, 2 / 1000, 51 / 52])


def test_isotonic_of_a_constant_prediction_is_the_class_rate():
    y = np.repeat([0, 1], [90, 30])
    assert fit_isotonic(y, np.full(120, 0.5)).apply([0.2])[0] == pytest.approx(0.25)


@pytest.mark.parametrize("fit", FITS)
def test_two_classes_are_calibrated_monotonically_and_never_to_0_or_1(fit):
    found = fit(Y, BOLD).apply(np.linspace(0, 1, 1001))
    assert (np.diff(found) >= 0).all()
    assert found.min() > 0
    if fit is fit_isotonic:
        assert found.max() < 1


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("y", "bold"), [(Y, BOLD), (CLASSES, BOLD_CLASSES)], ids=["2", "3"])
def test_calibration_lowers_the_log_loss_of_other_rows(fit, y, bold):
    half = len(y) // 2
    calibrated = fit(y[:half], bold[:half]).apply(bold[half:])
    assert log_loss(y[half:], calibrated) < log_loss(y[half:], bold[half:])


@pytest.mark.parametrize("fit", FITS)
def test_all_forms_of_two_classes_give_the_same_in_their_own_form(fit):
    flat = fit(Y, BOLD).apply(BOLD)
    column = fit(Y, BOLD[:, None]).apply(BOLD[:, None])
    columns = fit(Y, in_columns(BOLD)).apply(in_columns(BOLD))
    assert flat.shape == (2000,)
    assert column.shape == (2000, 1)
    assert columns.shape == (2000, 2)
    np.testing.assert_allclose(column[:, 0], flat)
    np.testing.assert_allclose(columns[:, 1], flat)
    np.testing.assert_allclose(columns[:, 0], 1 - flat)


@pytest.mark.parametrize("fit", FITS)
def test_a_weight_is_a_number_of_equal_rows(fit):
    weights = np.random.default_rng(1).integers(0, 3, len(Y))
    expected = fit(np.repeat(Y, weights), np.repeat(BOLD, weights)).apply(BOLD)
    # The ends of a curve depend on how many rows were really seen.
    inside = (expected > 0.05) & (expected < 0.95)
    assert inside.sum() > 1000
    weighted = fit(Y, BOLD, weights=weights).apply(BOLD)
    np.testing.assert_allclose(weighted[inside], expected[inside], rtol=1e-5)


@pytest.mark.parametrize("fit", FITS)
def test_the_scale_of_weights_does_not_matter(fit):
    weights = np.random.default_rng(1).random(len(Y))
    small, large = (fit(Y, BOLD, weights=scale * weights).apply(BOLD) for scale in (0.01, 100))
    np.testing.assert_allclose(small, large, rtol=1e-6)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("y", "bold"), [(Y, BOLD), (CLASSES, BOLD_CLASSES)], ids=["2", "3"])
def test_a_calibration_survives_json(fit, y, bold):
    calibration = fit(y, bold)
    restored = calibration_from_dict(json.loads(json.dumps(calibration.to_dict())))
    assert restored == calibration
    np.testing.assert_array_equal(restored.apply(bold), calibration.apply(bold))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row": 7, "value": np.nan}, "must be finite. Received: nan in row 7 \\(1 rows in all"),
        ({"row": 5, "value": 1.2}, "must lie in 0 to 1. Received: 1.2 in row 5"),
        ({"y": np.zeros(2000)}, "`y` holds one class or value only"),
        ({"y": Y + 1}, "must hold the labels 0 to 1"),
        ({"y": Y[1:]}, "same number of rows: y has 1999"),
        ({"y": in_columns(Y)}, "`y` must have shape \\(rows,\\)"),
        ({"weights": -np.ones(2000)}, "`weights` must be 0 or more. Received: -1.0 in row 0"),
        ({"weights": (Y == 0) * 1.0}, "one class or value only"),
        ({"weights": np.ones(3)}, "weights has 3"),
        ({"probabilities": np.zeros((2000, 2, 2))}, "must have shape \\(rows, classes\\)"),
        ({"probabilities": in_columns(BOLD) * 0.99}, "sum to 1 .* Received: 0.99 in row 0"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(map(str, value)),
)
def test_bad_predictions_are_errors_that_name_the_row(fit, changes, message):
    probabilities = np.array(changes.get("probabilities", BOLD))
    if "row" in changes:
        probabilities[changes["row"]] = changes["value"]
    with pytest.raises(ValueError, match=message):
        fit(changes.get("y", Y), probabilities, weights=changes.get("weights"))


def test_a_row_that_misses_1_by_a_rounding_is_taken():
    rounded = BOLD_CLASSES.astype(np.float16)
    assert (rounded.astype(np.float64).sum(axis=1) != 1).any()
    assert fit_temperature(CLASSES, rounded).temperature == pytest.approx(3, rel=0.1)
    assert TemperatureScaling(1.0).apply([1 + 1e-7, -1e-9]).max() <= 1


def test_too_few_rows_for_a_curve_name_the_alternative():
    with pytest.raises(ValueError, match="100 rows at least. Received: 99. Use `fit_temperature`"):
        fit_isotonic(Y[:99], BOLD[:99])
    y = np.arange(200) < 9
    with pytest.raises(ValueError, match="10 rows of each .* 9 of class 1. Use `fit_temperature`"):
        fit_isotonic(y, BOLD[:200])


def test_predictions_to_calibrate_are_checked_too():
    with pytest.raises(ValueError, match="nan in row 1"):
        TemperatureScaling(1.0).apply([0.5, np.nan])
    with pytest.raises(ValueError, match="is for 2 classes. Received: probabilities of 3"):
        fit_isotonic(Y, BOLD).apply(BOLD_CLASSES)


def test_what_is_no_saved_calibration_is_an_error():
    with pytest.raises(ValueError, match="`kind` must be one of .'temperature', 'isotonic'."):
        calibration_from_dict({"kind": "platt"})
    with pytest.raises(ValueError, match="has kind='isotonic' and 'curves'"):
        IsotonicCalibration.from_dict({"kind": "isotonic"})
    with pytest.raises(ValueError, match="has kind='temperature'"):
        TemperatureScaling.from_dict({"kind": "isotonic", "temperature": 1.0})
    with pytest.raises(ValueError, match="`temperature` must be above 0. Received: -1.0"):
        calibration_from_dict({"kind": "temperature", "temperature": -1.0})
    with pytest.raises(ValueError, match="`curves` must be one for two classes"):
        calibration_from_dict({"kind": "isotonic", "curves": []})
    for scores, probabilities in (([0.5, 0.1], [0.1, 0.2]), ([0.1, 0.2], [0.0, 1.0]), ([], [])):
        curve = {"scores": scores, "probabilities": probabilities}
        with pytest.raises(ValueError, match="A saved curve must have rising `scores`"):
            calibration_from_dict({"kind": "isotonic", "curves": [curve]})
