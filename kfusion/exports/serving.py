"""An exported model, loaded and asked: TensorFlow alone, no Keras."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kfusion.data.images import check_image_shape
from kfusion.data.inputs import check_lengths, select_inputs
from kfusion.data.raw_columns import raw_columns
from kfusion.exports.signatures import (
    ENCODED_SIGNATURE,
    RAW_SIGNATURE,
    array_specs,
    describe_signatures,
    read_schema,
    read_specs,
)

DESCRIPTION_FILE = "kfusion.json"
# Format 1 knew one image only.
FORMAT = 2
_BATCH = 256


class ExportedModel:
    """A SavedModel written by `export_saved_model`. Made by `load_exported`.

    Attributes:
        kind: "binary", "multiclass" or "regression".
        class_names: Tuple of names in the order of the probabilities; empty for a regression.
        schema: `TableSchema` of the raw columns, or None if only encoded inputs are served.
        image_shapes: `(height, width, channels)` of each image by input name.
        image_columns: Name of the column of image files by input name.
        may_be_missing: Names of the inputs that rows may lack: an image of zeros alone, a table of
            which every value is missing.
        served_names: Name of each raw column in the signature `serving_default`.
        specs: `InputSpec` of each input of the Keras model, by name.
        signatures: What each signature takes and gives; see `describe_signatures`.
    """

    def __init__(self, path: Path, description: dict[str, Any]):
        import tensorflow as tf

        # The loaded object owns the variables: it must live as long as its signatures.
        self._loaded = tf.saved_model.load(str(path))
        self.specs = read_specs(description)
        self.kind: str = description["kind"]
        self.class_names = tuple(description["class_names"])
        self.image_columns: dict[str, str] = description["image_columns"]
        self.served_names: dict[str, str] = description["served_names"]
        self.may_be_missing = tuple(description.get("may_be_missing", ()))
        self.schema = read_schema(description)
        self.signatures = describe_signatures(
            self.specs,
            self.schema,
            self.served_names,
            kind=self.kind,
            num_classes=len(self.class_names),
        )
        self.image_shapes = {
            name: check_image_shape(description["inputs"][name][0]) for name in self.image_columns
        }

    def predict(
        self,
        frame: pd.DataFrame | None = None,
        images: np.ndarray | Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Predicts rows from raw columns and images.

        Args:
            frame: DataFrame with at least the schema's columns; others are ignored.
            images: `(rows, height, width, channels)` uint8, as from `load_images`; or, for a
                model that takes more, a dict of arrays by input name.

        Returns:
            `probabilities` `(rows, classes)` float32 and `class` `(rows,)` names; or
            `prediction` `(rows,)` for a regression.

        Raises:
            TypeError, ValueError: If an input that the model takes is not given, or does not fit
                its shape or the schema.
        """
        specs = array_specs(self.specs, self.schema)
        if self.schema is not None and frame is None:
            raise ValueError(f"`frame` must hold the columns {self.schema.names}.")
        given: Mapping[str, Any] = {}
        if isinstance(images, Mapping):
            given = images
        elif images is not None:
            if len(specs) != 1:
                raise ValueError(f"`images` must be a dict of the inputs {sorted(specs)}.")
            given = dict.fromkeys(specs, images)
        elif specs:
            raise ValueError(f"`images` must be given: the model takes {sorted(specs)}.")
        inputs = select_inputs(given, specs, "images") if specs else {}
        if self.schema is not None and frame is not None:
            check_lengths({"frame": frame, **inputs})
            columns = raw_columns(self.schema, frame)
            inputs |= {self.served_names[name]: array for name, array in columns.items()}
        return self._ask(RAW_SIGNATURE, inputs)

    def predict_encoded(self, x: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Predicts rows from the arrays that the Keras model took; answers as `predict`.

        Raises:
            TypeError, ValueError: If an input does not fit, such as a code that no category has.
        """
        return self._ask(ENCODED_SIGNATURE, select_inputs(x, self.specs))

    def _ask(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        import tensorflow as tf

        rows = check_lengths(inputs)
        function = self._loaded.signatures[signature]
        answers = []
        for start in range(0, rows, _BATCH):
            batch = {k: tf.constant(v[start : start + _BATCH]) for k, v in inputs.items()}
            try:
                answers.append(function(**batch))
            except tf.errors.InvalidArgumentError as error:
                raise ValueError(f"The model refuses the inputs: {error.message}") from error
        names = [name for name in answers[0] if name != "class_names"]
        joined = {name: np.concatenate([a[name].numpy() for a in answers]) for name in names}
        if "class" in joined:
            joined["class"] = np.array([name.decode() for name in joined["class"]], dtype=object)
        return joined


def load_exported(path: str | os.PathLike) -> ExportedModel:
    """Loads a folder written by `export_saved_model`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is something else.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"There is no folder {path}.")
    description = path / DESCRIPTION_FILE
    if not (description.is_file() and (path / "saved_model.pb").is_file()):
        raise ValueError(
            f"{path} holds no model exported by kfusion (saved_model.pb and kfusion.json). A "
            "training folder is exported with `kfusion export`."
        )
    content = json.loads(description.read_text(encoding="utf-8"))
    if content["format"] != FORMAT:
        raise ValueError(
            f"{path} was exported by another version of kfusion (format {content['format']}, not "
            f"{FORMAT}): export the model again."
        )
    return ExportedModel(path, content)
