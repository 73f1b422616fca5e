"""The folds of one member: what it learns from in each, trained at once or one after the other."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np

from kfusion.data.folds import Fold
from kfusion.devices import shares_batches
from kfusion.estimators.members import Member, Rows, VectorNetwork
from kfusion.models.prediction import predict
from kfusion.stacked.many_fits import ManyFits, fit_many
from kfusion.stacked.stacked_epochs import BACKENDS
from kfusion.tasks import Task
from kfusion.tasks import task as make_task
from kfusion.validation.cross_validation import FoldError, FoldResult, history_of


@dataclasses.dataclass(frozen=True)
class MemberFold:
    """A fold as a member sees it.

    Attributes:
        fold: `Fold`.
        learned: `(rows,)` positions of the training rows that have what it learns from.
        judged: `(test rows,)` booleans: which of the others have it.
        task: `Task` with the class rates, or the target's scale, of the training rows.
        seed: Int.
    """

    fold: Fold
    learned: np.ndarray
    judged: np.ndarray
    task: Task
    seed: int

    @property
    def held(self) -> np.ndarray:
        """`(rows,)` positions of the rows that judge it."""
        return self.fold.test[self.judged]


class MemberFolds:
    """Fits a member on folds.

    Args:
        name: The member's name.
        member: `Member`.
        rows: `Rows`.
        task: `Task`.
        seed: Int.
    """

    def __init__(self, name: str, member: Member, rows: Rows, task: Task, seed: int):
        self.name, self.member, self.rows = name, member, rows
        self.task, self.seed = task, seed

    def at_once(self, folds: Sequence[Fold]) -> list[list[Fold]]:
        """Which folds are fitted together: those of a network with equally many rows to learn."""
        if self._network() is None:
            return [[fold] for fold in folds]
        has_all = self.rows.having(self.member.modalities)
        groups: dict[int, list[Fold]] = {}
        for fold in folds:
            groups.setdefault(int(has_all[fold.train].sum()), []).append(fold)
        return list(groups.values())

    def fit(self, folds: Sequence[Fold]) -> Iterator[FoldResult]:
        """Fits it on folds that `at_once` put together.

        Yields:
            `FoldResult` of each.

        Raises:
            FoldError: If a fit fails; names the member and fold.
        """
        network = self._network()
        # On jax `fit` gives the same, sooner. On tensorflow it draws another order of the rows, and
        # what a fold gives must not depend on whether others are left to be fitted beside it.
        if network is not None and (len(folds) > 1 or keras.backend.backend() != "jax"):
            yield from self._fit_stack(network, folds)
        else:
            yield from map(self._fit_alone, folds)

    def _network(self) -> VectorNetwork | None:
        """The network that folds can train together, or None."""
        cannot = (
            keras.backend.backend() not in BACKENDS
            or keras.config.dtype_policy().name == "mixed_float16"
            or shares_batches()
        )
        return None if cannot else self.member.network

    def _fit_alone(self, fold: Fold) -> FoldResult:
        started = time.perf_counter()
        with _named(self.name, fold):
            part = self._part(fold)
            train, held = self.rows.take(part.learned), self.rows.take(part.held)
            model = self.member.fit(train, held, part.task, part.seed)
            return self._result(part, model, history_of(model), started)

    def _fit_stack(self, network: VectorNetwork, folds: Sequence[Fold]) -> Iterator[FoldResult]:
        """Fits folds in one program; what fails is raised behind all that can be fitted."""
        started = time.perf_counter()
        parts: list[MemberFold] = []
        errors: list[FoldError] = []
        for fold in folds:
            with _collected(errors), _named(self.name, fold):
                parts.append(self._part(fold))
        fits = self._fit_many(network, parts, errors) if parts else None
        if fits is None and len(parts) > 1:
            for part in parts:
                with _collected(errors):
                    yield from self._fit_stack(network, [part.fold])
        shared = (time.perf_counter() - started) / len(folds)
        if fits is not None:
            for number, part in enumerate(parts):
                started = time.perf_counter() - shared
                with _collected(errors), _named(self.name, part.fold):
                    yield self._stacked_result(part, fits, number, started)
        if errors:
            raise errors[0]

    def _fit_many(
        self, network: VectorNetwork, parts: Sequence[MemberFold], errors: list[FoldError]
    ) -> ManyFits | None:
        """Fits folds at once; None if that fails, for a single one with its error among others.

        Nothing is tried again in here: an error holds what it ran out of memory with.
        """
        try:
            return self._fit_parts(network, parts)
        except Exception as error:
            if len(parts) == 1:
                errors.append(_fold_error(self.name, parts[0].fold, error))
                return None
            warnings.warn(
                f"Folds of member {self.name!r} are fitted one by one, for together they failed. "
                f"{type(error).__name__}: {error}",
                stacklevel=3,
            )
            return None

    def _fit_parts(self, network: VectorNetwork, parts: Sequence[MemberFold]) -> ManyFits:
        def build(own_task: Task) -> keras.Model:
            return network.build(task=own_task)

        return fit_many(
            build,
            self.rows.x,
            self.rows.y,
            task=self.task,
            members=[
                {
                    # For `build`, which is given no keywords of training.
                    "own_task": part.task,
                    "task": part.task,
                    "rows": part.learned,
                    "validation_rows": part.held,
                    "seed": part.seed,
                }
                for part in parts
            ],
            epochs=network.length.of(len(parts[0].learned)),
            patience=None,
            learning_rate_factor=network.learning_rate_factor,
            sample_weight=self.rows.weights,
            verbose=0,
        )

    def _part(self, fold: Fold) -> MemberFold:
        has_all = self.rows.having(self.member.modalities)
        learned, judged = fold.train[has_all[fold.train]], has_all[fold.test]
        if not (len(learned) and judged.any()):
            raise ValueError(f"No rows have all of {', '.join(self.member.modalities)}.")
        # The same start for members that differ in what they see alone.
        drawn = int(np.random.SeedSequence([self.seed, fold.number]).generate_state(1)[0] % 2**31)
        task = _task_of(self.rows.y[learned], self.task)
        return MemberFold(fold, learned, judged, task, drawn)

    def _stacked_result(
        self, part: MemberFold, fits: ManyFits, number: int, started: float
    ) -> FoldResult:
        found = fits[number]
        if found.failure is not None:
            raise RuntimeError(found.failure)
        if found.diverged_in is not None:
            warnings.warn(
                f"Member {self.name!r} diverged in epoch {found.diverged_in + 1} of fold "
                f"{part.fold.number + 1} and was stopped; the weights are the best ones before.",
                stacklevel=2,
            )
        return self._result(part, fits.model(number), found.history, started)

    def _result(
        self, part: MemberFold, model: keras.Model, history: Mapping, started: float
    ) -> FoldResult:
        fold = part.fold
        # What a member has no input for, it knows as much of as the class rates or the mean tell.
        mean = _mean_answer(self.rows.y[fold.train], self.task)
        predictions = np.tile(mean, (len(fold.test), 1))
        answers = predict(model, self.rows.take(part.held).x)
        predictions[part.judged] = part.task.check_predictions(answers, len(part.held))
        return FoldResult(fold, predictions, time.perf_counter() - started, model, history)


@contextlib.contextmanager
def _collected(errors: list[FoldError]) -> Iterator[None]:
    """Keeps a `FoldError` that is raised within for later."""
    try:
        yield
    except FoldError as error:
        errors.append(error)


@contextlib.contextmanager
def _named(name: str, fold: Fold) -> Iterator[None]:
    """Raises whatever is raised within as a `FoldError` of the member and fold."""
    try:
        yield
    except Exception as error:
        raise _fold_error(name, fold, error) from error


def _fold_error(name: str, fold: Fold, error: Exception) -> FoldError:
    told = f"{type(error).__name__}: {error}"
    return FoldError(f"Member {name!r} failed in fold {fold.number + 1}. {told}")


def _mean_answer(y: np.ndarray, task: Task) -> np.ndarray:
    """`(units,)`: the class rates, or the mean target."""
    if task.kind == "regression":
        return np.array([y.mean()])
    rates = np.bincount(y, minlength=len(task.class_names)) / len(y)
    return rates[-task.units :]


def _task_of(y: np.ndarray, task: Task) -> Task:
    """The task with the class rates, or the target's scale, of these rows alone."""
    if len(np.unique(y)) < 2:
        return task
    return make_task(task.kind, y=y, class_names=task.class_names or None)
