"""What is frozen stays as it is to the bit, and what is unfrozen is what was asked for."""

import keras
import numpy as np
import pytest
from keras import layers

from kfusion.frozen.freezing import freeze, unfreeze
from kfusion.layers import NormalizedDense
from kfusion.models.trained_branches import branch_from

BACKEND = keras.backend.backend()
SHAPE = (8, 8, 3)
ROWS = 24

on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="writes a SavedModel")


def functional(name="trained"):
    """Nested models, every kind of layer that training switches, and penalties."""
    pixels = keras.Input(SHAPE, name="pixels")
    stem = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.RandomFlip(),
            layers.Conv2D(4, 3, name="first", kernel_regularizer="l2"),
            layers.BatchNormalization(name="norm"),
            layers.SpatialDropout2D(0.5),
        ],
        name="stem",
    )
    maps = layers.GaussianNoise(1.0)(stem(pixels))
    hidden = layers.Dense(5, name="hidden")(layers.GlobalAveragePooling2D()(maps))
    hidden = NormalizedDense(6, dropout=0.5, name="normalized")(hidden)
    return keras.Model(pixels, layers.Dense(4, name="end")(hidden), name=name)


def sequential(name="trained"):
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(4, 3, strides=2, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Flatten(),
            layers.GaussianDropout(0.5),
            layers.Dense(5, activation="tanh", name="hidden"),
            layers.Dense(4, name="end"),
        ],
        name=name,
    )


@keras.saving.register_keras_serializable(package="test_freezing")
class Subclassed(keras.Model):
    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.flat = layers.Flatten()
        self.hidden = layers.Dense(5, name="hidden")
        self.norm = layers.BatchNormalization(name="norm")
        self.drop = layers.AlphaDropout(0.5)
        self.end = layers.Dense(units, name="end")

    def call(self, inputs):
        return self.end(self.drop(self.norm(self.hidden(self.flat(inputs)))))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def subclassed(name="trained"):
    model = Subclassed(name=name)
    model(images())
    return model


def application(name="trained"):
    network = keras.applications.MobileNet(
        (32, 32, 3), alpha=0.25, include_top=False, weights=None, pooling="avg"
    )
    pixels = keras.Input(SHAPE)
    return keras.Model(pixels, network(layers.Resizing(32, 32)(pixels)), name=name)


def images(seed=0):
    return np.random.default_rng(seed).normal(size=(ROWS, *SHAPE)).astype("float32")


def data():
    table = np.random.default_rng(1).normal(size=(ROWS, 2)).astype("float32")
    return {"image": images(), "tabular": table}, table[:, :1]


def trained_model(make=functional):
    """A model that is no longer as it started, moving statistics included."""
    keras.utils.set_random_seed(0)
    model = make()
    generator = np.random.default_rng(2)
    for weight in model.weights:
        weight.assign(weight + generator.uniform(0.1, 1, weight.shape))
    return model


def fused(branch, name="fused"):
    """The branch beside one that trains, with a layer behind that Dropout moves."""
    image = keras.Input(SHAPE, name="image")
    tabular = keras.Input((2,), name="tabular")
    side = layers.BatchNormalization()(layers.Dense(3, name="side")(tabular))
    both = layers.Dropout(0.2)(layers.Concatenate()([branch(image), side]))
    return keras.Model(
        {"image": image, "tabular": tabular}, layers.Dense(1, name="answer")(both), name=name
    )


def compiled(model, rate=1e-2):
    model.compile(keras.optimizers.AdamW(rate, weight_decay=0.1), "mse", metrics=["mae"])
    return model


def train(model):
    inputs, targets = data()
    return model.fit(inputs, targets, batch_size=8, verbose=0)


def only_known_here(true, predicted):
    """A loss or metric that Keras does not know by name."""
    return keras.ops.mean(keras.ops.square(true - predicted))


def values(model):
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


def features(branch):
    return branch.predict(images(), verbose=0)


def assert_same(branch, before):
    """Features and all weights, moving statistics included, are the same bits."""
    np.testing.assert_array_equal(features(branch), before[0])
    for now, then in zip(values(branch), before[1], strict=True):
        np.testing.assert_array_equal(now, then)


def moved(model, before):
    """Names of the layers of the weights that are no longer as before."""
    pairs = zip(model.weights, values(model), before, strict=True)
    return {w.path.split("/")[-2] for w, now, then in pairs if not np.array_equal(now, then)}


