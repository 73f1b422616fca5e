"""Which rows train and which rows judge: folds that keep classes, groups and time apart rightly."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

# Grouped and stratified folds are drawn at random; a class may be missing from one by chance.
_DRAWS = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Fold:
    """Rows to train on and rows to judge by.

    Attributes:
        number: Int from 0, over all repeats.
        train: `(training rows,)` ints, positions in the table.
        test: `(test rows,)` ints.
        repeat: Int from 0: the folds of one repeat judge no row twice. 0 for folds that are given.
    """

    number: int
    train: np.ndarray = dataclasses.field(repr=False)
    test: np.ndarray = dataclasses.field(repr=False)
    repeat: int = 0


def make_folds(
    num_rows: int,
    *,
    folds: int | Any = 5,
    labels: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    groups: np.ndarray | None = None,
    order: np.ndarray | None = None,
    repeats: int = 1,
    seed: int = 0,
) -> list[Fold]:
    """Makes folds of rows, or checks those given.

    Args:
        num_rows: Int, rows of the table.
        folds: Int, number of folds; a scikit-learn splitter; or an iterable of
            `(train, test)` row positions or masks.
        labels: `(rows,)` ints: classes keep their shares in each fold. None for a regression.
        class_names: Names of the labels, for messages.
        groups: `(rows,)` values: rows that share one are never split.
        order: `(rows,)` sortable values such as times: each fold trains on earlier rows than it
            judges, and more of them from fold to fold; rows of one time stay together. The
            earliest block is never judged.
        repeats: Int, how often all folds are drawn anew.
        seed: Int.

    Returns:
        `Fold` objects.

    Raises:
        ValueError: If there are fewer rows, groups, or rows or groups of a class than folds; a
            fold trains on its own test rows, splits a group, has no rows, or lacks a class; or
            arguments exclude each other. The message names the fold, class or row.

    Example:
        >>> folds = make_folds(6, folds=3, labels=np.array([0, 0, 0, 1, 1, 1]))
        >>> [sorted(fold.test.tolist()) for fold in folds]
        [[2, 4], [1, 5], [0, 3]]
    """
    for name, values in {"labels": labels, "groups": groups, "order": order}.items():
        if values is not None and len(values) != num_rows:
            raise ValueError(f"`{name}` has {len(values)} entries for {num_rows} rows.")
    groups = None if groups is None else np.asarray(groups)
    if class_names is None and labels is not None:
        class_names = [str(label) for label in range(int(np.max(labels)) + 1)]
    if isinstance(folds, (int, np.integer)) and not isinstance(folds, bool):
        if folds < 2 or repeats < 1:
            raise ValueError(
                f"There must be at least 2 folds and 1 repeat. Received: folds={folds}, "
                f"repeats={repeats}."
            )
        if order is not None:
            if repeats > 1:
                raise ValueError("Folds in time have one order: leave `repeats` at 1.")
            pairs = [(0, pair) for pair in _split_in_time(np.asarray(order), int(folds))]
        else:
            _check_enough(num_rows, int(folds), labels, class_names, groups)
            pairs = [
                (repeat, pair)
                for repeat in range(repeats)
                for pair in _draw(num_rows, int(folds), labels, groups, seed + 1000 * repeat)
            ]
    else:
        if repeats > 1 or order is not None:
            raise ValueError("Folds that are given have their own repeats and order.")
        pairs = _read_pairs(folds, num_rows, labels, groups)
    made = [
        Fold(number, np.asarray(train), np.asarray(test), repeat)
        for number, (repeat, (train, test)) in enumerate(pairs)
    ]
    if not made:
        raise ValueError("`folds` holds no fold.")
    for fold in made:
        _check_fold(fold, labels, class_names, groups)
    return made


def draw_splits(
    num_rows: int,
    num_folds: int,
    *,
    labels: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields `(train, test)` positions: stratified by labels, groups whole, shuffled by seed.

    Nothing is checked; with few groups a part may be empty or lack a class.
    """
    shuffled: dict[str, Any] = {"shuffle": True, "random_state": seed}
    if labels is None:
        splitter = (KFold if groups is None else GroupKFold)(num_folds, **shuffled)
    else:
        splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(
            num_folds, **shuffled
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*least populated class.*")
        yield from splitter.split(np.zeros(num_rows), labels, groups)


def _draw(num_rows, num_folds, labels, groups, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds of which none lacks a class, if a few draws find such."""
    draws = 1 if labels is None or groups is None else _DRAWS
    for draw in range(draws):
        pairs = list(
            draw_splits(num_rows, num_folds, labels=labels, groups=groups, seed=seed + draw)
        )
        if labels is None or all(_has_all(labels, part) for pair in pairs for part in pair):
            break
    return pairs


def _has_all(labels: np.ndarray, rows: np.ndarray) -> bool:
    return bool(np.isin(np.unique(labels), labels[rows]).all())


def _check_enough(num_rows, num_folds, labels, class_names, groups) -> None:
    units = "rows" if groups is None else "groups"
    count = num_rows if groups is None else len(np.unique(groups))
    if count < num_folds:
        raise ValueError(f"{num_folds} folds cannot be made of {count} {units}: use fewer folds.")
    if labels is None:
        return
    for label in np.unique(labels):
        members = labels == label
        count = np.count_nonzero(members) if groups is None else len(np.unique(groups[members]))
        if count < num_folds:
            raise ValueError(
                f"Class {class_names[label]!r} is in {count} {units} only, fewer than the "
                f"{num_folds} folds, so one would lack it: use fewer folds, or merge or drop the "
                "class."
            )


def _split_in_time(order: np.ndarray, num_folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    missing = np.flatnonzero(pd.isna(order))
    if missing.size:
        raise ValueError(f"`order` is missing in row {missing[0]} ({missing.size} in all).")
    times, counts = np.unique(order, return_counts=True)
    if len(times) <= num_folds:
        raise ValueError(
            f"{num_folds} folds in time need at least {num_folds + 1} different times. `order` "
            f"has {len(times)}: use fewer folds."
        )
    position = np.searchsorted(times, order)
    # A time belongs to the block in which its middle row lies.
    middles = (np.cumsum(counts) - counts / 2) / len(order)
    blocks = np.minimum((middles * (num_folds + 1)).astype(int), num_folds)
    if len(np.unique(blocks)) <= num_folds:  # a few times hold most rows
        blocks = np.arange(len(times)) * (num_folds + 1) // len(times)
    block = blocks[position]
    return [
        (np.flatnonzero(block < number), np.flatnonzero(block == number))
        for number in range(1, num_folds + 1)
    ]


def _read_pairs(folds, num_rows: int, labels, groups) -> list[tuple[int, Any]]:
    """The repeat of each fold given, and its pair of row positions."""
    if hasattr(folds, "split") and not isinstance(folds, str):
        folds = folds.split(np.zeros(num_rows), labels, groups)
    if isinstance(folds, (str, bytes)) or not isinstance(folds, Iterable):
        raise TypeError(
            "`folds` must be a number, a scikit-learn splitter or an iterable of (train, test). "
            f"Received: {folds!r}."
        )
    pairs = []
    for number, pair in enumerate(folds):
        repeat = 0
        if isinstance(pair, Fold):
            repeat, pair = pair.repeat, (pair.train, pair.test)
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"Fold {number} must be a pair (train, test). Received: {pair!r}.")
        pairs.append((repeat, [_as_positions(rows, num_rows, number) for rows in pair]))
    return pairs


def _as_positions(rows: Any, num_rows: int, number: int) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.ndim == 1 and rows.dtype == bool and len(rows) == num_rows:
        return np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not rows.size:
        raise ValueError(
            f"Fold {number} must hold row positions, `(rows,)` ints, or masks of all {num_rows} "
            f"rows. Received: shape={rows.shape}, dtype={rows.dtype}."
        )
    wrong = rows[(rows < 0) | (rows >= num_rows)]
    if wrong.size:
        raise ValueError(f"Fold {number} names row {wrong[0]} of a table of {num_rows} rows.")
    if len(np.unique(rows)) < len(rows):
        raise ValueError(f"Fold {number} names a row more than once.")
    return rows.astype(np.int64)


def _check_fold(fold: Fold, labels, class_names, groups) -> None:
    overlap = np.intersect1d(fold.train, fold.test)
    if overlap.size:
        raise ValueError(
            f"Fold {fold.number} trains on {overlap.size} of its own test rows, e.g. row "
            f"{overlap[0]}."
        )
    for name, rows in {"training": fold.train, "test": fold.test}.items():
        if not rows.size:
            raise ValueError(f"Fold {fold.number} has no {name} rows.")
        if labels is None:
            continue
        present = np.isin(np.unique(labels), labels[rows])
        if not present.all():
            lacking = class_names[np.unique(labels)[~present][0]]
            raise ValueError(
                f"Fold {fold.number} has no row of class {lacking!r} among its {rows.size} {name} "
                "rows: use fewer folds, other groups, or merge or drop the class."
            )
    if groups is None:
        return
    split = np.intersect1d(groups[fold.train], groups[fold.test])
    if split.size:
        raise ValueError(
            f"Fold {fold.number} splits {split.size} group(s), e.g. {split[0]!r}, between training "
            "and test rows."
        )
