"""In which numbers a network is best computed here."""

from __future__ import annotations

import keras

from kfusion.devices import Device, find_device

FULL, BRAIN, HALF = "float32", "mixed_bfloat16", "mixed_float16"


def choose_precision() -> str:
    """The dtype policy that suits the device: give it to Keras before models are built.

    Weights are float32 under each of them, and so are the heads and losses of kfusion's models.

    - On a CPU "float32". TensorFlow has hardly any fast kernels for float16 there: a training
      takes many times as long (`benchmarks/precision.py`).
    - On TPUs, and NVIDIA GPUs from compute capability 8.0 on, "mixed_bfloat16": the range of
      float32, so that nothing underflows.
    - On NVIDIA GPUs from 7.0 on "mixed_float16": small gradients underflow in it, and Keras'
      `compile` puts a `LossScaleOptimizer` around the optimizer by itself.
    - On any other device "float32".

    A policy other than "float32" that is in force, as set by `keras.config.set_dtype_policy`, was
    chosen by somebody and is what is returned. What GPUs and TPUs gain has not been measured.

    Returns:
        "float32", "mixed_bfloat16" or "mixed_float16"; or the policy that is in force.

    Example:
        >>> keras.config.set_dtype_policy(choose_precision())
    """
    in_force = keras.config.dtype_policy().name
    return policy_for(find_device()) if in_force == FULL else in_force


def policy_for(device: Device) -> str:
    """The dtype policy for a device; see `choose_precision`."""
    if device.kind == "tpu":
        return BRAIN
    if device.kind == "gpu" and device.capability is not None:
        if device.capability >= (8, 0):
            return BRAIN
        if device.capability >= (7, 0):
            return HALF
    return FULL
