"""What is a user's mistake, to be told in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

# What the checks of data and arguments raise.
CHECK_ERRORS = (ValueError, TypeError, OSError)


class CommandError(Exception):
    """A user's mistake: its text goes to stderr, without a traceback."""


@contextlib.contextmanager
def user_input(kinds: tuple[type[Exception], ...] = CHECK_ERRORS) -> Iterator[None]:
    """Where an error of these kinds is the user's mistake."""
    try:
        yield
    except kinds as error:
        raise CommandError(str(error)) from error
