"""What the doctor finds in a training and among inputs, and that it is silent about sound ones."""

import keras
import numpy as np
import pytest
from scipy.special import expit
from sklearn.datasets import load_digits

from kfusion import build_fusion_model, fit, image_branch, tabular_branch, task
from kfusion.doctor import history_checks, modality_checks
from kfusion.doctor.answers import Judged
from kfusion.doctor.branch_features import find_join, judge_alone
from kfusion.doctor.case import Case, Rows
from kfusion.doctor.findings import Finding, Undecided
from kfusion.doctor.history_checks import opening_epoch

pytestmark = pytest.mark.usefixtures("eagerly")

RNG = np.random.default_rng(0)
START = RNG.bit_generator.state
CHECKS = (*history_checks.CHECKS, *modality_checks.CHECKS)


@pytest.fixture(autouse=True)
def same_numbers_in_any_order_of_tests():
    RNG.bit_generator.state = START
    keras.utils.set_random_seed(0)


def told(history, *, kind="binary", model=None, y=None, x=None, validation_rows=1000):
    """A case whose model plays no part."""
    if model is None:
        model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1, "sigmoid")])
    y = np.arange(200) % 2 if y is None else y
    x = {"x": RNG.normal(size=(len(y), 2))} if x is None else x
    validation = Rows({"x": np.zeros((validation_rows, 2))}, np.arange(validation_rows) % 2)
    made = task(kind) if kind != "multiclass" else task(kind, y=y)
    return Case(model, Rows(x, y), made, validation, history)


def names(checks, case):
    checks = checks if isinstance(checks, tuple) else (checks,)
    return [each.name for check in checks for each in check(case) if isinstance(each, Finding)]


# --- histories


@pytest.mark.parametrize(
    ("loss", "severity"),
    [
        ([0.7, 0.6, float("nan")], "error"),
        ([0.7, 2.0, 9.0], "error"),
        ([20.0, 0.05, 12.0], "warning"),
        ([0.7, 0.9, 0.65], None),
        ([0.7], None),
        ([], None),
    ],
)
def test_a_loss_that_explodes_is_found(loss, severity):
    found = list(history_checks.check_divergence(told({"loss": loss})))
    assert [finding.severity for finding in found] == ([severity] if severity else [])


def test_weights_that_are_not_finite_are_found_without_a_history():
    case = told(None)
    case.model.set_weights([np.full((2, 1), np.nan), np.zeros(1)])
    (finding,) = history_checks.check_divergence(case)
    assert "weights are not finite" in finding.evidence


