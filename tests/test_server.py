"""The server: the SavedModel's own answers, TensorFlow Serving's formats, 4xx for what is wrong."""

import base64
import copy
import dataclasses
import io
import itertools
import json
import re
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import ClassVar

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

pytest.importorskip("fastapi")
import hypothesis
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck
from schemathesis.specs.openapi import checks as openapi_checks

from kfusion import (
    TableSchema,
    build_fusion_model,
    export_saved_model,
    image_branch,
    load_exported,
    tabular_branch,
    task,
)
from kfusion.cli import main
from kfusion.data.inputs import InputSpec
from kfusion.server.app import build_app
from kfusion.server.reading import Limits, RequestReader

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="SavedModels come from the tensorflow backend"
)

SHAPE = (6, 5, 3)
CLASSES = ("no", "perhaps", "yes")
FRAME = pd.DataFrame(
    {
        "price in €": [1.5, None, 3.25, 1000.0],
        "2nd": [True, False, None, True],
        "when": ["2020-02-29", "1969-12-31T23:59:59.5", None, "2024-06-01 12:30"],
        "place": ["Ghent", "Łódź", None, " Ghent "],
        "floor": pd.Categorical([1, 2, None, -1]),
    }
)
IMAGES = np.random.default_rng(0).integers(256, size=(4, *SHAPE), dtype=np.uint8)
CHECKS = [
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.unsupported_method,
]
PREDICT = "/v1/models/kfusion:predict"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An exported model that knows rows without an image; its weights make rows differ."""
    schema = TableSchema.fit(FRAME)
    keras.utils.set_random_seed(0)
    branches = {"image": image_branch(SHAPE, units=4), "tabular": tabular_branch(schema, units=4)}
    model = build_fusion_model(
        branches,
        task=task("multiclass", class_names=CLASSES),
        head_units=4,
        modality_dropout=0.2,
    )
    generator = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight + generator.normal(scale=0.3, size=weight.shape))
    path = tmp_path_factory.mktemp("exported") / "model"
    export_saved_model(
        model, path, schema=schema, class_names=CLASSES, image_columns={"image": "photo"}
    )
    return path


@pytest.fixture(scope="module")
def exported(folder):
    return load_exported(folder)


@pytest.fixture(scope="module")
def client(exported):
    return TestClient(build_app(exported, limits=Limits(2**20, 50, 10_000)))


@pytest.fixture(scope="module")
def expected(exported):
    answers = exported.predict(FRAME, IMAGES)
    assert np.ptp(answers["probabilities"], axis=0).max() > 0.01
    return answers


def rows_of(frame, images):
    """Rows as a client would write them: null where a value is missing."""
    instances = json.loads(frame.to_json(orient="records"))
    for instance, image in zip(instances, images, strict=True):
        instance["photo"] = image
    return instances


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def in_base64(content):
    return {"b64": base64.b64encode(content).decode()}


def assert_refused(response, *words, status=400):
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    for word in words:
        assert word in response.json()["error"]


class TestAnswers:
    def test_rows_are_answered_as_by_the_saved_model_to_the_bit(self, client, expected):
        instances = rows_of(FRAME, IMAGES.tolist())
        response = client.post(PREDICT, json={"instances": instances})
        answers = response.json()["predictions"]
        probabilities = np.array([answer["probabilities"] for answer in answers], np.float32)
        np.testing.assert_array_equal(probabilities, expected["probabilities"])
        assert [answer["class"] for answer in answers] == expected["class"].tolist()
        assert answers[0]["class_names"] == list(CLASSES)

    def test_columns_under_their_served_names(self, client, exported, expected):
        columns = json.loads(FRAME.to_json(orient="split"))
        inputs = {
            exported.served_names[name]: [row[i] for row in columns["data"]]
            for i, name in enumerate(columns["columns"])
        }
        inputs["image"] = IMAGES.tolist()
        request = {"inputs": inputs, "signature_name": "serving_default"}
        outputs = client.post(PREDICT, json=request).json()["outputs"]
        probabilities = np.array(outputs["probabilities"], np.float32)
        np.testing.assert_array_equal(probabilities, expected["probabilities"])
        assert outputs["class"] == expected["class"].tolist()
        assert outputs["class_names"] == [list(CLASSES)] * 4

    def test_encoded_inputs(self, client, exported):
        x = {"image": IMAGES, "tabular": exported.schema.encode(FRAME)}
        inputs = {name: array.astype(object) for name, array in x.items()}
        inputs["tabular"][np.isnan(x["tabular"])] = None
        request = {
            "signature_name": "encoded",
            "inputs": {name: array.tolist() for name, array in inputs.items()},
        }
        outputs = client.post(PREDICT, json=request).json()["outputs"]
        np.testing.assert_array_equal(
            np.array(outputs["probabilities"], np.float32),
            exported.predict_encoded(x)["probabilities"],
        )

    def test_files_in_base64_and_in_forms_and_texts_that_spell_numbers(self, client, expected):
        """JSON's `{"b64": ...}` for an image and a text; a form, all of whose values are texts."""
        instance = rows_of(FRAME[:1], [in_base64(png(IMAGES[0]))])[0]
        instance["place"] = in_base64(b"Ghent")
        by_json = client.post(PREDICT, json={"instances": [instance]}).json()
        form = {"price in €": "1.5", "column_2nd": "true", "when": "2020-02-29", "floor": "1"}
        by_form = client.post(
            PREDICT, data={**form, "place": "Ghent"}, files={"photo": png(IMAGES[0])}
        ).json()
        assert by_form == by_json
        probabilities = np.array(by_form["predictions"][0]["probabilities"], np.float32)
        np.testing.assert_allclose(probabilities, expected["probabilities"][0], atol=1e-6)

    def test_names_of_a_form_are_read_as_browsers_write_them(self, exported):
        """The HTML standard writes a quote as %22 and the end of a line as %0D%0A, % as it is."""
        quoted = copy.copy(exported)
        names = {"price in €": 'price "€"\nin all', "2nd": "%22", "place": '"'}
        quoted.schema = dataclasses.replace(
            exported.schema,
            columns=tuple(
                dataclasses.replace(column, name=names.get(column.name, column.name))
                for column in exported.schema.columns
            ),
        )
        served = {names.get(name, name): served for name, served in exported.served_names.items()}
        quoted.served_names = served
        reader = RequestReader(quoted, Limits())
        for line in ("%0D%0A", "%0A", "\r\n"):
            written = [(f"price %22€%22{line}in all", "1.5"), ("%22", "true"), ("photo", b"")]
            (row,) = reader.read_form(written).frame.to_dict("records")
            assert row['price "€"\nin all'] == "1.5"
        # What is the very name of a column is that column.
        assert (row["%22"], row['"']) == ("true", None)
        (row,) = reader.read_form([('"', "Ghent"), ("photo", b"")]).frame.to_dict("records")
        assert row['"'] == "Ghent"

    def test_files_are_resized_as_the_loader_does(self, client, exported, tmp_path):
        from kfusion import read_images

        content = png(np.random.default_rng(1).integers(256, size=(31, 17), dtype=np.uint8))
        (tmp_path / "large.png").write_bytes(content)
        images, _ = read_images([tmp_path / "large.png"], SHAPE, verbose=0)
        instances = rows_of(FRAME[:1], [in_base64(content)])
        answer = client.post(PREDICT, json={"instances": instances}).json()["predictions"][0]
        np.testing.assert_array_equal(
            np.array(answer["probabilities"], np.float32),
            exported.predict(FRAME[:1], images)["probabilities"][0],
        )

    def test_what_is_left_out_is_missing(self, client, exported):
        frame = FRAME[1:2].assign(place=None, when=None)
        expected = exported.predict(frame, np.zeros((1, *SHAPE), np.uint8))["probabilities"]
        text = '{"instances": [{"2nd": false, "floor": 2, "price in €": NaN}]}'
        for answer in (
            client.post(PREDICT, content=text),
            client.post(PREDICT, data={"2nd": "0", "floor": "2"}, files={"photo": b""}),
            client.post(PREDICT, json={"instances": [{"2nd": 0, "floor": 2.0, "image": None}]}),
        ):
            found = np.array(answer.json()["predictions"][0]["probabilities"], np.float32)
            np.testing.assert_array_equal(found, expected[0])

    def test_what_curl_sends_without_a_type(self, client):
        """TensorFlow Serving's own examples are `curl -d`, which says that it is a form."""
        headers = {"content-type": "application/x-www-form-urlencoded"}
        response = client.post(PREDICT, content='{"instances": [{}]}', headers=headers)
        assert response.status_code == 200


