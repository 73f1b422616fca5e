"""A model for inference answers as the trained one, with fewer steps and no parts for training."""

import keras
import numpy as np
import pytest
from scipy.special import erfinv
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from kfusion import (
    build_fusion_model,
    build_unimodal_model,
    freeze,
    image_branch,
    inference_model,
    sequence_branch,
    tabular_branch,
    task,
    tree_ensemble,
)
from kfusion.exports.joined_trees import JoinedTrees
from kfusion.layers import NormalizedConv, NormalizedDense
from kfusion.layers.inverse_error import inverse_error

pytestmark = pytest.mark.usefixtures("eagerly")
LAYERS = keras.layers
SHAPE = (9, 8, 3)
CLASSES = ("no", "perhaps", "yes")


@pytest.fixture(autouse=True)
def same_weights():
    keras.utils.set_random_seed(0)


def move_off_the_start(model, seed=0):
    """Weights and statistics as after a training, none of them where it started."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if not weight.dtype.startswith("float"):
            continue
        moved = np.asarray(weight) + generator.normal(scale=0.1, size=weight.shape)
        weight.assign(np.abs(moved) + 0.1 if "variance" in weight.path else moved)
    return model


def ask(model, x):
    if isinstance(x, dict):
        x = {tensor.name: x[tensor.name] for tensor in model.inputs}
    outputs = model(x, training=False)
    return np.asarray(outputs["prediction"] if isinstance(outputs, dict) else outputs)


def check_equal(model, x):
    """Compares answers with those of the model for inference, which is returned."""
    made = inference_model(model)
    expected = ask(model, x)
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(ask(made, x), expected, rtol=0, atol=3e-6 * np.abs(expected).max())
    return made


def kinds_of(model):
    """Names of the classes of all layers, models within the model opened."""
    kinds = []
    for layer in model.layers:
        kinds += kinds_of(layer) if isinstance(layer, keras.Model) else [type(layer).__name__]
    return kinds


def rows_of(count=7, seed=0):
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(count, 4)).astype("float32")
    table[0, 0] = np.nan
    return {
        "image": generator.integers(1, 256, size=(count, *SHAPE), dtype="uint8"),
        "tabular": table,
    }


def normalization(mean, spread, **weights):
    """Batch normalisation of one channel that divides by `spread` exactly."""
    layer = LAYERS.BatchNormalization(
        epsilon=0.001, center="beta" in weights, scale="gamma" in weights
    )
    layer.build((None, 1))
    values = {"moving_mean": mean, "moving_variance": spread**2 - 0.001, **weights}
    for name, value in values.items():
        getattr(layer, name).assign([value])
    return layer


class TestWorkedByHand:
    def test_a_normalisation_behind_a_dense_layer(self):
        model = keras.Sequential(
            [keras.Input((1,)), LAYERS.Dense(1), normalization(3, 2, gamma=6, beta=5)]
        )
        model.layers[0].set_weights([np.array([[2.0]]), np.array([1.0])])
        # ((2x + 1) - 3) / 2 * 6 + 5
        (dense,) = inference_model(model).layers[1:]
        np.testing.assert_allclose([np.ravel(each) for each in dense.get_weights()], [[6], [-1]])

    def test_a_normalisation_in_front_of_a_dense_layer(self):
        model = keras.Sequential([keras.Input((1,)), normalization(1, 2), LAYERS.Dense(1, "relu")])
        model.layers[1].set_weights([np.array([[4.0]]), np.array([1.0])])
        # 4 * (x - 1) / 2 + 1
        (dense,) = inference_model(model).layers[1:]
        np.testing.assert_allclose([np.ravel(each) for each in dense.get_weights()], [[2], [-1]])
        assert dense.activation is keras.activations.relu

    def test_a_regressions_scale_becomes_part_of_its_head(self):
        made = task("regression", y=[1e5, 2e5, 4e5])
        model = move_off_the_start(build_unimodal_model(tabular_branch(4, units=4), task=made))
        assert "Rescaling" not in kinds_of(check_equal(model, rows_of()))

    def test_zeros_around_an_image_are_not_shifted(self):
        model = keras.Sequential(
            [
                keras.Input((5, 4, 2)),
                LAYERS.Rescaling(1 / 127.5, offset=-1.0),
                LAYERS.Conv2D(3, 3, padding="same", activation="relu"),
                LAYERS.GlobalAveragePooling2D(),
            ]
        )
        images = np.random.default_rng(0).integers(256, size=(3, 5, 4, 2)).astype("float32")
        check_equal(move_off_the_start(model), images)

    @pytest.mark.parametrize(
        "layer",
        [
            LAYERS.Conv2D(4, 3, strides=2, use_bias=False),
            LAYERS.Conv2D(4, 1, padding="same"),
            LAYERS.Conv2D(4, 3, padding="same", groups=2),
            LAYERS.DepthwiseConv2D(3, depth_multiplier=2),
            LAYERS.DepthwiseConv2D(3, padding="same"),
        ],
        ids=lambda layer: type(layer).__name__,
    )
    def test_convolutions_between_normalisations(self, layer):
        model = keras.Sequential(
            [
                keras.Input((6, 5, 2)),
                LAYERS.BatchNormalization(),
                type(layer).from_config(layer.get_config()),
                LAYERS.BatchNormalization(),
                LAYERS.GlobalAveragePooling2D(),
            ]
        )
        images = np.random.default_rng(0).normal(size=(3, 6, 5, 2)).astype("float32")
        made = check_equal(move_off_the_start(model), images)
        assert kinds_of(made).count("BatchNormalization") == 0


class TestWholeModels:
    @pytest.mark.parametrize("fusion", ["concat", "gated", "low_rank", "daft"])
    def test_a_fused_model_loses_all_that_is_for_training(self, fusion):
        model = build_fusion_model(
            {
                "image": image_branch(SHAPE, units=6, dropout=0.2, augment=True),
                "tabular": tabular_branch(4, units=6, dropout=0.3),
            },
            task=task("multiclass", class_names=CLASSES),
            fusion=fusion,
            dropout=0.3,
            auxiliary_heads=True,
            modality_dropout=None if fusion == "daft" else 0.5,
            gradient_scales=True,
        )
        before = kinds_of(model)
        made = check_equal(move_off_the_start(model), rows_of())
        gone = {"GradientScale", "ModalityDropout", "NormalizedConv", "NormalizedDense"}
        gone |= {"BatchNormalization", "RandomFlip", "RandomTranslation"}
        assert not gone & set(kinds_of(made))
        assert kinds_of(model) == before
        assert [output.shape for output in made.outputs] == [(None, 3)]

    def test_frozen_parts_are_opened(self):
        inner = keras.Sequential(
            [keras.Input((4,)), NormalizedDense(5), LAYERS.Dropout(0.5), LAYERS.Dense(3)],
            name="inner",
        )
        inputs = keras.Input((4,), name="tabular")
        answer = LAYERS.Dense(1, "sigmoid")(freeze(move_off_the_start(inner))(inputs))
        model = keras.Model({"tabular": inputs}, answer)
        x = {"tabular": np.random.default_rng(0).normal(size=(4, 4)).astype("float32")}
        assert set(kinds_of(check_equal(model, x))) == {"InputLayer", "Dense"}

    @pytest.mark.parametrize("make", [lambda inner: inner, freeze], ids=["inner", "frozen"])
    @pytest.mark.parametrize("answers", [["wide", "narrow"], ["narrow"]], ids=["two", "one"])
    def test_models_within_that_answer_by_name(self, make, answers):
        inputs = keras.Input((4,))
        hidden = NormalizedDense(5)(inputs)
        widths = {"wide": 3, "narrow": 2}
        inner = keras.Model(inputs, {name: LAYERS.Dense(widths[name])(hidden) for name in answers})
        inputs = keras.Input((4,), name="tabular")
        found = make(inner)(inputs)
        joined = LAYERS.Concatenate()([*found.values(), inputs])
        model = move_off_the_start(keras.Model({"tabular": inputs}, LAYERS.Dense(1)(joined)))
        x = {"tabular": np.random.default_rng(0).normal(size=(4, 4)).astype("float32")}
        assert "NormalizedDense" not in kinds_of(check_equal(model, x))

    def test_a_list_of_answers_of_a_model_within(self):
        inputs = keras.Input((4,))
        inner = keras.Model(inputs, [NormalizedDense(3)(inputs), LAYERS.Dense(2)(inputs)])
        inputs = keras.Input((4,), name="tabular")
        first, second = inner(inputs)
        answer = LAYERS.Dense(1)(LAYERS.Concatenate()([second, first]))
        model = move_off_the_start(keras.Model({"tabular": inputs}, answer))
        x = {"tabular": np.random.default_rng(0).normal(size=(4, 4)).astype("float32")}
        assert "NormalizedDense" not in kinds_of(check_equal(model, x))

    def test_sequences_with_steps_that_are_not_there(self):
        branch = sequence_branch((12, 2), units=4, dropout=0.3)
        model = move_off_the_start(build_unimodal_model(branch, task="binary", head_units=4))
        steps = np.random.default_rng(0).normal(size=(5, 12, 2)).astype("float32")
        steps[:3, 7:] = np.nan
        made = check_equal(model, {branch.inputs[0].name: steps})
        assert "MaskedConv" not in kinds_of(made)

    def test_what_is_called_twice_or_masked_or_in_half_precision_stays(self):
        shared = NormalizedDense(3)
        inputs = keras.Input((3,))
        twice = move_off_the_start(keras.Model(inputs, shared(shared(inputs))))
        x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
        assert "NormalizedDense" in kinds_of(check_equal(twice, x))
        tokens = keras.Sequential(
            [
                keras.Input((4,), dtype="int32"),
                LAYERS.Embedding(5, 3, mask_zero=True),
                LAYERS.Dropout(0.5),
                LAYERS.GlobalAveragePooling1D(),
            ]
        )
        ids = np.array([[1, 2, 0, 0], [3, 4, 1, 0]], "int32")
        check_equal(move_off_the_start(tokens), ids)
        half = keras.Sequential([keras.Input((8, 8, 2)), NormalizedConv(2, dtype="mixed_float16")])
        assert "NormalizedConv" in kinds_of(inference_model(half))

    def test_the_trained_model_stays_as_it_was(self, tmp_path):
        model = move_off_the_start(
            build_unimodal_model(tabular_branch(4, units=4), task="binary", head_units=4)
        )
        x, names = rows_of(), [layer.name for layer in model.layers]
        before = ask(model, x)
        inference_model(model)
        inference_model(model)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert [layer.name for layer in again.layers] == names
        np.testing.assert_array_equal(ask(again, x), before)


def draw_table(rows, seed, codes):
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(rows, 5)).astype("float32")
    table[generator.random(table.shape) < 0.15] = np.nan
    table[:, 3] = generator.integers(codes, size=rows)
    table[:, 4] = generator.integers(3, size=rows)
    return table


def fit_folds(kind):
    """Trees of folds that differ in rounds, depth and the categories that they have met."""
    fitted = []
    for fold in range(3):
        table = draw_table(150, fold, 4 + 3 * fold)
        y = 2 * np.nan_to_num(table[:, 0]) + table[:, 3] % 3 + np.isnan(table[:, 1])
        make = HistGradientBoostingClassifier
        if kind == "regression":
            make = HistGradientBoostingRegressor
        else:
            y = np.clip(y, 0, 1 if kind == "binary" else 2).astype(int)
        settings = {"max_iter": 3 + 2 * fold, "max_leaf_nodes": 5 + fold, "min_samples_leaf": 5}
        with threadpool_limits(1):
            fitted.append(make(categorical_features=[3, 4], **settings).fit(table, y))
    return fitted


class TestTrees:
    @pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
    def test_folds_joined_give_the_mean_of_scikit_learns_answers(self, kind):
        fitted = fit_folds(kind)
        # Codes that no fold has met, or some only.
        table = draw_table(60, 9, 14)
        if kind == "regression":
            expected = np.mean([each.predict(table) for each in fitted], axis=0)[:, None]
        else:
            expected = np.mean([each.predict_proba(table) for each in fitted], axis=0)
            expected = expected[:, 1:] if kind == "binary" else expected
        joined = JoinedTrees([tree_ensemble(each) for each in fitted])
        np.testing.assert_allclose(np.asarray(joined(table)), expected, rtol=1e-6, atol=1e-6)

    @pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's optimizer")
    def test_missing_values_go_the_same_way_in_an_optimised_graph(self):
        import tensorflow as tf

        tf.config.run_functions_eagerly(False)
        try:
            joined = JoinedTrees([tree_ensemble(each) for each in fit_folds("binary")])
            table = draw_table(60, 9, 14)
            np.testing.assert_allclose(tf.function(joined)(table), joined(table), atol=1e-6)
        finally:
            tf.config.run_functions_eagerly(True)

    def test_models_of_one_member_are_joined(self):
        inputs = keras.Input((5,), name="tabular")
        folds = []
        for number, each in enumerate(fit_folds("binary")):
            given = keras.Input((5,), name="tabular")
            folds.append(
                keras.Model({"tabular": given}, tree_ensemble(each)(given), name=f"f{number}")
            )
        mean = LAYERS.Average()([fold({"tabular": inputs}) for fold in folds])
        model = keras.Model({"tabular": inputs}, mean)
        made = check_equal(model, {"tabular": draw_table(30, 9, 14)})
        assert kinds_of(made) == ["InputLayer", "JoinedTrees"]


def test_the_inverse_error_function_is_scipys():
    values = np.linspace(-0.9974, 0.9974, 4001).astype("float32")
    found = np.asarray(inverse_error(keras.ops.convert_to_tensor(values)))
    np.testing.assert_allclose(found, erfinv(values.astype(float)), rtol=5e-7, atol=1e-7)
