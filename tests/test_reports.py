"""A report holds what its result has, shows users' names as they are, and asks for nothing."""

import dataclasses
import html.parser
import json
import re
import warnings
from pathlib import Path

import keras
import numpy as np
import optuna
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import kfusion as kf
from kfusion.cli import main
from kfusion.doctor.findings import Diagnosis, Finding, Undecided
from kfusion.runs.run_records import write_predictions
from kfusion.validation.cross_validation import cross_validate

pytestmark = pytest.mark.usefixtures("eagerly")

EVIL, FORMULA = "<script>alert(1)</script>", "$a_b$ & $\\frac{x}"
CHROMIUM = Path("/usr/bin/chromium")


class Page(html.parser.HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, path):
        super().__init__()
        self.source = Path(path).read_text(encoding="utf-8")
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(self.source)
        self.text = " ".join(self.texts)
        self.sections = [each["id"] for each in self.all("section")]

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append(dict(attrs))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, name):
        """The attributes of each element of this name."""
        both = zip(self.tags, self.attributes, strict=True)
        return [attributes for tag, attributes in both if tag == name]

    def values_of(self, *names):
        return [a[name] for a in self.attributes for name in names if name in a]


@pytest.fixture(scope="module")
def rows():
    """Images and a table whose names are as bad as they come."""
    random = np.random.default_rng(0)
    y = np.arange(90) % 2
    return kf.FusionData(
        images=random.integers(256, size=(90, 8, 8, 3)).astype(np.uint8),
        frame=pd.DataFrame({EVIL: y + random.normal(size=90), FORMULA: random.normal(size=90)}),
        y=y.astype(np.int32),
        kind="binary",
        class_names=(EVIL, FORMULA),
    )


@pytest.fixture(scope="module")
def comparison(rows):
    """Two columns, each alone and both together, on three folds."""

    def fit_on(*columns):
        def fit(train, y):
            model = LogisticRegression().fit(train.frame[list(columns)], y)
            return lambda test: model.predict_proba(test.frame[list(columns)])[:, 1]

        return fit

    singles = {EVIL: fit_on(EVIL), "other": fit_on(FORMULA)}
    return kf.compare(
        {FORMULA: fit_on(EVIL, FORMULA)}, rows, single_inputs=singles, folds=3, verbose=0
    )


@pytest.fixture(scope="module")
def page(rows, comparison, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    return Page(kf.report(comparison, path, data=rows, command=f"kfusion fit {EVIL}"))


def test_a_page_has_the_parts_of_its_result_in_order(page, comparison):
    assert page.sections == ["data", "comparison", "curves", "rows", "environment"]
    anchors = [value for value in page.values_of("href") if value.startswith("#")]
    assert {f"#{name}" for name in page.sections} <= set(anchors)
    assert page.text.index(comparison.verdict) < page.text.index("Rows by class.")
    assert page.tags.count("h1") == 1
    assert keras.__version__ in page.text


def test_users_names_are_shown_as_they_are(page):
    assert "script" not in page.tags
    assert EVIL in page.texts
    # In tables and within pictures, where `$` would begin a formula.
    assert page.texts.count(FORMULA) >= 4
    assert f"kfusion fit {EVIL}" in page.texts


def test_ids_are_unique_and_references_meet_them(page):
    ids = page.values_of("id")
    assert len(ids) == len(set(ids))
    used = {each["href"].removeprefix("#") for each in page.all("use")}
    used |= set(re.findall(r"url\(#([^)]+)\)", page.source))
    assert used
    assert used <= set(ids)


def test_a_page_asks_for_nothing_and_fits_into_a_mail(page):
    assert all(value.startswith(("#", "data:")) for value in page.values_of("src", "href"))
    assert not re.search(r"@import|url\((?!#)", page.source)
    assert len(page.source.encode()) < 1_000_000
    images = page.all("img")
    # Three of each class, and of the rows told worst and best and disagreed on.
    assert len(images) == 6 + 3 * 6
    assert all(a["alt"] for a in images)
    plots = page.all("svg")
    # Intervals, ROC, precision, reliability, confusion.
    assert len(plots) == 5
    assert all(a["role"] == "img" and a["aria-label"] for a in plots)


def test_an_estimator_shows_its_modalities_and_says_the_same_once_loaded(rows, tmp_path):
    model = kf.FusionClassifier(members=["table", "trees"], num_folds=2, epochs=2).fit(rows)
    page = Page(kf.report(model, tmp_path / "report.html", data=rows))
    shown = ["data", "comparison", "curves", "learning", "modalities", "rows", "environment"]
    assert page.sections == shown
    assert model.verdict_ in page.text
    model.save(tmp_path / "saved")
    loaded = kf.FusionClassifier.load(tmp_path / "saved")
    again = Page(kf.report(loaded, tmp_path / "report.html"))
    assert again.sections == page.sections
    assert model.verdict_ in again.text
    assert "img" not in again.tags


def test_what_failed_is_told(comparison, tmp_path):
    failed = dataclasses.replace(comparison, failures={"gated": f"Fold 0 failed. {EVIL}"})
    page = Page(kf.report(failed, tmp_path / "report.html"))
    assert f"gated failed: Fold 0 failed. {EVIL}" in page.texts


def test_data_of_other_rows_are_refused(comparison, rows, tmp_path):
    with pytest.raises(ValueError, match="must have the rows of the result, 90. Received: 80 rows"):
        kf.report(comparison, tmp_path / "report.html", data=rows[:80])


def test_a_cross_validated_regression_shows_values(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 1))

    def fit(x, y):
        return lambda x: x[:, 0]

    result = cross_validate(fit, x, x[:, 0], folds=2, task="regression", verbose=0)
    page = Page(kf.report(result, tmp_path / "report.html"))
    assert page.sections == ["data", "comparison", "curves", "rows", "environment"]
    assert "rmse 0.0000, the mean over 2 folds" in page.text


