"""The command line: results as JSON on stdout, progress on stderr, exit 2 for a user's mistake."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shlex
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kfusion.commands import report, serve
from kfusion.commands.mistakes import CommandError, user_input

# Where `compare` keeps finished folds.
FOLDS_FOLDER = "folds"
COMPARISON_FILE = "comparison.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    arguments.line = shlex.join(["kfusion", *(sys.argv[1:] if argv is None else argv)])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow warns of retracing where models of several candidates follow one another.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    stdout = sys.stdout
    try:
        # Keras and KerasTuner print; stdout is for the results alone.
        with contextlib.redirect_stdout(sys.stderr), _warnings_in_one_line():
            result = arguments.command(arguments)
    except CommandError as error:
        print(f"kfusion: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "kfusion: stopped. Finished folds and trials in its folder are kept.", file=sys.stderr
        )
        return 130
    print(json.dumps(result, ensure_ascii=False, indent=1), file=stdout)
    return arguments.judge(result)


def _succeeded(result: dict[str, Any]) -> int:
    return 0


def _demo(arguments: argparse.Namespace) -> dict[str, Any]:
    from kfusion.demo import run_demo

    with user_input((FileExistsError,)):
        return run_demo(
            Path(arguments.out),
            tell=_tell,
            seed=arguments.seed,
            overwrite=arguments.overwrite,
            report_path=arguments.report,
            command=arguments.line,
        )


def _fit(arguments: argparse.Namespace) -> dict[str, Any]:
    return _train(arguments, search=False)


def _search(arguments: argparse.Namespace) -> dict[str, Any]:
    return _train(arguments, search=True)


def _train(arguments: argparse.Namespace, *, search: bool) -> dict[str, Any]:
    data = _load(arguments)
    train, validation = _split(data, arguments)
    # Keras is loaded only now, so that a mistake in the data shows at once.
    from kfusion import candidates, runs
    from kfusion.loading import name_image_inputs
    from kfusion.training import check_can_score

    fusions = arguments.fusions or ["concat", "multiply"]
    with user_input():
        folder = runs.check_run_folder(arguments.out, overwrite=arguments.overwrite)
        if arguments.class_weight and train.kind == "regression":
            raise ValueError("--class-weight weighs classes; the target is a regression.")
        check_can_score(train.task, validation.y)
        builders = _branches(arguments)(train)
        _check_buildable(builders, fusions)
    fit_keywords = {"batch_size": arguments.batch_size, "class_weight": arguments.class_weight}
    trained = candidates.fit_candidates(
        train,
        validation,
        fusions=fusions,
        builders=builders,
        epochs=arguments.epochs,
        seed=arguments.seed,
        **fit_keywords,
    )
    if search:
        sizes = [arguments.batch_size] if arguments.batch_size else [0]
        space: dict[str, Any] = {
            "fit_keywords": {"class_weight": arguments.class_weight},
            "batch_sizes": sizes,
        }
        if arguments.fusions:
            space["fusions"] = fusions
        with user_input((ValueError, RuntimeError)):
            found = candidates.search_candidate(
                train,
                validation,
                folder / runs.TRIALS_FOLDER,
                builders=builders,
                space=space,
                sampler=arguments.sampler,
                n_jobs=arguments.jobs,
                max_trials=arguments.trials,
                epochs=arguments.epochs,
                seed=arguments.seed,
                overwrite=arguments.overwrite,
            )
        trained.append(found)
    kept = candidates.best_candidate(trained, train.task)
    _tell(candidates.comparison_table(trained))
    told = candidates.verdict(trained, validation)
    _tell(told)
    description = runs.save_run(
        folder,
        kept,
        trained,
        train=train,
        validation=validation,
        verdict=told,
        image_columns=name_image_inputs(arguments.image),
        target=arguments.target,
        command=arguments.line,
    )
    return {**description, "run": str(folder), **report.write_report(arguments, folder, data)}


def _compare(arguments: argparse.Namespace) -> dict[str, Any]:
    data = _load(arguments)
    from kfusion.comparison import compare
    from kfusion.cross_validation import plan_folds
    from kfusion.delong import check_confidence
    from kfusion.fingerprints import OtherWorkError

    fusions = arguments.fusions or ["concat", "multiply"]
    folder = Path(arguments.out)
    branches = _branches(arguments)
    with user_input():
        _check_same_question(folder, arguments, fusions)
        folds = plan_folds(
            data, folds=arguments.folds, repeats=arguments.repeats, seed=arguments.seed
        )
        _check_buildable(branches(data), fusions)
        if arguments.overwrite and (folder / FOLDS_FOLDER).exists():
            shutil.rmtree(folder / FOLDS_FOLDER)
        if not 0 < arguments.validation <= 0.5:
            raise ValueError("--validation must lie in (0, 0.5].")
        data.task.score(arguments.score)
        check_confidence(arguments.confidence)
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
    _tell(result.summary())
    about = {"asked": fusions, **json.loads(result.to_json())}
    text = json.dumps(about, ensure_ascii=False, indent=1)
    (folder / COMPARISON_FILE).write_text(text, encoding="utf-8")
    result.plot().savefig(folder / "comparison.png", dpi=150)
    if not result.pairs:
        raise CommandError(f"No candidate came through: {result.failures}")
    return {**about, "out": str(folder), **report.write_report(arguments, result, data)}


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


def _branches(arguments: argparse.Namespace):
    """A callable from training rows to builders of branches, as the arguments ask for."""
    from functools import partial

    from kfusion.baselines import default_branches

    return partial(
        default_branches,
        backbone=arguments.backbone,
        weights=arguments.weights,
        trainable=not arguments.freeze,
        augment=arguments.augment,
        resize=arguments.resize,
    )


def _check_buildable(builders, fusions: Sequence[str]) -> None:
    """Raises what is wrong with branches or fusions before anything is trained."""
    from kfusion.models import get_fusion

    for builder in builders.values():
        builder()
    for fusion in fusions:
        get_fusion(fusion)


def _doctor(arguments: argparse.Namespace) -> dict[str, Any]:
    data = _load(arguments)
    train, validation = _split(data, arguments)
    from kfusion.candidates import fresh_fusion
    from kfusion.doctor.examination import examine
    from kfusion.runs import load_run
    from kfusion.trained_models import read_model
    from kfusion.training import default_batch_size

    with user_input((ValueError, FileNotFoundError)):
        if arguments.model is None:
            model = fresh_fusion(train, arguments.seed)
        elif Path(arguments.model).is_dir():
            run = load_run(arguments.model)
            model, schema = run.model, run.schema
            if schema is not None:
                train, validation = train.with_schema(schema), validation.with_schema(schema)
        else:
            model = read_model(arguments.model)
    diagnosis = examine(
        model,
        train,
        validation_data=validation,
        batch_size=arguments.batch_size or default_batch_size(len(train)),
        epochs=arguments.epochs,
        seed=arguments.seed,
        is_trained=arguments.model is not None,
    )
    _tell(str(diagnosis))
    return {**diagnosis.to_dict(), **report.write_report(arguments, diagnosis, data)}


def _found_an_error(result: dict[str, Any]) -> int:
    """The exit code of a diagnosis, so that a script can stop where training would be in vain."""
    return int(any(each["severity"] == "error" for each in result["findings"]))


def _export(arguments: argparse.Namespace) -> dict[str, Any]:
    from kfusion.runs import export_run, load_run

    with user_input():
        out = _new_folder(arguments.out, arguments.overwrite)
        run = load_run(arguments.run)
    path = export_run(run, out, overwrite=arguments.overwrite)
    return {"saved_model": str(path), "class_names": list(run.class_names)}


def _predict(arguments: argparse.Namespace) -> dict[str, Any]:
    from kfusion.images import BadImageError
    from kfusion.loading import NO_FILE, load_image_columns, read_csv
    from kfusion.serving import load_exported

    with user_input():
        if arguments.out and not Path(arguments.out).absolute().parent.is_dir():
            raise ValueError(f"There is no folder for --out {arguments.out}.")
        model = load_exported(arguments.model)
        frame = read_csv(arguments.csv)
        columns = _image_columns(model.image_columns, arguments.image)
        images, bad_images = load_image_columns(
            frame,
            columns,
            model.image_shapes,
            image_folder=arguments.image_folder or Path(arguments.csv).parent,
        )
        if set(columns) <= set(model.may_be_missing):
            bad_images = [bad for bad in bad_images if bad.path != NO_FILE]
        if bad_images:
            raise BadImageError(bad_images, len(frame))
        files = frame[next(iter(columns.values()))].tolist() if columns else None
        answers = model.predict(frame, images)
    rows = [_answer_of_row(model.class_names, answers, row, files) for row in range(len(frame))]
    if arguments.out is None:
        return {"rows": len(rows), "predictions": rows}
    _write_predictions(arguments.out, rows)
    return {"rows": len(rows), "out": arguments.out}


def _image_columns(known: dict[str, str], given: list[str]) -> dict[str, str]:
    """Columns of image files by input name: those of training, or those given, in their order."""
    if not given:
        return known
    if len(given) != len(known):
        raise ValueError(f"The model takes images {list(known)}. Received: --image {given}.")
    return dict(zip(known, given, strict=True))


def _answer_of_row(
    class_names: Sequence[str], answers: dict, row: int, files: list[str] | None
) -> dict[str, Any]:
    named = {"row": row} if files is None else {"row": row, "image": files[row]}
    if "prediction" in answers:
        return {**named, "prediction": float(answers["prediction"][row])}
    probabilities = [round(float(p), 6) for p in answers["probabilities"][row]]
    return {
        **named,
        "class": str(answers["class"][row]),
        "probabilities": dict(zip(class_names, probabilities, strict=True)),
    }


def _write_predictions(path: str, rows: list[dict[str, Any]]) -> None:
    import pandas as pd

    flat = []
    for row in rows:
        probabilities = row.pop("probabilities", {})
        flat.append({**row, **{f"probability_{name}": p for name, p in probabilities.items()}})
    pd.DataFrame(flat).to_csv(path, index=False)


def _load(arguments: argparse.Namespace):
    """Loads the CSV; any fault in it is the user's to mend."""
    from kfusion.loading import load_table, read_csv

    with user_input():
        frame = read_csv(arguments.csv)
        named = [*arguments.drop, *arguments.categories]
        absent = [name for name in named if name not in frame.columns]
        if absent:
            raise ValueError(f"{arguments.csv} has no column(s) {absent} to drop or to categorise.")
        frame = frame.drop(columns=arguments.drop)
        frame = frame.astype(dict.fromkeys(arguments.categories, "category"))
        return load_table(
            frame,
            image_column=arguments.image,
            target=arguments.target,
            group_column=arguments.group,
            tabular_columns=arguments.columns,
            text_columns=arguments.text,
            image_shape=arguments.image_shape,
            image_folder=arguments.image_folder or Path(arguments.csv).parent,
            kind=arguments.kind,
            on_bad_image=arguments.on_bad_image,
            on_missing_image=arguments.on_missing_image,
        )


