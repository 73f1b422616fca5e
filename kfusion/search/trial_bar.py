"""How far a search is, whoever works on it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from optuna.trial import TrialState

from kfusion.progress import Progress

SECONDS_BETWEEN_LOOKS = 1.0
FINISHED = (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)


class TrialBar:
    """One bar of the trials of a study: those finished, the best one, time left.

    Args:
        oracle: `StudyOracle`.
        is_shown: Whether there is anything to see.
        at_once: Int, how many a process trains at once.
    """

    def __init__(self, oracle: Any, *, is_shown: bool, at_once: int = 1):
        self.is_shown = is_shown
        self._oracle = oracle
        name = "trials" if at_once == 1 else f"trials, {at_once} at once"
        self._bar: Progress[Any] = Progress((), name, oracle.max_trials, is_shown=is_shown)

    def __enter__(self) -> TrialBar:
        if self.is_shown:
            self._bar.count = self._bar.skipped = self._count_finished()
            self._bar.open()
            self.update()
        return self

    def __exit__(self, *_: object) -> None:
        # Others may have ended trials since the last one here.
        self.update()
        self._bar.close()

    def update(self) -> None:
        """Looks at the study."""
        if self.is_shown:
            self._bar.count = self._count_finished()
            self._bar.note(self._tell_best())

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Looks at the study again and again, while other processes work on it."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(SECONDS_BETWEEN_LOOKS):
                self.update()

        thread = threading.Thread(target=look, daemon=True)
        if self.is_shown:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            if self.is_shown:
                thread.join()
                self.update()

    def _count_finished(self) -> int:
        return len(self._oracle.study.get_trials(deepcopy=False, states=FINISHED))

    def _tell_best(self) -> str:
        found = self._oracle.get_best_trials(1)
        if not found:
            return ""
        metrics = found[0].metrics
        names = [objective.name for objective in self._oracle.objectives]
        values = ", ".join(f"{name} {metrics.get_best_value(name):.4g}" for name in names)
        return f"best {values} (trial {int(found[0].trial_id)})"
