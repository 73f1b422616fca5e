"""Frozen parts run once: the same training, found again by content, finished after a kill."""

import hashlib
import itertools
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from feature_cases import HELD, TRAIN, CountedRows, X, Y

import kfusion as kf
from kfusion.frozen import feature_store, frozen_features
from kfusion.frozen.feature_store import digest_rows, even_batches
from kfusion.frozen.frozen_parts import split_model
from kfusion.frozen.part_rows import PartRows
from kfusion.frozen.told_code import is_array
from kfusion.layers import Frozen

pytestmark = pytest.mark.usefixtures("eagerly", "computed")


def backbone(seed=0, dropout=0.5):
    """Small whole numbers as weights, so that its sums are exact in whatever order."""
    inputs = keras.Input((4, 4, 1), name="image")
    hidden = keras.layers.Flatten()(keras.layers.Rescaling(2.0)(inputs))
    layer = keras.layers.Dense(6, activation="relu")
    hidden = keras.layers.Dropout(dropout)(layer(hidden))
    model = keras.Model(inputs, hidden, name="backbone")
    kernel = np.random.default_rng(seed).integers(-3, 4, (16, 6))
    layer.set_weights([kernel.astype("float32"), np.ones(6, "float32")])
    return model


def fused(branch=None, **keywords):
    branch = branch or kf.branch_from(backbone(), dtype="uint8")
    keras.utils.set_random_seed(1)
    branches = {"image": branch, "tabular": kf.tabular_branch(3, units=4, dropout=0.2)}
    return kf.build_fusion_model(branches, task="binary", dropout=0.3, head_units=8, **keywords)


def trained(model, feature_cache, **keywords):
    settings = {"validation_data": HELD, "epochs": 2, "batch_size": 20, "seed": 3}
    settings |= {"doctor": False, "verbose": 0, "feature_cache": feature_cache, **keywords}
    history = kf.fit(model, *TRAIN, task="binary", **settings)
    return model, history


def prepared(model, feature_cache="auto", x=X):
    """What is done before a training, without it."""
    return frozen_features.train_on_features(
        model, x, None, (), feature_cache=feature_cache, verbose=0
    )


def build_residual():
    keras.utils.set_random_seed(2)
    table = keras.Sequential(
        [keras.Input((3,), name="tabular"), keras.layers.Dense(1, activation="sigmoid")],
        name="table",
    )
    image = kf.build_unimodal_model(
        kf.branch_from(backbone(), dtype="uint8"), task="binary", name="image_model"
    )
    return kf.build_residual_model(
        {"image": image, "table": table}, task="binary", best="table", dropout=0.2
    )


def test_trains_to_the_same_bits(computed):
    """Where the sums of the frozen part are exact, nothing else may differ."""
    settings = {"auxiliary_heads": True, "modality_dropout": 0.4}
    (whole, history), (cut, same) = (
        trained(fused(**settings), feature_cache, balanced_batches=True, label_smoothing=0.1)
        for feature_cache in (False, "auto")
    )
    assert sum(computed) == 60
    assert same.history == history.history
    assert all(map(np.array_equal, cut.get_weights(), whole.get_weights()))
    np.testing.assert_array_equal(kf.predict(cut, X), kf.predict(whole, X))


def test_a_residual_fusion_trains_to_the_same_weights(computed):
    """To rounding: sums of other batch sizes are added up in another order."""
    models = [build_residual(), build_residual()]
    start = kf.evaluate(models[0], *HELD, task="binary")["auc"]
    for model, feature_cache in zip(models, (False, "auto"), strict=True):
        trained(model, feature_cache)
    assert sum(computed) == 2 * 60
    for ours, theirs in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert kf.evaluate(models[1], *HELD, task="binary")["auc"] >= start


