"""The graphs of training steps are freed with their models, those of a user's gradients kept."""

import gc
import weakref

import keras
import numpy as np
import pytest

from kfusion import build_unimodal_model, fit, tabular_branch
from kfusion.training.backend_memory import traced_gradients_forgotten

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tensorflow alone traces graphs"
)

X, Y = {"tabular": np.arange(16, dtype="float32").reshape(8, 2)}, np.arange(8) % 2


def graphs() -> list:
    return [each for each in gc.get_objects() if type(each).__name__ == "FuncGraph"]


def new_graphs(known: set[int]) -> list[weakref.ref]:
    return [weakref.ref(each) for each in graphs() if id(each) not in known]


def registered() -> set[str]:
    from tensorflow.python.framework import ops

    return {name for name in ops.gradient_registry.list() if name.startswith("CustomGradient")}


def test_graphs_of_a_training_die_with_its_model():
    known, before = {id(each) for each in graphs()}, registered()
    model = build_unimodal_model(tabular_branch(2, units=4), task="binary")
    fit(model, X, Y, task="binary", validation_data=None, epochs=1, verbose=0)
    made = new_graphs(known)
    assert made
    assert registered() == before
    del model
    gc.collect()
    assert [each for each in made if each() is not None] == []


def test_without_it_they_outlive_the_model():
    # If this fails, TensorFlow or Keras has mended it, and the module can go.
    known = {id(each) for each in graphs()}
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with traced_gradients_forgotten():
        model.fit(X["tabular"], Y, verbose=0)
        made = new_graphs(known)
        del model
        gc.collect()
        assert any(each() is not None for each in made)
    gc.collect()
    assert not any(each() is not None for each in made)


def test_a_users_own_gradient_stays():
    import tensorflow as tf

    @keras.ops.custom_gradient
    def with_half_gradient(values):
        return values * 1.0, lambda upstream: 0.5 * upstream

    with traced_gradients_forgotten():
        forward = tf.function(with_half_gradient).get_concrete_function(tf.TensorSpec(()))
    point = tf.constant(3.0)
    with tf.GradientTape() as tape:
        tape.watch(point)
        answer = forward(point)
    assert float(tape.gradient(answer, point)) == 0.5
