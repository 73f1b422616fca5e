"""What the layers compute, against numbers worked out elsewhere."""

import keras
import numpy as np
import pytest
import scipy.ndimage
from keras import ops

from kfusion import layers

EPSILON = 1e-3  # of Keras' batch normalisation
FRESH = 1 / np.sqrt(1 + EPSILON)  # what it multiplies by before its first training step


def vectors(*widths, rows=7, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(rows, width)).astype("float32") for width in widths]


def relu(values):
    return np.maximum(values, 0)


def by_name(layer):
    """A layer's weights by the end of their path, such as "gate/kernel"."""
    return {"/".join(w.path.split("/")[-2:]): np.asarray(w) for w in layer.weights}


class TestNumberScaling:
    def test_scales_marks_and_fills_as_by_hand(self):
        layer = layers.NumberScaling([10, 0, 5], [2, 4, 0], flagged=[0, 2], limit=0)
        got = layer(np.array([[14, 2, 7], [np.nan, -4, np.nan]], "float32"))
        np.testing.assert_allclose(got, [[2, 0.5, 0, 0, 0], [0, -1, 0, 1, 1]])

    def test_an_outlier_keeps_its_side_but_never_exceeds_the_limit(self):
        layer = layers.NumberScaling([0.0], [1.0], limit=3)
        got = np.asarray(layer(np.array([[-1e9], [-3], [0.1], [4], [1e30]], "float32")))[:, 0]
        assert np.all(np.abs(got) <= 3)
        assert np.all(np.diff(got) > -1e-6)
        assert got[[0, 4]] == pytest.approx([-3, 3])
        # 4 / sqrt(1 + (4 / 3)**2) = 4 / (5 / 3)
        assert got[[1, 3]] == pytest.approx([-3 / np.sqrt(2), 2.4])
        assert got[2] == pytest.approx(0.1, abs=1e-4)

    def test_raw_numbers_survive_half_precision(self):
        layer = layers.NumberScaling([1e6], [10.0], limit=0, dtype="mixed_float16")
        got = layer(np.array([[1_000_010], [999_995]], "float32"))
        np.testing.assert_allclose(got, [[1], [-0.5]])

    def test_scale_lists_must_be_equally_long(self):
        with pytest.raises(ValueError, match="equally long. Received: 2 and 1"):
            layers.NumberScaling([1, 2], [1])


class TestEdgeMagnitude:
    @pytest.mark.parametrize("channels", [1, 3, 5])
    def test_equals_scipys_sobel_at_every_pixel(self, channels):
        images = np.random.default_rng(0).integers(256, size=(2, 7, 9, channels), dtype="uint8")
        got = np.asarray(layers.EdgeMagnitude(scale=1.0)(images))
        for image, edges in zip(images, got, strict=True):
            grey = image.astype("float64").mean(axis=-1)
            sides = [scipy.ndimage.sobel(grey, axis, mode="nearest") for axis in (0, 1)]
            np.testing.assert_allclose(edges[..., 0], np.hypot(*sides), rtol=1e-5, atol=1e-3)

    def test_the_sharpest_edge_of_an_8_bit_image_is_where_the_page_says(self):
        image = np.zeros((1, 8, 8, 1), "uint8")
        image[:, :, 4:] = 255
        assert float(np.max(layers.EdgeMagnitude(scale=1.0)(image))) == pytest.approx(4 * 255)
        assert float(np.max(layers.EdgeMagnitude()(image))) == pytest.approx(4)

    def test_the_largest_magnitude_is_about_1140(self):
        corners = np.random.default_rng(0).integers(2, size=(2000, 3, 3, 1)) * 255
        largest = np.max(layers.EdgeMagnitude(scale=1.0)(corners.astype("uint8"))[:, 1, 1])
        assert largest == pytest.approx(255 * np.sqrt(20), abs=1)


