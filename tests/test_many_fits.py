"""Members of a stack are what they would be alone; what cannot be stacked says so."""

import functools
import types

import keras
import numpy as np
import pandas as pd
import pytest
from stack_cases import train_alone

import kfusion
from kfusion.models.prediction import predict
from kfusion.stacked import many_fits
from kfusion.stacked.many_fits import fit_many
from kfusion.stacked.model_dials import structure_of
from kfusion.stacked.programs import Programs

ROWS, BATCH, EPOCHS = 70, 16, 3
BACKENDS = ("tensorflow", "jax")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() not in BACKENDS, reason="one model at a time on other backends"
)


def build(dropout=0.0, l2=0.0, units=4):
    branches = {
        name: kfusion.embedding_branch(
            width, units=units, dropout=dropout, input_name=name, name=f"{name}_branch"
        )
        for name, width in {"image": 6, "tabular": 3}.items()
    }
    return kfusion.build_fusion_model(branches, task="binary", head_units=4, dropout=dropout, l2=l2)


def draw_rows(seed, rows=ROWS):
    random = np.random.default_rng(seed)
    x = {
        "image": random.normal(size=(rows, 6)).astype("float32"),
        "tabular": random.normal(size=(rows, 3)).astype("float32"),
    }
    return x, (x["image"][:, 0] + random.normal(size=rows) > 0).astype(int)


TRAIN, JUDGE = draw_rows(0), draw_rows(1, 40)
MEMBERS = [
    {"seed": 3, "learning_rate": 1e-3},
    {"seed": 4, "learning_rate": 2e-3, "dropout": 0.3, "l2": 1e-2},
    {"seed": 5, "learning_rate": 5e-4, "dropout": 0.1, "weight_decay": 0.05},
    {"seed": 6, "learning_rate": 1e38},
    *({"seed": seed, "learning_rate": 0.3, "patience": 1} for seed in range(7, 11)),
]
DIVERGES = 3


@pytest.fixture(scope="module")
def fits():
    return fit_many(
        build, *TRAIN, task="binary", members=MEMBERS, validation_data=JUDGE, epochs=EPOCHS,
        batch_size=BATCH, verbose=0,
    )  # fmt: skip


def train_member(member, positions=None, **fit):
    settings = {**member, **fit}
    dials = {k: settings.pop(k) for k in ("dropout", "l2") if k in settings}
    return train_alone(
        functools.partial(build, **dials), *TRAIN, task="binary", batch_size=BATCH, epochs=EPOCHS,
        positions=positions, judge=JUDGE[0], **settings,
    )  # fmt: skip


@pytest.mark.parametrize("number", [1, 2])
def test_a_member_is_what_it_would_be_alone_dropout_included(fits, number):
    losses, predictions = train_member(MEMBERS[number])
    assert fits[number].history["loss"] == pytest.approx(losses, abs=1e-5)
    best = predictions[fits[number].best_epoch]
    assert predict(fits.model(number), JUDGE[0]) == pytest.approx(best, abs=1e-5)
    assert fits[number].at_once == len(MEMBERS)


def test_histories_have_the_keys_of_fit_and_exact_scores(fits):
    keras.utils.set_random_seed(4)
    model = build(dropout=0.3, l2=1e-2)
    history = kfusion.fit(
        model, *TRAIN, task="binary", validation_data=JUDGE, epochs=EPOCHS, batch_size=BATCH,
        learning_rate=2e-3, seed=4, verbose=0, doctor=False,
    ).history  # fmt: skip
    own = fits[1].history
    assert set(own) == set(history)
    assert own["learning_rate"] == pytest.approx(history["learning_rate"], abs=1e-9)
    if keras.backend.backend() == "jax":
        for name, values in history.items():
            assert own[name] == pytest.approx(values, abs=1e-5), name
    best = fits[1].best_epoch
    scores = kfusion.evaluate(fits.model(1), *JUDGE, task="binary")
    assert own["val_auc"][best] == max(own["val_auc"]) == pytest.approx(scores["auc"])


SHARES = (0.3, 0.0, 0.1)


def train_smoothed(loss, shares, **keywords):
    members = [{"seed": seed, "label_smoothing": share} for seed, share in enumerate(shares)]
    return fit_many(
        build, *TRAIN, task="binary", members=members, validation_data=JUDGE, epochs=EPOCHS,
        batch_size=BATCH, loss=loss, verbose=0, **keywords,
    )  # fmt: skip


