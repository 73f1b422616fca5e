"""`kfusion fit` and `kfusion search`: models side by side on one split, the best of them kept."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kfusion.commands.mistakes import user_input
from kfusion.commands.options import add_training_arguments, positive
from kfusion.commands.report import write_report
from kfusion.commands.rows import branches_asked_for, check_buildable, load_data, split_data
from kfusion.commands.telling import tell

MODALITY_DROPOUT = 0.3


def add_parser(commands: Any) -> None:
    """Declares both commands and their arguments."""
    fit = commands.add_parser("fit", help="train single inputs and fusions; keep the best")
    add_training_arguments(fit, epochs=30)
    fit.set_defaults(command=_fit)

    search = commands.add_parser("search", help="the same, and a KerasTuner search of fusions")
    add_training_arguments(search, epochs=20)
    search.add_argument("--trials", type=positive, default=20)
    search.add_argument("--sampler", choices=["tpe", "gp", "cmaes", "random", "qmc"], default="tpe")
    search.add_argument("--jobs", type=positive, default=1, help="processes at once; default: 1")
    search.set_defaults(command=_search, kept_when_stopped=" Finished trials are kept.")


def _fit(arguments: argparse.Namespace) -> dict[str, Any]:
    return _train(arguments, search=False)


def _search(arguments: argparse.Namespace) -> dict[str, Any]:
    return _train(arguments, search=True)


def _train(arguments: argparse.Namespace, *, search: bool) -> dict[str, Any]:
    data = load_data(arguments)
    train, validation = split_data(data, arguments)
    # Keras is loaded only now, so that a mistake in the data shows at once.
    from kfusion.data.loading import name_image_inputs
    from kfusion.runs import candidates
    from kfusion.runs import run_folders as runs
    from kfusion.training.fitting import check_can_score

    fusions = arguments.fusions or ["concat", "multiply"]
    with user_input():
        folder = runs.check_run_folder(arguments.out, overwrite=arguments.overwrite)
        if arguments.class_weight and train.kind == "regression":
            raise ValueError("--class-weight weighs classes; the target is a regression.")
        check_can_score(train.task, validation.y)
        builders = branches_asked_for(arguments)(train)
        check_buildable(builders, fusions)
    # Rows that are kept without an image are there so that such rows can be answered.
    dropped = MODALITY_DROPOUT if arguments.on_missing_image == "keep" else None
    fit_keywords = {"batch_size": arguments.batch_size, "class_weight": arguments.class_weight}
    trained = candidates.fit_candidates(
        train,
        validation,
        fusions=fusions,
        builders=builders,
        epochs=arguments.epochs,
        seed=arguments.seed,
        modality_dropout=dropped,
        **fit_keywords,
    )
    if search:
        sizes = [arguments.batch_size] if arguments.batch_size else [0]
        space: dict[str, Any] = {
            "fit_keywords": {"class_weight": arguments.class_weight},
            "batch_sizes": sizes,
            "modality_dropout": dropped,
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
    tell(candidates.comparison_table(trained))
    told = candidates.verdict(trained, validation)
    tell(told)
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
        **_known_source(arguments),
    )
    return {**description, "run": str(folder), **write_report(arguments, folder, data)}


def _known_source(arguments: argparse.Namespace) -> dict[str, Any]:
    """Where the rows came from, for a later report; streamed images are too many to read again."""
    if arguments.streaming:
        return {}
    from kfusion.runs.run_sources import describe_source

    folder = arguments.image_folder or Path(arguments.csv).parent
    return {"source": describe_source(arguments.csv, folder)}
