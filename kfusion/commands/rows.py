"""The rows that a command's arguments ask for."""

from __future__ import annotations

import argparse
from pathlib import Path

from kfusion.commands.mistakes import CHECK_ERRORS, user_input
from kfusion.commands.telling import tell


def load_data(arguments: argparse.Namespace):
    """Loads the table; any fault in it is the user's to mend."""
    from kfusion.data.loading import load_table
    from kfusion.data.table_files import read_table

    with user_input((*CHECK_ERRORS, ImportError)):
        frame = read_table(arguments.csv)
    with user_input():
        named = [*arguments.drop, *arguments.categories]
        absent = [name for name in named if name not in frame.columns]
        if absent:
            raise ValueError(f"{arguments.csv} has no column(s) {absent} to drop or to categorise.")
        frame = frame.drop(columns=arguments.drop)
        frame = frame.astype(dict.fromkeys(arguments.categories, "category"))
        return load_table(
            frame,
            image_column=arguments.image,
            target=arguments.target,
            group_column=arguments.group,
            tabular_columns=arguments.columns,
            text_columns=arguments.text,
            image_shape=arguments.image_shape,
            image_folder=arguments.image_folder or Path(arguments.csv).parent,
            kind=arguments.kind,
            on_bad_image=arguments.on_bad_image,
            on_missing_image=arguments.on_missing_image,
            use_cache=arguments.use_cache,
            streaming=arguments.streaming,
        )


def split_data(data, arguments: argparse.Namespace):
    """Training and validation rows."""
    with user_input():
        train, validation = data.split(arguments.validation, seed=arguments.seed)
    tell(f"{len(train)} training and {len(validation)} validation rows of {data}")
    return train, validation
