"""The doctor asked as a whole: by `examine`, before a training, from the command line."""

import json
import warnings

import keras
import numpy as np
import pandas as pd
import pytest

import kfusion as kf
from kfusion import cli
from kfusion.doctor.findings import Diagnosis, Finding, Undecided, to_diagnosis

pytestmark = pytest.mark.usefixtures("eagerly")


def rows(num, seed):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(num, 4)).astype("float32")
    y = (x[:, 0] + generator.normal(size=num) > 0).astype(int)
    return x, y


def perceptron(**keywords):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu", **keywords),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


def finding(name, severity):
    return Finding(
        name, severity, "here", "what was seen", "what it does", "what to do", {"a": 1.5}
    )


class TestDiagnosis:
    def test_the_gravest_come_first_and_all_is_told(self):
        said = [
            finding("c", "note"),
            Undecided("d", "too few rows"),
            finding("a", "warning"),
            finding("b", "error"),
            finding("a", "warning"),
        ]
        diagnosis = to_diagnosis(said, 7)
        assert [each.severity for each in diagnosis] == ["error", "warning", "warning", "note"]
        assert diagnosis.names == ["b", "a", "c"]
        text = str(diagnosis)
        assert text.startswith("4 findings in 7 checks\nerror: b (here)\n  found:  what was seen")
        assert text.endswith("not decided: d: too few rows")
        told = json.loads(json.dumps(diagnosis.to_dict()))
        assert told["findings"][0]["values"] == {"a": 1.5}
        assert told["undecided"] == [{"name": "d", "reason": "too few rows"}]

    def test_nothing_found_is_false(self):
        assert not Diagnosis([], num_checks=3)
        assert Diagnosis([finding("a", "note")])

    def test_a_severity_that_there_is_not(self):
        with pytest.raises(ValueError, match="`severity` must be one of .*'grave'"):
            finding("a", "grave")


class TestExamine:
    def test_a_healthy_model_before_and_after_training(self):
        (x, y), held = rows(600, 0), rows(300, 1)
        model = perceptron()
        model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
        weights = model.get_weights()
        before = kf.examine(model, x, y, task="binary", validation_data=held)
        history = model.fit(x, y, validation_data=held, epochs=15, verbose=0)
        trained = model.get_weights()
        after = kf.examine(model, x, y, task="binary", validation_data=held, history=history)
        assert [each for each in (*before, *after) if each.severity != "note"] == []
        assert before.num_checks == after.num_checks > 25
        for kept, weight in zip(trained, model.get_weights(), strict=True):
            np.testing.assert_array_equal(kept, weight)
        assert len(weights) == len(trained)

    def test_what_is_wrong_in_every_part_is_found_at_once(self):
        x, y = rows(400, 0)
        model = perceptron(kernel_regularizer=keras.regularizers.L2(1.0))
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        x[:, 3] = y
        history = {"loss": [1.0, float("nan")], "accuracy": [0.5, 0.5]}
        groups = np.arange(400)
        diagnosis = kf.examine(
            model,
            x * 300,
            y,
            task="binary",
            history=history,
            validation_data=(x[:50] * 300, y[:50]),
            groups=groups,
            validation_groups=groups[:50],
        )
        assert {
            "inputs_not_scaled",
            "target_leak",
            "rows_shared",
            "groups_split",
            "probabilities_taken_as_logits",
            "training_diverged",
        } <= set(diagnosis.names)

    def test_fusion_data_bring_targets_groups_and_names(self):
        data = kf.datasets.load_landcover()[::6]
        frame = data.frame.assign(answer=data.y.astype(float) + 0.5)
        leaking = kf.FusionData(data.images, frame, data.y, data.kind, data.class_names)
        model = kf.build_unimodal_model(kf.tabular_branch(leaking.schema), task=leaking.task)
        diagnosis = kf.examine(model, leaking)
        leaks = [each for each in diagnosis if "leak" in each.name]
        assert leaks
        assert "'answer'" in leaks[0].evidence

    def test_what_is_not_enough(self):
        x, y = rows(100, 0)
        with pytest.raises(TypeError, match="`task` must be given"):
            kf.examine(perceptron(), x, y)
        with pytest.raises(ValueError, match="same number of rows: x.* has 100, y has 99"):
            kf.examine(perceptron(), x, y[1:], task="binary")


