"""An exported model answers as the Keras model did, through both doors, without kfusion."""

import json
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest

from kfusion import (
    TableSchema,
    build_fusion_model,
    build_unimodal_model,
    export_saved_model,
    image_branch,
    load_exported,
    predict,
    tabular_branch,
    task,
)
from kfusion.data.raw_columns import (
    encode_tensors,
    raw_columns,
    raw_dtype,
    sample_frame,
    served_names,
)
from kfusion.exports import export as export_module

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="SavedModels come from the tensorflow backend"
)

SHAPE = (6, 5, 3)
CLASSES = ("no", "perhaps", "yes")
FRAME = pd.DataFrame(
    {
        "price in €": [1.5, None, 3.25, 1000.0, 2.5],
        "2nd": [True, False, None, True, False],
        "when": [
            "2020-02-29",
            "1969-12-31T23:59:59.5",
            None,
            "2024-06-01 12:30",
            "1999-01-01 00:00Z",
        ],
        "place": ["Ghent", "Łódź", "Ghent", None, " Ghent "],
        "Place": ["a", "b", "", "a", "a"],
        "floor": pd.Categorical([1, 2, None, 2, -1]),
    }
)
SERVED = {
    "price in €": "price_in__",
    "2nd": "column_2nd",
    "when": "when",
    "place": "place",
    "Place": "Place_2",
    "floor": "floor",
}
# As a client would write them who knows nothing of kfusion: NaN and "" are missing.
RAW = {
    "price_in__": [1.5, None, 3.25, 1000.0, 2.5],
    "column_2nd": [1, 0, None, 1, 0],
    "when": ["2020-02-29", "1969-12-31T23:59:59.5", "", "2024-06-01 12:30", "1999-01-01 00:00Z"],
    "place": ["Ghent", "Łódź", "Ghent", "", " Ghent "],
    "Place_2": ["a", "b", "", "a", "a"],
    "floor": [1, 2, None, 2, -1],
}
CLIENT = """
import json, sys
import numpy as np
import tensorflow as tf

folder, request = sys.argv[1], json.load(open(sys.argv[2]))
loaded = tf.saved_model.load(folder)
answers = {}
for name, inputs in request.items():
    given = {
        key: tf.constant(np.array(values, dtype) if dtype != "string" else values)
        for key, (dtype, values) in inputs.items()
    }
    answer = loaded.signatures[name](**given)
    answers[name] = {key: tensor.numpy().tolist() for key, tensor in answer.items()}
assert "kfusion" not in sys.modules
print(json.dumps(answers, default=bytes.decode))
"""


