"""Where the rows of a run came from, and their images as long as these are there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from kfusion.data.images import NO_FILE
from kfusion.data.loading import load_image_columns
from kfusion.data.table_files import read_table
from kfusion.runs.run_records import RunRecord


def describe_source(table: str | os.PathLike, image_folder: str | os.PathLike) -> dict[str, str]:
    """What `run.json` keeps of where its rows came from.

    Args:
        table: The file of the table.
        image_folder: Where relative paths of images start.
    """
    return {
        "table": str(Path(table).resolve()),
        "table_digest": _digest_file(table),
        "image_folder": str(Path(image_folder).resolve()),
    }


def read_judged_images(record: RunRecord) -> np.ndarray | None:
    """Reads the images of a run's validation rows, the first of several a row.

    Args:
        record: `RunRecord`.

    Returns:
        `(validation rows, height, width, channels)` uint8, zeros where the table names no file; or
        None if the run does not know its table, that has changed, or a file cannot be read.
    """
    about = record.description
    source, columns = about.get("source"), about.get("image_columns")
    if not source or not columns or not Path(source["table"]).is_file():
        return None
    if _digest_file(source["table"]) != source["table_digest"]:
        return None
    name = next(iter(columns))
    images, bad_by_input = load_image_columns(
        read_table(source["table"]).iloc[record.rows],
        {name: columns[name]},
        {name: tuple(about["shapes"][name])},
        image_folder=source["image_folder"],
        verbose=0,
    )
    is_whole = all(bad.path == NO_FILE for bad in bad_by_input[name])
    return images[name] if is_whole else None


def _digest_file(path: str | os.PathLike) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]
