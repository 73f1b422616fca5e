"""`kfusion export`: a run as a SavedModel, and if asked for as ONNX or LiteRT."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kfusion.commands.mistakes import CHECK_ERRORS, user_input


def add_parser(commands: Any) -> None:
    """Declares the command and its arguments."""
    parser = commands.add_parser("export", help="write a trained run as a SavedModel")
    parser.add_argument("run", metavar="RUN_DIR", help="folder written by fit or search")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--onnx", metavar="FILE", help="also as ONNX, which takes numbers")
    parser.add_argument("--litert", metavar="FILE", help="also as LiteRT, which takes numbers")
    parser.add_argument("--overwrite", action="store_true")
    parser.set_defaults(command=_export)


def _export(arguments: argparse.Namespace) -> dict[str, Any]:
    files = {"onnx": arguments.onnx, "litert": arguments.litert}
    files = {name: file for name, file in files.items() if file is not None}
    with user_input():
        out = _new_folder(arguments.out, arguments.overwrite)
        for file in files.values():
            _check_file(Path(file), arguments.overwrite)
    # Keras is loaded only now, so that a mistake in the arguments shows at once.
    from kfusion.exports.portable_formats import (
        check_packages,
        export_litert,
        export_onnx,
        files_at,
    )
    from kfusion.runs.run_folders import export_run, load_run

    with user_input((*CHECK_ERRORS, ImportError)):
        for name, file in files.items():
            _, description = files_at(file)
            _check_file(description, arguments.overwrite)
            check_packages(name)
        run = load_run(arguments.run)
    path = export_run(run, out, overwrite=arguments.overwrite)
    result = {"saved_model": str(path), "class_names": list(run.class_names)}
    exporters = {"onnx": export_onnx, "litert": export_litert}
    for name, file in files.items():
        with user_input((RuntimeError,)):
            result[name] = str(exporters[name](path, file, overwrite=arguments.overwrite))
    return result


def _new_folder(text: str, overwrite: bool) -> Path:
    path = Path(text)
    if path.exists() and not (overwrite and path.is_dir()):
        raise ValueError(f"{path} exists. Choose another folder, or pass --overwrite for a folder.")
    return path


def _check_file(path: Path, overwrite: bool) -> None:
    if path.exists() and not (overwrite and path.is_file()):
        raise ValueError(f"{path} exists. Choose another file, or pass --overwrite for a file.")
