"""Checks of single columns of tables: those that say nothing, and those that say too much."""

from __future__ import annotations

import re

import numpy as np
from scipy import stats
from sklearn.metrics import balanced_accuracy_score
from sklearn.tree import DecisionTreeClassifier

from kfusion.doctor.answers import targets
from kfusion.doctor.case import Case, column_name, plain_column_name
from kfusion.doctor.findings import Finding, Undecided
from kfusion.doctor.undecided import Said

MOST_ROWS, MOST_COLUMNS, MOST_CELLS = 20_000, 4_096, 4_000_000
# Columns from which a table is rather a flattened image or counts, where some are always constant.
WIDE = 64
LEAK = 0.99
# Rows of the rarer class that a leak needs to be told from chance.
FEWEST_ROWS = 20
_IDENTIFIER = re.compile(r"(^|[\s_.-])(id|uuid|guid|index|key)$", re.IGNORECASE)


def check_constant_columns(case: Case) -> Said:
    """Columns that are the same in all training rows."""
    for name, table in _tables(case):
        constant = [i for i, column in enumerate(table.T) if _is_constant(column)]
        if not constant or (table.shape[1] >= WIDE and len(constant) < table.shape[1] / 2):
            continue
        yield Finding(
            "constant_columns",
            "note" if len(constant) < table.shape[1] else "error",
            name,
            f"{len(constant)} of {table.shape[1]} columns are the same in all {len(table)} rows: "
            f"{_listed(case, name, constant)}",
            "they tell nothing; in other rows a value that was never seen meets untrained weights",
            _drop(case, name, constant),
            {"columns": constant},
        )


def check_duplicated_columns(case: Case) -> Said:
    """Columns of equal values."""
    for name, table in _tables(case):
        if table.shape[1] >= WIDE:
            continue
        first: dict[bytes, int] = {}
        pairs = []
        for i, column in enumerate(table.T):
            if _is_constant(column):
                continue
            values = np.asarray(column.tolist() if column.dtype.kind == "O" else column)
            original = first.setdefault(values.tobytes(), i)
            if original != i:
                pairs.append((original, i))
        if not pairs:
            continue
        named = ", ".join(
            f"{column_name(case, name, a)} = {column_name(case, name, b)}" for a, b in pairs[:5]
        )
        yield Finding(
            "duplicated_columns",
            "note",
            name,
            f"{len(pairs)} of {table.shape[1]} columns repeat another: {named}",
            "what they tell counts twice under penalties and importances are split between them",
            _drop(case, name, [b for _, b in pairs]),
            {"pairs": pairs},
        )


def check_identifiers(case: Case) -> Said:
    """Columns that number or name the rows."""
    for name, table in _tables(case):
        found = [
            i
            for i, column in enumerate(table.T)
            # Daily dates are whole numbers that rise, and still say when.
            if (called := plain_column_name(case, name, i)) not in case.dates.get(name, ())
            and is_identifier(column, called or "")
        ]
        if found:
            yield Finding(
                "identifier_columns",
                "warning",
                name,
                f"{_listed(case, name, found)}: whole numbers or names, another in each of "
                f"{len(table)} rows",
                "a network learns rows by heart from it, or their order; new rows have numbers "
                "that it never saw",
                _drop(case, name, found),
                {"columns": found},
            )


def is_identifier(column: np.ndarray, name: str = "") -> bool:
    """Whether a column numbers its rows: whole numbers that all differ, against all chance.

    `n` numbers drawn from a range of `r` meet about `n**2 / (2 r)` times. A column of which none
    do counts as drawn without return where 10 meetings were due, or if it rises (or falls) from
    row to row throughout, or if its name says what it is.

    Args:
        column: `(rows,)` values.
        name: The column's name, if it has one.
    """
    if len(column) < 50:
        return False
    if column.dtype.kind not in "biuf":
        values = column.astype(str)
        return len(np.unique(values)) == len(values)
    values = column.astype(np.float64)
    if not np.isfinite(values).all() or (values != np.floor(values)).any():
        return False
    distinct = np.unique(values)
    if len(distinct) < len(values):
        return False
    steps = np.diff(values)
    width = distinct[-1] - distinct[0] + 1
    return bool(
        len(values) ** 2 / (2 * width) > 10
        or (steps > 0).all()
        or (steps < 0).all()
        or _IDENTIFIER.search(name)
    )


