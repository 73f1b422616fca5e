"""The command line: results as JSON on stdout, progress on stderr, exit 2 for a user's mistake."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from kfusion.commands import compare, demo, doctor, export, predict, report, serve, training
from kfusion.commands.mistakes import CommandError
from kfusion.commands.telling import warnings_in_one_line


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    arguments = parser().parse_args(argv)
    arguments.line = shlex.join(["kfusion", *(sys.argv[1:] if argv is None else argv)])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow warns of retracing where models of several candidates follow one another.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    stdout = sys.stdout
    try:
        # Keras and KerasTuner print; stdout is for the results alone.
        with contextlib.redirect_stdout(sys.stderr), warnings_in_one_line():
            result = arguments.command(arguments)
    except CommandError as error:
        print(f"kfusion: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"kfusion: stopped.{arguments.kept_when_stopped}", file=sys.stderr)
        return 130
    try:
        print(json.dumps(result, ensure_ascii=False, indent=1), file=stdout, flush=True)
    except BrokenPipeError:
        # Whoever read it has enough; Python would complain again when it closes the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
    return arguments.judge(result)


def _succeeded(result: dict[str, Any]) -> int:
    return 0


def parser() -> argparse.ArgumentParser:
    """All commands."""
    everything = argparse.ArgumentParser(
        prog="kfusion", description="Fuses images with a table: from a CSV file to a SavedModel."
    )
    # The package around this file has no level to import it from.
    version = sys.modules["kfusion"].__version__
    everything.add_argument("--version", action="version", version=f"kfusion {version}")
    everything.set_defaults(judge=_succeeded, kept_when_stopped="")
    commands = everything.add_subparsers(required=True, metavar="COMMAND")
    for command in (demo, training, compare, doctor, export, predict, report, serve):
        command.add_parser(commands)
    return everything


if __name__ == "__main__":
    sys.exit(main())
