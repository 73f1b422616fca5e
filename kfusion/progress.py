"""One display of progress for everything that a user waits for, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Generic, TypeVar

import tqdm

Item = TypeVar("Item")

# The bars that are open: the first one is drawn, and the others at its end.
_open: list[Progress[Any]] = []


def progress(
    items: Iterable[Item], *, description: str, total: int | None = None, verbose: int | bool = 1
) -> Progress[Item]:
    """Shows how far work is: count, time left and what else is told of it.

    On a terminal and in a notebook this is a bar that is drawn anew; anywhere else, such as in a
    log file, a line now and then and one at the end. Of work within work there is one bar.

    Args:
        items: What to go through.
        description: Text in front.
        total: Number of items, where `items` has no length.
        verbose: 0 shows nothing.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    return Progress(items, description, total, is_shown=bool(verbose))


class Progress(Generic[Item]):
    """Go through it as through its items, or open it with `with` and tell it to `advance`.

    Attributes:
        count: Int, how much is done.
        skipped: Int, how much of that was done before, which tells nothing of the time left.
        total: Int, how much there is; None if nobody knows.
    """

    def __init__(
        self, items: Iterable[Item], description: str, total: int | None, *, is_shown: bool
    ):
        self.items, self.description, self.total = items, description, total
        self.count = self.skipped = 0
        self.started = self._drawn = 0.0
        self._is_shown = is_shown
        self._note = ""
        self._view: _Bar | _Lines | None = None

    def __iter__(self) -> Iterator[Item]:
        with self:
            for item in self.items:
                yield item
                self.advance()

    def __enter__(self) -> Progress[Item]:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Begins to show it."""
        if self._is_shown:
            self.started = self._drawn = time.monotonic()
            _open.append(self)
            _draw()

    def advance(self, count: int = 1) -> None:
        """Says that so much more is done."""
        self.count += count
        _draw()

    def note(self, text: str) -> None:
        """Says what is being done or what came of it, in place of what was said before."""
        self._note = text
        _draw()

    def close(self) -> None:
        """Leaves the last state to be read; if it is closed already, does nothing."""
        if self not in _open:
            return
        _open.remove(self)
        if self._view is not None:
            self._view.finish(self, self._note)
            self._view = None

    def draw(self, told: str) -> None:
        """Draws it, unless that was a moment ago."""
        if self._view is None:
            self._view = _Bar(self) if _can_be_drawn_anew(sys.stderr) else _Lines()
        now = time.monotonic()
        if now - self._drawn >= self._view.seconds_between:
            self._drawn = now
            self._view.draw(self, told)

    def told(self) -> str:
        """What it says at the end of another one."""
        count = str(self.count) if self.total is None else f"{self.count}/{self.total}"
        return _joined(f"{self.description} {count}", self._note)


def _draw() -> None:
    if _open:
        outer, *within = _open
        outer.draw(_joined(outer._note, *(each.told() for each in within)))


def _joined(*texts: str) -> str:
    return ", ".join(text for text in texts if text)


def _can_be_drawn_anew(stream: Any) -> bool:
    """Whether a carriage return goes back to the start of the line, for someone to see."""
    is_of_notebook = type(stream).__module__.startswith("ipykernel.")
    return is_of_notebook or stream.isatty()


class _Bar:
    seconds_between = 0.1

    def __init__(self, work: Progress[Any]):
        self._bar = tqdm.tqdm(
            desc=work.description, total=work.total, file=sys.stderr, dynamic_ncols=True
        )

    def draw(self, work: Progress[Any], told: str) -> None:
        self._bar.n, self._bar.initial = work.count, work.skipped
        self._bar.set_postfix_str(told)

    def finish(self, work: Progress[Any], told: str) -> None:
        self.draw(work, told)
        self._bar.close()


class _Lines:
    seconds_between = 30.0

    def __init__(self) -> None:
        self._written: tuple[int, str] | None = None

    def draw(self, work: Progress[Any], told: str) -> None:
        self._written = work.count, told
        took = time.monotonic() - work.started
        parts = [f"{work.description}: {work.count} in {_spelled(took)}", told]
        if work.total is not None:
            parts[0] = f"{work.description}: {work.count} of {work.total} in {_spelled(took)}"
            new = work.count - work.skipped
            if new and work.count < work.total:
                parts.insert(1, f"{_spelled(took / new * (work.total - work.count))} left")
        sys.stderr.write(_joined(*parts) + "\n")
        sys.stderr.flush()

    def finish(self, work: Progress[Any], told: str) -> None:
        # The last item may have had its line a moment ago.
        if work.count > work.skipped and (work.count, told) != self._written:
            self.draw(work, told)


def _spelled(seconds: float) -> str:
    return tqdm.tqdm.format_interval(seconds)
