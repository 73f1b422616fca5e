"""Any Keras model is a branch: it answers as before, in a fusion, saved and loaded."""

import keras
import numpy as np
import pytest
from keras import layers

from kfusion import (
    build_fusion_model,
    build_unimodal_model,
    fit,
    image_branch,
    predict,
    tabular_branch,
)
from kfusion.frozen.freezing import unfreeze
from kfusion.layers import Frozen
from kfusion.models.trained_branches import branch_from

SHAPE = (8, 8, 3)


def images(rows, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).integers(256, size=(rows, *shape), dtype=np.uint8)


def table(rows, columns, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


@pytest.fixture
def trained():
    return keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(6, activation="relu", name="hidden"),
            layers.Dropout(0.5),
            layers.Dense(1, name="answer"),
        ],
        name="trained",
    )


@keras.saving.register_keras_serializable(package="test_trained_branches")
class Subclassed(keras.Model):
    def __init__(self, num_outputs=1, **kwargs):
        super().__init__(**kwargs)
        self.num_outputs = num_outputs
        self.answers = [layers.Dense(4) for _ in range(num_outputs)]

    def call(self, inputs):
        answers = [answer(inputs) for answer in self.answers]
        return answers if self.num_outputs > 1 else answers[0]

    def get_config(self):
        return {**super().get_config(), "num_outputs": self.num_outputs}


@keras.saving.register_keras_serializable(package="test_trained_branches")
class Doubled(keras.Model):
    """Functional, but with a `call` of its own."""

    def call(self, inputs, training=None):
        return 2 * super().call(inputs, training=training)


def assert_answers_as(branch, x, expected, tmp_path):
    """As it is, in a fusion, and in a file with that fusion."""
    name = branch.inputs[0].name
    np.testing.assert_allclose(predict(branch, {name: x}), expected, rtol=1e-5, atol=1e-5)
    fused = build_fusion_model(
        {"mine": branch, "other": tabular_branch(2, input_name="other", name="other_branch")},
        task="binary",
        head_units=4,
    )
    given = {name: x, "other": table(len(x), 2)}
    fused.save(tmp_path / "fused.keras")
    loaded = keras.models.load_model(tmp_path / "fused.keras")
    np.testing.assert_array_equal(predict(loaded, given), predict(fused, given))


class TestBranchFrom:
    def test_cut_at_a_layer_gives_that_layers_output(self, trained):
        branch = branch_from(trained, "hidden")
        x = table(4, 3)
        expected = np.maximum(x @ np.asarray(trained.get_layer("hidden").kernel), 0)
        np.testing.assert_allclose(predict(branch, {"tabular": x}), expected, rtol=1e-4, atol=1e-6)
        assert branch.name == "trained_branch"

    def test_frozen_branches_do_not_train_and_others_do(self, trained):
        assert not branch_from(trained).trainable_weights
        assert len(branch_from(trained, "hidden", trainable=True).trainable_weights) == 2

    def test_layers_frozen_one_by_one_stay_so(self, trained):
        trained.get_layer("hidden").trainable = False
        assert len(branch_from(trained, trainable=True).trainable_weights) == 2

    def test_a_layer_let_loose_inside_a_frozen_model_does_not_train(self, trained):
        trained.trainable = False
        trained.get_layer("hidden").trainable = True
        assert not branch_from(trained).trainable_weights

    def test_frozen_features_stay_while_the_rest_trains(self, trained):
        x = {"tabular": table(32, 3), "image": images(32)}
        y = (x["tabular"][:, 0] > 0).astype(int)
        branch = branch_from(trained, "hidden")
        before = predict(branch, x)
        model = build_fusion_model(
            {"image": image_branch(SHAPE, units=4), "tabular": branch}, task="binary", head_units=4
        )
        fit(model, x, y, task="binary", validation_data=None, epochs=1, verbose=0)
        np.testing.assert_array_equal(predict(branch, x), before)
        assert [layer for layer in branch.layers if isinstance(layer, Frozen)]

    @pytest.mark.parametrize(("layer", "width"), [(None, 1), ("head_1", 4), ("image_branch", 5)])
    def test_takes_a_model_that_kfusion_built(self, layer, width):
        model = build_unimodal_model(
            image_branch(SHAPE, units=5), task="binary", head_units=4, name="first"
        )
        branch = branch_from(model, layer)
        x = {"image": images(3)}
        assert predict(branch, x).shape == (3, width)
        fused = build_fusion_model(
            {"first": branch, "tabular": tabular_branch(2, units=4)}, task="binary"
        )
        assert predict(fused, {**x, "tabular": table(3, 2)}).shape == (3, 1)

    def test_feature_maps_and_sequences_are_averaged(self):
        maps = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(5, 3)])
        assert branch_from(maps).output.shape == (None, 5)
        assert branch_from(maps).inputs[0].name == "image"
        sequence = keras.Sequential([keras.Input((6, 2)), layers.Conv1D(5, 3)])
        assert branch_from(sequence, input_name="sound").output.shape == (None, 5)

    def test_a_layer_that_is_not_there_lists_those_that_are(self, trained):
        with pytest.raises(ValueError, match=r"'trained' has no layer 'hiden'. It has: \['hidden'"):
            branch_from(trained, "hiden")

    @pytest.mark.parametrize("layer", [None, "answer"])
    def test_a_model_without_known_input_is_refused(self, layer):
        model = keras.Sequential([layers.Dense(1, name="answer")], name="unbuilt")
        with pytest.raises(ValueError, match="'unbuilt' has no known input"):
            branch_from(model, layer)

    def test_a_model_with_two_inputs_is_refused(self):
        branches = {"image": image_branch(SHAPE), "tabular": tabular_branch(2)}
        model = build_fusion_model(branches, task="binary", name="pair")
        with pytest.raises(ValueError, match="A branch has one input; 'pair' has 2"):
            branch_from(model)

    def test_a_compiled_model_does_not_report_its_metrics(self):
        inner = keras.Sequential([keras.Input((3,)), layers.Dense(4, activation="sigmoid")])
        inner.compile("adam", "mse", metrics=["accuracy"])
        x = {"tabular": table(20, 3), "other": table(20, 2)}
        branches = {
            "mine": branch_from(inner),
            "other": tabular_branch(2, input_name="other", name="other_branch"),
        }
        model = build_fusion_model(branches, task="binary")
        y = np.arange(20) % 2
        history = fit(model, x, y, task="binary", validation_data=(x, y), epochs=1, verbose=0)
        assert history.history["loss"][0] > 0


