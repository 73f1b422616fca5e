"""A request for one row that an exported model answers, made from what it knows of its inputs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from kfusion.data.image_bands import PICTURE_CHANNELS
from kfusion.data.tables import CategoryColumn, Column, TextColumn
from kfusion.exports.signatures import read_schema, read_specs

# More values of an input that is no image would fill the page.
_LONGEST_EXAMPLE = 256
_EXAMPLE_WORDS = 5


def example_request(description: Mapping[str, Any]) -> dict[str, Any] | None:
    """A request for one row that an exported model answers, as `kfusion serve` takes it.

    Its values are the median of each number and the most frequent category; its image is grey.

    Args:
        description: Content of `kfusion.json`.

    Returns:
        `{"instances": [{...}]}`, or None if an input that is no image has too many values to be
        written down.
    """
    specs, schema = read_specs(description), read_schema(description)
    instance: dict[str, Any] = {}
    for name, spec in specs.items():
        if schema is not None and name in schema.input_names:
            continue
        shape = [size or 1 for size in spec.shape]
        if spec.dtype == "uint8" and len(shape) == 3:
            content = _grey_image(*shape)
            instance[name] = {"b64": base64.b64encode(content).decode()}
        elif np.prod(shape) > _LONGEST_EXAMPLE:
            return None
        else:
            instance[name] = np.zeros(shape, spec.dtype).tolist()
    for column in () if schema is None else schema.columns:
        instance[description["served_names"][column.name]] = _usual_value(column)
    return {"instances": [instance]}


def _usual_value(column: Column) -> Any:
    if isinstance(column, TextColumn):
        return " ".join(column.vocabulary.tokens[:_EXAMPLE_WORDS])
    if isinstance(column, CategoryColumn):
        if not column.vocabulary:
            return -1.0 if column.is_number else ""
        return float(column.vocabulary[0]) if column.is_number else column.vocabulary[0]
    if column.kind == "date":
        return iso_date(column.center)
    return float(round(column.center)) if column.kind == "boolean" else column.center


def iso_date(days: float) -> str:
    """A date of so many days since 1970, as its column is given in requests."""
    return str(np.datetime64(int(days // 1), "D"))


def _grey_image(height: int, width: int, channels: int) -> bytes:
    """An image file; of numbers of channels that no picture has, an array of one pixel."""
    file = io.BytesIO()
    if channels in PICTURE_CHANNELS:
        grey = np.full((height, width, channels), 128, np.uint8)
        Image.fromarray(grey.squeeze(-1) if channels == 1 else grey).save(file, "PNG")
    else:
        np.save(file, np.full((1, 1, channels), 128, np.uint8))
    return file.getvalue()
