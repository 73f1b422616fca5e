"""A table whose rows name image files, as checked data."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kfusion.data.column_values import (
    infer_kind,
    is_identifier,
    is_missing_text,
    looks_like_numbers,
    read_plain_numbers,
)
from kfusion.data.fusion_data import FusionData
from kfusion.data.images import (
    NO_FILE,
    BadImage,
    BadImageError,
    describe_bad_images,
    read_images,
    rows_with_image,
)
from kfusion.data.input_names import RESERVED
from kfusion.data.inputs import IMAGE, TABULAR
from kfusion.data.plain_names import plain_names
from kfusion.data.streamed_images import stream_images
from kfusion.data.table_files import name_columns, read_table
from kfusion.data.tables import TableSchema, check_unique_columns
from kfusion.tasks import MAX_INFERRED_CLASSES, TASK_KINDS, check_variety, task

# Whole numbers up to here are told apart as float32.
_MAX_WHOLE_FLOAT32 = 2**24


def load_table(
    csv_or_frame: str | os.PathLike | pd.DataFrame,
    *,
    image_column: str | Sequence[str],
    target: str,
    tabular_columns: Sequence[str] | Mapping[str, str | None] | None = None,
    text_columns: Sequence[str] = (),
    image_shape: tuple[int, int, int] | None = None,
    group_column: str | None = None,
    kind: str | None = None,
    image_folder: str | os.PathLike | None = None,
    on_bad_image: str = "error",
    on_missing_image: str | None = None,
    use_cache: bool | None = None,
    streaming: bool = False,
    verbose: int | bool = 1,
) -> FusionData:
    """Loads a table whose rows each name image files, and checks all of it before training.

    Args:
        csv_or_frame: Path of a CSV file or (ending in ".parquet") a Parquet file, of which only
            the columns that are used are kept; or a DataFrame.
        image_column: Name of the column of image paths; see `read_images` for the kinds of file.
            Of several columns, a list: each is an input by its column's name.
        target: Name of the column to predict.
        tabular_columns: Names of the columns to learn from, or a mapping from names to kinds as
            in `TableSchema.fit`. By default all others, but for text columns whose values are
            nearly all different (identifiers), which a warning names.
        text_columns: Names of columns of free text, each an input of its own by its column's
            name; see `text_branch`.
        image_shape: `(height, width, channels)`; by default that of each column's files, but for
            alpha, which is laid over white. 4 channels (2 of grey files) keep it, as bands of data
            saved as alpha need; a warning tells of alpha that varies.
        group_column: Name of the column whose equal values must stay together in every split
            (a patient, a place, a product).
        kind: "binary", "multiclass" or "regression". By default text, booleans and whole numbers
            with up to 20 values are classes (sorted; the last of two is the positive one), and
            other numbers a regression.
        image_folder: Where relative paths start; by default the CSV's folder, or the working
            directory for a DataFrame.
        on_bad_image: "error", or "drop" to leave such rows out with a warning.
        on_missing_image: What becomes of rows that name no file: "keep" makes their image zeros
            alone, which is how a missing one is told (`FusionClassifier` and models with
            `modality_dropout` know it); "error" or "drop"; None, as `on_bad_image`.
        use_cache: Whether to keep decoded images on disk; see `read_images`. By default, unless
            they are streamed: decoded they may take many times the space of their files.
        streaming: Whether images stay files until a batch needs them, for tables whose images
            would not fit into memory: `images` are then `StreamedImages`. Of each file the header
            is checked here. A file whose header is good and whose rest is damaged raises
            `BadImageError` when it is decoded; images that hold zeros alone are not looked for.
        verbose: 0 hides the progress bars.

    Returns:
        `FusionData`.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If a Parquet file is given and pyarrow is not installed.
        BadImageError: If images cannot be read; lists every one by row.
        ValueError: If a column is missing, there twice or without a value, the target is also a
            feature, has missing or only equal values, or no rows are left.
    """
    if on_bad_image not in ("error", "drop"):
        raise ValueError(f'`on_bad_image` must be "error" or "drop". Received: {on_bad_image!r}.')
    if on_missing_image not in (None, "error", "drop", "keep"):
        raise ValueError(
            '`on_missing_image` must be "error", "drop", "keep" or None. Received: '
            f"{on_missing_image!r}."
        )
    on_missing_image = on_missing_image or on_bad_image
    image_columns = name_image_inputs(image_column)
    roles: list[tuple[str, str | None]] = [
        ("image_column", name) for name in image_columns.values()
    ]
    roles += [("target", target), ("group_column", group_column)]
    names = name_columns(csv_or_frame)
    _check_roles(names, roles)
    wanted = None
    if tabular_columns is not None:
        wanted = [*(name for _, name in roles if name), *tabular_columns, *text_columns]
    frame = read_table(csv_or_frame, wanted)
    if not len(frame):
        raise ValueError("The table has no rows.")
    asked_kinds = _choose_columns(frame, names, roles, tabular_columns, text_columns)
    y, kind, class_names = _read_target(frame[target], kind)
    groups = None if group_column is None else _read_groups(frame[group_column])
    table = _convert(frame[list(asked_kinds)], asked_kinds)
    # Fitted to check every value; what it learned is dropped, for it saw all rows.
    kinds = TableSchema.fit(table, asked_kinds).kinds if asked_kinds else {}

    arrays, bad_by_input = load_image_columns(
        frame,
        image_columns,
        dict.fromkeys(image_columns, image_shape),
        image_folder=image_folder or _folder_of(csv_or_frame),
        use_cache=not streaming if use_cache is None else use_cache,
        streaming=streaming,
        verbose=verbose,
    )
    bad_images = sorted(bad for found in bad_by_input.values() for bad in found)
    if on_missing_image == "keep":
        bad_images = [bad for bad in bad_images if bad.path != NO_FILE]
        for name, images in arrays.items():
            if not streaming:
                _warn_of_black(images, [bad.row for bad in bad_by_input[name]])
    refused = [
        bad
        for bad in bad_images
        if (on_missing_image if bad.path == NO_FILE else on_bad_image) == "error"
    ]
    if refused:
        hint = '; `on_missing_image="keep"` allows it'
        refused = [
            bad._replace(reason=bad.reason + hint) if bad.path == NO_FILE else bad
            for bad in refused
        ]
        raise BadImageError(refused, len(frame) * len(arrays))
    data = FusionData(
        images=arrays[IMAGE] if set(arrays) == {IMAGE} else arrays,
        frame=table.reset_index(drop=True),
        y=y,
        kind=kind,
        class_names=class_names,
        groups=groups,
        rows=np.arange(len(frame)),
        column_kinds=kinds,
        image_columns=image_columns,
        target=target,
    )
    return _drop_bad_images(data, bad_images) if bad_images else data


def name_image_inputs(image_column: str | Sequence[str]) -> dict[str, str]:
    """Columns of images by input name: "image" for one, or the columns' own, in ASCII."""
    columns = [image_column] if isinstance(image_column, str) else list(image_column)
    check_unique_columns(columns)
    if len(columns) == 1:
        return {IMAGE: columns[0]}
    names = plain_names(columns, taken=[TABULAR, *RESERVED])
    return {names[column]: column for column in columns}