class Watcher(keras.callbacks.Callback):
    """Looks, predicts and stops as users' callbacks do."""

    def on_epoch_end(self, epoch, logs=None):
        self.seen = self.model
        self.predicted = kf.predict(self.model, X)
        self.rate = float(self.model.optimizer.learning_rate)
        self.score = logs["val_auc"]
        self.model.stop_training = True


def test_callbacks_and_the_user_have_the_whole_model(tmp_path):
    watcher = Watcher()
    settings = {"callbacks": [watcher], "learning_rate_schedule": "constant"}
    model, history = trained(fused(), "auto", epochs=5, **settings)
    assert watcher.seen is model
    assert len(history.epoch) == 1
    assert watcher.score == history.history["val_auc"][0]
    assert watcher.rate == history.history["learning_rate"][0]
    np.testing.assert_array_equal(watcher.predicted, kf.predict(model, X))
    assert history.model is model
    assert model.history is history
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(kf.predict(again, X), kf.predict(model, X))
    before = model.get_layer("prediction").get_weights()[0].copy()
    x, y = TRAIN
    model.fit(x, y[:, None], epochs=1, batch_size=40, verbose=0)
    assert not np.array_equal(model.get_layer("prediction").get_weights()[0], before)


@pytest.mark.slow
def test_an_export_answers_as_the_model(tmp_path):
    model, _ = trained(fused(), "auto")
    kf.export_saved_model(model, tmp_path / "export")
    exported = kf.load_exported(tmp_path / "export")
    said = exported.predict_encoded(X)["probabilities"][:, 1]
    np.testing.assert_allclose(said, kf.predict(model, X)[:, 0], atol=1e-6)


def test_a_search_trial_and_another_fold_compute_only_new_rows(computed):
    prepared(fused())
    assert sum(computed) == 60
    # A backbone made anew, other rows to validate, in another order.
    order = np.random.default_rng(1).permutation(60)
    x = {name: values[order] for name, values in X.items()}
    _, inputs, held, _ = frozen_features.train_on_features(
        fused(), x, HELD, (), feature_cache="auto", verbose=0
    )
    assert sum(computed) == 60
    (features,) = (inputs[name] for name in inputs if name != "tabular")
    expected = kf.branch_from(backbone()).predict(x["image"].astype("float32"), verbose=0)
    np.testing.assert_array_equal(features, expected)
    assert len(held[0]["tabular"]) == 20
    x["image"][7] += 1
    prepared(fused(), x=x)
    assert sum(computed) == 61


def test_cross_validation_computes_each_row_once(computed):
    def fit(x, y):
        model = fused()
        kf.fit(
            model,
            x,
            y,
            task="binary",
            validation_data=None,
            epochs=1,
            batch_size=64,
            verbose=0,
            doctor=False,
        )
        return model

    kf.cross_validate(fit, X, Y, task="binary", folds=2, verbose=0)
    assert sum(computed) == 60


def test_files_are_shared_by_trainings_and_cache_features(tmp_path, computed):
    branch = kf.branch_from(backbone(), dtype="uint8")
    features = kf.cache_features(branch, X["image"], tmp_path, verbose=0)
    _, in_memory, _, _ = prepared(fused())
    assert sum(computed) == 120
    _, in_files, _, _ = prepared(fused(), tmp_path)
    assert sum(computed) == 120
    assert list(in_files) == list(in_memory)
    for name in in_files:
        np.testing.assert_array_equal(in_files[name], in_memory[name])
    np.testing.assert_array_equal(features, branch.predict(X["image"], verbose=0))
    assert isinstance(features, np.memmap)
    assert not features.flags.writeable


def test_what_is_too_large_for_memory_is_run_in_each_epoch(monkeypatch, computed):
    # 60 rows of 6 float32.
    monkeypatch.setattr(frozen_features.IN_MEMORY, "limit", 60 * 6 * 4 - 1)
    model = fused()
    with pytest.warns(
        UserWarning, match="60 rows take .* `feature_cache=True` keeps them in files"
    ):
        assert prepared(model)[0] is model
    assert not computed
    monkeypatch.setattr(frozen_features.IN_MEMORY, "limit", 60 * 6 * 4)
    assert prepared(model)[0] is not model
    assert sum(computed) == 60