class TestAbout:
    def test_status_and_health(self, client):
        assert client.get("/healthz").json() == {"status": "ok"}
        (version,) = client.get("/v1/models/kfusion").json()["model_version_status"]
        assert version["state"] == "AVAILABLE"

    def test_metadata_are_those_of_the_saved_models_own_file(self, client, folder):
        from tensorflow.core.framework import types_pb2
        from tensorflow.core.protobuf import saved_model_pb2

        stored = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        told = client.get("/v1/models/kfusion/metadata").json()["metadata"]["signature_def"]
        for name in ("serving_default", "encoded"):
            expected = stored.meta_graphs[0].signature_def[name]
            found = told["signature_def"][name]
            assert found["method_name"] == expected.method_name
            for part in ("inputs", "outputs"):
                assert set(found[part]) == set(getattr(expected, part))
                for key, tensor in getattr(expected, part).items():
                    dims = [str(dim.size) for dim in tensor.tensor_shape.dim]
                    assert found[part][key]["dtype"] == types_pb2.DataType.Name(tensor.dtype)
                    assert [dim["size"] for dim in found[part][key]["tensor_shape"]["dim"]] == dims
            for key, tensor in expected.inputs.items():
                assert found["inputs"][key]["name"] == tensor.name

    def test_the_model_cards_example_is_answered(self, client, exported, folder):
        card = (folder / "README.md").read_text(encoding="utf-8")
        (example,) = re.findall(r"```json\n(.*?)```", card, re.DOTALL)
        assert card.count("```") == 2
        answer = client.post(PREDICT, content=example.encode()).json()["predictions"][0]
        # The median of each number; each floor occurs once, and "-1" is the first of such texts.
        usual = FRAME[:1].assign(**{"price in €": 3.25, "floor": -1})
        grey = np.full((1, *SHAPE), 128, np.uint8)
        np.testing.assert_array_equal(
            np.array(answer["probabilities"], np.float32),
            exported.predict(usual, grey)["probabilities"][0],
        )

    def test_signatures_are_those_of_the_saved_model(self, exported, folder):
        told = json.loads((folder / "signature.json").read_text(encoding="utf-8"))
        for name, signature in told.items():
            function = exported._loaded.signatures[name]
            for part, tensors in (
                ("inputs", function.structured_input_signature[1]),
                ("outputs", function.structured_outputs),
            ):
                tensors_told = {
                    key: {"dtype": tensor["dtype"], "shape": tensor["shape"]}
                    for key, tensor in signature[part].items()
                }
                assert tensors_told == {
                    key: {"dtype": tensor.dtype.name, "shape": tensor.shape.as_list()}
                    for key, tensor in tensors.items()
                }

    def test_a_page_that_would_load_scripts_from_elsewhere_is_not_there(self, client):
        assert client.get("/openapi.json").json()["openapi"].startswith("3.")
        for path in ("/docs", "/redoc", "/v1/models/other"):
            assert_refused(client.get(path), "Not Found", status=404)
        assert_refused(client.get(PREDICT), "Not Allowed", status=405)


