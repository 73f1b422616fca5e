"""Residual fusion: it starts as its best member, to the bit, and cannot end below it."""

import keras
import numpy as np
import pytest

from kfusion import (
    build_residual_model,
    build_unimodal_model,
    evaluate,
    export_saved_model,
    fit,
    image_branch,
    load_exported,
    predict,
    tabular_branch,
    task,
)

ROWS, SHAPE = 160, (8, 8, 1)
RANDOM = np.random.default_rng(0)
X = {
    "image": RANDOM.integers(256, size=(ROWS, *SHAPE), dtype="uint8"),
    "tabular": RANDOM.normal(size=(ROWS, 3)).astype("float32"),
}
SIGNAL = (X["image"].mean((1, 2, 3)) - 127) / 10 + X["tabular"][:, 0]
TRAIN, VALIDATION = slice(0, 100), slice(100, ROWS)
TARGETS = {
    "binary": (SIGNAL > 0).astype(int),
    "multiclass": np.digitize(SIGNAL, [-0.7, 0.7]),
    "regression": 1000 + 50 * SIGNAL,
}


def rows(part):
    return {name: array[part] for name, array in X.items()}


def train(model, kind, **keywords):
    y, kind_task = TARGETS[kind], make_task(kind)
    return fit(
        model,
        rows(TRAIN),
        y[TRAIN],
        task=kind_task,
        validation_data=(rows(VALIDATION), y[VALIDATION]),
        verbose=0,
        **keywords,
    )


def make_task(kind):
    return task(kind, y=TARGETS[kind])


@pytest.fixture(scope="module", params=list(TARGETS))
def trained(request):
    """A task's kind, and an image and a table network trained for it."""
    kind = request.param
    keras.utils.set_random_seed(1)
    members = {
        "image": build_unimodal_model(
            image_branch(SHAPE, units=8), task=make_task(kind), head_units=8, name="of_image"
        ),
        "table": build_unimodal_model(
            tabular_branch(3, units=8, dropout=0.3), task=make_task(kind), head_units=8
        ),
    }
    for member in members.values():
        train(member, kind, epochs=3)
    return kind, members


def validation_objective(model, kind):
    scores = evaluate(model, rows(VALIDATION), TARGETS[kind][VALIDATION], task=make_task(kind))
    return -scores["rmse"] if kind == "regression" else scores["auc"]


@pytest.mark.parametrize("best", ["image", "table"])
def test_it_starts_as_the_best_member_to_the_bit(trained, best, tmp_path):
    kind, members = trained
    model = build_residual_model(members, task=make_task(kind), best=best)
    np.testing.assert_array_equal(predict(model, X), predict(members[best], X))
    model.save(tmp_path / "residual.keras")
    loaded = keras.saving.load_model(tmp_path / "residual.keras", compile=False)
    np.testing.assert_array_equal(predict(loaded, X), predict(members[best], X))


def test_an_ensemble_is_a_member_by_the_mean_of_its_predictions(trained):
    kind, members = trained
    branch = tabular_branch(3, units=8, encoder="tabm", members=3)
    ensemble = build_unimodal_model(branch, task=make_task(kind), head_units=8)
    members = {"image": members["image"], "table": ensemble}
    model = build_residual_model(members, task=make_task(kind), best="table")
    np.testing.assert_array_equal(predict(model, X), predict(ensemble, X))


@pytest.mark.filterwarnings("ignore:Training 'residual_model' diverged")
@pytest.mark.parametrize("learning_rate", [1e-2, 30.0], ids=["tame", "wrecking"])
def test_the_validation_objective_cannot_end_below_the_best_member(trained, learning_rate):
    kind, members = trained
    model = build_residual_model(members, task=make_task(kind), best="image", units=8)
    history = train(model, kind, epochs=3, learning_rate=learning_rate, optimizer="sgd")
    assert len(history.epoch) >= 1
    start, end = (validation_objective(m, kind) for m in (members["image"], model))
    assert end >= start


