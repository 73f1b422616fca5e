"""Systems that users asked about: their networks to the number, their promises on tiny data."""

import keras
import keras_tuner
import numpy as np
import pytest

from kfusion import evaluate, overfit_score, task
from kfusion.datasets import load_landcover
from kfusion.optimizers import LEARNING_RATES
from kfusion.recipes import (
    build_intermediary_space,
    build_perceptron,
    depth_study,
    intermediary_space,
    optimizer_study,
    stack_frozen_models,
    vgg16_with_table,
)
from kfusion.recipes.intermediary_space import IntermediarySpace

pytestmark = pytest.mark.usefixtures("eagerly")

RANDOM = np.random.default_rng(0)


def of_parts(x, y, *edges):
    """`(x, y)` of consecutive rows."""
    starts = [0, *edges]
    return [
        ({name: array[a:b] for name, array in x.items()}, y[a:b])
        for a, b in zip(starts, [*edges, len(y)], strict=True)
    ]


@pytest.mark.slow
class TestStack:
    NAMES = ("brightness", "noise")

    @pytest.fixture(scope="class")
    @staticmethod
    def rare():
        """One row in ten is positive; brightness tells, and a little the first pixel."""
        images = RANDOM.integers(256, size=(300, 4, 4, 1), dtype="uint8")
        signal = images.mean((1, 2, 3)) + images[:, 0, 0, 0] / 8
        return of_parts(
            {"image": images}, (signal > np.quantile(signal, 0.9)).astype(int), 160, 240
        )

    @pytest.fixture(scope="class")
    @staticmethod
    def networks(rare):
        """One that has learned something and one that has not."""
        keras.utils.set_random_seed(0)
        layers = keras.layers
        made = {
            name: keras.Sequential(
                [
                    keras.Input((4, 4, 1), name=f"{name}_pixels"),
                    layers.Rescaling(1 / 127.5, offset=-1),
                    layers.Flatten(),
                    layers.Dense(8, activation="tanh"),
                    layers.BatchNormalization(),
                    layers.Dropout(0.5),
                    layers.Dense(1, activation="sigmoid"),
                ],
                name=name,
            )
            for name in TestStack.NAMES
        }
        trained = made["brightness"]
        trained.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
        trained.fit(rare[0][0]["image"], rare[0][1], epochs=15, verbose=0)
        return made

    @pytest.fixture(scope="class")
    @staticmethod
    def stacked(rare, networks):
        before = {name: network.get_weights() for name, network in networks.items()}
        stack = stack_frozen_models(
            networks,
            *rare[0],
            task=task("binary", y=rare[0][1]),
            validation_data=rare[1],
            test_data=rare[2],
            balanced_batches=True,
            epochs=3,
            verbose=0,
        )
        return stack, before

    def test_it_starts_from_the_best_and_never_ends_below_it(self, stacked):
        stack, _ = stacked
        assert stack.best == "brightness"
        assert stack.scores["brightness"] > stack.scores["noise"]
        assert stack.score >= stack.scores["brightness"]

    def test_scores_are_those_of_the_models_themselves(self, stacked, rare, networks):
        stack, _ = stacked
        x, y = rare[1]
        said = np.asarray(networks["noise"](x["image"].astype("float32")))[:, 0]
        pairs = said[y == 1][:, None] - said[y == 0][None]
        assert stack.scores["noise"] == pytest.approx(
            np.mean((pairs > 0) + 0.5 * (pairs == 0)), abs=1e-6
        )
        assert stack.score == pytest.approx(evaluate(stack.model, x, y, task="binary")["auc"])

    def test_frozen_is_frozen_to_the_bit(self, stacked, networks):
        _, before = stacked
        for name, network in networks.items():
            for old, new in zip(before[name], network.get_weights(), strict=True):
                np.testing.assert_array_equal(old, new)

    def test_the_difference_has_an_interval_on_rows_that_chose_nothing(self, stacked):
        stack, _ = stacked
        assert stack.judged_on == "test"
        assert stack.comparison.names == ("the stack", "brightness")
        assert stack.comparison.low <= stack.comparison.difference <= stack.comparison.high
        assert stack.comparison.verdict in stack.summary()

    def test_disagreements_are_counted_row_by_row(self, stacked, rare, networks):
        stack, _ = stacked
        x, y = rare[2]
        # As many as are positive are called so.
        right = {}
        for name, network in networks.items():
            said = np.asarray(network(x["image"].astype("float32")))[:, 0]
            called = np.isin(np.arange(len(y)), np.argsort(-said)[: y.sum()])
            right[name] = called == y
        assert np.any(right["noise"] != right["brightness"])
        (row,) = stack.disagreements.to_dict("records")
        assert row["model"] == "noise"
        assert row["it_alone_right"] == np.sum(right["noise"] & ~right["brightness"])
        assert row["best_alone_right"] == np.sum(~right["noise"] & right["brightness"])
        assert row["rows"] == len(y)
        assert -1 <= row["rank_correlation"] <= 1

    def test_without_test_rows_it_says_which_rows_judge(self, rare, networks):
        stack = stack_frozen_models(
            networks, *rare[0], task="binary", validation_data=rare[1], epochs=1, verbose=0
        )
        assert stack.judged_on == "validation"
        assert "were chosen on these rows" in stack.summary()


