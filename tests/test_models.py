"""Branches and whole models: what they take, how they share it, and that they learn."""

import json

import keras
import numpy as np
import pandas as pd
import pytest

from kfusion import (
    TableSchema,
    build_fusion_model,
    build_unimodal_model,
    compile_model,
    edge_branch,
    embedding_branch,
    evaluate,
    fit,
    image_branch,
    predict,
    prediction_model,
    tabular_branch,
    task,
)
from kfusion.layers import BatchEnsembleDense, ConcatFusion, NumberScaling, QuantileScaling
from kfusion.models.building import FUSIONS

SHAPE = (8, 8, 3)


def images(rows, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).integers(256, size=(rows, *shape), dtype=np.uint8)


def table(rows, columns, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def small_pair(**keywords):
    return {
        "image": image_branch(SHAPE, units=8),
        "tabular": tabular_branch(2, units=8),
        **keywords,
    }


class TestImageBranch:
    @pytest.mark.parametrize("channels", [1, 2, 4, 5, 13])
    def test_takes_any_number_of_channels(self, channels):
        shape = (9, 7, channels)
        branch = image_branch(shape, units=6)
        assert branch.inputs[0].dtype == "uint8"
        features = predict(branch, {"image": images(3, shape)})
        assert features.shape == (3, 6)
        assert np.isfinite(features).all()

    @pytest.mark.parametrize(
        ("channels", "expected"),
        [(1, [0, 0, 0]), (2, [0, 1, 0.5]), (4, [0, 1, 2])],
    )
    def test_an_application_gets_three_channels_whatever_there_are(self, channels, expected):
        shape = (32, 32, channels)
        branch = image_branch(shape, backbone="VGG16", units=4)
        taken = keras.Model(branch.inputs[0], branch.get_layer("preprocessing").input)
        given = np.broadcast_to(np.arange(channels, dtype=np.uint8), (1, *shape))
        np.testing.assert_allclose(np.asarray(taken(given))[0, 0, 0], expected, atol=1e-6)

    def test_an_application_of_random_weights_is_not_frozen(self):
        with pytest.raises(ValueError, match="VGG16 without `weights` starts from random ones"):
            image_branch((32, 32, 3), backbone="VGG16", units=4, trainable=False)

    def test_a_backbone_is_frozen_on_request(self):
        backbone = keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(5, 3)])
        branch = image_branch(SHAPE, backbone=backbone, units=4, trainable=False)
        assert len(branch.trainable_weights) == 3  # kernel, gamma and beta of the features

    def test_a_too_small_image_says_to_resize(self):
        with pytest.raises(ValueError, match=r"VGG16 cannot take images of 8x8: .*Pass `resize=`"):
            image_branch(SHAPE, backbone="VGG16")

    def test_resizing_makes_a_small_image_fit(self):
        branch = image_branch(SHAPE, backbone="VGG16", resize=(32, 40), units=4)
        assert branch.inputs[0].shape == (None, *SHAPE)
        assert branch.get_layer("preprocessing").output.shape == (None, 32, 40, 3)

    def test_an_unknown_application_lists_those_there_are(self):
        with pytest.raises(ValueError, match=r"no application 'VGG61' in .*'ResNet50'"):
            image_branch(SHAPE, backbone="VGG61")

    def test_a_backbone_of_ones_own_is_pooled(self):
        backbone = keras.Sequential(
            [keras.Input((None, None, 3)), keras.layers.Conv2D(5, 3)], name="own"
        )
        branch = image_branch(SHAPE, backbone=backbone, units=4)
        assert branch.get_layer("pool").output.shape == (None, 5)

    def test_a_backbone_that_is_neither_name_nor_model_is_refused(self):
        with pytest.raises(TypeError, match='must be "conv", a name in .* backbone=3'):
            image_branch(SHAPE, backbone=3)

    def test_random_weights_are_not_frozen(self):
        with pytest.raises(ValueError, match='"conv" backbone starts from random weights'):
            image_branch(SHAPE, trainable=False)

    @pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3, 1), (8, 0, 3), 8])
    def test_a_shape_that_is_no_image_is_refused(self, shape):
        with pytest.raises((TypeError, ValueError), match="shape"):
            image_branch(shape)

    def test_augmentation_moves_training_images_only(self):
        keras.utils.set_random_seed(0)
        given = images(4)
        for branch in (
            image_branch(SHAPE, units=4, augment=True),
            edge_branch(SHAPE, units=4, augment=keras.layers.RandomRotation(0.5)),
        ):
            inference = [np.asarray(branch(given, training=False)) for _ in range(2)]
            training = [np.asarray(branch(given, training=True)) for _ in range(2)]
            np.testing.assert_array_equal(*inference)
            assert not np.array_equal(*training)


