"""Estimators: every form of rows, one model from raw columns, evidence, refusals, resuming."""

import datetime
import json
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import check_estimator

from kfusion import FusionClassifier, FusionData, FusionRegressor, load_table
from kfusion.cli import main
from kfusion.estimators.members import Member
from kfusion.exports.model_card import sentence
from kfusion.validation.cross_validation import FoldError

ROWS = 160
RANDOM = np.random.default_rng(0)
Y = RANDOM.integers(2, size=ROWS)
BRIGHTNESS = np.clip(70 + 30 * Y + 20 * RANDOM.normal(size=ROWS), 0, 135)
NOISE = RANDOM.integers(120, size=(ROWS, 8, 8, 3))
IMAGES = (NOISE + BRIGHTNESS[:, None, None, None]).astype("uint8")
FRAME = pd.DataFrame(
    {
        "size": np.where(RANDOM.random(ROWS) < 0.3, np.nan, RANDOM.normal(size=ROWS) + Y),
        "kind": np.where(Y == 1, *RANDOM.choice(["a", "b", "c"], size=(2, ROWS))),
        "when": pd.date_range("2020-01-01", periods=ROWS).astype(str),
    }
)
FRAME.loc[RANDOM.random(ROWS) < 0.2, "kind"] = None
LABELS = np.where(Y == 1, "ill", "well")
X = {"image": IMAGES, "tabular": FRAME}
MEMBERS = ["image", "table", "fused", "trees", "trees and image"]
WITHOUT_KFUSION = """
import json, sys
import numpy as np, pandas as pd, tensorflow as tf
folder, rows, images = sys.argv[1:]
served = tf.saved_model.load(folder).signatures["serving_default"]
frame, images = pd.read_json(rows, dtype=False), np.load(images)
given = {"image": tf.constant(images)}
for name in served.structured_input_signature[1]:
    if name == "image":
        continue
    column = frame[name]
    is_text = served.structured_input_signature[1][name].dtype == tf.string
    values = column.fillna("").astype(str) if is_text else column.astype("float32")
    given[name] = tf.constant(values.to_numpy())
assert not any(name.split(".")[0] == "kfusion" for name in sys.modules)
print(json.dumps(served(**given)["probabilities"].numpy().tolist()))
"""


def trees(**keywords):
    return FusionClassifier(**{"members": ["trees"], "num_folds": 2, **keywords})


@pytest.fixture(scope="module")
def fitted():
    return FusionClassifier(num_folds=2, epochs=1).fit(X, LABELS)


