"""What trackers' own callbacks see of a training and a search, read back by their own readers."""

import importlib.util
import io
import json
import struct
import time
from functools import partial
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

import kfusion as kf

EXAMPLES = Path(__file__).parents[1] / "examples"
EPOCHS = 2
RANDOM = np.random.default_rng(0)
Y = np.arange(90) % 3
DATA = kf.FusionData(
    RANDOM.integers(255, size=(90, 8, 8, 3)).astype("uint8"),
    pd.DataFrame({"size": Y + RANDOM.normal(size=90)}),
    Y,
    "multiclass",
    class_names=("a", "b", "c"),
)
LOGGED = {"loss", "accuracy", "val_loss", "val_auc", "val_accuracy", "learning_rate"}


@pytest.fixture
def histories(monkeypatch):
    """The `History` of each `kf.fit` of an example, and of `keras.Model.fit`."""
    known = []
    fit = kf.fit

    def remembered(*arguments, **keywords):
        known.append(fit(*arguments, verbose=0, doctor=False, **keywords).history)

    monkeypatch.setattr(kf, "fit", remembered)
    return known


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    logs = tmp_path_factory.mktemp("tensorboard") / "logs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kf, "fit", partial(kf.fit, verbose=0, doctor=False))
        patch.setattr(kf, "search_fusion", partial(kf.search_fusion, verbose=0))
        example("with_tensorboard").run(DATA, logs, epochs=EPOCHS, trials=1)
    return logs


class TestTensorBoard:
    def test_scores_and_rates_arrive_by_epoch(self, logs):
        training, held = (read_events(logs / "fit" / part) for part in ("train", "validation"))
        names = {"epoch_loss", "epoch_accuracy", "epoch_learning_rate"}
        assert names <= set(training.Tags()["tensors"])
        for tags, run in ((names, training), ({"epoch_loss", "epoch_auc"}, held)):
            for tag in tags:
                assert [event.step for event in run.Tensors(tag)] == list(range(EPOCHS)), tag
        rates = [
            tensor_util.make_ndarray(e.tensor_proto)
            for e in training.Tensors("epoch_learning_rate")
        ]
        # The cosine ends at 0.
        assert rates[0] > rates[1] == 0

    def test_a_profile_is_written(self, logs):
        assert list((logs / "fit" / "train" / "plugins" / "profile").glob("*/*.xplane.pb"))

    def test_a_picture_for_each_epoch(self, logs):
        pictures = read_events(logs / "pictures").Tensors("confusion")
        assert [event.step for event in pictures] == list(range(EPOCHS))
        width, height, png = tensor_util.make_ndarray(pictures[0].tensor_proto)
        assert Image.open(io.BytesIO(png)).size == (int(width), int(height))

    def test_a_search_has_hyperparameters_beside_its_rates(self, logs):
        (folder,) = (logs / "search").glob("*/execution0")
        run = read_events(folder)
        assert "_hparams_/session_start_info" in run.PluginTagToContent("hparams")
        assert {"val_auc", "learning_rate"} <= set(run.Tags()["tensors"])