def check_leaks(case: Case) -> Said:
    """Columns that alone tell the target, or whose missing values do."""
    y = targets(case, case.train)
    if y is None:
        return
    tables = [(name, table) for name, table in _tables(case) if table.dtype.kind in "biuf"]
    if not tables:
        return
    is_regression = case.task.kind == "regression"
    if len(np.unique(y)) < 2:
        return
    rarest = len(y) if is_regression else np.bincount(y)[np.unique(y)].min()
    if rarest < FEWEST_ROWS:
        of = "there are" if is_regression else "the rarest class has"
        yield Undecided("target_leak", f"{of} {rarest} rows only")
        return
    for name, table in tables:
        columns = min(table.shape[1], MOST_COLUMNS)
        most = max(1_000, min(MOST_ROWS, MOST_CELLS // columns))
        rows = _some_rows(None if is_regression else y, len(y), most, case.seed)
        values, labels = table[rows, :columns].astype(np.float64), y[rows]
        if is_regression:
            strengths = abs(_rank_correlations(values, labels))
            yield from _leaks_of(case, name, strengths, "a rank correlation (Spearman)")
        elif len(np.unique(labels)) == 2:
            strengths = _separations(_rank(values), labels == labels.max())
            yield from _leaks_of(case, name, strengths, "an AUC")
        else:
            yield from _leaks_of_classes(case, name, values, labels)


def _leaks_of(case: Case, name: str, strengths: np.ndarray, called: str) -> Said:
    for column in np.flatnonzero(strengths > LEAK)[:10].tolist():
        yield _leak_finding(case, name, column, f"alone has {called} of {strengths[column]:.4f}")


def _leak_finding(case: Case, name: str, column: int, told: str) -> Finding:
    return Finding(
        "target_leak",
        "error",
        f"{name}: {column_name(case, name, column)}",
        f"{column_name(case, name, column)} of {name!r} {told}",
        "it is the target in another form, or was written down after it: scores mean nothing "
        "where it is not known beforehand, and the other inputs are not learned",
        _drop(case, name, [column]),
        {"column": column},
    )


def _class_finding(case: Case, name: str, column: int, label: int, area: float) -> Finding:
    known = case.task.class_names
    called = known[label] if label < len(known) else str(label)
    return Finding(
        "class_leak",
        "note",
        f"{name}: {column_name(case, name, column)}",
        f"{column_name(case, name, column)} of {name!r} alone tells {called!r} from all other "
        f"classes, AUC {area:.4f}",
        "right if it is a measurement; if it was written down after the class was known, scores "
        "of that class mean nothing",
        _drop(case, name, [column]) + "; if it is not known beforehand",
        {"column": column, "auc": area},
    )


def _leaks_of_classes(case: Case, name: str, values: np.ndarray, labels: np.ndarray) -> Said:
    """Of several classes: columns from whose value a small tree reads the class of other rows."""
    classes = np.unique(labels)
    ranked = _rank(values)
    areas = np.stack([_separations(ranked, labels == label) for label in classes])
    suspects = np.flatnonzero((areas > LEAK).any(axis=0) | _has_few_values(values, len(classes)))
    filled = np.where(np.isfinite(values), values, np.nanmin(values, initial=0.0) - 1)
    for column in suspects[:50].tolist():
        tree = DecisionTreeClassifier(max_leaf_nodes=4 * len(classes), random_state=case.seed)
        tree.fit(filled[::2, [column]], labels[::2])
        told = tree.predict(filled[1::2, [column]])
        right = float(balanced_accuracy_score(labels[1::2], told))
        if right > LEAK:
            yield _leak_finding(
                case, name, column, f"alone tells the class of {right:.2%} of other rows"
            )
        elif areas[:, column].max() > LEAK:
            label = int(classes[areas[:, column].argmax()])
            yield _class_finding(case, name, column, label, float(areas[:, column].max()))


def _has_few_values(values: np.ndarray, num_classes: int) -> np.ndarray:
    """Which columns hold codes, no more than a few for each class and no fewer than classes."""
    counts = np.array([len(np.unique(column[np.isfinite(column)])) for column in values.T])
    return (counts >= num_classes) & (counts <= 4 * num_classes)


def _some_rows(y: np.ndarray | None, num_rows: int, most: int, seed: int) -> np.ndarray:
    """Positions of about as many rows; of classes an even share, so that rare ones stay whole."""
    generator = np.random.default_rng(seed)
    if num_rows <= most:
        return np.arange(num_rows)
    if y is None:
        return generator.choice(num_rows, most, replace=False)
    classes = np.unique(y)
    share = max(FEWEST_ROWS, most // len(classes))
    drawn = [generator.permutation(np.flatnonzero(y == label))[:share] for label in classes]
    return generator.permutation(np.concatenate(drawn))


def _rank(values: np.ndarray) -> list[np.ndarray]:
    """Ranks of each column's values, and of what is missing if anything is."""
    missing = ~np.isfinite(values)
    filled = np.where(missing, _medians(values), values)
    return [
        stats.rankdata(part, axis=0) for part in (filled, *([missing] if missing.any() else []))
    ]


def _separations(ranked: list[np.ndarray], positive: np.ndarray) -> np.ndarray:
    """Each column's AUC, turned to above 0.5; that of its missing values where it is higher.

    By ranks: Hanley & McNeil, 1982, Radiology 143:29-36.
    """
    return np.max([_areas(ranks, positive) for ranks in ranked], axis=0)


def _areas(ranks: np.ndarray, positive: np.ndarray) -> np.ndarray:
    count = int(positive.sum())
    others = len(positive) - count
    areas = (ranks[positive].sum(axis=0) - count * (count + 1) / 2) / (count * others)
    return np.maximum(areas, 1 - areas)


def _rank_correlations(values: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's with the target; 0 for constant columns."""
    ranks = stats.rankdata(np.where(np.isfinite(values), values, _medians(values)), axis=0)
    of_target = stats.rankdata(y)
    ranks = ranks - ranks.mean(axis=0)
    of_target = of_target - of_target.mean()
    norms = np.sqrt((ranks**2).sum(axis=0) * (of_target**2).sum())
    return np.divide(of_target @ ranks, norms, out=np.zeros_like(norms), where=norms > 0)


def _medians(values: np.ndarray) -> np.ndarray:
    """Of each column's finite numbers, 0 where there are none."""
    return np.array(
        [
            np.median(known) if (known := column[np.isfinite(column)]).size else 0.0
            for column in values.T
        ]
    )


def _drop(case: Case, name: str, columns: list[int]) -> str:
    """The line that takes columns out."""
    names = [plain_column_name(case, name, column) for column in columns[:20]]
    if all(names):
        return f"frame = frame.drop(columns={names})  # and build the model anew"
    array = "x" if len(case.train.x) == 1 else f"x[{name!r}]"
    return f"{array} = np.delete({array}, {columns[:20]}, axis=1)  # and build the model anew"


def _tables(case: Case) -> list[tuple[str, np.ndarray]]:
    """Inputs of rows of columns."""
    return [
        (name, array)
        for name, array in case.train.x.items()
        if array.ndim == 2 and array.size and array.dtype.kind in "biufOUS" and len(array) > 1
    ]


def _is_constant(column: np.ndarray) -> bool:
    if column.dtype.kind == "f":
        return bool(((column == column[0]) | (np.isnan(column) & np.isnan(column[0]))).all())
    return bool((column == column[0]).all())


def _listed(case: Case, name: str, columns: list[int]) -> str:
    named = ", ".join(column_name(case, name, column) for column in columns[:5])
    return named + (f" and {len(columns) - 5} more" if len(columns) > 5 else "")


CHECKS = (check_constant_columns, check_duplicated_columns, check_identifiers, check_leaks)
