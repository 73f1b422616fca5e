"""The gradient of any function of tensors, on the backend in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np


def gradients(
    function: Callable[[list[Any]], Any], values: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """How a number changes with each entry of some arrays.

    Args:
        function: From a list of tensors, in the shapes of `values`, to a scalar tensor.
        values: Arrays at which the gradient is taken.

    Returns:
        Arrays in the shapes of `values`; zeros where the number does not depend on them.
    """
    tensors = [keras.ops.convert_to_tensor(value) for value in values]
    found = _GRADIENTS[keras.backend.backend()](function, tensors)
    return [
        np.zeros_like(value) if each is None else keras.ops.convert_to_numpy(each)
        for each, value in zip(found, values, strict=True)
    ]


def _by_tensorflow(function, tensors):
    import tensorflow as tf

    # What only the model's weights lead to is not recorded.
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        value = function(tensors)
    return tape.gradient(value, tensors)


def _by_jax(function, tensors):
    import jax

    return jax.grad(function)(tensors)


def _by_torch(function, tensors):
    import torch

    with torch.enable_grad():
        followed = [tensor.detach().requires_grad_() for tensor in tensors]
        return torch.autograd.grad(function(followed), followed, allow_unused=True)


_GRADIENTS = {"tensorflow": _by_tensorflow, "jax": _by_jax, "torch": _by_torch}
