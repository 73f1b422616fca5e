"""A training or search that was killed: the same command goes on, and no other one does."""

import contextlib
import io
import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kfusion.cli import main
from kfusion.data.fingerprints import OtherWorkError
from kfusion.data.loading import load_table
from kfusion.runs import candidates
from kfusion.runs.unfinished_runs import UnfinishedRun, describe_run

pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A CSV whose class is whether the image is bright."""
    folder = tmp_path_factory.mktemp("rows")
    random = np.random.default_rng(0)
    rows = []
    for row in range(60):
        pixels = random.integers(100, size=(8, 8, 3)) + 100 * (row % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{row}.png")
        rows.append({"photo": f"{row}.png", "age": random.normal(), "ill": row % 2})
    pd.DataFrame(rows).to_csv(folder / "rows.csv", index=False)
    return folder / "rows.csv"


def asked(command, table, out, *more):
    small = ["--fusions", "concat", "--epochs", "1", "--batch-size", "16"]
    rows = [str(table), "--image", "photo", "--target", "ill"]
    return [command, *rows, *small, "--out", str(out), *more]


class Fits:
    """Counts what is trained, by name, and is killed when so many were."""

    def __init__(self, monkeypatch):
        self.names, self.left = [], None
        self.fit = candidates.fit
        monkeypatch.setattr(candidates, "fit", self)

    def __call__(self, model, *arguments, **keywords):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left = None if self.left is None else self.left - 1
        self.names.append(model.name)
        return self.fit(model, *arguments, **keywords)


@pytest.fixture
def fits(monkeypatch):
    return Fits(monkeypatch)


@pytest.fixture(scope="module")
def killed(table, tmp_path_factory):
    """The folder of a `fit` that was stopped while its third network trained."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as told:
        Fits(patch).left = 2
        assert main(asked("fit", table, folder)) == 130
    assert "the same command goes on" in told.getvalue()
    assert not (folder / "run.json").exists()
    return folder


@pytest.fixture
def killed_after_two(killed, tmp_path):
    return shutil.copytree(killed, tmp_path / "run")


def without_seconds(text):
    found = json.loads(text)
    for candidate in found["candidates"]:
        del candidate["seconds"]
    return found["candidates"], found["kept"], found["verdict"]


def test_a_killed_fit_goes_on_and_ends_as_one_that_was_not(
    killed_after_two, fits, table, tmp_path, capsys
):
    assert main(asked("fit", table, killed_after_two)) == 0
    printed = capsys.readouterr()
    assert fits.names == ["concat"]
    assert "image only, table only had been trained and stay as they are" in printed.err
    assert main(asked("fit", table, tmp_path / "whole")) == 0
    assert without_seconds(printed.out) == without_seconds(capsys.readouterr().out)
    again, whole = (
        np.load(folder / "predictions.npz") for folder in (killed_after_two, tmp_path / "whole")
    )
    for name in whole.files:
        np.testing.assert_array_equal(again[name], whole[name])
    # Nothing is left of what was unfinished.
    names = {path.name for path in killed_after_two.iterdir()}
    assert names == {path.name for path in (tmp_path / "whole").iterdir()}


def test_another_fusion_is_trained_beside_what_was_finished(killed_after_two, fits, table):
    assert main(asked("fit", table, killed_after_two, "--fusions", "multiply")) == 0
    assert fits.names == ["multiply"]


@pytest.mark.parametrize(
    ("changes", "different"),
    [
        (["--epochs", "2"], "settings (epochs) differ"),
        (["--augment"], "settings (images) differ"),
        (["--seed", "1"], "data (training, validation), settings (seed) differ"),
    ],
)
def test_other_settings_are_other_work(killed_after_two, fits, table, capsys, changes, different):
    assert main(asked("fit", table, killed_after_two, *changes)) == 2
    told = capsys.readouterr().err
    assert f"holds another unfinished run: {different}" in told
    assert "`--overwrite` removes it" in told
    assert fits.names == []


def test_other_work_is_removed_if_it_may_be_overwritten(killed_after_two, fits, table):
    assert main(asked("fit", table, killed_after_two, "--seed", "1", "--overwrite")) == 0
    assert fits.names == ["image_only", "table_only", "concat"]


