"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import math

from kfusion.commands.report import add_report_option


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what says which rows are read, and how they are split."""
    add = parser.add_argument
    add("csv", metavar="CSV")
    add(
        "--image",
        required=True,
        action="append",
        metavar="COL",
        help="column of image files; again for each of several",
    )
    add("--text", action="append", default=[], metavar="COL", help="column of sentences")
    add("--target", required=True, metavar="COL", help="column to predict")
    add("--group", metavar="COL", help="rows with equal values are never split")
    add("--columns", nargs="+", metavar="COL", help="columns to learn from (default: all others)")
    add("--drop", nargs="+", default=[], metavar="COL", help="columns to leave out")
    add("--categories", nargs="+", default=[], metavar="COL", help="numbers that are categories")
    add("--kind", choices=["binary", "multiclass", "regression"], help="default: from the target")
    add("--image-shape", type=sizes(3), metavar="HxWxC", help="default: that of the files")
    add("--image-folder", metavar="DIR", help="where relative paths start (default: the CSV's)")
    add("--on-bad-image", choices=["error", "drop"], default="error")
    add(
        "--on-missing-image",
        choices=["error", "drop", "keep"],
        help="of rows that name no file; keep: fusions learn to do without",
    )
    add("--streaming", action="store_true", help="decode images when a batch needs them")
    add(
        "--use-cache",
        action=argparse.BooleanOptionalAction,
        help="keep decoded images on disk for later epochs, networks and runs: HxWxC bytes a row, "
        "in $KFUSION_CACHE or the user's cache folder (default: unless --streaming)",
    )
    add("--validation", type=share, default=0.2, help="share of rows (default: %(default)s)")
    add("--seed", type=int, default=0)
    add_report_option(parser)


def add_training_arguments(parser: argparse.ArgumentParser, *, epochs: int) -> None:
    """Declares `--out` and what networks are trained, and how."""
    add_data_arguments(parser)
    add = parser.add_argument
    add(
        "--out",
        required=True,
        metavar="DIR",
        help="folder for the run; a killed command goes on there",
    )
    add("--backbone", default="conv", help='"conv" or a name in keras.applications')
    add("--weights", help='weights of an application: "imagenet" or a file')
    add("--freeze", action="store_true", help="keep the backbone as it is")
    add("--resize", type=sizes(2), metavar="HxW", help="resize inside the model")
    add("--augment", action="store_true", help="flip and shift training images")
    add(
        "--fusions",
        nargs="+",
        metavar="NAME",
        help="default: concat multiply; searched: all of vectors",
    )
    add("--epochs", type=positive, default=epochs)
    add(
        "--batch-size",
        type=batch_size,
        metavar="ROWS",
        help='default: 64, or less for a small table; "memory": as many as fit',
    )
    add("--class-weight", choices=["balanced"])
    add("--overwrite", action="store_true")


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more; got {text!r}")
    return int(text)


def batch_size(text: str) -> int | str:
    """A whole number of 1 or more, or "memory"."""
    return text if text == "memory" else positive(text)


def share(text: str) -> float:
    """A share of rows that can be held out."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= 0.5:
        raise argparse.ArgumentTypeError(f"must be above 0 and 0.5 at most; got {text!r}")
    return number


def sizes(count: int):
    """A parser of as many whole numbers with an x between them."""

    def parse(text: str) -> tuple[int, ...]:
        parts = text.lower().split("x")
        if len(parts) != count or not all(part.isdigit() and int(part) for part in parts):
            shape = "HEIGHTxWIDTHxCHANNELS" if count == 3 else "HEIGHTxWIDTH"
            raise argparse.ArgumentTypeError(f"must be {shape}, such as 64x64x3; got {text!r}")
        return tuple(int(part) for part in parts)

    return parse
