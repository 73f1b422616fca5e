"""Many models trained at once, each with settings, seed and rows of its own."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kfusion.data.rows import take_rows
from kfusion.models.residual import starts_from_the_best
from kfusion.progress import progress
from kfusion.stacked.fit_data import FitData
from kfusion.stacked.member_settings import (
    MemberSettings,
    check_same_kind,
    check_settings,
    is_elementwise,
    read_members,
)
from kfusion.stacked.model_dials import (
    UnknownStructureError,
    dials_of,
    scales_of,
    states_but_dropouts,
    structure_of,
)
from kfusion.stacked.programs import Programs
from kfusion.stacked.stacked_epochs import BACKENDS
from kfusion.stacked.stacked_fit import (
    BuiltMember,
    MemberFit,
    dials_in_use,
    fit_stack,
    make_stack,
    member_weights,
    members_at_once,
)
from kfusion.tasks import Task, as_task, check_variety
from kfusion.training.batch_sizes import default_batch_size
from kfusion.training.fitting import check_can_score, fit, seed_layers
from kfusion.training.memory_batches import is_out_of_memory


@dataclasses.dataclass
class ManyFits(Sequence):
    """What `fit_many` gives: a `MemberFit` for each member, in their order, and their models.

    Attributes:
        fits: List of `MemberFit`.
    """

    fits: list[MemberFit]
    _build: Callable[..., keras.Model] = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.fits)

    def __getitem__(self, index):
        return self.fits[index]

    def __repr__(self) -> str:
        return f"<ManyFits of {len(self)} members>"

    def model(self, index: int) -> keras.Model:
        """A member as an ordinary `keras.Model`, with the weights of its best epoch.

        Raises:
            RuntimeError: If its training failed.
        """
        member = self.fits[index]
        if member.failure is not None:
            raise RuntimeError(f"Member {index} has no weights: {member.failure}")
        model = self._build(**member.settings.build)
        model.set_weights(member.weights)
        return model


def fit_many(
    build: Callable[..., keras.Model],
    x: Mapping[str, Any],
    y: Any,
    *,
    task: Task | str,
    members: Sequence[Mapping[str, Any]],
    validation_data: tuple[Mapping[str, Any], Any] | None = None,
    epochs: int = 30,
    batch_size: int | None = None,
    patience: int | None = 8,
    seed: int = 0,
    at_once: int | str = "auto",
    programs: Programs | None = None,
    verbose: int | bool = 1,
    **keywords: Any,
) -> ManyFits:
    """Trains many models at once: a search's trials, folds or seeds of one small network.

    Members whose models have one structure are trained in one program. Each has its own initial
    weights, order of rows, dropout, statistics of batches, learning rate, weight decay, rates of
    dropout, L2 penalties, smoothing of labels, best epoch and early stop, and none sees another: on
    the jax backend a member is what `keras.utils.set_random_seed(seed)`, `build(...)` and
    `fit(..., seed=seed)` give within rounding. On tensorflow `fit` draws another order of the rows,
    and Keras' optimizers count rows of one category in a batch one by one; a stack sums them first,
    as jax does.

    It pays for small networks on vectors, whose training is mostly overhead. Members that cannot
    share a program (an optimizer that is no name from `kfusion.optimizers.LEARNING_RATES`, a
    residual fusion, weights under constraints, half precision, a model of a user's own class, or
    with a layer that has no config; the torch backend) are trained one by one by `fit`, with a
    warning; their `alone_because` says why.
    An optimizer given as an instance is copied for each.

    A member whose training diverges in its first epoch, as the rows that judge it show, has a
    `failure` in place of weights, and so has one trained by itself for which memory does not
    suffice; the others are trained none the less. Of one that diverges later, `diverged_in` tells,
    and the weights are the best ones before. Any other error is a mistake that others share,
    and ends the call.

    Args:
        build: Callable that returns an uncompiled model, such as a function that calls
            `build_fusion_model`; called with each member's keywords that are none of training.
        x: Dict of arrays by input name, held whole in the device's memory.
        y: `(rows,)` labels or targets.
        task: `Task`, "binary" or "regression".
        members: A dict of keywords for each member. Those of training are `optimizer`,
            `learning_rate`, `learning_rate_factor`, `learning_rate_schedule`, `weight_decay`,
            `loss`, `label_smoothing`, `class_weight`, `sample_weight` (of all rows of `x`),
            `batch_size`, `epochs`, `patience` and `seed`, as of `fit`; `rows` and
            `validation_rows`, positions in `x`, are a fold of its own; `task` is that of its own
            rows, where its model has their class rates or scale. All others are for `build`.
        validation_data: `(x, y)` of the rows that judge all members.
        epochs: Int, of members that do not say otherwise, as all that follow.
        batch_size: Int; by default as `fit` chooses by the number of rows.
        patience: Int; None never stops early.
        seed: Int, from which those of members are derived.
        at_once: Int, the most members that train in one program; "auto" goes by memory.
        programs: `Programs` of earlier calls: members whose structure was trained on the same rows
            before share what was compiled then.
        verbose: 0 hides the progress on stderr.
        **keywords: Keywords of training for all members.

    Returns:
        `ManyFits`.

    Raises:
        TypeError, ValueError: If data, task or settings do not fit; a note names the member.

    Example:
        >>> import numpy as np
        >>> from functools import partial
        >>> import kfusion
        >>> x = {"embedding": np.random.default_rng(0).normal(size=(200, 8)).astype("float32")}
        >>> y = (x["embedding"][:, 0] > 0).astype(int)
        >>> def build(dropout=0.0):
        ...     branch = kfusion.embedding_branch(8, units=4, dropout=dropout)
        ...     return kfusion.build_unimodal_model(branch, task="binary", head_depth=0)
        >>> fits = fit_many(
        ...     build, x, y, task="binary", epochs=2, verbose=0, validation_data=(x, y),
        ...     members=[{"dropout": 0.1}, {"dropout": 0.3, "learning_rate": 0.01}],
        ... )
        >>> len(fits), fits[1].at_once, fits.model(1).name
        (2, 2, 'unimodal_model')
    """
    task = as_task(task)
    defaults = {**keywords, "epochs": epochs, "batch_size": batch_size, "patience": patience}
    read = read_members(members, defaults, seed, len(y), validation_data is not None)
    if at_once != "auto" and (not isinstance(at_once, int) or at_once < 1):
        raise ValueError(f'`at_once` must be "auto" or 1 or more. Received: {at_once!r}.')
    data = FitData(task, x, y, validation_data)
    if programs is None:
        programs = Programs()
    else:
        programs.keep_to(data)
    groups: dict[str, list[BuiltMember]] = collections.defaultdict(list)
    # One of each structure; the others are free to go.
    models: dict[str, keras.Model] = {}
    alone: dict[int, str] = {}
    for number, settings in enumerate(read):
        with _named_in_errors(number):
            model = _build_checked(build, settings, data)
        group, reason = _group_of(model, settings)
        if group is not None:
            groups[group].append(_start_of(number, settings, model))
            models.setdefault(group, model)
        else:
            alone[number] = reason
            warnings.warn(f"Member {number} is trained by itself: {reason}.", stacklevel=2)
    fits: dict[int, MemberFit] = {}
    with progress(range(len(read)), description="members", verbose=verbose) as bar:
        for group, starts in groups.items():
            for number, done in _fit_group(group, models[group], starts, data, programs, at_once):
                fits[number] = dataclasses.replace(done, structure=group)
                bar.advance()
        for number, reason in alone.items():
            with _named_in_errors(number):
                fits[number] = _fit_alone(read[number], data, build, reason)
            bar.advance()
    return ManyFits([fits[number] for number in range(len(read))], build)


@contextlib.contextmanager
def _named_in_errors(number: int) -> Iterator[None]:
    """Adds to whatever is raised within which member it is of."""
    try:
        yield
    except Exception as error:
        error.add_note(f"This was member {number}.")
        raise


def _build_checked(build, settings: MemberSettings, data: FitData) -> keras.Model:
    """A member's model, from its seed, when settings and data are known to fit."""
    if settings.fit["batch_size"] is None:
        settings.fit["batch_size"] = default_batch_size(len(settings.rows))
    check_settings(settings, data.task)
    check_same_kind(settings.task_of(data.task), data.task)
    keras.utils.set_random_seed(settings.seed)
    model = build(**settings.build)
    if not isinstance(model, keras.Model):
        raise TypeError(f"`build` must return a `keras.Model`. Received: {model!r}.")
    labels = data.of(model).y
    check_variety(labels[settings.rows])
    member_weights(settings, data.task, labels)
    if settings.validation_rows is not None:
        check_can_score(data.task, labels[settings.validation_rows])
    return model


