"""`kfusion predict`: the rows of a CSV file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfusion.commands.mistakes import CHECK_ERRORS, user_input


def add_parser(commands: Any) -> None:
    """Declares the command and its arguments."""
    parser = commands.add_parser("predict", help="predict the rows of a CSV file")
    parser.add_argument("model", metavar="MODEL_DIR", help="folder written by export")
    parser.add_argument("csv", metavar="CSV")
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="COL",
        help="column of image files (default: as in training)",
    )
    parser.add_argument("--image-folder", help="where relative paths start (default: the CSV's)")
    parser.add_argument("--out", help="CSV file for the predictions, instead of stdout")
    parser.set_defaults(command=_predict)


def _predict(arguments: argparse.Namespace) -> dict[str, Any]:
    from kfusion.data.images import BadImageError
    from kfusion.data.loading import NO_FILE, load_image_columns
    from kfusion.data.table_files import read_table
    from kfusion.exports.serving import load_exported

    with user_input((*CHECK_ERRORS, ImportError)):
        if arguments.out and not Path(arguments.out).absolute().parent.is_dir():
            raise ValueError(f"There is no folder for --out {arguments.out}.")
        model = load_exported(arguments.model)
        frame = read_table(arguments.csv)
        columns = _image_columns(model.image_columns, arguments.image)
        images, bad_by_input = load_image_columns(
            frame,
            columns,
            model.image_shapes,
            image_folder=arguments.image_folder or Path(arguments.csv).parent,
        )
        bad_images = [
            bad
            for name, found in bad_by_input.items()
            for bad in found
            if bad.path != NO_FILE or name not in model.may_be_missing
        ]
        if bad_images:
            raise BadImageError(sorted(bad_images), len(frame) * len(columns))
        files = frame[next(iter(columns.values()))].tolist() if columns else None
        answers = model.predict(frame, images)
    rows = [_answer_of_row(model.class_names, answers, row, files) for row in range(len(frame))]
    if arguments.out is None:
        return {"rows": len(rows), "predictions": rows}
    _write_predictions(arguments.out, rows)
    return {"rows": len(rows), "out": arguments.out}


def _image_columns(known: dict[str, str], given: list[str]) -> dict[str, str]:
    """Columns of image files by input name: those of training, or those given, in their order."""
    if not given or not known:
        return known
    if len(given) != len(known):
        raise ValueError(f"The model takes images {list(known)}. Received: --image {given}.")
    return dict(zip(known, given, strict=True))


def _answer_of_row(
    class_names: Sequence[str], answers: dict, row: int, files: list[str] | None
) -> dict[str, Any]:
    named = {"row": row} if files is None else {"row": row, "image": files[row]}
    if "prediction" in answers:
        return {**named, "prediction": float(answers["prediction"][row])}
    probabilities = [round(float(p), 6) for p in answers["probabilities"][row]]
    return {
        **named,
        "class": str(answers["class"][row]),
        "probabilities": dict(zip(class_names, probabilities, strict=True)),
    }


def _write_predictions(path: str, rows: list[dict[str, Any]]) -> None:
    import pandas as pd

    flat = []
    for row in rows:
        probabilities = row.pop("probabilities", {})
        flat.append({**row, **{f"probability_{name}": p for name, p in probabilities.items()}})
    pd.DataFrame(flat).to_csv(path, index=False)