def test_a_diagnosis_shows_evidence_and_cure(tmp_path):
    finding = Finding("inputs_not_scaled", "error", EVIL, "mean 900", "no learning", "x /= 255")
    diagnosis = Diagnosis([finding], [Undecided("gates", "there are none")], 12)
    page = Page(kf.report(diagnosis, tmp_path / "report.html"))
    assert page.sections == ["doctor", "environment"]
    assert "1 found in 12 checks: 1 error." in page.text
    for text in ("mean 900", "no learning", "x /= 255", "there are none"):
        assert text in page.texts
    assert f"inputs_not_scaled ({EVIL})" in page.text


def test_a_history_shows_its_best_epoch(tmp_path):
    history = keras.callbacks.History()
    history.set_model(keras.Sequential([keras.Input((1,))], name="small"))
    history.history = {"loss": [2.0, 1.0], "val_loss": [2.0, 3.0], "val_auc": [0.75, 0.5]}
    page = Page(kf.report(history, tmp_path / "report.html"))
    assert "val_auc 0.7500 in epoch 1 of 2, its best." in page.text
    assert page.sections == ["learning", "environment"]


@pytest.fixture(scope="module")
def study():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(direction="maximize")
    choice = optuna.distributions.CategoricalDistribution([EVIL, FORMULA, "never"])
    rate = optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)
    for number in range(9):
        params = {"$kind$": [EVIL, FORMULA][number % 2], "rate": 10.0 ** -(1 + number / 3)}
        study.add_trial(
            optuna.trial.create_trial(
                params=params, distributions={"$kind$": choice, "rate": rate}, value=number / 10
            )
        )
    return study


def test_a_study_shows_what_it_says_nothing_about(study, tmp_path):
    page = Page(kf.report(study, tmp_path / "report.html"))
    assert page.sections == ["search", "environment"]
    assert (
        "Trial 8 is the best of 9 by objective: 0.8000, before trial 7 with 0.7000 and" in page.text
    )
    assert "$kind$ = never was never proposed." in page.texts
    assert page.texts.count("$kind$") >= 4
    assert "script" not in page.tags


