"""What the doctor finds in inputs, targets and splits, and that it is silent about sound ones."""

import keras
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_iris

from kfusion import build_fusion_model, image_branch, tabular_branch, task
from kfusion.doctor import column_checks, data_checks, split_checks
from kfusion.doctor.case import Case, Rows, name_inputs
from kfusion.doctor.column_checks import is_identifier
from kfusion.doctor.findings import Finding, Undecided
from kfusion.doctor.row_hashes import hash_rows

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, size=(120, 8, 8, 3)).astype("uint8")
LABELS = np.arange(120) % 2
START = RNG.bit_generator.state
CHECKS = (*data_checks.CHECKS, *column_checks.CHECKS, *split_checks.CHECKS)


@pytest.fixture(autouse=True)
def same_numbers_in_any_order_of_tests():
    RNG.bit_generator.state = START
    keras.utils.set_random_seed(0)


def layers_on(shape, *layers, units=1):
    activation = "sigmoid" if units == 1 else "softmax"
    return keras.Sequential(
        [keras.Input(shape, name="x"), *layers, keras.layers.Dense(units, activation=activation)]
    )


def case_of(model, x, y, validation=None, groups=None, kind="binary", **more):
    x, y = name_inputs(model, x), np.asarray(y)
    if validation is not None:
        other_x, other_y, *other_groups = validation
        validation = Rows(name_inputs(model, other_x), np.asarray(other_y), *other_groups)
    made = task(kind) if kind != "multiclass" else task(kind, num_classes=int(y.max()) + 1)
    return Case(model, Rows(x, y, groups), made, validation, **more)


def table_case(table, y, validation=None, **more):
    return case_of(layers_on((table.shape[1],)), table, y, validation, **more)


def said(check, case):
    return list(check(case))


def names(checks, case):
    checks = checks if isinstance(checks, tuple) else (checks,)
    return [each.name for check in checks for each in check(case) if isinstance(each, Finding)]


# --- scale


def test_raw_pixels_into_a_dense_layer_are_found_with_their_size():
    model = layers_on((8, 8, 3), keras.layers.Flatten(), keras.layers.Dense(4, "relu"))
    (finding,) = said(data_checks.check_scale, case_of(model, PIXELS.astype("float32"), LABELS))
    assert (finding.name, finding.severity, finding.subject) == ("inputs_not_scaled", "error", "x")
    # Of whole numbers that are evenly spread over 0 to 255.
    expected = np.sqrt(np.mean(np.arange(256.0) ** 2))
    assert finding.values["root_mean_square"] == pytest.approx(expected, rel=0.02)
    assert "Rescaling(1 / 255)" in finding.cure


@pytest.mark.parametrize(
    "layers",
    [
        [keras.layers.Rescaling(1 / 255), keras.layers.Flatten()],
        [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.Flatten()],
        [keras.layers.BatchNormalization(), keras.layers.Conv2D(4, 3), keras.layers.Flatten()],
        [keras.Sequential([keras.layers.Rescaling(1 / 127.5, -1.0), keras.layers.Flatten()])],
    ],
)
def test_pixels_that_the_model_scales_or_normalises_are_no_finding(layers):
    case = case_of(layers_on((8, 8, 3), *layers), PIXELS, LABELS)
    assert said(data_checks.check_scale, case) == []


def test_a_fused_model_of_kfusion_is_silent_on_raw_pixels_and_raw_numbers():
    table = RNG.normal(size=(120, 3)) * [1, 1000, 1e6]
    table[::7, 1] = np.nan
    x = {"image": PIXELS, "tabular": table.astype("float32")}
    branches = {"image": image_branch((8, 8, 3)), "tabular": tabular_branch(3)}
    model = build_fusion_model(branches, task="binary")
    assert (
        names((data_checks.check_scale, data_checks.check_missing), case_of(model, x, LABELS)) == []
    )


def test_the_column_that_drowns_the_others_is_named():
    table = RNG.normal(size=(120, 3)) * [1, 1, 1000]
    case = table_case(table, LABELS, column_names={"x": ["age", "sex", "income"]})
    (finding,) = said(data_checks.check_scale, case)
    assert "'income'" in finding.evidence
    assert "1 of 3 columns" in finding.evidence


def test_images_in_0_1_where_the_model_divides_by_255_are_found():
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3), keras.layers.Flatten()]
    model = layers_on((8, 8, 3), *layers)
    (finding,) = said(data_checks.check_scale, case_of(model, PIXELS / 255, LABELS))
    assert finding.name == "images_scaled_twice"
    assert finding.values["spread"] == pytest.approx((PIXELS / 255**2).std(), rel=0.1)
    unscaled = layers_on((8, 8, 3), keras.layers.Conv2D(4, 3), keras.layers.Flatten())
    assert said(data_checks.check_scale, case_of(unscaled, PIXELS / 255, LABELS)) == []