class TestTabularBranch:
    def test_a_table_of_one_column(self):
        branch = tabular_branch(1, units=4)
        assert predict(branch, {"tabular": table(3, 1)}).shape == (3, 4)
        schema = TableSchema.fit(pd.DataFrame({"only": [1.0, 2.0, 4.0]}))
        assert predict(tabular_branch(schema, units=4), {"tabular": table(3, 1)}).shape == (3, 4)

    def test_a_table_of_strings_only(self):
        frame = pd.DataFrame({"kind": ["a", "b", None], "place": ["x", "x", "y"]})
        schema = TableSchema.fit(frame)
        branch = tabular_branch(schema, units=[8, 4])
        features = predict(branch, {"tabular": schema.encode(frame)})
        assert features.shape == (3, 4)
        unseen = schema.encode(pd.DataFrame({"kind": ["zzz"], "place": [""]}))
        assert np.isfinite(predict(branch, {"tabular": unseen})).all()

    def test_flags_only_columns_that_had_some_missing_values(self):
        frame = pd.DataFrame({"full": [1.0, 2.0, 3.0], "holes": [1.0, None, 3.0], "a": list("xyx")})
        schema = TableSchema.fit(frame)
        branch = tabular_branch(schema, units=4)
        assert branch.get_layer("numbers").flagged == [1]
        assert np.isfinite(predict(branch, {"tabular": schema.encode(frame)})).all()

    def test_missing_numbers_without_a_schema_do_not_spread(self):
        given = table(3, 2)
        given[1, 0] = np.nan
        assert np.isfinite(predict(tabular_branch(2, units=4), {"tabular": given})).all()

    def test_numbers_are_scaled_by_rank_unless_asked_otherwise(self):
        frame = pd.DataFrame({"a": np.exp(np.arange(9.0)), "b": [1.0, None, 3.0] * 3})
        schema = TableSchema.fit(frame)
        scaled = tabular_branch(schema).get_layer("numbers")
        assert isinstance(scaled, QuantileScaling)
        assert scaled.quantiles[0] == pytest.approx(np.exp(np.arange(9.0)))
        robust = tabular_branch(schema, numeric_scaling="robust").get_layer("numbers")
        assert isinstance(robust, NumberScaling)
        assert robust.flagged == scaled.flagged == [1]

    def test_a_schema_without_quantiles_must_be_learned_again(self):
        columns = [{"name": "a", "kind": "number", "center": 1, "spread": 1, "missing_rate": 0}]
        old = TableSchema.from_json(json.dumps({"format": 1, "columns": columns}))
        with pytest.raises(ValueError, match=r"no quantiles of \['a'\]: it was saved by an older"):
            tabular_branch(old)
        assert tabular_branch(old, numeric_scaling="robust", units=4).output.shape == (None, 4)

    def test_a_column_without_values_says_nothing(self):
        frame = pd.DataFrame({"a": [1.0, 2.0], "empty": [np.nan, np.nan]})
        branch = tabular_branch(TableSchema.fit(frame, allow_empty=True), units=4)
        given = np.array([[1, np.nan], [1, 5]], np.float32)
        first, second = predict(branch, {"tabular": given})
        np.testing.assert_array_equal(first, second)

    @pytest.mark.parametrize("encoder", ["mlp", "tabm"])
    def test_a_periodic_embedding_leaves_flags_and_categories_alone(self, encoder):
        frame = pd.DataFrame({"a": [1.0, 2, 3], "b": [1.0, None, 3], "c": list("xyx")})
        schema = TableSchema.fit(frame)
        branch = tabular_branch(schema, units=4, encoder=encoder, numeric_embedding="periodic")
        vectors = branch.get_layer("number_vectors")
        widths = [tensor.shape[-1] for tensor in branch.get_layer("columns").input]
        assert widths[0] == 2 * vectors.units + 1
        assert predict(branch, {"tabular": schema.encode(frame)}).shape == (3, 4)
        without_schema = tabular_branch(2, units=4, encoder=encoder, numeric_embedding="periodic")
        assert predict(without_schema, {"tabular": table(3, 2)}).shape == (3, 4)

    def test_an_ensemble_gives_a_vector_as_any_branch(self):
        frame = pd.DataFrame({"a": [1.0, None, 3], "c": list("xyx")})
        schema = TableSchema.fit(frame)
        branch = tabular_branch(schema, units=(8, 4), encoder="tabm", members=3)
        assert predict(branch, {"tabular": schema.encode(frame)}).shape == (3, 4)
        first, second = (branch.get_layer(f"hidden_{i}") for i in (1, 2))
        assert (first.members, second.members) == (3, 3)
        assert (first.random_signs, second.random_signs) == (True, False)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"encoder": "transformer"}, '`encoder` must be "mlp" or "tabm". Received: encoder='),
            ({"numeric_scaling": "minmax"}, '`numeric_scaling` must be "quantile" or "robust"'),
            ({"numeric_embedding": "sine"}, '`numeric_embedding` must be None or "periodic"'),
            ({"members": 0}, "`members` must be 1 or more. Received: members=0"),
            ({"units": ()}, "at least one width"),
            ({"units": (8, 0)}, "at least one width"),
        ],
    )
    def test_arguments_that_make_no_network_are_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            tabular_branch(3, **arguments)

    def test_a_table_without_columns_is_refused(self):
        with pytest.raises(ValueError, match="at least one column. Received: 0"):
            tabular_branch(0)