def test_streamed_rows_are_read_in_parts_and_not_at_all_if_nothing_is_kept(monkeypatch, computed):
    streamed = {**X, "image": CountedRows(X["image"])}
    limit = frozen_features.IN_MEMORY.limit
    monkeypatch.setattr(frozen_features.IN_MEMORY, "limit", 0)
    with pytest.warns(UserWarning, match="is not kept"):
        prepared(fused(), x=streamed)
    assert streamed["image"].asked == []
    monkeypatch.setattr(frozen_features.IN_MEMORY, "limit", limit)
    _, inputs, _, _ = prepared(fused(), x=streamed)
    assert streamed["image"].asked == [60, 60]
    _, expected, _, _ = prepared(fused())
    assert sum(computed) == 60
    for name in expected:
        np.testing.assert_array_equal(inputs[name], expected[name])


def test_a_digest_is_of_one_row_in_all_arrays(monkeypatch):
    random = np.random.default_rng(0)
    arrays = [random.normal(size=(50, 4)), random.integers(0, 9, (50, 2, 3))]
    whole = digest_rows(arrays)
    expected = [
        hashlib.blake2b(a.tobytes() + b.tobytes(), digest_size=16).digest()
        for a, b in zip(*arrays, strict=True)
    ]
    assert [digest.tobytes() for digest in whole] == expected
    monkeypatch.setattr(feature_store, "CHUNK_BYTES", 200)
    np.testing.assert_array_equal(digest_rows([CountedRows(each) for each in arrays]), whole)


def test_a_batch_of_wide_layers_is_small(monkeypatch, computed):
    """A row is 4 x 4 numbers at its widest, given and taken: 128 bytes."""
    monkeypatch.setattr(frozen_features, "CALL_BYTES_ON_CPU", 128 * 15)
    monkeypatch.setattr(frozen_features, "CALL_BYTES_ELSEWHERE", 128 * 15)
    prepared(fused())
    assert computed == [15] * 4


