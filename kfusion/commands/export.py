"""`kfusion export`: a run as a SavedModel."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kfusion.commands.mistakes import user_input


def add_parser(commands: Any) -> None:
    """Declares the command and its arguments."""
    parser = commands.add_parser("export", help="write a trained run as a SavedModel")
    parser.add_argument("run", metavar="RUN_DIR", help="folder written by fit or search")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--overwrite", action="store_true")
    parser.set_defaults(command=_export)


def _export(arguments: argparse.Namespace) -> dict[str, Any]:
    from kfusion.runs import export_run, load_run

    with user_input():
        out = _new_folder(arguments.out, arguments.overwrite)
        run = load_run(arguments.run)
    path = export_run(run, out, overwrite=arguments.overwrite)
    return {"saved_model": str(path), "class_names": list(run.class_names)}


def _new_folder(text: str, overwrite: bool) -> Path:
    path = Path(text)
    if path.exists() and not (overwrite and path.is_dir()):
        raise ValueError(f"{path} exists. Choose another folder, or pass --overwrite for a folder.")
    return path
