"""`kfusion doctor`: why a model does not learn, or a fusion loses."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kfusion.commands.mistakes import CommandError, user_input
from kfusion.commands.options import add_data_arguments, positive
from kfusion.commands.report import write_report
from kfusion.commands.rows import load_data, split_data
from kfusion.commands.telling import tell


def add_parser(commands: Any) -> None:
    """Declares the command and its arguments."""
    parser = commands.add_parser(
        "doctor",
        help="say why a model does not learn, or a fusion loses",
        epilog="Exit code: 0; 1 where a finding is an error; 2 where an argument or the data are.",
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--model", metavar="PATH", help="a run's folder or a .keras file (default: a fresh fusion)"
    )
    parser.add_argument("--epochs", type=positive, help="of the training")
    parser.add_argument(
        "--batch-size", type=positive, help="default: 64, or less for a small table"
    )
    parser.set_defaults(command=_doctor, judge=_found_an_error)


def _doctor(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.model is not None and not Path(arguments.model).exists():
        raise CommandError(f"There is no --model {arguments.model}.")
    data = load_data(arguments)
    train, validation = split_data(data, arguments)
    from kfusion.doctor.examination import examine
    from kfusion.models.trained_models import read_model
    from kfusion.runs.candidates import fresh_fusion
    from kfusion.runs.run_folders import load_run
    from kfusion.training.batch_sizes import default_batch_size

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
    tell(str(diagnosis))
    return {**diagnosis.to_dict(), **write_report(arguments, diagnosis, data)}


def _found_an_error(result: dict[str, Any]) -> int:
    """The exit code of a diagnosis, so that a script can stop where training would be in vain."""
    return int(any(each["severity"] == "error" for each in result["findings"]))
