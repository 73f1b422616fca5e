"""What models run on; and several devices that share each batch, as `distribution` says."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

_NEEDED = {
    "tensorflow": (
        "a strategy for the devices of one machine, such as `tf.distribute.MirroredStrategy()`"
    ),
    "jax": "`keras.distribution.DataParallel()`",
}


def check_distribution(distribution: Any) -> None:
    """Raises what is wrong with a `distribution` that was given.

    Args:
        distribution: A `tf.distribute` strategy, on the tensorflow backend; or
            `keras.distribution.DataParallel`, on jax. None is fine.

    Raises:
        TypeError: If it is neither, or that of another backend.
        ValueError: If it is for several machines.
    """
    if distribution is None:
        return
    backend = keras.backend.backend()
    if backend not in _NEEDED:
        raise TypeError(
            f"`distribution` works on the backends {sorted(_NEEDED)}. This one is {backend!r}: set "
            "KERAS_BACKEND before Keras is imported, or leave `distribution` out."
        )
    if backend == "jax":
        fits = isinstance(distribution, keras.distribution.DataParallel)
    else:
        import tensorflow as tf

        fits = isinstance(distribution, tf.distribute.Strategy)
    if not fits:
        raise TypeError(
            f"`distribution` must be {_NEEDED[backend]} on the {backend} backend. Received: "
            f"{type(distribution).__name__}."
        )
    if _is_of_several_machines(distribution):
        raise ValueError(
            "`distribution` shares batches among the devices of one machine. Received: "
            f"{type(distribution).__name__} for several. Machines share trials and folds instead: "
            "start one process on each with the same `directory`."
        )


def find_distribution(distribution: Any, model: Any) -> Any:
    """What shares a model's batches: that given, or that which the model was built under.

    Returns:
        The distribution; None if one device has the whole batch.

    Raises:
        TypeError, ValueError: As `check_distribution`; or if the model is not on its devices.
    """
    check_distribution(distribution)
    if num_devices(distribution) == 1:
        return distribution_of(model)
    if not _is_on_its_devices(model, distribution):
        raise ValueError(
            f"{model.name!r} was not built within the distribution's scope, so its weights are not "
            "on all devices. Build it (or load it) like this:\n"
            "    with distribution.scope():\n"
            "        model = ..."
        )
    return distribution


def check_compiling(distribution: Any, optimizer: Any, jit_compile: bool | str) -> None:
    """Raises `ValueError` if several devices cannot train with an optimizer, or XLA."""
    if num_devices(distribution) == 1:
        return
    if jit_compile is True and keras.backend.backend() == "tensorflow":
        raise ValueError(
            "`jit_compile=True` compiles for one device on the tensorflow backend: leave it at "
            '"auto" with a distribution, or use the jax backend.'
        )
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return
    if optimizer.gradient_accumulation_steps and keras.backend.backend() == "tensorflow":
        raise ValueError(
            f"The optimizer {optimizer.name!r} accumulates gradients, which Keras cannot do on "
            "several devices on the tensorflow backend: leave `gradient_accumulation_steps` out "
            "and give a larger `batch_size`, or use the jax backend."
        )
    if not _is_shared(optimizer.variables[0], distribution):
        raise ValueError(
            f"The optimizer {optimizer.name!r} was not made within the distribution's scope: make "
            'it there as well, or name it (`optimizer="adam"`).'
        )


def distribution_of(model: Any) -> Any:
    """What shares a model's batches, as things stand; None if one device has them whole.

    On tensorflow a model keeps the strategy that it was built under. On jax, the distribution whose
    scope this is, if the model's weights are on its devices.
    """
    if keras.backend.backend() == "tensorflow":
        found = getattr(model, "distribute_strategy", None)
        return found if num_devices(found) > 1 else None
    if keras.backend.backend() == "jax":
        found = keras.distribution.distribution()
        is_shared = isinstance(found, keras.distribution.DataParallel) and num_devices(found) > 1
        return found if is_shared and _is_on_its_devices(model, found) else None
    return None


def shares_batches() -> bool:
    """Whether several devices share the batches of models that are built here."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return num_devices(tf.distribute.get_strategy()) > 1
    if keras.backend.backend() == "jax":
        return num_devices(keras.distribution.distribution()) > 1
    return False


