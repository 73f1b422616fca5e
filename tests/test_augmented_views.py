"""Augmented views of rows: known outcomes of known layers, drawn anew in training alone."""

import itertools
from functools import partial

import keras
import keras_tuner
import numpy as np
import pytest
from feature_cases import HELD, TRAIN, CountedRows, X, Y

import kfusion as kf
from kfusion.data import training_rows
from kfusion.frozen import frozen_features, part_rows
from kfusion.frozen.augmented_views import DrawnView, seed_states, view_digests, view_seeds
from kfusion.frozen.frozen_parts import AUGMENTATIONS, split_model
from kfusion.frozen.part_rows import PartRows

pytestmark = pytest.mark.usefixtures("computed")

KERNEL = np.random.default_rng(1).integers(-3, 4, (16, 6)).astype("float32")
FLIPPED = X["image"][:, :, ::-1]


def features_of(images):
    """What the backbone gives, worked by hand."""
    return np.maximum(images.reshape(len(images), -1) @ KERNEL + 1, 0)


PLAIN, MIRRORED = features_of(X["image"]), features_of(FLIPPED)


def flip(**keywords):
    return keras.layers.RandomFlip("horizontal", data_format="channels_last", **keywords)


def backbone(kernel=KERNEL, name="backbone"):
    """Small whole numbers as weights, so that its sums are exact in whatever order."""
    inputs = keras.Input((4, 4, 1), name="image")
    layer = keras.layers.Dense(6, activation="relu")
    model = keras.Model(inputs, layer(keras.layers.Flatten()(inputs)), name=name)
    layer.set_weights([kernel, np.ones(6, "float32")])
    return model


def branch(*augment, behind=()):
    inputs = keras.Input((4, 4, 1), dtype="uint8", name="image")
    hidden = keras.layers.Rescaling(1.0)(inputs)
    for layer in (*augment, kf.freeze(backbone()), *behind):
        hidden = layer(hidden)
    return keras.Model(inputs, hidden, name="image_branch")


def fused(image_branch=None):
    keras.utils.set_random_seed(1)
    branches = {
        "image": branch(flip()) if image_branch is None else image_branch,
        "tabular": kf.tabular_branch(3, units=4),
    }
    return kf.build_fusion_model(branches, task="binary", head_units=8)


def prepared(model, augmented_views, feature_cache="auto", x=TRAIN[0], held=HELD):
    """What is done before a training, without it."""
    return frozen_features.train_on_features(
        model,
        x,
        held,
        (),
        feature_cache=feature_cache,
        augmented_views=augmented_views,
        verbose=0,
    )


def trained(model, **keywords):
    settings = {"validation_data": HELD, "epochs": 3, "batch_size": 20, "seed": 3}
    settings |= {"augmented_views": 4, "doctor": False, "verbose": 0, **keywords}
    history = kf.fit(model, *TRAIN, task="binary", **settings)
    return model, history


def of_frozen(inputs):
    (found,) = (values for name, values in inputs.items() if name.startswith("frozen"))
    return found


def chain(kind):
    return kind([keras.layers.Rescaling(1.0), flip()])


@pytest.mark.parametrize(
    "augment", [flip, lambda: chain(keras.Sequential), lambda: chain(keras.layers.Pipeline)]
)
def test_each_view_is_the_network_on_an_augmented_image(augment, tmp_path):
    views = kf.cache_features(branch(augment()), X["image"], tmp_path, augmented_views=6, verbose=0)
    assert views.shape == (60, 7, 6)
    assert isinstance(views, np.memmap)
    np.testing.assert_array_equal(views[:, 0], PLAIN)
    is_plain = (views == PLAIN[:, None]).all(axis=-1)[:, 1:]
    is_mirrored = (views == MIRRORED[:, None]).all(axis=-1)[:, 1:]
    assert (is_plain ^ is_mirrored).all()
    # 360 coins: within five standard deviations of one half.
    assert abs(is_mirrored.mean() - 0.5) < 5 * 0.5 / np.sqrt(360)
    assert 30 < len(np.unique(is_mirrored, axis=0)) <= 60