@pytest.mark.parametrize("in_files", [False, True])
def test_half_precision_trains_to_the_same_bits(in_files, tmp_path, computed):
    """The policy advised for newer accelerators; its numbers have no place in NumPy's files."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        whole, cut = fused(), fused()
        trained(whole, False)
        trained(cut, tmp_path if in_files else "auto")
        branch = kf.branch_from(backbone(), dtype="uint8")
        features = kf.cache_features(branch, X["image"], tmp_path, verbose=0)
    finally:
        keras.config.set_dtype_policy(before)
    assert sum(computed) == (60 if in_files else 120)
    assert features.dtype == "bfloat16"
    expected = keras.ops.convert_to_numpy(branch(X["image"]))
    np.testing.assert_array_equal(features.view("uint16"), expected.view("uint16"))
    np.testing.assert_array_equal(kf.predict(cut, X), kf.predict(whole, X))


def test_what_was_used_longest_ago_goes_first(monkeypatch, computed):
    monkeypatch.setattr(frozen_features.IN_MEMORY, "limit", 2 * 60 * 6 * 4)
    models = [fused(kf.branch_from(backbone(seed), dtype="uint8")) for seed in range(3)]
    for number, rows in [(0, 60), (1, 60), (0, 0), (2, 60), (0, 0), (1, 60)]:
        computed.clear()
        prepared(models[number])
        assert sum(computed) == rows, number


def augmented():
    flip = keras.layers.RandomFlip(data_format="channels_last")
    return kf.image_branch((4, 4, 1), backbone=backbone(), trainable=False, augment=flip)


def with_dropout():
    inputs = keras.Input((4, 4, 1), dtype="uint8", name="image")
    model = backbone()
    model.trainable = False
    return keras.Model(inputs, model(keras.ops.cast(inputs, "float32")), name="image_branch")


def unfrozen():
    return kf.unfreeze(kf.branch_from(backbone(), dtype="uint8"), last=1)


def normalising():
    inputs = keras.Input((4, 4, 1), dtype="uint8", name="image")
    hidden = keras.layers.Flatten()(keras.layers.Rescaling(1.0)(inputs))
    hidden = keras.layers.BatchNormalization(center=False, scale=False)(hidden)
    return keras.Model(inputs, Frozen(keras.Sequential([keras.layers.Dense(2)]))(hidden))


@pytest.mark.parametrize("branch", [augmented, with_dropout, unfrozen, normalising])
def test_what_changes_in_training_is_refused(branch, tmp_path):
    with pytest.raises(ValueError, match=r"must be frozen, but in .* the layer .*(train|training)"):
        kf.cache_features(branch(), X["image"], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("branch", [augmented, unfrozen, normalising])
def test_what_changes_in_training_is_run_in_each_epoch(branch, computed):
    model = fused(branch())
    assert split_model(model) is None
    assert prepared(model)[0] is model
    assert not computed


def test_resized_images_are_kept_behind_the_network(computed):
    inputs = keras.Input((8, 8, 1), name="image")
    network = keras.Model(inputs, keras.layers.Conv2D(5, 3)(inputs))
    branch = kf.image_branch((4, 4, 1), backbone=network, trainable=False, resize=(8, 8))
    _, inputs, _, _ = prepared(fused(branch))
    assert sum(computed) == 60
    assert sorted(array.shape for array in inputs.values()) == [(60, 3), (60, 5)]


def test_what_is_frozen_in_front_of_dropout_is_kept():
    """Keras leaves Dropout on in what does not train: the cut is in front of it."""
    (part,) = split_model(fused(with_dropout())).parts
    assert [type(step.operation).__name__ for step in part.steps][-1] == "Dense"


@keras.saving.register_keras_serializable(package="tests")
class AlwaysNoisy(keras.layers.Layer):
    """Draws whatever the mode is."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, inputs):
        return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.seeds)


def noisy_branch():
    return ending_in(AlwaysNoisy())


def drawn(inputs):
    return inputs + keras.random.normal((6,))


@pytest.mark.parametrize(
    "noise",
    [
        AlwaysNoisy,
        lambda: keras.layers.Lambda(drawn, output_shape=(6,)),
        lambda: keras.layers.Dense(6, activation=drawn),
    ],
)
def test_what_always_draws_is_found_by_running_it(noise, tmp_path):
    with pytest.raises(ValueError, match="answers otherwise in training"):
        kf.cache_features(ending_in(noise()), X["image"], tmp_path, verbose=0)
    model = fused(ending_in(noise()))
    assert split_model(model) is not None
    assert prepared(model)[0] is model


def keys_of(model):
    rows = PartRows(split_model(model).parts[0], [X], [1])
    return rows.key.text, rows.digests(verbose=0).tobytes()


def rescaled(factor):
    inputs = keras.Input((4, 4, 1), dtype="uint8", name="image")
    pixels = keras.layers.Rescaling(factor)(inputs)
    return keras.Model(inputs, kf.freeze(backbone())(pixels), name="image_branch")


def test_keys_tell_weights_and_preprocessing_apart():
    def key(branch):
        return keys_of(fused(branch))[0]

    same = key(kf.branch_from(backbone(), dtype="uint8"))
    assert key(kf.branch_from(backbone(), dtype="uint8")) == same
    changed = backbone()
    kernel, bias = changed.layers[-2].get_weights()
    bias[3] += 1e-3
    changed.layers[-2].set_weights([kernel, bias])
    others = [kf.branch_from(changed, dtype="uint8"), rescaled(1.0), rescaled(1 + 1e-6)]
    keys = [same, *map(key, others)]
    assert all(a != b for a, b in itertools.combinations(keys, 2))


