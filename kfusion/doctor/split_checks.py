"""Checks of what training and validation share: rows, images, groups; and rows that contradict."""

from __future__ import annotations

import numpy as np
from scipy import stats

from kfusion.data.lazy_rows import LazyRows, some_rows
from kfusion.doctor.answers import targets
from kfusion.doctor.case import Case, Rows
from kfusion.doctor.findings import Finding, Undecided
from kfusion.doctor.row_hashes import hash_rows, join_hashes
from kfusion.doctor.undecided import Said

MOST_ROWS = 200_000
# Numbers from which a row, such as an image, does not come twice by chance.
LONG_ROW = 64
# Shares of rows from which findings are made, and from which scores mean nothing.
FEW, MANY = 0.002, 0.05


def check_shared_rows(case: Case) -> Said:
    """Rows, or single inputs such as images, that are in training and in validation."""
    if case.validation is None:
        return
    train, validation = _some(case.train, case.seed), _some(case.validation, case.seed)
    names = [name for name in train.x if name in validation.x]
    # Whole rows first; an input alone only tells more if it finds more.
    # Short texts are the same in many rows.
    alone = [[name] for name in names if name not in case.texts]
    parts = [names, *alone] if len(names) > 1 else [names]
    told = 0
    of_train, of_validation = (
        {name: hash_rows([rows.x[name]]) for name in names} for rows in (train, validation)
    )
    for part in parts:
        arrays = [train.x[name] for name in part]
        if len(part) == 1 and part != names and _width(arrays) < LONG_ROW:
            continue
        hashes = join_hashes([of_train[name] for name in part])
        others = join_hashes([of_validation[name] for name in part])
        asked = [validation.x[name] for name in part]
        others_known = np.isin(others, hashes) & _varied(asked) & _is_whole(asked)
        shared = int(others_known.sum())
        fewest = (
            max(1, FEW * len(others)) if _width(arrays) >= LONG_ROW else max(3, len(others) / 50)
        )
        if shared <= told or shared < fewest:
            continue
        subject = "rows" if part == names and len(names) > 1 else part[0]
        if not _tell_rows_apart(arrays, hashes):
            yield Undecided(
                "rows_shared",
                f"{shared} validation rows of {subject!r} equal training rows, but rows of so few "
                "different values are equal by chance",
            )
            continue
        told = shared
        yield _shared_finding(subject, shared, len(others), np.flatnonzero(others_known)[:3])


def _shared_finding(subject: str, shared: int, rows: int, examples: np.ndarray) -> Finding:
    share = shared / rows
    return Finding(
        "rows_shared",
        "error" if share >= MANY else "warning",
        subject,
        f"{shared} of {rows} validation rows ({share:.1%}) are exactly as in training, such as "
        f"validation rows {examples.tolist()}",
        "the model has seen their answers: validation scores are too good, and the more it "
        "overfits the better they look",
        "drop duplicates before splitting (and oversample after it), or pass `groups=` such that "
        "twins share one",
        {"shared": shared, "share": share},
    )


def check_contradictions(case: Case) -> Said:
    """Training rows that are equal but have different labels."""
    y = targets(case, case.train)
    if y is None or case.task.kind == "regression" or not len(y):
        return
    positions = _positions(len(y), case.seed)
    # Rows that lack an input are alike in it without being twins.
    arrays = [some_rows(array, positions) for array in case.train.x.values()]
    positions = positions[_is_whole(arrays)]
    if len(positions) < 2:
        return
    arrays = [some_rows(array, positions) for array in case.train.x.values()]
    labels = y[positions]
    hashes = hash_rows(arrays)
    _, row_of = np.unique(hashes, return_inverse=True)
    pairs, counts = np.unique(np.stack([row_of, labels]), axis=1, return_counts=True)
    most = np.zeros(row_of.max() + 1, int)
    np.maximum.at(most, pairs[0], counts)
    # Of each set of equal rows, all but those of its commonest label are wrong whatever is said.
    lost = len(labels) - int(most.sum())
    if lost < max(2, 0.005 * len(labels)) or not _tell_rows_apart(arrays, hashes):
        return
    several = np.flatnonzero(np.bincount(pairs[0]) > 1)
    twins = positions[np.flatnonzero(row_of == several[0])[:2]]
    yield Finding(
        "labels_contradict",
        "warning",
        "training",
        f"{several.size} sets of equal rows have different labels, such as rows {twins.tolist()}: "
        f"{lost} of {len(labels)} rows ({lost / len(labels):.1%}) must be wrong",
        f"training accuracy cannot pass {1 - lost / len(labels):.3f}, and those rows pull both "
        "ways",
        "look at these rows: labels joined to the wrong images, or an input is missing that tells "
        "them apart",
        {"sets": several.size, "rows": lost},
    )


