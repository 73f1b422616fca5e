"""Lines for people, on stderr: stdout is for the result alone."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator

from kfusion.commands.mistakes import in_flags


def tell(line: str) -> None:
    """Prints a line at once."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Where a warning is a line in the command line's words, without its place in the source."""

    def show(message, category, filename, lineno, file=None, line=None):
        tell(f"kfusion: warning: {in_flags(str(message))}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
