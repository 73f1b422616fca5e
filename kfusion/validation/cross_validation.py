"""Cross-validation of anything that can be fitted, on rows that it has not seen."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

from kfusion.data.fingerprints import fingerprint
from kfusion.data.folds import Fold, make_folds
from kfusion.data.fusion_data import FusionData
from kfusion.data.inputs import check_lengths
from kfusion.data.rows import take_rows
from kfusion.evidence.delong import number_groups
from kfusion.progress import progress
from kfusion.tasks import Task, as_task, infer_task
from kfusion.validation.any_model import predict_any
from kfusion.validation.finished_parts import FinishedParts, fold_name

Fit = Callable[[Any, Any], Any]
# Libraries, and this package wherever it is.
_INSTALLED = re.compile(rf"site-packages|^{re.escape(str(Path(__file__).parents[1]))}|^<")


class FoldError(RuntimeError):
    """A fold in which fitting or predicting failed; says which and why."""


@dataclasses.dataclass(frozen=True, eq=False)
class FoldResult:
    """What one fold gave.

    Attributes:
        fold: `Fold`, its training and test rows.
        predictions: `(test rows, units)` float64: probabilities or values, in the order of
            `fold.test`.
        seconds: Float, how long fitting and predicting took.
        model: What `fit` returned, if asked for, else None.
        history: What a Keras model logged in each epoch, by name; empty for others.
    """

    fold: Fold
    predictions: np.ndarray = dataclasses.field(repr=False)
    seconds: float
    model: Any = dataclasses.field(default=None, repr=False)
    history: Mapping[str, Sequence[float | None]] = dataclasses.field(
        default_factory=dict, repr=False
    )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CrossValidation:
    """The results of all folds. Made by `cross_validate`.

    Attributes:
        task: `Task`.
        y: `(rows,)` labels or values of the whole table.
        folds: `FoldResult` objects.
        groups: `(rows,)` values that keep rows together, or None.
    """

    task: Task
    y: np.ndarray
    folds: list[FoldResult]
    groups: np.ndarray | None = None

    def __repr__(self) -> str:
        scores, name = self.scores(), self.task.score().name
        return f"<CrossValidation of {len(scores)} folds: {name} {scores.mean():.4g}>"

    @property
    def predictions(self) -> np.ndarray:
        """`(rows, units)` out-of-fold predictions: NaN for rows that no fold judged.

        A row that several folds judged, as with repeats, has the mean of their predictions:
        score single folds with `to_frame`, since such a mean is an ensemble.
        """
        totals = np.zeros((len(self.y), self.task.units))
        counts = np.zeros(len(self.y))
        for result in self.folds:
            totals[result.fold.test] += result.predictions
            counts[result.fold.test] += 1
        with np.errstate(invalid="ignore"):
            return totals / counts[:, None]

    @property
    def models(self) -> list[Any]:
        """The fitted models, one per fold; needs `keep_models=True`."""
        if any(result.model is None for result in self.folds):
            raise RuntimeError("The models were not kept: pass `keep_models=True`.")
        return [result.model for result in self.folds]

    def mean_history(self) -> dict[str, list[float]]:
        """What Keras models logged in each epoch, its mean over the folds that came so far."""
        logged = [result.history for result in self.folds if result.history]
        return {
            metric: pd.DataFrame([history[metric] for history in logged], dtype=float)
            .mean()
            .tolist()
            for metric in (logged[0] if logged else ())
        }

    def scores(self, name: str | None = None) -> np.ndarray:
        """`(folds,)` exact scores by name; by default the task's objective."""
        score = self.task.score(name)
        return np.array(
            [
                score.function(self.y[r.fold.test], self.task.answers(r.predictions), None)
                for r in self.folds
            ]
        )

    def to_frame(self, names: list[str] | None = None) -> pd.DataFrame:
        """A DataFrame of one row per fold: rows, seconds and scores."""
        frame = pd.DataFrame(
            {
                "fold": [result.fold.number for result in self.folds],
                "repeat": [result.fold.repeat for result in self.folds],
                "training_rows": [len(result.fold.train) for result in self.folds],
                "test_rows": [len(result.fold.test) for result in self.folds],
                "seconds": [result.seconds for result in self.folds],
            }
        )
        for name in names or self.task.score_names:
            frame[name] = self.scores(name)
        return frame

    def summary(self) -> pd.DataFrame:
        """A DataFrame of the mean and standard deviation of each score over the folds."""
        scores = self.to_frame()[list(self.task.score_names)]
        return pd.DataFrame({"mean": scores.mean(), "sd": scores.std(ddof=1)})


