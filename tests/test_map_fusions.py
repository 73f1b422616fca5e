"""Fusions that work on maps: FiLM, DAFT and cross-attention, alone and in whole models."""

import keras
import numpy as np
import pytest

from kfusion import (
    build_fusion_model,
    edge_branch,
    fit,
    image_branch,
    layers,
    predict,
    prediction_model,
    tabular_branch,
)
from kfusion.models.building import FUSIONS, VECTOR_FUSIONS, feature_maps

FRESH = 1 / np.sqrt(1 + 1e-3)  # of Keras' batch normalisation before its first training step
SHAPE = (8, 8, 3)
MAP_FUSIONS = ["film", "daft", "cross_attention"]


def draw(*shapes, rows=7, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(rows, *shape)).astype("float32") for shape in shapes]


def give_weights(layer, seed=1):
    generator = np.random.default_rng(seed)
    layer.set_weights([generator.normal(size=weight.shape) for weight in layer.weights])
    return layer.get_weights()


class TestModulation:
    @pytest.mark.parametrize("kind", [layers.FiLM, layers.DAFT])
    @pytest.mark.parametrize("shape", [(3, 2, 5), (4, 5), (5,)], ids=["maps", "tokens", "vector"])
    @pytest.mark.parametrize("training", [False, True])
    def test_starts_with_the_features_as_they_are(self, kind, shape, training):
        inputs = draw(shape, (3,), (2,))
        np.testing.assert_array_equal(kind()(inputs, training=training), inputs[0])

    def test_film_scales_and_shifts_channels_by_the_conditions(self):
        maps, first, second = draw((3, 2, 5), (3,), (2,))
        layer = layers.FiLM()
        layer([maps, first, second])
        kernel, bias = give_weights(layer._modulation)
        changes = np.hstack([first, second]) * FRESH @ kernel + bias
        scale, shift = changes[:, None, None, :5], changes[:, None, None, 5:]
        expected = (1 + scale) * maps + shift
        np.testing.assert_allclose(layer([maps, first, second]), expected, rtol=1e-4, atol=1e-4)

    def test_daft_also_asks_the_maps_own_average(self):
        maps, table = draw((3, 2, 5), (3,))
        layer = layers.DAFT(reduction=3)
        layer([maps, table])
        assert layer._bottleneck.units == 3  # 8 / 3, rounded up
        squeeze, offset = give_weights(layer._bottleneck)
        kernel, bias = give_weights(layer._modulation, seed=2)
        said = np.hstack([maps.mean(axis=(1, 2)), table]) * FRESH
        changes = np.maximum(said @ squeeze + offset, 0) @ kernel + bias
        expected = (1 + changes[:, None, None, :5]) * maps + changes[:, None, None, 5:]
        np.testing.assert_allclose(layer([maps, table]), expected, rtol=1e-4, atol=1e-4)

    def test_a_bottleneck_wider_than_its_input_is_refused(self):
        with pytest.raises(ValueError, match="`reduction` must be 1 or more. Received: 0"):
            layers.DAFT(reduction=0)


class TestCrossAttention:
    def attend(self, query, tokens, weights):
        """Multi-head attention of one query by hand: `(units,)`."""
        to_query, to_key, to_value, to_output = weights
        heads = np.einsum("u,uhd->hd", query, to_query)
        keys = np.einsum("tu,uhd->thd", tokens, to_key)
        scores = np.einsum("hd,thd->ht", heads, keys) / np.sqrt(to_key.shape[-1])
        shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        values = np.einsum("tu,uhd->thd", tokens, to_value)
        return np.einsum("ht,thd,hdu->u", shares, values, to_output)

    def test_each_vector_looks_at_all_positions_and_at_the_vectors(self):
        maps, first, second = inputs = draw((3, 2, 5), (3,), (2,))
        layer = layers.CrossAttentionFusion(units=4, num_heads=2)
        layer(inputs)
        weights = give_weights(layer._attention)
        (positions,) = draw((4,), rows=6, seed=3)
        layer._positions.assign(positions)
        kernels = [p._dense.kernel.numpy() * FRESH for p in layer._projections]
        expected = []
        for row in range(len(maps)):
            patches = maps[row].reshape(6, 5) @ kernels[0] + positions
            queries = np.stack([first[row] @ kernels[1], second[row] @ kernels[2]])
            tokens = np.concatenate([patches, queries])
            expected.append(np.mean([q + self.attend(q, tokens, weights) for q in queries], axis=0))
        np.testing.assert_allclose(layer(inputs), expected, rtol=1e-3, atol=1e-4)

    def test_positions_of_unknown_number_cannot_be_learned(self):
        inputs = [keras.Input((None, None, 3)), keras.Input((2,))]
        with pytest.raises(ValueError, match=r"their number must be known.*use_positions=False"):
            layers.CrossAttentionFusion()(inputs)
        model = keras.Model(inputs, layers.CrossAttentionFusion(use_positions=False)(inputs))
        assert model(draw((4, 6, 3), (2,))).shape == (7, 3)