@pytest.fixture(scope="module")
def smoothed():
    return train_smoothed(None, SHARES)


@pytest.mark.parametrize("number", range(3))
def test_labels_are_smoothed_for_each_member_by_its_own_share(smoothed, number):
    # Keras' own loss, in a fresh model; of the second member without any smoothing.
    share = SHARES[number]
    own = {"loss": keras.losses.BinaryCrossentropy(label_smoothing=share)} if share else {}
    losses, predictions = train_member({"seed": number}, **own)
    assert smoothed[number].at_once == 3
    assert smoothed[number].history["loss"] == pytest.approx(losses, abs=1e-5)
    best = predictions[smoothed[number].best_epoch]
    assert predict(smoothed.model(number), JUDGE[0]) == pytest.approx(best, abs=1e-5)
    scores = kfusion.evaluate(smoothed.model(number), *JUDGE, task="binary")
    kept = smoothed[number].scores["val_loss"]
    assert kept == pytest.approx(scores["loss"], rel=1e-5)


@pytest.mark.slow
def test_focal_losses_are_smoothed_too():
    fits = train_smoothed("focal", SHARES)
    for number, share in enumerate(SHARES):
        losses, _ = train_member({"seed": number}, loss="focal", label_smoothing=share)
        assert fits[number].history["loss"] == pytest.approx(losses, abs=1e-5)


def test_shares_are_no_new_program_but_whether_there_are_any(monkeypatch):
    made, make = [], many_fits.make_stack
    monkeypatch.setattr(
        many_fits, "make_stack", lambda *given: made.append(make(*given)) or made[-1]
    )
    programs = Programs()

    def losses(*shares, at_once="auto"):
        fits = train_smoothed(None, shares, programs=programs, at_once=at_once)
        return [each.history["loss"] for each in fits]

    alone = [losses(share, 0.0, share)[0] for share in (0.1, 0.3)]
    assert len(made) == 1
    hard = losses(0.0, 0.0, 0.0)[0]
    assert len(made) == 2
    assert made[1].model.model.loss == "binary_crossentropy"
    # Two stacks of three in the first program, of which the second smooths nothing.
    mixed = losses(0.3, 0.1, 0.0, 0.0, at_once=2)
    assert len(made) == 2
    assert mixed[0] == pytest.approx(alone[1], rel=1e-5)
    assert alone[0] != pytest.approx(alone[1], rel=1e-3)
    assert hard != pytest.approx(alone[0], rel=1e-3)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="ensembles train alone there")
def test_members_of_an_ensemble_are_judged_by_smoothed_labels():
    schema = kfusion.TableSchema.fit(pd.DataFrame(TRAIN[0]["tabular"], columns=list("abc")))

    def build_tabm():
        branch = kfusion.tabular_branch(schema, units=2, encoder="tabm", members=2)
        return kfusion.build_unimodal_model(branch, task="binary", head_depth=0)

    x = {"tabular": TRAIN[0]["tabular"]}
    fits = fit_many(
        build_tabm, x, TRAIN[1], task="binary", epochs=EPOCHS, batch_size=BATCH, verbose=0,
        members=[{"seed": 1}, {"seed": 2, "label_smoothing": 0.3}],
    )  # fmt: skip
    for each, share in zip(fits, (0.0, 0.3), strict=True):
        losses, _ = train_alone(
            build_tabm, x, TRAIN[1], task="binary", seed=each.settings.seed, epochs=EPOCHS,
            batch_size=BATCH, label_smoothing=share,
        )  # fmt: skip
        assert each.at_once == 2
        assert each.history["loss"] == pytest.approx(losses, abs=1e-5)


@pytest.mark.slow
def test_optimizers_are_those_of_keras_and_folds_their_own_rows():
    x, y = TRAIN
    members = [
        {**member, "rows": np.arange(k, 64, 2), "validation_rows": np.arange(1 - k, 64, 2)}
        for k, member in enumerate(MEMBERS[:2])
    ]
    fits = fit_many(
        build, x, y, task="binary", members=members, epochs=EPOCHS, batch_size=BATCH,
        optimizer="nadam", verbose=0,
    )  # fmt: skip
    losses, _ = train_member(MEMBERS[1], np.arange(1, 64, 2), optimizer="nadam")
    assert fits[1].history["loss"] == pytest.approx(losses, abs=1e-5)
    held = np.arange(0, 64, 2)
    held_x = {name: values[held] for name, values in x.items()}
    scores = kfusion.evaluate(fits.model(1), held_x, y[held], task="binary")
    assert scores["auc"] == pytest.approx(max(fits[1].history["val_auc"]))


