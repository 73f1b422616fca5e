"""All checks of the wiring: silent on healthy models, harmless to any, and raised by none."""

import keras
import numpy as np
import pytest
from doctor_cases import make_case
from keras import layers
from sklearn.datasets import load_digits

import kfusion
from kfusion.doctor.case import Case, Rows
from kfusion.doctor.findings import Finding, Undecided
from kfusion.doctor.wiring_checks import CHECKS
from kfusion.validation.baselines import default_branches

PIXELS, DIGITS = load_digits(return_X_y=True)
PIXELS = (PIXELS / 16).astype("float32")
MAPS = PIXELS.reshape(-1, 8, 8, 1)
SPARSE = "sparse_categorical_crossentropy"


def said(case):
    return [each for check in CHECKS for each in check(case)]


def digits_case(model, **keywords):
    return make_case(model, PIXELS, DIGITS, "multiclass", epochs=20, **keywords)


def perceptron():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(128, "relu"),
            layers.Dropout(0.3),
            layers.Dense(64, "relu", kernel_regularizer=keras.regularizers.L2(1e-4)),
            layers.Dense(10, "softmax"),
        ]
    )
    model.compile("adam", SPARSE, metrics=["accuracy"])
    return model


def convolutions():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss, metrics=["accuracy"])
    return model


def images_and_rows():
    """Joined by hand, as it should be: both branches end in a relu."""
    keras.utils.set_random_seed(0)
    image, row = layers.Input((8, 8, 1), name="image"), layers.Input((64,), name="row")
    maps = layers.Conv2D(8, 3, activation="relu")(image)
    image_features = layers.Dense(64, "relu")(layers.Flatten()(maps))
    joined = layers.Concatenate()([image_features, layers.Dense(64, "relu")(row)])
    model = keras.Model([image, row], layers.Dense(10, "softmax")(layers.Dense(64, "relu")(joined)))
    model.compile("adam", SPARSE, metrics=["accuracy"])
    return model


class TestHealthyModels:
    @pytest.mark.parametrize(
        ("build", "x"),
        [(perceptron, PIXELS), (convolutions, MAPS), (images_and_rows, [MAPS, PIXELS])],
    )
    def test_of_keras_before_and_after_training(self, build, x):
        model = build()
        case = make_case(model, x, DIGITS, "multiclass", epochs=20)
        assert said(case) == []
        model.fit(x, DIGITS, epochs=3, verbose=0)
        assert said(case) == []

    @pytest.mark.parametrize("fusion", ["concat", "gated", "low_rank", "multiply", "weighted"])
    def test_of_kfusion(self, some_places, fusion):
        keras.utils.set_random_seed(0)
        data = some_places.with_schema()
        branches = {name: build() for name, build in default_branches(data).items()}
        model = kfusion.build_fusion_model(
            branches,
            task=some_places.task,
            fusion=fusion,
            dropout=0.3,
            l2=1e-4,
            auxiliary_heads=fusion == "concat",
        )
        rows = Rows(dict(data.x), data.y)
        case = Case(model, rows, some_places.task, batch_size=16, epochs=10)
        assert said(case) == []
        if fusion == "concat":
            kfusion.compile_model(model, task=some_places.task)
            assert said(case) == []

    def test_a_residual_fusion_of_frozen_members(self):
        def member(name):
            inputs = layers.Input((64,), name="row")
            hidden = layers.Dropout(0.5)(layers.Dense(32, "relu")(inputs))
            return keras.Model(inputs, layers.Dense(10, "softmax")(hidden), name=name)

        keras.utils.set_random_seed(0)
        task = kfusion.task("multiclass", y=DIGITS)
        members = {name: member(name) for name in ("one", "two")}
        model = kfusion.build_residual_model(members, task=task, best="one")
        x = {model.inputs[0].name: PIXELS}
        case = make_case(model, x, DIGITS, task, epochs=20)
        assert said(case) == []


def test_everything_is_as_it_was():
    keras.utils.set_random_seed(0)
    part = keras.Sequential(
        [keras.Input((64,)), layers.Dense(16), layers.BatchNormalization(), layers.Dropout(0.5)]
    )
    inputs = layers.Input((64,), name="row")
    joined = layers.Concatenate()([part(inputs), layers.Dense(16, "sigmoid")(inputs)])
    model = keras.Model(inputs, layers.Dense(10, "softmax")(joined))
    model.compile("adam", SPARSE, metrics=["accuracy"])
    model.fit(PIXELS[:64], DIGITS[:64], verbose=0)

    def state():
        # Seeds, statistics and metrics are variables too.
        held = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
        seeds = [layer.seed_generator.state for layer in part.layers if "drop" in layer.name]
        nodes = [len(layer._inbound_nodes) for layer in (*model.layers, *part.layers)]
        return [keras.ops.convert_to_numpy(each) for each in held + seeds], nodes

    (before, nodes), logged = state(), model.get_metrics_result()
    assert len(before) > 20
    case = digits_case(model, batch_size=4)
    part.trainable = False
    assert said(case)
    part.trainable = True
    after, nodes_after = state()
    assert all(map(np.array_equal, before, after))
    assert nodes == nodes_after
    assert logged == model.get_metrics_result()
    function = model.train_function
    model.fit(PIXELS[:64], DIGITS[:64], verbose=0)
    assert model.train_function is function


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.normalization = layers.BatchNormalization()
        self.dense = layers.Dense(10, "softmax")

    def call(self, x, training=None):
        return self.dense(self.normalization(x, training=training))


def never_built():
    return keras.Sequential([layers.Dense(10)])


def subclassed():
    model = Own()
    model(PIXELS[:2])
    model.compile("adam", SPARSE)
    return model


def wrong_width():
    return keras.Sequential([keras.Input((63,)), layers.Dense(10)])


def unknown_loss():
    model = perceptron()
    model.compile("adam", lambda y, predictions: 1 / 0)
    return model


def with_lambda():
    inputs = layers.Input((64,), name="row")
    halves = [layers.Lambda(lambda x: x[:, :32])(inputs), inputs[:, 32:]]
    return keras.Model(inputs, layers.Dense(10)(keras.ops.concatenate(halves, axis=1)))


def two_answers():
    inputs = layers.Input((64,), name="row")
    return keras.Model(inputs, [layers.Dense(10)(inputs), layers.Dense(1)(inputs)])


@pytest.mark.parametrize(
    "build", [never_built, subclassed, wrong_width, unknown_loss, with_lambda, two_answers]
)
def test_odd_models_raise_nothing(build):
    case = digits_case(build())
    assert all(isinstance(each, (Finding, Undecided)) for each in said(case))
    assert said(case)


def test_labels_that_are_text_raise_nothing():
    case = make_case(perceptron(), PIXELS, DIGITS, "multiclass")
    text = Case(case.model, Rows(case.train.x, DIGITS.astype(str)), case.task)
    assert all(isinstance(each, (Finding, Undecided)) for each in said(text))
