"""What the README shows runs as it stands."""

import re
from pathlib import Path

import numpy as np

import kfusion as kf

README = Path(__file__).parents[1] / "README.md"


def test_the_examples_train_export_predict_and_search(tmp_path, some_places, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kf.datasets, "load_landcover", lambda: some_places)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    scope: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), scope)
    answers, task = scope["answers"], scope["task"]
    right = np.mean(answers["class"] == np.array(task.class_names)[scope["validation"].y])
    assert scope["best"].output_shape == (None, 6)
    assert (
        right
        == scope["kf"].evaluate(scope["model"], *scope["validation_data"], task=task)["accuracy"]
    )


def test_ci_installs_and_tests_with_the_readmes_own_line():
    script = (README.parent / ".ci" / "run").read_text(encoding="utf-8")
    lines = [
        line for line in README.read_text(encoding="utf-8").splitlines() if "pip install -e" in line
    ]
    assert 'grep -m1 "pip install -e" README.md' in script
    assert lines[0].endswith("&& .venv/bin/python -m pytest")
