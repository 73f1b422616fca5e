"""Branches of other inputs than one image and a table, in every fusion; what is missing in them."""

import keras
import numpy as np
import pytest

from kfusion import (
    Vocabulary,
    build_fusion_model,
    embedding_branch,
    fit,
    image_branch,
    image_set_branch,
    predict,
    sequence_branch,
    tabular_branch,
    text_branch,
)
from kfusion.layers import MaskedConv, MaskedPool, ObservedNormalization
from kfusion.models.building import FUSIONS

ROWS = 8
VOCABULARY = Vocabulary(("red", "fox", "hen"), length=4)
KEYWORDS = {"units": 6, "dropout": (0.1, 0.2), "l2": 1e-4}


def numbers(*shape, missing=0.2):
    generator = np.random.default_rng(0)
    values = generator.normal(10, 3, size=shape)
    values[generator.random(shape) < missing] = np.nan
    return values.astype(np.float32)


def pixels(*shape):
    images = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    if len(shape) == 5:
        images[0, 1] = images[1] = 0
    return images


# The branch, and what it takes, with something missing.
BRANCHES = {
    "embedding": (lambda **k: embedding_branch(5, **k), numbers(ROWS, 5)),
    "images": (lambda **k: image_set_branch((2, 8, 8, 3), **k), pixels(ROWS, 2, 8, 8, 3)),
    "sequence": (lambda **k: sequence_branch((20, 2), **k), numbers(ROWS, 20, 2, missing=0.6)),
    "text": (
        lambda **k: text_branch(VOCABULARY, **k),
        VOCABULARY.encode(["red fox", None, "a red hen", "fox"] * 2),
    ),
}
every_branch = pytest.mark.parametrize("kind", BRANCHES)


def row_by_row_table(rows=ROWS):
    return np.random.default_rng(1).normal(size=(rows, 2)).astype(np.float32)


@every_branch
def test_gives_finite_vectors_of_its_one_named_input(kind):
    build, given = BRANCHES[kind]
    branch = build(**KEYWORDS)
    assert [tensor.name for tensor in branch.inputs] == [kind]
    assert build(input_name="other").inputs[0].name == "other"
    features = predict(branch, {kind: given})
    assert features.shape == (ROWS, 6)
    assert np.isfinite(features).all()
    moved = given.copy()
    moved[1:] = given[1:][::-1]
    np.testing.assert_allclose(predict(branch, {kind: moved})[0], features[0], atol=1e-6)


@every_branch
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_takes_it_first_and_last(kind, fusion):
    build, given = BRANCHES[kind]
    x = {kind: given, "tabular": row_by_row_table()}
    parts = {kind: build(**KEYWORDS), "tabular": tabular_branch(2, units=4)}
    for order in (parts, dict(reversed(parts.items()))):
        model = build_fusion_model(order, task="binary", fusion=fusion, head_units=4)
        # Called, not predicted: nothing is compiled.
        answers = np.asarray(model(x))
        assert answers.shape == (ROWS, 1)
        assert np.isfinite(answers).all()


@every_branch
def test_trains_and_is_the_same_after_saving_and_loading(kind, tmp_path):
    build, given = BRANCHES[kind]
    branches = {kind: build(**KEYWORDS), "tabular": tabular_branch(2, units=4)}
    model = build_fusion_model(branches, task="binary", head_units=4)
    x, y = {kind: given, "tabular": row_by_row_table()}, np.arange(ROWS) % 2
    before = [np.array(weight) for weight in model.trainable_weights]
    fit(model, x, y, task="binary", validation_data=None, epochs=1, verbose=0)
    for weight, start in zip(model.trainable_weights, before, strict=True):
        assert np.isfinite(weight).all()
        assert not np.array_equal(weight, start), weight.path
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(predict(loaded, x), predict(model, x), rtol=1e-6)


def test_two_image_columns_are_two_branches():
    branches = {
        key: image_branch((8, 8, 3), units=4, input_name=key, name=f"{key}_branch")
        for key in ("front", "back")
    }
    model = build_fusion_model(branches, task="binary")
    x = {"front": pixels(ROWS, 8, 8, 3), "back": pixels(ROWS, 8, 8, 3)[::-1]}
    assert sorted(model.input) == ["back", "front"]
    swapped = {"front": x["back"], "back": x["front"]}
    assert not np.allclose(predict(model, x), predict(model, swapped))