def test_a_search_tells_of_the_rows_that_judged_it(study, tmp_path):
    counts = np.array([[3, 1], [0, 6]])
    told = kf.analyse(study)
    told = dataclasses.replace(told, confusion=counts, trials=told.trials.assign(runs=2))
    page = Page(kf.report(told, tmp_path / "report.html"))
    assert page.sections == ["data", "search", "environment"]
    for name, value in (
        ("rows that judged a run of the best trial", "10"),
        ("classes", "2"),
        ("runs of a trial", "2"),
    ):
        assert page.texts[page.texts.index(name) + 1] == value
    assert "40.0%" in page.texts


def test_what_is_no_result_is_refused(tmp_path):
    with pytest.raises(TypeError, match="must be a fitted estimator.*Received: int"):
        kf.report(3, tmp_path / "report.html")
    with pytest.raises(FileNotFoundError, match="holds no finished run"):
        kf.report(tmp_path, tmp_path / "report.html")


def make_run(folder, rows, y, predictions, names=("no", "yes")):
    """A run's folder as `save_run` leaves it, without its model."""
    folder.mkdir()
    task = kf.task("binary", y=y)
    told = {name: task.scores(y, part) for name, part in predictions.items()}
    schema = kf.TableSchema.fit(pd.DataFrame({"age": [1.0, 2.0]}))
    about = {
        "kept": "concat",
        "verdict": "no evidence of a difference",
        "candidates": [{"name": name, **scores, "seconds": 1.0} for name, scores in told.items()],
        "kind": "binary",
        "class_names": list(names),
        "shapes": {"image": [8, 8, 3]},
        "train_rows": 100,
        "validation_rows": len(y),
        "command": f"kfusion fit rows.csv --out {folder.name}",
        "schema": json.loads(schema.to_json()),
    }
    (folder / "run.json").write_text(json.dumps(about))
    write_predictions(folder, y, rows, list(predictions.values()))
    return folder


@pytest.fixture
def two_runs(tmp_path):
    random = np.random.default_rng(0)
    y, where = np.arange(80) % 2, np.arange(100, 180)
    said = [np.clip(0.5 * y + spread * random.random(80), 0, 1)[:, None] for spread in (0.6, 0.9)]
    first = make_run(tmp_path / "a", where, y, {"image only": said[1], "concat": said[0]})
    second = make_run(tmp_path / "b", where, y, {"concat": said[1]})
    return first, second, y, said