def load_image_columns(
    frame: pd.DataFrame,
    columns: Mapping[str, str],
    shapes: Mapping[str, tuple[int, int, int] | None],
    **keywords: Any,
) -> tuple[dict[str, Any], dict[str, list[BadImage]]]:
    """Reads all images that a table names.

    Args:
        frame: DataFrame.
        columns: Name of the column of paths by input name.
        shapes: `(height, width, channels)` by input name, or None for that of the files.
        **keywords: For `load_images`.

    Returns:
        Images and bad images, both by input name.

    Raises:
        ValueError: If there is no such column, or it holds URLs.
    """
    absent = [column for column in columns.values() if column not in frame.columns]
    if absent:
        raise ValueError(
            f"There is no image column {absent[0]!r}. There are: {list(frame.columns)}."
        )
    arrays, all_bad = {}, {}
    for name, column in columns.items():
        arrays[name], bad = load_images(frame[column], shapes[name], **keywords)
        of_column = f"column {column!r}, " if len(columns) > 1 else ""
        all_bad[name] = [each._replace(reason=f"{of_column}{each.reason}") for each in bad]
    return arrays, all_bad


def load_images(
    paths: pd.Series | Sequence[str],
    image_shape: tuple[int, int, int] | None = None,
    *,
    image_folder: str | os.PathLike | None = None,
    use_cache: bool = True,
    streaming: bool = False,
    verbose: int | bool = 1,
) -> tuple[Any, list[BadImage]]:
    """Reads the images that a table's column names; see `read_images`.

    Args:
        paths: One path per row, absolute or relative to `image_folder`; missing ones are bad.
        image_shape: `(height, width, channels)`, or None for that of the files.
        image_folder: Folder of relative paths; the working directory by default.
        use_cache: Whether to keep decoded images on disk.
        streaming: Whether images stay files until they are asked for.
        verbose: 0 hides the progress bar.

    Returns:
        `(images, bad_images)` as from `read_images`; streamed ones are `StreamedImages`.

    Raises:
        ValueError: If the column holds URLs.
    """
    texts = ["" if pd.isna(path) else str(path).strip() for path in paths]
    urls = [row for row, text in enumerate(texts) if "://" in text[:12]]
    if urls:
        raise ValueError(
            f"The image column holds URLs, e.g. {texts[urls[0]]!r} in row {urls[0]} ({len(urls)} "
            "in all): download the images and put their file paths into the column."
        )
    root = Path(image_folder or ".")
    full = [str(root / text) if text else "" for text in texts]
    read = stream_images if streaming else read_images
    images, bad_images = read(full, image_shape, use_cache=use_cache, verbose=verbose)
    return images, [
        bad if texts[bad.row] else BadImage(bad.row, NO_FILE, "the table names no file")
        for bad in bad_images
    ]


