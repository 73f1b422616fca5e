"""`kfusion fit` and `kfusion search`: models side by side on one split, the best of them kept."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

from kfusion.commands.mistakes import user_input
from kfusion.commands.networks import (
    branches_asked_for,
    check_buildable,
    check_networks,
    describe_images,
)
from kfusion.commands.options import add_training_arguments, positive
from kfusion.commands.report import write_report
from kfusion.commands.rows import load_data, split_data
from kfusion.commands.telling import tell

MODALITY_DROPOUT = 0.3


def add_parser(commands: Any) -> None:
    """Declares both commands and their arguments."""
    fit = commands.add_parser("fit", help="train single inputs and fusions; keep the best")
    add_training_arguments(fit, epochs=30)
    fit.set_defaults(
        command=_fit, kept_when_stopped=" Trained models are kept: the same command goes on."
    )

    search = commands.add_parser("search", help="the same, and a KerasTuner search of fusions")
    add_training_arguments(search, epochs=20)
    search.add_argument("--trials", type=positive, default=20)
    search.add_argument("--sampler", choices=["tpe", "gp", "cmaes", "random", "qmc"], default="tpe")
    search.add_argument("--jobs", type=positive, default=1, help="processes at once; default: 1")
    search.set_defaults(
        command=_search,
        kept_when_stopped=" Trained models and finished trials are kept: the same command goes on.",
    )


def _fit(arguments: argparse.Namespace) -> dict[str, Any]:
    return _train(arguments, search=False)


def _search(arguments: argparse.Namespace) -> dict[str, Any]:
    return _train(arguments, search=True)


def _train(arguments: argparse.Namespace, *, search: bool) -> dict[str, Any]:
    from kfusion.runs.run_records import TRIALS_FOLDER, check_run_folder

    with user_input():
        folder = check_run_folder(arguments.out, overwrite=arguments.overwrite)
    check_networks(arguments)
    if search:
        _check_sampler(arguments.sampler)
    data = load_data(arguments)
    train, validation = split_data(data, arguments)
    # Keras is loaded only now, so that a mistake in the data shows at once.
    from kfusion.data.fingerprints import OtherWorkError
    from kfusion.data.loading import name_image_inputs
    from kfusion.runs import candidates
    from kfusion.runs.run_folders import save_run
    from kfusion.runs.unfinished_runs import UnfinishedRun, describe_run
    from kfusion.training.fitting import check_can_score

    fusions = arguments.fusions or ["concat", "multiply"]
    with user_input():
        if arguments.class_weight and train.kind == "regression":
            raise ValueError("--class-weight weighs classes; the target is a regression.")
        check_can_score(train.task, validation.y)
        builders = branches_asked_for(arguments)(train)
        check_buildable(builders)
    # Rows that are kept without an image are there so that such rows can be answered.
    dropped = MODALITY_DROPOUT if arguments.on_missing_image == "keep" else None
    settings = {
        "epochs": arguments.epochs,
        "seed": arguments.seed,
        "modality_dropout": dropped,
        "batch_size": arguments.batch_size,
        "class_weight": arguments.class_weight,
    }
    unfinished = UnfinishedRun(folder)
    about = describe_run(train, validation, {**settings, "images": describe_images(arguments)})
    with contextlib.ExitStack() as held:
        with user_input((OtherWorkError, OSError, RuntimeError)):
            held.enter_context(unfinished.opened(about, overwrite=arguments.overwrite))
        done = unfinished.finished(candidates.candidate_names(builders, fusions))
        if done:
            tell(f"Goes on in {folder}: {', '.join(done)} had been trained and stay as they are.")
        trained = candidates.fit_candidates(
            train,
            validation,
            fusions=fusions,
            builders=builders,
            parts=unfinished.parts,
            **settings,
        )
        if search:
            space = _space(arguments, dropped)
            search_of = {"space": space, "sampler": arguments.sampler}
            if unfinished.begin_study(search_of, overwrite=arguments.overwrite):
                tell(f"The search in {folder / TRIALS_FOLDER} goes on where it was stopped.")
            with user_input((ValueError, RuntimeError)):
                found = candidates.search_candidate(
                    train,
                    validation,
                    folder / TRIALS_FOLDER,
                    builders=builders,
                    space=space,
                    sampler=arguments.sampler,
                    n_jobs=arguments.jobs,
                    max_trials=arguments.trials,
                    epochs=arguments.epochs,
                    seed=arguments.seed,
                )
            trained.append(found)
        kept = candidates.best_candidate(trained, train.task)
        tell(candidates.comparison_table(trained))
        told = candidates.verdict(trained, validation)
        tell(told)
        description = save_run(
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
    unfinished.remove()
    return {**description, "run": str(folder), **write_report(arguments, folder, data)}


def _space(arguments: argparse.Namespace, modality_dropout: float | None) -> dict[str, Any]:
    """What the arguments say of the space of fused models."""
    space: dict[str, Any] = {
        "fit_keywords": {"class_weight": arguments.class_weight},
        "batch_sizes": [arguments.batch_size or 0],
        "modality_dropout": modality_dropout,
    }
    if arguments.fusions:
        space["fusions"] = arguments.fusions
    return space


def _check_sampler(sampler: str) -> None:
    """Raises what is wrong with a sampler: some need packages."""
    if sampler == "tpe":
        return
    from kfusion.search.samplers import check_sampler

    with user_input():
        check_sampler(sampler)


def _known_source(arguments: argparse.Namespace) -> dict[str, Any]:
    """Where the rows came from, for a later report; streamed images are too many to read again."""
    if arguments.streaming:
        return {}
    from kfusion.runs.run_sources import describe_source

    folder = arguments.image_folder or Path(arguments.csv).parent
    return {"source": describe_source(arguments.csv, folder)}
