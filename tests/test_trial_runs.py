"""The runs of a trial: folds, seeds, what is kept of them and what TensorBoard reads."""

import importlib.util
import json
import os
import subprocess
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import GroupKFold
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from kfusion import OptunaTuner, analyse
from kfusion.search.confusion_counts import count_confusion
from kfusion.search.trial_callbacks import BestByObjective
from kfusion.search.trial_runs import best_epoch

pytestmark = pytest.mark.usefixtures("eagerly")

EXAMPLES = Path(__file__).parents[1] / "examples"
X = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")
GROUPS = np.repeat(np.arange(12), 5)


class Told(keras_tuner.HyperModel):
    """Trains nothing: tells a number of the rows that it is given."""

    def __init__(self, tell):
        super().__init__()
        self.tell = tell
        self.calls = []

    def build(self, hp):
        hp.Choice("a", [1, 2, 3])
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")])

    def fit(self, hp, model, x, y, validation_data=None, callbacks=(), **keywords):
        self.calls.append((hp.get("a"), x, y, validation_data))
        return {"score": self.tell(hp.get("a"), y, validation_data)}


def search(hypermodel, directory, *, max_trials=1, **keywords):
    names = ("pruner", "executions_per_trial", "sampler")
    own = {name: keywords.pop(name) for name in names if name in keywords}
    tuner = OptunaTuner(
        hypermodel,
        keras_tuner.Objective("score", "max"),
        max_trials,
        directory=directory,
        **own,
    )
    tuner.search(X, Y, verbose=0, **keywords)
    return tuner


class TestBestEpoch:
    OBJECTIVE = keras_tuner.Objective("val_auc", "max")

    @pytest.mark.parametrize(
        ("values", "losses", "expected"),
        [
            ([np.nan, 0.5, 0.9], [1.0, 1.0, 1.0], 2),
            ([0.9, 0.9, 0.8], [1.0, 0.5, 0.1], 1),
            ([0.9, 0.9], [0.5, 0.5], 0),
            ([np.nan, np.nan], [1.0, 1.0], 0),
        ],
        ids=["not a number first", "equal scores", "equal in all", "never a number"],
    )
    def test_the_weights_kept_are_of_the_epoch_that_is_told(self, values, losses, expected):
        keeper, history = BestByObjective(self.OBJECTIVE), keras.callbacks.History()
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        keeper.set_model(model)
        history.history = {"val_auc": values, "val_loss": losses}
        for epoch, (value, loss) in enumerate(zip(values, losses, strict=True)):
            model.set_weights([np.full((1, 1), float(epoch))])
            keeper.on_epoch_end(epoch, {"val_auc": value, "val_loss": loss})
        assert best_epoch(history, self.OBJECTIVE)[1] == expected
        assert keeper.weights[0].item() == expected


def mean_of_held(_, y, held):
    return float(np.mean(held[1]))