def _folder_of(csv_or_frame: str | os.PathLike | pd.DataFrame) -> Path:
    return Path() if isinstance(csv_or_frame, pd.DataFrame) else Path(csv_or_frame).parent


def _check_roles(columns: Sequence[str], roles: Sequence[tuple[str, str | None]]) -> None:
    for role, name in roles:
        if name is not None and name not in columns:
            raise ValueError(
                f"`{role}` names no column of the table: {name!r}. It has: {list(columns)}."
            )
    names = [name for _, name in roles if name is not None]
    if len(set(names)) < len(names):
        given = ", ".join(f"`{role}={name!r}`" for role, name in roles if name is not None)
        raise ValueError(f"Images, target and group must be different columns. Received: {given}.")


def _choose_columns(frame, names, roles, tabular_columns, text_columns) -> dict[str, str | None]:
    """The columns of the table to learn from, and the kinds asked for them."""
    taken = {name: role for role, name in roles if name is not None}
    for argument, given in {
        "tabular_columns": tabular_columns,
        "text_columns": text_columns,
    }.items():
        if isinstance(given, str):
            raise TypeError(f"`{argument}` must be a list of names. Received: {given!r}.")
    texts = dict.fromkeys(text_columns, "text")
    if tabular_columns is None:
        others = [name for name in frame.columns if name not in taken and name not in texts]
        chosen: dict[str, str | None] = dict.fromkeys(_without_identifiers(frame, others))
    else:
        check_unique_columns(list(tabular_columns))
        is_mapping = isinstance(tabular_columns, Mapping)
        chosen = dict(tabular_columns) if is_mapping else dict.fromkeys(tabular_columns)
    chosen |= texts
    num_images = sum(role == "image_column" for role, _ in roles)
    if not chosen and num_images < 2:
        raise ValueError("The table has no column to learn from besides its image and target.")
    for name in chosen:
        if name in taken:
            raise ValueError(f"Column {name!r} cannot be both `{taken[name]}` and a feature.")
    absent = [name for name in chosen if name not in names]
    if absent:
        raise ValueError(
            f"The table lacks the column(s) {absent} to learn from. It has: {list(names)}."
        )
    return chosen