class TestFrozenStaysAsItIs:
    @pytest.mark.parametrize(
        ("make_branch", "make"),
        [(branch_from, functional), (freeze, sequential), (branch_from, subclassed)],
    )
    def test_in_fit_and_saved_and_loaded_and_in_a_clone(self, make_branch, make, tmp_path):
        branch = make_branch(trained_model(make), name="branch")
        before = features(branch), values(branch)
        model = fused(branch)
        model.trainable = False
        model.trainable = True
        side = values(model.get_layer("side"))
        train(compiled(model))
        assert_same(branch, before)
        assert not np.array_equal(values(model.get_layer("side"))[0], side[0])
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert_same(loaded.get_layer("branch"), before)
        train(loaded)
        assert_same(loaded.get_layer("branch"), before)
        clone = keras.models.clone_model(loaded)
        clone.set_weights(loaded.get_weights())
        clone.trainable = False
        clone.trainable = True
        train(compiled(clone))
        assert_same(clone.get_layer("branch"), before)

    def test_what_fit_sees_is_what_inference_sees(self):
        branch = branch_from(trained_model(), name="branch")
        image = keras.Input(SHAPE, name="image")
        seen = branch(image)
        model = keras.Model(image, {"seen": seen, "answer": layers.Dense(1)(seen)})
        model.compile("adam", loss={"seen": "mae", "answer": "mse"})
        expected = features(branch)
        history = model.fit(
            images(), {"seen": expected, "answer": expected[:, :1]}, verbose=0, batch_size=8
        )
        # Not 0 where training is compiled and rounds otherwise; Dropout alone would give about 1.
        assert history.history["seen_loss"][0] < 1e-5 * np.abs(expected).max()

    def test_what_its_model_was_compiled_with_is_not_reported_nor_saved(self, tmp_path):
        model = trained_model(subclassed)
        model.compile("adam", only_known_here, metrics=["mape"])
        model.fit(images(), images()[:, 0, 0, :1] * np.ones((1, 4)), verbose=0)
        outer = compiled(fused(freeze(model)))
        assert set(train(outer).history) == {"loss", "mae"}
        outer.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        inputs, _ = data()
        np.testing.assert_array_equal(
            loaded.predict(inputs, verbose=0), outer.predict(inputs, verbose=0)
        )

    def test_setting_it_untrainable_holds_what_was_unfrozen_until_it_is_set_back(self):
        branch = freeze(trained_model())
        model = unfreeze(fused(branch), last=1)
        assert len(branch.trainable_weights) == 2
        branch.trainable = False
        assert not [w for w in model.trainable_weights if "end" in w.path]
        branch.trainable = True
        assert len(branch.trainable_weights) == 2

    def test_the_shared_model_itself_is_the_one_way_around_until_it_is_loaded_again(self):
        shared = trained_model(sequential)
        branch = freeze(shared)
        shared.trainable = False
        shared.trainable = True
        assert [weight for weight in branch.weights if weight.trainable]
        assert not [w for w in keras.models.clone_model(branch).weights if w.trainable]

    def test_a_frozen_model_within_a_frozen_model_stays_so(self):
        inner = unfreeze(freeze(trained_model(), name="inner"), last="all")
        outer = unfreeze(freeze(fused(inner)), last="all")
        assert {w.path.split("/")[-2] for w in outer.trainable_weights} == {"side", "answer"}


class TestFreeze:
    def test_keeps_names_and_structure_of_inputs_and_outputs(self):
        model = fused(trained_model())
        model = keras.Model(model.input, {"answer": model.output, "twice": 2 * model.output})
        frozen = freeze(model, name="pair")
        inputs, _ = data()
        assert frozen.name == "pair"
        assert {key: given.name for key, given in frozen.input.items()} == {
            "image": "image",
            "tabular": "tabular",
        }
        got, expected = frozen.predict(inputs, verbose=0), model.predict(inputs, verbose=0)
        assert set(got) == {"answer", "twice"}
        np.testing.assert_array_equal(got["twice"], expected["twice"])

    def test_reads_a_file(self, tmp_path):
        model = compiled(trained_model(sequential))
        model.save(tmp_path / "model.keras")
        frozen = freeze(tmp_path / "model.keras")
        assert frozen.name == "trained_frozen"
        np.testing.assert_array_equal(features(frozen), features(model))

    def test_a_model_never_built_is_refused(self):
        with pytest.raises(ValueError, match="'trained' has no known input: call it on data once"):
            freeze(Subclassed(name="trained"))

    @on_tensorflow
    @pytest.mark.parametrize("export", ["keras", "kfusion"])
    def test_is_exported_as_it_answers(self, export, tmp_path):
        import tensorflow as tf

        from kfusion import build_fusion_model, export_saved_model, load_exported, tabular_branch
        from kfusion.models.prediction import predict

        branch = branch_from(trained_model(), dtype="uint8")
        model = build_fusion_model(
            {"image": branch, "tabular": tabular_branch(2, units=4)}, task="binary", head_units=4
        )
        x = {"image": (images() * 50 + 128).clip(0, 255).astype("uint8"), "tabular": data()[1]}
        x["tabular"] = np.hstack([x["tabular"], x["tabular"]])
        expected = predict(model, x)
        if export == "keras":
            model.export(tmp_path / "saved", verbose=False)
            served = tf.saved_model.load(str(tmp_path / "saved"))
            got = np.asarray(served.serve({key: tf.constant(array) for key, array in x.items()}))
        else:
            served = load_exported(export_saved_model(model, tmp_path / "saved"))
            got = served.predict_encoded(x)["probabilities"][:, 1:]
        np.testing.assert_allclose(got, expected, atol=1e-6)


