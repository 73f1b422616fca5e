"""What a frozen network gives for each row, computed once in place of once an epoch."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kfusion.data.image_cache import default_cache_folder
from kfusion.data.inputs import select_inputs
from kfusion.data.lazy_rows import LazyRows, in_advance
from kfusion.devices import find_device, predict_on_devices
from kfusion.frozen.feature_store import (
    FeatureFiles,
    FeatureMemory,
    Kind,
    digest_rows,
    read_features,
)
from kfusion.frozen.frozen_parts import (
    DTYPES,
    Part,
    Split,
    StepsModel,
    Value,
    is_constant,
    split_model,
    whole_part,
)
from kfusion.frozen.part_keys import PartKey, part_key
from kfusion.frozen.told_code import UnknownPartError
from kfusion.models.prediction import EVALUATION_BATCH, input_specs

AUTO = "auto"
IN_MEMORY = FeatureMemory(limit=2**30)
NUM_PROBED = 4
# What the widest layer takes and gives for a batch, by where it runs.
CALL_BYTES_ON_CPU = 2**27
CALL_BYTES_ELSEWHERE = 2**30

Inputs = dict[str, Any]


class ChangingPartError(ValueError):
    """A part that looks frozen answers otherwise in training, or by the shape of its rows."""


class TooLargeError(ValueError):
    """What a part gives is more than memory is taken for."""


def cache_features(
    branch: keras.Model,
    x: Any,
    directory: str | os.PathLike | None = None,
    *,
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
        batch_size: Int, most rows computed and written at once; None for 256, or for as many as
            the widest layer has 128 MB for (on an accelerator 1 GB) if these are fewer.
        verbose: 0 hides the progress.

    Returns:
        Read-only `np.memmap`, `(rows, ...)` in the order of the rows. The same up to rounding as
        `branch.predict`, since batches are of another size.

    Raises:
        TypeError: If `branch` is no Keras model.
        ValueError: If something in it trains or is different in training (Dropout, augmentation,
            BatchNormalization), it does not say what it does, it has several outputs or one of
            unknown shape; or `x` does not fit it, see `select_inputs`.
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
    part = _checked_part(branch)
    names = [value.tensor.name for value in part.inputs]
    if not isinstance(x, Mapping) and len(names) == 1:
        x = {names[0]: x}
    specs = input_specs(branch)
    inputs = select_inputs(x, {name: specs[name] for name in names})
    kinds = _kinds(part)
    if kinds is None:
        raise ValueError(f"The shape of what {branch.name!r} gives for a row must be known.")
    files = FeatureFiles(_folder(directory))
    rows = _Rows(part, [inputs])
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
    return read_features(path, kinds)[0]


def train_on_features(
    model: keras.Model,
    inputs: Inputs,
    validation: tuple[Inputs, Any] | None,
    callbacks: Sequence[keras.callbacks.Callback],
    *,
    feature_cache: bool | str | os.PathLike = AUTO,
    verbose: int | bool = 1,
) -> tuple[keras.Model, Inputs, tuple[Inputs, Any] | None, list[keras.callbacks.Callback]]:
    """Puts features in place of what frozen parts of a model take.

    Args:
        model: The model to train.
        inputs: Its checked inputs by name.
        validation: Checked inputs and targets of other rows, or None.
        callbacks: The user's, who see the whole model.
        feature_cache: As in `kfusion.fit`.
        verbose: 0 hides the progress.

    Returns:
        Model to train, inputs, validation rows and callbacks: as given if nothing is frozen. The
        model has the weights of the one given, in its order.

    Raises:
        TypeError: If `feature_cache` is none of what it may be.
    """
    if not isinstance(feature_cache, (bool, str, os.PathLike)):
        raise TypeError(
            '`feature_cache` must be "auto", a bool or a folder. Received: '
            f"{type(feature_cache).__name__}."
        )
    tables = [inputs] if validation is None else [inputs, validation[0]]
    found = None if feature_cache is False else _find(model, tables, feature_cache, verbose)
    if found is None:
        return model, inputs, validation, list(callbacks)
    split, tables = found
    trained = _TrainedOnFeatures(model, split)
    if validation is not None:
        validation = (tables[1], validation[1])
    return trained, tables[0], validation, [OfWholeModel(callbacks, model)]


class OfWholeModel(keras.callbacks.CallbackList):
    """Callbacks that see, stop and save the whole model while a part of it is trained.

    Args:
        callbacks: Keras callbacks.
        whole: The model that they see.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], whole: keras.Model):
        self.whole, self.trained = whole, whole
        super().__init__(list(callbacks), model=whole)
        # Only what looks at batches has to be waited for.
        self.async_safe = self._async_train

    def set_model(self, model):
        self.trained = model
        super().set_model(self.whole)

    def on_train_begin(self, logs=None):
        self.whole.stop_training = False
        super().on_train_begin(logs)

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        self._stop_if_asked()

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self._stop_if_asked()

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        self.whole.history = self.trained.history
        self.whole.history.set_model(self.whole)

    def _stop_if_asked(self) -> None:
        if self.whole.stop_training:
            self.trained.stop_training = True