def test_training_sees_a_drawn_view_and_judging_the_plain_one():
    inputs = keras.Input((4, 4, 1), dtype="uint8", name="image")
    hidden = kf.freeze(backbone())(flip()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(6, kernel_initializer="identity")(hidden))
    rest, table, held, _ = prepared(model, 3)
    assert of_frozen(table).shape == (40, 4, 6)
    np.testing.assert_array_equal(of_frozen(held[0])[:, 0], PLAIN[40:])
    assert of_frozen(held[0]).shape == (20, 1, 6)
    # So that each view can be told: its number at the first place.
    views = np.broadcast_to(np.arange(4.0)[None, :, None], (40, 4, 6)).astype("float32")
    taken = np.stack([rest({"frozen.0.0": views}, training=True) for _ in range(40)])
    numbers = taken[..., 0].astype(int)
    counts = np.bincount(numbers.ravel(), minlength=4)
    assert counts[0] == 0
    # 1,600 draws of three: within five standard deviations of a third.
    assert (np.abs(counts[1:] / 1600 - 1 / 3) < 5 * np.sqrt(2 / 9 / 1600)).all()
    assert len(np.unique(numbers, axis=0)) == 40
    np.testing.assert_array_equal(rest({"frozen.0.0": views}, training=False), 0)


def test_all_outputs_of_a_part_take_the_same_view():
    views = np.repeat(np.arange(5.0)[None], 30, axis=0)
    first, second = DrawnView(4)([views, 10 * views[..., None]], training=True)
    np.testing.assert_array_equal(10 * np.array(first), np.array(second)[:, 0])
    assert len(np.unique(first)) == 4


def test_the_whole_model_predicts_as_the_trained_rest_on_plain_views():
    model, history = trained(fused())
    assert len(history.epoch) == 3
    rest, _, held, _ = prepared(model, 4)
    said = rest.predict(held[0], verbose=0)
    np.testing.assert_allclose(kf.predict(model, HELD[0]), said, rtol=1e-6, atol=1e-7)
    best = history.history["val_loss"][history.best_epoch]
    assert kf.evaluate(model, *HELD, task="binary")["loss"] == pytest.approx(best, rel=1e-5)
    assert [variable.path for variable in rest.weights] == [each.path for each in model.weights]


def test_a_seed_decides_which_view_is_drawn_when():
    histories = [trained(fused(), seed=seed)[1].history for seed in (3, 3, 4)]
    assert histories[0] == histories[1]
    assert histories[0]["loss"] != histories[2]["loss"]


def test_views_come_from_rows_and_numbers_alone(tmp_path, monkeypatch, computed):
    def cached(folder, rows=slice(None), views=4, **keywords):
        augmenting = branch(flip(**keywords))
        augmenting(X["image"][:7], training=True)
        return np.array(
            kf.cache_features(
                augmenting,
                X["image"][rows],
                tmp_path / folder,
                augmented_views=views,
                batch_size=keywords.pop("batch_size", None),
                verbose=0,
            )
        )

    views = cached("a")
    assert sum(computed) == 60 * 5
    # Found again by another layer of another seed; more views compute only those.
    np.testing.assert_array_equal(cached("a", seed=7), views)
    assert sum(computed) == 60 * 5
    keras.utils.set_random_seed(8)
    some = [50, 3, 3, 17]
    np.testing.assert_array_equal(cached("b", rows=some, seed=9), views[some])
    np.testing.assert_array_equal(cached("c", rows=some, views=2), views[some][:, :3])


def test_folds_and_more_views_compute_what_is_new(computed):
    prepared(fused(), 2)
    assert sum(computed) == 40 * 3 + 20
    prepared(fused(), 3)
    assert sum(computed) == 40 * 4 + 20
    # The other fold: rows that were judged by have their plain view already.
    prepared(fused(), 3, x=HELD[0], held=TRAIN)
    assert sum(computed) == 60 * 4


