"""What every fusion layer takes: a list of the features of at least two branches."""

from __future__ import annotations

from collections.abc import Sequence

VECTORS, TOKENS, MAPS = 2, 3, 4
_NAMES = {
    VECTORS: "vectors of shape (rows, width)",
    TOKENS: "tokens of shape (rows, steps, width)",
    MAPS: "maps of shape (rows, height, width, channels)",
}


def fused_widths(
    layer_name: str,
    input_shape: Sequence[Sequence[int | None]],
    *,
    first: Sequence[int] = (VECTORS,),
    others: Sequence[int] = (VECTORS,),
) -> list[int]:
    """Returns the width of each input's features, its last axis.

    Args:
        layer_name: How the layer is called in the error.
        input_shape: Shapes, one per branch.
        first: Ranks that the first branch's features may have.
        others: Ranks of the others'.

    Raises:
        ValueError: If there are fewer than two, or one has another rank or no known width.
    """
    shapes = [tuple(shape) if isinstance(shape, (list, tuple)) else () for shape in input_shape]
    ranks = [first, *[others] * (len(shapes) - 1)]
    fits = len(shapes) > 1 and all(
        len(shape) in taken and shape[-1] is not None
        for shape, taken in zip(shapes, ranks, strict=True)
    )
    if not fits:
        raise ValueError(
            f"`{layer_name}` fuses a list of at least two feature {_named(first)}"
            f"{'' if tuple(first) == tuple(others) else ' first, then ' + _named(others)}. "
            f"Received shapes: {list(input_shape)}. Pool or flatten other shapes first."
        )
    return [int(shape[-1]) for shape in shapes]


def _named(ranks: Sequence[int]) -> str:
    return " or ".join(_NAMES[rank] for rank in ranks)
