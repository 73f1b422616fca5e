"""The model card: known numbers, nothing that nobody measured, text that cannot break the page."""

import io
import json

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from sklearn.metrics import roc_auc_score

from kfusion.data.images import decode_image
from kfusion.data.raw_columns import served_names
from kfusion.data.tables import TableSchema
from kfusion.evidence.estimates import Estimate
from kfusion.exports.card_facts import (
    CardFacts,
    ScoreLine,
    facts_of_comparison,
    facts_of_run,
)
from kfusion.exports.example_requests import example_request
from kfusion.exports.model_card import cell, write_model_card
from kfusion.scores import get_score
from kfusion.server.values import decode_base64

FRAME = pd.DataFrame(
    {
        "age | years": [30.0, None, 50.0, 40.0],
        "when": ["2020-02-29", "2021-01-01", None, None],
        "`place`\n<b>": ["a|b", "a|b", "c_d", "e"],
        "sick": [True, False, True, True],
    }
)
FACTS = CardFacts(
    rows=200,
    class_rows={"no": 150, "yes": 50},
    groups=40,
    missing_inputs={"image": 0.125},
    target="diag|nosis",
    score="auc",
    lines=(
        ScoreLine("image", 0.8, 0.7, 0.875, "DeLong"),
        ScoreLine("blend", 0.90625, None, None, "paired bootstrap"),
    ),
    exported="blend",
    confidence=0.9,
    others={"accuracy": 0.75},
    how="Means over 4 folds.",
    verdict="blend 0.9 against *image*",
)


def description_of(frame=FRAME, **changes):
    schema = TableSchema.fit(frame)
    return {
        "kind": "binary",
        "class_names": ["no", "yes"],
        "image_columns": {"image": "photo"},
        "inputs": {"image": [[8, 6, 3], "uint8"], "tabular": [[4], "float32"]},
        "may_be_missing": ["image"],
        "schema": json.loads(schema.to_json()),
        "served_names": served_names(schema, ["image"]),
        "versions": {"kfusion": "0.1.0"},
        "exported_on": "2026-05-04",
        **changes,
    }


@pytest.fixture
def card(tmp_path):
    write_model_card(tmp_path, description_of(), FACTS)
    return (tmp_path / "README.md").read_text(encoding="utf-8")


def test_the_front_matter_is_read_as_yaml(card):
    front = yaml.safe_load(card.split("---\n")[1])
    assert front == {
        "library_name": "keras",
        "tags": ["kfusion", "binary-classification", "image", "tabular", "multimodal"],
        "metrics": ["roc_auc"],
    }


def test_numbers_are_those_that_were_measured(card):
    for line in (
        "Learned from 200 rows in 40 groups that were never split.",
        "| no | 150 | 75.0% |",
        "| yes | 50 | 25.0% |",
        "Rows without `image`: 12.5%.",
        "| model | auc | 90 % interval | by |",
        "| image | 0.8000 | 0.7000 to 0.8750 | DeLong |",
        "| blend | 0.9062 | not measured | paired bootstrap |",
        'Means over 4 folds. The exported model is "blend".',
        'Further scores of "blend", without intervals: accuracy 0.7500.',
        "blend 0.9 against \\*image\\*",
        "| `image` | photo | image | uint8 (rows, 8, 6, 3) | any of 0 to 255 | 12.5% |",
        "| `age___years` | age \\| years | number | float32 (rows) | 30 to 50 | 25.0% |",
        "| `when` | when | date | string (rows) | 2020-02-29 to 2021-01-01 | 50.0% |",
        "| `sick` | sick | boolean | float32 (rows) | 1 (true) or 0 | 0.0% |",
        "Exported on 2026-05-04. kfusion 0.1.0",
        "- Rows may lack `image`: an image of zeros alone; a table, embedding or sequence without "
        "any value.",
    ):
        assert line in card.splitlines()


def test_the_auc_of_several_classes_says_what_it_is(tmp_path, card):
    assert "one-vs-rest" not in card
    names = ["no", "perhaps", "yes"]
    write_model_card(tmp_path, description_of(kind="multiclass", class_names=names), FACTS)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "`auc` is the mean over the classes" in card
    # As it is computed: scikit-learn's macro average, not that weighted by class.
    random = np.random.default_rng(0)
    y, p = random.choice(3, 60, p=[0.7, 0.2, 0.1]), random.dirichlet(np.ones(3), 60)
    told = roc_auc_score(y, p, multi_class="ovr", average="macro")
    assert get_score("multiclass", "auc").function(y, p, None) == pytest.approx(told)


def test_signatures_name_the_columns_of_the_users_table(tmp_path):
    write_model_card(tmp_path, description_of())
    told = json.loads((tmp_path / "signature.json").read_text(encoding="utf-8"))
    inputs = told["serving_default"]["inputs"]
    assert {name: tensor["column"] for name, tensor in inputs.items()} == {
        "image": "photo",
        **{served: name for name, served in description_of()["served_names"].items()},
    }
    assert "column" not in str(told["encoded"])


