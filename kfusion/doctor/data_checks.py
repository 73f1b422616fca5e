"""Checks of what goes into a model: scale, range of images, missing values, validation rows."""

from __future__ import annotations

import math

import numpy as np

from kfusion.doctor.answers import answers, score, some_rows, targets
from kfusion.doctor.case import Case, column_name
from kfusion.doctor.drawn_rows import few_rows
from kfusion.doctor.entries import (
    FLAT,
    LARGE,
    VERY_LARGE,
    Entry,
    find_entry,
    foreign_scale,
    root_mean_square,
)
from kfusion.doctor.findings import Finding, Undecided
from kfusion.doctor.model_runs import predict, prediction_name
from kfusion.doctor.undecided import Said, decides
from kfusion.models.building import PREDICTION

# A scale that validation rows may differ by.
OTHER_SCALE = 5.0
# A standard error above which even a difference of 0.05 may be noise; and that of as many rows as
# tell 0.02 apart.
MOST_ERROR, WANTED_ERROR = 0.025, 0.01


@decides("inputs_not_scaled")
def check_scale(case: Case) -> Said:
    """Inputs that reach the first weights far from unit scale, such as raw pixels."""
    for name, array in case.train.x.items():
        if not _is_numeric(array):
            continue
        if is_image(array) and (finding := _check_whole_numbers(case, name, array)) is not None:
            yield finding
            continue
        entry = find_entry(case.model, case.train.x, name, case.seed)
        if entry is None or not entry.values.size:
            continue
        if is_image(array) and (finding := _check_pixels(name, array, entry)) is not None:
            yield finding
        elif (foreign := foreign_scale(entry)) is not None and foreign > LARGE:
            yield _foreign_finding(name, array, entry, foreign)
        elif not entry.is_normalized:
            found = _check_images_alike(name, array, entry) or _check_columns(case, name, entry)
            if found is not None:
                yield found


def unscaled_inputs(case: Case) -> list[str]:
    """Names of inputs that reach the first weights far from unit scale."""
    return [each.subject for each in check_scale(case) if isinstance(each, Finding)]


def is_image(array: np.ndarray) -> bool:
    """Whether an input has rows of height, width and channels."""
    return array.ndim == 4


def _check_whole_numbers(case: Case, name: str, array: np.ndarray) -> Finding | None:
    """Images in 0-1 given to an input of whole numbers, which cuts them all to 0."""
    taken = {tensor.name: str(tensor.dtype) for tensor in getattr(case.model, "inputs", None) or ()}
    low, high = _range(array)
    if array.dtype.kind != "f" or not low < high <= 1.5 or "int" not in taken.get(name, ""):
        return None
    return _pixels_finding(
        name,
        f"values lie in {low:.3g} to {high:.3g} but the input is {taken[name]}: all below 1 are "
        "cut to 0; it expects pixels in 0-255",
        {"low": low, "high": high},
    )


def _pixels_finding(name: str, evidence: str, values: dict[str, float]) -> Finding:
    return Finding(
        "images_scaled_twice",
        "error",
        name,
        evidence,
        "all images look alike to the network; it learns the class rates and little else",
        f'x["{name}"] = (x["{name}"] * 255).round().astype("uint8")',
        values,
    )


def _check_pixels(name: str, array: np.ndarray, entry: Entry) -> Finding | None:
    """Images whose pixels hardly differ once the model has scaled them: given in 0-1, for 0-255."""
    low, high = _range(array)
    if array.dtype.kind != "f" or not low < high <= 1.5:
        return None
    mean = float(np.nanmean(entry.values))
    spread = float(np.nanmean(np.nanstd(entry.values, axis=tuple(range(entry.values.ndim - 1)))))
    given = float(np.nanstd(array[: len(entry.values)].astype(np.float64)))
    if given < FLAT or spread > max(FLAT, 0.01 * abs(mean)):
        return None
    return _pixels_finding(
        name,
        f"values lie in {low:.3g} to {high:.3g}, and after the model's own scaling differ by "
        f"{spread:.2g} (standard deviation) around {mean:.3g} where they enter "
        f"{entry.layer.name!r}: it expects pixels in 0-255",
        {"low": low, "high": high, "spread": spread},
    )


def _foreign_finding(name: str, array: np.ndarray, entry: Entry, foreign: float) -> Finding:
    low, high = _range(array)
    return Finding(
        "inputs_unlike_pretraining",
        "error",
        name,
        f"values in {low:.3g} to {high:.3g} leave {entry.layer.name!r} {foreign:.3g} times as far "
        f"from what {entry.normalizer.name!r} was trained on as its own training rows",
        "a trained network is fed what it has never seen: its features say nothing",
        'kf.image_branch(shape, backbone="...", weights="imagenet")  # scales as it was '
        "trained; or put its preprocess_input in front",
        {"low": low, "high": high, "times": foreign},
    )