def cross_validate(
    fit: Fit,
    x: Any,
    y: Any = None,
    *,
    folds: Any = 5,
    task: Task | str | None = None,
    groups: Any = None,
    order: Any = None,
    repeats: int = 1,
    n_jobs: int | None = 1,
    distribution: Any = None,
    directory: str | os.PathLike | None = None,
    keep_models: bool = False,
    about: Any = None,
    seed: int = 0,
    name: str = "folds",
    verbose: int | bool = 1,
) -> CrossValidation:
    """Fits on the training rows of each fold and predicts its test rows.

    `fit` never sees a test row: of `FusionData` it gets a part whose schema was learned from that
    part alone; of arrays and DataFrames, the rows. Python's, NumPy's and Keras' random state is
    set before each fold (Keras', if it is loaded), so that the folds come out alike in any order
    and process.

    Folds run in parallel through joblib, so also on a cluster:
    `with joblib.parallel_config(backend="ray"): cross_validate(..., n_jobs=8)`, after
    `ray.util.joblib.register_ray()`. With a directory, each finished fold is kept there, and the
    same call goes on where a killed one was. A changed `fit` cannot be noticed: say in `about`
    what it depends on, or give it a new directory.

    Args:
        fit: Callable `fit(x, y) -> model`, given training rows as `x` holds them. The model is a
            Keras model, has `predict_proba` (or `predict`, for a regression) as scikit-learn's
            do, or is a callable from `x` to predictions.
        x: `FusionData`; or an array, DataFrame, or dict of them by input name.
        y: `(rows,)` labels from 0 or target values; not needed for `FusionData`.
        folds: Int, a scikit-learn splitter, or an iterable of `(train, test)`; see `make_folds`.
        task: `Task` or its kind; by default from `FusionData`, or from what `y` holds.
        groups: `(rows,)` values: rows that share one are never split. By default the data's own.
        order: `(rows,)` sortable values, such as times: folds that train on the past only.
        repeats: Int, how often all folds are drawn anew.
        n_jobs: Int, folds at once, as in joblib: -1 is one per core.
        distribution: What shares each batch of a network among the devices of this machine, as of
            `kfusion.fit`: `fit` is called in its scope, so that what it builds there is on all of
            them. Folds are then fitted one after another.
        directory: Folder for finished folds; made if needed.
        keep_models: Whether to return the fitted models (with a directory, Keras models only).
        about: Anything JSON can hold that describes `fit`, such as its settings: with a directory,
            finished folds of another one are refused.
        seed: Int, of the folds and of each fold's random state.
        name: What the progress bar is called.
        verbose: 0 hides it.

    Returns:
        `CrossValidation`.

    Raises:
        ValueError: If rows, folds or predictions do not fit (see `make_folds` and
            `Task.check_predictions`), the directory holds other work, or folds at once are asked
            for beside a distribution.
        TypeError: If `y` is missing, `folds` is no number of folds nor an iterable of them.
        FoldError: If `fit` raises, or returns nothing that can predict; names the fold.
        RuntimeError: If another process is at work in the directory.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> x = np.random.default_rng(0).normal(size=(60, 2))
        >>> fit = lambda x, y: LogisticRegression().fit(x, y)
        >>> result = cross_validate(fit, x, (x[:, 0] > 0).astype(int), folds=3, verbose=0)
        >>> result.scores("auc").round(2).tolist()
        [1.0, 1.0, 1.0]
    """
    made = plan_folds(
        x, y, folds=folds, task=task, groups=groups, order=order, repeats=repeats, seed=seed
    )
    if not callable(fit):
        raise TypeError(f"`fit` must be a callable fit(x, y). Received: {fit!r}.")
    if distribution is not None and joblib.effective_n_jobs(n_jobs) > 1:
        raise ValueError(
            f"`n_jobs={n_jobs}` fits folds at once, but the distribution has all devices work on "
            "one of them. Leave `n_jobs` at 1; or leave `distribution` out and give each process a "
            "device of its own."
        )
    x, y, read_task, groups = read_rows(x, y, task, groups)
    folder = None if directory is None else FinishedParts(Path(directory), keep_models)
    work = _Work(fit, x, y, read_task, groups, seed, keep_models, folder)
    with contextlib.ExitStack() as held:
        if folder is not None:
            held.enter_context(folder.opened(_describe(work, made, about)))
        if distribution is not None:
            from kfusion.devices import check_distribution, sharing

            check_distribution(distribution)
            held.enter_context(sharing(distribution))
        bar = {"description": name, "total": len(made), "verbose": verbose}
        results = _run_all(work, made, n_jobs, bar)
    return CrossValidation(read_task, y, results, groups)


def plan_folds(
    x: Any,
    y: Any = None,
    *,
    folds: Any = 5,
    task: Task | str | None = None,
    groups: Any = None,
    order: Any = None,
    repeats: int = 1,
    seed: int = 0,
) -> list[Fold]:
    """Makes the folds that `cross_validate` would, which it also takes as `folds`.

    Args and errors are those of `cross_validate`.
    """
    x, y, read_task, groups = read_rows(x, y, task, groups)
    return make_folds(
        len(y),
        folds=folds,
        labels=None if read_task.kind == "regression" else y,
        class_names=read_task.class_names,
        groups=groups,
        order=None if order is None else np.asarray(order),
        repeats=repeats,
        seed=seed,
    )


