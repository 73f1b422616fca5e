"""Rows of several images, texts, embeddings, sequences and a table, in every road to a model."""

import dataclasses
import json
import re
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score

import kfusion
from kfusion import FusionClassifier, TableSchema, load_exported, load_table, predict
from kfusion.doctor.case import Case, Rows
from kfusion.doctor.split_checks import check_shared_rows
from kfusion.models.latent_semantics import latent_semantics

ROWS = 80
RANDOM = np.random.default_rng(0)
Y = np.arange(ROWS) % 2
WORDS = np.array(["calm", "quiet", "still", "loud", "wild", "rough"])
NOTES = [" ".join(RANDOM.choice(WORDS[:4] if y else WORDS[2:], 5)) for y in Y]


def pixels(*shape):
    bright = 60 * Y.reshape(-1, *[1] * len(shape))
    return (RANDOM.integers(1, 120, size=(ROWS, *shape)) + bright).astype("uint8")


def missing_from(array, rows):
    array = array.copy()
    array[rows] = np.nan if array.dtype.kind == "f" else 0
    return array


FRAME = pd.DataFrame({"size": RANDOM.normal(size=ROWS) + Y, "note": NOTES})
X = {
    "front": pixels(6, 6, 3),
    "views": pixels(2, 4, 4, 1),
    "vector": (RANDOM.normal(size=(ROWS, 5)) + Y[:, None]).astype("float32"),
    "pulse": (RANDOM.normal(size=(ROWS, 9, 2)) + Y[:, None, None]).astype("float32"),
    "title": [None if row == 7 else note for row, note in enumerate(NOTES)],
    "tabular": FRAME[["size"]],
}
ALL_TREES = "trees and front and views and vector and pulse and title"
# Those of an image and a table alone have tests elsewhere.
MEMBERS = ["views", "vector", "pulse", "title", ALL_TREES]
WITHOUT_KFUSION = """
import json, sys
import numpy as np, tensorflow as tf
folder, rows = sys.argv[1:]
served = tf.saved_model.load(folder).signatures["serving_default"]
with np.load(rows) as file:
    given = {name: tf.constant(file[name]) for name in file.files}
answer = served(**given)["probabilities"].numpy().tolist()
assert not any(name.split(".")[0] == "kfusion" for name in sys.modules)
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def fitted():
    x = {**X, "pulse": missing_from(X["pulse"], [3]), "views": missing_from(X["views"], [4])}
    return FusionClassifier(members=MEMBERS, num_folds=2, epochs=1).fit(x, Y)


class TestTheEstimator:
    def test_has_a_member_of_each_input_and_of_all(self, fitted):
        assert list(fitted.results_) == MEMBERS
        known = ["front", *MEMBERS[:-1], "table", "fused", "trees", ALL_TREES]
        with pytest.raises(ValueError, match=re.escape(str(known))):
            FusionClassifier(members=["none"]).fit(X, Y)
        assert roc_auc_score(Y, fitted.predict_proba(X)[:, 1]) > 0.9

    def test_rows_that_lack_inputs_are_answered(self, fitted):
        whole = fitted.predict_proba(X)
        some = {name: X[name][:6] for name in X}
        lacking = {
            **some,
            "front": missing_from(some["front"], [1]),
            "vector": missing_from(some["vector"], [2]),
            "pulse": missing_from(some["pulse"], slice(None)),
        }
        found = fitted.predict_proba(lacking)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found.sum(axis=1), 1)
        assert not np.allclose(found, whole[:6])

    def test_an_input_that_is_not_there_is_named(self, fitted):
        for name, message in {
            "vector": "lacks the 'vector' input",
            "tabular": "feature names|column",
            "title": "feature names|column",
        }.items():
            lacking = {key: part for key, part in X.items() if key != name}
            with pytest.raises(ValueError, match=message):
                fitted.predict_proba(lacking)
        with pytest.raises(ValueError, match="'vector'.*rows, 5"):
            fitted.predict_proba({**X, "vector": X["vector"][:, :4]})

    def test_sets_that_were_not_learned_are_answered_by_the_largest_within(self, fitted):
        """Of five inputs that may be missing, with two there: by one of the two alone."""
        some = {name: X[name][:5] for name in X}
        for name in ("views", "pulse", "tabular"):
            some[name] = (
                pd.DataFrame({"size": [None] * 5})
                if name == "tabular"
                else missing_from(some[name], slice(None))
            )
        found = fitted.predict_proba(some)
        some["front"] = missing_from(some["front"], slice(None))
        np.testing.assert_allclose(found, fitted.predict_proba(some), atol=1e-6)
        some["title"] = [NOTES[5]] * 5
        assert not np.allclose(found, fitted.predict_proba(some), atol=1e-3)

    def test_it_is_saved_and_served_from_raw_inputs(self, fitted, tmp_path):
        expected = fitted.predict_proba(X)
        fitted.save(tmp_path / "estimator")
        loaded = FusionClassifier.load(tmp_path / "estimator")
        np.testing.assert_allclose(loaded.predict_proba(X), expected, atol=1e-6)
        fitted.export(tmp_path / "model")
        raw = {**X, "title": ["" if text is None else text for text in X["title"]]}
        raw["size"] = raw.pop("tabular")["size"].astype("float32")
        needed = {tensor.name for tensor in fitted.model_.inputs} | {"size"}
        np.savez(tmp_path / "rows.npz", **{k: np.asarray(v) for k, v in raw.items() if k in needed})
        arguments = [str(tmp_path / "model"), str(tmp_path / "rows.npz")]
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_KFUSION, *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        np.testing.assert_allclose(json.loads(done.stdout), expected, atol=1e-5)

    def test_modalities_are_valued(self, fitted):
        with pytest.warns(UserWarning, match="No member learned from front or tabular alone"):
            values = fitted.modality_values()
        assert set(values) == set(X)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"a b": X["front"], "c": X["vector"]}, "digits and underscores. Received: 'a b'"),
        ({"a": X["front"], "A": X["vector"]}, r"must have different names. Received: \['a', 'A'\]"),
        ({"pixels": X["front"]}, "An input cannot be called 'pixels'"),
        ({"my_title": X["front"], "my title": NOTES}, "must have different names"),
        ({"image": NOTES}, "holds strings. For paths of files"),
        ({"a": np.full((4, 2, 2, 3), 0.5)}, "`X\\['a'\\]` must be uint8 in 0-255 but lies in 0-1"),
        ({"a": np.array([1, 2, 3])}, "must be images, an embedding"),
        ({"size": NOTES, "tabular": FRAME}, "has the text 'size' twice"),
        ({1: X["front"]}, "must have inputs by name"),
    ],
)
def test_inputs_that_are_none_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        FusionClassifier().fit(x, Y[: len(next(iter(x.values())))])


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    frame = FRAME.assign(y=np.where(Y, "good", "bad"))
    for side in ("Front side", "back"):
        names = [f"{side[0]}{row}.png" for row in range(ROWS)]
        for name, image in zip(names, pixels(4, 4, 3), strict=True):
            Image.fromarray(image).save(folder / name)
        frame[side] = names
    return frame, folder


def read(table, **keywords):
    frame, folder = table
    return load_table(
        frame,
        image_column=["Front side", "back"],
        text_columns=["note"],
        target="y",
        image_folder=folder,
        verbose=0,
        **keywords,
    )


class TestATableOfTwoImagesAndAText:
    def test_each_is_an_input(self, table):
        data = read(table)
        assert list(data.x) == data.input_names == ["Front_side", "back", "tabular", "note"]
        assert data.x["Front_side"].shape == (ROWS, 4, 4, 3)
        assert data.schema.kinds == {"size": "number", "note": "text"}
        assert data.x["note"].dtype == np.int32
        assert "Front_side 4x4x3" in repr(data)
        train, held = data.split()
        assert held.schema is train.schema
        assert held.x["back"].shape[0] == len(held)

    def test_an_image_that_is_missing_in_one_column(self, table):
        frame, folder = table
        gap = frame.copy()
        gap.loc[5, "back"] = None
        with pytest.raises(ValueError, match="row 5"):
            read((gap, folder))
        kept = read((gap, folder), on_missing_image="keep")
        assert not kept.x["back"][5].any()
        assert kept.x["Front_side"][5].any()

    def test_the_estimator_takes_the_frame(self, table):
        frame, folder = table
        keywords = {"image_column": ["Front side", "back"], "image_folder": folder}
        model = FusionClassifier(
            **keywords, text_columns=["note"], members=["trees", "note"], num_folds=2, epochs=1
        )
        rows = frame.drop(columns="y")
        found = model.fit(rows, frame["y"]).predict_proba(rows[::-1])
        np.testing.assert_allclose(model.predict_proba(rows)[::-1], found, atol=1e-6)
        assert roc_auc_score(frame["y"] == "good", found[::-1, 1]) > 0.6

    def test_it_is_compared_and_searched(self, table, tmp_path):
        data = read(table)
        train, held = data.split()
        builders = kfusion.branch_builders(train.x, train.schema)
        assert list(builders) == list(data.x)
        fusions = {"all": kfusion.fused("concat", epochs=1)}
        singles = kfusion.standard_single_inputs(inputs=data.input_names, epochs=1)
        expected = [f"{name} only" for name in ("Front_side", "back", "table", "note")]
        assert list(singles)[:-1] == expected
        singles = {"note only": singles["note only"]}
        found = kfusion.compare(fusions, data, single_inputs=singles, folds=2, verbose=0)
        assert found.pairs["all"].verdict
        hypermodel = kfusion.FusionHyperModel(builders, task=train.task)
        tuner = kfusion.search_fusion(
            hypermodel,
            train.x,
            train.y,
            validation_data=(held.x, held.y),
            directory=tmp_path,
            max_trials=1,
            epochs=1,
            verbose=0,
        )
        assert len(tuner.oracle.trials) == 1

    def test_its_text_is_served_as_strings(self, table, tmp_path):
        data = read(table)
        builders = kfusion.branch_builders(data.x, data.schema)
        keras.utils.set_random_seed(0)
        branches = {name: build() for name, build in builders.items()}
        model = kfusion.build_fusion_model(branches, task=data.task)
        columns = {"Front_side": "Front side", "back": "back"}
        path = kfusion.export_saved_model(
            model, tmp_path / "m", schema=data.schema, image_columns=columns
        )
        served = load_exported(path)
        assert (served.image_columns, set(served.image_shapes)) == (columns, set(columns))
        answer = served.predict(data.frame, data.images)
        expected = data.task.probabilities(predict(model, data.x))
        np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)


def test_members_that_no_row_has_all_inputs_of_are_left_out():
    first = np.arange(ROWS) < 40
    x = {"front": X["front"].copy(), "back": X["front"].copy()}
    x["front"][first], x["back"][~first] = 0, 0
    model = FusionClassifier(num_folds=2, epochs=1)
    with pytest.warns(UserWarning, match=r"Left out, .*\['fused', 'trees on front and back'\]"):
        model.fit(x, Y)
    assert list(model.results_) == ["front", "back"]
    assert roc_auc_score(Y, model.predict_proba(x)[:, 1]) > 0.6


def test_columns_of_files_are_kept_in_the_order_of_training(tmp_path):
    branches = {
        key: kfusion.image_branch((4, 4, 1), input_name=key, name=f"{key}_branch") for key in "ba"
    }
    model = kfusion.build_fusion_model(branches, task="binary")
    path = kfusion.export_saved_model(model, tmp_path / "m", image_columns={"b": "B", "a": "A"})
    assert list(load_exported(path).image_columns.items()) == [("b", "B"), ("a", "A")]


class TestTextsInATable:
    def test_one_without_words_in_some_fold_is_learned_as_empty(self):
        frame = pd.DataFrame({"note": ["one", "two", None]})
        schema = TableSchema.fit(frame, {"note": "text"}, allow_empty=True)
        # Words that are not known are told from none.
        assert schema.inputs(frame)["note"].tolist() == [[1], [1], [0]]

    def test_of_some_kinds_given_the_others_are_inferred(self):
        images = np.zeros((ROWS, 2, 2, 1), "uint8")
        names = ("a", "b")
        data = kfusion.FusionData(images, FRAME, Y, "binary", names, column_kinds={"note": "text"})
        assert list(data.x) == data.input_names == ["image", "tabular", "note"]

    def test_repeated_short_texts_are_no_shared_rows(self):
        ids = {"note": np.repeat([[2] + 79 * [0]], 100, axis=0).astype("int32")}
        x = {**ids, "value": np.arange(100.0)[:, None]}
        case = Case(None, Rows(x, Y[:1].repeat(100)), kfusion.task("binary"), texts=["note"])
        other = {**ids, "value": 200 + np.arange(100.0)[:, None]}
        case = dataclasses.replace(case, validation=Rows(other, case.train.y))
        assert list(check_shared_rows(case)) == []

    def test_ids_are_those_of_the_vocabulary(self):
        schema = TableSchema.fit(FRAME, {"size": None, "note": "text"})
        (text,) = schema.texts
        given = pd.DataFrame({"note": ["calm unheard calm", None, ""], "size": [1, 2, 3]})
        ids = schema.inputs(given)["note"]
        np.testing.assert_array_equal(ids, text.vocabulary.encode(given["note"].tolist()))
        assert schema.num_columns == schema.encode(given).shape[1] == 1
        assert TableSchema.from_json(schema.to_json()) == schema

    def test_an_input_is_never_called_as_another(self):
        frame = pd.DataFrame({"image": NOTES, "a b": NOTES, "a_b": NOTES})
        assert TableSchema.fit(frame, {"image": "text"}).texts[0].input_name == "image_text"
        with pytest.raises(ValueError, match="Rename one of the text columns"):
            TableSchema.fit(frame, {"a b": "text", "a_b": "text"})

    def test_what_is_no_text_is_named(self):
        frame = pd.DataFrame({"note": ["calm", 3, "calm"]})
        with pytest.raises(TypeError, match="Column 'note' is a text but row 1 holds 3"):
            TableSchema.fit(frame, {"note": "text"})
        with pytest.raises(ValueError, match="Column 'note' is no text to learn from"):
            TableSchema.fit(frame[:1], {"note": "text"})
        with pytest.raises(ValueError, match="holds no text but values of kind 'number'"):
            TableSchema.fit(pd.DataFrame({"note": ["1.5", "3"]}), {"note": "text"})


def test_latent_semantics_are_those_of_scikit_learn():
    vocabulary = kfusion.Vocabulary.fit(NOTES)
    model = latent_semantics(vocabulary.encode(NOTES), vocabulary.num_tokens, 3)
    found = model.predict(vocabulary.encode([*NOTES, ""]), verbose=0)
    # Of texts of one length, shares are counts over it.
    counts = TfidfVectorizer(vocabulary=list(vocabulary.tokens), norm=None).fit_transform(NOTES)
    expected = TruncatedSVD(3, random_state=0).fit_transform(counts)
    correlation = np.corrcoef(found[:-1].T, expected.T)[:3, 3:]
    np.testing.assert_allclose(np.abs(np.diag(correlation)), 1, atol=1e-5)
    np.testing.assert_allclose(found[:-1].std(axis=0), 1, atol=1e-4)
    np.testing.assert_array_equal(found[-1], 0)
