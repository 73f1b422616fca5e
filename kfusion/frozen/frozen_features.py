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
from kfusion.frozen.augmented_views import (
    IS_AUGMENTED,
    SEEDS,
    DrawnView,
    num_generators,
    seeded_steps,
    view_digests,
    view_seeds,
)
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
    Step,
    StepsModel,
    Value,
    is_augmentation,
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
    rows = _Rows(part, [inputs], [1 + augmented_views])
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
    trained = _TrainedOnFeatures(model, split, augmented_views)
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

    def __init__(self, whole: keras.Model, split: Split, augmented_views: int):
        given = {value.tensor.name: value for value in split.inputs}
        draws = []
        for part in split.parts:
            named = _named(split, part)
            if part.augmentations:
                # All outputs take the same view of a row.
                named = {name: _views_of(value) for name, value in named.items()}
                taken = (list(named.values()),)
                draws.append(Step(DrawnView(augmented_views), taken, {}, part.outputs))
            given |= named
        super().__init__(
            given,
            [*draws, *split.steps],
            split.outputs,
            [whole, *(step.operation for step in draws)],
            dtype=whole.dtype_policy,
            name=whole.name,
        )
        run = {id(layer) for step in split.steps for layer in _layers_within(step)}
        augmenting = [
            layer
            for part in split.parts
            for step in part.augmentations
            for layer in _layers_within(step)
            if id(layer) not in run
        ]
        # A list would be tracked.
        self._idle = lambda: augmenting

    def compile(self, *arguments, **keywords):
        """As of any model. Keras asks all layers within whether XLA takes them, run or not."""
        hindering = [layer for layer in self._idle() if not layer.supports_jit]
        for layer in hindering:
            layer.supports_jit = True
        try:
            super().compile(*arguments, **keywords)
        finally:
            for layer in hindering:
                layer.supports_jit = False

    @property
    def output(self):
        """As of the whole model."""
        return self.weights_of[0].output

    @property
    def output_names(self):
        """As of the whole model."""
        return self.weights_of[0].output_names