class TestSharedInputs:
    def test_an_image_and_an_edge_branch_share_one_input(self):
        model = build_fusion_model(
            {"edges": edge_branch(SHAPE, units=4), **small_pair()}, task="binary"
        )
        assert sorted(model.input) == ["image", "tabular"]
        x = {"image": images(3), "tabular": table(3, 2)}
        assert predict(model, x).shape == (3, 1)

    def test_branches_that_disagree_on_a_shared_input_are_refused(self):
        with pytest.raises(ValueError, match=r"share the input 'image' but disagree.*input_name"):
            build_fusion_model(
                {"image": image_branch(SHAPE), "edges": edge_branch((8, 8, 1))}, task="binary"
            )

    def test_branches_of_one_name_are_told_apart_on_request(self):
        same = {"first": tabular_branch(2), "second": tabular_branch(2)}
        with pytest.raises(ValueError, match="Two branches are named 'tabular_branch': pass `name"):
            build_fusion_model(same, task="binary")
        renamed = {"first": tabular_branch(2), "second": tabular_branch(2, name="other")}
        assert list(build_fusion_model(renamed, task="binary").input) == ["tabular"]

    def test_a_branch_named_as_an_input_is_refused(self):
        table = tabular_branch(2)
        own = embedding_branch(4, input_name="sound", name="sound")
        message = "Branch 'heard' is named as the input 'sound'.*another `name=` or `input_name=`"
        with pytest.raises(ValueError, match=message):
            build_fusion_model({"heard": own, "table": table}, task="binary")
        other = embedding_branch(4, input_name="voice", name="tabular")
        with pytest.raises(ValueError, match="Branch 'voice' is named as the input 'tabular'"):
            build_fusion_model({"voice": other, "table": table}, task="binary")
        with pytest.raises(ValueError, match="Branch 'sound' is named as the input 'sound'"):
            build_unimodal_model(own, task="binary")

    @pytest.mark.parametrize("taken", ["fusion", "prediction", "head_1", "modality_dropout"])
    def test_a_branch_named_as_a_layer_behind_it_is_refused(self, taken):
        image = image_branch(SHAPE)
        named = tabular_branch(2, name=taken)
        fed = embedding_branch(4, input_name=taken, name="embedding_branch")
        for other in (named, fed):
            with pytest.raises(
                ValueError, match=f"'other' or its input cannot be called '{taken}'"
            ):
                build_fusion_model({"image": image, "other": other}, task="binary")

    def test_features_that_are_no_vector_are_refused(self):
        inputs = keras.Input((6, 2), name="sound")
        sequence = keras.Model(inputs, keras.layers.Conv1D(5, 3)(inputs))
        with pytest.raises(ValueError, match=r"'sound' must give a vector .*branch_from.*pools"):
            build_fusion_model({"sound": sequence, **small_pair()}, task="binary")

    @pytest.mark.parametrize("branches", [["image"], {"image": image_branch}, None])
    def test_branches_must_be_models_by_name(self, branches):
        with pytest.raises(TypeError, match="must be a dict of Keras models by name"):
            build_fusion_model(branches, task="binary")

    @pytest.mark.parametrize("number", [0, 1])
    def test_a_fusion_joins_at_least_two(self, number):
        with pytest.raises(ValueError, match="`build_unimodal_model` takes one"):
            build_fusion_model(dict(list(small_pair().items())[:number]), task="binary")


