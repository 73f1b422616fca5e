"""Rows with images, a table and a target: what loaders return and training takes apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from kfusion.data.folds import draw_splits
from kfusion.data.input_names import check_input_names
from kfusion.data.inputs import IMAGE, TABULAR, check_lengths
from kfusion.data.lazy_rows import some_rows
from kfusion.data.tables import TableSchema, text_input
from kfusion.tasks import Task, task


@dataclasses.dataclass(frozen=True, eq=False)
class FusionData:
    """Images, raw table, targets and groups of the same rows.

    `data[rows]` gives other rows (a slice, positions, or a boolean mask); `data.split()` gives
    training and validation rows. The table's schema belongs to training rows: parts made by
    `split` share that of the training part, and a part made by `data[rows]` has none until
    `with_schema` says which.

    Attributes:
        images: `(rows, height, width, channels)` uint8. Where there are several inputs beside the
            table, or other ones, a dict of arrays by input name. Loaded with `streaming=True`,
            images that are decoded as they are needed: `images[rows]` are pixels.
        frame: DataFrame of the raw tabular columns, as many rows.
        y: `(rows,)` int32 labels or float32 regression targets.
        kind: "binary", "multiclass" or "regression".
        class_names: Names in the order of the labels; empty for regression.
        groups: `(rows,)` array: rows that share a value must not be split; or None.
        rows: `(rows,)` ints, each row's position in the table that was loaded.
        column_kinds: Kinds of the tabular columns by name.
        image_columns: Name of the table's column of images by input name, as far as known.
        target: Name of the table's column that `y` was, or None.

    Raises:
        ValueError: If there are no rows, or unequal numbers of them.
    """

    images: np.ndarray | Mapping[str, np.ndarray]
    frame: pd.DataFrame
    y: np.ndarray
    kind: str
    class_names: tuple[str, ...] = ()
    groups: np.ndarray | None = None
    rows: np.ndarray = dataclasses.field(default_factory=lambda: np.arange(0))
    column_kinds: dict[str, str] = dataclasses.field(default_factory=dict)
    image_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    target: str | None = None
    _schema: TableSchema | None = dataclasses.field(default=None, repr=False)
    _is_part: bool = dataclasses.field(default=False, repr=False)

    def __post_init__(self):
        if not len(self.rows):
            object.__setattr__(self, "rows", np.arange(len(self.y)))
        check_input_names(self.input_names)
        arrays = {**self.arrays, "frame": self.frame, "y": self.y, "rows": self.rows}
        check_lengths(arrays if self.groups is None else {**arrays, "groups": self.groups})

    def __repr__(self) -> str:
        shapes = ", ".join(
            f"{'images' if name == IMAGE else name} {'x'.join(map(str, array.shape[1:]))}"
            for name, array in self.arrays.items()
        )
        classes = f", classes {list(self.class_names)}" if self.class_names else ""
        groups = "" if self.groups is None else f", {len(np.unique(self.groups))} groups"
        return (
            f"FusionData({len(self)} rows, {shapes}, {self.frame.shape[1]} columns, "
            f"{self.kind}{classes}{groups})"
        )

    def __len__(self) -> int:
        return len(self.y)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Inputs that are not made of the table, by name: "image" where there is one of images."""
        return dict(self.images) if isinstance(self.images, Mapping) else {IMAGE: self.images}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of the only image; raises `ValueError` if it is not one."""
        if len(self.arrays) != 1:
            raise ValueError(f"There is no single image: the inputs are {list(self.arrays)}.")
        (array,) = self.arrays.values()
        return array.shape[1:]

    @property
    def input_names(self) -> list[str]:
        """Names of a model's inputs, in the order of `x`; needs no schema."""
        texts = self._text_inputs()
        has_table = self.frame.shape[1] > len(texts)
        return [*self.arrays, *([TABULAR] if has_table else []), *texts]

    @property
    def schema(self) -> TableSchema:
        """The schema that encodes the table: the one given, or learned from all rows as loaded."""
        if self._schema is not None:
            return self._schema
        if self._is_part:
            raise RuntimeError(
                "These rows are a part of a table and have no schema yet. Learn it from training "
                "rows, `train = data[rows].with_schema()`, and hand it on, "
                "`test = data[others].with_schema(train.schema)`; or use `data.split()`."
            )
        schema = self._learn_schema()
        object.__setattr__(self, "_schema", schema)
        return schema

    @property
    def x(self) -> dict[str, np.ndarray]:
        """`{"image": uint8 images, "tabular": (rows, columns) float32}`: a model's inputs.

        Beside these, or in their place: each of several images, and each text column's token ids.
        """
        return {**self.arrays, **self.schema.inputs(self.frame)}

    @property
    def task(self) -> Task:
        """The task with the class rates, or the target's scale, of these rows."""
        return task(self.kind, y=self.y, class_names=self.class_names or None)

    def with_schema(self, schema: TableSchema | None = None) -> FusionData:
        """Returns these rows with a schema: the one given, or one learned from them alone."""
        return dataclasses.replace(self, _schema=schema or self._learn_schema())

    def __getitem__(self, rows: Any) -> FusionData:
        if isinstance(rows, (int, np.integer)):
            raise TypeError(f"Rows must be a slice, positions or a mask. Received: {rows!r}.")
        rows = np.arange(len(self))[rows]
        return dataclasses.replace(
            self,
            images=(
                {name: some_rows(array, rows) for name, array in self.images.items()}
                if isinstance(self.images, Mapping)
                else some_rows(self.images, rows)
            ),
            frame=self.frame.iloc[rows].reset_index(drop=True),
            y=self.y[rows],
            groups=None if self.groups is None else self.groups[rows],
            rows=self.rows[rows],
            # A schema learned from all rows as loaded must not reach a part of them.
            _schema=self._schema if self._is_part else None,
            _is_part=True,
        )

    def split(
        self, validation: float = 0.2, *, test: float = 0.0, seed: int = 0
    ) -> tuple[FusionData, ...]:
        """Splits into training, validation and, if asked for, test rows.

        Classes keep their shares and groups stay whole. Each part is one of `k` folds, that of
        the closest size, so a fraction is met as `1 / k`. The schema is learned from the training
        rows alone.

        Args:
            validation: Float in (0, 0.5], share of all rows.
            test: Float in [0, 0.5], share of all rows.
            seed: Int.

        Returns:
            `(train, validation)`, or `(train, validation, test)` if `test` is above 0.

        Raises:
            ValueError: If a fraction is out of range, no training rows are left, there are
                fewer rows or groups than folds, or no split leaves every class among the
                training rows.
        """
        for name, fraction in {"validation": validation, "test": test}.items():
            if not (0 < fraction <= 0.5 or (name == "test" and fraction == 0)):
                raise ValueError(f"`{name}` must lie in (0, 0.5]. Received: {fraction}.")
        if validation + test >= 1:
            raise ValueError("`validation` and `test` leave no training rows: together they are 1.")
        rows = np.arange(len(self))
        parts = []
        if test:
            rows, test_rows = self._hold_out(rows, test, seed)
            parts.append(self[test_rows])
        train_rows, validation_rows = self._hold_out(rows, validation / (1 - test), seed)
        train = self[train_rows].with_schema()
        parts = [self[validation_rows], *parts]
        return (train, *(part.with_schema(train.schema) for part in parts))

    def _hold_out(self, rows: np.ndarray, fraction: float, seed: int):
        """Splits row positions in two, the second holding about `fraction` of them."""
        num_folds = max(2, round(1 / fraction))
        groups = None if self.groups is None else self.groups[rows]
        units = len(rows) if groups is None else len(np.unique(groups))
        if units < num_folds:
            what = "rows" if groups is None else "groups"
            raise ValueError(
                f"{num_folds} parts cannot be made of {units} {what}: hold out a larger share, or "
                "give more of them."
            )
        labels = None if self.kind == "regression" else self.y[rows]
        if labels is None:
            kept, held = min(
                draw_splits(len(rows), num_folds, groups=groups, seed=seed),
                key=lambda pair: abs(pair[1].size / rows.size - fraction),
            )
            return rows[kept], rows[held]
        # No class can fill more folds than the largest one has rows.
        num_folds = min(num_folds, int(np.bincount(labels).max()))
        splits: list = []
        if num_folds > 1:
            drawn = draw_splits(len(rows), num_folds, labels=labels, groups=groups, seed=seed)
            splits = list(drawn)
        classes = np.unique(labels)
        # With few groups, a fold may be empty.
        whole = [
            (kept, held)
            for kept, held in splits
            if held.size and np.isin(classes, labels[kept]).all()
        ]
        if not whole:
            raise ValueError(
                "No split leaves every class among the training rows: classes "
                f"{[self.class_names[label] for label in classes]} in {units} "
                f"{'rows' if groups is None else 'groups'}."
            )

        def faults(pair: tuple[np.ndarray, np.ndarray]) -> tuple[bool, float]:
            held = pair[1]
            lacks_classes = not np.isin(classes, labels[held]).all()
            return lacks_classes, abs(held.size / rows.size - fraction)

        kept, held = min(whole, key=faults)
        return rows[kept], rows[held]

    def _text_inputs(self) -> list[str]:
        kinds = self.column_kinds
        return [text_input(name) for name in self.frame.columns if kinds.get(name) == "text"]

    def _learn_schema(self) -> TableSchema:
        # A part may lack a column's values by chance; what was loaded was checked.
        allow_empty = self._is_part or bool(self.column_kinds)
        if not self.frame.shape[1]:
            return TableSchema(())
        kinds = {name: self.column_kinds.get(name) for name in self.frame.columns}
        return TableSchema.fit(self.frame, kinds, allow_empty=allow_empty)