class _TrainedOnFeatures(StepsModel):
    """The rest of a model behind its frozen parts, with the weights of the whole."""

    def __init__(self, whole: keras.Model, split: Split):
        given = {value.tensor.name: value for value in split.inputs}
        given |= {name: value for part in split.parts for name, value in _named(split, part)}
        policy = whole.dtype_policy
        super().__init__(given, split.steps, split.outputs, [whole], dtype=policy, name=whole.name)

    @property
    def output(self):
        """As of the whole model."""
        return self.weights_of[0].output

    @property
    def output_names(self):
        """As of the whole model."""
        return self.weights_of[0].output_names


class _Rows:
    """Rows of one or several tables, one behind the other, and what a part makes of them."""

    def __init__(self, part: Part, tables: Sequence[Inputs]):
        names = [value.tensor.name for value in part.inputs]
        self.part = part
        self.columns = {name: [table[name] for table in tables] for name in names}
        self.lengths = [len(table[names[0]]) for table in tables]

    def __len__(self) -> int:
        return sum(self.lengths)

    @functools.cached_property
    def key(self) -> PartKey:
        """What the part is, and of what shape the rows are."""
        return part_key(self.part, [tables[0].shape[1:] for tables in self.columns.values()])

    def digests(self, verbose: int | bool) -> np.ndarray:
        """A digest of each row."""
        tables = zip(*self.columns.values(), strict=True)
        return np.concatenate([digest_rows(table, verbose=verbose) for table in tables])

    def compute(self, batches: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """What the part gives for each batch of rows; the first one is the largest."""
        if not batches:
            return
        model, size = self._checked_model(), len(batches[0])
        # Of one size, so that nothing is compiled twice.
        filled = [np.resize(batch, size) for batch in batches]
        taken: Iterable[Inputs] = map(self._take, filled)
        arrays = [array for tables in self.columns.values() for array in tables]
        if any(isinstance(array, LazyRows) for array in arrays):
            row_bytes = sum(array.nbytes for array in arrays) // len(self)
            taken = in_advance(self._take, filled, item_bytes=size * row_bytes)
        dtypes = [value.tensor.dtype for value in self.part.outputs]
        for batch, rows in zip(batches, taken, strict=True):
            outputs = predict_on_devices(model, rows)
            yield [
                np.asarray(output)[: len(batch)].astype(dtype, copy=False)
                for output, dtype in zip(outputs, dtypes, strict=True)
            ]

    def _take(self, positions: np.ndarray) -> Inputs:
        return {name: _rows_of(tables, positions) for name, tables in self.columns.items()}

    def _checked_model(self) -> StepsModel:
        """The part as a model that gives the same in training."""
        layers = [
            step.operation
            for step in self.part.steps
            if isinstance(step.operation, keras.layers.Layer)
        ]
        given = {value.tensor.name: value for value in self.part.inputs}
        model = StepsModel(given, self.part.steps, self.part.outputs, layers)
        if self.key.has_own_code:
            self._check_answers(model)
        return model

    def _check_answers(self, model: StepsModel) -> None:
        """Runs a few rows as in training and not: nobody knows what users' layers do."""
        before = model.get_weights()
        few = self._take(np.arange(min(NUM_PROBED, len(self))))
        answers = [model(few, training=mode) for mode in (True, False)]
        after = model.get_weights()
        model.set_weights(before)
        same_weights = all(map(np.array_equal, before, after))
        if not same_weights or not all(map(_is_close, *answers)):
            raise ChangingPartError("it answers otherwise in training than at inference")


def _find(
    model: keras.Model, tables: Sequence[Inputs], feature_cache: Any, verbose: int | bool
) -> tuple[Split, list[Inputs]] | None:
    """A model's split and the tables that its rest takes; None if nothing is worth keeping.

    A part that cannot be kept counts as trained: it is run in each epoch, as the rest.
    """
    trained: set[int] = set()
    while (split := split_model(model, trained)) is not None:
        found: list[Inputs] = [
            {value.tensor.name: table[value.tensor.name] for value in split.inputs}
            for table in tables
        ]
        kept = True
        for part in split.parts:
            features = _features(part, tables, feature_cache, verbose)
            if features is None:
                trained |= part.operations
                kept = False
                continue
            for (name, _), array in zip(_named(split, part), features, strict=True):
                start = 0
                for table, given in zip(found, tables, strict=True):
                    end = start + len(next(iter(given.values())))
                    table[name] = array[start:end]
                    start = end
        if kept:
            return split, found
    return None


def _features(
    part: Part, tables: Sequence[Inputs], feature_cache: Any, verbose: int | bool
) -> list[np.ndarray] | None:
    """What a part gives for the rows of all tables; None if that cannot be kept."""
    try:
        return _kept_features(part, tables, feature_cache, verbose)
    except (UnknownPartError, ChangingPartError, TooLargeError) as error:
        # Nobody who asked for nothing wonders that augmentation is run in each epoch.
        if feature_cache != AUTO or not isinstance(error, ChangingPartError):
            warnings.warn(
                f"A frozen part is run in each epoch, since what it gives is not kept: {error}. "
                "`feature_cache=False` says that this is meant.",
                stacklevel=5,
            )
        return None


def _kept_features(
    part: Part, tables: Sequence[Inputs], feature_cache: Any, verbose: int | bool
) -> list[np.ndarray]:
    kinds = _kinds(part)
    names = [value.tensor.name for value in part.inputs]
    if kinds is None or any(len({t[name].shape[1:] for t in tables}) > 1 for name in names):
        raise ChangingPartError("rows have no shape in common")
    rows = _Rows(part, tables)
    key = rows.key.text
    store: FeatureMemory | FeatureFiles = IN_MEMORY
    if feature_cache == AUTO:
        size = len(rows) * sum(kind.row_bytes for kind in kinds)
        if size > IN_MEMORY.limit:
            raise TooLargeError(
                f'{len(rows):,} rows take {size / 2**30:.2g} GB and `feature_cache="auto"` keeps '
                f"{IN_MEMORY.limit / 2**30:.2g} GB in memory. `feature_cache=True` keeps them in "
                "files in kfusion's cache folder, a path in that folder"
            )
    else:
        store = FeatureFiles(_folder(None if feature_cache is True else feature_cache))
    return store.features(
        key,
        rows.digests(verbose),
        kinds,
        rows.compute,
        batch_size=_batch_size(part),
        verbose=verbose,
    )


def _batch_size(part: Part) -> int:
    """Rows at once for which the widest layer has memory."""
    is_cpu = find_device().kind == "cpu"
    memory = CALL_BYTES_ON_CPU if is_cpu else CALL_BYTES_ELSEWHERE
    return max(1, min(EVALUATION_BATCH, memory // max(1, part.widest_call())))


def _checked_part(branch: keras.Model) -> Part:
    """A branch as one part, or an error that says why it is none."""
    if not isinstance(branch, keras.Model):
        raise TypeError(f"`branch` must be a keras.Model. Received: {type(branch).__name__}.")
    part = whole_part(branch)
    if part is None:
        raise ValueError(
            f"The inside of {branch.name!r} is not known: `kf.freeze(branch)` makes a frozen model "
            "of any that is built."
        )
    for step in part.steps:
        if not is_constant(step.operation):
            why = (
                "has weights that train"
                if getattr(step.operation, "trainable_weights", ())
                else "is different in training"
            )
            raise ValueError(
                f"`branch` must be frozen, but in {branch.name!r} the layer "
                f"{step.operation.name!r} ({type(step.operation).__name__}) {why}. "
                "`kf.freeze(branch)` makes one that answers alike throughout."
            )
    if len(part.outputs) != 1:
        raise ValueError(f"`branch` must have one output. {branch.name!r} has {len(part.outputs)}.")
    return part


def _kinds(part: Part) -> list[Kind] | None:
    """Shape and dtype of each output; None if they are not known or cannot be kept."""
    kinds = [Kind(tuple(v.tensor.shape[1:]), v.tensor.dtype) for v in part.outputs]
    is_known = all(None not in kind.shape and kind.dtype in DTYPES for kind in kinds)
    return kinds if is_known else None


def _named(split: Split, part: Part) -> list[tuple[str, Value]]:
    """A part's outputs by names with a dot, which no input has."""
    number = split.parts.index(part)
    return [(f"frozen.{number}.{i}", value) for i, value in enumerate(part.outputs)]


def _rows_of(tables: Sequence[np.ndarray], positions: np.ndarray) -> np.ndarray:
    """Rows of tables that count as one behind the other."""
    found = np.empty((len(positions), *tables[0].shape[1:]), tables[0].dtype)
    start = 0
    for table in tables:
        here = (positions >= start) & (positions < start + len(table))
        found[here] = table[positions[here] - start]
        start += len(table)
    return found


def _is_close(a: Any, b: Any) -> bool:
    a, b = (keras.ops.convert_to_numpy(each).astype(np.float64) for each in (a, b))
    return np.allclose(a, b, rtol=1e-2, atol=1e-3 * np.abs(b).max(initial=0), equal_nan=True)


def _folder(directory: str | os.PathLike | None) -> Path:
    return default_cache_folder() / "features" if directory is None else Path(directory)