class TestFusionByName:
    @pytest.mark.parametrize("fusion", [*FUSIONS, ConcatFusion(normalize=False)])
    def test_every_fusion_makes_a_model(self, fusion):
        model = build_fusion_model(
            small_pair(), task=task("multiclass", num_classes=3), fusion=fusion, head_depth=0
        )
        probabilities = predict(model, {"image": images(3), "tabular": table(3, 2)})
        assert probabilities.shape == (3, 3)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)

    def test_an_unknown_fusion_lists_those_there_are(self):
        with pytest.raises(ValueError, match=r"one of \['concat', 'cross_attention'.*fusion='add'"):
            build_fusion_model(small_pair(), task="binary", fusion="add")

    def test_a_fusion_that_is_no_layer_is_refused(self):
        with pytest.raises(TypeError, match="must be a layer or a name"):
            build_fusion_model(small_pair(), task="binary", fusion=ConcatFusion)


def test_auxiliary_heads_predict_beside_and_are_left_out_again():
    model = build_fusion_model(small_pair(), task="binary", auxiliary_heads=True)
    assert sorted(model.output) == ["image_prediction", "prediction", "tabular_prediction"]
    x = {"image": images(16), "tabular": table(16, 2)}
    alone = prediction_model(model)
    before = predict(alone, x)
    np.testing.assert_allclose(predict(model, x), before, rtol=1e-5)
    heads = {name: model.get_layer(name).get_weights()[0] for name in model.output}
    y = np.arange(16) % 2
    fit(model, x, y, task="binary", validation_data=(x, y), epochs=1, verbose=0)
    for name, kernel in heads.items():
        assert not np.array_equal(model.get_layer(name).get_weights()[0], kernel), name
    # The weights are shared: what trained is what predicts.
    assert not np.array_equal(predict(alone, x), before)
    np.testing.assert_allclose(predict(alone, x), predict(model, x), rtol=1e-5)
    assert prediction_model(alone) is alone


