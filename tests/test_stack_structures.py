"""What members of one stack may differ in: each has its own, or another stack."""

import functools
from inspect import signature

import keras
import numpy as np
import pytest
from stack_cases import train_alone

import kfusion
from kfusion import layers
from kfusion.devices import Device
from kfusion.stacked import stacked_fit
from kfusion.stacked.many_fits import fit_many
from kfusion.stacked.model_dials import dropouts, states_but_dropouts, structure_of
from kfusion.stacked.stacked_fit import members_at_once

ROWS, BATCH, EPOCHS = 40, 16, 2
pytestmark = pytest.mark.skipif(
    keras.backend.backend() not in ("tensorflow", "jax"),
    reason="one model at a time on other backends",
)
RANDOM = np.random.default_rng(0)
IMAGES = {"image": RANDOM.integers(0, 256, (ROWS, 8, 8, 1)).astype("uint8")}
STEPS = {"steps": RANDOM.normal(size=(ROWS, 6, 2)).astype("float32")}
VECTORS = {"vector": RANDOM.normal(size=(ROWS, 3)).astype("float32")}
CLASSES, VALUES = RANDOM.permutation(ROWS) % 2, RANDOM.normal(size=ROWS).astype("float32")


def of_images(dropout=0.0):
    branch = kfusion.image_branch((8, 8, 1), units=4, dropout=dropout)
    return kfusion.build_unimodal_model(branch, task="binary", head_depth=0)


def of_steps(dropout=0.0):
    branch = kfusion.sequence_branch((6, 2), units=4, dropout=dropout, input_name="steps")
    return kfusion.build_unimodal_model(branch, task="binary", head_depth=0)


def of_layers(*between, task="binary", name="own"):
    inputs = keras.Input((3,), name="vector")
    outputs = inputs
    for layer in between:
        outputs = layer(outputs)
    activation = "sigmoid" if task == "binary" else None
    return keras.Model(inputs, keras.layers.Dense(1, activation)(outputs), name=name)


@pytest.mark.parametrize(
    ("build", "x"), [(of_steps, STEPS), pytest.param(of_images, IMAGES, marks=pytest.mark.slow)]
)
def test_rates_of_whole_channels_are_each_members_own(build, x):
    rates = [0.0, (0.6, 0.1), (0.3, 0.0)]
    fits = fit_many(
        build, x, CLASSES, task="binary", epochs=EPOCHS, batch_size=BATCH, verbose=0,
        members=[{"dropout": rate, "seed": seed} for seed, rate in enumerate(rates)],
    )  # fmt: skip
    for seed, rate in enumerate(rates):
        losses, _ = train_alone(
            functools.partial(build, rate), x, CLASSES, task="binary", seed=seed, epochs=EPOCHS,
            batch_size=BATCH,
        )  # fmt: skip
        assert fits[seed].at_once == 3
        assert fits[seed].history["loss"] == pytest.approx(losses, abs=1e-5)


WITH_RATES = {
    layers.NormalizedDense: ({"units": 2}, [(3,)]),
    layers.BatchEnsembleDense: ({"units": 2, "members": 2}, [(3,)]),
    layers.NormalizedConv: ({"filters": 2}, [(4, 4, 1)]),
    layers.MaskedConv: ({"filters": 2}, [(4, 1), (4,)]),
    layers.ResidualFusion: ({"units": 2}, [(1,), (2,)]),
}


def test_all_that_a_rate_of_this_package_moves_is_a_dial():
    found = {getattr(layers, name) for name in layers.__all__}
    assert {each for each in found if "dropout" in signature(each).parameters} == set(WITH_RATES)
    for layer, (arguments, shapes) in WITH_RATES.items():
        inputs = [keras.Input(shape) for shape in shapes]
        outputs = layer(**arguments, dropout=0.3)(inputs if len(inputs) > 1 else inputs[0])
        model = keras.Model(inputs, outputs)
        assert [each.rate for each in dropouts(model)] == [0.3], layer
        assert not [v for v in states_but_dropouts(model) if "seed" in v.path], layer


def test_a_loss_with_other_arguments_is_another_program():
    losses = [keras.losses.Huber(1.0), keras.losses.Huber(0.01), keras.losses.Huber(1.0)]
    fits = fit_many(
        functools.partial(of_layers, task="regression"), VECTORS, VALUES, task="regression",
        members=[{"loss": loss, "seed": 1} for loss in losses], epochs=1, batch_size=BATCH,
        verbose=0,
    )  # fmt: skip
    assert [each.at_once for each in fits] == [2, 1, 2]
    assert fits[0].history["loss"] == fits[2].history["loss"]
    assert fits[1].history["loss"][0] < fits[0].history["loss"][0] / 10


def test_a_penalty_on_activations_is_no_dial():
    def build(factor):
        return of_layers(keras.layers.Dense(2, activity_regularizer=keras.regularizers.L2(factor)))

    fits = fit_many(
        build, VECTORS, CLASSES, task="binary", epochs=1, batch_size=BATCH, verbose=0,
        members=[{"factor": factor, "seed": 1} for factor in (100.0, 0.001)],
    )  # fmt: skip
    losses = [each.history["loss"][0] for each in fits]
    assert losses[0] > 10 * losses[1]


def test_a_penalty_that_a_users_layer_may_put_anywhere_is_no_dial():
    class Sparse(keras.layers.Layer):
        def __init__(self, factor, **keywords):
            super().__init__(**keywords)
            self.code_regularizer = keras.regularizers.L2(factor)

        def call(self, inputs):
            self.add_loss(self.code_regularizer(inputs))
            return inputs

        def get_config(self):
            own = keras.regularizers.serialize(self.code_regularizer)
            return {**super().get_config(), "code_regularizer": own}

    assert structure_of(of_layers(Sparse(1.0))) != structure_of(of_layers(Sparse(2.0)))


def test_models_that_have_no_name_of_their_own_are_of_one_structure():
    assert len({structure_of(of_layers(name=name)) for name in (None, None, "own", "other")}) == 1


def test_layers_named_after_what_they_do_are_told_apart():
    named = [of_layers(keras.layers.Activation(name, name=name)) for name in ("relu", "tanh")]
    assert structure_of(named[0]) != structure_of(named[1])


def test_layers_one_behind_another_are_of_one_structure():
    def build(rate):
        layers = [keras.Input((3,), name="vector"), keras.layers.Dense(2)]
        return keras.Sequential([*layers, keras.layers.Dropout(rate), keras.layers.Dense(1)])

    assert structure_of(build(0.1)) == structure_of(build(0.2))


def test_scales_are_dials_only_where_the_whole_layer_is_one():
    def build(scale, offset):
        return of_layers(keras.layers.Rescaling(scale, offset))

    assert structure_of(build(1.0, 0.0)) == structure_of(build(2.0, 3.0))
    assert structure_of(build(1.0, [0.0, 1.0, 2.0])) != structure_of(build(2.0, [0.0, 1.0, 2.0]))


def test_no_more_members_than_half_of_the_free_memory_holds(monkeypatch):
    # 8 copies of 4 weights, and 4 of the 3 + 1 values of each of 16 rows, of 4 bytes each.
    bytes_each = 4 * (8 * 4 + 4 * 4 * 16)
    monkeypatch.setattr(stacked_fit, "find_device", lambda: Device("cpu"))
    monkeypatch.setattr(stacked_fit, "free_memory", lambda: 2 * 5 * bytes_each)
    assert members_at_once(of_layers(), 16) == 5
    monkeypatch.setattr(stacked_fit, "free_memory", lambda: 0)
    assert members_at_once(of_layers(), 16) == 1
