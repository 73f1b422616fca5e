"""The space of fused models as a KerasTuner hypermodel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import keras_tuner

from kfusion.models import FUSIONS, build_fusion_model
from kfusion.tasks import Task, as_task
from kfusion.training import compile_model, fit

OPTIMIZERS = ("adam", "adamw", "nadam", "rmsprop", "sgd", "adagrad", "adadelta")
_BRANCH_KEYWORDS = ("units", "dropout")
_MODEL_KEYWORDS = ("fusion", "head_units", "head_depth", "dropout", "l2")
_FIT_KEYWORDS = ("optimizer", "learning_rate_factor", "weight_decay", "batch_size")


class FusionHyperModel(keras_tuner.HyperModel):
    """Searches fusion, optimizer, learning rate, dropout in each place, widths, depth and L2.

    Every hyperparameter is named like the keyword it becomes: those of `build_fusion_model`
    (`fusion`, `head_units`, `head_depth`, `dropout`, `l2`), of `fit` (`optimizer`,
    `learning_rate_factor`), and of each branch with the branch's name in front (`image_units`,
    `image_dropout`). `keywords` gives them back sorted that way.

    Each choice below may be narrowed to one value, which fixes it.

    Args:
        branches: Dict of branch builders by name, such as
            `functools.partial(image_branch, (24, 24, 3))`; each is called anew for every trial
            with the keywords `units`, `dropout` and `l2`.
        task: `Task`, "binary" or "regression".
        fusions: Names from `FUSIONS`.
        optimizers: Names of Keras optimizers.
        learning_rate_factors: `(lowest, highest)`, range of the learning rate as multiples of
            each optimizer's usual one, searched on a log scale: a rate that suits Adam stalls
            SGD, so the rates themselves share no range.
        units: Widths of each branch's features.
        head_units: Widths of the layers after the fusion.
        head_depths: Numbers of those layers.
        dropouts: Rates, for each branch and for the head.
        l2s: L2 penalties on the kernels of branches and head.
        weight_decays: Rates of decoupled weight decay; 0 is none.
        batch_sizes: Rows per step; 0 is what `fit` chooses by the number of rows.
        seed: Int; the initial weights, shuffling and dropout of the n-th model that is built
            start from `seed + n`. None leaves it to the tuner: `OptunaTuner` has a seed for each
            trial.
        fit_keywords: Further keywords for `fit`, such as `batch_size` or `class_weight`.

    Example:
        >>> from functools import partial
        >>> from kfusion import image_branch, tabular_branch
        >>> image, tabular = partial(image_branch, (24, 24, 3)), partial(tabular_branch, 8)
        >>> hypermodel = FusionHyperModel({"image": image, "tabular": tabular}, task="binary")
        >>> hp = keras_tuner.HyperParameters()
        >>> hypermodel.build(hp).name
        'fusion_model'
        >>> hypermodel.keywords(hp)["fit"]
        {'optimizer': 'adam', 'learning_rate_factor': 0.1}

        With a tuner of KerasTuner's own, give it the task's objective and its direction:

        >>> objective = keras_tuner.Objective(*hypermodel.task.objective)
    """

    def __init__(
        self,
        branches: Mapping[str, Callable[..., keras.Model]],
        *,
        task: Task | str,
        fusions: Sequence[str] = tuple(FUSIONS),
        optimizers: Sequence[str] = OPTIMIZERS,
        learning_rate_factors: tuple[float, float] = (0.1, 10.0),
        units: Sequence[int] = (32, 64, 128),
        head_units: Sequence[int] = (32, 64, 128),
        head_depths: Sequence[int] = (1, 2, 3),
        dropouts: Sequence[float] = (0.0, 0.2, 0.4),
        l2s: Sequence[float] = (0.0, 1e-5, 1e-4, 1e-3),
        weight_decays: Sequence[float] = (0.0,),
        batch_sizes: Sequence[int] = (0,),
        seed: int | None = None,
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
        for name, values in {"fusions": fusions, "optimizers": optimizers}.items():
            if isinstance(values, str):
                raise TypeError(f"`{name}` must be a list of names. Received: {values!r}.")
        searched = sorted({"learning_rate", *_FIT_KEYWORDS} & set(fit_keywords or {}))
        if searched:
            raise ValueError(
                f"`fit_keywords` cannot hold {searched}, which are searched: narrow `optimizers`, "
                "`learning_rate_factors`, `weight_decays` or `batch_sizes` instead."
            )
        unknown = sorted(set(fusions) - set(FUSIONS))
        if unknown:
            raise ValueError(f"`fusions` must be among {sorted(FUSIONS)}. Received: {unknown}.")
        self.branches = dict(branches)
        self.task = as_task(task)
        self.fusions = list(fusions)
        self.optimizers = [str(name).lower() for name in optimizers]
        self.learning_rate_factors = learning_rate_factors
        self.units = list(units)
        self.head_units = list(head_units)
        self.head_depths = list(head_depths)
        self.dropouts = list(dropouts)
        self.l2s = list(l2s)
        self.weight_decays = list(weight_decays)
        self.batch_sizes = list(batch_sizes)
        self.seed = seed
        self._num_builds = 0
        self.fit_keywords = dict(fit_keywords or {})

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Builds and compiles the model of one trial; called by KerasTuner."""
        self.declare_hyperparameters(hp)
        self._num_builds += 1
        if self.seed is not None:
            keras.utils.set_random_seed(self.seed + self._num_builds)
        keywords = self.keywords(hp)
        branches = {name: builder(**keywords[name]) for name, builder in self.branches.items()}
        model = build_fusion_model(branches, task=self.task, **keywords["model"])
        rates = {name: value for name, value in keywords["fit"].items() if name != "batch_size"}
        compile_model(model, task=self.task, **rates)
        return model

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
            return fit(model, x, y, task=self.task, validation_data=validation_data, **keywords)
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
        sorted_out: dict[str, dict[str, Any]] = {
            "model": {name: hp.get(name) for name in _MODEL_KEYWORDS},
            "fit": {name: hp.get(name) for name in ("optimizer", "learning_rate_factor")},
        }
        # 0 stands for what `fit` does by itself.
        for name in ("weight_decay", "batch_size"):
            if hp.get(name):
                sorted_out["fit"][name] = hp.get(name)
        for branch in self.branches:
            found = {part: hp.get(f"{branch}_{part}") for part in _BRANCH_KEYWORDS}
            sorted_out[branch] = {**found, "l2": hp.get("l2")}
        return sorted_out

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Declares the whole space, with no model built; called by KerasTuner."""
        for branch in self.branches:
            hp.Choice(f"{branch}_units", self.units)
            hp.Choice(f"{branch}_dropout", self.dropouts)
        hp.Choice("fusion", self.fusions)
        hp.Choice("head_units", self.head_units)
        hp.Choice("head_depth", self.head_depths)
        hp.Choice("dropout", self.dropouts)
        hp.Choice("l2", self.l2s)
        _declare(hp, "weight_decay", self.weight_decays)
        _declare(hp, "batch_size", self.batch_sizes)
        hp.Choice("optimizer", self.optimizers)
        lowest, highest = self.learning_rate_factors
        if lowest == highest:
            hp.Fixed("learning_rate_factor", lowest)
        else:
            hp.Float("learning_rate_factor", lowest, highest, sampling="log")


def _declare(hp: keras_tuner.HyperParameters, name: str, values: Sequence[Any]) -> None:
    """A choice, or what is fixed if there is none."""
    if len(values) == 1:
        hp.Fixed(name, values[0])
    else:
        hp.Choice(name, values)