class TestApplicationPreprocessing:
    @pytest.mark.parametrize(
        ("application", "module"),
        [
            ("VGG16", keras.applications.vgg16),  # caffe: BGR, means taken away
            ("ResNet50", keras.applications.resnet),
            ("MobileNetV2", keras.applications.mobilenet_v2),  # tf: -1 to 1
            ("DenseNet121", keras.applications.densenet),  # torch: by mean and deviation
            ("EfficientNetB0", keras.applications.efficientnet),  # none
        ],
    )
    def test_equals_the_applications_own(self, application, module):
        images = np.random.default_rng(0).integers(256, size=(2, 4, 5, 3), dtype="uint8")
        got = layers.ApplicationPreprocessing(application)(images)
        expected = module.preprocess_input(images.astype("float32"), data_format="channels_last")
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)

    def test_an_unknown_application_is_refused_with_the_names_there_are(self):
        with pytest.raises(ValueError, match=r"no application 'VGG61'.*'VGG16'"):
            layers.ApplicationPreprocessing("VGG61")


class TestCategoryEmbedding:
    def test_puts_each_columns_vector_side_by_side(self):
        layer = layers.CategoryEmbedding([3, 5])
        got = layer(np.array([[2, 4], [0, 1]], "float32"))
        first, second = (np.asarray(weight) for weight in layer.weights)
        np.testing.assert_array_equal(got, np.hstack([first[[2, 0]], second[[4, 1]]]))

    def test_codes_above_2048_survive_half_precision(self):
        layer = layers.CategoryEmbedding([5000], dtype="mixed_float16")
        got = np.asarray(layer(np.array([[4098], [4099]], "float32")))
        assert not np.array_equal(got[0], got[1])