def _without_identifiers(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The names but for those of identifiers, which a warning names."""
    texts = [name for name in names if infer_kind(frame[name]) == "category"]
    unread = [name for name in texts if looks_like_numbers(frame[name])]
    if unread:
        warnings.warn(
            f"Read as text though they look like numbers: {unread}, e.g. "
            f"{frame[unread[0]].dropna().iloc[0]!r}. Take signs and separators out to use "
            "them as numbers.",
            stacklevel=4,
        )
    identifiers = [name for name in texts if is_identifier(frame[name])]
    if identifiers:
        warnings.warn(
            f"Left out as identifiers, since nearly all their values differ: {identifiers}. "
            "Name them in `text_columns` if they hold sentences, or in `tabular_columns` to use "
            "them as they are.",
            stacklevel=4,
        )
    return [name for name in names if name not in identifiers]


def _convert(frame: pd.DataFrame, kinds: Mapping[str, str | None]) -> pd.DataFrame:
    """Gives text columns that are numbers a number's dtype; other columns stay as they are."""
    converted = frame.copy()
    for name in frame.columns:
        if kinds[name] == "text":
            continue
        series = frame[name]
        is_text = series.dtype == object or pd.api.types.is_string_dtype(series.dtype)
        inferred = infer_kind(series) if is_text else None
        if inferred in ("number", "boolean") and kinds[name] != "date":
            numbers = read_plain_numbers(series, inferred)
            # Categories that are longer stay text: as numbers some would become the same.
            if kinds[name] != "category" or np.nanmax(np.abs(numbers)) < _MAX_WHOLE_FLOAT32:
                converted[name] = numbers
    return converted


def _read_target(series: pd.Series, kind: str | None) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """Labels or values, the kind of task, and the class names."""
    if kind is not None and kind not in TASK_KINDS:
        raise ValueError(f"`kind` must be one of {list(TASK_KINDS)}. Received: kind={kind!r}.")
    is_number = infer_kind(series) == "number"
    missing = np.flatnonzero(is_missing_text(series) if is_number else is_blank(series))
    if missing.size:
        raise ValueError(
            f"Target {series.name!r} has no value in {missing.size} row(s): "
            f"{missing[:20].tolist()}{' ...' if missing.size > 20 else ''}. Fill or drop them."
        )
    if kind == "regression" and not is_number:
        raise ValueError(f"Target {series.name!r} must hold numbers for a regression.")
    if is_number:
        values = pd.to_numeric(series).to_numpy(np.float64)
        y = task("regression").check_targets(values, f"target {series.name}")
        whole = bool(np.all(values == np.floor(values)))
        few = len(np.unique(values)) <= MAX_INFERRED_CLASSES
        if kind == "regression" or (kind is None and not (whole and few)):
            check_variety(y)
            return y, "regression", ()
    names, labels = _class_labels(series, is_number)
    if len(names) < 2:
        raise ValueError(
            f"Target {series.name!r} has one class only ({names[0]!r} in all {len(series)} rows)."
        )
    if kind is None and len(names) > max(MAX_INFERRED_CLASSES, len(series) / 2):
        raise ValueError(
            f"Target {series.name!r} holds {len(names)} different texts in {len(series)} rows, "
            f"such as {names[0]!r}: no classes to learn. For a regression, turn it into plain "
            "numbers."
        )
    if kind is None:
        kind = "binary" if len(names) == 2 else "multiclass"
    task(kind, y=labels, class_names=names)
    return labels, kind, names


def _class_labels(series: pd.Series, is_number: bool) -> tuple[tuple[str, ...], np.ndarray]:
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.cat.remove_unused_categories()
        return tuple(str(c) for c in series.cat.categories), series.cat.codes.to_numpy(np.int32)
    values = pd.to_numeric(series) if is_number else series.astype(str).str.strip()
    classes, labels = np.unique(values.to_numpy(), return_inverse=True)
    if is_number and np.all(classes == np.floor(classes)):
        classes = classes.astype(np.int64)
    return tuple(str(c) for c in classes), labels.astype(np.int32)


def _read_groups(series: pd.Series) -> np.ndarray:
    missing = np.flatnonzero(is_blank(series))
    if missing.size:
        raise ValueError(
            f"Group column {series.name!r} has no value in row {missing[0]} ({missing.size} in "
            "all): give each such row a group of its own."
        )
    return pd.factorize(series)[0]


def is_blank(series: pd.Series) -> pd.Series:
    """Which cells are missing or hold nothing but spaces."""
    return series.isna() | (series.astype(str).str.strip() == "")


def _warn_of_black(images: np.ndarray, known: Sequence[int]) -> None:
    """Says so where a file holds zeros alone: it cannot be told from a missing one."""
    black = np.setdiff1d(np.flatnonzero(~rows_with_image(images)), known)
    if black.size:
        warnings.warn(
            f"The image of row {black[0]} holds zeros alone and counts as missing ({black.size} in "
            "all).",
            stacklevel=3,
        )


def _drop_bad_images(data: FusionData, bad_images: Sequence[BadImage]) -> FusionData:
    bad_rows = [bad.row for bad in bad_images]
    kept = np.setdiff1d(np.arange(len(data)), bad_rows)
    report = describe_bad_images(bad_images, len(data))
    if not kept.size:
        raise ValueError(f"No rows are left.\n{report}")
    num_dropped = len(data) - kept.size
    warnings.warn(f"Dropped {num_dropped} rows with bad images. {report}", stacklevel=3)
    part = data[kept]
    names = part.class_names
    gone = [names[label] for label in range(len(names)) if label not in part.y]
    if gone:
        raise ValueError(f"No rows of class(es) {gone} are left.\n{report}")
    # The rows left are all there is, so that their schema may be learned from all of them.
    return dataclasses.replace(part, _is_part=False)