class TestEveryKindOfModel:
    @pytest.mark.parametrize("as_text", [True, False])
    def test_a_file(self, as_text, trained, tmp_path):
        trained.compile("adam", "mse")
        path = tmp_path / "model.keras"
        trained.save(path)
        branch = branch_from(str(path) if as_text else path, "hidden")
        x = table(4, 3)
        expected = np.maximum(x @ np.asarray(trained.get_layer("hidden").kernel), 0)
        assert_answers_as(branch, x, expected, tmp_path)

    @pytest.mark.parametrize("trainable", [True, False])
    @pytest.mark.parametrize("is_built", [True, False])
    def test_a_subclassed_model(self, is_built, trainable, tmp_path):
        model = Subclassed(name="mine")
        x = table(4, 3)
        if is_built:
            model(x)
        branch = branch_from(model, trainable=trainable, shape=None if is_built else (3,))
        assert branch.inputs[0].name == "tabular"
        assert len(branch.trainable_weights) == (2 if trainable else 0)
        assert_answers_as(branch, x, keras.ops.convert_to_numpy(model(x)), tmp_path)

    @pytest.mark.parametrize("trainable", [True, False])
    def test_a_functional_model_with_a_call_of_its_own(self, trainable, tmp_path):
        given = keras.Input((3,), name="numbers")
        model = Doubled(given, layers.Dense(4)(given), name="doubled")
        x = table(4, 3)
        expected = 2 * (x @ np.asarray(model.layers[-1].kernel))
        branch = branch_from(model, trainable=trainable)
        np.testing.assert_allclose(predict(branch, {"tabular": x}), expected, rtol=1e-5, atol=1e-6)
        with pytest.raises(
            ValueError, match="'doubled' is a subclassed model, which cannot be cut"
        ):
            branch_from(model, "dense")

    def test_an_application_of_any_size(self, tmp_path):
        network = keras.applications.MobileNet(alpha=0.25, include_top=False, weights=None)
        x = images(3, (32, 40, 3))
        expected = network.predict(x.astype("float32"), verbose=0).mean(axis=(1, 2))
        branch = branch_from(network, shape=(32, 40, 3), dtype="uint8")
        assert (branch.inputs[0].shape, branch.inputs[0].dtype) == ((None, 32, 40, 3), "uint8")
        assert_answers_as(branch, x, expected, tmp_path)
        assert branch_from(network).inputs[0].shape == (None, None, None, 3)

    def test_a_sequential_model_that_has_met_no_input(self, tmp_path):
        model = keras.Sequential([layers.Dense(4, name="hidden"), layers.Dense(2)])
        branch = branch_from(model, "hidden", shape=(3,))
        x = table(4, 3)
        expected = x @ np.asarray(model.get_layer("hidden").kernel)
        assert_answers_as(branch, x, expected, tmp_path)

    def test_a_model_whose_input_is_a_dict_of_one(self, tmp_path):
        given = keras.Input((3,), name="numbers")
        model = keras.Model({"numbers": given}, layers.Dense(4, name="hidden")(given))
        x = table(4, 3)
        expected = x @ np.asarray(model.get_layer("hidden").kernel)
        assert_answers_as(branch_from(model), x, expected, tmp_path)
        assert_answers_as(branch_from(model, "hidden"), x, expected, tmp_path)

    def test_one_output_of_several_is_chosen_by_its_layer(self, tmp_path):
        given = keras.Input((3,))
        hidden = layers.Dense(4, name="hidden")(given)
        model = keras.Model(given, {"a": layers.Dense(1)(hidden), "b": hidden}, name="several")
        with pytest.raises(ValueError, match="'several' gives 2 outputs, .* with `layer=`"):
            branch_from(model)
        x = table(4, 3)
        expected = x @ np.asarray(model.get_layer("hidden").kernel)
        assert_answers_as(branch_from(model, "hidden"), x, expected, tmp_path)

    def test_layers_that_another_model_used_first(self, tmp_path):
        first = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dense(2)])
        given = keras.Input((3,))
        again = keras.Model(given, first.layers[1](first.layers[0](given)), name="again")
        x = table(4, 3)
        branch = branch_from(again, first.layers[0].name)
        assert_answers_as(branch, x, x @ np.asarray(first.layers[0].kernel), tmp_path)

    def test_two_of_one_name_are_told_apart(self, trained):
        other = keras.models.clone_model(trained)
        branches = {
            "first": branch_from(trained, "hidden", name="first"),
            "second": branch_from(other, "hidden", name="second"),
        }
        model = build_fusion_model(branches, task="binary", head_units=4)
        unfreeze(model, last=1, branch="second")
        assert len(model.get_layer("second").trainable_weights) == 2
        assert not model.get_layer("first").trainable_weights

    def test_a_backbone_of_keras_hub(self, tmp_path):
        keras_hub = pytest.importorskip("keras_hub")
        backbone = keras_hub.models.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[3],
            stackwise_num_filters=[64],
            stackwise_num_blocks=[1],
            stackwise_num_strides=[1],
            block_type="basic_block",
        )
        x = images(3, (16, 16, 3))
        expected = backbone.predict(x.astype("float32"), verbose=0).mean(axis=(1, 2))
        branch = branch_from(backbone, shape=(16, 16, 3), dtype="uint8")
        assert_answers_as(branch, x, expected, tmp_path)

    def test_a_backbone_of_keras_hub_whose_layers_do_not_load_alone(self, tmp_path):
        keras_hub = pytest.importorskip("keras_hub")
        backbone = keras_hub.models.ViTBackbone(
            image_shape=(16, 16, 3),
            patch_size=(8, 8),
            num_layers=1,
            num_heads=2,
            hidden_dim=8,
            mlp_dim=8,
        )
        x = images(3, (16, 16, 3)).astype("float32") / 255
        expected = backbone.predict(x, verbose=0).mean(axis=1)
        assert_answers_as(branch_from(backbone), x, expected, tmp_path)
        with pytest.raises(ValueError, match="cannot be cut: its layer 'vit_patching_and_embed"):
            branch_from(backbone, backbone.layers[-1].name)


