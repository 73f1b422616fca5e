"""The largest batch whose training step fits in memory."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

MEMORY = "memory"
START = 16
# Of free memory: the estimate is rough, and rows and other programs need some as well.
SHARE = 0.5
# Values and their gradients, for each value that a layer gives.
COPIES_OF_VALUES = 2
# Weights, gradients and the two moments of Adam.
COPIES_OF_WEIGHTS = 4
_ITEM = 4


def largest_batch_that_fits(bytes_of: Callable[[int], int], memory: int, num_rows: int) -> int:
    """The largest power of two whose bytes are no more than the memory.

    Args:
        bytes_of: What a training step on so many rows takes.
        memory: Int, bytes.
        num_rows: Int, of the whole table: no batch is larger.

    Raises:
        RuntimeError: If one row does not fit.
    """
    return _largest(lambda size: bytes_of(size) <= memory, num_rows)


def largest_batch_that_runs(step: Callable[[int], Any], num_rows: int) -> int:
    """The largest power of two with which a training step does not run out of memory.

    Args:
        step: Trains on so many rows.
        num_rows: Int, of the whole table: no batch is larger.

    Raises:
        RuntimeError: If one row does not fit.
    """

    def runs(size: int) -> bool:
        try:
            step(size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    return _largest(runs, num_rows)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of TensorFlow, JAX or torch says that memory does not suffice."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ in ("ResourceExhaustedError", "OutOfMemoryError")
        or "RESOURCE_EXHAUSTED" in str(error)
    )


def estimate_step(model: keras.Model, inputs: Any) -> Callable[[int], int]:
    """Estimates the bytes of a training step: what layers give for each row, and the weights.

    A convolution is taken to lay out the patches that its kernel sees. What other layers make
    inside of themselves, beside the layers in them, is not known.

    Args:
        model: A built `keras.Model`, which stays as it is.
        inputs: Arrays as the model takes them; the first row is run.

    Returns:
        Bytes as a function of the rows in a batch.

    Raises:
        ValueError: If the inputs are not what the model takes.
    """
    with _recorded(model) as calls, keras.StatelessScope():
        model(keras.tree.map_structure(lambda array: np.asarray(array[:1]), inputs), training=True)
    per_row = 0
    for layer, given, made in calls:
        per_row += COPIES_OF_VALUES * sum(map(_num_bytes, keras.tree.flatten(made)))
        if isinstance(getattr(layer, "kernel_size", None), tuple):
            positions = math.prod(made.shape[1:-1])
            per_row += _ITEM * positions * math.prod(layer.kernel_size) * given.shape[-1]
    weights = COPIES_OF_WEIGHTS * _ITEM * model.count_params()
    return lambda batch_size: weights + batch_size * per_row


def free_memory() -> int:
    """Bytes that this process may still take on the machine, or in its container."""
    limits = [_free_of_machine()]
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            texts = [Path("/sys/fs/cgroup", name).read_text("ascii") for name in (limit, used)]
        except OSError:
            continue
        if texts[0].strip() != "max":
            limits.append(int(texts[0]) - int(texts[1]))
    return max(0, min(limits))


def train_on_rows_of(model: keras.Model, inputs: Any, outputs: Any) -> Callable[[int], None]:
    """A step for `largest_batch_that_runs`: trains on the first rows, again and again.

    Args:
        model: A compiled `keras.Model`; the caller puts its weights back.
        inputs: Arrays as the model takes them.
        outputs: Targets, one array per output.
    """

    def step(size: int) -> None:
        def take(array: Any) -> np.ndarray:
            few = np.asarray(array[: min(size, len(array))])
            return np.resize(few, (size, *few.shape[1:]))

        model.train_on_batch(*(keras.tree.map_structure(take, part) for part in (inputs, outputs)))

    return step


def _largest(fits: Callable[[int], bool], num_rows: int) -> int:
    most = 2 ** int(math.log2(num_rows))
    size = min(START, most)
    if fits(size):
        while 2 * size <= most and fits(2 * size):
            size *= 2
        return size
    while size > 1:
        size //= 2
        if fits(size):
            return size
    raise RuntimeError(
        "A training step on one row does not fit in memory: the model is too large for this device."
    )


@contextlib.contextmanager
def _recorded(model: keras.Model) -> Iterator[list[tuple[keras.layers.Layer, Any, Any]]]:
    """Which layers are called within, with what first, and what they give."""
    calls: list[tuple[keras.layers.Layer, Any, Any]] = []

    def recording(layer: keras.layers.Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(*arguments: Any, **keywords: Any) -> Any:
            made = call(*arguments, **keywords)
            calls.append((layer, arguments[0] if arguments else None, made))
            return made

        return recorded

    layers = list(model._flatten_layers(include_self=False))
    for layer in layers:
        layer.call = recording(layer, layer.call)
    try:
        yield calls
    finally:
        for layer in layers:
            # What is left is the method of its class.
            del layer.call


def _num_bytes(tensor: Any) -> int:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    # NumPy knows no bfloat16.
    return math.prod(tensor.shape) * (2 if dtype == "bfloat16" else np.dtype(dtype).itemsize)


def _free_of_machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return 1024 * kilobytes