def test_the_users_text_stays_in_its_cell(card):
    """As many cells in each row of the tables as in their heads, and no markup."""
    (line,) = [line for line in card.splitlines() if line.startswith("| `column__place_")]
    assert line.endswith(
        "| \\`place\\` \\<b\\> | category | string (rows) | a\\|b, c\\_d, e | 0.0% |"
    )
    assert "of diag\\|nosis (no, yes) from" in card
    assert cell("x" * 99 + "|") == "x" * 59 + "…"
    assert cell("a\r\n\t b\u2028c") == "a b c"


def test_what_was_not_measured_says_so(tmp_path):
    write_model_card(tmp_path, description_of())
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "metrics" not in yaml.safe_load(card.split("---\n")[1])
    assert "Rows, classes and groups: not measured." in card
    assert "## Metrics\n\nNot measured.\n" in card
    assert "| any of 0 to 255 | not measured |" in card
    write_model_card(tmp_path, description_of(), CardFacts(rows=3, how="One class only."))
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "## Metrics\n\nNot measured: One class only.\n" in card


def test_signatures_of_a_regression_on_encoded_inputs(tmp_path):
    about = description_of(
        kind="regression",
        class_names=[],
        schema=None,
        served_names={},
        may_be_missing=[],
        inputs={"tabular": [[3], "float32"]},
    )
    write_model_card(tmp_path, about)
    both = {
        "inputs": {"tabular": {"dtype": "float32", "shape": [None, 3]}},
        "outputs": {"prediction": {"dtype": "float32", "shape": [None]}},
    }
    told = json.loads((tmp_path / "signature.json").read_text(encoding="utf-8"))
    assert told == {"serving_default": both, "encoded": both}
    assert example_request(about) == {"instances": [{"tabular": [0.0, 0.0, 0.0]}]}
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "A regression from `tabular`." in card
    assert "Images" not in card


class TestExample:
    def test_medians_frequent_categories_and_a_grey_image(self):
        (instance,) = example_request(description_of())["instances"]
        image = Image.open(io.BytesIO(decode_base64(instance.pop("image")["b64"], "")))
        assert (image.size, image.getcolors()) == ((6, 8), [(48, (128, 128, 128))])
        assert list(instance.values()) == [40.0, "2020-07-31", "a|b", 1.0]

    @pytest.mark.parametrize("channels", [1, 4, 7])
    def test_any_number_of_channels(self, channels):
        about = description_of(inputs={"image": [[8, 6, channels], "uint8"]}, schema=None)
        content = example_request(about)["instances"][0]["image"]["b64"]
        decoded = decode_image(decode_base64(content, ""), (8, 6, channels))
        np.testing.assert_array_equal(decoded, np.full((8, 6, channels), 128))

    def test_inputs_that_would_fill_the_page(self, tmp_path):
        about = description_of(inputs={"embedding": [[300], "float32"]}, schema=None)
        assert example_request(about) is None
        write_model_card(tmp_path, about)
        card = (tmp_path / "README.md").read_text(encoding="utf-8")
        assert "too many values to be written down here" in card


def test_facts_of_a_run():
    candidates = [
        {"name": "image only", "loss": 0.5, "auc": 0.8, "accuracy": 0.7, "seconds": 3.0},
        {"name": "concat", "loss": 0.4, "auc": None, "accuracy": 0.9, "seconds": 4.0},
    ]
    facts = facts_of_run(
        {
            "kind": "binary",
            "kept": "image only",
            "verdict": "None.",
            "candidates": candidates,
            "train_rows": 80,
            "validation_rows": 20,
            "target": "sick",
        },
        {"image only": Estimate(np.array([[0.8]]), 0.8, 0.7, 0.88, 0.05, "DeLong", {})},
    )
    kept = ScoreLine("image only", 0.8, 0.7, 0.88, "DeLong")
    assert facts.lines == (kept, ScoreLine("concat", None))
    assert facts.confidence == 0.95
    assert facts.others == {"loss": 0.5, "accuracy": 0.7}
    assert facts.how.startswith("Scores of 20 validation rows that also chose the epochs")


def test_facts_of_a_comparison():
    y = np.arange(40) % 2
    from kfusion.data.folds import Fold
    from kfusion.tasks import task
    from kfusion.validation.comparison import compare_results
    from kfusion.validation.cross_validation import CrossValidation, FoldResult

    rows = np.arange(40)
    folds = [Fold(i, rows[rows % 2 != i], rows[rows // 20 == i], 0) for i in range(2)]
    random = np.random.default_rng(0)
    results = {
        name: CrossValidation(
            task("binary", class_names=["no", "yes"]),
            y,
            [FoldResult(f, random.random((20, 1)), 0.0) for f in folds],
        )
        for name in ("table", "fused")
    }
    result = compare_results(results, singles=["table"], num_resamples=20, verbose=0)
    facts = facts_of_comparison(json.loads(result.to_json()), target="sick")
    assert (facts.rows, facts.class_rows, facts.groups) == (40, {"no": 20, "yes": 20}, None)
    assert facts.exported == "fused"
    assert facts.verdict == result.verdict
    own = result.estimates["fused"]
    assert facts.lines[1] == ("fused", own.value, own.low, own.high, own.method)
    assert facts.how == (
        "Means over 2 folds: each model is judged by rows that it was not trained on, 40 of 40 "
        "in all."
    )