def times(factor):
    def scaled(inputs):
        return inputs * factor

    return scaled


FACTOR = 1.0
SCALE = times(1.0)


def scaled_by_global(inputs):
    return inputs * FACTOR


def scaled_by_helper(inputs):
    return SCALE(inputs)


def scaled_by_default(inputs, factor=1.0):
    return inputs * factor


@keras.saving.register_keras_serializable(package="tests")
class Scaled(keras.layers.Layer):
    """Has a factor that its config does not tell."""

    factor = 1.0

    def call(self, inputs):
        return inputs * self.factor


class Held:
    factor = 1.0


HELD_BY_OBJECT = Held()
OF_ITSELF = [1.0]
OF_ITSELF.append(OF_ITSELF)
MASKED = np.ma.masked_array([1.0], [True])


def scaled_by_what_holds_itself(inputs):
    return inputs * OF_ITSELF[0]


def scaled_by_masked(inputs):
    return inputs * MASKED.sum()


def scaled_by_object(inputs):
    return inputs * HELD_BY_OBJECT.factor


def scaled_by_module(inputs):
    return sys.modules[__name__].FACTOR * inputs


def ending_in(operation):
    """A frozen branch whose values a user's function or layer changes at the end."""
    inputs = keras.Input((4, 4, 1), name="image")
    return kf.branch_from(keras.Model(inputs, operation(backbone()(inputs))), dtype="uint8")


def with_activation(function):
    layer = keras.layers.Dense(6, activation=function, kernel_initializer="identity")
    return ending_in(layer)


def with_lambda(function):
    return ending_in(keras.layers.Lambda(function))


def features_of(branch):
    _, inputs, _, _ = prepared(fused(branch))
    (features,) = (inputs[name] for name in inputs if name != "tabular")
    return features


@pytest.mark.parametrize("with_function", [with_activation, with_lambda])
def test_functions_of_one_name_do_not_share_features(with_function):
    """Closures are one name and one code, and differ by what they close over."""
    once = features_of(with_function(times(1.0)))
    np.testing.assert_array_equal(features_of(with_function(times(7.0))), 7 * once)


@pytest.mark.parametrize(
    ("function", "name", "changed"),
    [
        (scaled_by_global, "FACTOR", 7.0),
        (scaled_by_helper, "SCALE", times(7.0)),
        (scaled_by_default, "scaled_by_default.__defaults__", (7.0,)),
    ],
)
def test_what_a_function_refers_to_is_in_the_key(function, name, changed, monkeypatch, computed):
    branch = with_activation(function)
    once = features_of(branch)
    np.testing.assert_array_equal(features_of(with_activation(function)), once)
    assert sum(computed) == 60
    monkeypatch.setattr(f"{__name__}.{name}", changed)
    np.testing.assert_array_equal(features_of(branch), 7 * once)


def test_an_attribute_that_no_config_tells_is_in_the_key():
    once, sevenfold = Scaled(), Scaled()
    sevenfold.factor = 7.0
    features = features_of(ending_in(once))
    np.testing.assert_array_equal(features_of(ending_in(sevenfold)), 7 * features)


@keras.saving.register_keras_serializable(package="tests")
class Outer(keras.layers.Layer):
    """Holds another layer, a list and a function, none of which its config tells."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.inner = OwnDense(6, kernel_initializer="identity")
        self.inner.factor = [factor]
        self.steps = [times(1.0)]

    def call(self, inputs):
        for step in self.steps:
            inputs = step(inputs)
        return self.inner(inputs)


@keras.saving.register_keras_serializable(package="tests")
class OwnDense(keras.layers.Dense):
    """A layer of Keras with more to it."""

    factor = (1.0,)

    def call(self, inputs):
        return super().call(inputs) * self.factor[0]


@keras.saving.register_keras_serializable(package="tests")
class OwnModel(keras.Model):
    """Has no graph."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.outer = Outer()

    def call(self, inputs):
        return self.outer(inputs)


