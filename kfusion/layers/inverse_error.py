"""The inverse of the error function from operations that every runtime knows."""

from __future__ import annotations

from typing import Any

from keras import ops

# Of the highest power first: for the middle, and for the tails.
_MIDDLE = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
_TAILS = (
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
)


def inverse_error(values: Any):
    """The inverse of the error function of float32 numbers between -1 and 1.

    ONNX and LiteRT have none, and TensorFlow's is off by up to 5e-6 within 0.9973; this one, by
    1e-6 or less.

    Source: Giles, 2012, "Approximating the erfinv function", GPU Computing Gems Jade Edition,
    chapter 10.
    """
    width = -ops.log((1 - values) * (1 + values))
    is_middle = width < 5
    place = ops.where(is_middle, width - 2.5, ops.sqrt(ops.maximum(width, 5.0)) - 3)
    result = ops.where(is_middle, _MIDDLE[0], _TAILS[0])
    for middle, tail in zip(_MIDDLE[1:], _TAILS[1:], strict=True):
        result = ops.where(is_middle, middle, tail) + result * place
    return result * values