def test_keys_tell_augmentation_apart_and_plain_features_are_others():
    def key(image_branch):
        (part,) = split_model(fused(image_branch), views=True).parts
        rows = PartRows(part, [X], [3])
        return rows.key.text

    assert key(branch(flip())) == key(branch(flip(seed=3)))
    vertical = keras.layers.RandomFlip("vertical", data_format="channels_last")
    keys = [
        key(branch(*layers))
        for layers in ((), (flip(),), (vertical,), (flip(), vertical), (chain(keras.Sequential),))
    ]
    assert all(a != b for a, b in itertools.combinations(keys, 2))


def test_a_killed_run_goes_on_with_the_views_that_are_missing(tmp_path, monkeypatch, computed):
    undisturbed = branch(flip())
    expected = kf.cache_features(
        undisturbed, X["image"], tmp_path / "other", augmented_views=2, verbose=0
    )
    computed.clear()
    predict, calls = part_rows.predict_on_devices, []

    def failing(model, inputs):
        calls.append(inputs)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(model, inputs)

    monkeypatch.setattr(part_rows, "predict_on_devices", failing)
    arguments = (branch(flip()), X["image"], tmp_path)
    keywords = {"augmented_views": 2, "batch_size": 50, "verbose": 0}
    with pytest.raises(KeyboardInterrupt):
        kf.cache_features(*arguments, **keywords)
    assert computed == [45, 45]
    views = kf.cache_features(*arguments, **keywords)
    assert computed == [45, 45, 45, 45]
    np.testing.assert_array_equal(views, expected)


def test_random_states_stay_as_they_were(tmp_path):
    def drawing(layer):
        return [np.array(keras.ops.convert_to_numpy(state)) for state in seed_states(layer)]

    # Keras' hue draws at inference too.
    hue = keras.layers.RandomHue(0.2, data_format="channels_last")
    rgb = keras.layers.Concatenate()
    inputs = keras.Input((4, 4, 1), dtype="uint8", name="image")
    grey = keras.layers.Rescaling(1.0)(flip()(inputs))
    coloured = hue(rgb([grey, grey, grey]))
    network = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
    model = keras.Model(inputs, kf.freeze(network)(coloured))
    before = drawing(model)
    assert len(before) == 2
    kf.cache_features(model, X["image"], tmp_path, augmented_views=3, verbose=0)
    np.testing.assert_array_equal(drawing(model), before)


@keras.saving.register_keras_serializable(package="tests")
class Unknown(keras.layers.Layer):
    """Nobody knows what it does in training."""

    def call(self, inputs, training=None):
        return inputs


@keras.saving.register_keras_serializable(package="tests")
class OwnFlip(keras.layers.RandomFlip):
    """A user's own kind of augmentation."""


@pytest.mark.parametrize(
    "noise",
    [lambda: keras.layers.GaussianNoise(0.1), lambda: keras.layers.Dropout(0.1), Unknown, OwnFlip],
)
def test_only_known_augmentation_is_kept(noise):
    model = fused(branch(noise(), flip()))
    assert split_model(model, views=True) is None
    with pytest.warns(UserWarning, match="`augmented_views=2` changes nothing"):
        assert prepared(model, 2)[0] is model


def test_noise_behind_frozen_weights_stays_noise():
    inputs = keras.Input((4, 4, 1), dtype="uint8", name="image")
    network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 1)])
    maps = kf.freeze(network)(keras.layers.Rescaling(1.0)(inputs))
    image_branch = keras.Model(inputs, keras.layers.Flatten()(flip()(maps)))
    with pytest.warns(UserWarning, match="`augmented_views=2` changes nothing"):
        _, table, _, _ = prepared(fused(image_branch), 2)
    assert of_frozen(table).shape == (40, 4, 4, 2)
    dropping = fused(branch(flip(), behind=[keras.layers.Dropout(0.5)]))
    (part,) = split_model(dropping, views=True).parts
    assert [type(step.operation).__name__ for step in part.steps] == [
        "Rescaling",
        "RandomFlip",
        "Frozen",
    ]