class TestBeforeTraining:
    def test_fit_warns_and_can_be_asked_not_to(self):
        x, y = rows(200, 0)
        x[:, 2] = y
        model = kf.build_unimodal_model(kf.tabular_branch(4, units=4), task="binary")
        settings = {"task": "binary", "validation_data": None, "epochs": 1, "verbose": 0}
        with pytest.warns(kf.DoctorWarning, match="target_leak") as told:
            kf.fit(model, {"tabular": x}, y, **settings)
        assert told[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error", kf.DoctorWarning)
            kf.fit(model, {"tabular": x}, y, doctor=False, **settings)

    def test_an_estimator_names_the_column(self):
        x, y = rows(200, 0)
        frame = pd.DataFrame(x, columns=["a", "b", "c", "d"]).assign(patient=np.arange(200) + 70)
        frame["when"] = pd.date_range("2020-01-01", periods=200).astype(str)
        with pytest.warns(kf.DoctorWarning, match="identifier_columns") as told:
            kf.FusionClassifier(members=["trees"], num_folds=2).fit(frame, y)
        (text,) = [str(each.message) for each in told if each.category is kf.DoctorWarning]
        assert "'patient'" in text
        assert "'when'" not in text


def test_from_the_command_line(tmp_path, capsys):
    generator = np.random.default_rng(0)
    for i in range(60):
        keras.utils.save_img(
            tmp_path / f"{i}.png", generator.integers(1, 256, (8, 8, 3)), scale=False
        )
    y = np.arange(60) % 2
    frame = pd.DataFrame({"path": [f"{i}.png" for i in range(60)], "size": y + 0.5, "y": y})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    arguments = [str(tmp_path / "rows.csv"), "--image", "path", "--target", "y"]
    assert cli.main(["doctor", *arguments]) == 1
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert "target_leak" in [each["name"] for each in told["findings"]]
    assert "error: target_leak (tabular: 'size')" in err
    frame.assign(size=generator.normal(size=60)).to_csv(tmp_path / "rows.csv", index=False)
    assert cli.main(["doctor", *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "error" not in [each["severity"] for each in told["findings"]]


class Noisy(keras.layers.Layer):
    """Draws numbers of its own, also where nothing trains; takes any keyword."""

    def __init__(self, **keywords):
        super().__init__(**keywords)
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, inputs, **keywords):
        drawn = keras.random.normal(keras.ops.shape(inputs), seed=self.seed_generator)
        return inputs + 0.1 * drawn


def test_a_layer_of_its_own_kind_is_looked_at_and_left_as_it_was():
    x, y = rows(100, 0)
    inputs = keras.Input((4,), name="told")
    hidden = Noisy(name="noisy")(keras.layers.Dense(4)(inputs), training=False)
    output = keras.layers.Dense(1, activation="sigmoid")(hidden)
    model = keras.Model({"told": inputs}, output)
    state = np.asarray(model.get_layer("noisy").seed_generator.state)
    kf.examine(model, {"told": x}, y, task="binary", validation_data=({"told": x}, y))
    np.testing.assert_array_equal(model.get_layer("noisy").seed_generator.state, state)
    kf.fit(model, {"told": x}, y, task="binary", validation_data=None, epochs=1, verbose=0)


def test_a_rare_class_is_no_leak():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60_000, 2))
    y = (np.arange(60_000) < 25).astype(int)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation="sigmoid")])
    assert "target_leak" not in kf.examine(model, x, y, task="binary").names
    x[:, 1] += 30 * y
    assert "target_leak" in kf.examine(model, x, y, task="binary").names


@pytest.mark.parametrize(
    ("y", "name"),
    [
        (np.zeros(80), "one_target_only"),
        (np.where(np.arange(80) == 7, np.nan, np.arange(80.0)), "targets_missing"),
        (2000 + np.arange(80.0) % 7, "targets_far_from_answers"),
    ],
)
def test_targets_of_a_regression(y, name):
    x, _ = rows(80, 0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    assert name in kf.examine(model, x, y, task="regression").names
    healthy = x[:, 0] + x[:, 1]
    assert kf.examine(model, x, healthy, task="regression").names == []


def test_text_for_targets():
    x, y = rows(80, 0)
    names = kf.examine(perceptron(), x, np.array(["no", "yes"])[y], task="binary").names
    assert "targets_are_text" in names


def test_a_model_that_does_not_run_on_the_rows_is_one_finding():
    x, y = rows(80, 0)
    diagnosis = kf.examine(perceptron(), x[:, :3], y, task="binary")
    assert diagnosis.names == ["model_does_not_run"]
    assert "'keras_tensor" in diagnosis.findings[0].effect
    assert "\x1b" not in str(diagnosis)


@pytest.mark.parametrize("fusion", ["concat", "multiply", "film"])
def test_fresh_models_that_take_missing_inputs_are_healthy(fusion):
    data = kf.datasets.load_landcover()[::6]
    keras.utils.set_random_seed(0)
    train = data.with_schema()
    branches = {
        "image": kf.image_branch(train.image_shape),
        "tabular": kf.tabular_branch(train.schema),
    }
    model = kf.build_fusion_model(branches, task=train.task, fusion=fusion, modality_dropout=0.3)
    images = train.images.copy()
    images[::3] = 0
    x = {**train.x, "image": images}
    diagnosis = kf.examine(model, x, train.y, task=train.task, schema=train.schema)
    assert [each.name for each in diagnosis if each.severity != "note"] == []
