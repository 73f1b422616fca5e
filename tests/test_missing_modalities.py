"""Rows that lack an image or a table: learned from, predicted and served."""

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from kfusion import build_fusion_model, fit, image_branch, layers, predict, tabular_branch
from kfusion.models import FUSIONS


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