def num_devices(distribution: Any) -> int:
    """How many devices share a batch; 1 for None."""
    if distribution is None:
        return 1
    if keras.backend.backend() == "jax":
        return int(distribution.device_mesh.devices.size)
    return int(distribution.num_replicas_in_sync)


@contextlib.contextmanager
def sharing(distribution: Any, model: Any = None) -> Iterator[None]:
    """The scope in which models are built, compiled and trained; nothing for None.

    A model that is given normalises whole batches within. On tensorflow each device would
    otherwise take the statistics of its own share, and train another network than one device does.
    """
    if distribution is None:
        yield
        return
    scope = distribution.scope()
    scope.__enter__()
    try:
        with contextlib.ExitStack() as held:
            if model is not None and keras.backend.backend() == "tensorflow":
                held.enter_context(_normalising_whole_batches(model))
            yield
    finally:
        _leave(scope)


def sharing_where_needed(distribution: Any) -> contextlib.AbstractContextManager[None]:
    """`sharing`, for work that clears Keras' session, as KerasTuner does before each model.

    A scope of TensorFlow's does not outlive that; there a model keeps the strategy that it was
    built under, and no scope is needed to train it.
    """
    return sharing(distribution if keras.backend.backend() == "jax" else None)


def normalises_batches(model: Any) -> bool:
    """Whether what a model makes of a row in training depends on the others of its batch."""
    return bool(_normalising_layers(model))


def predict_on_devices(model: keras.Model, inputs: Any) -> Any:
    """`model.predict_on_batch`, each device at its share of the rows.

    Keras' own has every device predict all rows and, on tensorflow, gives them one behind the
    other.

    Args:
        model: A `keras.Model`.
        inputs: Arrays as the model takes them.
    """
    distribution = distribution_of(model)
    if distribution is None:
        return model.predict_on_batch(inputs)
    count = num_devices(distribution)
    rows = len(keras.tree.flatten(inputs)[0])
    share = math.ceil(rows / count)
    filled = keras.tree.map_structure(
        lambda array: np.resize(array, (share * count, *array.shape[1:])), inputs
    )
    if keras.backend.backend() == "jax":
        dealt = keras.tree.map_structure(
            lambda array: keras.distribution.distribute_tensor(
                array, distribution.get_data_layout(array.shape)
            ),
            filled,
        )
    else:

        def share_of(context: Any) -> Any:
            first = context.replica_id_in_sync_group * share
            return keras.tree.map_structure(
                lambda array: keras.ops.convert_to_tensor(array[first : first + share]), filled
            )

        dealt = distribution.experimental_distribute_values_from_function(share_of)
    outputs = model.predict_on_batch(dealt)
    return keras.tree.map_structure(lambda array: np.asarray(array)[:rows], outputs)


@dataclasses.dataclass(frozen=True)
class Device:
    """What models run on.

    Attributes:
        kind: "cpu", "gpu" or "tpu".
        capability: `(major, minor)` compute capability of an NVIDIA GPU, else None.
    """

    kind: str
    capability: tuple[int, int] | None = None


