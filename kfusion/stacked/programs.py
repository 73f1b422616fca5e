"""What was compiled for stacks, kept for members of the same structure that come later."""

from __future__ import annotations

from collections.abc import Callable

from kfusion.stacked.fit_data import FitData
from kfusion.stacked.stacked_epochs import StackedEpochs
from kfusion.tasks import Task

# Programs that are kept: those used last.
MOST_KEPT = 4


class Programs:
    """What `fit_many` has compiled, to be given to later calls on the same rows.

    To compile a small network often takes longer than to train it. A call that is given the
    `programs` of earlier ones trains members of a structure that these had without compiling
    again: new seeds, rates or dropout of one network, as a search asks for them. The four programs
    used last are kept, each with a copy of the rows. Rows that differ in any value, also an array
    that was changed in place, are new ones: what was compiled for others is dropped.

    `len(programs)` is the number of those kept.

    Example:
        >>> import numpy as np
        >>> import kfusion
        >>> x = {"embedding": np.random.default_rng(0).normal(size=(64, 4)).astype("float32")}
        >>> y = (x["embedding"][:, 0] > 0).astype(int)
        >>> def build(dropout):
        ...     branch = kfusion.embedding_branch(4, units=2, dropout=dropout)
        ...     return kfusion.build_unimodal_model(branch, task="binary", head_depth=0)
        >>> programs = Programs()
        >>> for dropout in (0.1, 0.3):
        ...     fits = kfusion.fit_many(
        ...         build, x, y, task="binary", members=[{"dropout": dropout}], epochs=1,
        ...         programs=programs, verbose=0,
        ...     )
        >>> len(programs)
        1
    """

    def __init__(self) -> None:
        self._rows: tuple[Task, str] | None = None
        self._kept: dict[tuple[str, int], StackedEpochs] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep_to(self, data: FitData) -> None:
        """Drops what was compiled for rows other than these."""
        rows = data.task, data.digest()
        if rows != self._rows:
            self._kept.clear()
        self._rows = rows

    def find(
        self,
        key: str,
        size: int,
        make: Callable[[], StackedEpochs],
    ) -> tuple[StackedEpochs, int]:
        """The stack for members, and how many it takes: as many, or up to twice as many.

        Args:
            key: Text that all members share which it may take.
            size: Int, how many are to be trained at once.
            make: Makes a stack where none is kept.
        """
        fitting = [kept for text, kept in self._kept if text == key and size <= kept <= 2 * size]
        taken = min(fitting, default=size)
        stack = self._kept.pop((key, taken), None) or make()
        # The one used last is the last one.
        self._kept[key, taken] = stack
        while len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return stack, taken
