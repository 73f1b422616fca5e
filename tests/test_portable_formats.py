"""ONNX and LiteRT files answer as the SavedModel, on any rows, from numbers alone."""

import importlib
import json

import keras
import numpy as np
import pandas as pd
import pytest

from kfusion import (
    TableSchema,
    build_fusion_model,
    export_litert,
    export_onnx,
    export_saved_model,
    image_branch,
    load_exported,
    tabular_branch,
    task,
)
from kfusion.exports import export as export_module
from kfusion.exports import portable_formats

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="SavedModels come from the tensorflow backend"
)
PACKAGES = {export_onnx: ("tf2onnx", "onnxruntime"), export_litert: ("ai_edge_litert",)}
FRAME = pd.DataFrame(
    {
        "price": [1.5, None, 3.25, 1000.0, 2.5, 7.0],
        "when": ["2020-02-29", "1969-12-31", None, "2024-06-01", "1999-01-01", "2000-01-01"],
        "place": ["Ghent", "Lodz", "Ghent", None, "Lodz", "Ghent"],
    }
)
SHAPE = (8, 8, 3)


@pytest.fixture(scope="module")
def schema():
    return TableSchema.fit(FRAME)


@pytest.fixture(scope="module")
def folder(schema, tmp_path_factory):
    keras.utils.set_random_seed(0)
    branches = {"image": image_branch(SHAPE, units=4), "tabular": tabular_branch(schema, units=4)}
    names = ["a", "b", "c"]
    model = build_fusion_model(
        branches,
        task=task("multiclass", class_names=names),
        head_units=4,
        dropout=0.5,
        modality_dropout=0.3,
        auxiliary_heads=True,
    )
    path = tmp_path_factory.mktemp("portable") / "model"
    with pytest.MonkeyPatch.context() as patch:
        # Its own check, in a process of its own, is tested elsewhere.
        patch.setattr(export_module, "_check_served", lambda *_: None)
        return export_saved_model(model, path, schema=schema, class_names=names)


def skip_without(export):
    for package in PACKAGES[export]:
        pytest.importorskip(package, reason=f"needs the extra of {export.__name__}")


def ask(path, x):
    """Asks a file as a program would that knows neither Keras nor kfusion."""
    if path.suffix == ".onnx":
        session = importlib.import_module("onnxruntime").InferenceSession(str(path))
        return session.run(["probabilities"], x)[0]
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter(str(path))
    return interpreter.get_signature_runner("serving_default")(**x)["probabilities"]


def test_the_saved_model_holds_nothing_of_training(folder):
    graph = tf.saved_model.load(str(folder)).signatures["encoded"].graph.as_graph_def()
    nodes = [node for function in graph.library.function for node in function.node_def]
    kinds = {node.op for node in nodes}
    assert {"MatMul", "Conv2D", "Const"} <= kinds
    assert not [kind for kind in kinds if "Random" in kind or kind in ("Rsqrt", "ReadVariableOp")]
    names = [node.name for node in nodes]
    assert not [name for name in names if "dropout" in name or "image_prediction" in name]


@pytest.mark.parametrize("export", [export_onnx, export_litert])
class TestFiles:
    def test_answer_as_the_saved_model_does(self, export, folder, schema, tmp_path):
        skip_without(export)
        path = tmp_path / f"model.{export.__name__[7:]}"
        assert export(folder, path) == path
        images = np.random.default_rng(1).integers(256, size=(6, *SHAPE), dtype="uint8")
        images[2] = 0
        x = {"image": images, "tabular": schema.encode(FRAME)}
        exported = load_exported(folder)
        expected = exported.predict_encoded(x)["probabilities"]
        np.testing.assert_allclose(ask(path, x), expected, atol=1e-5)
        one = {name: array[2:3] for name, array in x.items()}
        np.testing.assert_allclose(ask(path, one), expected[2:3], atol=1e-5)
        told = json.loads((tmp_path / f"{path.name}.json").read_text())
        assert [column["name"] for column in told["columns"]] == ["price", "when", "place"]
        codes = told["columns"][2]
        assert codes["codes"] == {"Ghent": 2, "Lodz": 3}
        assert (codes["missing"], codes["unseen"]) == (0, 1)
        assert x["tabular"][:, 2].tolist() == [2, 3, 2, 0, 3, 2]
        assert told["inputs"]["image"] == {"dtype": "uint8", "shape": [None, *SHAPE]}
        assert told["class_names"] == ["a", "b", "c"]
        with pytest.raises(FileExistsError, match="pass `overwrite=True`"):
            export(folder, path)

    def test_a_description_that_is_there_already_is_not_lost(
        self, export, folder, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(portable_formats, "check_packages", lambda kind: None)
        described = tmp_path / "model.json"
        described.write_text("mine")
        with pytest.raises(FileExistsError, match=r"model.json exists. .* pass `overwrite=True`"):
            export(folder, tmp_path / "model")
        assert [path.name for path in tmp_path.iterdir()] == ["model.json"]
        assert described.read_text() == "mine"

    def test_a_file_that_answers_otherwise_is_not_left(self, export, folder, tmp_path, monkeypatch):
        skip_without(export)
        monkeypatch.setattr(portable_formats, "_MOST_DIFFERENCE", -1.0)
        with pytest.raises(RuntimeError, match=r"in 65 of 65 invented rows, such as \[0, 1"):
            export(folder, tmp_path / "model")
        assert not list(tmp_path.iterdir())

    def test_a_package_that_is_not_there_is_named(self, export, folder, tmp_path, monkeypatch):
        def absent(name):
            raise ImportError(name)

        monkeypatch.setattr(portable_formats.importlib, "import_module", absent)
        with pytest.raises(ImportError, match=rf"pip install 'kfusion\[{export.__name__[7:]}\]'"):
            export(folder, tmp_path / "model")
        assert not list(tmp_path.iterdir())
