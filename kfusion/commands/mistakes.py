"""A user's mistakes: one line on stderr, exit 2, in the words of the command line."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

# What the checks of data and arguments raise.
CHECK_ERRORS = (ValueError, TypeError, OSError)
# What the library calls an argument -> what the command line does.
FLAGS = {
    "augment": "--augment",
    "backbone": "--backbone",
    "batch_size": "--batch-size",
    "class_weight": "--class-weight",
    "confidence": "--confidence",
    "epochs": "--epochs",
    "folds": "--folds",
    "fusion": "--fusions",
    "group_column": "--group",
    "image_column": "--image",
    "image_folder": "--image-folder",
    "image_shape": "--image-shape",
    "kind": "--kind",
    "max_trials": "--trials",
    "n_jobs": "--jobs",
    "on_bad_image": "--on-bad-image",
    "on_missing_image": "--on-missing-image",
    "overwrite": "--overwrite",
    "repeats": "--repeats",
    "resize": "--resize",
    "sampler": "--sampler",
    "score": "--score",
    "seed": "--seed",
    "streaming": "--streaming",
    "tabular_columns": "--columns",
    "target": "--target",
    "text_columns": "--text",
    "use_cache": "--use-cache",
    "validation": "--validation",
    "weights": "--weights",
}
_SWITCHED_OFF = {"trainable": "--freeze", "use_cache": "--no-use-cache"}
_NAMED = re.compile(r"`(\w+)(?:=([^`]*))?`")
_RECEIVED = re.compile(rf"\b({'|'.join(FLAGS)})=('[^']*'|\"[^\"]*\"|[\w.+-]*\w)")


class CommandError(Exception):
    """A user's mistake: its text goes to stderr, without a traceback."""


@contextlib.contextmanager
def user_input(kinds: tuple[type[Exception], ...] = CHECK_ERRORS) -> Iterator[None]:
    """Where an error of these kinds is the user's mistake."""
    try:
        yield
    except kinds as error:
        raise CommandError(in_flags(str(error))) from error


def in_flags(text: str) -> str:
    """What the library says, with the command line's flags in place of its arguments."""
    text = _NAMED.sub(lambda found: f"`{_flag(*found.groups())}`", text)
    return _RECEIVED.sub(lambda found: _flag(*found.groups()), text)


def _flag(name: str, value: str | None) -> str:
    """An argument as a flag, or as it is where the command line has none for it."""
    if value == "False" and name in _SWITCHED_OFF:
        return _SWITCHED_OFF[name]
    if name not in FLAGS:
        return name if value is None else f"{name}={value}"
    if not value or value == "True":
        return FLAGS[name]
    sizes = re.fullmatch(r"\((\w+(?:, \w+)+)\)", value)
    written = sizes[1].replace(", ", "x") if sizes else value.strip("'\"")
    return f"{FLAGS[name]} {written}"