class TestAnEnsembleAlone:
    @pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
    def test_averages_what_its_members_predict(self, kind):
        y = table(64, 1)[:, 0] * 50 + 700 if kind == "regression" else np.arange(64) % 3
        made = task(kind, y=y % 2 if kind == "binary" else y)
        branch = tabular_branch(2, units=8, encoder="tabm", members=4)
        model = build_unimodal_model(branch, task=made, head_units=6)
        outputs = model({"tabular": table(5, 2)})
        members = np.asarray(outputs["member_predictions"])
        assert members.shape == (5, 4, made.units)
        assert np.ptp(members, axis=1).min() > 0
        np.testing.assert_allclose(outputs["prediction"], members.mean(axis=1), rtol=1e-6)
        if kind == "multiclass":
            np.testing.assert_allclose(members.sum(axis=-1), 1, rtol=1e-5)
        alone = prediction_model(model)
        np.testing.assert_allclose(
            predict(alone, {"tabular": table(5, 2)}), outputs["prediction"], rtol=1e-5
        )

    def test_starts_at_the_class_rates(self):
        made = task("multiclass", y=[0] * 6 + [1] * 3 + [2])
        branch = tabular_branch(2, units=4, encoder="tabm", members=3)
        model = build_unimodal_model(branch, task=made, head_depth=0)
        model.get_layer("member_predictions").kernel.assign(np.zeros((3, 4, 3)))
        started = predict(model, {"tabular": table(5, 2)})
        np.testing.assert_allclose(started, np.tile([0.6, 0.3, 0.1], (5, 1)), rtol=1e-5)

    def test_has_a_head_of_the_depth_asked_for(self):
        branch = tabular_branch(2, units=4, encoder="tabm", members=3)
        model = build_unimodal_model(branch, task="binary", head_units=6, head_depth=2, dropout=0.1)
        for name in ("head_1", "head_2"):
            layer = model.get_layer(name)
            assert isinstance(layer, BatchEnsembleDense)
            assert (layer.units, layer.members, layer.dropout) == (6, 3, 0.1)

    @pytest.mark.parametrize("kind", ["binary", "regression"])
    def test_trains_each_member_by_its_own_loss_and_is_scored_by_the_mean(self, kind):
        x, y = {"tabular": table(96, 2)}, np.arange(96) % 2
        if kind == "regression":
            y = (300_000 + 80_000 * x["tabular"][:, 0]).astype(np.float32)
        made = task(kind, y=y)
        branch = tabular_branch(2, units=8, encoder="tabm", members=4)
        model = build_unimodal_model(branch, task=made, head_depth=0)
        compile_model(model, task=made)
        given = dict.fromkeys(model.output, y)
        reported = model.evaluate(x, given, batch_size=96, verbose=0, return_dict=True)["loss"]
        members = np.asarray(model(x)["member_predictions"], np.float64)
        alone = [made.scores(y, members[:, i])["loss"] for i in range(4)]
        assert reported == pytest.approx(np.mean(alone), rel=1e-4)
        told = fit(model, x, y, task=made, validation_data=(x, y), epochs=2, verbose=0)
        scores = evaluate(model, x, y, task=made)
        kept = told.history["val_loss"][told.best_epoch]
        assert scores["loss"] == pytest.approx(kept, rel=1e-4)
        assert scores["loss"] < np.mean(
            [
                made.scores(y, np.asarray(model(x)["member_predictions"], np.float64)[:, i])["loss"]
                for i in range(4)
            ]
        )

    @pytest.mark.parametrize(
        "keywords",
        [
            {"loss": "focal"},
            {"balanced_batches": True},
            {"class_weight": "balanced"},
            {"label_smoothing": 0.1},
        ],
        ids=lambda keywords: next(iter(keywords)),
    )
    def test_every_way_of_training_reaches_its_members(self, keywords):
        keras.utils.set_random_seed(0)
        x = {"tabular": table(200, 2)}
        y = (x["tabular"][:, 0] > 0.8).astype(int)
        branch = tabular_branch(2, units=8, encoder="tabm", members=4)
        model = build_unimodal_model(branch, task=task("binary", y=y), head_depth=0)
        fit(
            model,
            x,
            y,
            task="binary",
            validation_data=(x, y),
            epochs=20,
            learning_rate=1e-2,
            seed=0,
            verbose=0,
            **keywords,
        )
        assert evaluate(model, x, y, task="binary")["auc"] > 0.95

    def test_predicts_the_same_after_saving_and_loading(self, tmp_path):
        branch = tabular_branch(2, units=8, encoder="tabm", members=4)
        model = build_unimodal_model(branch, task="binary")
        x, y = {"tabular": table(16, 2)}, np.arange(16) % 2
        fit(model, x, y, task="binary", validation_data=(x, y), epochs=1, verbose=0)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(predict(loaded, x), predict(model, x))

    def test_a_branch_that_pools_a_sequence_is_no_ensemble(self):
        inputs = keras.Input((6, 2), name="tabular")
        pooled = keras.layers.GlobalAveragePooling1D()(inputs)
        model = build_unimodal_model(keras.Model(inputs, pooled), task="binary")
        assert model.output.shape == (None, 1)


class TestStepZero:
    @pytest.mark.parametrize("rate", [0.02, 0.5])
    def test_a_binary_head_without_features_says_the_rate(self, rate):
        y = (np.arange(100) < 100 * rate).astype(int)
        model = build_fusion_model(small_pair(), task=task("binary", y=y))
        kernel = model.get_layer("prediction").kernel
        kernel.assign(np.zeros(kernel.shape))
        started = predict(model, {"image": images(50), "tabular": table(50, 2)})
        np.testing.assert_allclose(started, np.full((50, 1), rate), rtol=1e-5)

    def test_a_multiclass_head_without_features_says_the_rates(self):
        made = task("multiclass", y=[0] * 6 + [1] * 3 + [2])
        model = build_unimodal_model(tabular_branch(2, units=4), task=made, head_depth=0)
        model.get_layer("prediction").kernel.assign(np.zeros((4, 3)))
        started = predict(model, {"tabular": table(5, 2)})
        np.testing.assert_allclose(started, np.tile([0.6, 0.3, 0.1], (5, 1)), rtol=1e-5)

    def test_a_regression_starts_near_the_mean(self):
        y = np.random.default_rng(0).normal(300_000, 80_000, size=100)
        model = build_unimodal_model(tabular_branch(2), task=task("regression", y=y))
        started = predict(model, {"tabular": table(50, 2)})
        assert np.median(started) == pytest.approx(300_000, abs=80_000)


