"""The whole road on some rows of the data that ship."""

import json

from kfusion import demo


def test_from_files_to_what_the_saved_model_answers(tmp_path, some_places, monkeypatch):
    monkeypatch.setattr(demo, "load_landcover", lambda: some_places)
    monkeypatch.setattr(demo, "EPOCHS", 1)
    monkeypatch.setattr(demo, "TRIALS", 1)
    told = []
    page = tmp_path / "report.html"
    result = demo.run_demo(tmp_path, tell=told.append, report_path=page)
    assert [line[:3] for line in told if line[0] != " "] == [f"{i}/6" for i in range(1, 7)]
    assert result["served_difference"] < 1e-5
    names = {candidate["name"] for candidate in result["candidates"]}
    assert {"image only", "table only", "concat", "multiply", "best searched"} == names
    assert result["kept"] in names
    assert '<section id="search"' in page.read_text(encoding="utf-8")
    assert json.loads((tmp_path / "run.json").read_text())["verdict"] in "".join(told)