class TestFolds:
    def test_a_trial_counts_by_its_mean_over_folds_each_row_judging_once(self, tmp_path):
        hypermodel = Told(mean_of_held)
        tuner = search(hypermodel, tmp_path, cv=4)
        held = [call[3][0] for call in hypermodel.calls]
        assert len(held) == 4
        np.testing.assert_array_equal(np.sort(np.concatenate(held), axis=0), np.sort(X, axis=0))
        for _, x, y, (test, labels) in hypermodel.calls:
            assert len(x) + len(test) == 60
            assert not set(map(tuple, x)) & set(map(tuple, test))
            np.testing.assert_array_equal(y, x[:, 0] > 0)
            np.testing.assert_array_equal(labels, test[:, 0] > 0)
            # Classes keep their shares.
            assert abs(labels.mean() - Y.mean()) < 0.07
        (trial,) = tuner.oracle.get_best_trials(1)
        means = [call[3][1].mean() for call in hypermodel.calls]
        assert trial.score == pytest.approx(np.mean(means))
        assert trial.spread == pytest.approx(np.std(means, ddof=1))

    def test_groups_are_not_split(self, tmp_path):
        hypermodel = Told(mean_of_held)
        search(hypermodel, tmp_path, cv=3, groups=GROUPS.tolist())
        group_of = {tuple(row): group for row, group in zip(X, GROUPS, strict=True)}
        for _, x, _, (test, _) in hypermodel.calls:
            assert not {group_of[tuple(r)] for r in x} & {group_of[tuple(r)] for r in test}

    def test_other_folds_are_another_study(self, tmp_path):
        search(Told(mean_of_held), tmp_path, cv=3)
        for other in ({"cv": 4}, {"cv": GroupKFold(3), "groups": GROUPS}, {}):
            with pytest.raises(ValueError, match="holds another search: folds differ"):
                search(Told(mean_of_held), tmp_path, **other)

    def test_a_pruner_is_told_of_folds(self, tmp_path):
        values = {1: 0.9, 2: 0.1, 3: 0.8}
        rng = np.random.default_rng(1)
        hypermodel = Told(lambda a, *_: values[a] + 0.01 * rng.normal())
        tuner = search(hypermodel, tmp_path, max_trials=3, cv=10, pruner="wilcoxon", sampler="grid")
        runs = [sum(call[0] == a for call in hypermodel.calls) for a in (1, 2, 3)]
        assert runs[0] == 10
        assert runs[1] < 10
        trials = list(tuner.oracle.trials.values())
        assert not trials[0].is_pruned
        assert trials[1].is_pruned

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"cv": 3, "validation_data": (X, Y)}, "leave `validation_data` out"),
            ({"cv": 3, "validation_split": 0.2}, "leave `validation_split` out"),
            ({"cv": 61}, "61"),
            ({"groups": GROUPS, "validation_data": (X, Y)}, "in the folds of `cv`"),
            ({"cv": 3, "groups": GROUPS[:-1]}, "`groups` has 59 entries for 60 rows"),
        ],
    )
    def test_what_cannot_be_folded(self, keywords, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            search(Told(mean_of_held), tmp_path, **keywords)


class Fixed:
    """A model that answers what it was told, row by row."""

    def __init__(self, outputs):
        self.outputs = np.asarray(outputs, "float32")

    def predict_on_batch(self, x):
        return self.outputs[x[:, 0].astype(int)]


class TestConfusion:
    rows = np.arange(300)[:, None]
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    scores = rng.normal(size=(300, 3))

    @pytest.mark.parametrize("y", [labels, labels[:, None].astype(float), np.eye(3)[labels]])
    def test_several_classes(self, y):
        counts = count_confusion(Fixed(self.scores), (self.rows, y))
        np.testing.assert_array_equal(
            counts, confusion_matrix(self.labels, self.scores.argmax(axis=1))
        )

    def test_two_classes_by_probability_or_logit(self):
        y, logits = self.labels % 2, self.scores[:, :1]
        expected = confusion_matrix(y, logits[:, 0] > 0)
        for outputs in (logits, 1 / (1 + np.exp(-logits)), logits[:, 0]):
            np.testing.assert_array_equal(count_confusion(Fixed(outputs), (self.rows, y)), expected)

    def test_what_has_no_classes_is_not_counted(self):
        several = [self.labels, self.scores]
        assert count_confusion(Fixed(self.scores), (self.rows, several)) is None
        assert count_confusion(Fixed(self.scores[:, :1]), (self.rows, self.scores[:, 1])) is None
        assert count_confusion(Fixed(self.scores), (self.rows, self.labels + 1)) is None
        assert count_confusion(Fixed(self.scores), None) is None

    def test_it_is_kept_for_every_trial(self, tmp_path):
        tuner = OptunaTuner(build, "val_loss", 2, directory=tmp_path)
        tuner.search(X, Y, validation_data=(X, Y), epochs=1, verbose=0)
        for number, model in zip((0, 1), _models(tuner), strict=True):
            kept = tuner.oracle.folder.read_confusion(number)
            predicted = model.predict(X, verbose=0)[:, 0] > 0.5
            np.testing.assert_array_equal(kept, confusion_matrix(Y, predicted))
        best = int(tuner.oracle.get_best_trials(1)[0].trial_id)
        study = analyse(tuner)
        np.testing.assert_array_equal(study.confusion, tuner.oracle.folder.read_confusion(best))
        figure = study.plots(class_names=["below", "above"])["confusion"]
        labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
        assert labels == ["below", "above"]


def build(hp):
    model = keras.Sequential([keras.Input((3,))])
    model.add(
        keras.layers.Dense(hp.Int("units", 2, 9), activation=hp.Choice("f", ["relu", "tanh"]))
    )
    model.add(keras.layers.Dense(1, activation="sigmoid"))
    rate = hp.Float("rate", 1e-3, 1e-1, sampling="log")
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy")
    return model


def _models(tuner):
    return [tuner.load_model(trial) for trial in tuner.oracle.trials.values()]


class TestTensorBoard:
    def test_hyperparameters_and_curves_of_every_run(self, tmp_path):
        logs = tmp_path / "logs"
        tuner = OptunaTuner(
            build, "val_loss", 2, executions_per_trial=2, directory=tmp_path, log_dir=logs
        )
        tuner.search(X, Y, validation_data=(X, Y), epochs=3, verbose=0)
        events = EventMultiplexer().AddRunsFromDirectory(str(logs))
        events.Reload()
        assert len(events.Runs()) == 4
        for number, trial in enumerate(tuner.oracle.trials.values()):
            for execution, history in enumerate(tuner.oracle.folder.read_history(number)):
                run = events.GetAccumulator(f"{trial.trial_id}/execution{execution}")
                start = HParamsPluginData.FromString(
                    run.PluginTagToContent("hparams")["_hparams_/session_start_info"]
                ).session_start_info
                assert start.group_name == trial.trial_id
                values = trial.hyperparameters.values
                assert start.hparams["units"].number_value == values["units"]
                assert start.hparams["rate"].number_value == values["rate"]
                assert start.hparams["f"].string_value == values["f"]
                curve = [event.tensor_proto.float_val[0] for event in run.Tensors("val_loss")]
                assert curve == pytest.approx(history["val_loss"])

    def test_the_folder_of_keras_own_callback_is_split_by_trial(self, tmp_path):
        if keras.backend.backend() == "torch":
            pytest.skip("Keras' callback needs tensorflow or jax.")
        logs = tmp_path / "logs"
        tuner = OptunaTuner(build, "val_loss", 2, directory=tmp_path)
        callbacks = [keras.callbacks.TensorBoard(logs)]
        tuner.search(X, Y, validation_data=(X, Y), epochs=1, verbose=0, callbacks=callbacks)
        for trial_id in tuner.oracle.trials:
            folder = logs / trial_id / "execution0"
            assert list((folder / "validation").glob("events*"))
            assert list(folder.glob("events*"))


class TestStorage:
    def test_a_database_elsewhere_holds_a_study_for_each_folder(self, tmp_path):
        keywords = {
            "hypermodel": Told(mean_of_held),
            "objective": keras_tuner.Objective("score", "max"),
            "project_name": "study",
            "storage": f"sqlite:///{tmp_path / 'elsewhere.db'}",
        }
        for max_trials, name in ((1, "one"), (3, "one"), (2, "other")):
            tuner = OptunaTuner(**keywords, max_trials=max_trials, directory=tmp_path / name)
            tuner.search(X, Y, validation_data=(X, Y), verbose=0)
            assert len(tuner.oracle.trials) == max_trials
        assert not (tmp_path / "one" / "study" / "study.db").exists()

    @pytest.mark.usefixtures("ray_cluster")
    def test_workers_on_a_ray_cluster_as_the_example_has_them(self, tmp_path):
        objective = keras_tuner.Objective("score", "max")
        tuner = OptunaTuner(Told(mean_of_held), objective, 3, directory=tmp_path)
        path = EXAMPLES / "search_on_ray.py"
        spec = importlib.util.spec_from_file_location(path.stem, path)
        example = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(example)
        example.search_on_cluster(tuner, X, Y, workers=2, validation_data=(X, Y), verbose=0)
        assert [trial.status for trial in tuner.oracle.trials.values()] == ["COMPLETED"] * 3

    @pytest.mark.slow
    def test_two_tasks_of_the_slurm_array_share_one_study(self, tmp_path):
        command = ["bash", "examples/search_on_slurm.sh", "--trials", "3", "--epochs", "1"]
        settings = {**os.environ, "STUDY": str(tmp_path), "PYTHONPATH": str(EXAMPLES.parent)}
        tasks = [
            subprocess.Popen(
                command,
                cwd=EXAMPLES.parent,
                env={**settings, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_CPUS_PER_TASK": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for task in range(2)
        ]
        told = [task.communicate() for task in tasks]
        assert [task.returncode for task in tasks] == [0, 0], told
        lines = [json.loads(out) for out, _ in told]
        assert [line["worker"] for line in lines] == ["0", "1"]
        # Whoever ended last saw all of them end, none of them twice.
        assert max(line["finished"] for line in lines) == 3
        histories = list((tmp_path / "search").glob("trial_*/history*"))
        assert len(histories) == 3

    def test_the_slurm_script_asks_for_a_folder_that_is_shared(self):
        script = EXAMPLES / "search_on_slurm.sh"
        settings = {name: value for name, value in os.environ.items() if name != "STUDY"}
        done = subprocess.run(
            ["bash", script], capture_output=True, text=True, env=settings, check=False
        )
        assert done.returncode
        assert "set STUDY to a folder that all nodes see" in done.stderr
        lines = script.read_text("utf-8").splitlines()
        # After the first command SLURM reads no more of its own.
        first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
        assert all(not line.startswith("#SBATCH") for line in lines[first:])
        assert "#SBATCH --array=0-3" in lines[:first]