def inner_factor(layer):
    layer.inner.factor = [7.0]


def added_step(layer):
    layer.steps.append(times(7.0))


def changed_step(layer):
    layer.steps[0] = times(7.0)


@pytest.mark.parametrize("change", [inner_factor, added_step, changed_step])
@pytest.mark.parametrize("in_model", [False, True])
def test_users_layers_are_found_again_until_they_change(change, in_model, computed):
    def branch(change=None):
        operation = OwnModel() if in_model else Outer()
        if change is not None:
            change(operation.outer if in_model else operation)
        return ending_in(operation)

    once = features_of(branch())
    np.testing.assert_array_equal(features_of(branch()), once)
    assert sum(computed) == 60
    np.testing.assert_array_equal(features_of(branch(change)), 7 * once)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (scaled_by_object, "Held, of which nobody can tell"),
        (scaled_by_module, "module 'sys'"),
        (scaled_by_what_holds_itself, "contain themselves"),
        (scaled_by_masked, "MaskedArray, of which nobody can tell"),
    ],
)
def test_what_cannot_be_told_is_run_in_each_epoch_and_said(function, why, tmp_path, computed):
    for feature_cache in ("auto", tmp_path):
        model = fused(with_activation(function))
        with pytest.warns(UserWarning, match=f"frozen part is run in each epoch.*{why}"):
            assert prepared(model, feature_cache)[0] is model
    with pytest.raises(ValueError, match=f"cannot be cached: .*{why}"):
        kf.cache_features(with_activation(function), X["image"], tmp_path, verbose=0)
    assert not computed
    assert not list(tmp_path.iterdir())


class MinusBatchMean(keras.layers.Layer):
    def call(self, inputs):
        return inputs - keras.ops.mean(inputs, axis=0)


@pytest.mark.parametrize(
    "ending",
    [
        MinusBatchMean(),
        lambda features: features - keras.ops.mean(features, axis=0),
        lambda features: features / keras.ops.max(features),
    ],
)
def test_what_looks_at_other_rows_of_a_batch_is_run_in_each_epoch(ending, tmp_path):
    whole = ending_in(keras.layers.Identity())
    behind = keras.Model(whole.input, ending(whole.output), name="own")
    for branch in (behind, ending_in(ending)):
        with pytest.raises(ValueError, match="depends on the rows beside it"):
            kf.cache_features(branch, X["image"], tmp_path, verbose=0)
        model = fused(branch)
        assert split_model(model) is not None
        assert prepared(model)[0] is model


def test_operations_on_each_row_alone_are_kept(tmp_path):
    whole = ending_in(keras.layers.Identity())
    scaled = whole.output / (1 + keras.ops.max(whole.output, axis=-1, keepdims=True))
    branch = keras.Model(whole.input, scaled, name="own")
    found = kf.cache_features(branch, X["image"], tmp_path, verbose=0)
    np.testing.assert_allclose(found, branch.predict(X["image"], verbose=0), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="has tensors of text")
def test_tensors_of_text_are_no_numbers():
    text, numbers = (keras.ops.convert_to_tensor(value) for value in (["a"], [1.0]))
    assert not is_array(text)
    assert is_array(numbers)


def test_what_was_refused_under_a_name_is_said(tmp_path):
    model = fused(noisy_branch())
    with pytest.warns(UserWarning, match="run in each epoch.*answers otherwise in training"):
        assert prepared(model, tmp_path)[0] is model


@pytest.mark.parametrize("library", [kf, keras, sys.modules[keras.backend.backend()]])
def test_another_version_of_a_library_is_another_key(library, monkeypatch):
    model = fused()
    before = keys_of(model)[0]
    monkeypatch.setattr(library, "__version__", "0.0.0")
    assert keys_of(model)[0] != before


