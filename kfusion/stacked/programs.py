"""What was compiled for stacks, kept for members of the same structure that come later."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kfusion.stacked.stacked_epochs import StackedEpochs
from kfusion.stacked.stacked_fit import BuiltMember, FitData, dials_in_use

# Programs that are kept: those used last.
MOST_KEPT = 4


class Programs:
    """Compiled stacks by what their members share; of one set of rows, which they hold.

    Example:
        >>> programs = Programs()
        >>> len(programs)
        0
    """

    def __init__(self) -> None:
        self.data: FitData
        self._kept: dict[tuple[str, int], StackedEpochs] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def of_rows(self, data: FitData) -> FitData:
        """The rows to train on: those of before, if they are the same objects."""
        known = getattr(self, "data", None)
        if known is None or not known.is_same(data):
            self._kept.clear()
            self.data = data
        return self.data

    def find(
        self,
        key: str,
        group: Sequence[BuiltMember],
        size: int,
        make: Callable[[], StackedEpochs],
    ) -> tuple[StackedEpochs, int]:
        """The stack for members, and how many it takes: as many, or up to twice as many.

        Args:
            key: Text that the members share.
            group: The members.
            size: Int, how many are to be trained at once.
            make: Makes a stack where none is kept.
        """
        own = f"{key} {dials_in_use(group)}"
        fitting = [kept for text, kept in self._kept if text == own and size <= kept <= 2 * size]
        taken = min(fitting, default=size)
        stack = self._kept.pop((own, taken), None) or make()
        # The one used last is the last one.
        self._kept[own, taken] = stack
        while len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return stack, taken