def ask_without_kfusion(folder, request, tmp_path):
    """Asks an exported model in a process that imports TensorFlow and NumPy alone."""
    (tmp_path / "client.py").write_text(CLIENT)
    (tmp_path / "request.json").write_text(json.dumps(request))
    done = subprocess.run(
        [sys.executable, "-P", "client.py", str(folder), "request.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def images(rows, seed=0):
    return np.random.default_rng(seed).integers(256, size=(rows, *SHAPE), dtype=np.uint8)


def move_off_the_start(model, seed=0):
    """Weights that make predictions of different rows differ."""
    generator = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(weight + generator.normal(scale=0.3, size=weight.shape))
    return model


@pytest.fixture(scope="module")
def schema():
    return TableSchema.fit(FRAME)


@pytest.fixture(scope="module")
def model(schema):
    keras.utils.set_random_seed(0)
    return move_off_the_start(
        build_fusion_model(
            {"image": image_branch(SHAPE, units=6), "tabular": tabular_branch(schema, units=6)},
            task=task("multiclass", class_names=CLASSES),
            head_units=6,
            auxiliary_heads=True,
        )
    )


@pytest.fixture(scope="module")
def folder(model, schema, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model"
    assert export_saved_model(model, path, schema=schema, class_names=CLASSES) == path
    return path


@pytest.fixture(scope="module")
def exported(folder):
    return load_exported(folder)


@pytest.fixture(scope="module")
def small():
    """A model of numbers alone, for tests that mind neither table nor image."""
    return build_unimodal_model(tabular_branch(2, units=4), task="binary", head_units=4)


class TestAnswers:
    def test_both_doors_answer_as_keras_did_in_a_process_without_kfusion(
        self, model, schema, folder, tmp_path
    ):
        given = images(5)
        encoded = schema.encode(FRAME)
        expected = predict(model, {"image": given, "tabular": encoded})
        image = ["uint8", given.tolist()]
        text = {"when", "place", "Place_2"}
        raw = {
            name: ["string", values]
            if name in text
            else ["float32", [float("nan") if v is None else v for v in values]]
            for name, values in RAW.items()
        }
        request = {
            "serving_default": {"image": image, **raw},
            "encoded": {"image": image, "tabular": ["float32", encoded.tolist()]},
        }
        for answer in ask_without_kfusion(folder, request, tmp_path).values():
            assert set(answer) == {"probabilities", "class", "class_names"}
            np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
            assert answer["class"] == [CLASSES[label] for label in expected.argmax(axis=1)]
            assert answer["class_names"] == [list(CLASSES)] * 5
        assert np.ptp(expected, axis=0).max() > 0.01

    def test_loaded_again_it_takes_a_frame_and_images(self, model, schema, exported):
        x = {"image": images(5), "tabular": schema.encode(FRAME)}
        expected = predict(model, x)
        shuffled = FRAME[FRAME.columns[::-1]].assign(other="ignored")
        for answer in (exported.predict(shuffled, x["image"]), exported.predict_encoded(x)):
            np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
            assert answer["class"].tolist() == [CLASSES[i] for i in expected.argmax(axis=1)]

    def test_more_rows_than_a_batch(self, exported):
        rows = np.arange(600) % 5
        answer = exported.predict(FRAME.iloc[rows], images(5)[rows])
        first = exported.predict(FRAME, images(5))
        np.testing.assert_allclose(answer["probabilities"], first["probabilities"][rows], atol=1e-5)

    def test_what_was_exported_is_known(self, exported, schema):
        assert exported.kind == "multiclass"
        assert exported.class_names == CLASSES
        assert exported.schema == schema
        assert exported.image_shapes == {"image": SHAPE}
        assert exported.image_columns == {"image": "image"}
        assert exported.served_names == SERVED

    def test_a_regression_answers_in_its_own_unit(self, tmp_path):
        frame = pd.DataFrame({"rooms": [1.0, 2.0, 3.0, 5.0], "kind": list("abab")})
        schema = TableSchema.fit(frame)
        made = task("regression", y=[100_000.0, 300_000.0, 350_000.0, 450_000.0])
        branch = tabular_branch(schema, units=4)
        model = move_off_the_start(build_unimodal_model(branch, task=made, head_units=4))
        export_saved_model(model, tmp_path / "m", schema=schema, image_columns={"image": "photo"})
        loaded = load_exported(tmp_path / "m")
        answer = loaded.predict(frame)
        assert set(answer) == {"prediction"}
        expected = predict(model, {"tabular": schema.encode(frame)})[:, 0]
        np.testing.assert_allclose(answer["prediction"], expected, rtol=1e-5)
        assert (loaded.kind, loaded.class_names) == ("regression", ())
        assert (loaded.image_shapes, loaded.image_columns) == ({}, {})

    @pytest.mark.parametrize("kind", ["multiclass", "regression"])
    def test_an_ensemble_answers_with_the_mean_of_its_members(self, kind, schema, tmp_path):
        given = {"class_names": CLASSES} if kind == "multiclass" else {"y": [1e5, 2e5, 4e5]}
        branch = tabular_branch(
            schema, units=4, encoder="tabm", members=3, numeric_embedding="periodic"
        )
        model = build_unimodal_model(branch, task=task(kind, **given), head_units=4)
        move_off_the_start(model)
        export_saved_model(model, tmp_path / "m", schema=schema)
        answer = load_exported(tmp_path / "m").predict(FRAME)
        outputs = model({"tabular": schema.encode(FRAME)})["member_predictions"]
        expected = np.asarray(outputs).mean(axis=1)
        if kind == "multiclass":
            np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
        else:
            np.testing.assert_allclose(answer["prediction"], expected[:, 0], rtol=1e-5)

    def test_a_sequential_model_of_ones_own(self, tmp_path):
        own = keras.Sequential(
            [keras.Input((2,), name="tabular"), keras.layers.Dense(1, activation="sigmoid")]
        )
        x = {"tabular": np.ones((3, 2), "float32")}
        export_saved_model(own, tmp_path / "m")
        answer = load_exported(tmp_path / "m").predict_encoded(x)
        np.testing.assert_allclose(answer["probabilities"][:, 1:], predict(own, x), atol=1e-6)


class TestInputsThatDoNotFit:
    def test_missing_columns_are_named(self, exported):
        with pytest.raises(ValueError, match=r"lacks the column\(s\) \['when', 'floor'\]"):
            exported.predict(FRAME.drop(columns=["when", "floor"]), images(5))

    def test_no_frame_at_all(self, exported):
        with pytest.raises(ValueError, match="`frame` must hold the columns"):
            exported.predict(images=images(5))

    def test_no_images(self, exported):
        with pytest.raises(
            ValueError, match=r"`images` must be given: the model takes \['image'\]"
        ):
            exported.predict(FRAME)

    def test_images_of_another_size(self, exported):
        with pytest.raises(ValueError, match=r"shape \(rows, 6, 5, 3\). Received: \(5, 5, 6, 3\)"):
            exported.predict(FRAME, images(5).transpose(0, 2, 1, 3))

    def test_another_number_of_images(self, exported):
        with pytest.raises(ValueError, match="same number of rows"):
            exported.predict(FRAME, images(4))

    @pytest.mark.parametrize("date", ["31.12.2020", "2020-02-30", "2020-13-01", "2020-01-01T24:00"])
    def test_a_date_that_is_none_fails_in_the_graph_too(self, exported, date):
        columns = raw_columns(exported.schema, FRAME)
        columns["when"] = np.array([date] * 5, object)
        given = {SERVED[k]: tf.constant(v) for k, v in columns.items()}
        signature = exported._loaded.signatures["serving_default"]
        with pytest.raises(tf.errors.InvalidArgumentError, match="must hold ISO 8601 dates"):
            signature(image=tf.constant(images(5)), **given)


def assert_answers_both_classes(loaded, model, names=("other", "crop")):
    """A binary model has one output; what is served has a probability for each class."""
    x = {"tabular": np.random.default_rng(0).normal(size=(9, 2)).astype("float32")}
    answer, positive = loaded.predict_encoded(x), predict(model, x)[:, 0]
    expected = np.stack([1 - positive, positive], axis=1)
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
    assert answer["class"].tolist() == np.where(positive > 0.5, names[1], names[0]).tolist()
    assert loaded.kind == "binary"


def test_the_weights_of_a_large_model_stay_variables(small, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "_check_served", lambda *_: None)
    export_saved_model(small, tmp_path / "constants")
    monkeypatch.setattr(export_module, "_MOST_CONSTANTS", 0)
    export_saved_model(small, tmp_path / "variables")
    counts = []
    for name in ("constants", "variables"):
        exported = load_exported(tmp_path / name)
        assert_answers_both_classes(exported, small, names=["0", "1"])
        counts.append(len(exported._loaded.signatures["encoded"].variables))
    assert counts[0] == 0
    assert counts[1] > 0


class TestWholeOrNotAtAll:
    def test_a_check_that_fails_leaves_nothing(self, small, tmp_path, monkeypatch):
        def broken(*args):
            raise KeyboardInterrupt

        monkeypatch.setattr(export_module, "_check_served", broken)
        with pytest.raises(KeyboardInterrupt):
            export_saved_model(small, tmp_path / "m")
        assert not list(tmp_path.iterdir())

    def test_a_model_that_answers_otherwise_is_not_written(self, small, tmp_path, monkeypatch):
        monkeypatch.setattr(export_module, "TOLERANCE", -1.0)
        with pytest.raises(RuntimeError, match="differs from the Keras model by .*nothing was wri"):
            export_saved_model(small, tmp_path / "m")
        assert not list(tmp_path.iterdir())

    def test_an_existing_folder_stays_unless_it_may_be_replaced(self, small, tmp_path):
        path = tmp_path / "m"
        path.mkdir()
        (path / "mine.txt").write_text("mine")
        with pytest.raises(FileExistsError, match="pass `overwrite=True`"):
            export_saved_model(small, path)
        with pytest.raises(ValueError, match="holds other things"):
            export_saved_model(small, path, overwrite=True)
        assert [file.name for file in path.iterdir()] == ["mine.txt"]
        (path / "kfusion.json").touch()
        export_saved_model(small, path, overwrite=True, class_names=["other", "crop"])
        assert not (path / "mine.txt").exists()
        assert_answers_both_classes(load_exported(path), small)


class TestErrorsBeforeWriting:
    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"class_names": ["a"]}, r"has 2 classes. Received: class_names=\['a'\]"),
            ({"class_names": CLASSES}, "has 2 classes"),
            ({"schema": TableSchema.fit(FRAME)}, "schema has 6 columns; the model takes 2"),
        ],
    )
    def test_names_and_schema_must_fit_the_model(self, small, tmp_path, keywords, message):
        with pytest.raises(ValueError, match=message):
            export_saved_model(small, tmp_path / "m", **keywords)
        assert not list(tmp_path.iterdir())

    def test_a_schema_needs_a_tabular_input(self, schema, tmp_path):
        model = build_unimodal_model(image_branch(SHAPE, units=4), task="binary")
        with pytest.raises(ValueError, match=r"no input 'tabular' for the schema: \['image'\]"):
            export_saved_model(model, tmp_path / "m", schema=schema)

    def test_a_regression_has_no_class_names(self, tmp_path):
        model = build_unimodal_model(tabular_branch(2, units=4), task="regression")
        with pytest.raises(ValueError, match="A regression has no class names"):
            export_saved_model(model, tmp_path / "m", class_names=["a", "b"])

    @pytest.mark.parametrize(
        "last", [keras.layers.Dense(1, "relu", name="last"), keras.layers.Dropout(0.5)]
    )
    def test_a_model_must_end_in_a_prediction(self, tmp_path, last):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "sigmoid"), last])
        with pytest.raises(ValueError, match=r"must end in one of .*'sigmoid'.*: (relu|dropout)"):
            export_saved_model(model, tmp_path / "m")

    def test_the_kind_is_that_of_the_innermost_model(self, small):
        inputs = keras.Input((2,), name="tabular")
        outer = keras.Model(inputs, small({"tabular": inputs}))
        assert export_module._prediction_kind(outer) == "binary"

    @pytest.mark.parametrize(
        ("made", "error", "message"),
        [
            (False, FileNotFoundError, "There is no folder"),
            (True, ValueError, "holds no model exported by kfusion"),
        ],
    )
    def test_loading_something_else(self, tmp_path, made, error, message):
        if made:
            (tmp_path / "m").mkdir()
        with pytest.raises(error, match=message):
            load_exported(tmp_path / "m")