def read_rows(
    x: Any, y: Any, task: Task | str | None, groups: Any
) -> tuple[Any, np.ndarray, Task, np.ndarray | None]:
    """Returns rows, checked targets, task and groups of what `cross_validate` was given."""
    if isinstance(x, FusionData):
        y = x.y if y is None else y
        task = x.task if task is None else task
        groups = x.groups if groups is None else groups
    if y is None:
        raise TypeError("`y` is missing: only `FusionData` brings its own.")
    read_task = infer_task(y) if task is None else as_task(task)
    y = read_task.check_targets(y)
    parts = {f"x[{name!r}]": part for name, part in x.items()} if isinstance(x, Mapping) else {}
    if isinstance(x, FusionData):
        parts = {"x": x.y}
    check_lengths({**(parts or {"x": x}), "y": y})
    if groups is not None:
        number_groups(groups, len(y))
        groups = np.asarray(groups)
    return x, y, read_task, groups


@dataclasses.dataclass(frozen=True, eq=False)
class _Work:
    """All that a fold needs, in whatever process it runs."""

    fit: Fit
    x: Any
    y: np.ndarray
    task: Task
    groups: np.ndarray | None
    seed: int
    keep_models: bool
    folder: FinishedParts | None

    def run(self, fold: Fold) -> FoldResult:
        """Fits and judges one fold, or reads it if it was finished before."""
        if self.folder is None:
            return self._fit(fold)
        name = fold_name(fold.number)
        if not self.folder.has(name):
            result = self._fit(fold)
            self.folder.write(
                name, result.predictions, result.seconds, result.model, result.history
            )
        return FoldResult(fold, *self.folder.read(name))

    def _fit(self, fold: Fold) -> FoldResult:
        started = time.perf_counter()
        _set_random_state(self.seed, fold.number)
        train, test = self._parts(fold)
        try:
            model = self.fit(
                train, train.y if isinstance(train, FusionData) else self.y[fold.train]
            )
            if model is None:
                raise TypeError("`fit` returned nothing: it must return the fitted model.")
            predictions = predict_any(model, test, self.task, len(fold.test))
        except Exception as error:
            # A kind of its own, made of text: others may not come through from another process.
            reason = f"{type(error).__name__}: {error}{_place_of(error)}"
            raise FoldError(f"Fold {fold.number} failed. {reason}") from error
        seconds = time.perf_counter() - started
        kept = model if self.keep_models else None
        return FoldResult(fold, predictions, seconds, kept, history_of(model))

    def _parts(self, fold: Fold):
        if isinstance(self.x, FusionData):
            data = dataclasses.replace(self.x, y=self.y, groups=self.groups)
            train = data[fold.train].with_schema()
            return train, data[fold.test].with_schema(train.schema)
        return take_rows(self.x, fold.train), take_rows(self.x, fold.test)


def history_of(model: Any) -> dict[str, list[float]]:
    """What a Keras model logged in each epoch of its last training; nothing for others."""
    logged = getattr(getattr(model, "history", None), "history", None)
    return dict(logged) if isinstance(logged, Mapping) else {}


def _place_of(error: Exception) -> str:
    """Where in the user's code an error arose; empty if it was in none."""
    frames = traceback.extract_tb(error.__traceback__)
    of_users = [frame for frame in frames if not _INSTALLED.search(frame.filename)]
    if not of_users:
        return ""
    last = of_users[-1]
    return f" (in {last.name}, {Path(last.filename).name}, line {last.lineno})"


def _run_all(work: _Work, folds: list[Fold], n_jobs: int | None, bar) -> list[FoldResult]:
    if n_jobs == 1:
        return [work.run(fold) for fold in progress(folds, **bar)]
    backend, _ = joblib.parallel.get_active_backend()
    streams = backend.supports_return_generator
    run = joblib.Parallel(n_jobs, return_as="generator_unordered" if streams else "list")
    done = run(joblib.delayed(work.run)(fold) for fold in folds)
    return sorted(progress(done, **bar), key=lambda result: result.fold.number)


def _describe(work: _Work, folds: list[Fold], about: Any) -> dict[str, Any]:
    """What must be the same for finished folds to belong to one cross-validation."""
    if isinstance(work.x, FusionData):
        rows: Mapping[str, Any] = {**work.x.arrays, "table": work.x.frame}
    else:
        rows = work.x if isinstance(work.x, Mapping) else {"x": work.x}
    positions = {
        f"{f.number} {name}": getattr(f, name) for f in folds for name in ("train", "test")
    }
    groups = {} if work.groups is None else {"groups": work.groups}
    return {
        "about": about,
        "column_kinds": getattr(work.x, "column_kinds", None),
        "data": fingerprint({**rows, **groups, "y": work.y}),
        "folds": fingerprint(positions),
        "kind": work.task.kind,
        "seed": work.seed,
        "keep_models": work.keep_models,
    }


def _set_random_state(seed: int, number: int) -> None:
    drawn = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    keras = sys.modules.get("keras")
    if keras is not None:
        keras.utils.set_random_seed(drawn)
        return
    random.seed(drawn)
    np.random.seed(drawn)