def test_augmented_images_that_train_something_else_too_are_not_kept():
    """The network and the layer beside it would see two changes of one image."""
    inputs = keras.Input((4, 4, 1), dtype="uint8", name="image")
    pixels = flip()(inputs)
    trains = keras.layers.Dense(3)(keras.layers.Flatten()(pixels))
    both = keras.layers.Concatenate()([kf.freeze(backbone())(pixels), trains])
    assert split_model(fused(keras.Model(inputs, both)), views=True) is None


def test_networks_behind_one_augmentation_see_the_same_images():
    inputs = keras.Input((4, 4, 1), dtype="uint8", name="image")
    pixels = flip()(inputs)
    networks = [kf.freeze(backbone()), kf.freeze(backbone(2 * KERNEL, "other"))]
    # A layer that trains between them keeps them apart.
    outputs = [keras.layers.Dense(1)(network(pixels)) for network in networks]
    model = fused(keras.Model(inputs, keras.layers.Add()(outputs)))
    (part,) = split_model(model, views=True).parts
    assert len(part.outputs) == 2
    _, table, _, _ = prepared(model, 3)
    single, double = sorted((table[f"frozen.0.{i}"] for i in range(2)), key=np.sum)
    doubled = np.maximum(2 * (X["image"][:40].reshape(40, -1) @ KERNEL) + 1, 0)
    is_plain = (single == PLAIN[:40, None]).all(-1)
    np.testing.assert_array_equal((double == doubled[:, None]).all(-1), is_plain)
    assert 0 < is_plain[:, 1:].mean() < 1


def test_streamed_rows_are_read_once_for_all_views():
    streamed = {**TRAIN[0], "image": CountedRows(TRAIN[0]["image"])}
    _, table, _, _ = prepared(fused(), 3, x=streamed, held=None)
    # For digests, and for 160 views.
    assert streamed["image"].asked == [40, 40]
    _, expected, _, _ = prepared(fused(), 3, held=None)
    np.testing.assert_array_equal(of_frozen(table), of_frozen(expected))


def test_memory_counts_every_view(monkeypatch, computed):
    # 40 rows of 5 views and 20 of one, of 6 float32 each.
    limit = (40 * 5 + 20) * 6 * 4
    monkeypatch.setattr(frozen_features.IN_MEMORY, "limit", limit - 1)
    model = fused()
    with pytest.warns(UserWarning, match="60 rows in 220 views take .*`augmented_views=0` says"):
        assert prepared(model, 4)[0] is model
    assert not computed
    monkeypatch.setattr(frozen_features.IN_MEMORY, "limit", limit)
    assert prepared(model, 4)[0] is not model


def test_files_keep_views_for_later_processes(tmp_path, computed):
    kf.cache_features(branch(flip()), TRAIN[0]["image"], tmp_path, augmented_views=4, verbose=0)
    _, table, _, _ = prepared(fused(), 4, tmp_path, held=None)
    assert sum(computed) == 40 * 5
    assert isinstance(of_frozen(table), np.memmap)
    trained(fused(), feature_cache=tmp_path)
    assert sum(computed) == 40 * 5 + 20


def test_views_in_large_files_are_read_batch_by_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(training_rows, "MOST_BYTES", 0)
    _, table, _, _ = prepared(fused(), 4, tmp_path)
    rows = training_rows.training_rows(table, Y[:40], Y[:40], batch_size=10, seed=0)
    # Elsewhere Keras takes the rows of a memory map batch by batch.
    if keras.backend.backend() == "tensorflow":
        assert isinstance(rows["x"], keras.utils.PyDataset)
        assert rows["x"][0][0]["frozen.0.0"].shape == (10, 5, 6)
    histories = [trained(fused(), feature_cache=tmp_path)[1].history for _ in range(2)]
    assert histories[0] == histories[1]