def of(**values):
    return {"instances": [{}, {}, values]}


WRONG_VALUES = [
    (of(place=[1]), "instances[2]: column 'place' must hold text", "[1]"),
    (of(place={"b64": "a"}), "instances[2]: column 'place' is no base64", "'a'"),
    (of(place=in_base64(b"\xff")), "instances[2]: column 'place'", "no UTF-8"),
    (of(place="\ud800"), "instances[2]: column 'place' must hold text", "\\ud800"),
    (of(place={"b65": "YQ=="}), "column 'place' must hold text", "b65"),
    (of(**{"price in €": "dear"}), "instances[2]: column 'price in €' must hold finite", "'dear'"),
    (of(**{"price in €": 10**400}), "instances[2]: column 'price in €'", "finite numbers"),
    (of(**{"price in €": 1e300}), "instances[2]: column 'price in €' must hold", "d: 1e+300."),
    (of(**{"price in €": {}}), "instances[2]: column 'price in €' must hold finite", "{}"),
    (of(column_2nd=2), "instances[2]: column '2nd' must hold true, false, 1 or 0", "Received: 2"),
    (of(when="31.12.2020"), "instances[2]: column 'when' must hold ISO 8601", "'31.12.2020'"),
    (of(when="2020-02-30"), "instances[2]: column 'when' must hold ISO 8601", "'2020-02-30'"),
    (of(when=3), "instances[2]: column 'when' must hold ISO 8601", "Received: 3"),
    (of(floor=[[[[]]]]), "instances[2]: column 'floor' must hold", "[[...]]"),
    (of(flor=1), "instances[2]: the model has no input or column 'flor'"),
    (of(**{"2nd": 1, "column_2nd": 1}), "instances[2]: 'column_2nd' is given twice"),
    (of(image=[[1, 2], [3]]), "instances[2]: input 'image' must be a nested list", "unequal"),
    (of(image=[[1, 2]]), "input 'image' must have shape (6, 5, 3). Received: (1, 2)"),
    (of(image=IMAGES[0].astype(float).tolist()), "input 'image' must hold whole numbers"),
    (of(image=(IMAGES[0].astype(int) - 255).tolist()), "values that fit uint8. Received: -"),
    (of(image=(IMAGES[0].astype(int) + 300).tolist()), "values that fit uint8. Received: "),
    (of(image=np.full(SHAPE, None).tolist()), "input 'image' must hold whole numbers"),
    (of(image="a.png"), "input 'image' must have shape"),
    (of(image={"b64": "a.png"}), "instances[2]: input 'image' is no base64"),
    (of(image={"b64": 7}), "instances[2]: input 'image' is no base64"),
    (of(image={"b64": "é"}), "instances[2]: input 'image' is no base64"),
    (of(image=in_base64(png(IMAGES[0])[:-30])), "input 'image' cannot be read: the file is trunc"),
    (of(image=in_base64(b"%!PS-Adobe-3.0 EPSF-3.0")), "not an image of a known kind"),
    (of(image=in_base64(b"\x93NUMPY\x01\x00v\x00{")), "input 'image' cannot be read"),
    (of(image=in_base64(png(np.zeros((101, 100), "u1")))), "100 x 101 pixels, more than 10,000"),
    ({"instances": [[1]]}, "instances[0] must be an object of values by name", "[1]"),
    ({"instances": [None]}, "instances[0] must be an object"),
    ({"instances": []}, "`instances` has no rows"),
    ({"instances": {}}, "`instances` must be a list"),
    ({"instances": -1}, "`instances` must be a list. Received: -1"),
    ({"inputs": {}}, "`inputs` has no rows"),
    ({"inputs": [1]}, "`inputs` must be an object"),
    ({"inputs": {"place": "Ghent"}}, "`inputs`: 'place' must be a list"),
    ({"inputs": {"place": ["a"], "floor": [1, 2]}}, "equal lengths", "'floor': 2"),
    ({"inputs": {"place": ["a"], "floor": [[]]}}, "inputs, row 0: column 'floor'"),
    ({"inputs": {"place": ["a"], "floor": ["inf"]}}, "inputs, row 0: column 'floor'", "'inf'"),
    ({"inputs": {}, "instances": []}, "one of them"),
    ({}, "one of them"),
    ([], "The request must be an object"),
    (None, "The request must be an object"),
    ({"instances": [{}], "signature": "x"}, "unknown keys: ['signature']"),
    ({"instances": [{}], "signature_name": "x"}, "`signature_name` must be one of", "'x'"),
    ({"instances": [{}], "signature_name": [1]}, "`signature_name` must be one of"),
    (
        {"instances": [{}], "signature_name": "encoded"},
        "input 'tabular' is missing; rows may lack 'image'",
    ),
]