class TestAllMembers:
    def test_there_is_every_kind(self, fitted):
        assert list(fitted.results_) == list(fitted.weights_) == MEMBERS
        assert fitted.classes_.tolist() == ["ill", "well"]

    def test_probabilities_are_of_the_classes_in_order(self, fitted):
        probabilities = fitted.predict_proba(X)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)
        assert roc_auc_score(LABELS == "well", probabilities[:, 1]) > 0.9
        assert fitted.predict(X).tolist() == fitted.classes_[probabilities.argmax(axis=1)].tolist()

    def test_it_answers_as_the_blend_of_its_members_mean_answers(self, fitted):
        """The graph against NumPy."""
        from kfusion import predict

        x = fitted._encode_for_members(fitted._encode(fitted._read(X, reset=False)))
        means = {
            name: np.mean([predict(model, x) for model in result.models], axis=0).astype(float)
            for name, result in fitted.results_.items()
        }
        columns = {name: np.column_stack([1 - mean, mean]) for name, mean in means.items()}
        expected = fitted.blend_.apply(columns)
        np.testing.assert_allclose(fitted.predict_proba(X), expected, atol=1e-6)

    def test_rows_of_a_frame_with_arrays_or_files_are_the_same_rows(self, fitted, tmp_path):
        expected = fitted.predict_proba({"image": IMAGES[:9], "tabular": FRAME[:9]})
        cells = FRAME[:9].assign(photo=list(IMAGES[:9]))
        for row, image in enumerate(IMAGES[:9]):
            Image.fromarray(image).save(tmp_path / f"{row}.png")
        files = FRAME[:9].assign(photo=[f"{row}.png" for row in range(9)])
        for frame in (cells, files):
            fitted.set_params(image_column="photo", image_folder=str(tmp_path))
            np.testing.assert_array_equal(fitted.predict_proba(frame), expected)
            fitted.set_params(image_column=None, image_folder=None)

    def test_a_rows_answer_does_not_depend_on_the_others(self, fitted):
        all_rows = fitted.predict_proba(X)
        some = {"image": IMAGES[5:8], "tabular": FRAME[5:8]}
        np.testing.assert_allclose(fitted.predict_proba(some), all_rows[5:8], atol=1e-7)

    def test_gaps_and_categories_never_seen(self, fitted):
        frame = pd.DataFrame({"size": [np.nan], "kind": ["never seen"], "when": [None]})
        found = fitted.predict_proba({"image": IMAGES[:1], "tabular": frame})
        assert np.isfinite(found).all()
        counts = fitted.count_unseen({"image": IMAGES[:1], "tabular": frame})
        assert counts["kind"] == 1

    def test_the_evidence_compares_all_on_rows_they_were_not_trained_on(self, fitted):
        evidence = fitted.evidence_
        assert list(evidence.results) == [*MEMBERS, "blend"]
        assert set(evidence.singles) == {"image", "table", "trees"}
        assert list(evidence.pairs) == ["fused", "trees and image", "blend"]
        assert fitted.verdict_.startswith("blend 0.")
        assert "against the best single input" in fitted.verdict_
        for result in evidence.results.values():
            assert np.isfinite(result.predictions).all()

    def test_the_blend_is_judged_by_weights_of_other_rows(self, fitted):
        """Turning the labels of one fold round must not move its own predictions."""
        from kfusion.estimators.bagging import blend_outside
        from kfusion.validation.cross_validation import CrossValidation

        first = next(iter(fitted.results_.values()))
        test = first.folds[0].fold.test
        turned = first.y.copy()
        turned[test] = 1 - turned[test]
        again = {
            name: CrossValidation(result.task, turned, result.folds)
            for name, result in fitted.results_.items()
        }
        before, after = (blend_outside(each).predictions for each in (fitted.results_, again))
        np.testing.assert_array_equal(before[test], after[test])
        assert not np.array_equal(before, after)

    def test_what_each_modality_adds(self, fitted):
        values = fitted.modality_values()
        assert list(values) == ["image", "tabular"]
        whole = fitted.evidence_.results["blend"].scores().mean()
        assert sum(values.values()) == pytest.approx(whole - 0.5)

    def test_the_rows_that_it_corrects_and_breaks(self, fitted):
        rows = fitted.which_rows(5)
        assert set(rows["y"]) <= {"ill", "well"}
        assert (rows["change"][rows["corrected"]] > 0).all()
        with pytest.raises(TypeError, match="rows that `fit` was given.* Received: DataFrame"):
            fitted.which_rows(FRAME)

    def test_a_picture(self, fitted):
        assert fitted.plot_evidence().axes

    def test_the_exported_model_answers_the_same_without_kfusion(self, fitted, tmp_path):
        folder = fitted.export(tmp_path / "model")
        FRAME.to_json(tmp_path / "rows.json")
        np.save(tmp_path / "images.npy", IMAGES)
        program = [sys.executable, "-c", WITHOUT_KFUSION]
        files = [str(folder), str(tmp_path / "rows.json"), str(tmp_path / "images.npy")]
        done = subprocess.run([*program, *files], capture_output=True, check=False, text=True)
        assert not done.returncode, done.stderr[-2000:]
        served = np.array(json.loads(done.stdout.splitlines()[-1]))
        np.testing.assert_allclose(served, fitted.predict_proba(X), atol=1e-5)
        card = (folder / "README.md").read_text(encoding="utf-8")
        own = fitted.evidence_.estimates["blend"]
        assert f"| blend | {own.value:.4f} | {own.low:.4f} to {own.high:.4f} | DeLong |" in card
        assert sentence(fitted.verdict_) in card
        assert "Learned from 160 rows." in card
        folds = fitted.results_["trees"].folds
        judged = len(np.unique(np.concatenate([result.fold.test for result in folds])))
        assert f"not trained on, {judged} of 160 in all." in card
        assert "drawn with seed 0." in card
        assert f"Exported on {datetime.date.today().isoformat()}." in card
        assert "Rows without `image`: 0.0%." in card

    def test_an_export_knows_the_columns_of_the_table_it_was_loaded_from(self, tmp_path, capsys):
        photos = [f"{row}.png" for row in range(60)]
        for name, image in zip(photos, IMAGES, strict=False):
            Image.fromarray(image).save(tmp_path / name)
        csv = tmp_path / "rows.csv"
        FRAME[:60].assign(photo=photos, outcome=LABELS[:60]).to_csv(csv, index=False)
        data = load_table(csv, image_column="photo", target="outcome", verbose=0)
        model = FusionClassifier(members=["trees and image"], num_folds=2).fit(data)
        again = FusionClassifier.load(model.save(tmp_path / "saved"))
        folder = again.export(tmp_path / "model")
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert "A binary classifier of outcome (ill, well) from `image`" in card
        assert "| `image` | photo | image |" in card
        capsys.readouterr()
        assert main(["predict", str(folder), str(csv)]) == 0
        told = json.loads(capsys.readouterr().out)["predictions"]
        assert [row["image"] for row in told] == photos
        assert [row["class"] for row in told] == model.predict(data).tolist()

    def test_the_target_is_called_as_the_series_that_held_it(self):
        model = trees().fit(FRAME, pd.Series(LABELS, name="outcome"))
        assert (model.target_, model.image_columns_) == ("outcome", {})

    def test_saved_and_loaded_it_is_the_same(self, fitted, tmp_path):
        again = FusionClassifier.load(fitted.save(tmp_path / "saved"))
        np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
        assert again.predict(X).tolist() == fitted.predict(X).tolist()
        assert again.verdict_ == fitted.verdict_
        assert again.weights_ == fitted.weights_
        assert again.modality_values() == fitted.modality_values()
        with pytest.raises(FileNotFoundError, match="holds no saved estimator"):
            FusionClassifier.load(tmp_path)
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").touch()
        for write in (fitted.save, fitted.export):
            with pytest.raises(ValueError, match="holds other things"):
                write(tmp_path / "mine", overwrite=True)
        assert (tmp_path / "mine" / "thesis.txt").exists()
        with pytest.raises(ValueError, match="holds a FusionClassifier"):
            FusionRegressor.load(tmp_path / "saved")

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ({"tabular": FRAME}, "lacks the 'image' input"),
            ({"image": IMAGES}, "lacks the 'tabular' input"),
            ({"image": IMAGES[:, :6], "tabular": FRAME}, "image.*8.*6"),
            ({"image": IMAGES, "tabular": FRAME.drop(columns="kind")}, "kind"),
            ({"image": IMAGES[:5], "tabular": FRAME}, "same number of rows"),
            ({"image": IMAGES / 255, "tabular": FRAME}, "0-1"),
            ({"picture": IMAGES}, "lacks the 'image' input"),
            ({}, "must have inputs by name"),
        ],
    )
    def test_rows_that_do_not_fit_are_refused(self, fitted, rows, message):
        with pytest.raises(ValueError, match=message):
            fitted.predict(rows)