WORDS = ["a", "B", "Ö x", "1", "1.5", "na", "null", "true", "2020-01-01", "new\nline", "日本"]


def random_frame(seed):
    """Columns of every kind, with odd values, missing ones, and categories given as numbers."""
    generator = np.random.default_rng(seed)
    rows = 40

    def draw(values):
        column = np.array(values, object)[generator.integers(len(values), size=rows)]
        return np.where(generator.random(rows) < 0.2, None, column)

    def numbers(*, scale):
        return (scale * generator.standard_t(1.5, size=rows)).astype(np.float32)

    days = generator.integers(-100_000, 40_000, size=rows).astype("timedelta64[D]")
    minutes = generator.integers(1440, size=rows).astype("timedelta64[m]")
    times = (np.datetime64("1970-01-01") + days + minutes).astype("datetime64[ns]")
    columns = {
        "small": pd.Series(numbers(scale=1e-3)),
        "large": pd.Series(numbers(scale=1e6)).where(generator.random(rows) > 0.1),
        "spelled": pd.Series(draw(["1", "-2.5", " 3 ", "1e3", "?"])),
        "yes": pd.Series(draw(["true", "False", True])),
        "day": pd.Series(times),
        "stamp": pd.Series(draw(["2000-02-29", "1900-03-01T23:59", "2023-12-31 00:00:01.25Z"])),
        "word": pd.Series(draw(WORDS)),
        "many": pd.Series(draw([f"w{i}" for i in range(30)])),
        "level": pd.Series(pd.Categorical(generator.integers(-3, 4, size=rows))),
        "half": pd.Series(pd.Categorical(generator.choice([0.5, 0.1, 2.0, np.nan], size=rows))),
        "flag": pd.Series(generator.integers(2, size=rows).astype(bool)),
    }
    kept = generator.permutation(list(columns))[: generator.integers(1, len(columns) + 1)]
    return pd.DataFrame({name: columns[name] for name in kept})


