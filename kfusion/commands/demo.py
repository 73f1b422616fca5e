"""`kfusion demo`: the whole road on data that ship."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kfusion.commands.mistakes import user_input
from kfusion.commands.report import add_report_option
from kfusion.commands.telling import tell


def add_parser(commands: Any) -> None:
    """Declares the command and its arguments."""
    parser = commands.add_parser("demo", help="run the whole road on satellite patches that ship")
    parser.add_argument(
        "--out", default="kfusion-demo", help="folder to write (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true")
    add_report_option(parser)
    parser.set_defaults(command=_demo)


def _demo(arguments: argparse.Namespace) -> dict[str, Any]:
    from kfusion.demo import run_demo

    with user_input((FileExistsError,)):
        return run_demo(
            Path(arguments.out),
            tell=tell,
            seed=arguments.seed,
            overwrite=arguments.overwrite,
            report_path=arguments.report,
            command=arguments.line,
        )
