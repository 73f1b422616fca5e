"""`kfusion compare`: fusions beside each input alone, cross-validated."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from kfusion.commands.mistakes import CommandError, user_input
from kfusion.commands.networks import branches_asked_for, check_buildable, check_networks
from kfusion.commands.options import add_training_arguments, positive
from kfusion.commands.report import write_report
from kfusion.commands.rows import load_data
from kfusion.commands.telling import tell

# Where `compare` keeps finished folds.
FOLDS_FOLDER = "folds"
COMPARISON_FILE = "comparison.json"


def add_parser(commands: Any) -> None:
    """Declares the command and its arguments."""
    parser = commands.add_parser(
        "compare", help="cross-validate fusions beside each input alone, with a verdict"
    )
    add_training_arguments(parser, epochs=30)
    parser.add_argument("--folds", type=positive, default=5, help="default: %(default)s")
    parser.add_argument("--repeats", type=positive, default=1, help="default: %(default)s")
    parser.add_argument("--score", help="what to compare by (default: auc, or rmse)")
    parser.add_argument(
        "--confidence", type=float, default=0.95, help="of intervals (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="folds at once; -1: one per core")
    parser.set_defaults(command=_compare, kept_when_stopped=" Finished folds are kept.")


def _compare(arguments: argparse.Namespace) -> dict[str, Any]:
    from kfusion.evidence.delong import check_confidence

    fusions = arguments.fusions or ["concat", "multiply"]
    folder = Path(arguments.out)
    with user_input():
        check_confidence(arguments.confidence)
        _check_same_question(folder, arguments, fusions)
    check_networks(arguments)
    data = load_data(arguments)
    from kfusion.data.fingerprints import OtherWorkError
    from kfusion.validation.comparison import compare
    from kfusion.validation.cross_validation import plan_folds

    branches = branches_asked_for(arguments)
    with user_input():
        folds = plan_folds(
            data, folds=arguments.folds, repeats=arguments.repeats, seed=arguments.seed
        )
        check_buildable(branches(data))
        if arguments.overwrite and (folder / FOLDS_FOLDER).exists():
            shutil.rmtree(folder / FOLDS_FOLDER)
        data.task.score(arguments.score)
    with user_input((OtherWorkError,)):
        result = compare(
            fusions,
            data,
            folds=folds,
            n_jobs=arguments.jobs,
            directory=folder / FOLDS_FOLDER,
            seed=arguments.seed,
            branches=branches,
            validation=arguments.validation,
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            class_weight=arguments.class_weight,
            score=arguments.score,
            confidence=arguments.confidence,
        )
    tell(result.summary())
    about = {"asked": fusions, **json.loads(result.to_json())}
    text = json.dumps(about, ensure_ascii=False, indent=1)
    (folder / COMPARISON_FILE).write_text(text, encoding="utf-8")
    result.plot().savefig(folder / "comparison.png", dpi=150)
    if not result.pairs:
        raise CommandError(f"No candidate came through: {result.failures}")
    return {**about, "out": str(folder), **write_report(arguments, result, data)}


def _check_same_question(folder: Path, arguments: argparse.Namespace, fusions: list[str]) -> None:
    """Raises `ValueError` if the folder's finished comparison is one of other fusions."""
    path = folder / COMPARISON_FILE
    if arguments.overwrite or not path.exists():
        return
    known = set(json.loads(path.read_text(encoding="utf-8"))["asked"])
    if known != set(fusions):
        raise ValueError(
            f"{folder} holds a finished comparison of {sorted(known)}. Choose another folder, or "
            "pass --overwrite."
        )
