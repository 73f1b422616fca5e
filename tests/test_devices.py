"""Two devices that share each batch train what one device trains, and say what they need."""

import json

import keras
import numpy as np
import pytest
from backend_runs import run_on

from kfusion.data.row_batches import ShuffledBatches
from kfusion.devices import Device, find_device


def told_on(backend, part):
    """What the program of two devices tells, by name."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    printed = run_on(backend, "tests/two_devices.py", part, **flags)
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return {line.pop("name"): line for line in lines}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="how TensorFlow tells them")
class TestFindDevice:
    @pytest.fixture(autouse=True)
    def one_gpu(self, monkeypatch):
        import tensorflow as tf

        gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
        details = {"compute_capability": (7, 5)}
        physical = tf.config.list_physical_devices
        monkeypatch.setattr(
            tf.config,
            "list_physical_devices",
            lambda kind=None: [gpu] if kind == "GPU" else physical(kind),
        )
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda _: details)
        return gpu

    def test_a_gpu_that_is_hidden_is_none(self, monkeypatch):
        import tensorflow as tf

        monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: [])
        assert find_device() == Device("cpu")

    def test_a_gpu_that_is_seen_has_its_capability(self, monkeypatch, one_gpu):
        import tensorflow as tf

        monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: [one_gpu])
        assert find_device() == Device("gpu", (7, 5))


BACKENDS = ["tensorflow", pytest.param("jax", marks=pytest.mark.slow)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_devices_train_what_one_does_and_say_what_they_need(backend):
    told = told_on(backend, "plain")
    plain = told["a last batch that two cannot share"]
    for found in (plain, told["sequence"]):
        assert found["moved"] > 0.01
        assert found["weights"] < 1e-6
        assert found["predictions"] < 1e-6
        assert found["scores"]["val_loss"] < 1e-6
    errors = told["errors"]
    assert "with distribution.scope():" in errors["not built in the scope"]
    assert "was not made within the distribution's scope" in errors["optimizer"]
    assert "share a batch of 2, 4, 6 and so on. Received: 33." in errors["odd batches"]
    assert "TypeError: `distribution` must be " in errors["not one"]
    on_tensorflow = backend == "tensorflow"
    assert ("compiles for one device" in errors["compiled"]) == on_tensorflow
    assert ("accumulates gradients" in errors["accumulated"]) == on_tensorflow


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_every_branch_is_normalised_by_whole_batches_also_by_a_last_one_of_odd_rows(backend):
    told = run_on(backend, "branches")
    assert set(told) == {"embedding", "sequence", "image", "tabular"}
    for name, found in told.items():
        assert found["moved"] > 0.01, name
        assert found["predictions"] < 1e-5, name
        assert found["scores"]["val_loss"] < 1e-5, name


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_batches_are_normalised_whole_and_folds_and_searches_use_both_devices(backend):
    told = told_on(backend, "rest")
    for name in ("normalised batches, the last one smaller", "frozen features"):
        assert told[name]["moved"] > 0.01
        assert told[name]["predictions"] < 1e-5, name
        assert told[name]["scores"]["val_loss"] < 1e-5, name
    assert told["folds"]["devices"] == [1, 1, 2, 2]
    assert told["folds"]["predictions"] < 1e-6
    assert told["search"]["devices"] == [2, 2]
    assert told["search"]["statuses"] == ["COMPLETED"] * 2
    assert told["search"]["score"] < 1e-6
    for name in ("folds", "search"):
        assert "has all devices work on one of them" in told[name]["at_once"]


class TestSharedBatches:
    def test_rows_that_fill_up_the_last_batch_have_no_weight_and_the_others_their_mean(self):
        rows, weights = np.arange(1.0, 8), np.arange(7) + 2.0
        batches = ShuffledBatches(
            rows, rows, batch_size=4, seed=0, shuffle=False, sample_weight=weights, multiple=4
        )
        x, _, given = batches[1]
        np.testing.assert_array_equal(x, [5, 6, 7, 1])
        np.testing.assert_allclose(given, [6 * 4 / 3, 7 * 4 / 3, 8 * 4 / 3, 0])
        loss = keras.losses.MeanSquaredError()
        alone = loss(np.zeros((3, 1)), x[:3, None], sample_weight=weights[4:])
        filled = loss(np.zeros((4, 1)), x[:, None], sample_weight=given)
        assert float(filled) == pytest.approx(float(alone))

    def test_every_output_gets_weights_and_even_rows_need_none(self):
        rows = np.arange(5.0)
        settings = {"batch_size": 4, "seed": 0, "shuffle": False, "multiple": 2}
        _, y, weights = ShuffledBatches(rows, {"a": rows, "b": -rows}, **settings)[1]
        assert set(weights) == {"a", "b"}
        np.testing.assert_array_equal(weights["b"], [2, 0])
        np.testing.assert_array_equal(y["b"], [-4, 0])
        assert len(ShuffledBatches(rows[:4], rows[:4], **settings)[0]) == 2

    def test_repeated_rows_keep_the_mean_and_variance_of_the_last_batch(self):
        rows, weights = np.arange(1.0, 11), np.arange(10) + 2.0
        batches = ShuffledBatches(
            rows, rows, batch_size=4, seed=0, shuffle=False, multiple=4, repeat=True
        )
        assert len(batches[0]) == 2
        x, y = batches[2]
        np.testing.assert_array_equal(x, [9, 10, 9, 10])
        np.testing.assert_array_equal(y, x)
        assert x.var() == rows[8:].var()
        _, _, given = ShuffledBatches(
            rows[:3], rows[:3], batch_size=4, seed=0, shuffle=False, sample_weight=weights[:3],
            multiple=4, repeat=True,
        )[0]  # fmt: skip
        np.testing.assert_array_equal(given, [2, 3, 4] * 4)

    def test_more_devices_than_rows(self):
        rows = np.arange(3.0)
        x, _, weights = ShuffledBatches(
            rows, rows, batch_size=8, seed=0, shuffle=False, multiple=8
        )[0]
        np.testing.assert_array_equal(x, [0, 1, 2, 0, 1, 2, 0, 1])
        np.testing.assert_allclose(weights, [8 / 3] * 3 + [0] * 5)