def _check_images_alike(name: str, array: np.ndarray, entry: Entry) -> Finding | None:
    """Arrays of one unit, such as pixels: one scale for all."""
    if entry.values.ndim == 2 and not is_image(array):
        return None
    size = entry.root_mean_square
    if size < LARGE:
        return None
    low, high = _range(array)
    is_pixels = 1.5 < high <= 255 and low >= 0
    cure = (
        "inputs -> keras.layers.Rescaling(1 / 255) -> first layer"
        if is_pixels
        else f"scale = keras.layers.Normalization(axis=None); scale.adapt(x['{name}'])"
    )
    return Finding(
        "inputs_not_scaled",
        "error" if size >= VERY_LARGE else "warning",
        name,
        f"values in {low:.4g} to {high:.4g} enter {entry.layer.name!r} with a root mean square of "
        f"{size:.3g}; no layer in front of it scales them",
        "the first layer's outputs and gradients are that many times too large: adaptive "
        "optimizers jump, units die, accuracy stays near chance",
        cure,
        {"low": low, "high": high, "root_mean_square": size},
    )


def _check_columns(case: Case, name: str, entry: Entry) -> Finding | None:
    """Columns of a table, each of a unit of its own."""
    if entry.values.ndim != 2:
        return None
    values = np.where(np.isfinite(entry.values), entry.values, np.nan)
    sizes = np.sqrt(_mean_square(values))
    far = np.flatnonzero(sizes > LARGE)
    if not far.size:
        return None
    worst = int(far[sizes[far].argmax()])
    array = case.train.x[name]
    is_same = array.ndim == 2 and values.shape[1] == array.shape[1]
    called = column_name(case, name, worst) if is_same else f"column {worst}"
    return Finding(
        "inputs_not_scaled",
        "error" if sizes[worst] >= VERY_LARGE else "warning",
        name,
        f"{far.size} of {sizes.size} columns enter {entry.layer.name!r} far from unit scale; "
        f"{called} with a root mean square of {sizes[worst]:.3g}, the median column "
        f"{np.median(sizes):.3g}; no layer in front of it scales them",
        "the largest columns drown the others and the loss's surface is steep: training is slow, "
        "unstable, or stays at chance",
        f"scale = keras.layers.Normalization(); scale.adapt(x['{name}'])  # or "
        "kf.tabular_branch(schema), which also takes NaN",
        {"root_mean_square": float(sizes[worst]), "columns": far.size},
    )


def _mean_square(values: np.ndarray) -> np.ndarray:
    """Of each column over what is not NaN; 0 where all is."""
    counts = np.maximum(np.isfinite(values).sum(axis=0), 1)
    return np.nansum(values**2, axis=0) / counts


@decides("missing_values_unhandled")
def check_missing(case: Case) -> Said:
    """NaN or infinity that no layer handles, found by asking for predictions of such rows."""
    for name, array in case.train.x.items():
        if array.dtype.kind != "f":
            continue
        flat = array.reshape(len(array), -1)
        wrong = ~np.isfinite(flat)
        rows = np.flatnonzero(wrong.any(axis=1))
        if not rows.size:
            continue
        asked = rows[:64]
        batch = {key: other[asked].copy() for key, other in case.train.x.items()}
        lost = _share_lost(case, batch)
        batch[name] = np.nan_to_num(batch[name], nan=0.0, posinf=0.0, neginf=0.0)
        if lost - _share_lost(case, batch) <= 0:
            continue
        columns = np.flatnonzero(wrong.any(axis=0))
        named = ", ".join(column_name(case, name, int(column)) for column in columns[:5])
        yield Finding(
            "missing_values_unhandled",
            "error",
            name,
            f"{rows.size} of {len(flat)} rows hold NaN or infinity, in {columns.size} columns "
            f"({named}{', ...' if columns.size > 5 else ''}); {lost:.0%} of the predictions of "
            "such rows are NaN",
            "one such row makes the loss NaN, and with the next step all weights",
            "kf.tabular_branch(schema)  # flags what is missing; or "
            f"x['{name}'] = np.nan_to_num(x['{name}'])",
            {"rows": rows.size, "columns": columns.size, "share_lost": lost},
        )


def _share_lost(case: Case, x: dict[str, np.ndarray]) -> float:
    """Share of rows of which the model predicts NaN."""
    outputs = predict(case.model, x)
    answer = outputs[prediction_name(outputs)]
    return float((~np.isfinite(answer.reshape(len(answer), -1))).any(axis=1).mean())


def check_validation_scale(case: Case) -> Said:
    """Validation inputs in another unit than the training's."""
    if case.validation is None:
        return
    for name, array in case.train.x.items():
        other = case.validation.x.get(name)
        if other is None or not (_is_numeric(array) and _is_numeric(other)):
            continue
        rows = few_rows({name: array}, 2000, case.seed)
        other_rows = few_rows({name: other}, 2000, case.seed)
        if min(len(rows), len(other_rows)) < 20:
            continue
        size, other_size = root_mean_square(array[rows]), root_mean_square(other[other_rows])
        if not (size and other_size):
            continue
        ratio = max(size / other_size, other_size / size)
        if ratio > OTHER_SCALE and (is_image(array) or array.ndim == 2):
            if array.ndim == 2 and _columns_overlap(array[rows], other[other_rows]):
                continue
            yield Finding(
                "validation_scaled_otherwise",
                "error",
                name,
                f"the root mean square of the training rows is {size:.3g}, that of the validation "
                f"rows {other_size:.3g}",
                "validation scores are those of inputs that the model never saw in training",
                f"prepare x_validation['{name}'] by the same function and with the same constants "
                "as the training rows",
                {"train": size, "validation": other_size},
            )