def test_images_in_0_1_for_an_input_of_whole_numbers_are_found():
    table = RNG.normal(size=(120, 3)).astype("float32")
    branches = {"image": image_branch((8, 8, 3)), "tabular": tabular_branch(3)}
    model = build_fusion_model(branches, task="binary")
    case = case_of(model, {"image": PIXELS / 255, "tabular": table}, LABELS)
    (finding,) = said(data_checks.check_scale, case)
    assert (finding.name, finding.subject) == ("images_scaled_twice", "image")
    assert "cut to 0" in finding.evidence


def test_pixels_of_another_range_than_a_trained_network_knows_are_found():
    normalization = keras.layers.BatchNormalization(momentum=0.0)
    model = layers_on((8, 8, 3), keras.layers.Conv2D(4, 3), normalization, keras.layers.Flatten())
    model(PIXELS / 127.5 - 1, training=True)
    assert said(data_checks.check_scale, case_of(model, PIXELS / 127.5 - 1, LABELS)) == []
    (finding,) = said(data_checks.check_scale, case_of(model, PIXELS.astype("float32"), LABELS))
    assert finding.name == "inputs_unlike_pretraining"


def test_the_model_is_left_as_it_was():
    model = layers_on((8, 8, 3), keras.layers.BatchNormalization(), keras.layers.Flatten())
    before = [weight.copy() for weight in model.get_weights()]
    names(CHECKS, case_of(model, PIXELS, LABELS, (PIXELS[:30], LABELS[:30])))
    for weight, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)
    assert not any("call" in vars(layer) for layer in model.layers)


def test_a_model_that_does_not_run_leaves_its_checks_undecided():
    case = case_of(layers_on((5,)), RNG.normal(size=(40, 4)), np.arange(40) % 2)
    (undecided,) = said(data_checks.check_scale, case)
    assert isinstance(undecided, Undecided)
    assert "does not run" in undecided.reason


def test_a_model_without_weights_is_not_built():
    model = keras.Sequential([keras.layers.Dense(1)])
    case = Case(model, Rows({"input_1": np.zeros((40, 4))}, np.arange(40) % 2), task("binary"))
    (undecided,) = said(data_checks.check_scale, case)
    assert "no weights yet" in undecided.reason
    assert not model.weights


# --- missing values, validation rows


def test_missing_values_that_make_predictions_nan_are_found_by_column():
    table = RNG.normal(size=(120, 3))
    table[:12, 1] = np.nan
    case = table_case(table, LABELS, column_names={"x": ["a", "b", "c"]})
    (finding,) = said(data_checks.check_missing, case)
    assert finding.values == {"rows": 12, "columns": 1, "share_lost": 1.0}
    assert "('b')" in finding.evidence


def test_validation_rows_in_another_unit_are_found():
    model = layers_on((8, 8, 3), keras.layers.Flatten())
    case = case_of(model, PIXELS, LABELS, (PIXELS[:40] / 255, LABELS[:40]))
    assert names(data_checks.check_validation_scale, case) == ["validation_scaled_otherwise"]
    same = case_of(model, PIXELS, LABELS, (PIXELS[:40], LABELS[:40]))
    assert names(data_checks.check_validation_scale, same) == []


def test_classes_on_one_side_only_are_named():
    table = RNG.normal(size=(90, 2))
    y = np.arange(90) % 3
    model = layers_on((2,), units=3)
    case = case_of(model, table, y, (table[:30], y[:30] % 2), kind="multiclass")
    (finding,) = said(data_checks.check_validation_classes, case)
    assert (finding.subject, finding.values["classes"]) == ("validation", ["2"])
    case = case_of(model, table, np.minimum(y, 1), (table[:30], y[:30]), kind="binary")
    case = Case(model, case.train, task("multiclass", num_classes=3), case.validation)
    (finding,) = said(data_checks.check_validation_classes, case)
    assert (finding.subject, finding.severity) == ("training", "error")