class TestNormalizedDense:
    def test_is_a_normalised_product_then_relu(self):
        (x,) = vectors(4)
        layer = layers.NormalizedDense(3)
        got = layer(x)
        np.testing.assert_allclose(
            got, relu(x @ by_name(layer)["dense/kernel"] * FRESH), rtol=1e-5, atol=1e-6
        )

    def test_gives_mean_0_and_deviation_1_in_training_whatever_the_range(self):
        (x,) = vectors(4, rows=500)
        got = np.asarray(layers.NormalizedDense(3, activation="linear")(1000 * x, training=True))
        np.testing.assert_allclose(got.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(got.std(axis=0), 1, atol=1e-2)


class TestConcatFusion:
    def test_brings_inputs_of_different_range_to_one(self):
        small, large = vectors(2, 3, rows=500)
        got = np.asarray(layers.ConcatFusion()([0.01 * small + 5, 1000 * large], training=True))
        np.testing.assert_allclose(got.mean(axis=0), 0, atol=1e-3)
        assert np.all(got.std(axis=0)[2:] == pytest.approx(1, abs=1e-2))

    def test_without_normalisation_only_concatenates(self):
        pair = vectors(2, 3)
        np.testing.assert_array_equal(layers.ConcatFusion(normalize=False)(pair), np.hstack(pair))


class TestMultiplyFusion:
    def test_starts_as_the_gated_side_alone(self):
        first, second, third = vectors(4, 2, 3)
        layer = layers.MultiplyFusion()
        got = layer([first, second, third])
        alone = relu(first @ by_name(layer)["dense/kernel"] * FRESH)
        np.testing.assert_allclose(got, alone, rtol=1e-5, atol=1e-6)

    def test_multiplies_by_twice_the_sigmoid_of_every_gate(self):
        inputs = vectors(4, 2, 3)
        layer = layers.MultiplyFusion(units=5, activation="linear")
        layer(inputs)
        for gate in layer._gates:
            kernel, bias = vectors(5, 5, rows=gate.kernel.shape[0])
            gate.set_weights([kernel, bias[0]])
        w = by_name(layer)
        expected = inputs[0] @ w["dense/kernel"] * FRESH
        for i in (1, 2):
            scores = inputs[i] * FRESH @ w[f"gate_{i}/kernel"] + w[f"gate_{i}/bias"]
            expected = expected * 2 / (1 + np.exp(-scores))
        np.testing.assert_allclose(layer(inputs), expected, rtol=1e-4, atol=1e-5)

    def test_an_activation_that_would_close_the_gated_side_is_refused(self):
        with pytest.raises(ValueError, match='must be "relu" or "linear". Received: \'sigmoid\''):
            layers.MultiplyFusion(activation="sigmoid")


class TestWeightedFusion:
    @pytest.mark.parametrize("per_unit", [False, True])
    def test_starts_as_the_mean_of_the_branches(self, per_unit):
        inputs = vectors(4, 2, 3)
        layer = layers.WeightedFusion(units=5, per_unit=per_unit)
        got = layer(inputs)
        projections = [p._dense.kernel.numpy() for p in layer._projections]
        pairs = zip(inputs, projections, strict=True)
        mean = np.mean([features @ kernel * FRESH for features, kernel in pairs], axis=0)
        np.testing.assert_allclose(got, relu(mean), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize(("per_unit", "width"), [(False, 1), (True, 5)])
    def test_its_weights_sum_to_1_over_the_branches(self, per_unit, width):
        layer = layers.WeightedFusion(units=5, per_unit=per_unit)
        layer(vectors(4, 2, 3))
        layer._scores.assign(np.random.default_rng(0).normal(size=(3, width)))
        weights = np.asarray(layer.weights_per_branch)
        assert weights.shape == (3, width)
        assert np.all(weights > 0)
        np.testing.assert_allclose(weights.sum(axis=0), 1, rtol=1e-6)


class TestGatedFusion:
    def test_two_branches_are_the_papers_sigmoid_form(self):
        # Arevalo et al., 2017, equation 2: h = z * h_1 + (1 - z) * h_2, z = sigmoid(W [x_1, x_2]).
        inputs = vectors(4, 2)
        layer = layers.GatedFusion(units=3)
        got = layer(inputs)
        w = by_name(layer)
        kernels = [p._dense.kernel.numpy() for p in layer._projections]
        pairs = zip(inputs, kernels, strict=True)
        hidden = [np.tanh(features @ kernel * FRESH) for features, kernel in pairs]
        scores = np.hstack(inputs) * FRESH @ w["gate/kernel"] + w["gate/bias"]
        z = 1 / (1 + np.exp(scores[:, 3:] - scores[:, :3]))
        np.testing.assert_allclose(got, z * hidden[0] + (1 - z) * hidden[1], rtol=1e-4, atol=1e-6)

    def test_gates_sum_to_1_over_the_branches_for_each_row(self):
        inputs = vectors(4, 2, 3)
        layer = layers.GatedFusion(units=5)
        layer(inputs)
        gates = np.asarray(layer.gates([ops.convert_to_tensor(x) for x in inputs]))
        assert gates.shape == (7, 3, 5)
        np.testing.assert_allclose(gates.sum(axis=1), 1, rtol=1e-5)
        assert not np.allclose(gates[0], gates[1])


class TestLowRankFusion:
    def test_equals_the_full_tensor_product(self):
        # Liu et al., 2018, equations 2 and 6: the weight tensor is a sum over ranks of outer
        # products of factors, and meets the outer product of the inputs with 1 appended.
        inputs, rank, units = vectors(4, 2, 3), 2, 5
        layer = layers.LowRankFusion(units=units, rank=rank)
        layer(inputs)
        for factor in layer._factors:
            (bias,) = vectors(rank * units, rows=1, seed=3)
            factor.bias.assign(bias[0])
        padded, factors = [], []
        for features, factor in zip(inputs, layer._factors, strict=True):
            padded.append(np.hstack([features * FRESH, np.ones((len(features), 1))]))
            full = np.vstack([factor.kernel.numpy(), factor.bias.numpy()])
            factors.append(full.reshape(-1, rank, units))
        tensor = np.einsum("iru,jru,kru->ijku", *factors)
        product = np.einsum("ni,nj,nk,ijku->nu", *padded, tensor)
        np.testing.assert_allclose(layer(inputs), relu(product * FRESH), rtol=1e-4, atol=1e-5)


class TestFrozen:
    def test_features_stay_bit_identical_in_fit_and_after_loading(self, tmp_path):
        keras.utils.set_random_seed(0)
        inner = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(8),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.5),
            ]
        )
        inputs = keras.Input((4,))
        features = layers.Frozen(inner, name="frozen")(inputs)
        model = keras.Model(inputs, [keras.layers.Dense(1, name="head")(features), features])
        (x,) = vectors(4, rows=32)
        before = np.asarray(model.get_layer("frozen")(x))
        head = model.get_layer("head").get_weights()[0]
        self.fit(model, x, before)
        np.testing.assert_array_equal(model.get_layer("frozen")(x), before)
        assert not np.array_equal(model.get_layer("head").get_weights()[0], head)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded.get_layer("frozen")(x), before)
        self.fit(loaded, x, before)
        np.testing.assert_array_equal(loaded.get_layer("frozen")(x), before)

    def fit(self, model, x, features):
        """Fails if the features that `fit` itself sees differ from those of inference."""
        model.compile("adam", loss=["mse", "mae"])
        y = x[:, :1]
        history = model.fit(x, [y, features], epochs=2, batch_size=8, verbose=0).history
        (features_loss,) = [v for k, v in history.items() if "frozen" in k]
        assert features_loss == [0.0, 0.0]

    def test_a_model_not_yet_built_is_built(self):
        inner = keras.Sequential([keras.layers.Dense(2)])
        layer = layers.Frozen(inner)
        assert layer(vectors(3)[0]).shape == (7, 2)
        assert len(layer.weights) == 2

    @pytest.mark.parametrize("structure", ["dict", "list"])
    def test_a_model_may_have_several_outputs_and_a_named_input(self, structure, tmp_path):
        given = keras.Input((4,), name="numbers")
        hidden = keras.layers.Dropout(0.5)(keras.layers.Dense(3)(given))
        outputs = {"features": hidden, "logits": keras.layers.Dense(1, name="logits")(hidden)}
        if structure == "list":
            outputs = list(outputs.values())
        inner = keras.Model({"numbers": given}, outputs)
        inputs = {"numbers": keras.Input((4,), name="numbers")}
        model = keras.Model(inputs, layers.Frozen(inner)(inputs))
        model.save(tmp_path / "model.keras")
        x = {"numbers": vectors(4)[0]}
        expected = inner(x)
        for frozen in (model, keras.saving.load_model(tmp_path / "model.keras")):
            assert not frozen.trainable_weights
            got = frozen(x, training=True)
            assert type(got) is type(expected)
            keras.tree.map_structure(np.testing.assert_array_equal, got, expected)

    def test_numbers_that_half_precision_cannot_hold_reach_the_model(self):
        scaling = layers.NumberScaling([1e6], [10.0], limit=0)
        inner = keras.Sequential([keras.Input((1,)), scaling])
        frozen = layers.Frozen(inner, dtype="mixed_float16")
        x = np.array([[1_000_010]], "float32")
        np.testing.assert_array_equal(frozen(x), [[1]])

    def test_layers_behind_it_in_a_subclassed_model_still_train(self):
        class Outer(keras.Model):
            def __init__(self, first):
                super().__init__()
                self.first, self.dropout = first, keras.layers.Dropout(0.5)

            def call(self, inputs):
                return self.dropout(self.first(inputs))

        inner = keras.Sequential([keras.Input((100,)), keras.layers.Activation("linear")])
        model = Outer(layers.Frozen(inner))
        ones = np.ones((1, 100), "float32")
        assert set(np.unique(model(ones, training=True))) == {0, 2}
        assert set(np.unique(model(ones))) == {1}

    def test_a_weight_let_loose_in_a_frozen_layer_does_not_train(self):
        inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        inner.layers[0].trainable = False
        inner.layers[0].kernel.trainable = True
        layer = layers.Frozen(inner)
        layer(vectors(3)[0])
        assert not [weight for weight in layer.weights if weight.trainable]

    def test_positions_of_layers_that_are_not_there_are_refused(self):
        inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="inner")
        with pytest.raises(ValueError, match=r"positions below 1, .* of 'inner' .*: \[1\]"):
            layers.Frozen(inner, unfrozen=[1])


def test_items_that_are_there_are_repeated_evenly_in_training_alone():
    items = np.arange(8.0)[:, None]
    there = np.array([0, 1, 0, 0, 1, 1, 0, 0])[:, None]
    layer = layers.RepeatPresent()
    got = np.asarray(layer([items, there], training=True))[:, 0]
    np.testing.assert_array_equal(got[[1, 4, 5]], [1, 4, 5])
    # Five places for three items.
    assert sorted(np.bincount(got.astype(int))[[1, 4, 5]]) == [2, 3, 3]
    np.testing.assert_array_equal(layer([items, there], training=False), items)
    np.testing.assert_array_equal(layer([items, 0 * there], training=True).shape, items.shape)


def test_a_row_gets_the_answer_of_the_last_pattern_that_it_has():
    patterns = [[False, False, False], [True, False, False], [False, True, True]]
    switch = layers.PresenceSwitch(patterns, "linear")
    is_there = np.array([[1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 0]], "float32")
    answers = [np.full((5, 1), float(number)) for number in range(4)]
    np.testing.assert_array_equal(np.ravel(switch([is_there, *answers])), [0, 2, 1, 3, 1])
