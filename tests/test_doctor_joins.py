"""What the doctor says of what meets where branches are joined."""

import keras
import numpy as np
import pytest
from doctor_cases import findings, make_case, reasons
from keras import layers

from kfusion.doctor.gradients import gradients
from kfusion.doctor.graph import walk
from kfusion.doctor.join_checks import check_gradient_shares, check_ranges_at_joins, joins
from kfusion.doctor.model_runs import untouched
from kfusion.layers import ConcatFusion

ROWS = 200
RANDOM = np.random.default_rng(0)
X = {
    "image": RANDOM.random((ROWS, 12, 12, 3)).astype("float32"),
    "numbers": RANDOM.normal(size=(ROWS, 10)).astype("float32"),
}
Y = RANDOM.integers(0, 2, ROWS)


def fused(activations=("relu", "relu"), join=None, widths=(256, 128), behind=None, scale=1.0):
    """The model of someone who joins an image and numbers by hand."""
    keras.utils.set_random_seed(0)
    image, numbers = layers.Input((12, 12, 3), name="image"), layers.Input((10,), name="numbers")
    pixels = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(image))
    image_features = layers.Dense(widths[0], activations[0], name="image_features")(pixels)
    image_features = layers.Dropout(0.1)(image_features)
    number_features = layers.Dense(widths[1], activations[1], name="number_features")(numbers)
    if scale != 1:
        number_features = layers.Rescaling(scale, name="scaled")(number_features)
    joined = (join or layers.Concatenate(name="join"))([image_features, number_features])
    if behind is not None:
        joined = behind(joined)
    hidden = layers.Dense(64, "relu")(joined)
    model = keras.Model([image, numbers], layers.Dense(1, "sigmoid")(hidden))
    model.compile("adam", "binary_crossentropy")
    return model


def case_of(model):
    return make_case(model, X, Y, "binary")


def found_joins(model):
    with untouched(model):
        return [join.path for join in joins(walk(model, X))]


