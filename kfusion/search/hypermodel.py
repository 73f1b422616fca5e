"""The space of fused models as a KerasTuner hypermodel."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras
import keras_tuner

from kfusion.data.fingerprints import fingerprint_arrays
from kfusion.json_values import describe
from kfusion.models.building import FUSIONS, VECTOR_FUSIONS, build_fusion_model
from kfusion.optimizers import CONSTANT, COSINE, LEARNING_RATES, StepDecay
from kfusion.tasks import Task, as_task
from kfusion.training.compiling import check_label_smoothing, compile_model
from kfusion.training.fitting import fit

OPTIMIZERS = ("adam", "adamw", "nadam", "rmsprop", "sgd", "adagrad", "adadelta")
STEP = "step"
SCHEDULES = (COSINE, CONSTANT, STEP)
# Shares of the main rate of dropout in the last places of a branch.
RISING_SHARES = (0.2, 0.4, 0.6, 0.8)
_BRANCH_KEYWORDS = ("units", "dropout", "l2")
_MODEL_KEYWORDS = ("fusion", "head_units", "head_depth", "dropout", "l2")
_FIT_KEYWORDS = (
    "optimizer",
    "learning_rate_factor",
    "learning_rate_schedule",
    "weight_decay",
    "label_smoothing",
    "batch_size",
)
_DIALS = ("dropout", "l2", "weight_decay", "label_smoothing", "learning_rate_factor")
# What a part of the space may be: one value, several, or a callable that declares it.
Part = Any


class FusionHyperModel(keras_tuner.HyperModel):
    """Searches fusion, optimizer, learning rate, dropout in each place, widths, depth and L2.

    Every hyperparameter is named like the keyword it becomes: those of `build_fusion_model`
    (`fusion`, `head_units`, `head_depth`, `dropout`, `l2`), of `fit` (`optimizer`,
    `learning_rate_factor`), and of each branch with the branch's name in front (`image_units`,
    `image_dropout`). `keywords` gives them back sorted that way.

    Each part below is one value, which fixes it; a list of values to choose from; or a callable
    `part(hp, name)` that declares it in another way, such as
    `lambda hp, name: hp.Float(name, 0.3, 0.7)`.

    Args:
        branches: Dict of branch builders by name, such as
            `functools.partial(image_branch, (24, 24, 3))`; each is called anew for every trial
            with the keywords `units`, `dropout` and `l2`.
        task: `Task`, "binary" or "regression".
        fusions: Names from `FUSIONS`; by default those of vectors alone, which are cheap.
        optimizers: Names of Keras optimizers.
        learning_rate_factors: Tuple `(lowest, highest)`, range of the learning rate as multiples of
            each optimizer's usual one, searched on a log scale: a rate that suits Adam stalls
            SGD, so the rates themselves share no range. A list is a choice here too.
        learning_rate_schedules: "cosine", "constant" or "step".
        decay_factors: Tuple `(lowest, highest)`, range of what "step" multiplies the rate by.
        decay_epochs: How many epochs lie between two steps.
        units: Widths of each branch's features.
        head_units: Widths of the layers after the fusion.
        head_depths: Numbers of those layers.
        dropouts: Rates, for each branch and for the head.
        rising_dropout: Whether one rate, the head's, is searched for all places: 0.2, 0.4, 0.6 and
            0.8 of it in the last places of each branch, whose builder then gets a tuple.
        l2s: L2 penalties on the kernels of branches and head.
        weight_decays: Rates of decoupled weight decay, of which 0 is none; None leaves each
            optimizer its own, 0.004 of "adamw" and none of the others.
        label_smoothings: Shares of each label that training spreads over all classes, of which 0
            is none; None leaves them out of the space.
        batch_sizes: Rows per step; 0 is what `fit` chooses by the number of rows.
        branch_parts: Dict by branch of further keywords of its builder and their parts:
            `{"image": {"augment": [False, True]}}`, or "trainable" of an application.
        seed: Int; the initial weights, shuffling and dropout of the n-th model that is built
            start from `seed + n`. None leaves it to the tuner: `OptunaTuner` has a seed for each
            trial.
        modality_dropout: Float or None, of every model; see `build_fusion_model`.
        fit_keywords: Further keywords for `fit`, such as `batch_size` or `class_weight`.

    Raises:
        TypeError, ValueError: If branches are no builders or have names that the space uses, a
            builder does not take a keyword that is searched, or values are unknown.

    Example:
        >>> from functools import partial
        >>> from kfusion import image_branch, tabular_branch
        >>> image, tabular = partial(image_branch, (24, 24, 3)), partial(tabular_branch, 8)
        >>> hypermodel = FusionHyperModel({"image": image, "tabular": tabular}, task="binary")
        >>> hp = keras_tuner.HyperParameters()
        >>> hypermodel.build(hp).name
        'fusion_model'
        >>> hypermodel.keywords(hp)["fit"]
        {'optimizer': 'adam', 'learning_rate_factor': 1.0, 'learning_rate_schedule': 'cosine'}

        With a tuner of KerasTuner's own, give it the task's objective and its direction:

        >>> objective = keras_tuner.Objective(*hypermodel.task.objective)
    """

    def __init__(
        self,
        branches: Mapping[str, Callable[..., keras.Model]],
        *,
        task: Task | str,
        fusions: Part = VECTOR_FUSIONS,
        optimizers: Part = OPTIMIZERS,
        learning_rate_factors: Part = (0.1, 10.0),
        learning_rate_schedules: Part = COSINE,
        decay_factors: Part = (0.3, 0.8),
        decay_epochs: Part = 10,
        units: Part = (32, 64, 128),
        head_units: Part = (32, 64, 128),
        head_depths: Part = (1, 2, 3),
        dropouts: Part = (0.0, 0.2, 0.4),
        rising_dropout: bool = False,
        l2s: Part = (0.0, 1e-5, 1e-4, 1e-3),
        weight_decays: Part = None,
        label_smoothings: Part = None,
        batch_sizes: Part = 0,
        branch_parts: Mapping[str, Mapping[str, Part]] | None = None,
        seed: int | None = None,
        modality_dropout: float | None = None,
        fit_keywords: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        not_callable = [name for name, builder in branches.items() if not callable(builder)]
        if not_callable or any(isinstance(b, keras.Model) for b in branches.values()):
            raise TypeError(
                "`branches` must hold builders, called anew for every trial, such as "
                "`functools.partial(image_branch, (24, 24, 3))`; a built model would carry its "
                f"weights from trial to trial. Received: {dict(branches)}."
            )
        reserved = sorted(set(branches) & {"model", "fit", "head"})
        if reserved:
            raise ValueError(f"Branches cannot be named {reserved}: the space uses these names.")
        searched = sorted({"learning_rate", *_FIT_KEYWORDS} & set(fit_keywords or {}))
        if searched:
            raise ValueError(
                f"`fit_keywords` cannot hold {searched}, which are searched: narrow `optimizers`, "
                "`learning_rate_factors`, `learning_rate_schedules`, `weight_decays`, "
                "`label_smoothings` or `batch_sizes` instead."
            )
        if "callbacks" in (fit_keywords or {}):
            raise ValueError(
                "`fit_keywords` cannot hold callbacks, of which each run needs copies: give them "
                "to the search."
            )
        _check_known("fusions", fusions, FUSIONS)
        _check_known("optimizers", optimizers, LEARNING_RATES)
        _check_known("learning_rate_schedules", learning_rate_schedules, SCHEDULES)
        _check_known("fit_keywords", list(fit_keywords or {}), _known_fit_keywords())
        _check_numbers("units", units, 1, math.inf)
        _check_numbers("head_units", head_units, 1, math.inf)
        _check_numbers("head_depths", head_depths, 0, math.inf)
        _check_numbers("dropouts", dropouts, 0, 1)
        _check_numbers("l2s", l2s, 0, math.inf)
        _check_range("learning_rate_factors", learning_rate_factors)
        _check_range("decay_factors", decay_factors)
        self.branches = dict(branches)
        self.branch_parts = {name: dict(parts) for name, parts in (branch_parts or {}).items()}
        _check_branch_parts(self.branches, self.branch_parts)
        self.task = as_task(task)
        if label_smoothings is not None and not callable(label_smoothings):
            for share in _listed(label_smoothings):
                check_label_smoothing(share, self.task, (fit_keywords or {}).get("loss"))
        self.fusions = fusions
        self.optimizers = optimizers
        self.learning_rate_factors = learning_rate_factors
        self.learning_rate_schedules = learning_rate_schedules
        self.decay_factors = decay_factors
        self.decay_epochs = decay_epochs
        self.units = units
        self.head_units = head_units
        self.head_depths = head_depths
        self.dropouts = dropouts
        self.rising_dropout = rising_dropout
        self.l2s = l2s
        self.weight_decays = weight_decays
        self.label_smoothings = label_smoothings
        self.batch_sizes = batch_sizes
        self.seed = seed
        self.modality_dropout = modality_dropout
        self._num_builds = 0
        self.fit_keywords = dict(fit_keywords or {})

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Builds and compiles the model of one trial; called by KerasTuner."""
        self.declare_hyperparameters(hp)
        self._num_builds += 1
        if self.seed is not None:
            keras.utils.set_random_seed(self.seed + self._num_builds)
        keywords = self.keywords(hp)
        model = self.build_from(keywords)
        rates = dict(keywords["fit"])
        # The schedule begins with `fit`, which knows the number of steps.
        for name in ("batch_size", "learning_rate_schedule"):
            rates.pop(name, None)
        compile_model(model, task=self.task, **rates)
        return model

    def build_from(self, keywords: Mapping[str, Mapping[str, Any]]) -> keras.Model:
        """Builds the model of what `keywords` gives, uncompiled."""
        branches = {name: builder(**keywords[name]) for name, builder in self.branches.items()}
        return build_fusion_model(
            branches,
            task=self.task,
            modality_dropout=self.modality_dropout,
            **keywords["model"],
        )

    def fit(self, hp, model, x, y=None, *, validation_data=None, **kwargs):
        """Trains the model of one trial with `kfusion.fit`; called by KerasTuner.

        A trial that diverges is failed without being tried again; faults in the data, which every
        trial would meet, end the search.
        """
        keywords = {
            "seed": None if self.seed is None else self.seed + self._num_builds,
            **self.fit_keywords,
            **kwargs,
            **self.keywords(hp)["fit"],
        }
        try:
            settings = {"task": self.task, "validation_data": validation_data, "doctor": False}
            return fit(model, x, y, **settings, **keywords)
        except RuntimeError as error:
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        except ValueError as error:
            raise keras_tuner.errors.FatalValueError(str(error)) from error

    def keywords(self, hp: keras_tuner.HyperParameters) -> dict[str, dict[str, Any]]:
        """Sorts hyperparameters into the keywords they are.

        Returns:
            Dict with "model" (for `build_fusion_model`), "fit" (for `fit`) and, for each branch,
            its name (for its builder).
        """
        names = ("optimizer", "learning_rate_factor", "learning_rate_schedule")
        sorted_out: dict[str, dict[str, Any]] = {
            "model": {name: hp.get(name) for name in _MODEL_KEYWORDS},
            "fit": {name: hp.get(name) for name in names},
        }
        if hp.get("learning_rate_schedule") == STEP:
            sorted_out["fit"]["learning_rate_schedule"] = StepDecay(
                hp.get("decay_factor"), hp.get("decay_epochs")
            )
        if self.weight_decays is not None:
            sorted_out["fit"]["weight_decay"] = hp.get("weight_decay")
        if self.label_smoothings is not None:
            sorted_out["fit"]["label_smoothing"] = hp.get("label_smoothing")
        # 0 stands for what `fit` does by itself.
        if hp.get("batch_size"):
            sorted_out["fit"]["batch_size"] = hp.get("batch_size")
        for branch in self.branches:
            keywords = {"units": hp.get(f"{branch}_units"), "l2": hp.get("l2")}
            if self.rising_dropout:
                main = hp.get("dropout")
                keywords["dropout"] = tuple(round(share * main, 6) for share in RISING_SHARES)
            else:
                keywords["dropout"] = hp.get(f"{branch}_dropout")
            further = self.branch_parts.get(branch, {})
            sorted_out[branch] = {
                **keywords,
                **{keyword: hp.get(f"{branch}_{keyword}") for keyword in further},
            }
        return sorted_out

    def describe(self) -> dict[str, Any]:
        """What decides of a trial besides its point and its rows, as JSON can hold it."""
        return {
            "branches": describe(self.branches),
            "fit_keywords": describe(self.fit_keywords),
            "arrays": fingerprint_arrays(self.fit_keywords),
            "modality_dropout": self.modality_dropout,
            "rising_dropout": self.rising_dropout,
        }

    @property
    def dials(self) -> list[str]:
        """Names of hyperparameters that models of one structure may differ in, as a rule."""
        return [*_DIALS, *(f"{branch}_dropout" for branch in self.branches)]

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Declares the whole space, with no model built; called by KerasTuner."""
        for branch in self.branches:
            _declare(hp, f"{branch}_units", self.units)
            if not self.rising_dropout:
                _declare(hp, f"{branch}_dropout", self.dropouts)
            for keyword, part in self.branch_parts.get(branch, {}).items():
                _declare(hp, f"{branch}_{keyword}", part)
        _declare(hp, "fusion", self.fusions)
        _declare(hp, "head_units", self.head_units)
        _declare(hp, "head_depth", self.head_depths)
        _declare(hp, "dropout", self.dropouts)
        _declare(hp, "l2", self.l2s)
        if self.weight_decays is not None:
            _declare(hp, "weight_decay", self.weight_decays)
        if self.label_smoothings is not None:
            _declare(hp, "label_smoothing", self.label_smoothings)
        _declare(hp, "batch_size", self.batch_sizes)
        _declare(hp, "optimizer", self.optimizers)
        _declare_range(hp, "learning_rate_factor", self.learning_rate_factors, sampling="log")
        _declare(hp, "learning_rate_schedule", self.learning_rate_schedules)
        if callable(self.learning_rate_schedules) or STEP in _listed(self.learning_rate_schedules):
            with hp.conditional_scope("learning_rate_schedule", [STEP]):
                _declare_range(hp, "decay_factor", self.decay_factors, sampling="linear")
                _declare(hp, "decay_epochs", self.decay_epochs)


def _check_known(name: str, part: Part, known: Collection[str]) -> None:
    unknown = [] if callable(part) else sorted(set(_listed(part)) - set(known))
    if unknown:
        raise ValueError(f"`{name}` must be among {sorted(known)}. Received: {unknown}.")


def _check_numbers(name: str, part: Part, least: float, below: float) -> None:
    wrong = [] if callable(part) else [v for v in _listed(part) if not least <= v < below]
    if wrong:
        end = "" if below == math.inf else f" and below {below}"
        raise ValueError(f"`{name}` must be {least} or more{end}. Received: {wrong}.")


def _check_range(name: str, part: Part) -> None:
    if isinstance(part, tuple) and (len(part) != 2 or part[0] > part[1]):
        raise ValueError(
            f"`{name}` must be `(lowest, highest)`, or a list of values to choose from. "
            f"Received: {part}."
        )


def _known_fit_keywords() -> set[str]:
    """Of `fit` and, behind it, of Keras."""
    named = [*inspect.signature(fit).parameters, *inspect.signature(keras.Model.fit).parameters]
    return set(named) - {"self", "model", "x", "y", "task", "validation_data", "keywords"}


def _listed(part: Part) -> list[Any]:
    """The values of a part that is no callable; numbers of one kind, as choices have to be."""
    values = [part] if isinstance(part, str) or not isinstance(part, Sequence) else list(part)
    if any(isinstance(value, float) for value in values):
        return [float(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in values]
    return values


def _declare(hp: keras_tuner.HyperParameters, name: str, part: Part) -> None:
    """Declares one part of the space: fixed, a choice, or as its callable does."""
    if callable(part):
        part(hp, name)
        if name not in hp.values:
            raise ValueError(
                f"The function for {name!r} must declare the name that it is given, such as "
                f"`lambda hp, name: hp.Float(name, 0.3, 0.7)`. Declared: {sorted(hp.values)}."
            )
        return
    values = _listed(part)
    if not values:
        raise ValueError(f"There are no values for {name!r} to choose from.")
    if len(values) == 1:
        hp.Fixed(name, values[0])
    elif all(isinstance(value, bool) for value in values):
        hp.Boolean(name, default=values[0])
    else:
        hp.Choice(name, values)


def _declare_range(
    hp: keras_tuner.HyperParameters, name: str, part: Part, *, sampling: str
) -> None:
    """Declares a number between the two of a tuple, fixed if they are the same."""
    if not isinstance(part, tuple):
        _declare(hp, name, part)
        return
    lowest, highest = part
    if lowest == highest:
        hp.Fixed(name, lowest)
    else:
        # The first trial is that of the defaults.
        middle = math.sqrt(lowest * highest) if sampling == "log" else (lowest + highest) / 2
        hp.Float(name, lowest, highest, sampling=sampling, default=middle)


def _check_branch_parts(
    branches: Mapping[str, Callable[..., keras.Model]],
    branch_parts: Mapping[str, Mapping[str, Part]],
) -> None:
    unknown = sorted(set(branch_parts) - set(branches))
    if unknown:
        raise ValueError(f"`branch_parts` names {unknown}, but branches are {list(branches)}.")
    for branch, parts in branch_parts.items():
        twice = sorted(set(parts) & set(_BRANCH_KEYWORDS))
        if twice:
            raise ValueError(f"`branch_parts` cannot hold {twice}: they have parts of their own.")
        taken = inspect.signature(branches[branch]).parameters
        takes_any = any(each.kind is each.VAR_KEYWORD for each in taken.values())
        untaken = sorted(set(parts) - set(taken))
        if untaken and not takes_any:
            raise ValueError(f"The builder of {branch!r} does not take {untaken}.")