def _start_of(number: int, settings: MemberSettings, model: keras.Model) -> BuiltMember:
    seed_layers(model, settings.seed)
    states = states_but_dropouts(model)
    places = {id(v): i for i, v in enumerate([*model.trainable_variables, *states])}
    return BuiltMember(
        number,
        settings,
        [keras.ops.convert_to_numpy(v.value) for v in model.trainable_variables],
        [keras.ops.convert_to_numpy(v.value) for v in states] + scales_of(model),
        dials_of(model),
        [places[id(v)] for v in model.weights],
    )


def _group_of(model: keras.Model, settings: MemberSettings) -> tuple[str | None, str]:
    """Text that members of one program share; or None, and why a member cannot share one."""
    reason = _why_alone(model, settings)
    if reason is not None:
        return None, reason
    try:
        return f"{structure_of(model)} {settings.common()}", ""
    except UnknownStructureError as error:
        return None, str(error)


def _why_alone(model: keras.Model, settings: MemberSettings) -> str | None:
    """Why a member cannot share a program, or None if it can."""
    if keras.backend.backend() not in BACKENDS:
        return f"the {keras.backend.backend()} backend trains one model at a time"
    if not is_elementwise(settings.fit["optimizer"]):
        return f"the optimizer {settings.fit['optimizer']!r} may work on whole variables"
    if not type(model).__module__.startswith("keras."):
        return f"a {type(model).__name__} may train in a way of its own"
    if starts_from_the_best(model):
        return "the start of a residual fusion competes with its epochs"
    if any(v.constraint is not None for v in model.trainable_variables):
        return "its weights are under constraints"
    if any(each.dtype_policy.name == "mixed_float16" for each in model._flatten_layers()):
        return "half precision scales its loss by what it met before"
    return None