def digits(*layers, rows=600):
    """A network for digits in ten classes and their pixels in 0-1."""
    images, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))[:rows]
    keras.utils.set_random_seed(0)
    ends = [keras.layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((64,), name="x"), *layers, *ends])
    rate = keras.optimizers.Adam(3e-3)
    model.compile(rate, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, images[order].astype("float32") / 16, y[order]


def test_a_loss_that_is_penalty_falls_at_chance_and_its_share_is_told():
    model, x, y = digits(
        keras.layers.Dense(32, "relu", kernel_regularizer=keras.regularizers.L2(1))
    )
    kernel, bias = model.layers[0].get_weights()
    model.layers[0].set_weights([kernel * np.sqrt(3 / np.sum(kernel**2)), bias])
    model.layers[1].set_weights([np.zeros((32, 10)), np.zeros(10)])
    history = {"loss": [50.0, 5.3], "accuracy": [0.1, 0.1]}
    case = Case(model, Rows({"x": x[:500]}, y[:500]), task("multiclass", y=y), None, history)
    (finding,) = history_checks.check_chance(case)
    assert finding.name == "loss_falls_at_chance"
    # Penalties of 3 beside the entropy of ten classes.
    assert finding.values["regularization_share"] == pytest.approx(3 / (3 + np.log(10)))
    assert "57%" in finding.evidence


def test_dead_units_on_raw_pixels_are_named_as_the_cause():
    model, x, y = digits(keras.layers.Dense(8, "relu"))
    kernel, bias = model.layers[0].get_weights()
    model.layers[0].set_weights([-abs(kernel), bias - 1])
    history = {"loss": [90.0, 4.0, 2.303], "accuracy": [0.11, 0.1, 0.1]}
    case = Case(model, Rows({"x": 255 * x}, y), task("multiclass", y=y), None, history)
    (finding,) = history_checks.check_chance(case)
    assert finding.values["spread"] < 1e-6
    assert "same answer" in finding.evidence
    assert "unscaled" in finding.evidence
    assert "Rescaling" in finding.cure


def test_accuracy_at_the_rate_of_a_frequent_class_is_no_chance_if_rows_are_ranked():
    x = RNG.normal(size=(400, 2))
    y = (x[:, 0] > 1.6).astype(int)
    case = told({"loss": [0.5, 0.2], "accuracy": [0.95, 0.95]}, y=y, x={"x": x})
    case.model.set_weights([np.array([[1.0], [0.0]]), np.array([-5.0])])
    assert names(history_checks.check_chance, case) == []
    case.model.set_weights([np.array([[0.0], [0.0]]), np.array([-3.0])])
    assert names(history_checks.check_chance, case) == ["loss_falls_at_chance"]


def test_the_gap_opens_where_it_first_grew_three_times_running():
    assert opening_epoch(np.array([0.0, 0.1, 0.05, 0.1, 0.2, 0.3])) == 2
    assert opening_epoch(np.array([0.3, 0.2, 0.1, 0.0])) == 0
    assert opening_epoch(np.array([-0.5, -0.1, -0.2])) == 1


def test_training_that_leaves_validation_behind_is_found_from_its_epoch():
    train = [0.6, 0.65, 0.7, 0.8, 0.9, 0.95, 0.99]
    validation = [0.6, 0.65, 0.7, 0.72, 0.7, 0.66, 0.65]
    case = told({"loss": train[::-1], "accuracy": train, "val_accuracy": validation})
    (finding,) = history_checks.check_overfitting(case)
    assert (finding.severity, finding.values["opened"], finding.values["best_epoch"]) == (
        "warning",
        3,
        4,
    )
    close = told({"accuracy": train, "val_accuracy": [value - 0.04 for value in train]})
    assert names(history_checks.check_overfitting, close) == []


LEARNED_BY_HEART = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99]


@pytest.mark.parametrize(
    ("accuracy", "loss", "severity"),
    [
        # The land cover's networks: a gap, and nothing lost.
        ([0.44, 0.57, 0.54, 0.6, 0.61, 0.6, 0.6], [1.27, 1.1, 1.09, 1.01, 1.06, 1.03, 1.05], None),
        ([0.6] * 7, [0.9, 0.8, 0.5, 0.55, 0.6, 0.7, 0.8], "note"),
        ([0.6, 0.7, 0.8, 0.75, 0.7, 0.65, 0.6], [0.9, 0.8, 0.5, 0.55, 0.6, 0.7, 0.8], "warning"),
        # The model answers 0.5 to all rows: an accuracy of 0.5, a loss of log 2, as in epoch 3.
        ([0.4, 0.45, 0.5, 0.45, 0.43, 0.4, 0.4], [0.8, 0.75, 0.69, 0.8, 0.9, 1.0, 1.1], None),
    ],
)
def test_a_gap_is_told_where_going_on_cost_the_model_that_was_kept(accuracy, loss, severity):
    history = {"accuracy": LEARNED_BY_HEART, "val_accuracy": accuracy, "val_loss": loss}
    found = list(history_checks.check_overfitting(told(history)))
    assert [each.severity for each in found] == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("series", "found"),
    [
        ({"val_auc": [0.5, 0.55, 0.6, 0.66, 0.7, 0.76, 0.8]}, ["stopped_too_early"]),
        ({"val_loss": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]}, ["stopped_too_early"]),
        ({"val_auc": [0.5, 0.7, 0.78, 0.8, 0.801, 0.802, 0.803]}, []),
        ({"val_auc": [0.8, 0.83, 0.81, 0.84, 0.82, 0.83, 0.845]}, []),
        ({"val_auc": [0.8, 0.79, 0.75, 0.74, 0.72, 0.7, 0.68]}, ["best_in_first_epoch"]),
        ({"val_auc": [0.8, 0.79, 0.8, 0.79, 0.79, 0.8, 0.79]}, []),
        ({"val_auc": [0.5, 0.9]}, []),
        ({}, []),
    ],
)
def test_trainings_cut_off_or_best_at_once_are_told_from_noise(series, found):
    assert names(history_checks.check_length, told(series)) == found