def pair(**first):
    first = first or {"image": image_branch(SHAPE, units=6)}
    return {**first, "tabular": tabular_branch(2, units=5)}


def data(rows=8):
    generator = np.random.default_rng(0)
    images = generator.integers(256, size=(rows, *SHAPE), dtype=np.uint8)
    table = generator.normal(size=(rows, 2)).astype(np.float32)
    return {"image": images, "tabular": table}, np.arange(rows) % 2


def widths_fused(branches, fusion):
    model = build_fusion_model(branches, task="binary", fusion=fusion)
    return [tuple(tensor.shape[1:]) for tensor in model.get_layer("fusion").input]


class TestModels:
    def test_the_names_are_those_of_the_layers_that_take_maps(self):
        assert sorted(set(FUSIONS) - set(VECTOR_FUSIONS)) == sorted(MAP_FUSIONS)

    @pytest.mark.parametrize("fusion", MAP_FUSIONS)
    def test_the_first_branch_gives_maps_and_all_others_vectors(self, fusion):
        image, table = image_branch(SHAPE, units=6), tabular_branch(2, units=5)
        edges = edge_branch(SHAPE, units=4)
        branches = {"image": image, "edges": edges, "tabular": table}
        maps = tuple(image.get_layer("pool").input.shape[1:])
        assert widths_fused(branches, fusion) == [maps, (4,), (5,)]
        assert widths_fused({"tabular": table, "image": image}, fusion) == [(5,), (6,)]

    @pytest.mark.parametrize(
        ("fusion", "auxiliary_heads"), [*[(name, False) for name in MAP_FUSIONS], ("film", True)]
    )
    def test_every_weight_trains_and_all_is_saved(self, fusion, auxiliary_heads, tmp_path):
        model = build_fusion_model(
            pair(), task="binary", fusion=fusion, auxiliary_heads=auxiliary_heads
        )
        x, y = data()
        # Keras warns of weights without a gradient, and warnings are errors here.
        fit(model, x, y, task="binary", validation_data=(x, y), epochs=1, verbose=0)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(predict(loaded, x), predict(model, x))
        alone = prediction_model(model)
        np.testing.assert_allclose(predict(alone, x), predict(model, x), rtol=1e-5)

    @pytest.mark.parametrize("fusion", MAP_FUSIONS)
    def test_vectors_alone_are_fused_too(self, fusion):
        inputs = keras.Input((3,), name="embedding")
        embedding = keras.Model(inputs, keras.layers.Dense(4)(inputs), name="first")
        assert widths_fused(pair(first=embedding), fusion) == [(4,), (5,)]

    def test_scaled_maps_are_not_merely_a_scaled_average(self):
        model = build_fusion_model(pair(), task="binary", fusion="film")
        after_fusion = [layer.name for layer in model.layers][-4:]
        assert after_fusion == ["fused_positions", "pool", "head_1", "prediction"]
        assert model.get_layer("fused_positions").activation == "relu"

    def test_maps_of_a_sequence_are_its_steps(self):
        inputs = keras.Input((6, 2), name="sound")
        steps = keras.layers.Conv1D(5, 3)(inputs)
        sound = keras.Model(
            inputs, keras.layers.GlobalAveragePooling1D()(steps), name="sound_branch"
        )
        assert widths_fused(pair(sound=sound), "cross_attention") == [(4, 5), (5,)]

    def test_an_average_beside_the_main_road_is_no_end(self):
        inputs = keras.Input(SHAPE, name="image")
        weights = keras.layers.GlobalAveragePooling2D(keepdims=True)(inputs)
        squeezed = keras.layers.Flatten()(keras.layers.Multiply()([inputs, weights]))
        own = keras.Model(inputs, keras.layers.Dense(4)(squeezed), name="own")
        assert feature_maps(own) is None
        assert widths_fused(pair(own=own), "film") == [(4,), (5,)]


@pytest.mark.parametrize("fusion", MAP_FUSIONS)
def test_learns_where_the_table_says_to_look(fusion):
    """Which half of the image is bright is drawn for each; the column says which half counts."""
    generator = np.random.default_rng(0)
    left, right, side = generator.integers(2, size=(3, 512))
    halves = np.repeat(np.stack([left, right], axis=1)[:, None, :], 4, axis=2).repeat(8, axis=1)
    images = (60 + 120 * halves + generator.integers(40, size=halves.shape))[..., None]
    x = {"image": images.astype(np.uint8), "tabular": (2.0 * side - 1)[:, None].astype(np.float32)}
    y = np.where(side, right, left)
    keras.utils.set_random_seed(0)
    branches = {"image": image_branch((8, 8, 1), units=8), "tabular": tabular_branch(1, units=8)}
    model = build_fusion_model(branches, task="binary", fusion=fusion, head_units=16)
    fit(
        model,
        x,
        y,
        task="binary",
        validation_data=None,
        epochs=8,
        batch_size=32,
        learning_rate=5e-3,
        seed=0,
        verbose=0,
    )
    assert np.mean((predict(model, x)[:, 0] > 0.5) == y) > 0.95