def _fit_group(
    key: str,
    model: keras.Model,
    group: list[BuiltMember],
    data: FitData,
    programs: Programs,
    at_once: int | str,
) -> Iterator[tuple[int, MemberFit]]:
    """Trains members of one structure in stacks of one size."""
    most = at_once
    if isinstance(most, str):
        most = members_at_once(model, group[0].settings.fit["batch_size"])
    size = math.ceil(len(group) / math.ceil(len(group) / most))
    rows, used = data.of(model), dials_in_use(group, data.task)
    stack, size = programs.find(
        f"{key} {used}", size, lambda: make_stack(model, group, used, data.task, rows)
    )
    for start in range(0, len(group), size):
        chunk = group[start : start + size]
        # One program serves all: what fills the last stack up is trained in vain.
        filled = chunk + [chunk[-1]] * (size - len(chunk))
        done = fit_stack(stack, filled, used, rows)[: len(chunk)]
        yield from ((each.number, fit) for each, fit in zip(chunk, done, strict=True))


def _fit_alone(settings: MemberSettings, data: FitData, build, reason: str) -> MemberFit:
    """Trains a member with `fit`; a divergence, or memory that does not suffice, is its failure."""
    keras.utils.set_random_seed(settings.seed)
    model = build(**settings.build)
    others = ("rows", "validation_rows", "task")
    keywords = {k: v for k, v in settings.fit.items() if k not in others}
    task = settings.task_of(data.task)
    if keywords["sample_weight"] is not None:
        keywords["sample_weight"] = np.asarray(keywords["sample_weight"])[settings.rows]
    given = keywords["optimizer"]
    if isinstance(given, keras.optimizers.Optimizer):
        # Another member may be given the same one, which then holds this one's variables.
        keywords["optimizer"] = type(given).from_config(given.get_config())
    rows = data.of(model)
    x, y = take_rows(rows.x, settings.rows), rows.y[settings.rows]
    judges = rows.judges(settings)
    try:
        history = fit(
            model, x, y, task=task, validation_data=judges, **keywords, doctor=False, verbose=0
        )
    except Exception as error:
        if not (isinstance(error, RuntimeError) or is_out_of_memory(error)):
            raise
        return MemberFit(settings, {}, None, 1, reason, failure=str(error))
    best_epoch, weights = history.best_epoch, model.get_weights()
    return MemberFit(settings, history.history, best_epoch, 1, reason, weights=weights)