class TestOneModality:
    def test_images_alone(self):
        model = FusionClassifier(members=["trees on image"], num_folds=2)
        model.fit({"image": IMAGES}, Y)
        assert roc_auc_score(Y, model.predict_proba({"image": IMAGES})[:, 1]) > 0.9
        assert model.modality_values() == {
            "image": pytest.approx(model.results_["trees on image"].scores().mean() - 0.5, abs=0.05)
        }

    def test_a_table_alone_with_text(self):
        model = trees().fit(FRAME, Y)
        assert model.feature_names_in_.tolist() == list(FRAME)
        assert roc_auc_score(Y, model.predict_proba(FRAME)[:, 1]) > 0.7
        with pytest.raises(ValueError, match="yet now missing:\n- kind"):
            model.predict(FRAME.drop(columns="kind"))

    def test_a_matrix_where_a_frame_was_fitted_is_taken_by_place(self):
        frame = pd.DataFrame(RANDOM.normal(size=(60, 2)), columns=["a", "b"])
        model = trees().fit(frame, Y[:60])
        with pytest.warns(UserWarning, match="valid feature names"):
            found = model.predict_proba(frame.to_numpy())
        np.testing.assert_array_equal(found, model.predict_proba(frame))

    def test_names_of_image_files_in_a_table_are_told(self):
        frame = FRAME.assign(photo=[f"{row}.png" for row in range(ROWS)])
        with pytest.warns(UserWarning, match="pass `image_column='photo'`"):
            trees().fit(frame, Y)

    def test_fusion_data_bring_their_own_targets_and_groups(self):
        groups = np.arange(ROWS) // 4
        data = FusionData(IMAGES, FRAME, Y, "binary", ("no", "yes"), groups=groups)
        model = trees(num_folds=4).fit(data)
        assert set(model.predict(data)) == {"no", "yes"}
        for result in model.results_["trees"].folds:
            assert not set(groups[result.fold.train]) & set(groups[result.fold.test])


