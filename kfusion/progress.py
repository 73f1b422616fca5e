"""One progress bar for everything that a user waits for, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

import tqdm

Item = TypeVar("Item")


def progress(
    items: Iterable[Item], *, description: str, total: int | None = None, verbose: int | bool = 1
) -> tqdm.tqdm[Item]:
    """Wraps an iterable in a progress bar: count, rate and time left.

    Args:
        items: What to go through.
        description: Text in front of the bar.
        total: Number of items, where `items` has no length.
        verbose: 0 shows nothing.
    """
    return tqdm.tqdm(
        items, desc=description, total=total, disable=not verbose, file=sys.stderr, leave=True
    )