def test_names_of_layers_at_any_depth_count_for_nothing():
    """Keras counts them up, so that each network made anew has others."""

    def branch():
        inputs = keras.Input((4, 4, 1), name="image")
        rows = keras.layers.Reshape((4, 4))(inputs)
        row = keras.Input((4,))
        dense = keras.layers.Dense(2, kernel_initializer="ones")
        inner = keras.Model(row, keras.layers.Add()([dense(row), dense(row)]))
        hidden = keras.layers.TimeDistributed(inner)(rows)
        hidden = keras.layers.TimeDistributed(keras.layers.Dense(3, kernel_initializer="ones"))(
            hidden
        )
        return keras.Model(inputs, keras.layers.Flatten()(hidden))

    first, second = (kf.branch_from(branch(), dtype="uint8") for _ in range(2))
    assert keys_of(fused(first)) == keys_of(fused(second))


def test_a_changed_row_is_another_set_of_rows(tmp_path):
    branch = kf.freeze(backbone())
    first = kf.cache_features(branch, X["image"], tmp_path, verbose=0)
    changed = X["image"].copy()
    changed[5] = 0
    second = kf.cache_features(branch, changed, tmp_path, verbose=0)
    assert first.filename != second.filename
    assert np.flatnonzero((first != second).any(axis=1)).tolist() == [5]


KILLED = """
import os, sys
import numpy as np
from kfusion.frozen.feature_store import FeatureFiles, Kind, digest_rows

rows = np.arange(40.0).reshape(10, 4)

def compute(batches):
    for positions in batches:
        print(positions.tolist(), flush=True)
        if 6 in positions and sys.argv[2] == "stay":
            open(sys.argv[1] + "/waiting", "w").close()
            import time
            time.sleep(600)
        yield [rows[positions] * 2, rows[positions].sum(axis=1)]

files = FeatureFiles(sys.argv[1])
kinds = [Kind((4,), "float64"), Kind((), "float64")]
doubled, sums = files.features(
    "key", digest_rows([rows]), kinds, compute, batch_size=3, verbose=0
)
assert np.array_equal(doubled, rows * 2) and np.array_equal(sums, rows.sum(axis=1))
"""


def test_after_a_kill_only_the_missing_batches_are_computed(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    process = subprocess.Popen([*command, "stay"], stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "waiting").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.communicate()[0].splitlines() == ["[0, 1, 2]", "[3, 4, 5]", "[6, 7, 8]"]
    # A batch that was cut off in the middle of a row.
    (unfinished,) = tmp_path.glob("key/.*.unfinished")
    with (unfinished / "0.npy").open("ab") as file:
        file.write(b"half a row")
    again = subprocess.run([*command, "go"], capture_output=True, text=True, check=True)
    assert again.stdout.splitlines() == ["[6, 7]", "[8, 9]"]
    last = subprocess.run([*command, "go"], capture_output=True, text=True, check=True)
    assert last.stdout == ""


def test_no_batch_is_mostly_filled_up():
    sizes = [len(batch) for batch in even_batches(np.arange(1000), 256)]
    assert sizes == [250] * 4
    assert [batch.tolist() for batch in even_batches(np.arange(3, 8), 3)] == [[3, 4, 5], [6, 7]]
    assert even_batches(np.arange(0), 3) == []


def test_wrong_arguments_are_told(tmp_path):
    with pytest.raises(TypeError, match="`branch` must be a keras.Model"):
        kf.cache_features("backbone", X["image"], tmp_path)
    with pytest.raises(ValueError, match="must be frozen.*'dense.*has weights that train"):
        kf.cache_features(backbone(), X["image"], tmp_path)
    with pytest.raises(TypeError, match="`feature_cache` must be"):
        prepared(fused(), 3)
