"""`kfusion report`, and what `--report` does after other commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kfusion.commands.mistakes import user_input


def add_parser(commands: Any) -> None:
    """Declares the command.

    Args:
        commands: What `ArgumentParser.add_subparsers` returned.
    """
    parser = commands.add_parser("report", help="write a page on a run, or on two side by side")
    parser.add_argument("run", metavar="RUN", help="folder written by fit, search or demo")
    parser.add_argument("other", metavar="RUN2", nargs="?", help="another, to compare with")
    parser.add_argument(
        "--out", type=_html_file, metavar="FILE", help="HTML file (default: report.html in RUN)"
    )
    parser.set_defaults(command=_run)


def add_report_option(parser: argparse.ArgumentParser) -> None:
    """Declares `--report` of another command."""
    parser.add_argument(
        "--report", type=_html_file, metavar="FILE", help="also write a page, as one HTML file"
    )


def write_report(arguments: argparse.Namespace, result: Any, data: Any = None) -> dict[str, str]:
    """Writes the page that was asked for; returns its entry in what the command prints.

    Args:
        arguments: Of the command: `report`, a path or None, and `line`, as it was typed.
        result: As in `kfusion.report`.
        data: As in `kfusion.report`.
    """
    if arguments.report is None:
        return {}
    from kfusion.reports.page import report

    return {"report": str(report(result, arguments.report, data=data, command=arguments.line))}


def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    from kfusion.reports.page import report

    out = arguments.out or Path(arguments.run) / "report.html"
    result = arguments.run if arguments.other is None else (arguments.run, arguments.other)
    with user_input():
        return {"report": str(report(result, out))}


def _html_file(text: str) -> Path:
    path = Path(text)
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder for {text!r}")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder")
    return path