class TestWhateverIsWrong:
    def test_values_are_named(self, client):
        for given, *words in WRONG_VALUES:
            assert_refused(client.post(PREDICT, content=json.dumps(given)), *words)

    def test_what_is_no_json(self, client):
        for content in (
            b"",
            b"{",
            b'{"instances": [{}]',
            b"\xff\xfe\x00",
            b'{"instances": [{}]} more',
            b"[" * 100_000,
            b'{"instances": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
            b'{"instances": [' + b"9" * 5000 + b"]}",
            b'{"instances": [{"image": ' + b"[" * 500 + b"1" + b"]" * 500 + b"}]}",
            png(IMAGES[0]),
        ):
            assert_refused(client.post(PREDICT, content=content))

    def test_broken_forms(self, client):
        types = ["", "; boundary=", "; boundary=x", "; boundary=x; charset=none-such"]
        contents = [
            b"--x\r\nno header\r\n\r\nno end",
            b'--x\r\nContent-Disposition: form-data; name="place\r\n\r\n\xff\r\n--x--',
            b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n",
            b"--y--",
        ]
        for kind, content in itertools.product(types, contents):
            headers = {"content-type": f"multipart/form-data{kind}"}
            assert_refused(client.post(PREDICT, content=content, headers=headers))

    def test_fields_of_a_form(self, client):
        for data, files, words in (
            ({"place": "a", "plaice": "b"}, {}, "no input or column 'plaice'"),
            ({"photo": "a.png"}, {}, "input 'image' must be a file"),
            ({"floor": "x", "2nd": "perhaps"}, {}, "The form: column '2nd' must hold true"),
            ({}, {"place": b"Ghent"}, "column 'place' must be text"),
            ({}, {"photo": b"GIF89a"}, "The form: input 'image' cannot be read"),
            ({}, [("photo", b"1"), ("image", b"2")], "'image' is given twice"),
        ):
            response = client.post(PREDICT, data=data, files=files or {"photo": b""})
            assert_refused(response, words)

    def test_too_much_at_once(self, client):
        assert_refused(
            client.post(PREDICT, json={"instances": [{}] * 51}), "51 rows; 50 at a time", status=413
        )
        large = b" " * (2**20 + 1)
        words = "longer than 1,048,576 bytes"
        assert_refused(client.post(PREDICT, content=large), words, status=413)
        # A body whose length is not announced.
        assert_refused(client.post(PREDICT, content=iter([large[:9], large])), words, status=413)
        for announced in ("-1", "many", "9" * 5000):
            response = client.post(PREDICT, content=b"{", headers={"content-length": announced})
            assert response.status_code in (400, 413)

    def test_a_missing_image_where_the_model_knows_none(self, exported):
        strict = copy.copy(exported)
        strict.may_be_missing = ()
        client = TestClient(build_app(strict))
        for response in (
            client.post(PREDICT, json={"instances": [{"place": "Ghent"}]}),
            client.post(PREDICT, data={"place": "Ghent"}, files={"photo": b""}),
        ):
            assert_refused(response, "input 'image' is missing; rows may lack no input")

    def test_codes_that_no_category_has(self, client):
        tabular = {"tabular": [0, 0, 0, 1e9, -5], "image": IMAGES[0].tolist()}
        request = {"signature_name": "encoded", "instances": [tabular]}
        response = client.post(PREDICT, json=request)
        assert response.status_code in (200, 400)

    def test_requests_made_from_the_description(self, exported):
        """Schemathesis draws requests that the description allows, and others."""
        app = build_app(exported)
        schema = schemathesis.openapi.from_asgi("/openapi.json", app)
        for result in schema.get_all_operations():
            operation = result.ok()
            modes = list(schemathesis.GenerationMode)
            for mode in modes if operation.body else modes[:1]:

                @hypothesis.settings(
                    max_examples=15,
                    database=None,
                    deadline=None,
                    derandomize=True,
                    suppress_health_check=list(HealthCheck),
                )
                @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
                def check(case):
                    response = case.call()
                    assert response.status_code < 500
                    case.validate_response(response, checks=CHECKS)

                check()