class _Rows:
    """Rows of one or several tables, one behind the other, and what a part makes of them.

    Where the part augments, it makes as many views of each row of a table as are asked for, one
    behind the other, of which the first is the plain one; else one.
    """

    def __init__(self, part: Part, tables: Sequence[Inputs], views: Sequence[int]):
        names = [value.tensor.name for value in part.inputs]
        self.part = part
        self.columns = {name: [table[name] for table in tables] for name in names}
        self.lengths = [len(table[names[0]]) for table in tables]
        self.views = list(views) if part.augmentations else [1] * len(tables)
        per_row = np.repeat(self.views, self.lengths)
        # Of each view.
        self._rows = np.repeat(np.arange(len(per_row)), per_row)
        firsts = np.cumsum(per_row) - per_row
        self._is_augmented = np.arange(len(self)) != np.repeat(firsts, per_row)

    def __len__(self) -> int:
        return len(self._rows)

    @functools.cached_property
    def key(self) -> PartKey:
        """What the part is, and of what shape the rows are."""
        return part_key(self.part, [tables[0].shape[1:] for tables in self.columns.values()])

    def digests(self, verbose: int | bool) -> np.ndarray:
        """A digest of each row's views."""
        tables = zip(*self.columns.values(), strict=True)
        self._digests = np.concatenate(
            [
                view_digests(digest_rows(table, verbose=verbose), num_views)
                for table, num_views in zip(tables, self.views, strict=True)
            ]
        )
        return self._digests

    def by_table(self, features: np.ndarray) -> list[np.ndarray]:
        """What is one behind the other as an array per table, with an axis of views if any are."""
        found, start = [], 0
        for num_rows, num_views in zip(self.lengths, self.views, strict=True):
            here = features[start : start + num_rows * num_views]
            start += len(here)
            if self.part.augmentations:
                here = here.reshape(num_rows, num_views, *features.shape[1:])
            found.append(here)
        return found

    def compute(self, batches: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """What the part gives for each batch of views; the first one is the largest.

        Seeds come from what `digests` found, which is asked for first.
        """
        if not batches:
            return
        model, size = self._checked_model(), len(batches[0])
        # Of one size, so that nothing is compiled twice.
        filled = [np.resize(batch, size) for batch in batches]
        taken: Iterable[Inputs] = map(self._take, filled)
        arrays = [array for tables in self.columns.values() for array in tables]
        if any(isinstance(array, LazyRows) for array in arrays):
            row_bytes = sum(array.nbytes for array in arrays) // sum(self.lengths)
            taken = in_advance(self._take, filled, item_bytes=size * row_bytes)
        dtypes = [value.tensor.dtype for value in self.part.outputs]
        for batch, rows in zip(batches, taken, strict=True):
            outputs = predict_on_devices(model, rows)
            yield [
                np.asarray(output)[: len(batch)].astype(dtype, copy=False)
                for output, dtype in zip(outputs, dtypes, strict=True)
            ]

    def _take(self, positions: np.ndarray) -> Inputs:
        # Each row is read once for all of its views.
        rows, places = np.unique(self._rows[positions], return_inverse=True)
        found = {name: _rows_of(tables, rows)[places] for name, tables in self.columns.items()}
        if self.part.augmentations:
            count = num_generators(self.part.steps)
            found[SEEDS] = view_seeds(self._digests[positions], count)
            found[IS_AUGMENTED] = self._is_augmented[positions]
        return found

    def _checked_model(self) -> StepsModel:
        """The part as a model that gives the same in training."""
        given = {value.tensor.name: value for value in self.part.inputs}
        steps = self.part.steps
        if self.part.augmentations:
            further, steps = seeded_steps(steps)
            given |= further
        layers = [
            step.operation for step in steps if isinstance(step.operation, keras.layers.Layer)
        ]
        model = StepsModel(given, steps, self.part.outputs, layers)
        if self.key.has_own_code or self.part.has_bare_operations:
            few = self._take(np.unique(np.linspace(0, len(self) - 1, NUM_PROBED).astype(int)))
            if self.key.has_own_code:
                _check_modes(model, few)
            _check_rows(model, few)
        return model


def _check_modes(model: StepsModel, few: Inputs) -> None:
    """Runs a few rows as in training and not: nobody knows what users' layers do."""
    before = model.get_weights()
    answers = [model(few, training=mode) for mode in (True, False)]
    after = model.get_weights()
    model.set_weights(before)
    same_weights = all(map(np.array_equal, before, after))
    if not same_weights or not all(map(_is_close, *answers)):
        raise ChangingPartError("it answers otherwise in training than at inference")


def _check_rows(model: StepsModel, few: Inputs) -> None:
    """Runs rows together and alone: operations and users' layers may look at a whole batch."""
    together = model(few, training=False)
    for row in range(len(next(iter(few.values())))):
        alone = model({name: rows[row : row + 1] for name, rows in few.items()}, training=False)
        if not all(map(_is_close, (output[row : row + 1] for output in together), alone)):
            raise ChangingPartError("what it answers for a row depends on the rows beside it")


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
            for name, arrays in zip(_named(split, part), features, strict=True):
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
    rows = _Rows(part, tables, views)
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


def _named(split: Split, part: Part) -> dict[str, Value]:
    """A part's outputs by names with a dot, which no input has."""
    number = split.parts.index(part)
    return {f"frozen.{number}.{i}": value for i, value in enumerate(part.outputs)}


def _layers_within(step: Step) -> list[keras.layers.Layer]:
    is_layer = isinstance(step.operation, keras.layers.Layer)
    return step.operation._flatten_layers() if is_layer else []


def _views_of(value: Value) -> Value:
    """What holds several views of each row of a value."""
    tensor = value.tensor
    return Value(keras.KerasTensor((None, None, *tensor.shape[1:]), tensor.dtype))


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
