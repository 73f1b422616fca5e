"""Which rows have each input, of those that members can do without."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kfusion.data.inputs import TABULAR
from kfusion.data.tables import TableSchema

# With so many rows that lack a table, members learn what it means.
MIN_EMPTY_ROWS = 20


def present_rows(x: Mapping[str, np.ndarray], schema: TableSchema | None) -> dict[str, np.ndarray]:
    """Which rows have each input, of those that members can do without.

    Images of zeros alone are missing, and so are embeddings, sequences and rows of a table in
    which every value is. Where there are no other inputs, or enough rows to learn from lack their
    table, what is missing is a value like others; so is a text without a word.

    Args:
        x: Encoded inputs by name.
        schema: `TableSchema` of table and texts, or None.

    Returns:
        `(rows,)` booleans by input.

    Raises:
        ValueError: If no row has an input; names it.
    """
    if len(x) < 2:
        return {}
    texts = [] if schema is None else [text.input_name for text in schema.texts]
    present: dict[str, np.ndarray] = {}
    for name, array in x.items():
        if name in texts:
            continue
        if name == TABULAR and schema is not None:
            present[name] = _rows_with_table(array, schema)
            if np.sum(~present[name]) >= MIN_EMPTY_ROWS:
                del present[name]
            continue
        is_value = ~np.isnan(array) if array.dtype.kind == "f" else array != 0
        present[name] = is_value.reshape(len(array), -1).any(axis=1)
        if not present[name].any():
            raise ValueError(
                f"No row has an {name}: all are empty, or hold zeros alone."
                if array.dtype == np.uint8
                else f"No row has a value of {name!r}."
            )
    return present


def _rows_with_table(encoded: np.ndarray, schema: TableSchema) -> np.ndarray:
    num_numbers = len(schema.numbers)
    numbers, codes = encoded[:, :num_numbers], encoded[:, num_numbers:]
    return np.any(~np.isnan(numbers), axis=1) | np.any(codes > 0, axis=1)
