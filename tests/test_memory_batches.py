"""The largest batch that fits: by an estimate worked by hand, and by running out of memory."""

import keras
import numpy as np
import pytest

from kfusion import build_unimodal_model, fit, tabular_branch
from kfusion.devices import Device
from kfusion.tasks import as_task
from kfusion.training import batch_sizes, fitting
from kfusion.training.memory_batches import (
    estimate_step,
    free_memory,
    is_out_of_memory,
    largest_batch_that_fits,
    largest_batch_that_runs,
)

X = {"tabular": np.random.default_rng(0).normal(size=(300, 3)).astype("float32")}
Y = np.arange(300) % 2
SETTINGS = {"task": "binary", "validation_data": None, "epochs": 1, "verbose": 0, "doctor": False}


def small_model():
    return build_unimodal_model(tabular_branch(3, units=4), task="binary", head_units=4)


class TestEstimate:
    def test_dense_layers_by_hand(self):
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(7), keras.layers.Dense(2)])
        needed = estimate_step(model, np.zeros((9, 5), "float32"))
        # Weights, gradients and Adam's two moments; each layer's values and their gradients.
        weights = 4 * 4 * (5 * 7 + 7 + 7 * 2 + 2)
        assert needed(0) == weights
        assert needed(100) == weights + 100 * 2 * 4 * (7 + 2)

    def test_layers_within_layers_and_the_patches_of_a_convolution_count(self):
        class Outer(keras.layers.Layer):
            def __init__(self):
                super().__init__()
                self.inner = keras.layers.Conv2D(4, 3, padding="same")

            def build(self, shape):
                self.inner.build(shape)

            def call(self, inputs):
                return keras.ops.mean(self.inner(inputs), axis=(1, 2))

        model = keras.Sequential([keras.Input((6, 5, 2)), Outer()])
        needed = estimate_step(model, np.zeros((1, 6, 5, 2), "float32"))
        values = 2 * 4 * (6 * 5 * 4 + 4)
        assert needed(8) - needed(0) == 8 * (values + 4 * 6 * 5 * (3 * 3 * 2))

    def test_the_model_stays_as_it_is(self):
        model = small_model()
        before, layers = model.get_weights(), [dict(vars(each)) for each in model.layers]
        estimate_step(model, X if isinstance(model.input, dict) else X["tabular"])
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert [set(vars(each)) for each in model.layers] == [set(each) for each in layers]


class TestLargest:
    @pytest.mark.parametrize(
        ("memory", "rows", "expected"),
        [(1000, 10_000, 64), (1000, 50, 32), (1000, 5, 4), (100, 10_000, 4), (25, 10_000, 1)],
    )
    def test_a_made_up_limit(self, memory, rows, expected):
        # 10 bytes of weights and 15 a row: 64 rows are 970 bytes, 128 are 1930.
        assert largest_batch_that_fits(lambda size: 10 + 15 * size, memory, rows) == expected

    def test_nothing_fits(self):
        with pytest.raises(RuntimeError, match="on one row does not fit in memory"):
            largest_batch_that_fits(lambda size: 10 + 15 * size, 24, 1000)

    @pytest.mark.parametrize(("most", "expected"), [(300, 256), (64, 64), (7, 4)])
    def test_what_runs_out_of_memory_is_found_by_trying(self, most, expected):
        tried = []

        def step(size):
            tried.append(size)
            if size > most:
                raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4 bytes.")

        assert largest_batch_that_runs(step, 100_000) == expected
        assert max(tried) == max(16, 2 * expected)

    def test_another_failure_is_none_of_memory(self):
        def step(size):
            raise ValueError("shapes")

        with pytest.raises(ValueError, match="shapes"):
            largest_batch_that_runs(step, 100)

    @pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="an error of TensorFlow's")
    def test_tensorflows_own_error_is_known(self):
        import tensorflow as tf

        assert is_out_of_memory(tf.errors.ResourceExhaustedError(None, None, "OOM when"))
        assert not is_out_of_memory(tf.errors.InvalidArgumentError(None, None, "shape"))

    def test_free_memory_is_no_more_than_the_machine_has(self):
        with open("/proc/meminfo", encoding="ascii") as lines:
            total = int(lines.readline().split()[1]) * 1024
        assert 0 < free_memory() < total


class TestFit:
    def batch_sizes(self, model, monkeypatch, **keywords):
        """Rows of each batch that a training is given."""
        seen = []

        def rows(*arguments, batch_size, **others):
            seen.append(batch_size)
            return made(*arguments, batch_size=batch_size, **others)

        made = fitting.training_rows
        monkeypatch.setattr(fitting, "training_rows", rows)
        fit(model, X, Y, batch_size="memory", **SETTINGS, **keywords)
        return seen

    def test_a_small_machine_has_small_batches(self, monkeypatch):
        model = small_model()
        needed = estimate_step(model, X if isinstance(model.input, dict) else X["tabular"])
        monkeypatch.setattr(batch_sizes, "free_memory", lambda: 2 * needed(40))
        assert self.batch_sizes(model, monkeypatch) == [32]

    def test_the_progress_line_says_what_was_chosen(self, monkeypatch, capsys):
        model = small_model()
        needed = estimate_step(model, X if isinstance(model.input, dict) else X["tabular"])
        monkeypatch.setattr(batch_sizes, "free_memory", lambda: 2 * needed(40))
        fit(model, X, Y, batch_size="memory", **{**SETTINGS, "verbose": 1})
        assert f"{model.name}, 32 rows a batch: " in capsys.readouterr().err

    def test_an_accelerator_is_tried_and_the_weights_are_as_before(self, monkeypatch):
        model, trained_on = small_model(), []
        before = model.get_weights()

        def train_on_rows_of(model, inputs, outputs):
            step = honest(model, inputs, outputs)

            def limited(size):
                if size > 64:
                    raise RuntimeError("RESOURCE_EXHAUSTED: made up")
                trained_on.append(size)
                step(size)

            return limited

        honest = batch_sizes.train_on_rows_of
        monkeypatch.setattr(batch_sizes, "train_on_rows_of", train_on_rows_of)
        monkeypatch.setattr(batch_sizes, "find_device", lambda: Device("gpu"))
        size = batch_sizes.largest_batch_size(
            model, X if isinstance(model.input, dict) else X["tabular"], Y,
            as_task("binary"), "auto",
        )  # fmt: skip
        assert (size, trained_on) == (64, [16, 32, 64])
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize(("rows", "expected"), [(256, 256), (257, 255), (259, 256), (241, 128)])
    def test_no_batch_is_left_with_one_row(self, monkeypatch, rows, expected):
        monkeypatch.setattr(batch_sizes, "free_memory", lambda: 10**9)
        monkeypatch.setattr(batch_sizes, "find_device", lambda: Device("cpu"))
        size = batch_sizes.largest_batch_size(
            small_model(), X, np.zeros(rows), as_task("binary"), "auto"
        )
        assert size == expected
        assert rows % size != 1

    def test_another_word_is_an_error(self):
        with pytest.raises(ValueError, match='must be None, a number or "memory"'):
            fit(small_model(), X, Y, batch_size="large", **SETTINGS)
