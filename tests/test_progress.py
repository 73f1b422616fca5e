"""Progress: a bar on a terminal, lines in a file, one for work within work, silence if asked."""

import io
import time
import types
from functools import partial

import keras
import keras_tuner
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import kfusion as kf
from kfusion import progress as shown
from kfusion.progress import progress
from kfusion.search import trial_bar

RANDOM = np.random.default_rng(0)
X = {
    "tabular": RANDOM.normal(size=(96, 3)).astype("float32"),
    "other": RANDOM.normal(size=(96, 2)).astype("float32"),
}
Y = (X["tabular"][:, 0] + X["other"][:, 0] + RANDOM.normal(size=96) > 0).astype(int)
TRAIN = ({name: values[:64] for name, values in X.items()}, Y[:64])
HELD = ({name: values[64:] for name, values in X.items()}, Y[64:])
BUILDERS = {
    "first": partial(kf.tabular_branch, 3, name="first"),
    "second": partial(kf.tabular_branch, 2, input_name="other", name="second"),
}


class Terminal(io.StringIO):
    """A stream that is seen as it is written."""

    def isatty(self):
        return True

    @property
    def drawn(self):
        """What stood on the line, one after the other."""
        return self.getvalue().replace("\n", "\r").split("\r")


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(shown._Bar, "seconds_between", 0.0)
    return _see(Terminal(), monkeypatch)


@pytest.fixture
def log_file(monkeypatch):
    return _see(io.StringIO(), monkeypatch)


def _see(stream, monkeypatch):
    # pytest has its own `sys.stderr` for each part of a test.
    monkeypatch.setattr(shown, "sys", types.SimpleNamespace(stderr=stream))
    return stream


def quick_fit(**keywords):
    model = kf.build_unimodal_model(kf.tabular_branch(3, units=4), task="binary", head_units=4)
    given = {"validation_data": HELD, "epochs": 3, "doctor": False, **keywords}
    return kf.fit(model, *TRAIN, task="binary", **given)


def build(hp):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(hp.Choice("rate", [0.1, 0.2])), "binary_crossentropy")
    return model


def quick_search(directory, hypermodel=build, max_trials=2, **keywords):
    tuner = kf.OptunaTuner(hypermodel, "val_loss", max_trials, directory=directory)
    x = X["tabular"]
    tuner.search(x, Y, validation_data=(x, Y), epochs=2, **keywords)
    return tuner