def _columns_overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether most columns' middle halves overlap: then single outliers make the difference."""
    known = np.isfinite(a).any(axis=0) & np.isfinite(b).any(axis=0)
    a, b = (np.where(np.isfinite(part), part, np.nan)[:, known] for part in (a, b))
    low_a, high_a = np.nanpercentile(a, [25, 75], axis=0)
    low_b, high_b = np.nanpercentile(b, [25, 75], axis=0)
    return bool(np.mean((low_a <= high_b) & (low_b <= high_a)) > 0.5)


def check_validation_classes(case: Case) -> Said:
    """Classes that only training or only validation rows have."""
    if case.validation is None or case.task.kind == "regression":
        return
    y, other = targets(case, case.train), targets(case, case.validation)
    if y is None or other is None or not len(other):
        yield Undecided("class_missing", "targets are not labels of the task's classes")
        return
    for lacking, among, severity, effect in (
        (
            np.setdiff1d(y, other),
            "validation",
            "error" if len(np.unique(other)) == 1 else "warning",
            "scores do not count them, and an AUC of one class is undefined",
        ),
        (
            np.setdiff1d(other, y),
            "training",
            "error",
            "the model cannot learn them: each such validation row is counted wrong",
        ),
    ):
        if lacking.size:
            names = [
                case.task.class_names[label] if label < len(case.task.class_names) else str(label)
                for label in lacking
            ]
            rows = len(other) if among == "validation" else len(y)
            yield Finding(
                "class_missing",
                severity,
                among,
                f"of {len(case.task.class_names)} classes {names} have no row among the {rows} "
                f"{among} rows",
                effect,
                "train_test_split(..., stratify=y)  # or FusionData.split(), which also keeps "
                "groups whole",
                {"classes": names},
            )


@decides("validation_too_small")
def check_validation_size(case: Case) -> Said:
    """Too few validation rows to tell apart what is worth telling apart."""
    if case.validation is None or case.task.kind == "regression":
        return
    y = targets(case, case.validation)
    if y is None or not len(y):
        return
    counts = np.bincount(y, minlength=2)
    if case.task.kind == "binary":
        measured, called = _score_of(case, "auc"), "AUC"
        # One below 0.5 is as sure as its mirror image.
        error = hanley_mcneil_error(max(measured, 1 - measured), int(counts[1]), int(counts[0]))
    else:
        measured, called = _score_of(case, "accuracy"), "accuracy"
        error = math.sqrt(max(measured * (1 - measured), 1 / len(y)) / len(y))
    if not error > MOST_ERROR:
        return
    needed = math.ceil(len(y) * (error / WANTED_ERROR) ** 2)
    yield Finding(
        "validation_too_small",
        "note",
        "validation",
        f"{len(y)} rows give an {called} of {measured:.3f} a standard error of {error:.3f}: its "
        f"95 % interval is {2 * 1.96 * error:.2f} wide",
        "models that differ by 0.05 may be told apart by chance; so may epochs and trials",
        f"kf.compare(...)  # all rows judge, over folds; or about {needed:,} validation rows",
        {"rows": len(y), "standard_error": error, "needed": needed},
    )


def hanley_mcneil_error(area: float, positives: int, negatives: int) -> float:
    """Standard error of an AUC; NaN if a class has no rows.

    Source: Hanley & McNeil, 1982, Radiology 143:29-36.

    Example:
        >>> round(hanley_mcneil_error(0.893, 51, 58), 4)
        0.0325
    """
    if not (positives and negatives):
        return float("nan")
    both_above = area / (2 - area)
    above_both = 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positives - 1) * (both_above - area**2)
    variance += (negatives - 1) * (above_both - area**2)
    return math.sqrt(variance / (positives * negatives))


def _score_of(case: Case, name: str) -> float:
    """The model's score on some validation rows; 0.8 where it has none."""
    judged = some_rows(case, 512)
    answer = None if judged is None else answers(case, judged.rows.x).get(PREDICTION)
    if judged is None or answer is None:
        return 0.8
    value = score(case.task, judged.y, answer, name)
    return 0.8 if np.isnan(value) else float(np.clip(value, 0.001, 0.999))


def _is_numeric(array: np.ndarray) -> bool:
    return array.dtype.kind in "biuf" and array.ndim > 1 and array.size > 0


def _range(array: np.ndarray) -> tuple[float, float]:
    part = array[:: max(1, len(array) // 2000)]
    known = part[np.isfinite(part)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)


CHECKS = (
    check_scale,
    check_missing,
    check_validation_scale,
    check_validation_classes,
    check_validation_size,
)