class TestUnfreeze:
    @pytest.mark.parametrize(
        ("make", "last", "expected"),
        [
            (functional, 1, {"end"}),
            # A layer made of a Dense and a BatchNormalization: the latter stays.
            (functional, 2, {"end", "dense"}),
            (functional, "all", {"first", "hidden", "dense", "end"}),
            (functional, ["stem", "end"], {"first", "end"}),
            (functional, ["stem/first"], {"first"}),
            (sequential, 2, {"hidden", "end"}),
            (sequential, 3, {"first", "hidden", "end"}),
            (subclassed, 1, {"end"}),
            (subclassed, ["hidden"], {"hidden"}),
        ],
    )
    def test_moves_the_layers_named_and_no_others(self, make, last, expected, tmp_path):
        branch = branch_from(trained_model(make), name="branch")
        model = compiled(fused(branch))
        assert unfreeze(model, last=last, learning_rate=1e-3) is model
        before = values(branch)
        train(model)
        assert moved(branch, before) == expected
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras").get_layer("branch")
        clone = keras.models.clone_model(model).get_layer("branch")
        for again in (loaded, clone):
            assert {w.path.split("/")[-2] for w in again.trainable_weights} == expected

    def test_after_loading_moves_the_layers_named_and_no_others(self, tmp_path):
        model = compiled(fused(branch_from(trained_model(subclassed), name="branch")))
        train(model)
        model.save(tmp_path / "model.keras")
        loaded = unfreeze(keras.models.load_model(tmp_path / "model.keras"), last=1)
        branch = loaded.get_layer("branch")
        before = values(branch)
        train(loaded)
        assert moved(branch, before) == {"end"}
        loaded.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        before = values(again.get_layer("branch"))
        train(again)
        assert moved(again.get_layer("branch"), before) == {"end"}

    def test_an_application(self):
        branch = branch_from(trained_model(application), name="branch")
        model = compiled(fused(branch))
        unfreeze(model, last=3, learning_rate=1e-3)
        before = values(branch)
        train(model)
        assert moved(branch, before) == {"conv_pw_12", "conv_dw_13", "conv_pw_13"}

    def test_a_model_built_by_its_branch(self):
        branch = branch_from(Subclassed(name="trained"), shape=SHAPE, name="branch")
        model = unfreeze(compiled(fused(branch)), last="all", learning_rate=1e-3)
        before = values(branch)
        train(model)
        assert moved(branch, before) == {"hidden", "end"}

    def test_still_runs_in_inference_mode(self):
        branch = branch_from(trained_model(), name="branch")
        before = np.asarray(features(branch))
        model = unfreeze(keras.Model(branch.input, branch.output), last="all")
        model.compile(keras.optimizers.SGD(0.0), "mae")
        history = model.fit(images(), before, verbose=0)
        penalty = 0.01 * float((values(branch)[0] ** 2).sum())
        assert history.history["loss"][0] == pytest.approx(penalty, rel=1e-3)

    def test_compiles_again_as_it_was_at_the_new_rate(self):
        model = fused(branch_from(trained_model(), name="branch"))
        schedule = keras.optimizers.schedules.CosineDecay(0.1, 100)
        optimizer = keras.optimizers.SGD(schedule, momentum=0.8, nesterov=True)
        loss = keras.losses.Huber(0.3)
        model.compile(optimizer, loss, loss_weights=0.5, metrics=["mae"])
        train(model)
        unfreeze(model, last=1, learning_rate=3e-4)
        assert isinstance(model.optimizer, keras.optimizers.SGD)
        assert model.optimizer is not optimizer
        config = model.optimizer.get_config()
        assert (config["momentum"], config["nesterov"]) == (0.8, True)
        assert float(model.optimizer.learning_rate) == pytest.approx(3e-4)
        assert int(model.optimizer.iterations) == 0
        assert model.loss is loss
        assert model.get_compile_config()["loss_weights"] == 0.5
        assert set(train(model).history) == {"loss", "mae"}

    def test_the_optimizer_inside_a_loss_scaling_one_gets_the_rate(self):
        model = fused(branch_from(trained_model(), name="branch"))
        inner = keras.optimizers.Adam(0.1)
        model.compile(keras.optimizers.LossScaleOptimizer(inner), "mse")
        unfreeze(model, last=1, learning_rate=3e-4)
        assert float(model.optimizer.inner_optimizer.learning_rate) == pytest.approx(3e-4)

    def test_an_uncompiled_model_stays_so_and_fit_compiles_it(self):
        from kfusion import build_fusion_model, fit, tabular_branch

        branch = branch_from(trained_model(), name="branch")
        model = build_fusion_model({"image": branch, "tabular": tabular_branch(2)}, task="binary")
        unfreeze(model, last=1)
        assert not model.compiled
        before = values(branch)
        x, y = data()
        fit(model, x, y[:, 0] > 0, task="binary", validation_data=None, epochs=1, verbose=0)
        assert moved(branch, before) == {"end"}

    def test_calling_it_again_replaces_what_trains(self):
        model = freeze(trained_model())
        unfreeze(model, last="all")
        unfreeze(model, last=["hidden"])
        assert [w.path.split("/")[-2] for w in model.trainable_weights] == ["hidden", "hidden"]

    def test_of_two_branches_the_one_named(self, tmp_path):
        # Two models of one name, with layers of the same names.
        first = branch_from(trained_model(), name="first")
        second = branch_from(trained_model(), name="second", input_name="other")
        model = keras.Model(
            [first.input, second.input],
            layers.Dense(1)(layers.Concatenate()([first(first.input), second(second.input)])),
            name="pair",
        )
        with pytest.raises(ValueError, match=r"'pair': \['first/frozen_trained', 'second/frozen_"):
            unfreeze(model, last=1)
        with pytest.raises(ValueError, match=r"must name one of.* Received: branch='third'"):
            unfreeze(model, last=1, branch="third")
        unfreeze(compiled(model), last=1, branch="second", learning_rate=1e-3)
        before = values(first), values(second)
        model.fit([images(), images(1)], images()[:, 0, 0, :1], verbose=0)
        assert not moved(first, before[0])
        assert moved(second, before[1]) == {"end"}
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(
            loaded.predict([images(), images(1)], verbose=0),
            model.predict([images(), images(1)], verbose=0),
        )
        assert not loaded.get_layer("first").trainable_weights
        assert len(loaded.get_layer("second").trainable_weights) == 2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"last": 0}, "must be from 1 to 4, the number of layers of 'trained'"),
            ({"last": 5}, "must be from 1 to 4, .* Received: last=5"),
            ({"last": True}, "must be a number of layers, a list of their names or"),
            ({"last": "end"}, "a list of their names or \"all\". Received: last='end'"),
            ({"last": []}, "must be a number of layers"),
            ({"last": ["end", "norm"]}, r"no layer\(s\) \['norm'\] that can train .*stem/first"),
            ({"last": 1, "learning_rate": 0}, "`learning_rate` must be above 0"),
            ({"last": 1, "learning_rate": float("nan")}, "`learning_rate` must be above 0"),
        ],
    )
    def test_what_cannot_be_done_is_refused_and_nothing_changes(self, arguments, message):
        model = freeze(trained_model())
        with pytest.raises(ValueError, match=message):
            unfreeze(model, **arguments)
        assert not model.trainable_weights

    def test_a_metric_that_keras_does_not_know_is_refused_and_nothing_changes(self):
        model = freeze(trained_model())
        model.compile("adam", only_known_here, metrics=[only_known_here])
        with pytest.raises(ValueError, match="'trained_frozen' cannot be compiled again"):
            unfreeze(model, last=1)
        assert not model.trainable_weights

    def test_a_model_without_frozen_part_is_refused(self):
        with pytest.raises(ValueError, match="Nothing is frozen in 'trained': `branch_from` and"):
            unfreeze(functional(), last=1)