class TestWhatIsNoBranch:
    @pytest.mark.parametrize("model", [3, None, keras.Model, layers.Dense])
    def test_what_is_neither_model_nor_path(self, model):
        with pytest.raises(TypeError, match="must be a keras.Model or the path of a .keras file"):
            branch_from(model)

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(ValueError, match="File not found"):
            branch_from(tmp_path / "none.keras")

    def test_a_part_of_a_subclassed_model(self):
        with pytest.raises(
            ValueError, match="'mine' is a subclassed model, .* cut at `layer='dens"
        ):
            branch_from(Subclassed(name="mine"), "dense", shape=(3,))

    def test_a_subclassed_model_with_two_outputs(self):
        with pytest.raises(
            ValueError, match="'mine' gives 2 outputs, and a branch is made from on"
        ):
            branch_from(Subclassed(2, name="mine"), shape=(3,))

    def test_a_layer_that_runs_twice(self):
        given = keras.Input((3,))
        twice = layers.Dense(3, name="twice")
        model = keras.Model(given, twice(twice(given)), name="mine")
        with pytest.raises(ValueError, match="'mine' runs 'twice' 2 times: cut it at a layer that"):
            branch_from(model, "twice")

    @pytest.mark.parametrize("shape", [(4,), (3, 3), ()])
    def test_a_shape_that_the_model_does_not_take(self, trained, shape):
        with pytest.raises(ValueError, match=r"'trained' takes \(3,\) without rows. Received: sh"):
            branch_from(trained, shape=shape)

    def test_features_of_a_rank_that_nothing_pools(self):
        model = keras.Sequential([keras.Input((4, 4, 4, 1)), layers.Conv3D(2, 2)], name="clips")
        with pytest.raises(
            ValueError, match=r"'clips' must give vectors, sequences or maps: .*3, 2"
        ):
            branch_from(model)
