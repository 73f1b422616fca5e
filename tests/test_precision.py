"""Which precision suits which device, and that kfusion's models train and score in each."""

import keras
import numpy as np
import pytest

from kfusion import (
    branch_from,
    build_fusion_model,
    choose_precision,
    fit,
    image_branch,
    learning_rate_range_test,
    predict,
    tabular_branch,
)
from kfusion.devices import Device
from kfusion.training.precision import policy_for


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (Device("cpu"), "float32"),
        (Device("tpu"), "mixed_bfloat16"),
        # A100 and H100, T4 and V100, P100; one that is not NVIDIA's.
        (Device("gpu", (8, 0)), "mixed_bfloat16"),
        (Device("gpu", (9, 0)), "mixed_bfloat16"),
        (Device("gpu", (7, 5)), "mixed_float16"),
        (Device("gpu", (7, 0)), "mixed_float16"),
        (Device("gpu", (6, 0)), "float32"),
        (Device("gpu"), "float32"),
    ],
)
def test_a_device_gets_what_its_units_compute(device, expected):
    assert policy_for(device) == expected


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"], indirect=True)
def test_what_the_user_set_is_respected(policy):
    assert choose_precision() == policy


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"], indirect=True)
def test_a_fusion_learns_in_half_precision_with_scores_in_full(policy):
    random = np.random.default_rng(0)
    x = {
        "image": random.integers(0, 256, (192, 4, 4, 3)).astype("uint8"),
        "tabular": random.normal(size=(192, 2)).astype("float32"),
    }
    y = (x["tabular"][:, 0] > 0).astype(int)
    keras.utils.set_random_seed(0)
    branches = {"image": image_branch((4, 4, 3), units=4), "tabular": tabular_branch(2, units=8)}
    model = build_fusion_model(branches, task="binary", head_units=8)
    assert {layer.compute_dtype for layer in model.layers} >= {policy.removeprefix("mixed_")}
    history = fit(
        model, x, y, task="binary", validation_data=(x, y), epochs=6, learning_rate=0.02, seed=0,
        verbose=0, doctor=False,
    ).history  # fmt: skip
    assert max(history["val_auc"]) > 0.9
    assert len(np.unique(predict(model, x))) > 150
    scales_its_loss = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scales_its_loss == (policy == "mixed_float16")
    assert history["learning_rate"][0] > 0


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"], indirect=True)
def test_the_range_test_in_half_precision_finds_what_full_precision_does(policy):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(128, 3)).astype("float32")
    y = (x[:, 0] > 0).astype(int)
    losses = []
    for dtype in (policy, "float32"):
        keras.config.set_dtype_policy(dtype)
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(8, "relu"), keras.layers.Dense(1, "sigmoid", dtype="float32")]
        model = keras.Sequential([keras.Input((3,)), *layers])
        model.compile("adam", "binary_crossentropy")
        found = learning_rate_range_test(
            model, x, y, task="binary", lowest=1e-4, highest=1e-1, steps=20
        )
        losses.append(found.losses)
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0][-1] < 0.9 * losses[0][0]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"], indirect=True)
def test_frozen_features_in_half_precision_train_what_the_whole_model_does(
    policy, image_cache_folder
):
    random = np.random.default_rng(0)
    x = {
        "sound": random.normal(size=(32, 5)).astype("float32"),
        "tabular": random.normal(size=(32, 2)).astype("float32"),
    }
    y = (x["tabular"][:, 0] > 0).astype(int)
    found = []
    for feature_cache in (True, False):
        keras.utils.set_random_seed(0)
        heard = keras.Sequential(
            [keras.Input((5,), name="sound"), keras.layers.Dense(4, "relu")], name="heard"
        )
        branches = {
            "sound": branch_from(heard, input_name="sound"),
            "tabular": tabular_branch(2, units=4),
        }
        model = build_fusion_model(branches, task="binary", head_units=4)
        before = [np.array(weight) for weight in model.trainable_weights]
        history = fit(
            model, x, y, task="binary", validation_data=(x, y), epochs=2, batch_size=16, seed=0,
            learning_rate=0.01, feature_cache=feature_cache, verbose=0, doctor=False,
        ).history  # fmt: skip
        assert not all(map(np.array_equal, before, model.trainable_weights))
        found.append((history["val_loss"], predict(model, x)))
    assert any(image_cache_folder.rglob("*.npy"))
    (losses, answers), (other_losses, other_answers) = found
    # Half precision keeps 11 or 8 bits: an order of sums that differs may show in the last.
    np.testing.assert_allclose(losses, other_losses, rtol=0.01)
    np.testing.assert_allclose(answers, other_answers, atol=0.01)