def _split(data, arguments: argparse.Namespace):
    """Training and validation rows."""
    with user_input():
        train, validation = data.split(arguments.validation, seed=arguments.seed)
    _tell(f"{len(train)} training and {len(validation)} validation rows of {data}")
    return train, validation


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    def show(message, category, filename, lineno, file=None, line=None):
        _tell(f"kfusion: warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _new_folder(text: str, overwrite: bool) -> Path:
    path = Path(text)
    if path.exists() and not (overwrite and path.is_dir()):
        raise ValueError(f"{path} exists. Choose another folder, or pass --overwrite for a folder.")
    return path


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more; got {text!r}")
    return int(text)


def _numbers(count: int):
    def parse(text: str) -> tuple[int, ...]:
        parts = text.lower().split("x")
        if len(parts) != count or not all(part.isdigit() and int(part) for part in parts):
            shape = "HEIGHTxWIDTHxCHANNELS" if count == 3 else "HEIGHTxWIDTH"
            raise argparse.ArgumentTypeError(f"must be {shape}, such as 64x64x3; got {text!r}")
        return tuple(int(part) for part in parts)

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kfusion", description="Fuses images with a table: from a CSV file to a SavedModel."
    )
    parser.set_defaults(judge=_succeeded)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="run the whole road on satellite patches that ship")
    demo.add_argument(
        "--out", default="kfusion-demo", help="folder to write (default: %(default)s)"
    )
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--overwrite", action="store_true")
    report.add_option(demo)
    demo.set_defaults(command=_demo)

    fit = commands.add_parser("fit", help="train single inputs and fusions; keep the best")
    _add_training_arguments(fit, epochs=30)
    fit.set_defaults(command=_fit)

    search = commands.add_parser("search", help="the same, and a KerasTuner search of fusions")
    _add_training_arguments(search, epochs=20)
    search.add_argument("--trials", type=_positive, default=20)
    search.add_argument("--sampler", choices=["tpe", "gp", "cmaes", "random", "qmc"], default="tpe")
    search.add_argument("--jobs", type=_positive, default=1, help="processes at once; default: 1")
    search.set_defaults(command=_search)

    compare = commands.add_parser(
        "compare", help="cross-validate fusions beside each input alone, with a verdict"
    )
    _add_training_arguments(compare, epochs=30)
    compare.add_argument("--folds", type=_positive, default=5, help="default: %(default)s")
    compare.add_argument("--repeats", type=_positive, default=1, help="default: %(default)s")
    compare.add_argument("--score", help="what to compare by (default: auc, or rmse)")
    compare.add_argument(
        "--confidence", type=float, default=0.95, help="of intervals (default: %(default)s)"
    )
    compare.add_argument("--jobs", type=int, default=1, help="folds at once; -1: one per core")
    compare.set_defaults(command=_compare)

    doctor = commands.add_parser(
        "doctor",
        help="say why a model does not learn, or a fusion loses",
        epilog="Exit code: 0; 1 where a finding is an error; 2 where an argument or the data are.",
    )
    _add_data_arguments(doctor)
    doctor.add_argument(
        "--model", metavar="PATH", help="a run's folder or a .keras file (default: a fresh fusion)"
    )
    doctor.add_argument("--epochs", type=_positive, help="of the training")
    doctor.set_defaults(command=_doctor, judge=_found_an_error)

    export = commands.add_parser("export", help="write a trained run as a SavedModel")
    export.add_argument("run", metavar="RUN_DIR", help="folder written by fit or search")
    export.add_argument("--out", required=True, help="folder to write")
    export.add_argument("--overwrite", action="store_true")
    export.set_defaults(command=_export)

    predict = commands.add_parser("predict", help="predict the rows of a CSV file")
    predict.add_argument("model", metavar="MODEL_DIR", help="folder written by export")
    predict.add_argument("csv", metavar="CSV")
    predict.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="COL",
        help="column of image files (default: as in training)",
    )
    predict.add_argument("--image-folder", help="where relative paths start (default: the CSV's)")
    predict.add_argument("--out", help="CSV file for the predictions, instead of stdout")
    predict.set_defaults(command=_predict)

    report.add_parser(commands)
    serve.add_parser(commands)
    return parser


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("csv", metavar="CSV")
    add(
        "--image",
        required=True,
        action="append",
        metavar="COL",
        help="column of image files; again for each of several",
    )
    add("--text", action="append", default=[], metavar="COL", help="column of sentences")
    add("--target", required=True, metavar="COL", help="column to predict")
    add("--group", metavar="COL", help="rows with equal values are never split")
    add("--columns", nargs="+", metavar="COL", help="columns to learn from (default: all others)")
    add("--drop", nargs="+", default=[], metavar="COL", help="columns to leave out")
    add("--categories", nargs="+", default=[], metavar="COL", help="numbers that are categories")
    add("--kind", choices=["binary", "multiclass", "regression"], help="default: from the target")
    add("--image-shape", type=_numbers(3), metavar="HxWxC", help="default: that of the files")
    add("--image-folder", metavar="DIR", help="where relative paths start (default: the CSV's)")
    add("--on-bad-image", choices=["error", "drop"], default="error")
    add("--on-missing-image", choices=["error", "drop", "keep"], help="of rows that name no file")
    add("--batch-size", type=_positive, help="default: 64, or less for a small table")
    add("--validation", type=float, default=0.2, help="share of rows (default: %(default)s)")
    add("--seed", type=int, default=0)
    report.add_option(parser)


def _add_training_arguments(parser: argparse.ArgumentParser, *, epochs: int) -> None:
    _add_data_arguments(parser)
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="folder for the run")
    add("--backbone", default="conv", help='"conv" or a name in keras.applications')
    add("--weights", help='weights of an application: "imagenet" or a file')
    add("--freeze", action="store_true", help="keep the backbone as it is")
    add("--resize", type=_numbers(2), metavar="HxW", help="resize inside the model")
    add("--augment", action="store_true", help="flip and shift training images")
    add(
        "--fusions",
        nargs="+",
        metavar="NAME",
        help="default: concat multiply; searched: all of vectors",
    )
    add("--epochs", type=_positive, default=epochs)
    add("--class-weight", choices=["balanced"])
    add("--overwrite", action="store_true")


if __name__ == "__main__":
    sys.exit(main())