def test_one_hot_rows_and_names_of_classes_count_as_labels():
    table = RNG.normal(size=(90, 2))
    y = np.arange(90) % 3
    model = layers_on((2,), units=3)
    one_hot = case_of(model, table, y, (table[:30], np.eye(3)[y[:30] % 2]), kind="multiclass")
    assert names(data_checks.check_validation_classes, one_hot) == ["class_missing"]
    texts = np.array(["ape", "bee", "cow"])
    train = Rows(one_hot.train.x, texts[y])
    validation = Rows(one_hot.validation.x, texts[y[:30] % 2])
    spelled = Case(model, train, one_hot.task, validation)
    (finding,) = said(data_checks.check_validation_classes, spelled)
    assert finding.values["classes"] == ["2"]


def test_few_validation_rows_come_with_the_width_of_the_interval():
    table = RNG.normal(size=(4000, 2))
    y = (table[:, 0] > 0).astype(int)
    few = table_case(table, y, (table[:100], y[:100]))
    (finding,) = said(data_checks.check_validation_size, few)
    assert finding.severity == "note"
    assert finding.values["needed"] > 100
    assert names(data_checks.check_validation_size, table_case(table, y, (table, y))) == []


def test_rows_sorted_by_class_before_the_split_are_found():
    table = RNG.normal(size=(200, 2))
    y = np.sort(np.arange(200) % 2)
    case = table_case(table[:120], y[:120], (table[120:], y[120:]))
    assert names(split_checks.check_label_shift, case) == ["split_not_shuffled"]
    mixed = RNG.permutation(200)
    case = table_case(table[:120], y[mixed][:120], (table[120:], y[mixed][120:]))
    assert names(split_checks.check_label_shift, case) == []


# --- columns


def test_columns_that_say_nothing_are_named():
    table = RNG.normal(size=(120, 4))
    table[:, 1], table[:, 3] = 7.0, table[:, 0]
    case = table_case(table, LABELS)
    (constant,) = said(column_checks.check_constant_columns, case)
    (duplicated,) = said(column_checks.check_duplicated_columns, case)
    assert constant.values == {"columns": [1]}
    assert duplicated.values == {"pairs": [(0, 3)]}


@pytest.mark.parametrize(
    ("column", "name", "expected"),
    [
        (np.random.default_rng(1).permutation(500) + 9000, "", True),
        (np.arange(500) * 1000.0, "", True),
        (np.array([f"patient {i}" for i in range(500)]), "", True),
        (np.random.default_rng(1).choice(2**40, 500, replace=False), "patient_id", True),
        # Inhabitants of towns: all differ, but over a range where they would.
        (np.random.default_rng(1).choice(10**7, 500, replace=False), "population", False),
        (np.sort(np.random.default_rng(1).normal(size=500)), "latitude", False),
        (np.arange(500) % 250, "", False),
        (np.arange(20), "", False),
    ],
)
def test_identifiers_are_told_from_measurements(column, name, expected):
    assert is_identifier(column, name) is expected


def test_columns_that_alone_tell_the_target_are_found():
    table = RNG.normal(size=(300, 4))
    y = (RNG.normal(size=300) + table[:, 0] > 0).astype(int)
    table[:, 2] = -y + 0.01 * RNG.normal(size=300)
    table[y == 1, 3] = np.nan
    found = said(column_checks.check_leaks, table_case(table, y))
    assert [finding.values["column"] for finding in found] == [2, 3]
    values = table[:, 0] ** 3
    regression = table_case(table[:, :2], values, kind="regression")
    assert [f.values["column"] for f in column_checks.check_leaks(regression)] == [0]


def test_a_code_that_stands_for_the_class_is_a_leak_in_any_order():
    y = np.arange(300) % 3
    code = np.array([2, 0, 1])[y]
    table = np.stack([RNG.normal(size=300), code], axis=1)
    case = case_of(layers_on((2,), units=3), table, y, kind="multiclass")
    (finding,) = said(column_checks.check_leaks, case)
    assert (finding.name, finding.values["column"]) == ("target_leak", 1)


def test_sound_tables_have_no_leak():
    table, y = load_breast_cancer(return_X_y=True)
    assert names(column_checks.CHECKS, table_case(table, y)) == []
    table, y = load_iris(return_X_y=True)
    case = case_of(layers_on((4,), units=3), table, y, kind="multiclass")
    # The length of petals tells one species from the others, as is well known.
    assert {each.severity for each in column_checks.check_leaks(case)} == {"note"}


def test_too_few_rows_leave_a_leak_undecided():
    (undecided,) = said(column_checks.check_leaks, table_case(np.eye(12), np.arange(12) % 2))
    assert isinstance(undecided, Undecided)


# --- splits