class TestJoins:
    def test_skip_connections_and_gates_within_a_branch_are_none(self):
        keras.utils.set_random_seed(0)
        image, numbers = (
            layers.Input((12, 12, 3), name="image"),
            layers.Input((10,), name="numbers"),
        )
        maps = layers.Conv2D(4, 3, padding="same")(image)
        maps = layers.Add()([maps, layers.Conv2D(4, 3, padding="same")(maps)])
        gate = layers.Dense(4, "sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(maps))
        maps = layers.Multiply()([maps, gate])
        features = layers.GlobalAveragePooling2D()(maps)
        joined = layers.Concatenate(name="join")([features, layers.Dense(4)(numbers)])
        assert found_joins(keras.Model([image, numbers], joined)) == ["join"]

    def test_two_networks_of_one_image_meet(self):
        image = layers.Input((12, 12, 3), name="image")
        parts = []
        for size in (3, 5):
            pixels = layers.Input((12, 12, 3))
            maps = layers.Conv2D(4, size, activation="relu")(pixels)
            features = layers.Dense(8)(layers.GlobalAveragePooling2D()(maps))
            parts.append(keras.Model(pixels, features, name=f"network_{size}"))
        joined = keras.ops.concatenate([part(image) for part in parts], axis=-1)
        model = keras.Model(image, layers.Dense(1)(joined))
        with untouched(model):
            (join,) = joins(walk(model, X))
        assert [parent.branch for parent in join.parents] == ["network_3", "network_5"]

    def test_a_subclassed_model_is_not_decided(self):
        class Own(keras.Model):
            def call(self, x):
                return x["numbers"][:, :1]

        model = Own()
        model(X)
        for check in (check_ranges_at_joins, check_gradient_shares):
            (reason,) = reasons(check, case_of(model)).values()
            assert "subclassed" in reason


class TestRanges:
    def test_a_sigmoid_beside_a_relu(self):
        case = case_of(fused(("sigmoid", "relu")))
        said = findings(check_ranges_at_joins, case)["mixed_activations_at_join"]
        assert said.subject == "join"
        model = keras.Model(case.model.inputs, case.model.get_layer("image_features").output)
        values = model.predict([X["image"], X["numbers"]], verbose=0)
        measured = said.values["image_features"]
        assert measured["mean"] == pytest.approx(values.mean(), rel=1e-4)
        assert measured["spread"] == pytest.approx(np.sqrt(values.var(axis=0).mean()), rel=1e-3)

    @pytest.mark.parametrize(
        "keywords",
        [
            {},
            {"activations": ("tanh", "relu")},
            {"activations": ("sigmoid", "sigmoid")},
            {"activations": ("sigmoid", "relu"), "behind": layers.BatchNormalization()},
            {"activations": ("sigmoid", "relu"), "join": ConcatFusion()},
            {"activations": ("sigmoid", "relu"), "join": layers.Multiply(), "widths": (64, 64)},
        ],
    )
    def test_what_mixes_well(self, keywords):
        assert not list(check_ranges_at_joins(case_of(fused(**keywords))))

    def test_a_branch_a_hundred_times_as_wide(self):
        for join in (layers.Concatenate(), ConcatFusion(normalize=False)):
            case = case_of(fused(join=join, scale=100.0))
            said = findings(check_ranges_at_joins, case)
            assert list(said) == ["spreads_differ_at_join"]
            assert said["spreads_differ_at_join"].values["ratio"] > 50

    def test_an_embedding_beside_numbers_starts_small_on_purpose(self):
        keras.utils.set_random_seed(0)
        kind, numbers = layers.Input((1,), name="kind"), layers.Input((10,), name="numbers")
        vector = layers.Flatten()(layers.Embedding(5, 4)(kind))
        joined = layers.Concatenate()([vector, numbers])
        model = keras.Model([kind, numbers], layers.Dense(1)(joined))
        x = {"kind": RANDOM.integers(0, 5, (ROWS, 1)), "numbers": X["numbers"]}
        case = make_case(model, x, X["numbers"][:, 0], "regression")
        assert not list(check_ranges_at_joins(case))

    def test_dead_units_are_counted(self):
        model = fused()
        kernel, bias = model.get_layer("number_features").get_weights()
        bias[:96] = -1000
        model.get_layer("number_features").set_weights([kernel, bias])
        said = findings(check_ranges_at_joins, case_of(model))["dead_units_at_join"]
        assert said.values["dead"] == 0.75

    def test_saturated_units_are_counted(self):
        model = fused(("tanh", "tanh"))
        kernel, bias = model.get_layer("number_features").get_weights()
        bias[:96] = 4
        model.get_layer("number_features").set_weights([kernel, bias])
        said = findings(check_ranges_at_joins, case_of(model))["saturated_units_at_join"]
        assert said.values["saturated"] == 0.75


class TestGradientShares:
    def test_the_loss_hardly_reaches_a_narrow_branch(self):
        said = findings(check_gradient_shares, case_of(fused(scale=0.01)))
        assert said["starved_branch"].subject == "scaled"
        shares = said["starved_branch"].values["shares"]
        assert shares["scaled"] < 0.001
        assert sum(shares.values()) == pytest.approx(1)

    @pytest.mark.parametrize("join", [None, ConcatFusion()])
    def test_branches_alike_share(self, join):
        assert not list(check_gradient_shares(case_of(fused(join=join))))

    def test_normalising_feeds_the_narrow_branch(self):
        assert findings(check_gradient_shares, case_of(fused(scale=30.0)))
        assert not list(check_gradient_shares(case_of(fused(join=ConcatFusion(), scale=30.0))))

    def test_a_constant_output_passes_nothing_on(self):
        model = fused()
        kernel, bias = model.layers[-1].get_weights()
        model.layers[-1].set_weights([0 * kernel, bias])
        said = findings(check_gradient_shares, case_of(model))["no_gradient_at_join"]
        assert said.severity == "error"


def test_the_gradient_of_a_polynomial():
    a, b = np.array([1.0, 2.0], "float32"), np.array([3.0], "float32")
    square, linear, none = gradients(
        lambda t: keras.ops.sum(t[0] ** 2) + 5 * keras.ops.sum(t[1]), [a, b, a]
    )
    assert square.tolist() == [2, 4]
    assert linear.tolist() == [5]
    assert none.tolist() == [0, 0]
