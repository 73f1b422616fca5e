"""Folds of an estimator's networks that are trained at once are what they are by themselves."""

import functools
import shutil

import keras
import numpy as np
import pandas as pd
import pytest
from stack_cases import train_alone

import kfusion
from kfusion.data.folds import Fold, make_folds
from kfusion.data.tables import TableSchema
from kfusion.estimators import member_folds
from kfusion.estimators.bagging import bag
from kfusion.estimators.member_folds import MemberFolds
from kfusion.estimators.members import Rows, standard_members
from kfusion.models.prediction import predict
from kfusion.training.batch_sizes import default_batch_size
from kfusion.validation.cross_validation import FoldError

ROWS, EPOCHS = 60, 3
pytestmark = pytest.mark.skipif(
    keras.backend.backend() not in ("tensorflow", "jax"),
    reason="one model at a time on other backends",
)
RANDOM = np.random.default_rng(0)
TABLE = RANDOM.normal(size=(ROWS, 3)).astype("float32")
SCHEMA = TableSchema.fit(pd.DataFrame(TABLE, columns=list("abc")))
X = {"tabular": TABLE, "sound": RANDOM.normal(size=(ROWS, 4)).astype("float32")}
INPUTS = list(X)
# What trees see of it.
X["sound.components"] = X["sound"][:, :2]
SCORES = TABLE[:, 0] + X["sound"][:, 0] + RANDOM.normal(size=ROWS)
TARGETS = {
    "binary": (SCORES > 0.3).astype(int),
    "multiclass": np.digitize(SCORES, [-0.5, 0.7]),
    "regression": (40 + 7 * SCORES).astype("float32"),
}
NAMES = {"binary": ["no", "yes"], "multiclass": ["a", "b", "c"], "regression": None}


def make(kind, member, encoder="mlp", weights=None, present=None):
    y = TARGETS[kind]
    task = kfusion.task(kind, y=y, class_names=NAMES[kind])
    members = standard_members(X, INPUTS, SCHEMA, encoder=encoder, epochs=EPOCHS)
    return MemberFolds(member, members[member], Rows(X, y, weights, present or {}), task, seed=0)


def seed_of(fold):
    """That of the estimator's seed 0."""
    return int(np.random.SeedSequence([0, fold.number]).generate_state(1)[0] % 2**31)


@pytest.mark.parametrize(
    ("kind", "member", "encoder"),
    [
        ("binary", "table", "tabm"),
        ("regression", "table", "tabm"),
        ("multiclass", "sound", "mlp"),
        ("regression", "fused", "mlp"),
    ],
)
def test_each_fold_is_trained_as_one_model_with_its_own_rates_seed_and_weights(
    kind, member, encoder
):
    weights = np.linspace(0.5, 1.5, ROWS).astype("float32")
    fits = make(kind, member, encoder, weights)
    folds = make_folds(ROWS, folds=3, seed=1)
    assert fits.at_once(folds) == [folds]
    network, x = fits.member.network, {name: X[name] for name in fits.member.modalities}
    for result in fits.fit(folds):
        learned = result.fold.train
        task = kfusion.task(kind, y=TARGETS[kind][learned], class_names=NAMES[kind])
        losses, predictions = train_alone(
            functools.partial(network.build, task=task), x, TARGETS[kind], task=task,
            seed=seed_of(result.fold), batch_size=default_batch_size(len(learned)), epochs=EPOCHS,
            positions=learned, weights=weights, judge=x,
            learning_rate=1e-3 * network.learning_rate_factor,
        )  # fmt: skip
        assert result.history["loss"] == pytest.approx(losses, abs=1e-5)
        history = result.history
        scores = history["val_rmse"] if kind == "regression" else [-v for v in history["val_auc"]]
        # Of epochs that score the same, the one of less loss.
        best = predictions[min(range(EPOCHS), key=lambda i: (scores[i], history["val_loss"][i]))]
        tolerance = 1e-3 * float(TARGETS[kind].std())
        assert predict(result.model, x) == pytest.approx(best, abs=tolerance)
        assert result.predictions == pytest.approx(best[result.fold.test], abs=tolerance)


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_a_fold_is_the_same_whoever_is_left_to_be_fitted_beside_it(kind):
    fits = make(kind, "table")
    folds = make_folds(ROWS, folds=3, seed=1)
    beside = list(fits.fit(folds))[1]
    (alone,) = fits.fit(folds[1:2])
    tolerance = 5e-3 * float(TARGETS[kind].std())
    assert alone.predictions == pytest.approx(beside.predictions, abs=tolerance)
    assert set(alone.history) == set(beside.history)
    for name, values in alone.history.items():
        assert beside.history[name] == pytest.approx(values, rel=5e-2, abs=1e-3), name


