"""What an exported model takes and gives through each of its signatures, as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kfusion.data.inputs import InputSpec
from kfusion.data.raw_columns import raw_dtype
from kfusion.data.tables import TableSchema

RAW_SIGNATURE, ENCODED_SIGNATURE = "serving_default", "encoded"


def read_specs(description: Mapping[str, Any]) -> dict[str, InputSpec]:
    """What the exported model asks of each input, from the content of `kfusion.json`."""
    inputs = description["inputs"]
    return {name: InputSpec(tuple(shape), dtype) for name, (shape, dtype) in inputs.items()}


def read_schema(description: Mapping[str, Any]) -> TableSchema | None:
    """The schema of the raw columns, from the content of `kfusion.json`; None without any."""
    schema = description["schema"]
    return None if schema is None else TableSchema.from_json(json.dumps(schema))


def describe_signatures(
    inputs: Mapping[str, InputSpec],
    schema: TableSchema | None,
    served_names: Mapping[str, str],
    *,
    kind: str,
    num_classes: int,
) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Dtype and shape of each input and output, by signature and name.

    Args:
        inputs: The Keras model's own inputs by name.
        schema: `TableSchema` of the raw columns, or None if only encoded inputs are served.
        served_names: Name of each raw column in `serving_default`.
        kind: "binary", "multiclass" or "regression".
        num_classes: Int; 0 for a regression.

    Returns:
        `{signature: {"inputs": {name: {"dtype", "shape"}}, "outputs": ...}}`; the first size of a
        shape is None, the number of rows.
    """
    encoded = {name: _tensor(spec.dtype, *spec.shape) for name, spec in inputs.items()}
    raw = {name: encoded[name] for name in array_specs(inputs, schema)}
    if schema is not None:
        raw |= {served_names[c.name]: _tensor(raw_dtype(c)) for c in schema.columns}
    if kind == "regression":
        outputs = {"prediction": _tensor("float32")}
    else:
        outputs = {
            "probabilities": _tensor("float32", num_classes),
            "class": _tensor("string"),
            "class_names": _tensor("string", num_classes),
        }
    return {
        RAW_SIGNATURE: {"inputs": raw, "outputs": outputs},
        ENCODED_SIGNATURE: {"inputs": encoded, "outputs": outputs},
    }


def array_specs(
    inputs: Mapping[str, InputSpec], schema: TableSchema | None
) -> dict[str, InputSpec]:
    """Those of a model's inputs that are not made of raw columns."""
    made = [] if schema is None else schema.input_names
    return {name: spec for name, spec in inputs.items() if name not in made}


def _tensor(dtype: str, *shape: int | None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [None, *shape]}