def in_graph(schema, frame):
    """A frame's rows as the graph of an exported model encodes them."""
    raw = raw_columns(schema, frame)
    kinds = {column.name: raw_dtype(column) for column in schema.columns}
    for name, array in raw.items():
        assert array.dtype == (object if kinds[name] == "string" else np.float32)
    return encode_tensors(schema, {name: tf.constant(array) for name, array in raw.items()})


class TestEncodingInTheGraph:
    @pytest.mark.parametrize("seed", range(25))
    def test_equals_the_schemas_own(self, seed):
        frame = random_frame(seed)
        schema = TableSchema.fit(frame, allow_empty=True)
        for rows in (frame, sample_frame(schema, 60, seed)):
            ours, theirs = in_graph(schema, rows).numpy(), schema.encode(rows)
            # Days of dates are computed another way: equal to a unit in float32's last place.
            np.testing.assert_allclose(ours, theirs, rtol=2e-7)

    def test_invented_rows_meet_every_code(self):
        schema = TableSchema.fit(FRAME)
        encoded = schema.encode(sample_frame(schema, 500))
        for position, column in enumerate(schema.categories, start=len(schema.numbers)):
            assert set(encoded[:, position]) == set(range(column.num_codes))

    def test_served_names_are_safe_and_each_once(self):
        names = ["a b", "a_b", "A_B", "a-b", "1", "é", "_x", "image", "IMAGE", "日本"]
        frame = pd.DataFrame({name: [1.0, 2.0] for name in names})
        served = served_names(TableSchema.fit(frame), ["image"])
        assert set(served) == set(names)
        assert len({name.lower() for name in [*served.values(), "image"]}) == len(names) + 1
        assert all(name.isascii() and name.isidentifier() for name in served.values())
        assert all(name[0].isalpha() for name in served.values())
        assert served["a_b"] == "a_b"


def test_a_schema_of_other_rows_is_refused(tmp_path):
    rows = pd.DataFrame({"a": [1.0, 2.0, 3.0, 5.0]})
    model = build_unimodal_model(tabular_branch(TableSchema.fit(rows)), task="binary")
    with pytest.raises(ValueError, match="not the one that the model's tabular branch"):
        export_saved_model(model, tmp_path / "model", schema=TableSchema.fit(rows * 1000))
    assert not (tmp_path / "model").exists()