def test_vgg16_trains_a_step_at_64_by_64():
    model = build_unimodal_model(
        image_branch((64, 64, 3), backbone="VGG16", units=4), task="binary", head_units=4
    )
    kernel = model.get_layer("image_branch").get_layer("vgg16").trainable_weights[0]
    before = np.asarray(kernel)
    x, y = {"image": images(4, (64, 64, 3))}, np.array([0, 1, 0, 1])
    fit(model, x, y, task="binary", validation_data=None, epochs=1, verbose=0)
    assert not np.array_equal(np.asarray(kernel), before)
    assert np.isfinite(predict(model, x)).all()


class TestLearns:
    """The target is the XOR of the image's brightness and the sign of one column."""

    @staticmethod
    def draw(rows, seed):
        generator = np.random.default_rng(seed)
        bright, positive = generator.integers(2, size=(2, rows))
        pixels = generator.integers(100, size=(rows, *SHAPE)) + 150 * bright[:, None, None, None]
        column = (2 * positive - 1) * generator.uniform(0.2, 2, size=rows)
        x = {"image": pixels.astype(np.uint8), "tabular": column[:, None].astype(np.float32)}
        return x, bright ^ positive

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls):
        return cls.draw(640, 0), cls.draw(320, 1), cls.draw(400, 2)

    def train(self, model, data):
        train, validation, test = data
        fit(
            model,
            *train,
            task="binary",
            validation_data=validation,
            epochs=15,
            batch_size=32,
            learning_rate=5e-3,
            patience=5,
            seed=0,
            verbose=0,
        )
        return evaluate(model, *test, task="binary")["accuracy"]

    @pytest.mark.parametrize("fusion", ["concat", "multiply"])
    def test_what_neither_input_tells_alone(self, data, fusion):
        keras.utils.set_random_seed(0)
        branches = {
            "image": image_branch(SHAPE, units=16),
            "tabular": tabular_branch(1, units=16),
        }
        model = build_fusion_model(branches, task="binary", fusion=fusion, head_units=32)
        assert self.train(model, data) > 0.9

    @pytest.mark.parametrize(
        "branch", [image_branch(SHAPE, units=16), tabular_branch(1, units=16)], ids=lambda b: b.name
    )
    def test_and_each_input_alone_guesses(self, data, branch):
        model = build_unimodal_model(branch, task="binary", head_units=32)
        assert self.train(model, data) == pytest.approx(0.5, abs=0.1)


def test_learns_a_regression_far_from_zero():
    keras.utils.set_random_seed(0)
    x = {"tabular": table(400, 3)}
    y = 300_000 + 80_000 * x["tabular"][:, 0]
    made = task("regression", y=y[:300])
    model = build_unimodal_model(tabular_branch(3, units=16), task=made, head_units=16)
    train, held = ({"tabular": x["tabular"][rows]} for rows in (slice(300), slice(300, None)))
    fit(
        model,
        train,
        y[:300],
        task=made,
        validation_data=(held, y[300:]),
        epochs=30,
        batch_size=32,
        learning_rate=1e-2,
        seed=0,
        verbose=0,
    )
    scores = evaluate(model, held, y[300:], task=made)
    assert scores["r2"] > 0.5
    assert scores["rmse"] < 60_000
    assert scores["loss"] == pytest.approx((scores["rmse"] / made.spread) ** 2)


def test_compiling_alone_is_enough_for_keras_own_fit():
    model = build_unimodal_model(tabular_branch(2, units=4), task="binary", head_units=4)
    compile_model(model, task="binary")
    history = model.fit({"tabular": table(8, 2)}, np.arange(8) % 2, epochs=1, verbose=0)
    assert set(history.history) == {"loss", "accuracy"}