def test_a_frozen_backbone_stands_for_the_image():
    import keras

    backbone = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(6, 3),
            keras.layers.BatchNormalization(),
        ],
        name="pretrained",
    )
    before = [weight.copy() for weight in backbone.get_weights()]
    model = FusionClassifier(
        image_backbone=backbone, members=["image", "trees and image"], num_folds=2, epochs=1
    )
    probabilities = model.fit(X, Y).predict_proba(X)
    assert roc_auc_score(Y, probabilities[:, 1]) > 0.8
    for weight, unchanged in zip(backbone.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, unchanged)
    # The backbone runs once for all members.
    assert sum(layer.name == "image.features" for layer in model.model_.layers) == 1


def test_one_split_and_a_residual_fusion():
    model = FusionClassifier(effort="fast", epochs=1, members=["fused", "trees"])
    model.fit(X, Y)
    assert [len(result.folds) for result in model.results_.values()] == [1, 1]
    assert model.evidence_.results["blend"].predictions.shape == (ROWS, 1)
    assert roc_auc_score(Y, model.predict_proba(X)[:, 1]) > 0.8


def test_a_residual_fusion_beside_a_backbones_features():
    import keras

    backbone = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D()])
    model = FusionClassifier(
        effort="fast", epochs=1, members=["fused", "trees"], image_backbone=backbone
    )
    assert np.isfinite(model.fit(X, Y).predict_proba(X)).all()


def test_repeats_judge_a_blend_of_the_same_repeat():
    """The other repeat's predictions do not touch those of this one."""
    import dataclasses

    from kfusion.estimators.bagging import blend_outside
    from kfusion.estimators.out_of_fold import OutOfFold
    from kfusion.validation.cross_validation import CrossValidation

    model = FusionClassifier(effort="thorough", num_folds=2, members=["trees", "trees and image"])
    model.fit(X, Y)
    assert [len(result.folds) for result in model.results_.values()] == [4, 4]
    assert isinstance(model._out_of_fold, OutOfFold)
    first = [f.fold.test for f in blend_outside(model.results_).folds]
    before = blend_outside(model.results_).folds
    turned = {
        name: CrossValidation(
            result.task,
            result.y,
            [
                f if f.fold.repeat == 0 else dataclasses.replace(f, predictions=1 - f.predictions)
                for f in result.folds
            ],
        )
        for name, result in model.results_.items()
    }
    after = blend_outside(turned).folds
    assert len(first) == 4
    for old, new in zip(before[:2], after[:2], strict=True):
        np.testing.assert_array_equal(old.predictions, new.predictions)