@pytest.mark.slow
class TestImageWithTable:
    ROWS = 80

    @pytest.fixture(scope="class")
    @staticmethod
    def rows():
        rows = TestImageWithTable.ROWS
        x = {
            "image": RANDOM.integers(256, size=(rows, 8, 8, 3), dtype="uint8"),
            "tabular": RANDOM.normal(size=(rows, 2)).astype("float32"),
        }
        return x, (x["tabular"][:, 0] > 0).astype(int)

    def test_all_meet_the_same_folds_and_means_are_those_of_the_comparison(self, rows):
        found = vgg16_with_table(
            *rows, backbone="conv", with_broken_join=True, folds=2, epochs=6, verbose=0
        )
        assert list(found.scores) == [
            "image alone",
            "table alone",
            "fused",
            "sigmoid beside relu",
        ]
        tests = [
            [r.fold.test.tolist() for r in cv.folds] for cv in found.comparison.results.values()
        ]
        assert all(folds == tests[0] for folds in tests)
        assert sorted(np.concatenate(tests[0]).tolist()) == list(range(self.ROWS))
        assert found.comparison.singles == ("image alone", "table alone")
        # The column tells all, the pixels nothing.
        assert found.scores["table alone"].mean() > 0.8 > found.scores["image alone"].mean()
        means = found.comparison.to_frame().set_index("name")["mean"]
        assert found.scores.mean().to_dict() == pytest.approx(means.to_dict())
        assert found.comparison.verdict in found.summary()

    @pytest.mark.parametrize("name", ["y", "groups"])
    def test_what_fusion_data_bring_is_not_given_twice(self, name):
        data = load_landcover()[:20]
        with pytest.raises(TypeError, match=f"`{name}` goes beside a dict: FusionData brings"):
            vgg16_with_table(data, **{name: np.arange(20)})

    def test_vgg16_without_a_download(self, rows):
        # Images of 8 pixels a side are enlarged to the 32 that VGG16 takes.
        split = [(np.arange(48), np.arange(48, self.ROWS))]
        found = vgg16_with_table(*rows, folds=split, epochs=1, batch_size=32, verbose=0)
        assert found.scores.shape == (1, 3)
        assert found.scores.notna().all(axis=None)


@pytest.mark.slow
class TestDepthStudy:
    @pytest.fixture(scope="class")
    @staticmethod
    def rows():
        x = RANDOM.normal(size=(96, 2)).astype("float32")
        return x, (x[:, 0] > 0).astype("int32")

    @staticmethod
    def build(hp):
        model = keras.Sequential([keras.Input((2,))])
        for _ in range(hp.Int("layers", 1, 3)):
            model.add(keras.layers.Dense(4, activation="relu"))
        model.add(keras.layers.Dense(1, activation="sigmoid"))
        rate = hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")
        model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
        return model

    def run(self, rows, directory, **keywords):
        x, y = rows
        return depth_study(
            self.build,
            x[:64],
            y[:64],
            validation_data=(x[64:], y[64:]),
            directory=directory,
            epochs=4,
            class_names=["left", "right"],
            **keywords,
        )

    def test_every_depth_is_completed_and_nothing_pruned(self, rows, tmp_path):
        study = self.run(rows, tmp_path, max_trials=3, min_trials_per_choice=1)
        assert study.completed("layers") == {"1": 1, "2": 1, "3": 1}
        assert set(study.analysis.trials["state"]) == {"completed"}
        assert study.best["val_accuracy"] == study.analysis.trials["value"].max()
        assert {"values", "history", "learning_curves", "confusion"} <= {
            path.stem for path in study.pictures
        }
        assert all(path.stat().st_size > 1000 for path in study.pictures)

    def test_trials_stop_by_themselves(self, rows, tmp_path):
        x, y = rows
        # What is learned is wrong for the rows that judge: their loss rises from the start.
        lengths = {}
        for patience in (1, None):
            study = depth_study(
                self.build,
                x[:64],
                y[:64],
                validation_data=(x[64:], 1 - y[64:]),
                directory=tmp_path / str(patience),
                max_trials=1,
                epochs=4,
                patience=patience,
            )
            (history,) = study.analysis.histories.values()
            lengths[patience] = len(history["loss"])
        assert lengths == {1: 2, None: 4}

    def test_aggressive_pruning_gives_trials_up(self, rows, tmp_path):
        study = self.run(rows, tmp_path, max_trials=4, aggressive_pruning=True)
        assert "pruned" in set(study.analysis.trials["state"])