class SumOfTwo:
    """Stands for an exported regression of one input; waits until it may answer."""

    specs: ClassVar = {"pair": InputSpec((2,), "float32")}
    signatures: ClassVar = {}
    schema, may_be_missing, class_names = None, (), ()
    image_columns = image_shapes = MappingProxyType({})

    def __init__(self):
        self.is_asked, self.may_answer = threading.Event(), threading.Event()

    def predict_encoded(self, x):
        self.is_asked.set()
        assert self.may_answer.wait(30)
        with np.errstate(over="ignore"):
            return {"prediction": x["pair"].sum(axis=1)}


class TestOneInputAndOneOutput:
    def test_values_stand_without_their_names(self):
        model = SumOfTwo()
        model.may_answer.set()
        client = TestClient(build_app(model))
        pairs = [[1, 2], [0.5, -2], [3e38, 3e38]]
        by_row, by_column = {"predictions": [3.0, -1.5, None]}, {"outputs": [3.0, -1.5, None]}
        named = [{"pair": pair} for pair in pairs]
        assert client.post(PREDICT, json={"instances": pairs}).json() == by_row
        assert client.post(PREDICT, json={"instances": named}).json() == by_row
        assert client.post(PREDICT, json={"inputs": pairs}).json() == by_column
        assert client.post(PREDICT, json={"inputs": {"pair": pairs}}).json() == by_column
        for pair, words in (
            ([1, "2"], "instances[0]: input 'pair' must hold numbers"),
            ([1, 1e39], "must hold values that fit float32. Received: 1e+39"),
            ({"b64": ""}, "input 'pair' is no image"),
        ):
            assert_refused(client.post(PREDICT, json={"instances": [pair]}), words)

    def test_others_are_answered_while_a_model_is_at_work(self):
        model = SumOfTwo()
        with TestClient(build_app(model)) as client, ThreadPoolExecutor(1) as pool:
            slow = pool.submit(client.post, PREDICT, json={"instances": [[1, 2]]})
            assert model.is_asked.wait(30)
            assert client.get("/healthz").status_code == 200
            assert not slow.done()
            model.may_answer.set()
            assert slow.result().json() == {"predictions": [3.0]}