class TestTerminal:
    def test_the_line_is_drawn_anew_and_ends_once(self, terminal):
        for _ in progress(range(4), description="work"):
            pass
        assert terminal.getvalue().count("\n") == 1
        assert terminal.getvalue().endswith("\n")
        assert terminal.drawn[1].startswith("work:   0%")
        assert any("2/4" in line for line in terminal.drawn)
        assert "4/4" in terminal.drawn[-2]

    def test_work_within_work_is_told_on_the_same_line(self, terminal):
        for fold in progress(range(2), description="folds"):
            with progress(range(5), description=f"model {fold}") as within:
                within.advance(3)
                within.note("best val_auc 0.9")
        assert terminal.getvalue().count("\n") == 1
        seen = [line for line in terminal.drawn if "model 1 3/5, best val_auc 0.9" in line]
        assert seen
        assert all(line.startswith("folds:") and "1/2" in line for line in seen)
        assert "model" not in terminal.drawn[-2]

    def test_an_interrupt_ends_the_line(self, terminal):
        def interrupted():
            for _ in progress(range(4), description="work"):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert terminal.getvalue().endswith("\n")
        assert not shown._open

    def test_an_interrupted_training_ends_the_line(self, terminal):
        def interrupt(epoch, logs):
            raise KeyboardInterrupt

        stop = keras.callbacks.LambdaCallback(on_epoch_end=interrupt)
        with pytest.raises(KeyboardInterrupt):
            quick_fit(callbacks=[stop])
        assert terminal.getvalue().endswith("\n")
        assert not shown._open

    def test_a_training_tells_epochs_and_the_best_score(self, terminal):
        history = quick_fit().history
        best = max(history["val_auc"])
        assert "3/3" in terminal.drawn[-2]
        assert f"best val_auc {best:.4f}" in terminal.drawn[-2]

    def test_a_search_tells_trials_the_best_one_and_its_epochs(self, terminal, tmp_path, capsys):
        tuner = quick_search(tmp_path)
        (best,) = tuner.oracle.get_best_trials(1)
        told = f"best val_loss {best.score:.4g} (trial {int(best.trial_id)})"
        assert terminal.getvalue().count("\n") == 1
        assert "2/2" in terminal.drawn[-2]
        assert told in terminal.drawn[-2]
        assert any("1/2" in line and "trial 1, epoch 1/2" in line for line in terminal.drawn)
        # KerasTuner's tables are not there, nor Keras' bars.
        assert capsys.readouterr().out == ""

    def test_a_search_that_is_stopped_ends_the_line(self, terminal, tmp_path):
        class Stop(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            quick_search(tmp_path, callbacks=[Stop()])
        assert terminal.getvalue().endswith("\n")
        assert not shown._open

    def test_a_notebook_is_one(self, monkeypatch):
        kind = types.new_class("OutStream", (io.StringIO,))
        kind.__module__ = "ipykernel.iostream"
        stream = _see(kind(), monkeypatch)
        list(progress(range(3), description="work"))
        assert "\r" in stream.getvalue()


class TestFile:
    def test_short_work_is_one_line_without_carriage_returns(self, log_file):
        for _ in progress(range(1000), description="work"):
            pass
        assert log_file.getvalue() == "work: 1000 of 1000 in 00:00\n"

    def test_long_work_has_a_line_now_and_then(self, log_file, monkeypatch):
        now = [0.0]
        clock = types.SimpleNamespace(monotonic=lambda: now[0])
        monkeypatch.setattr(shown, "time", clock)
        bar = progress(range(100), description="work")
        bar.count = bar.skipped = 10
        with bar:
            for _ in range(9):
                now[0] += 10
                bar.note("best 0.9")
                bar.advance(10)
        # 30 of 90 in 30 seconds leave 60 more.
        assert log_file.getvalue().splitlines() == [
            "work: 30 of 100 in 00:30, 01:45 left, best 0.9",
            "work: 60 of 100 in 01:00, 00:48 left, best 0.9",
            "work: 90 of 100 in 01:30, 00:11 left, best 0.9",
            "work: 100 of 100 in 01:30, best 0.9",
        ]

    def test_the_last_line_is_written_once(self, log_file, monkeypatch):
        now = [0.0]
        monkeypatch.setattr(shown, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
        bar = progress(range(2), description="members")
        for number in bar:
            bar.note(f"trees, fold {number + 1} of 2")
            now[0] += 40
        assert log_file.getvalue().splitlines() == [
            "members: 1 of 2 in 00:40, 00:40 left, trees, fold 1 of 2",
            "members: 2 of 2 in 01:20, trees, fold 2 of 2",
        ]

    def test_what_other_processes_do_is_watched(self, log_file, tmp_path, monkeypatch):
        monkeypatch.setattr(shown._Lines, "seconds_between", 0.0)
        monkeypatch.setattr(trial_bar, "SECONDS_BETWEEN_LOOKS", 0.01)
        here, elsewhere = (
            kf.OptunaTuner(build, "val_loss", 2, directory=tmp_path) for _ in range(2)
        )
        with trial_bar.TrialBar(here.oracle, is_shown=True) as bar, bar.watching():
            trial = elsewhere.oracle.create_trial("other")
            trial.status = "COMPLETED"
            elsewhere.oracle.update_trial(trial.trial_id, {"val_loss": 0.25})
            elsewhere.oracle.end_trial(trial)
            seconds = time.monotonic() + 20
            while "trials: 1 of 2" not in log_file.getvalue() and time.monotonic() < seconds:
                time.sleep(0.01)
            assert "left, best val_loss 0.25 (trial 0)" in log_file.getvalue()


class TestKerasTunersOwn:
    def test_verbose_2_keeps_its_tables(self, tmp_path, capsys):
        quick_search(tmp_path, max_trials=1, verbose=2)
        assert "Running Trial #1" in capsys.readouterr().out

    def test_a_fit_with_its_own_verbose_is_not_given_another(self, tmp_path):
        class Own(keras_tuner.HyperModel):
            def build(self, hp):
                return build(hp)

            def fit(self, hp, model, *arguments, **keywords):
                return model.fit(*arguments, verbose=0, **keywords)

        tuner = quick_search(tmp_path, Own(), max_trials=1)
        assert tuner.oracle.get_best_trials(1)


def _load_table(folder, write_images):
    frame = pd.DataFrame({"image": write_images(8), "a": np.arange(8) / 3, "y": np.arange(8) % 2})
    kf.load_table(frame, image_column="image", target="y", image_folder=folder, verbose=0)


class TestSilence:
    """`verbose=0` leaves stdout and stderr to others."""

    @pytest.mark.parametrize(
        "work",
        [
            lambda folder, _: quick_fit(verbose=0),
            lambda folder, _: kf.search_fusion(
                kf.FusionHyperModel(BUILDERS, task="binary", units=[4], head_units=[4, 8]),
                *TRAIN,
                validation_data=HELD,
                directory=folder,
                max_trials=1,
                epochs=1,
                verbose=0,
            ),
            lambda folder, _: kf.FusionClassifier(members=["trees"], num_folds=2, verbose=0).fit(
                {"tabular": pd.DataFrame(X["tabular"], columns=list("abc"))}, Y
            ),
            lambda folder, _: kf.cross_validate(
                LogisticRegression().fit, X["tabular"], Y, folds=2, verbose=0
            ),
            lambda folder, _: kf.compare(
                {"both": LogisticRegression().fit},
                X["tabular"],
                Y,
                single_inputs={"one": LogisticRegression().fit},
                folds=2,
                num_resamples=20,
                verbose=0,
            ),
            _load_table,
        ],
        ids=["fit", "search_fusion", "FusionClassifier", "cross_validate", "compare", "load_table"],
    )
    def test_is_kept(self, work, tmp_path, write_images, capsys):
        work(tmp_path, write_images)
        assert capsys.readouterr() == ("", "")