class TestRepeatable:
    def test_the_same_seed_gives_the_same_model(self):
        fits = [trees(members=["table", "trees"], epochs=1).fit(FRAME, Y) for _ in range(2)]
        first, second = (model.predict_proba(FRAME) for model in fits)
        np.testing.assert_array_equal(first, second)

    def test_a_killed_fit_goes_on_where_it_was(self, tmp_path, monkeypatch):
        undisturbed = trees(num_folds=4).fit(FRAME, Y).predict_proba(FRAME)
        import kfusion.estimators.fusion_estimators as module

        calls = []

        def counted(member, limit):
            def fit(*arguments):
                if len(calls) == limit:
                    raise KeyboardInterrupt
                calls.append(1)
                return member.fit(*arguments)

            return Member(member.modalities, fit)

        def standard(limit):
            return lambda *a, **k: {n: counted(m, limit) for n, m in make(*a, **k).items()}

        make = module.standard_members
        for limit in (2, 99):
            monkeypatch.setattr(module, "standard_members", standard(limit))
            model = trees(num_folds=4, directory=tmp_path / "work")
            if limit == 2:
                with pytest.raises(KeyboardInterrupt):
                    model.fit(FRAME, Y)
        model.fit(FRAME, Y)
        assert len(calls) == 4
        np.testing.assert_array_equal(model.predict_proba(FRAME), undisturbed)
        with pytest.raises(ValueError, match="holds another cross-validation: rows differ"):
            trees(num_folds=4, directory=tmp_path / "work").fit(FRAME, 1 - Y)

    def test_other_weights_are_other_work(self, tmp_path):
        model = trees(directory=tmp_path / "work")
        model.fit(FRAME, Y, sample_weight=np.ones(ROWS))
        model.set_params(verbose=0, image_folder="elsewhere").fit(
            FRAME, Y, sample_weight=np.ones(ROWS)
        )
        with pytest.raises(ValueError, match="rows differ"):
            model.fit(FRAME, Y, sample_weight=np.linspace(0.1, 1, ROWS))

    def test_a_refused_fit_leaves_nothing_behind(self):
        model = trees().fit(FRAME, Y)
        with pytest.raises(ValueError, match="groups"):
            model.fit(FRAME, LABELS, groups=np.zeros(3))
        with pytest.raises(NotFittedError):
            model.predict(FRAME)

    def test_a_loaded_one_has_the_same_evidence_with_groups_of_one_split(self, tmp_path):
        groups = RANDOM.permutation([f"site {i % 23}" for i in range(ROWS)])
        model = trees(num_folds=1, members=["trees", "trees and image"], random_state=np.int64(3))
        model.fit(X, LABELS.astype(object), groups=groups)
        again = FusionClassifier.load(model.save(tmp_path / "saved"))
        assert again.verdict_ == model.verdict_
        assert again.classes_.dtype == model.classes_.dtype

    def test_it_is_cloned_unfitted(self, fitted):
        again = clone(fitted)
        assert again.get_params() == fitted.get_params()
        with pytest.raises(NotFittedError):
            again.predict(X)


class TestScikitLearn:
    @pytest.mark.parametrize(
        "kind", [FusionClassifier, pytest.param(FusionRegressor, marks=pytest.mark.slow)]
    )
    def test_its_own_checks(self, kind):
        reason = "folds, early stopping and quantiles count rows, so a weight of 2 is not 2 rows"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_estimator(
                kind(members=["trees"], num_folds=2),
                on_skip=None,
                expected_failed_checks={
                    "check_sample_weight_equivalence_on_dense_data": reason,
                },
            )

    def test_cross_validation_and_grid_search(self):
        scores = cross_val_score(trees(), FRAME, Y, cv=2, scoring="roc_auc")
        assert (scores > 0.6).all()
        search = GridSearchCV(trees(), {"num_folds": [2, 3]}, cv=2).fit(FRAME, Y)
        assert search.best_params_["num_folds"] in (2, 3)

    def test_weights_count(self):
        """Rows that contradict each other: those that weigh more decide."""
        x = np.repeat(RANDOM.normal(size=(100, 1)), 2, axis=0)
        y = np.tile([0, 1], 100)
        weights = np.where(y == (x[:, 0] > 0), 10.0, 0.1)
        found = trees().fit(x, y, sample_weight=weights).predict(x)
        assert np.mean(found == (x[:, 0] > 0)) > 0.95


def test_values_of_a_regression(tmp_path):
    y = 100 + 5 * FRAME["size"].fillna(0) + 3 * Y
    model = FusionRegressor(members=["trees", "trees and image"], num_folds=3).fit(X, y)
    assert model.predict(X).shape == (ROWS,)
    assert model.score(X, y) > 0.5
    assert model.evidence_.score.name == "rmse"
    assert model.verdict_.startswith("blend ")
    with pytest.warns(UserWarning, match="No member learned from image alone"):
        assert set(model.modality_values()) == {"image", "tabular"}
    again = FusionRegressor.load(model.save(tmp_path / "saved"))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


