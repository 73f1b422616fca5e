"""What a frozen network gives for each row, computed once in place of once an epoch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kfusion.data.image_cache import default_cache_folder
from kfusion.data.inputs import select_inputs
from kfusion.devices import find_device
from kfusion.frozen.feature_store import (
    FeatureFiles,
    FeatureMemory,
    Kind,
    read_features,
)
from kfusion.frozen.frozen_parts import (
    DTYPES,
    Part,
    Split,
    is_augmentation,
    split_model,
    whole_part,
)
from kfusion.frozen.part_rows import ChangingPartError, Inputs, PartRows
from kfusion.frozen.told_code import UnknownPartError
from kfusion.frozen.trained_rest import OfWholeModel, TrainedOnFeatures, named_features
from kfusion.models.prediction import EVALUATION_BATCH, input_specs

AUTO = "auto"
IN_MEMORY = FeatureMemory(limit=2**30)
# What the widest layer takes and gives for a batch, by where it runs.
CALL_BYTES_ON_CPU = 2**27
CALL_BYTES_ELSEWHERE = 2**30


class TooLargeError(ValueError):
    """What a part gives is more than memory is taken for."""


def cache_features(
    branch: keras.Model,
    x: Any,
    directory: str | os.PathLike | None = None,
    *,
    augmented_views: int = 0,
    batch_size: int | None = None,
    verbose: int | bool = 1,
) -> np.ndarray:
    """Computes what a frozen branch gives for each row, once, into a memory-mapped file.

    Asked again with the same weights, settings and rows, it opens the file. After a kill it goes
    on behind the last finished batch; of several processes one computes and the others wait.
    `kfusion.fit` does the like by itself, see its `feature_cache`; with the same directory it
    finds the rows that are in these files.

    Args:
        branch: A built Functional or Sequential `keras.Model` with one output, in which nothing
            changes in training: of `freeze` or `branch_from`, for instance.
        x: Dict of arrays by input name; or an array, of a branch with one input.
        directory: Folder of all features; None for "features" in `$KFUSION_CACHE`, or in kfusion's
            folder of the user's cache.
        augmented_views: Int, 0 or more: views of each row that Keras' random image layers in front
            of what is frozen change, beside the plain one; as of `kfusion.fit`. What is drawn for
            a view comes from the row's content and the view's number alone.
        batch_size: Int, most rows computed and written at once; None for 256, or for as many as
            the widest layer has 128 MB for (on an accelerator 1 GB) if these are fewer.
        verbose: 0 hides the progress.

    Returns:
        Read-only `np.memmap`, `(rows, ...)` in the order of the rows. The same up to rounding as
        `branch.predict`, since batches are of another size. With augmented views
        `(rows, 1 + augmented_views, ...)`, the plain view first.

    Raises:
        TypeError: If `branch` is no Keras model.
        ValueError: If something in it trains or is different in training (Dropout, augmentation,
            BatchNormalization), it does not say what it does, it has several outputs or one of
            unknown shape; augmented views are asked of what does not augment; or `x` does not fit
            it, see `select_inputs`.
        OSError: If the files cannot be written. What is finished is kept.

    Example:
        >>> import tempfile
        >>> from kfusion import freeze
        >>> trained = keras.Sequential([keras.Input((5,), name="tabular"), keras.layers.Dense(8)])
        >>> features = cache_features(
        ...     freeze(trained), np.zeros((3, 5)), tempfile.mkdtemp(), verbose=0
        ... )
        >>> features.shape, features.flags.writeable
        ((3, 8), False)
    """
    check_augmented_views(augmented_views)
    part = _checked_part(branch, augmented_views)
    names = [value.tensor.name for value in part.inputs]
    if not isinstance(x, Mapping) and len(names) == 1:
        x = {names[0]: x}
    specs = input_specs(branch)
    inputs = select_inputs(x, {name: specs[name] for name in names})
    kinds = _kinds(part)
    if kinds is None:
        raise ValueError(f"The shape of what {branch.name!r} gives for a row must be known.")
    files = FeatureFiles(_folder(directory))
    rows = PartRows(part, [inputs], [1 + augmented_views])
    try:
        path = files.write(
            rows.key.text,
            rows.digests(verbose),
            kinds,
            rows.compute,
            batch_size=batch_size or _batch_size(part),
            verbose=verbose,
        )
    except (UnknownPartError, ChangingPartError) as error:
        raise ValueError(f"{branch.name!r} cannot be cached: {error}.") from error
    (views,) = rows.by_table(read_features(path, kinds)[0])
    return views


def train_on_features(
    model: keras.Model,
    inputs: Inputs,
    validation: tuple[Inputs, Any] | None,
    callbacks: Sequence[keras.callbacks.Callback],
    *,
    feature_cache: bool | str | os.PathLike = AUTO,
    augmented_views: int = 0,
    verbose: int | bool = 1,
) -> tuple[keras.Model, Inputs, tuple[Inputs, Any] | None, list[keras.callbacks.Callback]]:
    """Puts features in place of what frozen parts of a model take.

    Args:
        model: The model to train.
        inputs: Its checked inputs by name.
        validation: Checked inputs and targets of other rows, or None.
        callbacks: The user's, who see the whole model.
        feature_cache, augmented_views: As in `kfusion.fit`.
        verbose: 0 hides the progress.

    Returns:
        Model to train, inputs, validation rows and callbacks: as given if nothing is frozen. The
        model has the weights of the one given, in its order.

    Raises:
        TypeError: If `feature_cache` or `augmented_views` is none of what it may be.
        ValueError: If `augmented_views` is below 0, or is asked for with `feature_cache=False`.
    """
    if not isinstance(feature_cache, (bool, str, os.PathLike)):
        raise TypeError(
            '`feature_cache` must be "auto", a bool or a folder. Received: '
            f"{type(feature_cache).__name__}."
        )
    check_augmented_views(augmented_views)
    if feature_cache is False:
        if augmented_views:
            raise ValueError(
                f"`augmented_views={augmented_views}` are kept features: `feature_cache` must be "
                '"auto", True or a folder. Received: feature_cache=False.'
            )
        return model, inputs, validation, list(callbacks)
    # Rows that judge are seen as they are.
    tables, views = [inputs], [1 + augmented_views]
    if validation is not None:
        tables, views = [inputs, validation[0]], [1 + augmented_views, 1]
    found = _find(model, tables, views, feature_cache, verbose)
    if found is None:
        return model, inputs, validation, list(callbacks)
    split, tables = found
    trained = TrainedOnFeatures(model, split, augmented_views)
    if validation is not None:
        validation = (tables[1], validation[1])
    return trained, tables[0], validation, [OfWholeModel(callbacks, model)]


def check_augmented_views(augmented_views: Any) -> None:
    """Raises `TypeError` or `ValueError` if this is no number of augmented views."""
    is_int = isinstance(augmented_views, (int, np.integer))
    if not is_int or isinstance(augmented_views, bool):
        raise TypeError(
            "`augmented_views` must be an int, how many augmented views of each row are kept. "
            f"Received: {augmented_views!r}."
        )
    if augmented_views < 0:
        raise ValueError(f"`augmented_views` must be 0 or more. Received: {augmented_views}.")


def _find(
    model: keras.Model,
    tables: Sequence[Inputs],
    views: Sequence[int],
    feature_cache: Any,
    verbose: int | bool,
) -> tuple[Split, list[Inputs]] | None:
    """A model's split and the tables that its rest takes; None if nothing is worth keeping.

    A part that cannot be kept counts as trained: it is run in each epoch, as the rest.
    """
    augmented_views = max(views) - 1
    trained: set[int] = set()
    split = split_model(model, views=augmented_views > 0)
    if augmented_views and not (split and any(part.augmentations for part in split.parts)):
        warnings.warn(
            f"`augmented_views={augmented_views}` changes nothing in training {model.name!r}: "
            "views are kept where Keras' random image layers stand in front of frozen weights, "
            "with nothing that trains before these and nothing else that takes the same "
            "augmented images. `kf.freeze` and `image_branch(trainable=False)` freeze weights.",
            stacklevel=4,
        )
    while split is not None:
        found: list[Inputs] = [
            {value.tensor.name: table[value.tensor.name] for value in split.inputs}
            for table in tables
        ]
        kept = True
        for part in split.parts:
            features = _features(part, tables, views, feature_cache, verbose)
            if features is None:
                trained |= part.operations
                kept = False
                continue
            for name, arrays in zip(named_features(split, part), features, strict=True):
                for table, array in zip(found, arrays, strict=True):
                    table[name] = array
        if kept:
            return split, found
        split = split_model(model, trained, views=augmented_views > 0)
    return None


def _features(
    part: Part,
    tables: Sequence[Inputs],
    views: Sequence[int],
    feature_cache: Any,
    verbose: int | bool,
) -> list[list[np.ndarray]] | None:
    """What a part gives, per output and table; None if that cannot be kept."""
    try:
        return _kept_features(part, tables, views, feature_cache, verbose)
    except (UnknownPartError, ChangingPartError, TooLargeError) as error:
        # Nobody who asked for nothing wonders that augmentation is run in each epoch.
        is_asked_for = feature_cache != AUTO or part.augmentations
        if is_asked_for or not isinstance(error, ChangingPartError):
            meant = "augmented_views=0" if part.augmentations else "feature_cache=False"
            warnings.warn(
                f"A frozen part is run in each epoch, since what it gives is not kept: {error}. "
                f"`{meant}` says that this is meant.",
                stacklevel=5,
            )
        return None


def _kept_features(
    part: Part,
    tables: Sequence[Inputs],
    views: Sequence[int],
    feature_cache: Any,
    verbose: int | bool,
) -> list[list[np.ndarray]]:
    kinds = _kinds(part)
    names = [value.tensor.name for value in part.inputs]
    if kinds is None or any(len({t[name].shape[1:] for t in tables}) > 1 for name in names):
        raise ChangingPartError("rows have no shape in common")
    rows = PartRows(part, tables, views)
    key = rows.key.text
    store: FeatureMemory | FeatureFiles = IN_MEMORY
    if feature_cache == AUTO:
        size = len(rows) * sum(kind.row_bytes for kind in kinds)
        if size > IN_MEMORY.limit:
            seen = f" in {len(rows):,} views" if part.augmentations else ""
            raise TooLargeError(
                f"{sum(rows.lengths):,} rows{seen} take {size / 2**30:.2g} GB and "
                f'`feature_cache="auto"` keeps {IN_MEMORY.limit / 2**30:.2g} GB in memory. '
                "`feature_cache=True` keeps them in files in kfusion's cache folder, a path in "
                "that folder"
            )
    else:
        store = FeatureFiles(_folder(None if feature_cache is True else feature_cache))
    features = store.features(
        key,
        rows.digests(verbose),
        kinds,
        rows.compute,
        batch_size=_batch_size(part),
        verbose=verbose,
    )
    return [rows.by_table(output) for output in features]


def _batch_size(part: Part) -> int:
    """Rows at once for which the widest layer has memory."""
    is_cpu = find_device().kind == "cpu"
    memory = CALL_BYTES_ON_CPU if is_cpu else CALL_BYTES_ELSEWHERE
    return max(1, min(EVALUATION_BATCH, memory // max(1, part.widest_call())))


def _checked_part(branch: keras.Model, augmented_views: int) -> Part:
    """A branch as one part, or an error that says why it is none."""
    if not isinstance(branch, keras.Model):
        raise TypeError(f"`branch` must be a keras.Model. Received: {type(branch).__name__}.")
    part = whole_part(branch, views=augmented_views > 0)
    if part is None:
        raise ValueError(
            f"The inside of {branch.name!r} is not known: `kf.freeze(branch)` makes a frozen model "
            "of any that is built."
        )
    for step in part.steps:
        # In order: the first one is what changes.
        if not all(value.is_fixed for value in step.outputs):
            why = (
                "has weights that train"
                if getattr(step.operation, "trainable_weights", ())
                else "is different in training"
            )
            views = (
                " `augmented_views=` keeps several views of what it makes of a row, if it stands "
                "in front of all that is frozen."
                if is_augmentation(step.operation)
                else ""
            )
            raise ValueError(
                f"`branch` must be frozen, but in {branch.name!r} the layer "
                f"{step.operation.name!r} ({type(step.operation).__name__}) {why}. "
                f"`kf.freeze(branch)` makes one that answers alike throughout.{views}"
            )
    if augmented_views and not part.augmentations:
        raise ValueError(
            f"`augmented_views={augmented_views}` are views that Keras' random image layers "
            f"change, of which {branch.name!r} has none in sight: what is frozen does not augment."
        )
    if len(part.outputs) != 1:
        raise ValueError(f"`branch` must have one output. {branch.name!r} has {len(part.outputs)}.")
    return part


def _kinds(part: Part) -> list[Kind] | None:
    """Shape and dtype of each output; None if they are not known or cannot be kept."""
    kinds = [Kind(tuple(v.tensor.shape[1:]), v.tensor.dtype) for v in part.outputs]
    is_known = all(None not in kind.shape and kind.dtype in DTYPES for kind in kinds)
    return kinds if is_known else None


def _folder(directory: str | os.PathLike | None) -> Path:
    return default_cache_folder() / "features" if directory is None else Path(directory)