class TestImageSet:
    def test_is_the_mean_of_its_images_that_are_there(self):
        branch = image_set_branch((3, 8, 8, 3), units=4)
        images = pixels(2, 3, 8, 8, 3)
        images[0, 1] = 0
        each = branch.get_layer("each_image")
        seen = np.asarray(each(images[0, [0, 2]]))
        got = predict(branch, {"images": images})
        np.testing.assert_allclose(got[0], seen.mean(axis=0), rtol=1e-4, atol=1e-5)
        highest = image_set_branch((3, 8, 8, 3), units=4, pooling="max")
        highest.set_weights(branch.get_weights())
        got = predict(highest, {"images": images})
        np.testing.assert_allclose(got[0], seen.max(axis=0), rtol=1e-4, atol=1e-5)

    def test_black_images_do_not_enter_the_batch_statistics(self):
        branch = image_set_branch((4, 8, 8, 3), units=4)
        images = pixels(2, 4, 8, 8, 3)
        images[0, 1:] = images[1, 2:] = images[1, 0] = 0
        alone = image_set_branch((1, 8, 8, 3), units=4)
        alone.set_weights(branch.get_weights())
        # Of 8 images 2 are there: 4 copies each have their mean and variance.
        features = branch(images, training=True)
        expected = alone(images[[0, 1], [0, 1]][:, None], training=True)
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
        for ours, theirs in zip(branch.get_weights(), alone.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)

    def test_their_order_does_not_count(self):
        branch = image_set_branch((2, 8, 8, 3), units=4)
        images = pixels(ROWS, 2, 8, 8, 3)
        forwards, backwards = (predict(branch, {"images": x}) for x in (images, images[:, ::-1]))
        np.testing.assert_allclose(forwards, backwards, rtol=1e-5, atol=1e-6)

    def test_an_image_is_no_set(self):
        with pytest.raises(ValueError, match=r"must be \(count, height, width, channels\)"):
            image_set_branch((8, 8, 3))


class TestSequence:
    @pytest.mark.parametrize("pooling", ["mean", "max"])
    def test_padding_behind_it_changes_nothing(self, pooling):
        short, long = (sequence_branch((n, 2), units=4, pooling=pooling) for n in (17, 27))
        # Statistics off their start, which would leave zeros at zero.
        weights = [abs(w) + 0.1 for w in short.get_weights()]
        short.set_weights(weights)
        long.set_weights(weights)
        given = numbers(3, 17, 2)
        padded = np.concatenate([given, np.full((3, 10, 2), np.nan, np.float32)], axis=1)
        expected = predict(short, {"sequence": given})
        np.testing.assert_allclose(predict(long, {"sequence": padded}), expected, rtol=1e-4)

    def test_padding_does_not_count_in_training_either(self):
        short, long = (sequence_branch((n, 2), units=4) for n in (17, 27))
        long.set_weights(short.get_weights())
        given = numbers(3, 17, 2)
        padded = np.concatenate([given, np.full((3, 10, 2), np.nan, np.float32)], axis=1)
        expected = np.asarray(short(given, training=True))
        got = np.asarray(long(padded, training=True))
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
        for moved, same in zip(long.get_weights(), short.get_weights(), strict=True):
            np.testing.assert_allclose(moved, same, rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize(
        ("steps", "stages"), [(1, 1), (14, 1), (15, 2), (28, 2), (29, 3), (500, 3)]
    )
    def test_halves_until_fewer_than_8_steps_are_left(self, steps, stages):
        branch = sequence_branch((steps, 1), units=2)
        assert sum(isinstance(layer, MaskedConv) for layer in branch.layers) == stages

    def test_a_shape_that_is_no_sequence_is_refused(self):
        with pytest.raises(ValueError, match=r"must be \(steps, channels\)"):
            sequence_branch((8,))


class TestObservedNormalization:
    def test_uses_the_values_that_are_there(self):
        given = np.array([[1, np.nan, 5], [3, np.nan, np.nan]], np.float32)
        layer = ObservedNormalization(flag_missing=True)
        got = np.asarray(layer(given, training=True))
        # Mean 2 and variance 1; no value; one value.
        one = 1 / np.sqrt(1 + 1e-3)
        expected = [[-one, 0, 0, 0, 1, 0], [one, 0, 0, 0, 1, 1]]
        np.testing.assert_allclose(got, expected, atol=1e-6)
        np.testing.assert_allclose(layer.moving_mean, [0.2, 0, 0.5], rtol=1e-6)
        np.testing.assert_allclose(layer.moving_variance, [1, 1, 0.9], rtol=1e-6)

    def test_raw_numbers_survive_half_precision(self):
        layer = ObservedNormalization(dtype="mixed_float16")
        got = layer(np.array([[1e6], [1e6 + 2]], np.float32), training=True)
        np.testing.assert_allclose(got, [[-1], [1]], atol=2e-3)


class TestMaskedPool:
    def test_counts_what_is_there_and_says_0_of_nothing(self):
        steps = np.array([[[1, -9], [3, -5], [100, 100]], [[7, 7]] * 3], np.float32)
        mask = np.array([[True, True, False], [False] * 3])
        np.testing.assert_array_equal(MaskedPool()([steps, mask]), [[2, -7], [0, 0]])
        np.testing.assert_array_equal(MaskedPool("max")([steps, mask]), [[3, -5], [0, 0]])

    def test_an_unknown_mode_is_refused(self):
        with pytest.raises(ValueError, match='must be "mean" or "max". Received: mode=\'sum\''):
            MaskedPool("sum")


def test_an_embedding_without_features_is_refused():
    with pytest.raises(ValueError, match="`num_features` and each of `units` must be 1 or more"):
        embedding_branch(0)


def test_a_missing_embedding_counts_as_the_average():
    branch = embedding_branch(3, units=4)
    given = np.array([[np.nan] * 3, [2, 4, 6]], np.float32)
    branch.get_layer("scale").moving_mean.assign([2, 4, 6])
    first, second = predict(branch, {"embedding": given})
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("backbone", ["conv", "MobileNetV2"])
def test_a_frozen_network_without_weights_says_what_to_give(backbone):
    with pytest.raises(ValueError, match="random.* give a trained `keras.Model`|or a trained"):
        image_branch((32, 32, 3), backbone=backbone, trainable=False)
