"""Members fitted on every fold: their predictions of the rows held out, and the fold models."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kfusion.data.folds import Fold
from kfusion.estimators.member_folds import MemberFolds
from kfusion.estimators.members import Member, Rows
from kfusion.estimators.presence_blends import fit_presence_blends, rows_by_presence
from kfusion.progress import Progress, progress
from kfusion.tasks import Task
from kfusion.validation.cross_validation import CrossValidation, FoldResult
from kfusion.validation.finished_parts import FinishedParts, fold_name, part_name

# Parts of the rows that one split holds out, of which each is judged by a blend of the others.
JUDGED_PARTS = 4


def bag(
    members: Mapping[str, Member],
    rows: Rows,
    folds: Sequence[Fold],
    *,
    task: Task,
    seed: int = 0,
    directory: Path | None = None,
    about: Mapping[str, Any] | None = None,
    verbose: int | bool = 1,
) -> dict[str, CrossValidation]:
    """Fits every member on the training rows of every fold, stopped by the fold's other rows.

    Args:
        members: `Member` by name.
        rows: `Rows`.
        folds: `Fold` objects.
        task: `Task`.
        seed: Int.
        directory: Folder for finished fits: the same call goes on there after a kill.
        about: What the members and rows are, JSON-able by name: fits of others are refused,
            and the names of what differs are told.
        verbose: 0 hides the progress bar.

    Returns:
        `CrossValidation` by name, models kept.

    Raises:
        FoldError: If a fit fails; names the member and fold.
    """
    results: dict[str, list[FoldResult]] = {}
    with contextlib.ExitStack() as held:
        folders = {}
        for name in members if directory is not None else ():
            folders[name] = FinishedParts(Path(directory or "") / part_name(name), True)
            held.enter_context(folders[name].opened({**(about or {}), "member": name}))
        bar = progress(range(len(members) * len(folds)), description="members", verbose=verbose)
        held.enter_context(bar)
        for name, member in members.items():
            fits = MemberFolds(name, member, rows, task, seed)
            folder = folders.get(name)
            if folder is None:
                found = _fit(fits, folds, len(folds), bar)
            else:
                found = _kept(fits, folds, bar, folder)
            results[name] = sorted(found, key=lambda result: result.fold.number)
    return {name: CrossValidation(task, rows.y, found) for name, found in results.items()}


def _fit(
    fits: MemberFolds, folds: Sequence[Fold], num_folds: int, bar: Progress
) -> Iterator[FoldResult]:
    """Fits folds, those together that can be."""
    for together in fits.at_once(folds):
        numbers = " and ".join(str(fold.number + 1) for fold in together)
        bar.note(f"{fits.name}, fold {numbers} of {num_folds}")
        for result in fits.fit(together):
            yield result
            bar.advance()


def _kept(
    fits: MemberFolds, folds: Sequence[Fold], bar: Progress, folder: FinishedParts
) -> Iterator[FoldResult]:
    """Fits the folds that are not finished yet, keeps them, and reads all."""
    left = [fold for fold in folds if not folder.has(fold_name(fold.number))]
    bar.skipped += len(folds) - len(left)
    bar.advance(len(folds) - len(left))
    for result in _fit(fits, left, len(folds), bar):
        folder.write(
            fold_name(result.fold.number),
            result.predictions,
            result.seconds,
            result.model,
            result.history,
        )
    for fold in folds:
        yield FoldResult(fold, *folder.read(fold_name(fold.number)))


def blend_outside(
    results: Mapping[str, CrossValidation],
    *,
    modalities: Mapping[str, Collection[str]] | None = None,
    present: Mapping[str, np.ndarray] | None = None,
    weights: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> CrossValidation:
    """The blend's own out-of-fold predictions: of each fold's rows by weights of the other rows.

    Where there is one fold only, its rows are judged in 4 parts, groups whole.

    Args:
        results: `CrossValidation` by member, on the same folds.
        modalities: Names of the inputs that each member learned from, by member; None for rows of
            which none lacks any.
        present: `(rows,)` booleans by input.
        weights: `(rows,)` floats, how much each row counts, or None.
        groups: `(rows,)` values, or None.
        seed: Int.
    """
    first = next(iter(results.values()))
    task, y = first.task, first.y
    modalities = modalities or dict.fromkeys(results, ())
    known = {name for used in modalities.values() for name in used}
    there = {name: mask for name, mask in (present or {}).items() if name in known}
    repeats = {result.fold.repeat for result in first.folds}
    members = {
        repeat: {name: _of_repeat(result, repeat) for name, result in results.items()}
        for repeat in repeats
    }
    found = []
    for number, result in enumerate(first.folds):
        fold = result.fold
        parts = [np.arange(len(fold.test))]
        if len(first.folds) == 1:
            parts = _parts(len(fold.test), None if groups is None else groups[fold.test], seed)
        predictions = np.empty((len(fold.test), task.units))
        for part in parts:
            # Of the same repeat: means over repeats are surer than what they would be weights for.
            beside = members[fold.repeat]
            judged = np.flatnonzero(np.isfinite(next(iter(beside.values()))).all(axis=1))
            others = np.setdiff1d(judged, fold.test[part])
            own_present = {name: mask[fold.test[part]] for name, mask in there.items()}
            blends = fit_presence_blends(
                {name: values[others] for name, values in beside.items()},
                y[others],
                modalities=modalities,
                present={name: mask[others] for name, mask in there.items()},
                sample_weight=None if weights is None else weights[others],
                wanted=[inputs for inputs, _ in rows_by_presence(own_present)],
            )
            own = {
                name: pooled(results[name].folds[number].predictions[part], task)
                for name in results
            }
            predictions[part] = _unpooled(blends.apply(own, own_present), task)
        found.append(FoldResult(fold, predictions, 0.0))
    return CrossValidation(task, y, found)


def pooled(predictions: np.ndarray, task: Task) -> np.ndarray:
    """Predictions as `fit_blend` takes them: a column per class, or one of values."""
    return predictions if task.kind == "regression" else task.probabilities(predictions)


def _of_repeat(result: CrossValidation, repeat: int) -> np.ndarray:
    """Pooled predictions of all rows by the folds of one repeat."""
    folds = [found for found in result.folds if found.fold.repeat == repeat]
    return pooled(CrossValidation(result.task, result.y, folds).predictions, result.task)


def _unpooled(pool: np.ndarray, task: Task) -> np.ndarray:
    return pool[:, 1:] if task.kind == "binary" else pool


def _parts(num_rows: int, groups: np.ndarray | None, seed: int) -> list[np.ndarray]:
    numbers = np.arange(num_rows) if groups is None else pd.factorize(groups)[0]
    drawn = np.random.default_rng(seed).permutation(numbers.max() + 1) % JUDGED_PARTS
    return [part for i in range(JUDGED_PARTS) if (part := np.flatnonzero(drawn[numbers] == i)).size]