def test_training_leaves_the_members_alone_and_moves_the_rest(trained):
    kind, members = trained
    before = {name: member.get_weights() for name, member in members.items()}
    model = build_residual_model(members, task=make_task(kind), best="table", units=8)
    start = model.get_layer("prediction").get_weights()
    train(model, kind, epochs=2, count_start=False)
    for name, member in members.items():
        for old, new in zip(before[name], member.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
    moved = model.get_layer("prediction").get_weights()
    assert all(not np.array_equal(a, b) for a, b in zip(start, moved, strict=True))


def test_it_learns_what_no_member_has():
    """Two members that know nothing, whose features together tell the class."""
    keras.utils.set_random_seed(0)
    kind = "binary"
    members = {
        "image": build_unimodal_model(image_branch(SHAPE, units=16), task=kind, name="of_image"),
        "table": build_unimodal_model(tabular_branch(3, units=16), task=kind),
    }
    model = build_residual_model(members, task=make_task(kind), best="image")
    before = validation_objective(model, kind)
    train(model, kind, epochs=25)
    assert validation_objective(model, kind) > max(before, 0.75)


def test_a_blend_starts_as_the_log_linear_pool(trained):
    kind, members = trained
    weights = {"image": 0.7, "table": 0.4}
    model = build_residual_model(members, task=make_task(kind), best=weights)
    image, table = (predict(members[name], X).astype(float) for name in weights)
    if kind == "regression":
        expected = 0.7 * image + 0.4 * table
    elif kind == "binary":
        odds = (image / (1 - image)) ** 0.7 * (table / (1 - table)) ** 0.4
        expected = odds / (1 + odds)
    else:
        product = image**0.7 * table**0.4
        expected = product / product.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predict(model, X), expected, rtol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="writes a SavedModel")
def test_it_is_exported_with_its_members(trained, tmp_path):
    kind, members = trained
    model = build_residual_model(members, task=make_task(kind), best="image", units=8)
    train(model, kind, epochs=1, count_start=False)
    names = None if kind == "regression" else make_task(kind).class_names
    answers = load_exported(export_saved_model(model, tmp_path / "saved", class_names=names))
    answers = answers.predict_encoded(X)
    expected = make_task(kind).answers(predict(model, X))
    key = "prediction" if kind == "regression" else "probabilities"
    np.testing.assert_allclose(answers[key], expected, rtol=1e-5, atol=1e-5)


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """A network whose inside cannot be seen."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(1, activation="sigmoid")

    def call(self, inputs):
        return self.dense(inputs)


def test_members_of_any_making(tmp_path):
    subclassed = Subclassed(name="subclassed")
    subclassed(X["tabular"])
    softmax_apart = keras.Sequential(
        [
            keras.Input(SHAPE, dtype="uint8"),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="relu"),
            keras.layers.Dense(1),
            keras.layers.Activation("sigmoid"),
        ],
        name="activation_apart",
    )
    members = {"subclassed": subclassed, "apart": softmax_apart}
    for best, alone in (("subclassed", "tabular"), ("apart", "image")):
        model = build_residual_model(members, task="binary", best=best)
        expected = members[best].predict(X[alone], batch_size=ROWS, verbose=0)
        np.testing.assert_array_equal(predict(model, X, batch_size=ROWS), expected)
        model.save(tmp_path / "model.keras")
        keras.saving.load_model(tmp_path / "model.keras", compile=False)


class TestBadInput:
    def members(self, units=1):
        return {
            name: keras.Sequential([keras.Input((3,)), keras.layers.Dense(units)], name=name)
            for name in ("first", "second")
        }

    @pytest.mark.parametrize("best", ["third", {"third": 1.0}, {}, None, {"first": float("nan")}])
    def test_the_best_must_be_a_member(self, best):
        with pytest.raises(ValueError, match=r"`best` must name one of \['first', 'second'\]"):
            build_residual_model(self.members(), task="binary", best=best)

    def test_a_member_that_is_no_model_is_named(self):
        members = {**self.members(), "third": 3}
        with pytest.raises(TypeError, match="Member 'third': `model` must be a keras.Model or"):
            build_residual_model(members, task="binary", best="first")

    def test_one_member_is_no_fusion(self):
        members = {"first": self.members()["first"]}
        with pytest.raises(ValueError, match="two or more models"):
            build_residual_model(members, task="binary", best="first")

    def test_two_columns_for_two_classes_are_named(self):
        with pytest.raises(ValueError, match=r"'first' gives 2 value\(s\).*take the second column"):
            build_residual_model(self.members(2), task="binary", best="first")