def test_a_run_that_was_killed_while_it_was_written_is_unfinished(killed_after_two, fits, table):
    (killed_after_two / "model.keras").touch()
    assert main(asked("fit", table, killed_after_two)) == 0
    assert fits.names == ["concat"]


@pytest.mark.slow
def test_a_killed_search_trains_no_network_again(fits, table, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    search = candidates.search_candidate

    def killed(*arguments, **keywords):
        search(*arguments, **{**keywords, "max_trials": 1})
        raise KeyboardInterrupt

    command = asked("search", table, run, "--trials", "2")
    monkeypatch.setattr(candidates, "search_candidate", killed)
    assert main(command) == 130
    begun = (run / "trials" / "search" / "trial_0000").stat().st_ctime_ns
    monkeypatch.setattr(candidates, "search_candidate", search)
    fits.names.clear()
    # As of a command that replaces an older run, and was killed.
    assert main([*command, "--overwrite"]) == 0
    assert fits.names == []
    printed = capsys.readouterr()
    assert "image only, table only, concat had been trained" in printed.err
    assert f"The search in {run / 'trials'} goes on where it was stopped." in printed.err
    assert json.loads(printed.out)["candidates"][-1]["trials"] == 2
    assert (run / "trials" / "search" / "trial_0000").stat().st_ctime_ns == begun


def test_an_older_search_gives_way_to_another_one_if_it_may(tmp_path):
    run = UnfinishedRun(tmp_path)
    trial = run.trials / "search" / "trial_0000"
    first, other = {"space": {"fusions": ["concat"]}}, {"space": {"fusions": ["multiply"]}}
    with run.parts.opened({}):
        assert not run.begin_study(first, overwrite=True)
        trial.mkdir(parents=True)
        assert run.begin_study(first, overwrite=True)
        assert run.begin_study(other, overwrite=False)
        assert trial.exists()
        assert not run.begin_study(other, overwrite=True)
        assert not trial.exists()
        assert run.begin_study(other, overwrite=True)


def test_a_damaged_record_gives_way_if_it_may(tmp_path):
    run = UnfinishedRun(tmp_path)
    with run.opened({}, overwrite=False):
        (run.path / "about.json").write_text("{")
    with (
        pytest.raises(OtherWorkError, match="is damaged.*`overwrite=True` removes it too"),
        run.opened({}, overwrite=False),
    ):
        pass
    with run.opened({}, overwrite=True):
        assert json.loads((run.path / "about.json").read_text()) == {}


@pytest.mark.slow
def test_a_run_that_replaces_a_whole_one_takes_nothing_from_it(fits, table, tmp_path, capsys):
    command = asked("search", table, tmp_path / "run", "--trials", "1", "--overwrite")
    assert main(command) == 0
    first = (tmp_path / "run" / "trials" / "search" / "study.db").stat().st_ino
    fits.names.clear()
    assert main(command) == 0
    assert fits.names == ["image_only", "table_only", "concat"]
    assert "goes on" not in capsys.readouterr().err
    assert (tmp_path / "run" / "trials" / "search" / "study.db").stat().st_ino != first


@pytest.mark.parametrize("streaming", [False, True])
def test_a_changed_image_or_row_is_other_data(table, tmp_path, streaming):
    folder = tmp_path / "rows"
    shutil.copytree(table.parent, folder)

    def digest():
        data = load_table(
            folder / "rows.csv",
            image_column="photo",
            target="ill",
            streaming=streaming,
            verbose=0,
        )
        return describe_run(*data.split(0.2), settings={})["data"]

    first = digest()
    assert digest() == first
    pixels = np.asarray(Image.open(folder / "3.png")).copy()
    pixels[0, 0] += 1
    Image.fromarray(pixels).save(folder / "3.png")
    # A file system may tell time in steps.
    os.utime(folder / "3.png", ns=(0, 10**18))
    changed = digest()
    assert changed != first
    frame = pd.read_csv(folder / "rows.csv")
    frame.loc[5, "age"] += 1
    frame.to_csv(folder / "rows.csv", index=False)
    assert digest() not in (first, changed)