def test_each_member_stops_by_its_own_patience(fits):
    assert all(len(each.history["val_auc"]) == EPOCHS for each in fits[:DIVERGES])
    lengths = []
    for each in fits[DIVERGES + 1 :]:
        values = each.history["val_auc"]
        lengths.append(len(values))
        better = [later > max(values[: i + 1]) for i, later in enumerate(values[1:])]
        assert better[:-1] == [True] * len(better[:-1])
        assert len(values) == EPOCHS or not better[-1]
    assert min(lengths) < EPOCHS


def test_one_that_diverges_leaves_the_others_alone(fits):
    assert np.isfinite([each.history["val_loss"] for each in fits[:DIVERGES]]).all()
    with pytest.raises(RuntimeError, match="Member 3 has no weights: .*not finite"):
        fits.model(DIVERGES)


def test_without_patience_a_member_goes_on_while_it_improves_as_fit_does():
    y = (TRAIN[0]["image"][:, 0] > 0).astype(int)
    data = {"task": "binary", "validation_data": (TRAIN[0], y), "epochs": 8, "batch_size": ROWS}
    member = {"learning_rate": 1e-2, "seed": 3, "patience": 0}
    fits = fit_many(build, TRAIN[0], y, members=[member], verbose=0, **data)
    keras.utils.set_random_seed(3)
    history = kfusion.fit(build(), TRAIN[0], y, **data, **member, verbose=0, doctor=False)
    assert len(fits[0].history["val_auc"]) == len(history.history["val_auc"]) > 2
    assert fits[0].best_epoch == history.best_epoch


@pytest.mark.slow
def test_structures_are_grouped_and_members_need_not_fit_in_at_once():
    members = [{**MEMBERS[0], "units": units} for units in (4, 2, 4, 4)]
    members[3]["seed"] = 9
    members = [{**member, "rows": np.arange(64)} for member in members]
    fits = fit_many(
        build, *TRAIN, task="binary", members=members, validation_data=JUDGE, epochs=1,
        batch_size=BATCH, at_once=2, verbose=0,
    )  # fmt: skip
    assert [each.at_once for each in fits] == [2, 1, 2, 2]
    assert fits.model(1).count_params() < fits.model(0).count_params()
    # The same member, in another stack and beside others.
    assert fits[0].history["val_loss"] == pytest.approx(fits[2].history["val_loss"], abs=1e-6)
    assert fits[0].history["loss"] != pytest.approx(fits[3].history["loss"], abs=1e-4)


def test_what_cannot_share_a_program_is_trained_alone_and_says_why():
    with pytest.warns(
        UserWarning, match="Member 0 is trained by itself: the optimizer 'adafactor'"
    ):
        fits = fit_many(
            build, *TRAIN, task="binary", members=[{"optimizer": "adafactor"}],
            validation_data=JUDGE, epochs=1, batch_size=BATCH, verbose=0,
        )  # fmt: skip
    assert fits[0].at_once == 1
    assert "whole variables" in fits[0].alone_because
    scores = kfusion.evaluate(fits.model(0), *JUDGE, task="binary")
    assert scores["auc"] == pytest.approx(fits[0].history["val_auc"][0])


def test_a_setting_that_only_some_stacks_of_a_group_need_is_that_of_each_alone():
    members = [{"seed": 1}, {"seed": 2, "class_weight": {0: 1.0, 1: 3.0}}]
    data = {"task": "binary", "epochs": 1, "batch_size": BATCH, "verbose": 0}
    fits = fit_many(build, *TRAIN, members=members, at_once=1, **data)
    alone = [fit_many(build, *TRAIN, members=[member], **data)[0] for member in members]
    for one, other in zip(fits, alone, strict=True):
        assert one.history["loss"] == pytest.approx(other.history["loss"], rel=1e-5)


