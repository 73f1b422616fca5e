"""What every fusion layer takes: feature vectors of at least two branches."""

from __future__ import annotations

from collections.abc import Sequence


def fused_widths(layer_name: str, input_shape: Sequence[Sequence[int | None]]) -> list[int]:
    """Returns the width of each feature vector, `(rows, width)`.

    Raises:
        ValueError: If there are fewer than two, or one is no vector of known width.
    """
    shapes = [tuple(shape) if isinstance(shape, (list, tuple)) else () for shape in input_shape]
    if len(shapes) < 2 or any(len(shape) != 2 or shape[1] is None for shape in shapes):
        raise ValueError(
            f"`{layer_name}` fuses a list of at least two feature vectors of shape (rows, width). "
            f"Received shapes: {list(input_shape)}. Pool or flatten other shapes first."
        )
    return [int(shape[1]) for shape in shapes]
