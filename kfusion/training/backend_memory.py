"""What TensorFlow and JAX keep of models that are gone, for the life of the process, freed."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def traced_gradients_forgotten() -> Iterator[None]:
    """Frees the graphs of the training steps that were traced within, when it ends.

    A step of Keras on tensorflow sums its gradients over the replicas. TensorFlow registers the
    gradient of that sum (`tf.custom_gradient` in `ReplicaContext.all_reduce`) under a new name for
    each step that it traces, and never takes it back; what is registered holds the step's graph, so
    that a process which trains one model after another grows by megabytes a model, whatever is
    cleared. Nothing differentiates through a training step: these entries, and no others, are taken
    out. On other backends, and where TensorFlow keeps its registry elsewhere, nothing is done.
    """
    before = set(_gradient_registry())
    try:
        yield
    finally:
        registry = _gradient_registry()
        for name in set(registry) - before:
            if _is_sum_over_replicas(registry[name].get("type")):
                del registry[name]


def free_compiled_functions() -> None:
    """Drops all that JAX has compiled: what is called again is compiled again.

    A training step that JAX compiled outlives its model in JAX's caches. On other backends nothing
    is done.
    """
    jax = sys.modules.get("jax")
    if jax is not None:
        jax.clear_caches()


def _gradient_registry() -> dict[str, dict[str, Any]]:
    """TensorFlow's own, by name; an empty one where TensorFlow is not imported."""
    operations = sys.modules.get("tensorflow.python.framework.ops")
    registry = getattr(getattr(operations, "gradient_registry", None), "_registry", None)
    return registry if isinstance(registry, dict) else {}


def _is_sum_over_replicas(gradient: Any) -> bool:
    """Whether a registered gradient is that of `ReplicaContext.all_reduce`."""
    return any(
        function.__module__ == "tensorflow.python.distribute.distribute_lib"
        and ".all_reduce." in function.__qualname__
        for function in _functions_behind(gradient, depth=3)
    )


def _functions_behind(value: Any, depth: int) -> Iterator[Callable]:
    """A function and those that it closes over."""
    if not inspect.isfunction(value) or depth == 0:
        return
    yield value
    for cell in value.__closure__ or ():
        # A cell may be empty: a name that was never given a value.
        with contextlib.suppress(ValueError):
            yield from _functions_behind(cell.cell_contents, depth - 1)