def test_members_may_take_other_inputs_of_the_same_rows():
    def build_one(which):
        width = TRAIN[0][which].shape[1]
        branch = kfusion.embedding_branch(width, units=2, input_name=which)
        return kfusion.build_unimodal_model(branch, task="binary", head_depth=0)

    names = ["image", "tabular", "tabular"]
    data = {"task": "binary", "validation_data": JUDGE, "epochs": 1, "batch_size": BATCH}
    fits = fit_many(
        build_one, *TRAIN, members=[{"which": name} for name in names], **data, verbose=0
    )
    assert [each.at_once for each in fits] == [1, 2, 2]
    for index in range(3):
        scores = kfusion.evaluate(fits.model(index), *JUDGE, task="binary")
        assert scores["auc"] == pytest.approx(fits[index].history["val_auc"][0])


def test_a_model_of_a_users_own_class_is_trained_by_its_own_step():
    steps = []

    class Counting(keras.Model):
        def train_step(self, *given):
            steps.append(1)
            return super().train_step(*given)

    def build_counting():
        model = build()
        return Counting(model.inputs, model.outputs)

    with pytest.warns(UserWarning, match="a Counting may train in a way of its own"):
        fits = fit_many(build_counting, *TRAIN, task="binary", members=[{}], epochs=1, verbose=0)
    assert fits[0].at_once == 1
    assert steps


def test_an_optimizer_given_is_a_new_one_for_each_member():
    given = keras.optimizers.SGD(0.1, momentum=0.9)
    data = {"task": "binary", "validation_data": JUDGE, "epochs": 2, "batch_size": ROWS}
    with pytest.warns(UserWarning, match="trained by itself: the optimizer"):
        fits = fit_many(
            build, *TRAIN, members=[{"seed": 1}, {"seed": 2}], optimizer=given, **data, verbose=0
        )
    assert not given.built
    keras.utils.set_random_seed(2)
    history = kfusion.fit(
        build(), *TRAIN, optimizer=given, **data, seed=2, verbose=0, doctor=False
    ).history
    assert fits[1].history["val_loss"] == pytest.approx(history["val_loss"], rel=1e-6)


def test_a_residual_fusion_that_ends_as_it_started_has_no_best_epoch():
    def build_residual():
        parts = {
            name: kfusion.build_unimodal_model(
                kfusion.embedding_branch(width, units=2, input_name=name, name=f"{name}_branch"),
                task="binary",
                name=f"{name}_model",
            )
            for name, width in {"image": 6, "tabular": 3}.items()
        }
        return kfusion.build_residual_model(
            parts, task="binary", best="image", input_names={name: name for name in parts}
        )

    # Judged by the opposite of what is learned, so that each epoch is worse than the one before.
    keras.utils.set_random_seed(1)
    learned = (predict(build_residual(), TRAIN[0])[:, 0] < 0.5).astype(int)
    with pytest.warns(UserWarning, match="the start of a residual fusion competes"):
        fits = fit_many(
            build_residual, TRAIN[0], learned, task="binary", members=[{"seed": 1}], epochs=2,
            batch_size=BATCH, validation_data=(TRAIN[0], 1 - learned), verbose=0,
        )  # fmt: skip
    assert fits[0].best_epoch is None
    scores = kfusion.evaluate(fits.model(0), TRAIN[0], 1 - learned, task="binary")
    assert scores["loss"] < min(fits[0].history["val_loss"])


def test_what_a_member_alone_cannot_is_its_failure_and_a_mistake_ends_the_call(monkeypatch):
    class ResourceExhaustedError(Exception):
        pass

    errors = [ResourceExhaustedError("too large"), TypeError("no such thing")]
    monkeypatch.setattr(many_fits, "fit", lambda *_, **__: (_ for _ in ()).throw(errors.pop(0)))

    def train():
        return fit_many(
            build, *TRAIN, task="binary", members=[{"optimizer": "adafactor"}], epochs=1, verbose=0
        )

    with pytest.warns(UserWarning, match="adafactor"):
        assert train()[0].failure == "too large"
    with (
        pytest.warns(UserWarning, match="adafactor"),
        pytest.raises(TypeError, match="no such") as raised,
    ):
        train()
    assert raised.value.__notes__ == ["This was member 0."]


def test_dials_names_and_weights_are_no_structure():
    first, second = build(dropout=0.2, l2=1e-3), build()
    assert structure_of(first) == structure_of(second) != structure_of(build(units=5))
    # Operations without a layer are numbered over the whole process.
    sliced = [build_heads("gated", modality_dropout=0.3) for _ in range(2)]
    assert structure_of(sliced[0]) == structure_of(sliced[1])