class TestOptimizerStudy:
    def test_the_perceptron_on_cifar10_has_the_parameters_of_the_question(self):
        # 32 * 32 * 3 = 3,072 pixels.
        by_hand = (3072 * 1000 + 1000) + (1000 * 1000 + 1000) + (1000 * 10 + 10)
        assert by_hand == 4_084_010
        for dropout in (False, True):
            model = build_perceptron((32, 32, 3), 10, dropout=dropout)
            assert model.count_params() == by_hand
            assert [w.shape for w in model.get_weights()] == [
                (3072, 1000),
                (1000,),
                (1000, 1000),
                (1000,),
                (1000, 10),
                (10,),
            ]

    def test_its_layers_are_those_of_the_question(self):
        plain = build_perceptron((32, 32, 3), 10, scaled=False, l2=0.01)
        assert [type(layer).__name__ for layer in plain.layers] == [
            "Flatten",
            "Dense",
            "Dense",
            "Dense",
        ]
        for layer in plain.layers[1:3]:
            assert layer.activation is keras.activations.relu
            assert isinstance(layer.kernel_initializer, keras.initializers.HeNormal)
            # Keras' "l2".
            assert (
                layer.kernel_regularizer.get_config() == keras.regularizers.get("l2").get_config()
            )
        assert plain.layers[3].activation is keras.activations.softmax
        assert plain.layers[3].kernel_regularizer is None
        thinned = build_perceptron((32, 32, 3), 10, scaled=False, dropout=True)
        assert [getattr(layer, "rate", type(layer).__name__) for layer in thinned.layers] == [
            "Flatten",
            0.2,
            "Dense",
            0.5,
            "Dense",
            0.5,
            "Dense",
        ]
        assert all(getattr(layer, "kernel_regularizer", None) is None for layer in thinned.layers)

    @pytest.fixture(scope="class")
    @staticmethod
    def rows():
        """Two classes of grey 4 x 4 images: the left half is brighter, or the right."""
        y = np.arange(128) % 2
        images = RANDOM.integers(120, size=(128, 4, 4))
        images[y == 0, :, :2] += 100
        images[y == 1, :, 2:] += 100
        return images[:96], y[:96, None], images[96:], y[96:, None]

    @pytest.mark.slow
    def test_cured_all_learn_at_rates_that_fit(self, rows):
        study = optimizer_study(*rows, units=64, epochs=12, batch_size=16, dropout=[False])
        names = ["Adagrad", "Adadelta", "RMSprop", "Adam", "Nadam"]
        assert study.table["optimizer"].tolist() == names
        usual = [LEARNING_RATES[name.lower()] for name in names]
        assert study.table["learning_rate"].tolist() == pytest.approx(usual)
        assert (study.table["test_accuracy"] > 0.9).all()
        assert (study.table["penalty_share"] * study.table["loss"] < 0.02).all()

    @pytest.mark.slow
    def test_both_networks_are_trained_and_drawn(self, rows):
        study = optimizer_study(*rows, optimizers=["Adam"], units=8, epochs=2)
        assert study.table["dropout"].tolist() == [False, True]
        assert list(study.histories) == ["Adam", "Adam with dropout"]
        assert study.table["penalty_share"][0] > 0 == study.table["penalty_share"][1]
        assert study.table["loss"][0] == pytest.approx(study.histories["Adam"]["loss"][-1], rel=0.2)
        figure = study.plot()
        # Test rows and training rows, of accuracy and loss, without dropout and with it.
        assert [len(ax.lines) for ax in figure.axes] == [2, 2, 2, 2]

    def test_optimizers_have_keras_own_rates_where_it_is_broken(self):
        for name in ("Adagrad", "Adadelta", "RMSprop", "Adam", "Nadam"):
            assert float(keras.optimizers.get(name).learning_rate) == pytest.approx(0.001)

    @pytest.mark.slow
    def test_broken_the_penalty_outweighs_the_loss(self, rows):
        study = optimizer_study(
            *rows, optimizers=["Adadelta"], units=64, epochs=1, dropout=[False], broken=True
        )
        # He: variance 2 / inputs, so 16 * 64 * 2 / 16 + 64 * 64 * 2 / 64 = 256 squares, of which
        # 0.01 is 2.56 at the start; Adadelta at a rate of 0.001 leaves it there.
        (adadelta,) = study.table.to_dict("records")
        assert adadelta["learning_rate"] == pytest.approx(0.001)
        assert adadelta["penalty_share"] * adadelta["loss"] == pytest.approx(2.56, rel=0.15)

    def test_pixels_that_are_scaled_already_are_refused(self, rows):
        with pytest.raises(ValueError, match="must lie in 0-255. Received: values from 0 to 0.8"):
            optimizer_study(rows[0] / rows[0].max() * 0.8, *rows[1:], epochs=1)