def test_folds_of_other_lengths_are_other_groups_and_judged_by_rows_that_have_the_input():
    present = {"sound": np.ones(ROWS, bool)}
    folds = make_folds(ROWS, folds=3, seed=1)
    # Each fold learns from the rows that the others hold out.
    lacking = np.hstack([folds[0].test[3], folds[1].test[:2]])
    present["sound"][lacking] = False
    fits = make("binary", "sound", present=present)
    lengths = [int(present["sound"][fold.train].sum()) for fold in folds]
    assert lengths == [38, 39, 37]
    assert fits.at_once(folds) == [[fold] for fold in folds]
    present["sound"][folds[0].test[4]] = False
    assert [len(group) for group in fits.at_once(folds)] == [2, 1]
    first, second = fits.fit(folds[:2])
    for result in (first, second):
        has_it = present["sound"][result.fold.test]
        held = result.fold.test[has_it]
        scores = kfusion.evaluate(
            result.model, {"sound": X["sound"][held]}, TARGETS["binary"][held], task="binary"
        )
        assert max(result.history["val_auc"]) == pytest.approx(scores["auc"])
        rate = TARGETS["binary"][result.fold.train].mean()
        assert result.predictions[~has_it] == pytest.approx(rate)


@pytest.mark.parametrize("bad_number", [0, 1])
def test_a_fold_that_cannot_be_fitted_is_named_and_the_others_are_there(bad_number):
    fits = make("binary", "table")
    classes = [np.flatnonzero(TARGETS["binary"] == label) for label in (0, 1)]
    good, bad = np.hstack([classes[0][:10], classes[1][:10]]), classes[0][:20]
    folds = [
        Fold(number, np.setdiff1d(np.arange(ROWS), test), test)
        for number, test in enumerate([bad, good] if bad_number == 0 else [good, bad])
    ]
    found = fits.fit(folds)
    with pytest.warns(
        UserWarning, match="Folds of member 'table' are fitted one by one.*one class"
    ):
        assert next(found).fold is folds[1 - bad_number]
    told = f"failed in fold {bad_number + 1}. ValueError: Validation rows hold one class only"
    with pytest.raises(FoldError, match=told):
        next(found)


def test_a_fold_that_diverges_after_its_first_epoch_is_told(monkeypatch):
    fits = make("binary", "table")
    fit_many = member_folds.fit_many

    def diverged(*given, **keywords):
        found = fit_many(*given, **keywords)
        found[1].history["val_loss"][-1] = float("nan")
        return found

    monkeypatch.setattr(member_folds, "fit_many", diverged)
    with pytest.warns(UserWarning, match=f"'table' diverged in epoch {EPOCHS} of fold 2 and was"):
        assert len(list(fits.fit(make_folds(ROWS, folds=3, seed=1)))) == 3


def test_folds_that_are_finished_are_not_fitted_again(tmp_path, monkeypatch):
    calls = []
    fit_many = member_folds.fit_many
    monkeypatch.setattr(
        member_folds,
        "fit_many",
        lambda *given, members, **more: (
            calls.append(len(members)) or fit_many(*given, members=members, **more)
        ),
    )
    fits = make("binary", "table")
    folds = make_folds(ROWS, folds=3, seed=1)

    def run():
        found = bag(
            {"table": fits.member}, fits.rows, folds, task=fits.task, directory=tmp_path, verbose=0
        )
        return found["table"].folds

    whole = run()
    for number in (0, 2):
        shutil.rmtree(tmp_path / "table" / f"fold_{number:03d}")
    again = run()
    assert calls == [3, 2]
    for one, two in zip(whole, again, strict=True):
        assert one.fold is two.fold
        assert one.predictions == pytest.approx(two.predictions, abs=5e-3)
    run()
    assert calls == [3, 2]


def test_an_estimator_trains_the_folds_of_its_networks_of_vectors_at_once(monkeypatch):
    sizes = []
    fit_many = member_folds.fit_many

    def counted(*given, **keywords):
        fits = fit_many(*given, **keywords)
        sizes.extend(each.at_once for each in fits)
        return fits

    monkeypatch.setattr(member_folds, "fit_many", counted)
    x = {"tabular": pd.DataFrame(TABLE), "sound": X["sound"]}
    x["scan"] = RANDOM.integers(0, 256, (ROWS, 8, 8, 1)).astype("uint8")
    model = kfusion.FusionClassifier(
        members=["table", "sound", "scan", "trees"], num_folds=3, epochs=1
    ).fit(x, TARGETS["binary"])
    assert sizes == [3] * 6
    assert model.predict_proba(x).shape == (ROWS, 2)
