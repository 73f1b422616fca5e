"""Folders that appear whole or not at all."""

import os
from pathlib import Path

import pytest

from kfusion.whole_folders import whole_folder


def write(path, text, **arguments):
    with whole_folder(path, **arguments) as folder:
        (folder / "file").write_text(text)


def test_a_folder_and_its_parents_appear_at_the_end(tmp_path):
    path = tmp_path / "a" / "b"
    with whole_folder(path) as folder:
        (folder / "file").write_text("new")
        assert not path.exists()
    assert (path / "file").read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def write_half(path, error, **arguments):
    with whole_folder(path, **arguments) as folder:
        (folder / "file").write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(tmp_path, error):
    with pytest.raises(error):
        write_half(tmp_path / "out", error)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_what_was_there(tmp_path):
    write(tmp_path / "out", "old")
    with pytest.raises(KeyboardInterrupt):
        write_half(tmp_path / "out", KeyboardInterrupt, overwrite=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "file"]
    assert (tmp_path / "out" / "file").read_text() == "old"


def test_what_exists_is_refused_before_any_work(tmp_path):
    write(tmp_path / "out", "old")
    with pytest.raises(
        FileExistsError, match=r"out exists\. Choose another path or pass `overwrite"
    ):
        write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "file").read_text() == "old"


def test_overwriting_leaves_no_file_of_the_old_folder(tmp_path):
    write(tmp_path / "out", "old")
    (tmp_path / "out" / "other").touch()
    write(tmp_path / "out", "new", overwrite=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "file"]
    assert (tmp_path / "out" / "file").read_text() == "new"


def test_a_file_is_not_overwritten_by_a_folder(tmp_path):
    (tmp_path / "out").write_text("precious")
    with pytest.raises(ValueError, match="out is a file; only a folder can be overwritten"):
        write(tmp_path / "out", "new", overwrite=True)
    assert (tmp_path / "out").read_text() == "precious"


def test_a_folder_that_another_process_made_meanwhile_is_kept(tmp_path):
    with pytest.raises(OSError, match="out"), whole_folder(tmp_path / "out"):
        write(tmp_path / "out", "of the other")
    assert (tmp_path / "out" / "file").read_text() == "of the other"


def test_what_was_there_comes_back_when_the_last_rename_fails(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old.txt").write_text("kept")
    rename = os.replace

    def fail_for_new(source, target):
        if Path(source).name == "new":
            raise OSError("disk full")
        rename(source, target)

    monkeypatch.setattr(os, "replace", fail_for_new)
    with (
        pytest.raises(OSError, match="disk full"),
        whole_folder(folder, overwrite=True) as content,
    ):
        (content / "new.txt").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (folder / "old.txt").read_text() == "kept"