class TestManyKindsOfData:
    def test_few_rows_of_a_class_are_told(self):
        y = np.zeros(60, int)
        y[:3] = 1
        with pytest.warns(UserWarning, match="3 folds in place of 4: the rarest class has 3 rows"):
            trees(num_folds=None).fit(RANDOM.normal(size=(60, 2)), y)

    def test_a_hundred_classes_and_two_hundred_columns(self):
        y = np.arange(400) % 100
        x = RANDOM.normal(size=(400, 200))
        x[:, 0] += y
        model = trees().fit(x, y)
        assert model.predict_proba(x).shape == (400, 100)

    def test_a_column_that_is_all_missing(self):
        frame = FRAME.assign(nothing=np.nan)
        assert np.isfinite(trees().fit(frame, Y).predict_proba(frame)).all()

    def test_noise_beside_a_telling_table(self):
        """The loss out of fold against the table's trees alone, mean of 3 seeds."""
        gaps = []
        for seed in range(3):
            random = np.random.default_rng(seed)
            y = random.integers(2, size=300)
            table = random.normal(size=(300, 4)) + y[:, None]
            noise = random.integers(256, size=(300, 3, 3, 1)).astype("uint8")
            model = trees(members=["trees", "trees and image"], random_state=seed)
            evidence = model.fit({"image": noise, "tabular": table}, y).evidence_
            gaps.append(evidence.estimates["blend"].value - evidence.estimates["trees"].value)
        assert np.mean(gaps) > -0.005


class TestBadInput:
    @pytest.mark.parametrize(
        ("y", "message"),
        [
            (np.zeros(ROWS), r"one class only, \[0.0\]"),
            (np.where(np.arange(ROWS) == 3, np.nan, Y), r"`y` is missing \(NaN or None\) in row 3"),
            (np.array([*LABELS[:-1], 3], object), "mixes text and numbers"),
            (Y[:-1], "same number of rows"),
            (RANDOM.normal(size=ROWS), "Unknown label type"),
            (None, "requires y to be passed"),
        ],
    )
    def test_targets(self, y, message):
        with pytest.raises(ValueError, match=message):
            trees().fit(FRAME, y)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"effort": "much"}, "`effort` must be one of"),
            ({"members": ["forest"]}, "`members` must be of"),
            ({"members": []}, "`members` must be of"),
            ({"members": ["trees", "trees"]}, "each once"),
            ({"epochs": 0}, "`epochs` must be an int of 1 or more"),
            ({"num_folds": 2.5}, "`num_folds` must be an int"),
            ({"num_folds": 15}, None),
            ({"num_folds": 500}, "`num_folds` must be 20 at most"),
            ({"image_column": "photo"}, "has no image column 'photo'"),
        ],
    )
    def test_settings(self, settings, message):
        if message is None:
            with pytest.warns(UserWarning, match="folds in place of 15"):
                trees(**settings).fit(FRAME[:12], np.arange(12) % 2)
            return
        with pytest.raises(ValueError, match=message):
            trees(**settings).fit(FRAME, Y)

    def test_rows_of_another_task(self):
        values = FusionData(IMAGES, FRAME, RANDOM.normal(size=ROWS), "regression")
        with pytest.raises(ValueError, match="fit a FusionRegressor"):
            trees().fit(values)
        with pytest.raises(ValueError, match="fit a FusionClassifier"):
            FusionRegressor().fit(FusionData(IMAGES, FRAME, Y, "binary", ("no", "yes")))
        with pytest.raises(ValueError, match="Row 2 is 'a'"):
            FusionRegressor().fit(FRAME[:3], np.array([1, 2, "a"], object))

    def test_one_group_held_out(self):
        model = FusionRegressor(members=["trees"], num_folds=1)
        with pytest.raises(ValueError, match="a single group"):
            model.fit(FRAME, RANDOM.normal(size=ROWS), groups=np.arange(ROWS) % 5)

    def test_groups(self):
        with pytest.raises(ValueError, match="`groups` must have one value for each"):
            trees().fit(FRAME, Y, groups=np.zeros(3))
        with pytest.raises(ValueError, match="groups"):
            trees().fit(FRAME, Y, groups=Y)

    def test_arrays_of_odd_shapes_in_a_column(self):
        frame = FRAME[:4].assign(photo=[*IMAGES[:3], IMAGES[3][:5]])
        with pytest.raises(ValueError, match=r"row 0 has \(8, 8, 3\), row 3 has \(5, 8, 3\)"):
            trees(image_column="photo").fit(frame, [0, 1, 0, 1])

    def test_a_member_that_fails_is_named(self, monkeypatch):
        import kfusion.estimators.members as module

        def broken(*arguments, **keywords):
            raise ZeroDivisionError("no more rows")

        monkeypatch.setattr(module, "tree_ensemble", broken)
        with pytest.raises(FoldError, match="Member 'trees' failed in fold 1. ZeroDivisionError"):
            trees().fit(FRAME, Y)