def test_layers_that_are_not_run_do_not_hinder_compiling():
    """Keras compiles no model with XLA that holds a layer which turns or shifts images."""
    shift = keras.layers.RandomTranslation(0.2, 0.2, data_format="channels_last")
    rest, _, _, _ = prepared(fused(branch(shift)), 2)
    rest.compile("sgd", "mse", jit_compile=True)
    assert rest.jit_compile is True
    assert shift.supports_jit is False


def test_a_search_passes_views_on(computed):
    def image(**keywords):
        return branch(flip())

    hypermodel = kf.FusionHyperModel(
        {"image": image, "tabular": partial(kf.tabular_branch, 3)},
        task="binary",
        fusions="concat",
        fit_keywords={"augmented_views": 2},
    )
    hp = keras_tuner.HyperParameters()
    keywords = {"validation_data": HELD, "epochs": 1, "verbose": 0}
    for _ in range(2):
        hypermodel.fit(hp, hypermodel.build(hp), *TRAIN, **keywords)
    assert sum(computed) == 40 * 3 + 20


def test_seeds_differ_by_row_view_and_generator():
    rows = np.arange(48, dtype=np.uint8).reshape(3, 16)
    digests = view_digests(rows, 4)
    np.testing.assert_array_equal(digests[::4], rows)
    assert len(np.unique(digests, axis=0)) == 12
    seeds = view_seeds(digests, 2)
    assert seeds.shape == (12, 2, 2)
    assert len(np.unique(seeds.reshape(-1, 2), axis=0)) == 24
    assert seeds.min() >= 0


def test_wrong_arguments_are_told(tmp_path):
    for wrong in (True, 2.0, "2"):
        with pytest.raises(TypeError, match="`augmented_views` must be an int"):
            trained(fused(), augmented_views=wrong)
    with pytest.raises(ValueError, match="`augmented_views` must be 0 or more"):
        trained(fused(), augmented_views=-1)
    with pytest.raises(ValueError, match="`augmented_views=4` are kept features"):
        trained(fused(), feature_cache=False)
    with pytest.raises(ValueError, match="'image_branch' has none in sight"):
        kf.cache_features(branch(), X["image"], tmp_path, augmented_views=2)
    with pytest.raises(ValueError, match=r"RandomFlip.*`augmented_views=` keeps several views"):
        kf.cache_features(branch(flip()), X["image"], tmp_path)


ARGUMENTS = {
    "RandAugment": {},
    "RandomColorJitter": {"brightness_factor": 0.5, "contrast_factor": 0.5},
    "RandomErasing": {"factor": 1.0},
    "RandomFlip": {},
    "RandomGaussianBlur": {"factor": 1.0},
    "RandomPerspective": {},
    "RandomPosterization": {"factor": 4},
    "RandomShear": {"x_factor": 0.3},
    "RandomTranslation": {"height_factor": 0.3, "width_factor": 0.3},
    "RandomZoom": {"height_factor": 0.3},
    "Solarization": {"threshold_factor": 0.9},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_every_known_augmentation_gives_views(kind, tmp_path):
    """Plain images as they are; views that differ, and are found again in other batches."""
    keywords = ARGUMENTS.get(kind.__name__, {"factor": 0.9})
    layer = kind(**keywords, data_format="channels_last")
    inputs = keras.Input((8, 8, 3), name="image")
    branch = keras.Model(inputs, layer(inputs))
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype("float32")
    views = kf.cache_features(branch, images, tmp_path / "a", augmented_views=7, verbose=0)
    np.testing.assert_allclose(views[:, 0], images, atol=1e-3)
    assert len(np.unique(views.reshape(40, -1), axis=0)) > 8
    again = kf.cache_features(
        branch, images[3:], tmp_path / "b", augmented_views=7, batch_size=3, verbose=0
    )
    np.testing.assert_allclose(again, views[3:], atol=0.01)
