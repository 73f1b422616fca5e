"""A branch for whatever an input is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np

from kfusion.branches.embeddings import embedding_branch
from kfusion.branches.image_sets import image_set_branch
from kfusion.branches.images import image_branch
from kfusion.branches.sequences import sequence_branch
from kfusion.branches.tables import tabular_branch
from kfusion.branches.text import text_branch
from kfusion.data.inputs import TABULAR
from kfusion.data.tables import TableSchema


def branch_builders(
    x: Mapping[str, np.ndarray], schema: TableSchema | None = None, **image_keywords: Any
) -> dict[str, Callable[..., keras.Model]]:
    """Builders of a branch for each input, by what its array is.

    uint8 `(rows, height, width, channels)`: images; uint8 `(rows, count, height, width,
    channels)`: several images; "tabular": the table; a text column of the schema: token ids; other
    `(rows, features)`: an embedding; other `(rows, steps, channels)`: a sequence.

    Args:
        x: Arrays by input name, such as `FusionData.x`.
        schema: `TableSchema` that encoded "tabular" and texts. Without it "tabular" is a matrix of
            numbers.
        **image_keywords: For `image_branch`, such as `backbone`; also for images of a set.

    Returns:
        Builders by input name, which take keywords of their branch: what `FusionHyperModel` takes,
        and, called, `build_fusion_model`.

    Raises:
        ValueError: If an array is none of these; names the input.
    """
    return {name: _builder(name, array, schema, image_keywords) for name, array in x.items()}


def _builder(
    name: str, array: np.ndarray, schema: TableSchema | None, image_keywords: Mapping[str, Any]
) -> Callable[..., keras.Model]:
    if name == TABULAR:
        return partial(tabular_branch, array.shape[1] if schema is None else schema)
    keywords: dict[str, Any] = {"input_name": name, "name": f"{name}_branch"}
    texts = {} if schema is None else {text.input_name: text for text in schema.texts}
    if name in texts:
        return partial(text_branch, texts[name].vocabulary, **keywords)
    shape = array.shape[1:]
    if array.dtype == np.uint8 and len(shape) == 3:
        return partial(image_branch, shape, **keywords, **image_keywords)
    if array.dtype == np.uint8 and len(shape) == 4:
        return partial(image_set_branch, shape, **keywords, **image_keywords)
    if array.dtype.kind == "f" and len(shape) == 1:
        return partial(embedding_branch, shape[0], **keywords)
    if array.dtype.kind == "f" and len(shape) == 2:
        return partial(sequence_branch, shape, **keywords)
    raise ValueError(
        f"There is no branch for the input {name!r} of shape {array.shape} and dtype "
        f"{array.dtype}: images are uint8, embeddings and sequences floating point numbers."
    )