def find_device() -> Device:
    """The first device that the backend uses when nothing is said."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        kind = {"cuda": "gpu", "rocm": "gpu"}.get(jax.default_backend(), jax.default_backend())
        return Device(kind, _as_version(getattr(jax.devices()[0], "compute_capability", None)))
    if backend == "torch":
        import torch

        if not torch.cuda.is_available():
            return Device("cpu")
        return Device("gpu", None if torch.version.hip else torch.cuda.get_device_capability())
    if backend == "tensorflow":
        import tensorflow as tf

        if tf.config.list_logical_devices("TPU"):
            return Device("tpu")
        for gpu in tf.config.get_visible_devices("GPU"):
            details = tf.config.experimental.get_device_details(gpu)
            return Device("gpu", details.get("compute_capability"))
    return Device("cpu")


def _normalising_layers(model: Any) -> list[Any]:
    """A model's layers that take statistics of a batch: they have Keras' word for it."""
    return [layer for layer in model._flatten_layers() if hasattr(layer, "synchronized")]


@contextlib.contextmanager
def _normalising_whole_batches(model: Any) -> Iterator[None]:
    """Within, a model's layers take the statistics of what all devices have of a batch."""
    layers = [(layer, layer.synchronized) for layer in _normalising_layers(model)]
    for layer, _ in layers:
        layer.synchronized = True
        if isinstance(layer, keras.layers.BatchNormalization):
            layer._moments = functools.partial(_moments_of_all_devices, layer._reduction_axes)
    try:
        yield
    finally:
        for layer, was_synchronized in layers:
            layer.synchronized = was_synchronized
            if isinstance(layer, keras.layers.BatchNormalization):
                del layer._moments


def _moments_of_all_devices(axes: Sequence[int], inputs: Any, mask: Any) -> tuple[Any, Any]:
    """Mean and variance of each channel, where `mask` is not 0, over what all devices have.

    Keras' own, when synchronized, leaves masks out, and takes the variance as the mean of squares
    less the square of the mean, of which nothing is left for numbers far from 0.
    """
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if mask is None:
        counted = tf.ones_like(inputs)
    else:
        there = tf.cast(tf.expand_dims(mask, -1), "bool")
        counted = tf.cast(tf.broadcast_to(there, tf.shape(inputs)), inputs.dtype)

    def mean_of(values: Any) -> Any:
        totals = [tf.reduce_sum(each, axes, keepdims=True) for each in (values * counted, counted)]
        # None while Keras builds a model, before any device has its share.
        if context is not None:
            totals = context.all_reduce(tf.distribute.ReduceOp.SUM, totals)
        return tf.math.divide_no_nan(*totals)

    mean = mean_of(inputs)
    # The deviations sum to 0, so that no gradient passes through their mean.
    variance = mean_of(tf.square(inputs - tf.stop_gradient(mean)))
    return tf.squeeze(mean, axes), tf.squeeze(variance, axes)


def _leave(scope: Any) -> None:
    try:
        scope.__exit__(None, None, None)
    except IndexError:
        # TensorFlow keeps the scopes in the graph that `clear_session` throws away.
        raise RuntimeError(
            "Keras' session was cleared within the distribution's scope, which ended it: what was "
            "built since is on one device. Leave `keras.utils.clear_session()` out."
        ) from None


def _is_of_several_machines(distribution: Any) -> bool:
    if keras.backend.backend() == "jax":
        import jax

        return jax.process_count() > 1
    import tensorflow as tf

    return isinstance(
        distribution,
        (
            tf.distribute.MultiWorkerMirroredStrategy,
            tf.distribute.experimental.ParameterServerStrategy,
        ),
    )


def _is_on_its_devices(model: Any, distribution: Any) -> bool:
    """Whether a model's weights are on all devices of `distribution`."""
    if keras.backend.backend() == "tensorflow":
        return model.distribute_strategy is distribution
    return all(_is_shared(variable, distribution) for variable in model.variables[:1])


def _is_shared(variable: Any, distribution: Any) -> bool:
    """Whether a variable is on all devices of `distribution`."""
    if keras.backend.backend() == "jax":
        return len(variable.value.sharding.device_set) == num_devices(distribution)
    import tensorflow as tf

    return isinstance(variable.value, tf.distribute.DistributedValues)


def _as_version(text: Any) -> tuple[int, int] | None:
    parts = str(text).split(".")
    if len(parts) == 2 and all(part.isdigit() for part in parts):
        return int(parts[0]), int(parts[1])
    return None
