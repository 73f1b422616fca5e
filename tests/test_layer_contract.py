"""One contract for every layer: config, saving, shape, gradients, half precision, rows apart."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

from kfusion import layers
from kfusion.frozen.told_code import Told

ROWS = 6
TWO_VECTORS = [(3,), (5,)]
THREE_VECTORS = [(3,), (5,), (2,)]
MAPS_AND_VECTORS = [(4, 2, 3), (5,), (2,)]


def small_network():
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
        ],
        name="small_network",
    )


def numbers(generator, shape):
    return generator.normal(size=shape).astype("float32")


def shares(generator, shape):
    """Rows that sum to 1, as a prediction does."""
    return generator.dirichlet(np.ones(shape[1]), size=shape[0]).astype("float32")


def pixels(generator, shape):
    return generator.integers(256, size=shape, dtype="uint8")


def codes(generator, shape):
    """Each code of the columns of the `CategoryEmbedding` below, so that each vector is used."""
    return np.arange(np.prod(shape)).reshape(shape[::-1]).T.astype("float32") % 3


def flags(generator, shape):
    """0 and 1, some of each in every column."""
    halves = np.repeat([0.0, 1.0], shape[0] // 2)[:, None] * np.ones(shape)
    return generator.permuted(halves, axis=0).astype("float32")


def flags_then_numbers(generator, shape):
    return (flags if shape[1:] == (2,) else numbers)(generator, shape)


def sparse_numbers(generator, shape):
    """NaN for numbers and 0 for codes but in some rows."""
    table = np.full(shape, np.nan, "float32")
    table[:, 2:] = 0
    table[generator.permutation(shape[0])[:3], 1] = 1.5
    return table


def steps_and_mask(generator, shape):
    """Numbers of rank 3; a mask, of rank 2, that holds both 0 and 1."""
    return numbers(generator, shape) if len(shape) == 3 else pixels(generator, shape) % 2


# The layer's arguments, each off its default; the shapes it takes, without rows; what they hold.
EXAMPLES = {
    "ApplicationPreprocessing": ({"application": "VGG16"}, [(4, 5, 3)], pixels),
    "BatchEnsembleDense": (
        {
            "units": 4,
            "members": 3,
            "activation": "tanh",
            "random_signs": True,
            "dropout": 0.2,
            "l2": 0.01,
        },
        [(3, 5)],
        numbers,
    ),
    "CategoryEmbedding": ({"num_codes": [3, 3]}, [(2,)], codes),
    "ConcatFusion": ({"normalize": False}, TWO_VECTORS, numbers),
    "CrossAttentionFusion": (
        {"units": 4, "num_heads": 3, "use_positions": False},
        MAPS_AND_VECTORS,
        numbers,
    ),
    "DAFT": ({"reduction": 2, "use_shift": False}, MAPS_AND_VECTORS, numbers),
    "EdgeMagnitude": ({"scale": 100.0}, [(6, 5, 2)], pixels),
    "FiLM": ({"use_shift": False}, MAPS_AND_VECTORS, numbers),
    "Frozen": ({"model": small_network, "unfrozen": [0]}, [(3,)], numbers),
    "GatedFusion": ({"units": 4}, THREE_VECTORS, numbers),
    "GradientScale": ({}, [(3, 2)], numbers),
    "LogLinearPool": ({"num_members": 2, "activation": "softmax"}, [(3,), (3,)], shares),
    "LowRankFusion": ({"units": 4, "rank": 2}, THREE_VECTORS, numbers),
    "MaskedConv": (
        {"filters": 4, "kernel_size": 3, "pool": 3, "dropout": 0.2, "l2": 0.01},
        [(7, 2), (7,)],
        steps_and_mask,
    ),
    "MaskedPool": ({"mode": "max"}, [(7, 2), (7,)], steps_and_mask),
    "MemberMean": ({}, [(3, 5)], numbers),
    "ModalityDropout": ({"rate": 0.5, "seed": 7}, [(3,)], flags),
    "MultiplyFusion": ({"units": 4, "activation": "linear"}, THREE_VECTORS, numbers),
    "NormalizedConv": (
        {"filters": 4, "kernel_size": 5, "strides": 2, "pool": 3, "dropout": 0.2, "l2": 0.01},
        [(7, 8, 2)],
        numbers,
    ),
    "NormalizedDense": (
        {"units": 4, "activation": "tanh", "dropout": 0.2, "l2": 0.01},
        [(3,)],
        numbers,
    ),
    "NumberScaling": (
        {"center": [1.0, 2.0], "spread": [2.0, 0.0], "flagged": [1], "limit": 2.0},
        [(2,)],
        numbers,
    ),
    "ObservedNormalization": ({"flag_missing": True}, [(3, 2)], numbers),
    "PeriodicEmbedding": (
        {"units": 4, "frequencies": 3, "frequency_scale": 0.5},
        [(2,)],
        numbers,
    ),
    "Presence": ({"num_categories": 2}, [(4,)], sparse_numbers),
    "PresenceSwitch": (
        {"patterns": [[True, False], [False, True]], "activation": "softmax"},
        [(2,), (3,), (3,), (3,)],
        flags_then_numbers,
    ),
    "PrincipalComponents": ({"num_components": 3, "divisor": 255.0}, [(4, 5, 2)], pixels),
    "QuantileScaling": (
        {"quantiles": [[-1.0, 0.0, 0.0, 2.0], [1.0]], "flagged": [1], "limit": 2.0},
        [(2,)],
        numbers,
    ),
    "RepeatPresent": ({}, [(3,), (1,)], flags),
    "ResidualFusion": (
        {"activation": "softmax", "units": 4, "dropout": 0.2, "l2": 0.01, "scale": 2.0},
        THREE_VECTORS,
        shares,
    ),
    "StandIn": ({}, [(3,), (1,)], flags),
    "TreeEnsemble": (
        {
            "levels": [[3, 1, 0], [2, 0, 6], [0, 0, 4]],
            "scores": 2,
            "category_columns": 1,
            "max_codes": 3,
            "activation": "softmax",
        },
        [(4,)],
        numbers,
    ),
    "WeightedFusion": ({"units": 4, "per_unit": True}, THREE_VECTORS, numbers),
}
# A pool takes a list too, but also of one; others take a mask, or what is there.
NO_FUSIONS = {
    "LogLinearPool",
    "MaskedConv",
    "MaskedPool",
    "PresenceSwitch",
    "RepeatPresent",
    "StandIn",
}
FUSIONS = [
    name for name, (_, shapes, _) in EXAMPLES.items() if len(shapes) > 1 and name not in NO_FUSIONS
]
# What those that work on maps may be given first, and what next.
MAP_FUSIONS = {
    "CrossAttentionFusion": (["maps", "tokens", "vector"], ["tokens", "vector"]),
    "DAFT": (["maps", "tokens", "vector"], ["vector"]),
    "FiLM": (["maps", "tokens", "vector"], ["vector"]),
}
SHAPES = {"maps": (4, 2, 3), "tokens": (6, 3), "vector": (4,)}
# Layers of which an example at its defaults takes another road through the code.
AT_DEFAULTS = {
    "ConcatFusion": {},
    "CrossAttentionFusion": {},
    "DAFT": {},
    "FiLM": {},
    "MaskedPool": {},
    "MultiplyFusion": {},
    "ResidualFusion": {},
    "TreeEnsemble": {"levels": [[1, 0, 0], [0, 0, 2]]},
    "WeightedFusion": {},
}
CASES = [
    *[pytest.param(name, arguments, id=name) for name, (arguments, _, _) in EXAMPLES.items()],
    *[pytest.param(name, given, id=f"{name}-defaults") for name, given in AT_DEFAULTS.items()],
]
every_case = pytest.mark.parametrize(("name", "arguments"), CASES)
every_layer = pytest.mark.parametrize("name", sorted(EXAMPLES))
every_fusion = pytest.mark.parametrize("name", FUSIONS)


def make(layer_name, arguments=None, **keywords):
    """The layer, with weights of its own draw."""
    keras.utils.set_random_seed(0)
    given = EXAMPLES[layer_name][0] if arguments is None else arguments
    given = {key: value() if callable(value) else value for key, value in given.items()}
    return getattr(layers, layer_name)(**given, **keywords)


def example_inputs(name, seed=1):
    _, shapes, fill = EXAMPLES[name]
    generator = np.random.default_rng(seed)
    arrays = [fill(generator, (ROWS, *shape)) for shape in shapes]
    return arrays if len(arrays) > 1 else arrays[0]


def as_list(inputs):
    return inputs if isinstance(inputs, list) else [inputs]


def build_model(name, layer):
    _, shapes, _ = EXAMPLES[name]
    dtypes = [array.dtype.name for array in as_list(example_inputs(name))]
    inputs = [keras.Input(shape, dtype=d) for shape, d in zip(shapes, dtypes, strict=True)]
    return keras.Model(inputs, layer(inputs if len(inputs) > 1 else inputs[0]))


def move_off_the_start(layer):
    """Weights and moving statistics that no initializer would give; seeds and positions stay."""
    generator = np.random.default_rng(2)
    for weight in layer.weights:
        if keras.backend.is_float_dtype(weight.dtype):
            weight.assign(ops.abs(weight) + generator.uniform(0.1, 1, weight.shape))


def test_every_layer_has_an_example():
    assert sorted(EXAMPLES) == sorted(layers.__all__)


@every_layer
def test_the_example_sets_every_argument_off_its_default(name):
    parameters = inspect.signature(getattr(layers, name).__init__).parameters
    own = {k: p for k, p in parameters.items() if k not in ("self", "kwargs")}
    assert set(EXAMPLES[name][0]) == set(own)
    assert all(EXAMPLES[name][0][key] != p.default for key, p in own.items())


@every_layer
def test_features_of_a_frozen_one_are_found_again_by_another(name):
    """What it does is told by config and weights, which its name is none of."""
    first, second = make(name), make(name)
    build_model(name, first)
    build_model(name, second)
    second.set_weights(first.get_weights())
    told = Told()
    assert told.operation(first) == Told().operation(second)
    assert not told.has_own_code


@every_layer
def test_the_config_holds_every_argument(name):
    layer = make(name, name="given_name", dtype="float64")
    config = layer.get_config()
    assert config["name"] == "given_name"
    restored = type(layer).from_config(dict(config))
    assert restored.dtype_policy.name == "float64"
    for key, value in EXAMPLES[name][0].items():
        if callable(value):
            assert restored.get_config()[key] == config[key]
            assert getattr(restored, key).get_config() == getattr(layer, key).get_config()
        else:
            assert config[key] == value
            assert getattr(restored, key) == value


@every_case
def test_predicts_the_same_after_saving_and_loading(name, arguments, tmp_path):
    layer = make(name, arguments)
    model = build_model(name, layer)
    move_off_the_start(layer)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    inputs = as_list(example_inputs(name))
    np.testing.assert_array_equal(loaded(inputs), model(inputs))


@every_case
def test_the_declared_shape_is_the_real_one(name, arguments):
    layer, inputs = make(name, arguments), example_inputs(name)
    shapes = [array.shape for array in as_list(inputs)]
    real = layer(inputs).shape
    for rows in (ROWS, None):
        given = [(rows, *shape[1:]) for shape in shapes]
        declared = layer.compute_output_shape(given if len(given) > 1 else given[0])
        assert tuple(declared) == (rows, *real[1:])
    assert build_model(name, make(name, arguments)).output.shape == (None, *real[1:])


@every_case
def test_every_trainable_weight_gets_a_gradient(name, arguments):
    tf = pytest.importorskip("tensorflow")
    layer, inputs = make(name, arguments), example_inputs(name)
    layer(inputs)
    # A residual fusion starts at nothing, where what is behind its factor gets no gradient yet.
    move_off_the_start(layer)
    with tf.GradientTape() as tape:
        output = layer(inputs, training=True) if layer._call_has_training_arg else layer(inputs)
        # Batch normalisation has mean 0 over rows: a loss that treats rows alike would be flat.
        projection = np.random.default_rng(3).normal(size=output.shape)
        loss = ops.sum(output * ops.cast(projection, output.dtype))
    gradients = tape.gradient(loss, [weight.value for weight in layer.trainable_weights])
    for weight, gradient in zip(layer.trainable_weights, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.any(tf.convert_to_tensor(gradient).numpy()), weight.path


@every_case
def test_works_in_half_precision(name, arguments):
    layer, inputs = make(name, arguments, dtype="mixed_float16"), example_inputs(name)
    output = layer(inputs)
    assert layer.compute_dtype == "float16"
    # A frozen model keeps the precision that it was built with.
    expected = "float32" if name == "Frozen" else "float16"
    assert keras.backend.standardize_dtype(output.dtype) == expected
    assert np.isfinite(output).all()
    assert all(weight.dtype == "float32" for weight in layer.trainable_weights)
    reference = make(name, arguments)
    reference(inputs)
    reference.set_weights(layer.get_weights())
    whole = np.asarray(reference(inputs))
    np.testing.assert_allclose(
        np.asarray(output, np.float32), whole, atol=5e-3 * max(1, abs(whole).max())
    )


@every_case
def test_a_row_does_not_move_when_the_others_change(name, arguments):
    layer, inputs = make(name, arguments), example_inputs(name)
    layer(inputs)
    move_off_the_start(layer)
    changed = [array.copy() for array in as_list(inputs)]
    for array, other in zip(changed, as_list(example_inputs(name, seed=4)), strict=True):
        array[1:] = other[1:][::-1]
    before = np.asarray(layer(inputs))
    after = np.asarray(layer(changed if len(changed) > 1 else changed[0]))
    np.testing.assert_array_equal(after[0], before[0])
    assert not np.array_equal(after[1:], before[1:])


@every_case
def test_the_same_input_gives_the_same_answer_twice(name, arguments):
    layer, inputs = make(name, arguments), example_inputs(name)
    np.testing.assert_array_equal(layer(inputs), layer(inputs))


@every_fusion
@pytest.mark.parametrize("first", SHAPES)
@pytest.mark.parametrize("second", SHAPES)
def test_a_fusion_says_which_shapes_it_takes(name, first, second):
    layer = make(name, name="my_fusion")
    inputs = [keras.Input(SHAPES[kind]) for kind in (first, second)]
    firsts, seconds = MAP_FUSIONS.get(name, (["vector"], ["vector"]))
    if first in firsts and second in seconds:
        assert layer(inputs).shape[0] is None
        return
    with pytest.raises(ValueError, match=r"(?s)`my_fusion` fuses a list of at least two .*Pool or"):
        layer(inputs)


@every_fusion
@pytest.mark.parametrize("shapes", [[(4,)], [(4,), (None,)]], ids=["one branch", "no known width"])
def test_a_fusion_needs_two_branches_of_known_width(name, shapes):
    with pytest.raises(ValueError, match="fuses a list of at least two feature"):
        make(name)([keras.Input(shape) for shape in shapes])


@every_fusion
def test_a_fusion_refuses_a_vector_that_is_in_no_list(name):
    with pytest.raises(ValueError, match="fuses a list of at least two feature"):
        make(name)(keras.Input((4,)))


def test_frozen_has_no_trainable_weight():
    layer = make("Frozen", {"model": small_network})
    layer(example_inputs("Frozen"))
    assert layer.weights
    assert not layer.trainable_weights