def test_equal_rows_have_equal_hashes_whatever_their_type():
    a, b = PIXELS, RNG.normal(size=(120, 2))
    np.testing.assert_array_equal(hash_rows([a, b]), hash_rows([a.astype("float64"), b]))
    assert len(np.unique(hash_rows([a]))) == 120
    assert hash_rows([np.zeros((1, 2))]) == hash_rows([-np.zeros((1, 2))])


def two_inputs():
    image, table = keras.Input((8, 8, 3), name="image"), keras.Input((2,), name="table")
    joined = keras.layers.Concatenate()([keras.layers.Flatten()(image), table])
    return keras.Model([image, table], keras.layers.Dense(1, "sigmoid")(joined))


def test_images_in_both_parts_are_found_though_their_rows_differ():
    train = [PIXELS[:80], RNG.normal(size=(80, 2))]
    judged = [np.concatenate([PIXELS[80:], PIXELS[:10]]), RNG.normal(size=(50, 2))]
    case = case_of(two_inputs(), train, LABELS[:80], (judged, LABELS[:50]))
    (finding,) = said(split_checks.check_shared_rows, case)
    assert (finding.subject, finding.severity) == ("image", "error")
    assert finding.values == {"shared": 10, "share": 0.2}


def test_blank_images_and_short_rows_are_no_twins():
    blank = PIXELS.copy()
    blank[::4] = 0
    case = case_of(two_inputs(), [blank[:80], RNG.normal(size=(80, 2))], LABELS[:80])
    judged = Rows({"image": blank[80:], "table": RNG.normal(size=(40, 2))}, LABELS[80:])
    assert (
        said(split_checks.check_shared_rows, Case(case.model, case.train, case.task, judged)) == []
    )
    codes = RNG.integers(0, 3, size=(300, 3))
    case = table_case(codes[:200], np.arange(200) % 2, (codes[200:], np.arange(100) % 2))
    (undecided,) = said(split_checks.check_shared_rows, case)
    assert isinstance(undecided, Undecided)


def test_rows_repeated_before_the_split_are_found():
    table = np.repeat(RNG.normal(size=(60, 3)), 4, axis=0)[RNG.permutation(240)]
    y = np.arange(240) % 2
    case = table_case(table[:180], y[:180], (table[180:], y[180:]))
    assert names(split_checks.check_shared_rows, case) == ["rows_shared"]


def test_equal_images_with_different_labels_bound_the_accuracy():
    images = PIXELS.copy()
    images[60:72] = images[:12]
    y = np.zeros(120, int)
    y[60:66] = 1
    model = layers_on((8, 8, 3), keras.layers.Flatten())
    (finding,) = said(split_checks.check_contradictions, case_of(model, images, y))
    assert finding.values == {"sets": 6, "rows": 6}
    assert "0.950" in finding.effect


def test_groups_on_both_sides_are_named():
    table, groups = RNG.normal(size=(100, 2)), np.repeat(np.arange(20), 5)
    y = np.arange(100) % 2
    split = (table[73:], y[73:], groups[73:])
    (finding,) = said(
        split_checks.check_groups, table_case(table[:73], y[:73], split, groups=groups[:73])
    )
    # Rows 70 to 74 are group 14.
    assert finding.values == {"groups": 1, "rows": 2, "share": pytest.approx(2 / 27)}
    whole = (table[75:], y[75:], groups[75:])
    assert (
        said(split_checks.check_groups, table_case(table[:75], y[:75], whole, groups=groups[:75]))
        == []
    )


# --- all together


def test_sound_data_is_no_finding_of_any_check():
    train, judged = np.arange(80), np.arange(80, 120)
    table = RNG.normal(size=(120, 3))
    model = layers_on((3,), keras.layers.Dense(4, "relu"))
    y = RNG.integers(0, 2, size=120)
    case = table_case(table[train], y[train], (table[judged], y[judged]))
    case = Case(model, case.train, case.task, case.validation)
    assert names(CHECKS, case) == ["validation_too_small"]


@pytest.mark.parametrize(
    "table",
    [
        np.full((40, 2), np.nan),
        np.zeros((40, 1)),
        np.array([["a", "b"]] * 40),
        np.arange(40).astype(object).reshape(40, 1),
        np.full((40, 2), np.inf),
        np.ones((40, 2), bool),
    ],
)
def test_odd_data_raises_nothing(table):
    y = np.arange(40) % 2
    case = table_case(table, y, (table[:20], y[:20]))
    for check in CHECKS:
        said(check, case)
    for odd in (np.full(40, np.nan), np.ones((40, 5)), np.array(["x"] * 40)):
        for check in CHECKS:
            said(check, Case(case.model, Rows(case.train.x, odd), case.task, case.validation))