def test_models_of_other_inputs_are_of_another_structure():
    first, second = (
        kfusion.build_unimodal_model(
            kfusion.embedding_branch(3, units=2, input_name=name), task="binary"
        )
        for name in ("image", "tabular")
    )
    assert structure_of(first) != structure_of(second)


def build_heads(fusion, **keywords):
    branches = {
        name: kfusion.embedding_branch(width, units=4, input_name=name, name=f"{name}_branch")
        for name, width in {"image": 6, "tabular": 3}.items()
    }
    task = kfusion.task("multiclass", num_classes=3)
    return kfusion.build_fusion_model(branches, task=task, fusion=fusion, head_units=4, **keywords)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fusion", "keywords"),
    [("multiply", {"auxiliary_heads": True}), ("low_rank", {"modality_dropout": 0.3})],
)
def test_heads_weights_and_inner_randomness_are_those_of_one_model(fusion, keywords):
    x, y = TRAIN[0], np.arange(ROWS) % 3
    task = kfusion.task("multiclass", num_classes=3)
    fits = fit_many(
        functools.partial(build_heads, fusion, **keywords), x, y, task=task, epochs=EPOCHS,
        batch_size=BATCH, members=[{"seed": 1}, {"seed": 2, "label_smoothing": 0.2}],
        validation_data=(x, y), verbose=0, class_weight={0: 1.0, 1: 2.0, 2: 0.5},
        learning_rate=1e-3,
    )  # fmt: skip
    losses, _ = train_alone(
        functools.partial(build_heads, fusion, **keywords), x, y, task=task, seed=2, epochs=EPOCHS,
        batch_size=BATCH, weights=np.array([1.0, 2.0, 0.5], "float32")[y], learning_rate=1e-3,
        label_smoothing=0.2,
    )  # fmt: skip
    assert fits[1].at_once == 2
    assert fits[1].history["loss"] == pytest.approx(losses, abs=1e-5)


def test_without_rows_that_judge_the_last_epoch_counts():
    fits = fit_many(
        build, *TRAIN, task="binary", members=[{}], epochs=2, batch_size=ROWS, verbose=0
    )
    assert set(fits[0].history) == {"loss", "accuracy", "learning_rate"}
    assert fits[0].best_epoch == 1
    assert predict(fits.model(0), JUDGE[0]).shape == (40, 1)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ({"rows": [0, 99]}, "`rows of member 0` must be 0 to 69. Received: 99"),
        ({"learning_rate": -1.0}, "`learning_rate` must be above 0. Received: -1.0"),
        ({"validation_rows": [1]}, "which `validation_data` takes the place of"),
        ({"rows": [0.5]}, "must be positions of rows"),
        ({"optimizer": "nothing"}, "`optimizer` must be a Keras optimizer or its name"),
        ({"label_smoothing": 1.0}, "`label_smoothing` must be 0 or more and below 1"),
        ({"label_smoothing": 0.1, "loss": "hinge"}, "give another loss one of its own"),
        ({"sample_weight": [1.0] * 9}, "sample_weight has 9, y has 70"),
        ({"class_weight": {0: 1.0}}, r"no weight for the label\(s\) \[1\]"),
        ({"task": kfusion.task("regression")}, "`task` may differ in class rates or scale alone"),
    ],
)
def test_mistakes_are_told_before_training(member, message):
    with pytest.raises(ValueError, match=message) as raised:
        fit_many(build, *TRAIN, task="binary", members=[member], validation_data=JUDGE, verbose=0)
    assert "ember 0" in f"{raised.value} {getattr(raised.value, '__notes__', '')}"


class WithoutConfig(keras.layers.Layer):
    def __init__(self, held):
        super().__init__()
        self.held = held

    def call(self, inputs):
        return inputs * self.held.factor