class TestIntermediarySpace:
    def test_layers_and_parameters_are_those_of_the_original(self):
        # S = 28 and 4 classes, by hand from its code, PyTorch's floor((n + 2 p - k) / s) + 1.
        # Image of 256: (256 + 4 - 11) // 4 + 1 = 63, (63 - 3) // 2 + 1 = 31, 15, 15, 15 and
        # (15 - 3) // 2 + 1 = 7: S * 7 * 7 = 1,372 features.
        # Edges of 224: (224 + 4 - 11) // 4 + 1 = 55, 27, 13, 13 and 6: S * 6 * 6 = 1,008.
        model = build_intermediary_space((256, 256, 3), (224, 224, 1), 28, 0.5, 4)
        shapes = {layer.name: layer.output.shape[1:] for layer in model.layers}
        expected = {
            "image_conv_1": (63, 63, 56),
            "image_pool_1": (31, 31, 56),
            "image_conv_2": (31, 31, 56),
            "image_pool_2": (15, 15, 56),
            "image_conv_3": (15, 15, 56),
            "image_conv_4": (15, 15, 28),
            "image_pool_4": (7, 7, 28),
            "image_flat": (1372,),
            "image_dense": (56,),
            "edges_conv_1": (55, 55, 56),
            "edges_pool_1": (27, 27, 56),
            "edges_conv_2": (27, 27, 56),
            "edges_pool_2": (13, 13, 56),
            "edges_conv_3": (13, 13, 28),
            "edges_pool_3": (6, 6, 28),
            "edges_flat": (1008,),
            "edges_dense": (56,),
            "joined": (112,),
            "dense_1": (84,),
            "dense_2": (28,),
            "dense_3": (4,),
        }
        assert {name: shapes[name] for name in expected} == expected
        counts = {layer.name: layer.count_params() for layer in model.layers if layer.weights}
        assert counts == {
            "image_conv_1": 11 * 11 * 3 * 56 + 56,  # 20,384
            "image_conv_2": 5 * 5 * 56 * 56 + 56,  # 78,456
            "image_conv_3": 3 * 3 * 56 * 56 + 56,  # 28,280
            "image_conv_4": 3 * 3 * 56 * 28 + 28,  # 14,140
            "image_dense": 1372 * 56 + 56,  # 76,888
            "edges_conv_1": 11 * 11 * 1 * 56 + 56,  # 6,832
            "edges_conv_2": 5 * 5 * 56 * 56 + 56,  # 78,456
            "edges_conv_3": 3 * 3 * 56 * 28 + 28,  # 14,140
            "edges_dense": 1008 * 56 + 56,  # 56,504
            "dense_1": 112 * 84 + 84,  # 9,492
            "dense_2": 84 * 28 + 28,  # 2,380
            "dense_3": 28 * 4 + 4,  # 116
        }
        assert model.count_params() == 386_068

    def test_images_of_224_do_not_fit_the_image_line_of_the_original(self):
        # 55, 27, 13, 6: S * 6 * 6 = 1,008 where the original's line takes S * 7 * 7 = 1,372.
        model = build_intermediary_space((224, 224, 3), (224, 224, 1), 28, 0.5, 4)
        assert model.get_layer("image_pool_4").output.shape[1:] == (6, 6, 28)
        # 386,068 less (1,372 - 1,008) * 56 = 20,384 weights of that line.
        assert model.count_params() == 365_684

    @pytest.mark.parametrize(
        ("side", "flat"), [(222, 25), (223, 36), (254, 36), (255, 49), (286, 49), (287, 64)]
    )
    def test_sides_for_which_each_line_is_right(self, side, flat):
        model = build_intermediary_space((side, side, 3), (side, side, 1), 1, 0.5, 4)
        assert model.get_layer("image_flat").output.shape == (None, flat)
        assert model.get_layer("edges_flat").output.shape == (None, flat)

    def test_dropout_rises_to_the_main_rate(self):
        model = build_intermediary_space((63, 63, 3), None, 8, 0.5, 4)
        rates = {
            layer.name: layer.rate
            for layer in model.layers
            if isinstance(layer, keras.layers.Dropout)
        }
        assert rates == pytest.approx(
            {
                "image_dropout_1": 0.1,
                "image_dropout_2": 0.2,
                "image_dropout_3": 0.3,
                "image_dropout_flat": 0.4,
                "edges_dropout_1": 0.2,
                "edges_dropout_2": 0.3,
                "edges_dropout_flat": 0.4,
                "dropout_1": 0.5,
                "dropout_2": 0.5,
                "dropout_3": 0.5,
            }
        )

    def test_the_space_is_that_of_the_original(self):
        hp = keras_tuner.HyperParameters()
        model = IntermediarySpace((63, 63, 3), None, task=task("multiclass", num_classes=4)).build(
            hp
        )
        ranges = {
            each.name: (each.min_value, each.max_value)
            for each in hp.space
            if hasattr(each, "min_value")
        }
        assert ranges == {
            "layer_size": (8, 28),
            "dropout": (0.3, 0.7),
            "l2": (1e-4, 1e-1),
            "decay_factor": (0.3, 0.8),
        }
        assert isinstance(model.optimizer, keras.optimizers.Adam)
        assert float(model.optimizer.learning_rate) == pytest.approx(0.001)

    def test_small_images_say_what_to_do(self):
        with pytest.raises(ValueError, match=r"image of 24 x 24; pass `resize=\(63, 63\)`"):
            build_intermediary_space((24, 24, 3), None, 8, 0.5, 4)

    def test_values_of_other_names_cannot_be_picked(self, tmp_path):
        with pytest.raises(
            ValueError, match=r"`picked` must .*Received also: \['dropuot', 'units'\]"
        ):
            intermediary_space(
                {},
                [],
                task=task("multiclass", num_classes=3),
                validation_data=({}, []),
                directory=tmp_path,
                picked={"units": 8, "l2": 0.01, "dropuot": 0.5},
            )

    @pytest.mark.slow
    def test_search_and_longer_training(self, tmp_path):
        x = {"image": RANDOM.integers(256, size=(72, 8, 8, 3), dtype="uint8")}
        y = np.arange(72) % 3
        train, validation, test = of_parts(x, y, 40, 56)
        study = intermediary_space(
            *train,
            task=task("multiclass", y=train[1]),
            validation_data=validation,
            test_data=test,
            directory=tmp_path,
            max_trials=2,
            epochs=2,
            final_epochs=1,
            final_batch_size=20,
            resize=(63, 63),
            verbose=0,
        )
        trials = study.analysis.trials
        for trial in study.tuner.oracle.get_best_trials(2):
            metrics = {
                name: trial.metrics.get_last_value(name) for name in ("accuracy", "val_accuracy")
            }
            assert trial.score == overfit_score(*metrics.values(), chance=1 / 3)
        assert study.picked["layer_size"] == trials["layer_size"].max()
        assert study.picked["dropout"] == pytest.approx(trials["dropout"].mean())
        assert study.picked["l2"] == pytest.approx(trials["l2"].mean())
        assert (study.picked["decay_factor"], study.picked["learning_rate"]) == (0.5, 1e-4)
        assert float(study.model.optimizer.learning_rate) == pytest.approx(1e-4)
        assert study.model.get_layer("dense_2").units == study.picked["layer_size"]
        assert set(study.scores) == {"train", "validation", "test"}
        assert study.scores["test"] == evaluate(
            study.model, *test, task=task("multiclass", num_classes=3)
        )
        assert list((tmp_path / "logs").rglob("events.*"))
        assert (tmp_path / "pictures" / "history.png").stat().st_size > 1000