def _is_whole(arrays: list[np.ndarray]) -> np.ndarray:
    """Rows in which no input is missing altogether: NaN, or zeros of an image."""
    whole = np.ones(len(arrays[0]), bool)
    for array in arrays:
        if isinstance(array, LazyRows):
            whole &= array.are_there()
            continue
        rows = array.reshape(len(array), -1)
        if array.dtype.kind == "f":
            whole &= ~np.isnan(rows).all(axis=1)
        elif array.dtype.kind in "iu" and array.ndim > 2:
            whole &= rows.any(axis=1)
    return whole


def check_groups(case: Case) -> Said:
    """Groups, such as patients or places, with rows on both sides."""
    if case.validation is None:
        return
    groups, others = case.train.groups, case.validation.groups
    if groups is None and others is None:
        return
    if groups is None or others is None:
        yield Undecided("groups_split", "only one of training and validation rows has groups")
        return
    known = np.asarray(groups).astype(str)
    judged = np.asarray(others).astype(str)
    shared = np.intersect1d(known, judged)
    if not shared.size:
        return
    rows = int(np.isin(judged, shared).sum())
    share = rows / len(judged)
    yield Finding(
        "groups_split",
        "error" if share >= MANY else "warning",
        "groups",
        f"{shared.size} of {len(np.unique(judged))} validation groups are in training too, such as "
        f"{shared[:3].tolist()}: {rows} of {len(judged)} validation rows ({share:.1%})",
        "rows of one group resemble each other: validation scores tell how well the model knows "
        "these groups, not new ones",
        "GroupShuffleSplit(groups=groups)  # or load_table(..., group_column=...).split()",
        {"groups": shared.size, "rows": rows, "share": share},
    )


def check_label_shift(case: Case) -> Said:
    """Training and validation rows whose targets are distributed otherwise, as unshuffled rows."""
    if case.validation is None:
        return
    y, other = targets(case, case.train), targets(case, case.validation)
    if y is None or other is None or min(len(y), len(other)) < 20:
        return
    if case.task.kind == "regression":
        test = stats.ks_2samp(y, other)
        distance, pvalue, what = float(test.statistic), float(test.pvalue), "values"
    else:
        num_classes = int(max(y.max(), other.max())) + 1
        table = np.stack([np.bincount(part, minlength=num_classes) for part in (y, other)])
        table = table[:, table.sum(axis=0) > 0]
        if table.shape[1] < 2:
            return
        shares = table / table.sum(axis=1, keepdims=True)
        distance, what = float(abs(shares[0] - shares[1]).sum() / 2), "classes"
        pvalue = float(stats.chi2_contingency(table).pvalue)
        if shares[0].max() - shares[0].min() < 0.02:
            # Training rows were balanced on purpose.
            return
    if distance > 0.2 and pvalue < 1e-4:
        yield Finding(
            "split_not_shuffled",
            "warning",
            "validation",
            f"{distance:.0%} of the validation rows would have to change their {what} to be "
            f"distributed as the training rows' (p = {pvalue:.1g})",
            "validation rows are of another kind: scores do not tell how well the model learned. "
            "`validation_split` takes the last rows as they come",
            "train_test_split(..., stratify=y)  # before fit; or FusionData.split()",
            {"distance": distance, "pvalue": pvalue},
        )


def _some(rows: Rows, seed: int) -> Rows:
    positions = _positions(len(rows), seed)
    if len(positions) == len(rows):
        return rows
    x = {name: some_rows(array, positions) for name, array in rows.x.items()}
    return Rows(x, rows.y[positions])


def _positions(rows: int, seed: int) -> np.ndarray:
    if rows <= MOST_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, MOST_ROWS, replace=False))


def _width(arrays: list[np.ndarray]) -> int:
    return sum(int(np.prod(array.shape[1:])) for array in arrays)


def _varied(arrays: list[np.ndarray]) -> np.ndarray:
    """Which rows hold more than one value: a blank image in the place of a lost one is no twin."""
    varied = np.zeros(len(arrays[0]), bool)
    for array in arrays:
        if isinstance(array, LazyRows):
            varied |= array.are_there()
            continue
        flat = array.reshape(len(array), -1)
        varied |= (flat != flat[:, :1]).any(axis=1) if flat.shape[1] > 1 else True
    return varied


def _tell_rows_apart(arrays: list[np.ndarray], hashes: np.ndarray) -> bool:
    """Whether rows hold enough for two of them not to be equal by chance.

    Long rows do. Of short ones the columns must be such that, were they independent, fewer than
    one in a thousand of the distinct rows would meet its like, and distinct rows not a handful.
    """
    if _width(arrays) >= LONG_ROW:
        return True
    _, first = np.unique(hashes, return_index=True)
    if len(first) < max(20, 0.05 * len(hashes)):
        return False
    chance = 1.0
    for array in arrays:
        for column in array[first].reshape(len(first), -1).T:
            values = column.astype(str) if column.dtype.kind == "O" else column
            counts = np.unique(values, return_counts=True)[1].astype(np.float64)
            chance *= float(np.sum(counts * (counts - 1)) / (len(first) * max(len(first) - 1, 1)))
    return chance * len(first) < 1e-3


CHECKS = (check_shared_rows, check_contradictions, check_groups, check_label_shift)