def test_two_runs_on_the_same_rows_have_a_paired_verdict(two_runs, tmp_path, capsys):
    first, second, y, said = two_runs
    out = tmp_path / "both.html"
    assert main(["report", str(first), str(second), "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(out)}
    page = Page(out)
    expected = kf.compare_predictions(y, said[0][:, 0], said[1][:, 0], names=("a", "b"))
    assert expected.verdict in page.text
    for run in "ab":
        assert f"kfusion fit rows.csv --out {run}" in page.texts


def test_a_run_shows_its_rows_by_their_number_in_the_table(two_runs):
    page = Page(kf.report(two_runs[0], two_runs[0] / "report.html"))
    assert page.sections == ["data", "comparison", "curves", "rows", "environment"]
    numbers = {int(text) for text in page.texts if re.fullmatch(r"1[0-7]\d", text)}
    assert len(numbers) > 10


def test_two_runs_on_other_rows_say_why_they_are_not_compared(two_runs, tmp_path):
    first, second, y, said = two_runs
    others = {
        "c": (np.arange(150, 230), y, ("no", "yes"), "80 and 80 rows, of which 30 are the same"),
        "d": (np.arange(100, 180), 1 - y, ("no", "yes"), "80 of the 80 rows.*other targets"),
        "e": (np.arange(100, 180), y, ("no", "da"), "their classes are"),
    }
    for name, (where, targets, classes, reason) in others.items():
        other = make_run(tmp_path / name, where, targets, {"concat": said[0]}, classes)
        page = Page(kf.report((first, other), tmp_path / "report.html"))
        assert re.search(f"cannot be compared row by row: .*{reason}", page.text)
        assert page.sections == ["comparison", "environment"]
    (second / "predictions.npz").unlink()
    page = Page(kf.report((first, second), tmp_path / "report.html"))
    assert "kept no predictions" in page.text


def test_a_run_is_not_compared_with_itself(two_runs, tmp_path):
    with pytest.raises(ValueError, match="are one folder"):
        kf.report((two_runs[0], two_runs[0]), tmp_path / "report.html")


def test_a_folder_without_a_run_is_one_line(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no finished run" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path), "--out", str(tmp_path / "none" / "report.html")])
    assert "there is no folder" in capsys.readouterr().err


def test_curves_of_many_classes_have_a_panel_each(tmp_path):
    random = np.random.default_rng(0)
    y = np.arange(120) % 6
    frame = pd.DataFrame(random.normal(size=(120, 6)) + np.eye(6)[y]).add_prefix("x")
    result = cross_validate(LogisticRegression().fit, frame.to_numpy(), y, folds=2, verbose=0)
    page = Page(kf.report(result, tmp_path / "report.html"))
    labels = [each["aria-label"] for each in page.all("svg")]
    for kind, score in (("ROC", "AUC"), ("Precision and recall", "Average precision")):
        of_classes = [
            label
            for label in labels
            if label.startswith(f"{kind} of each class against the rest for") and score in label
        ]
        assert [label[-3:] for label in of_classes] == [f": {name}" for name in range(6)]
    ids = page.values_of("id")
    assert len(set(ids)) == len(ids)


@pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's package chromium is not installed")
def test_on_a_phone_what_scrolls_is_a_tab_stop_and_nothing_else(page, study, tmp_path):
    from playwright.sync_api import sync_playwright

    of_study = kf.report(study, tmp_path / "study.html").read_text(encoding="utf-8")
    with sync_playwright() as program:
        browser = program.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        shown = browser.new_page(viewport={"width": 390, "height": 844})
        for source in (page.source, of_study):
            shown.set_content(source)
            scrolling, stops, panels = shown.evaluate(
                """() => {
                    const all = [...document.querySelectorAll('main *')];
                    const scrolls = e => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX)
                        && e.scrollWidth > e.clientWidth;
                    return [
                        all.filter(scrolls).map(e => all.indexOf(e)),
                        all.filter(e => e.tabIndex == 0 && e.tagName != 'A')
                            .map(e => all.indexOf(e)),
                        [...document.querySelectorAll('.panels svg')]
                            .map(e => e.getBoundingClientRect().right),
                    ];
                }"""
            )
            assert scrolling == stops
            assert all(right <= 390 for right in panels)
        browser.close()
    # Two hyperparameters, values and slices.
    assert len(panels) == 4


@pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's package chromium is not installed")
def test_a_browser_shows_every_plot_and_asks_for_nothing(page, tmp_path):
    from playwright.sync_api import sync_playwright

    path = tmp_path / "report.html"
    path.write_text(page.source, encoding="utf-8")
    said, asked = [], []
    quiet = ["no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"]
    quiet += ["disable-component-update", "disable-sync"]
    with sync_playwright() as program:
        browser = program.chromium.launch(
            executable_path=CHROMIUM, args=[f"--{name}" for name in quiet]
        )
        shown = browser.new_page(viewport={"width": 390, "height": 844})
        shown.on("console", lambda message: said.append(message.text))
        shown.on("pageerror", lambda error: said.append(str(error)))
        shown.on("dialog", lambda dialog: said.append(dialog.message))
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(path.as_uri())
        boxes = [each.bounding_box() for each in shown.query_selector_all("svg, img")]
        width = shown.evaluate("document.documentElement.scrollWidth")
        colors = []
        for scheme in ("light", "dark"):
            shown.emulate_media(color_scheme=scheme)
            colors.append(
                shown.evaluate(
                    "[document.documentElement, document.querySelector('svg text')]"
                    ".map((e, i) => getComputedStyle(e)[i ? 'fill' : 'backgroundColor'])"
                )
            )
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", path.as_uri()))] == []
    assert len(boxes) == 24 + 5
    assert all(box["width"] > 20 and box["height"] > 20 for box in boxes)
    assert width == 390
    assert colors[0] == ["rgb(255, 255, 255)", "rgb(22, 25, 29)"]
    assert colors[1] == ["rgb(20, 23, 26)", "rgb(232, 234, 236)"]
