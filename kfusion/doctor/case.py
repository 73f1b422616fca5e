"""What the doctor examines: a model, its data and, if there is one, the history of a training."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kfusion.data.inputs import TABULAR, check_lengths
from kfusion.data.lazy_rows import as_rows
from kfusion.data.tables import TableSchema
from kfusion.tasks import Task


@dataclasses.dataclass(frozen=True)
class Rows:
    """Inputs by name, targets as they were given, and groups.

    Attributes:
        x: Arrays `(rows, ...)` by the name of the model's input.
        y: Array `(rows, ...)`: class indices, one-hot rows or values, as they were given.
        groups: `(rows,)` array or None.
    """

    x: dict[str, np.ndarray]
    y: np.ndarray
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.y)


@dataclasses.dataclass(frozen=True)
class Case:
    """Attributes:
    model: Any `keras.Model`, compiled or not; None where data alone are looked at.
    train: Training rows.
    task: `Task`.
    validation: Validation rows, or None.
    history: Values of each epoch by name, such as "loss" and "val_auc"; or None.
    column_names: Names of the columns of an input, by the input's name.
    dates: Names of the columns that hold dates, by the input's name.
    texts: Names of the inputs that hold ids of tokens.
    batch_size: Int, that of the training.
    epochs: Int, that of the training, or None.
    seed: Int.
    is_trained: Whether the model has been trained; what it answers says nothing before.
    """

    model: Any
    train: Rows
    task: Task
    validation: Rows | None = None
    history: Mapping[str, Sequence[float]] | None = None
    column_names: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    dates: Mapping[str, Collection[str]] = dataclasses.field(default_factory=dict)
    texts: Collection[str] = ()
    batch_size: int = 32
    epochs: int | None = None
    seed: int = 0
    is_trained: bool = True


def make_rows(
    model: keras.Model | None, x: Any, y: Any, groups: Any = None, called: str = "x"
) -> Rows:
    """Inputs as a model is given them, targets and groups -> `Rows`.

    Args:
        model: The model that takes them; None for a mapping, taken as it is.
        x: Array, list of arrays or mapping.
        y: `(rows, ...)` targets.
        groups: `(rows,)` values, or None.
        called: How `x` is called in errors.

    Raises:
        ValueError: If inputs are missing or lengths differ.
    """
    inputs = name_inputs(model, x, called)
    rows = Rows(inputs, np.asarray(y), None if groups is None else np.asarray(groups))
    arrays = {f"{called}[{name!r}]": array for name, array in inputs.items()}
    arrays[called.replace("x", "y")] = rows.y
    if rows.groups is not None:
        arrays[called.replace("x", "groups")] = rows.groups
    check_lengths(arrays)
    return rows


def name_columns(schema: TableSchema | None) -> dict[str, Any]:
    """The `column_names`, `dates` and `texts` of a `Case` whose inputs a schema encodes."""
    if schema is None:
        return {}
    columns = schema.matrix_columns
    return {
        "column_names": {TABULAR: [column.name for column in columns]},
        "dates": {TABULAR: [column.name for column in columns if column.kind == "date"]},
        "texts": [text.input_name for text in schema.texts],
    }


def column_name(case: Case, name: str, column: int) -> str:
    """A column's name in quotes, or its position."""
    plain = plain_column_name(case, name, column)
    return f"column {column}" if plain is None else repr(plain)


def plain_column_name(case: Case, name: str, column: int) -> str | None:
    """A column's name if it has one."""
    names = case.column_names.get(name, ())
    return str(names[column]) if column < len(names) else None


def name_inputs(model: keras.Model | None, x: Any, called: str = "x") -> dict[str, np.ndarray]:
    """An array, a list of arrays or a mapping -> the arrays of the model's inputs by name.

    Raises:
        ValueError: If there are others than the model takes.
    """
    names = [tensor.name for tensor in getattr(model, "inputs", None) or []]
    if isinstance(x, Mapping):
        lacking = [name for name in names if name not in x]
        if lacking:
            raise ValueError(f"`{called}` lacks the input(s) {lacking}. It has: {list(x)}.")
        return {name: as_rows(x[name]) for name in names or x}
    arrays = list(x) if isinstance(x, (list, tuple)) else [x]
    names = names or [f"input_{i + 1}" for i in range(len(arrays))]
    if len(arrays) != len(names):
        raise ValueError(
            f"The model takes {len(names)} input(s), {names}. `{called}` holds {len(arrays)}."
        )
    return dict(zip(names, map(as_rows, arrays), strict=True))