@pytest.fixture
def no_logging(monkeypatch):
    """Setting logging up closes absl's handler, and with it what pytest reads from stderr."""
    monkeypatch.setattr("uvicorn.Config.configure_logging", lambda config: None)


@pytest.mark.usefixtures("no_logging")
class TestCommand:
    def test_it_listens_on_this_machine_alone_until_it_is_interrupted(
        self, folder, monkeypatch, capsys
    ):
        def answer_until_interrupted(server, sockets):
            (listening,) = sockets
            host, port = listening.getsockname()
            assert (host, server.config.port) == ("127.0.0.1", port)
            assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert TestClient(server.config.app).get("/healthz").status_code == 200
            limited = TestClient(server.config.app).post(PREDICT, json={"instances": [{}] * 3})
            assert_refused(limited, "2 at a time", status=413)
            raise KeyboardInterrupt

        monkeypatch.setattr("uvicorn.Server.run", answer_until_interrupted)
        assert main(["serve", str(folder), "--port", "0", "--max-rows", "2"]) == 0
        assert json.loads(capsys.readouterr().out)["model"] == str(folder)

    def test_mistakes(self, folder, tmp_path, capsys, monkeypatch):
        assert main(["serve", str(tmp_path)]) == 2
        assert "holds no model exported by kfusion" in capsys.readouterr().err
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            assert main(["serve", str(folder), "--port", port]) == 2
        assert "in use" in capsys.readouterr().err
        with pytest.raises(SystemExit, match="2"):
            main(["serve", str(folder), "--port", "70000"])
        monkeypatch.setitem(sys.modules, "uvicorn", None)
        assert main(["serve", str(folder)]) == 2
        assert "pip install 'kfusion[serve]'" in capsys.readouterr().err
