"""The command line: from a CSV file to predictions, and every mistake in one line."""

import argparse
import base64
import contextlib
import html
import io
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import kfusion
from kfusion.cli import main
from kfusion.commands.mistakes import FLAGS, in_flags
from kfusion.commands.options import add_data_arguments
from kfusion.commands.rows import load_data
from kfusion.data.streamed_images import StreamedImages

pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A CSV and its images: the class is whether the image is bright."""
    folder = tmp_path_factory.mktemp("rows")
    generator = np.random.default_rng(0)
    rows = []
    for row in range(80):
        bright = row % 2
        pixels = generator.integers(100, size=(8, 8, 3), dtype=np.uint8) + 150 * bright
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{row}.png")
        rows.append(
            {
                "photo": f"{row}.png",
                "age": "NA" if row % 5 == 0 else generator.normal(),
                "continent": ["NA", "EU", ""][row % 3],
                "patient": row // 4,
                "sick": ["no", "yes"][bright],
            }
        )
    pd.DataFrame(rows).to_csv(folder / "rows.csv", index=False)
    return folder


def arguments_for(command, folder, *more):
    paths = [str(folder / "rows.csv"), "--image", "photo", "--target", "sick", "--group", "patient"]
    small = ["--fusions", "concat", "--epochs", "2", "--batch-size", "16"]
    return [command, *paths, *small, *more]


def test_fit_export_and_predict_hand_over_to_each_other(folder, tmp_path, capsys):
    run, model = str(tmp_path / "run"), str(tmp_path / "model")
    page = tmp_path / "report.html"
    assert main(arguments_for("fit", folder, "--out", run, "--report", str(page))) == 0
    fitted = json.loads(capsys.readouterr().out)
    # Of rows in the order of the run, with the images of the whole table.
    told = page.read_text(encoding="utf-8")
    assert fitted["verdict"] in html.unescape(told)
    assert html.escape(f"kfusion fit {folder / 'rows.csv'} --image photo") in told
    assert all(f'<section id="{name}"' in told for name in ("data", "curves", "learning", "rows"))
    assert told.count("<img ") > 12
    assert [c["name"] for c in fitted["candidates"]] == ["image only", "table only", "concat"]
    assert max(c["auc"] for c in fitted["candidates"]) == next(
        c["auc"] for c in fitted["candidates"] if c["name"] == fitted["kept"]
    )

    assert main(["export", run, "--out", model]) == 0
    assert json.loads(capsys.readouterr().out)["class_names"] == ["no", "yes"]
    # Told before anything is written.
    assert main(["export", run, "--out", f"{model} again", "--onnx", str(page)]) == 2
    assert f"{page} exists. Choose another file" in capsys.readouterr().err
    described = tmp_path / "again.onnx.json"
    described.write_text("mine")
    beside = str(tmp_path / "again.onnx")
    assert main(["export", run, "--out", f"{model} again", "--onnx", beside]) == 2
    assert f"{described} exists. Choose another file" in capsys.readouterr().err
    assert not (tmp_path / "model again").exists()

    kept = next(c for c in fitted["candidates"] if c["name"] == fitted["kept"])
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    # Of validation rows in few groups, whose interval is that of the report.
    (line,) = [line for line in card.splitlines() if line.startswith(f"| {kept['name']} |")]
    scored = rf"\| {kept['name']} \| {kept['auc']:.4f} \| "
    low, high, _ = re.fullmatch(
        scored + r"(\S+) to (\S+) \| (DeLong|paired bootstrap|Clopper-Pearson) \|", line
    ).groups()
    assert float(low) <= kept["auc"] <= float(high)
    assert f"Learned from {fitted['train_rows']} rows in {fitted['groups']} groups" in card

    new_rows = pd.read_csv(folder / "rows.csv", dtype=str, keep_default_na=False)
    new_rows.drop(columns="sick").head(7).to_csv(folder / "new.csv", index=False)
    assert main(["predict", model, str(folder / "new.csv")]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["rows"] == 7
    for prediction in answer["predictions"]:
        assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-5)

    out = tmp_path / "predictions.csv"
    assert main(["predict", model, str(folder / "new.csv"), "--out", str(out)]) == 0
    assert list(pd.read_csv(out)) == [
        "row",
        "image",
        "class",
        "probability_no",
        "probability_yes",
    ]


def test_a_report_from_the_folder_shows_images_that_are_still_there(folder, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(arguments_for("fit", folder, "--out", str(run), "--epochs", "1")) == 0
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    cards = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="Image of row (\d+)', page)
    assert len(cards) > 6
    for content, row in cards:
        # Rows with odd numbers are bright.
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
        assert (pixels.mean() > 125) == int(row) % 2
    about = json.loads((run / "run.json").read_text(encoding="utf-8"))
    about["source"]["table_digest"] = "that of another table"
    (run / "run.json").write_text(json.dumps(about), encoding="utf-8")
    assert main(["report", str(run)]) == 0
    assert "<img" not in (run / "report.html").read_text(encoding="utf-8")
    capsys.readouterr()


def test_a_search_keeps_the_best_of_everything_it_tried(folder, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(arguments_for("search", folder, "--out", str(run), "--trials", "1")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["candidates"][-1]["name"] == "best searched"
    assert found["candidates"][-1]["trials"] == 1
    assert (run / "trials").is_dir()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--image", "picture"], "`--image` names no column of the table: 'picture'"),
        (["--target", "health"], "`--target` names no column of the table: 'health'"),
        (["--columns", "age", "sick"], "Column 'sick' cannot be both `--target` and a feature"),
        (["--columns", "height"], "The table lacks the column(s) ['height']"),
        (["--backbone", "VGG99"], "There is no application 'VGG99'"),
        (["--backbone", "VGG16"], "VGG16 cannot take images of 8x8"),
        (["--backbone", "VGG16"], "Pass `--resize`."),
        (["--fusions", "sum"], "--fusions: there is no fusion 'sum'. There are: concat"),
        (["--group", "photo"], "Received: `--image photo`, `--target sick`, `--group photo`."),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(folder, tmp_path, capsys, changes, message):
    code = main([*arguments_for("fit", folder, "--out", str(tmp_path / "run")), *changes])
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert message in printed.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--fusions", "concat", "cocnat"], "there is no fusion 'cocnat'"),
        (["--backbone", "MobilNet"], "There is no application 'MobilNet'"),
        (["--backbone", "VGG16", "--image-shape", "8x8x3"], "cannot take images of 8x8"),
        (["--backbone", "MobileNetV2", "--freeze"], "give --weights (imagenet or a file)"),
        (["--freeze"], "give --backbone with --weights"),
        (["--weights", "imagenet"], "name it with --backbone"),
        (["--backbone", "MobileNetV2", "--weights", "w.h5"], "There is no file w.h5"),
        (["--out", "finished"], "finished holds a run. Choose another folder or `--overwrite`."),
        (["--out", "file"], "file is a file"),
    ],
)
@pytest.mark.parametrize("command", ["fit", "search", "compare"])
def test_settings_are_checked_before_any_row_is_read(
    tmp_path, monkeypatch, capsys, command, changes, message
):
    if command == "compare" and "--out" in changes:
        pytest.skip("goes on in its folder")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "finished").mkdir()
    (tmp_path / "finished" / "run.json").write_text("{}")
    (tmp_path / "file").touch()
    # There is no table: whoever looked for it would say so.
    asked = [command, "absent.csv", "--image", "photo", "--target", "sick", "--out", "run"]
    assert main([*asked, *changes]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_is_there_is_checked_before_any_row_is_read(tmp_path, capsys):
    rows = ["absent.csv", "--image", "photo", "--target", "sick"]
    assert main(["doctor", *rows, "--model", str(tmp_path / "none")]) == 2
    assert f"There is no --model {tmp_path / 'none'}" in capsys.readouterr().err
    # Keras, which takes seconds, is not needed to see that a folder is there.
    program = (
        "import sys\n"
        "from kfusion.cli import main\n"
        f"assert main(['export', 'absent', '--out', {str(tmp_path)!r}]) == 2\n"
        "assert 'keras' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path} exists. Choose another folder, or pass --overwrite" in done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--validation", "1.5"], "must be above 0 and 0.5 at most; got '1.5'"),
        (["--validation", "some"], "must be above 0 and 0.5 at most; got 'some'"),
        (["--batch-size", "much"], "must be a whole number of 1 or more; got 'much'"),
    ],
)
def test_values_that_no_command_takes_are_told_with_their_flag(capsys, changes, message):
    with pytest.raises(SystemExit, match="2"):
        main(["fit", "absent.csv", "--image", "a", "--target", "b", "--out", "run", *changes])
    assert f"argument {changes[0]}: {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ('`on_missing_image="keep"` allows it', "`--on-missing-image keep` allows it"),
        ("`trainable=False` would keep them", "`--freeze` would keep them"),
        ("one of ['a']. Received: kind='b'.", "one of ['a']. Received: --kind b."),
        ("pass `image_shape=(20, 30, 4)`", "pass `--image-shape 20x30x4`"),
        ("pass `image_shape=(h, w, 4)`", "pass `--image-shape hxwx4`"),
        ("or pass `overwrite=True`.", "or pass `--overwrite`."),
        ("or pass `use_cache=False`.", "or pass `--no-use-cache`."),
        ("in `text_columns` or in `tabular_columns`", "in `--text` or in `--columns`"),
        ("`cmd --x=1` and `learning_rate=3`", "`cmd --x=1` and `learning_rate=3`"),
    ],
)
def test_arguments_of_the_library_are_told_as_flags(told, expected):
    assert in_flags(told) == expected


def test_every_flag_in_a_message_is_one_that_a_command_takes():
    flags = set()
    for command in ("fit", "search", "compare"):
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as told:
            main([command, "--help"])
        flags |= set(re.findall(r"--[\w-]+", told.getvalue()))
    assert set(FLAGS.values()) <= flags


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"kfusion {kfusion.__version__}\n"


def test_images_stay_files_if_asked(folder):
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    paths = [str(folder / "rows.csv"), "--image", "photo", "--target", "sick"]
    assert isinstance(load_data(parser.parse_args(paths)).images, np.ndarray)
    streamed = load_data(parser.parse_args([*paths, "--streaming"]))
    assert isinstance(streamed.images, StreamedImages)


def test_streamed_images_are_decoded_once_if_they_are_cached(folder, image_cache_folder):
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    paths = [str(folder / "rows.csv"), "--image", "photo", "--target", "sick", "--streaming"]
    before = load_data(parser.parse_args(paths)).images[:3]
    assert not any(image_cache_folder.iterdir())
    cached = load_data(parser.parse_args([*paths, "--use-cache"])).images
    np.testing.assert_array_equal(cached[:3], before)
    assert any(image_cache_folder.iterdir())


def test_a_run_is_not_overwritten_unless_asked(folder, tmp_path, capsys):
    (tmp_path / "run.json").write_text("{}")
    assert main(arguments_for("fit", folder, "--out", str(tmp_path))) == 2
    assert "holds a run" in capsys.readouterr().err


def test_a_training_folder_is_no_model(folder, tmp_path, capsys):
    assert main(["predict", str(tmp_path), str(folder / "rows.csv")]) == 2
    assert "`kfusion export`" in capsys.readouterr().err


def test_help_loads_nothing_heavy():
    program = (
        "import sys\n"
        "from kfusion.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'pandas', 'keras', 'tensorflow', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_the_package_runs_as_the_command_does():
    done = subprocess.run(
        [sys.executable, "-m", "kfusion", "doctor", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("usage: kfusion doctor")
    assert "1 where a finding is an error" in " ".join(done.stdout.split())
    mistake = [sys.executable, "-m", "kfusion", "nothing"]
    assert subprocess.run(mistake, capture_output=True).returncode == 2


def test_compare_tells_a_verdict_and_goes_on_where_it_was(folder, tmp_path, capsys):
    out = tmp_path / "comparison"
    page = tmp_path / "report.html"
    arguments = arguments_for("compare", folder, "--folds", "2", "--out", str(out))
    assert main(arguments) == 0
    first = capsys.readouterr()
    about = json.loads(first.out)
    assert [c["name"] for c in about["candidates"]] == [
        "image only",
        "table only",
        "table only (boosted trees)",
        "plain concat",
        "concat",
    ]
    assert about["verdict"] in first.err
    assert json.loads((out / "comparison.json").read_text())["verdict"] == about["verdict"]
    assert (out / "comparison.png").stat().st_size > 1000
    assert main([*arguments, "--report", str(page)]) == 0
    again = json.loads(capsys.readouterr().out)
    assert about["verdict"] in html.unescape(page.read_text(encoding="utf-8"))
    assert again["candidates"] == about["candidates"]
    assert main([*arguments, "--folds", "3"]) == 2
    assert "holds another cross-validation: folds differ" in capsys.readouterr().err
    assert main([*arguments, "--fusions", "gated"]) == 2
    assert "holds a finished comparison of ['concat']" in capsys.readouterr().err
    assert main([*arguments, "--score", "log_loss", "--confidence", "0.9"]) == 0
    by_loss = json.loads(capsys.readouterr().out)
    assert (by_loss["score"], by_loss["confidence"]) == ("log_loss", 0.9)
    assert "90 % interval" in by_loss["verdict"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--score", "rmse"], "`--score` must be one of"),
        (["--confidence", "95"], "`--confidence` must be"),
    ],
)
def test_compare_refuses_before_it_trains(folder, tmp_path, capsys, changes, message):
    out = tmp_path / "comparison"
    assert main(arguments_for("compare", folder, "--out", str(out), *changes)) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_an_interrupted_command_says_so(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("kfusion.commands.demo._demo", interrupted)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "kfusion: stopped.\n"
    monkeypatch.setattr("kfusion.commands.compare._compare", interrupted)
    wanted = ["--image", "photo", "--target", "sick", "--out", "folder"]
    assert main(["compare", "rows.csv", *wanted]) == 130
    assert capsys.readouterr().err == "kfusion: stopped. Finished folds are kept.\n"


def test_a_pipe_that_its_reader_has_closed_is_no_error(monkeypatch, tmp_path):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

        def fileno(self):
            return file.fileno()

    monkeypatch.setattr("kfusion.commands.demo._demo", lambda arguments: {"rows": 3})
    with open(tmp_path / "pipe", "w") as file:
        monkeypatch.setattr(sys, "stdout", Closed())
        assert main(["demo"]) == 0


def test_compare_says_that_there_are_too_few_groups(folder, tmp_path, capsys):
    out = str(tmp_path / "comparison")
    assert main(arguments_for("compare", folder, "--folds", "30", "--out", out)) == 2
    assert "30 folds cannot be made of 20 groups" in capsys.readouterr().err