def test_a_layer_without_a_config_is_trained_by_itself():
    held = types.SimpleNamespace(factor=2.0)

    def build_with_it():
        model = build()
        return keras.Model(model.input, WithoutConfig(held)(model.output) / 2.0)

    with pytest.warns(UserWarning, match="by itself: a layer of it has no config"):
        fits = fit_many(build_with_it, *TRAIN, task="binary", members=[{}], epochs=1, verbose=0)
    assert fits[0].alone_because == "a layer of it has no config"


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_folds_have_rates_and_scales_of_their_own_and_other_numbers_of_judges(kind):
    x = {"tabular": TRAIN[0]["tabular"]}
    y = TRAIN[1] if kind == "binary" else 30 + 5 * x["tabular"][:, 0] ** 2
    names = ["no", "yes"] if kind == "binary" else None

    def build_ensemble(own):
        branch = kfusion.tabular_branch(3, units=4, encoder="tabm", members=3)
        return kfusion.build_unimodal_model(branch, task=own, head_units=4)

    folds = [(np.arange(40), np.arange(40, 70)), (np.arange(30, 70), np.arange(21))]
    tasks = [kfusion.task(kind, y=y[rows], class_names=names) for rows, _ in folds]
    fits = fit_many(
        build_ensemble, x, y, task=kfusion.task(kind, y=y, class_names=names), epochs=EPOCHS,
        batch_size=BATCH, learning_rate=1e-3, patience=None, verbose=0,
        members=[
            {"own": own, "task": own, "rows": rows, "validation_rows": judges, "seed": 3}
            for own, (rows, judges) in zip(tasks, folds, strict=True)
        ],
    )  # fmt: skip
    for number, (own, (rows, judges)) in enumerate(zip(tasks, folds, strict=True)):
        fit = fits[number]
        losses, _ = train_alone(
            functools.partial(build_ensemble, own), x, y, task=own, seed=3, batch_size=BATCH,
            epochs=EPOCHS, positions=rows, learning_rate=1e-3,
        )  # fmt: skip
        assert fit.at_once == 2
        assert fit.history["loss"] == pytest.approx(losses, abs=1e-5)
        held = {name: values[judges] for name, values in x.items()}
        scores = kfusion.evaluate(fits.model(number), held, y[judges], task=own)
        for name in ("loss", "auc" if kind == "binary" else "rmse"):
            assert fit.scores[f"val_{name}"] == pytest.approx(scores[name], rel=1e-5)


def test_folds_do_not_overlap():
    member = {"rows": [0, 1, 2], "validation_rows": [2, 3]}
    with pytest.raises(ValueError, match="Member 0 is judged by 1 of its own rows, e.g. 2"):
        fit_many(build, *TRAIN, task="binary", members=[member], verbose=0)


def test_members_that_come_later_share_what_was_compiled(monkeypatch):
    made, make = [], many_fits.make_stack
    monkeypatch.setattr(many_fits, "make_stack", lambda *given: made.append(1) or make(*given))
    programs = Programs()

    def train(members, x=TRAIN[0]):
        return fit_many(
            build, x, TRAIN[1], task="binary", members=members, validation_data=JUDGE, epochs=2,
            batch_size=BATCH, programs=programs, verbose=0,
        )  # fmt: skip

    members = [{"dropout": 0.1, "learning_rate": 1e-3, "seed": seed} for seed in range(3)]
    first = train(members)
    train([{"dropout": 0.3, "learning_rate": 1e-2, "seed": 9}])
    assert len(made) == 2
    again = train(members[:2])
    assert len(made) == 2
    for one, two in zip(first, again, strict=False):
        assert one.history["val_loss"] == pytest.approx(two.history["val_loss"], rel=1e-5)
    # By what they hold, not by which objects they are.
    changed = {name: values.copy() for name, values in TRAIN[0].items()}
    train(members, x=changed)
    assert len(made) == 2
    changed["image"][:] = changed["image"][::-1].copy()
    anew = train(members, x=changed)
    assert len(made) == 3
    losses = [each.history["val_loss"] for each in (anew[0], first[0])]
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": 5}, "`members` must be a list with a dict"),
        ({"members": [{"batch_size": "memory"}]}, "`batch_size` must be an int"),
        ({"build": lambda: None}, "`build` must return a `keras.Model`. Received: None"),
        ({"members": [{"learning_rat": 0.1}]}, "learning_rat"),
    ],
)
def test_what_is_no_member_or_model_is_told(changes, message):
    keywords = {"build": build, "members": [{}], **changes}
    with pytest.raises(TypeError, match=message):
        fit_many(x=TRAIN[0], y=TRAIN[1], task="binary", verbose=0, **keywords)


def test_scores_are_those_of_the_epoch_that_is_kept(fits):
    assert repr(fits) == f"<ManyFits of {len(fits)} members>"
    for fit in fits:
        if fit.failure is None:
            assert fit.scores["val_auc"] == max(fit.history["val_auc"])
        else:
            assert fit.scores == {}