# --- inputs against each other


def two_inputs(*, uses_b=True, rows=600, b_tells=True, seed=0):
    """A model of two tables whose weights are set by hand; both tell the label."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % 2
    a = y[:, None] + rng.normal(size=(rows, 2))
    b = (y[:, None] if b_tells else 0) + rng.normal(size=(rows, 2))
    inputs = [keras.Input((2,), name=name) for name in "ab"]
    joined = keras.layers.Concatenate(name="join")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid", name="head")(joined))
    of_b = 1.0 if uses_b is True else uses_b
    model.set_weights([np.array([[1.0], [1.0], [of_b], [of_b]]), np.array([-1.0])])
    x = {"a": a, "b": b}
    half = rows // 2
    parts = [
        Rows({key: value[part] for key, value in x.items()}, y[part])
        for part in (slice(half), slice(half, None))
    ]
    return Case(model, parts[0], task("binary"), parts[1])


def test_an_input_that_costs_nothing_to_exchange_is_ignored():
    ignored = two_inputs(uses_b=0.001)
    (finding,) = modality_checks.check_ignored(ignored)
    assert (finding.name, finding.severity, finding.subject) == ("input_ignored", "warning", "b")
    cut = two_inputs(uses_b=0.0)
    (finding,) = modality_checks.check_ignored(cut)
    assert (finding.name, finding.severity) == ("input_not_connected", "error")
    useless = two_inputs(uses_b=0.001, b_tells=False)
    (finding,) = modality_checks.check_ignored(useless)
    assert finding.severity == "note"
    assert names(modality_checks.check_ignored, two_inputs()) == []


def test_a_model_near_chance_ignores_nothing():
    case = two_inputs()
    case.model.set_weights([0.001 * RNG.normal(size=(4, 1)) * [[1], [-1], [1], [-1]], np.zeros(1)])
    shuffled = Rows(case.validation.x, np.random.default_rng(3).permutation(case.validation.y))
    case = Case(case.model, case.train, case.task, shuffled)
    (undecided,) = modality_checks.check_ignored(case)
    assert isinstance(undecided, Undecided)


def test_branches_are_found_where_they_meet():
    case = two_inputs()
    join = find_join(case.model, case.train.x)
    assert (join.name, join.branches) == ("join", ("a", "b"))
    branches = {"image": image_branch((8, 8, 3)), "tabular": tabular_branch(3)}
    model = build_fusion_model(branches, task="binary", fusion="gated")
    x = {
        "image": RNG.integers(0, 256, (20, 8, 8, 3)).astype("uint8"),
        "tabular": RNG.normal(size=(20, 3)),
    }
    join = find_join(model, x)
    assert (join.name, join.branches) == ("fusion", ("image", "tabular"))
    shared = keras.Input((4,), name="x")
    parts = [keras.layers.Dense(3)(shared) for _ in range(2)]
    ensemble = keras.Model(shared, keras.layers.Dense(1)(keras.layers.Average()(parts)))
    join = find_join(ensemble, {"x": RNG.normal(size=(20, 4))})
    assert join.branches == ("x (1)", "x (2)")
    sequence = keras.Input((4, 3), name="x")
    recurrent = keras.Model(sequence, keras.layers.Dense(1)(keras.layers.LSTM(4)(sequence)))
    assert find_join(recurrent, {"x": RNG.normal(size=(20, 4, 3))}) is None


def test_a_fusion_below_its_best_branch_is_found_with_both_scores():
    case = two_inputs(rows=1600)
    # Adds noise of one input to what the other knows.
    x = {**case.validation.x, "b": RNG.normal(size=(800, 2)) * 2}
    case = Case(case.model, case.train, case.task, Rows(x, case.validation.y))
    (finding,) = modality_checks.check_against_branches(case)
    assert (finding.name, finding.severity) == ("fused_below_a_branch", "warning")
    assert "'a'" in finding.subject
    assert finding.values["best"] > finding.values["fused"] + 0.1
    # Two branches and two inputs were held against it.
    assert "after Holm's correction for 4 comparisons" in finding.evidence
    assert names(modality_checks.check_against_branches, two_inputs(rows=1600)) == []


def test_an_auxiliary_head_counts_as_a_branch():
    case = two_inputs(rows=1600)
    inputs, head = case.model.inputs, case.model.output
    alone = keras.layers.Dense(1, "sigmoid", name="a_alone")
    outputs = {
        "prediction": keras.layers.Rescaling(-1.0, 1.0)(head),
        "a_prediction": alone(inputs[0]),
    }
    model = keras.Model({"a": inputs[0], "b": inputs[1]}, outputs)
    alone.set_weights([np.ones((2, 1)), np.array([-1.0])])
    history = {"loss": [0.7, 0.6]}
    case = Case(model, case.train, case.task, case.validation, history)
    (finding,) = modality_checks.check_against_branches(case)
    assert finding.values["auxiliary head 'a_prediction'"] > 0.8
    # The main head says the opposite of what it knows.
    assert finding.values["fused"] < 0.2


def test_the_best_of_several_rivals_is_no_evidence_by_its_own_pvalue_alone():
    y = np.arange(200) % 2
    rng = np.random.default_rng(0)
    fused = y + 2 * rng.normal(size=200)
    rivals = {str(i): fused + rng.normal(size=200) for i in range(9)}
    # By DeLong's test alone p = 0.014.
    rivals["best"] = fused + rng.normal(size=200) + 0.5 * y
    answers = {name: expit(answer[:, None]) for name, answer in rivals.items()}
    judged = Judged(Rows({}, y), y, "validation")
    alone, among = (
        list(modality_checks._compare(two_inputs(), judged, expit(fused[:, None]), given))
        for given in ({"best": answers["best"]}, answers)
    )
    assert [each.severity for each in alone] == ["warning"]
    assert [each.severity for each in among] == ["note"]


def test_no_validation_rows_leave_branches_undecided():
    case = two_inputs()
    (undecided,) = modality_checks.check_against_branches(Case(case.model, case.train, case.task))
    assert isinstance(undecided, Undecided)


def test_a_small_model_of_features_predicts_other_rows():
    x = RNG.normal(size=(400, 200))
    y = (x[:, 0] > 0).astype(int)
    x[:, 1] = 3 * y
    answer = judge_alone(x[:300], y[:300], x[300:], task("binary"))
    assert np.mean((answer[:, 0] > 0.5) == y[300:]) > 0.9
    values = judge_alone(x[:300, :5], 2 * x[:300, 0], x[300:, :5], task("regression"))
    np.testing.assert_allclose(values[:, 0], 2 * x[300:, 0], atol=0.1)
    assert judge_alone(x, np.zeros(400, int), x, task("binary")) is None


# --- sound trainings


@pytest.mark.usefixtures("in_graphs")
def test_a_plain_network_that_learned_is_no_finding():
    model, x, y = digits(keras.layers.Dense(64, "relu"), rows=1700)
    judged = (x[1200:], y[1200:])
    history = model.fit(x[:1200], y[:1200], validation_data=judged, epochs=10, verbose=0).history
    train, validation = Rows({"x": x[:1200]}, y[:1200]), Rows({"x": judged[0]}, judged[1])
    case = Case(model, train, task("multiclass", y=y), validation, history)
    assert names(CHECKS, case) == []


@pytest.mark.usefixtures("in_graphs")
def test_a_fusion_of_two_inputs_that_learned_is_no_finding():
    _, pixels, y = digits(rows=900)
    x = {
        "image": (pixels[:, :32] * 255).reshape(-1, 4, 8, 1).astype("uint8"),
        "tabular": pixels[:, 32:],
    }
    parts = [
        Rows({name: array[rows] for name, array in x.items()}, y[rows])
        for rows in (slice(600), slice(600, None))
    ]
    branches = {
        "image": image_branch((4, 8, 1), units=32),
        "tabular": tabular_branch(32, units=32),
    }
    known = task("multiclass", y=y)
    model = build_fusion_model(branches, task=known, head_units=32)
    judged = (parts[1].x, parts[1].y)
    history = fit(
        model, parts[0].x, parts[0].y, task=known, validation_data=judged, epochs=8, verbose=0
    ).history
    assert names(CHECKS, Case(model, parts[0], known, parts[1], history)) == []