def read_events(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


# Of SQLAlchemy, whose older ways MLflow uses.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestMLflow:
    @pytest.fixture
    def client(self, tmp_path, monkeypatch):
        mlflow = pytest.importorskip("mlflow", reason="needs the extra trackers")
        monkeypatch.chdir(tmp_path)
        mlflow.set_tracking_uri("sqlite:///mlflow.db")
        return mlflow.MlflowClient()

    def test_scores_settings_and_the_exported_model_arrive(self, client, histories, monkeypatch):
        def export(model, path, **_):
            path.mkdir()
            (path / "saved_model.pb").touch()
            return path

        monkeypatch.setattr(kf, "export_saved_model", export)
        run = example("with_mlflow").run(DATA, "sqlite:///mlflow.db", epochs=EPOCHS)
        assert set(histories[0]) == LOGGED
        check_metrics(client, run, histories[0])
        params = client.get_run(run).data.params
        assert params["fusion"] == "multiply"
        assert "CosineDecay" in params["optimizer_learning_rate"]
        assert "saved_model/saved_model.pb" in [
            found.path for found in client.list_artifacts(run, "saved_model")
        ]

    def test_autologging_sees_the_same(self, client):
        import mlflow.keras

        experiment = mlflow.set_experiment("logged by itself").experiment_id
        mlflow.keras.autolog(log_models=False, log_datasets=False, silent=True)
        try:
            model = kf.build_unimodal_model(kf.tabular_branch(1, units=4), task=DATA.task)
            x = {"tabular": DATA.frame.to_numpy("float32")}
            history = kf.fit(
                model,
                x,
                Y,
                task=DATA.task,
                validation_data=(x, Y),
                epochs=EPOCHS,
                verbose=0,
                doctor=False,
            ).history
        finally:
            mlflow.keras.autolog(disable=True, silent=True)
        (run,) = client.search_runs([experiment])
        check_metrics(client, run.info.run_id, history)
        assert run.data.params["epochs"] == str(EPOCHS)


def check_metrics(client, run, history):
    for name, values in history.items():
        told = client.get_metric_history(run, name)
        assert [(each.step, each.value) for each in told] == list(enumerate(values)), name


class TestWeightsAndBiases:
    def test_scores_settings_and_a_picture_arrive(self, tmp_path, histories, monkeypatch):
        pytest.importorskip("wandb", reason="needs the extra trackers")
        monkeypatch.setenv("WANDB_SILENT", "true")
        example("with_wandb").run(DATA, str(tmp_path), epochs=EPOCHS)
        (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
        records = finished_records(path)
        *epochs, last = [
            {".".join(each.nested_key): json.loads(each.value_json) for each in record.history.item}
            for record in records
            if record.WhichOneof("record_type") == "history"
        ]
        assert [row["epoch/epoch"] for row in epochs] == list(range(EPOCHS))
        for name in LOGGED:
            told = [row[f"epoch/{name}"] for row in epochs]
            assert told == pytest.approx(histories[0][name]), name
        assert (path.parent / "files" / last["confusion.path"]).exists()


def finished_records(path):
    """All records of a run, which a process of W&B's own may still be writing."""
    for _ in range(60):
        records = list(read_wandb(path))
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        time.sleep(1)
    raise AssertionError(f"{path} has no end")


def read_wandb(path):
    """The records of an offline run: W&B keeps it as a LevelDB log, and has no reader in Python."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, part = struct.unpack_from("<IHB", content, at)
        if at + 7 + length > len(content):
            return
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        # Whole or the last part, of those that are first and in the middle.
        if part in (1, 4):
            yield Record.FromString(whole)
            whole = b""


class TestOptunaDashboard:
    def test_it_lists_the_study_of_a_folder(self, tmp_path):
        dashboard = pytest.importorskip("optuna_dashboard", reason="needs the extra search")

        def build(hp):
            model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3)])
            model.compile(keras.optimizers.SGD(hp.Float("rate", 0.01, 0.1)), "mse")
            return model

        tuner = kf.OptunaTuner(build, "val_loss", 1, directory=tmp_path, project_name="any")
        x, y = DATA.frame.to_numpy("float32"), np.eye(3)[Y]
        tuner.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
        served = dashboard.wsgi(f"sqlite:///{tmp_path / 'any' / 'study.db'}")
        studies = ask(served, "/api/studies")["study_summaries"]
        assert [study["study_name"] for study in studies] == ["kfusion"]
        assert studies[0]["directions"] == ["minimize"]
        trials = ask(served, f"/api/studies/{studies[0]['study_id']}")["trials"]
        assert trials[0]["values"] == [tuner.oracle.get_best_trials(1)[0].score]


def ask(application, path):
    statuses = []
    environ: dict = {}
    setup_testing_defaults(environ)
    environ["PATH_INFO"] = path
    body = b"".join(application(environ, lambda status, _, *__: statuses.append(status)))
    assert statuses[0].startswith("200"), (statuses, body)
    return json.loads(body)
