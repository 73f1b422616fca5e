"""Rows that lack an image or a table: learned from, predicted and served."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from kfusion import (
    BadImageError,
    FusionClassifier,
    TableSchema,
    branch_from,
    build_fusion_model,
    build_unimodal_model,
    fit,
    fit_blend,
    image_branch,
    layers,
    load_exported,
    load_table,
    predict,
    tabular_branch,
)
from kfusion.data.images import rows_with_image
from kfusion.estimators.bagging import pooled
from kfusion.estimators.presence_blends import fit_presence_blends
from kfusion.models.building import FUSIONS


def numbers(*rows):
    return np.array(rows, "float32")


@pytest.mark.parametrize(
    ("inputs", "num_categories", "expected"),
    [
        (np.array([[[0, 0]], [[0, 1]]], "uint8"), 0, [0, 1]),
        (numbers([np.nan, np.nan], [np.nan, 0.0]), 0, [0, 1]),
        (numbers([np.nan, 0.0], [np.nan, 2.0], [0.0, 0.0]), 1, [0, 1, 1]),
        (numbers([0.0, 0.0], [0.0, 1.0]), 2, [0, 1]),
    ],
    ids=["an image", "numbers", "numbers and codes", "codes"],
)
def test_presence(inputs, num_categories, expected):
    there = layers.Presence(num_categories)(inputs)
    np.testing.assert_array_equal(np.asarray(there)[:, 0], expected)


def test_modality_dropout_drops_at_its_rate_row_by_row_and_never_all():
    presence = np.tile(numbers([1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]), (4000, 1))
    kept = np.asarray(layers.ModalityDropout(0.4, seed=3)(presence, training=True))
    assert not (kept > presence).any()
    np.testing.assert_array_equal(kept.any(axis=1), presence.any(axis=1))
    whole = kept[presence.all(axis=1)]
    # Dropped by itself, unless all three would be and it is the one that is spared.
    assert whole.mean() == pytest.approx(0.6 + 0.4**3 / 3, abs=0.01)
    pairs = kept[(presence == [1, 0, 1]).all(axis=1)][:, [0, 2]]
    assert pairs.mean() == pytest.approx(0.6 + 0.4**2 / 2, abs=0.015)
    assert len(np.unique(kept, axis=0)) == 8
    np.testing.assert_array_equal(layers.ModalityDropout(0.4)(presence), presence)


def test_a_stand_in_takes_the_place_of_what_is_missing():
    layer = layers.StandIn()
    layer.build([(None, 2), (None, 1)])
    layer.set_weights([np.array([5.0, 6.0])])
    filled = layer([numbers([1, 2], [np.nan, 3]), numbers([1], [0])])
    np.testing.assert_array_equal(filled, [[1, 2, 1], [5, 6, 0]])


def two_inputs(rows, seed):
    """The target is in the image's brightness and, apart from it, in the table's column."""
    generator = np.random.default_rng(seed)
    image, table = generator.normal(size=(2, rows))
    pixels = np.clip(128 + 30 * image, 1, 255)[:, None, None, None] * np.ones((1, 6, 6, 1))
    y = (image + table + 0.3 * generator.normal(size=rows) > 0).astype(int)
    return {"image": pixels.astype("uint8"), "tabular": table[:, None].astype("float32")}, y


def without(x, name, rows=slice(None)):
    x = {key: array.copy() for key, array in x.items()}
    x[name][rows] = 0 if name == "image" else np.nan
    return x


def make_model(fusion="concat", rate=0.3):
    keras.utils.set_random_seed(0)
    branches = {
        "image": image_branch((6, 6, 1), units=8),
        "tabular": tabular_branch(1, units=8),
    }
    return build_fusion_model(
        branches, task="binary", fusion=fusion, head_units=8, modality_dropout=rate
    )


@pytest.fixture(scope="module")
def trained():
    model, (x, y) = make_model(), two_inputs(600, 0)
    fit(model, x, y, task="binary", validation_data=None, epochs=15, seed=0, verbose=0)
    return model


@pytest.mark.parametrize("name", ["image", "tabular"])
def test_a_row_without_an_input_is_judged_by_the_other(trained, name):
    x, y = two_inputs(600, 1)
    whole = roc_auc_score(y, predict(trained, x)[:, 0])
    partial = roc_auc_score(y, predict(trained, without(x, name))[:, 0])
    other = x["tabular"][:, 0] if name == "image" else x["image"][:, 0, 0, 0]
    assert whole > 0.97
    assert partial == pytest.approx(roc_auc_score(y, other), abs=0.02)


def test_what_is_missing_tells_nothing(trained):
    x, _ = two_inputs(4, 2)
    np.testing.assert_array_equal(
        predict(trained, without(x, "image", slice(0, 2)))[2:], predict(trained, x)[2:]
    )
    nothing = without(without(x, "image"), "tabular")
    assert np.ptp(predict(trained, nothing)) == 0


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_every_fusion_takes_rows_that_lack_an_input(fusion, tmp_path):
    model, (x, y) = make_model(fusion), two_inputs(40, 0)
    x = without(without(x, "image", slice(0, 9)), "tabular", slice(9, 20))
    fit(model, x, y, task="binary", validation_data=(x, y), epochs=1, verbose=0)
    predictions = predict(model, x)
    assert np.isfinite(predictions).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(predict(loaded, x), predictions)


@pytest.fixture(scope="module")
def data():
    x, y = two_inputs(240, 0)
    frame = pd.DataFrame({"size": x["tabular"][:, 0], "color": np.where(y, "red", "blue")})
    frame["color"] = np.random.default_rng(1).permutation(frame["color"])
    return {"image": x["image"], "tabular": frame}, y


@pytest.fixture(scope="module")
def fitted(data):
    x, y = data
    x = without(x, "image", slice(0, 80))
    model = FusionClassifier(members=["image", "table", "trees", "fused"], num_folds=2, epochs=2)
    return model.fit(x, y)


@pytest.fixture(scope="module")
def exported(fitted, tmp_path_factory):
    return fitted.export(tmp_path_factory.mktemp("served") / "model")


class TestEstimator:
    """`FusionClassifier` on rows of which some lack an image."""

    def test_without_an_image_the_members_of_the_table_answer(self, fitted, data):
        x = without(data[0], "image")
        table = {"tabular": fitted.schema_.encode(x["tabular"]), "image": x["image"]}
        members = {
            name: np.mean(
                [pooled(predict(model, table), fitted.task_) for model in result.models], axis=0
            )
            for name, result in fitted.results_.items()
            if name in ("table", "trees")
        }
        blend = fit_blend(
            {n: pooled(fitted.results_[n].predictions, fitted.task_) for n in members}, data[1]
        )
        np.testing.assert_allclose(fitted.predict_proba(x), blend.apply(members), atol=1e-5)

    def test_a_row_that_lacks_all_gets_the_class_rates(self, fitted, data):
        nothing = {
            "image": np.zeros((1, 6, 6, 1), "uint8"),
            "tabular": pd.DataFrame({"size": [np.nan], "color": [None]}),
        }
        rates = np.bincount(data[1][80:], minlength=2) / 160
        np.testing.assert_allclose(fitted.predict_proba(nothing)[0], rates, atol=1e-5)

    def test_members_of_images_see_no_row_without_one(self, data, monkeypatch):
        seen = []

        def watched(*arguments, **keywords):
            seen.append(arguments[1]["image"])
            return fit(*arguments, **keywords)

        monkeypatch.setattr("kfusion.estimators.members.fit", watched)
        x, y = data
        x = without(x, "image", slice(0, 80))
        FusionClassifier(members=["image"], num_folds=2, epochs=1).fit(x, y)
        assert sum(map(len, seen)) == 160
        assert all(images.any(axis=(1, 2, 3)).all() for images in seen)

    def test_saved_and_served_it_answers_the_same(self, fitted, exported, data, tmp_path):
        x = without(data[0], "image", slice(100, 120))
        expected = fitted.predict_proba(x)
        loaded = FusionClassifier.load(fitted.save(tmp_path / "saved"))
        np.testing.assert_array_equal(loaded.predict_proba(x), expected)
        assert loaded.evidence_.pairs["blend"] == fitted.evidence_.pairs["blend"]
        served = load_exported(exported)
        assert served.may_be_missing == ("image", "tabular")
        answers = served.predict(x["tabular"], x["image"])["probabilities"]
        np.testing.assert_allclose(answers, expected, atol=1e-5)

    def test_raw_rows_without_an_image_are_served_without_kfusion(
        self, fitted, exported, data, tmp_path
    ):
        x = without(data[0], "image", slice(1, 2))
        keras.utils.save_img(tmp_path / "0.png", x["image"][0], scale=False)
        rows = x["tabular"].head(2).assign(image=["0.png", ""])
        rows.to_csv(tmp_path / "rows.csv", index=False)
        program = Path(__file__).parents[1] / "examples" / "serve_without_kfusion.py"
        done = subprocess.run(
            [sys.executable, "-P", program, exported, tmp_path / "rows.csv"],
            capture_output=True,
            text=True,
            check=True,
        )
        served = [json.loads(line)[2] for line in done.stdout.splitlines()]
        expected = fitted.predict_proba({key: part[:2] for key, part in x.items()})
        np.testing.assert_allclose(served, expected, atol=1e-5)

    def test_empty_cells_are_missing_images_and_unreadable_files_errors(
        self, fitted, data, tmp_path
    ):
        x, _ = data
        frame = x["tabular"].head(3).assign(path=["0.png", "", None])
        keras.utils.save_img(tmp_path / "0.png", x["image"][0], scale=False)
        by_path = FusionClassifier(image_column="path", image_folder=tmp_path)
        by_path.__dict__ |= {k: v for k, v in vars(fitted).items() if k.endswith("_")}
        arrays = without({key: part[:3] for key, part in x.items()}, "image", slice(1, 3))
        by_path.feature_names_in_ = np.array(["size", "color"], object)
        expected = fitted.predict_proba(arrays)
        np.testing.assert_allclose(by_path.predict_proba(frame), expected, atol=1e-6)
        cells = frame.assign(path=[x["image"][0], np.nan, None])
        np.testing.assert_allclose(by_path.predict_proba(cells), expected, atol=1e-6)
        shuffled = cells.set_axis([1, 2, 0])
        np.testing.assert_allclose(by_path.predict_proba(shuffled), expected, atol=1e-6)
        with pytest.raises(BadImageError, match=r"row 1: .*absent\.png"):
            by_path.predict(frame.assign(path=["0.png", "absent.png", ""]))

    def test_images_that_are_all_missing(self, data):
        with pytest.raises(ValueError, match="No row has an image"):
            FusionClassifier().fit(without(data[0], "image"), data[1])


def test_a_table_keeps_rows_that_name_no_image(tmp_path):
    generator = np.random.default_rng(0)
    for i in range(3):
        keras.utils.save_img(
            tmp_path / f"{i}.png", generator.integers(1, 256, (4, 4, 3)), scale=False
        )
    Image.new("RGB", (4, 4)).save(tmp_path / "black.png")
    frame = pd.DataFrame(
        {
            "path": ["0.png", "1.png", "2.png", "", None, "black.png"],
            "size": range(6),
            "y": ["a", "b"] * 3,
        }
    )

    def load(frame, **keywords):
        return load_table(
            frame, image_column="path", target="y", image_folder=tmp_path, verbose=0, **keywords
        )

    with pytest.warns(UserWarning, match=r"row 5 holds zeros alone and counts as missing \(1 in"):
        data = load(frame, on_missing_image="keep")
    np.testing.assert_array_equal(rows_with_image(data.images), [1, 1, 1, 0, 0, 0])
    with pytest.raises(BadImageError, match=r"(?s)2 of 6.*row 3, 4: \(empty\)"):
        load(frame)
    bad = frame.assign(path=["0.png", "absent.png", "2.png", "", "1.png", "1.png"])
    with pytest.raises(BadImageError, match=r"(?s)1 of 6.*row 1: .*absent\.png"):
        load(bad, on_missing_image="keep")
    with pytest.warns(UserWarning, match=r"(?s)1 of 6.*row 1"):
        dropped = load(bad, on_missing_image="keep", on_bad_image="drop")
    np.testing.assert_array_equal(dropped.rows, [0, 2, 3, 4, 5])


def test_blends_by_presence_are_those_of_their_rows_and_members():
    generator = np.random.default_rng(0)
    y = generator.integers(2, size=300)
    sure = np.clip(
        0.5 + (y[:, None] - 0.5) * [0.3, 0.5, 0.6] + 0.2 * generator.normal(size=(300, 3)),
        0.01,
        0.99,
    )
    members = {name: np.stack([1 - p, p], 1) for name, p in zip("abc", sure.T, strict=True)}
    modalities = {"a": ("image",), "b": ("tabular",), "c": ("image", "tabular")}
    image = np.arange(300) % 3 > 0
    present = {"image": image, "tabular": np.ones(300, bool)}
    blends = fit_presence_blends(members, y, modalities=modalities, present=present)
    whole = fit_blend({name: part[image] for name, part in members.items()}, y[image])
    table = fit_blend({"b": members["b"]}, y)
    expected = np.where(image[:, None], whole.apply(members), table.apply(members))
    np.testing.assert_allclose(blends.apply(members, present), expected)
    assert set(blends.partial) == {frozenset({"image"}), frozenset({"tabular"}), frozenset()}


class TestPresenceBlends:
    """What answers where the blend of all would not."""

    @staticmethod
    def predictions(strengths):
        generator = np.random.default_rng(0)
        y = generator.integers(2, size=400)
        noise = generator.normal(size=(400, len(strengths)))
        sure = np.clip(0.5 + (y[:, None] - 0.5) * strengths + 0.15 * noise, 0.01, 0.99)
        names = ["image", "table"]
        return {n: np.stack([1 - p, p], 1) for n, p in zip(names, sure.T, strict=True)}, y

    def test_a_table_that_may_be_empty_answers_where_there_is_no_image(self):
        members, y = self.predictions([0.4, 0.3])
        modalities = {"image": ("image",), "table": ("tabular",)}
        present = {"image": np.arange(400) % 4 > 0}
        blends = fit_presence_blends(members, y, modalities=modalities, present=present)
        alone = fit_blend({"table": members["table"]}, y).apply(members)
        pooled = blends.apply(members, present)
        np.testing.assert_allclose(pooled[::4], alone[::4])

    def test_a_member_that_counts_for_nothing_answers_where_it_is_all_there_is(self):
        members, y = self.predictions([0.9, 0.25])
        # All that the table knows is known to the image.
        members["image"] = np.where(y[:, None] == [0, 1], 0.98, 0.02)
        modalities = {"image": ("image",), "table": ("tabular",)}
        present = {"image": np.ones(400, bool), "tabular": np.ones(400, bool)}
        blends = fit_presence_blends(members, y, modalities=modalities, present=present)
        assert blends.whole.weights["table"] == 0
        nothing = {"image": np.zeros(400, bool), "tabular": np.ones(400, bool)}
        alone = fit_blend({"table": members["table"]}, y).apply(members)
        np.testing.assert_allclose(blends.apply(members, nothing), alone)


def test_codes_of_a_trained_table_are_known_within_its_branch():
    frame = pd.DataFrame({"size": np.arange(40.0), "kind": list("abcd") * 10})
    schema = TableSchema.fit(frame)
    network = build_unimodal_model(tabular_branch(schema), task="binary")
    branches = {
        "image": image_branch((6, 6, 1), units=4),
        "table": branch_from(network, "head_1", input_name="tabular"),
    }
    model = build_fusion_model(branches, task="binary", modality_dropout=0.0)
    presence = model.get_layer("tabular_presence")
    empty = schema.encode(pd.DataFrame({"size": [np.nan], "kind": [None]}))
    assert np.asarray(presence(empty)).tolist() == [[0.0]]
