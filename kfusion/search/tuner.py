"""KerasTuner's tuner on an Optuna study: any hypermodel, any number of processes."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import keras
import keras_tuner
import numpy as np
from keras_tuner.engine.trial import TrialStatus

from kfusion.data.fingerprints import fingerprint, fingerprint_arrays
from kfusion.data.folds import Fold
from kfusion.devices import check_distribution, sharing_where_needed
from kfusion.search.confusion_counts import count_confusion
from kfusion.search.hypermodel import FusionHyperModel
from kfusion.search.oracle import StudyOracle, StudyTrial
from kfusion.search.proposals import longest_choice
from kfusion.search.samplers import Pruner, Sampler
from kfusion.search.space import Space
from kfusion.search.tensorboard_logs import TrialLog
from kfusion.search.trial_bar import TrialBar
from kfusion.search.trial_callbacks import (
    BestByObjective,
    EpochHistory,
    StopAfterSeconds,
    StopNotFinite,
    StopWhenPruned,
    TunerHooks,
    has_hooks,
)
from kfusion.search.trial_rows import (
    JUDGES,
    WEIGHTS,
    FitArguments,
    describe_folds,
    plan_trial_folds,
)
from kfusion.search.trial_runs import TrialRun, best_epoch
from kfusion.search.trials_together import TrialsTogether, trials_at_once, why_one_by_one
from kfusion.search.workers import run_workers
from kfusion.seeds import derive_seed
from kfusion.stacked.programs import Programs
from kfusion.training.backend_memory import free_compiled_functions, traced_gradients_forgotten
from kfusion.training.epoch_callbacks import EpochBar

# JAX compiles what models share anew after so many: seldom enough to cost next to nothing.
MODELS_BETWEEN_COMPILATIONS = 10


class OptunaTuner(keras_tuner.Tuner):
    """Searches the space of a KerasTuner hypermodel with an Optuna study.

    The arguments and methods are KerasTuner's, so that a program changes its tuner's class and
    nothing else. Behind them is an Optuna study in the project's folder:

    - any number of processes, started with `search(..., n_jobs=)` or by hand, share it;
    - a trial whose process was killed is run again, and a search that was stopped goes on;
    - the first trial is that of the defaults (the least value of a range that has none); no point
      is tried twice, and a space with no points left ends the search;
    - a trial that fails (not finite, out of memory, an exception, too large) is kept with its
      reason, and the search goes on;
    - of several runs of a trial the mean counts, and the weights kept are of the median run.

    Args:
        hypermodel: `keras_tuner.HyperModel`, or a function of hyperparameters that returns a
            compiled model.
        objective: Name of a metric, `keras_tuner.Objective(name, direction)` or a list of them.
            "num_parameters" and "seconds" are there for every model. Epochs are judged by the first
            one that they log.
        max_trials: Int, trials of all processes together.
        sampler: "tpe", "gp" (needs torch), "cmaes" (needs cmaes), "random", "qmc", "grid", or an
            Optuna sampler.
        pruner: What gives up trials that fall behind: "median", "percentile",
            "successive_halving", "hyperband", "wilcoxon" or an Optuna pruner. None, the default,
            prunes nothing: values that learn slowly are never told apart from bad ones.
        min_trials_per_choice: Int: so often every value of a choice is tried to completion
            before the sampler begins.
        max_seconds_per_trial: Float: a run of a trial (one for each fold and seed) ends after the
            epoch in which they are over.
        log_dir: Folder for TensorBoard: curves and hyperparameters of every trial, on any backend.
            A `keras.callbacks.TensorBoard` among the callbacks of `search` names one as well.
        seed: Int: the same search proposes and trains the same trials, if one process runs it.
        storage: URL of an Optuna storage in place of a file in the project's folder. The folder
            keeps the weights and has to be shared all the same.
        distribution_strategy: What shares each batch among the devices of this machine, as
            `distribution` of `kfusion.fit`; models are built in its scope.
        **keywords: As of `keras_tuner.Tuner`: `directory`, `project_name`, `overwrite`,
            `executions_per_trial`, `max_model_size`, `optimizer`, `loss`, `metrics`, and
            `hyperparameters`, `tune_new_entries`, `allow_new_entries` of its oracles.

    Raises:
        ValueError: If a sampler or pruner is unknown, the space has no parameters, or the folder
            holds a corrupt study or one of another space or objective.
        OSError: If the folder cannot be written.

    Example:
        >>> import tempfile
        >>> def parabola(hp):
        ...     return (hp.Float("x", -2.0, 2.0) - 1) ** 2
        >>> class Parabola(OptunaTuner):
        ...     def run_trial(self, trial, **keywords):
        ...         return parabola(trial.hyperparameters)
        >>> tuner = Parabola(max_trials=30, directory=tempfile.mkdtemp())
        >>> tuner.search(verbose=0)
        >>> abs(tuner.get_best_hyperparameters()[0].get("x") - 1) < 0.2
        True
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: Any = None,
        max_trials: int | None = 10,
        *,
        sampler: Sampler = "tpe",
        pruner: Pruner = None,
        min_trials_per_choice: int = 0,
        max_seconds_per_trial: float | None = None,
        log_dir: str | os.PathLike | None = None,
        seed: int | None = 0,
        storage: str | None = None,
        hyperparameters: keras_tuner.HyperParameters | None = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        distribution_strategy: Any = None,
        **keywords: Any,
    ):
        check_distribution(distribution_strategy)
        self.max_seconds_per_trial = max_seconds_per_trial
        self.log_dir = log_dir
        # The nested cross-validation of the search, from whoever ran one.
        self.nested: Any = None
        self._folds: list[Fold] | None = None
        self._built: Any = None
        self._num_built = 0
        self._at_once = 1
        self._bar: TrialBar | None = None
        oracle = StudyOracle(
            objective,
            max_trials,
            sampler=sampler,
            pruner=pruner,
            min_trials_per_choice=min_trials_per_choice,
            storage=storage,
            seed=0 if seed is None else seed,
            hyperparameters=hyperparameters,
            tune_new_entries=tune_new_entries,
            allow_new_entries=allow_new_entries,
        )
        super().__init__(oracle, hypermodel, **keywords)
        # Not handed on: KerasTuner asks it for what TensorFlow's alone have.
        self.distribution_strategy = distribution_strategy
        self.oracle.folder.check()
        if self.hypermodel is not None and not self.oracle.hyperparameters.space:
            raise ValueError(
                "The space has no parameters: `hypermodel` asks for none, such as "
                '`hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")`.'
            )
        self.oracle.open({"executions_per_trial": self.executions_per_trial})

    def search(
        self,
        *fit_args: Any,
        n_jobs: int = 1,
        cv: Any = None,
        groups: Any = None,
        parallel_trials: int | str = 1,
        **fit_kwargs: Any,
    ) -> None:
        """Runs trials until there are `max_trials`, or no points are left.

        Args:
            *fit_args: For `HyperModel.fit`, as `keras.Model.fit` takes them.
            cv: Int, a scikit-learn splitter or pairs of row positions: each trial is trained on
                every fold and counts by its mean over the folds, of whose rows each judges once. A
                pruner is told of folds instead of epochs, as "wilcoxon" wants it.
            groups: `(rows,)` values: rows that share one stay in one fold.
            n_jobs: Int, processes that work on the study at once; -1 is one per core. joblib starts
                them: within `joblib.parallel_config("ray")` they are those of a Ray cluster.
            parallel_trials: Int, trials of a `FusionHyperModel` that each process trains at once in
                one program (see `fit_many`), each with the weights, scores and seed of its own. The
                sampler is asked for as many points at a time that differ in rates and penalties
                alone: more trials in the same time, of fewer structures. "auto" does so for arrays
                of vectors, four or more as long as that leaves six groups, and twice as many groups
                as the longest choice of a structure has values; half of the groups are drawn, of
                values tried least, half are the sampler's, and the first ten differ. A pruner,
                callbacks, an objective that is not the task's and the like ask for one at a time.
                The bar says how many. 1, the default, is KerasTuner's way; `search_fusion` has
                "auto".
            **fit_kwargs: The same; with `verbose=1`, the default, one bar tells of trials, the best
                one so far and the epochs of the running one; 0 hides it, and 2 shows KerasTuner's
                tables and Keras' bars in its place.

        Raises:
            ValueError: If the study is one of other data; trials cannot be trained at once, which
                says why; or processes are asked for beside a distribution, which has all devices
                work on one trial.
            TypeError: If the hypermodel cannot be sent to other processes.
            RuntimeError: If no trial completed; quotes the first one's reason.
        """
        if groups is not None and cv is None:
            raise ValueError("`groups` keep rows together in the folds of `cv`: give it as well.")
        arguments = self._arguments(fit_args, fit_kwargs)
        self._folds = (
            None if cv is None else plan_trial_folds(arguments, cv, groups, self.oracle.seed)
        )
        self.oracle.folder.check_record(
            {
                "data": fingerprint_arrays([fit_args, fit_kwargs]),
                "folds": fingerprint(describe_folds(self._folds)),
                "fit": arguments.settings(),
                "hypermodel": self._describe_hypermodel(),
            }
        )
        n_jobs = joblib.effective_n_jobs(n_jobs)
        self._at_once = self._decide_at_once(parallel_trials, n_jobs, arguments)
        if n_jobs > 1 and self.distribution_strategy is not None:
            raise ValueError(
                f"`n_jobs={n_jobs}` runs trials at once, but the distribution has all devices work "
                "on one of them. Leave `n_jobs` at 1; or leave the distribution out and start one "
                "process for each device with the same `directory`, each with its own "
                "CUDA_VISIBLE_DEVICES."
            )
        verbose = fit_kwargs.get("verbose", 1)
        if verbose in (1, "auto"):
            fit_kwargs = self._without_other_displays(fit_kwargs)
        is_shown = verbose in (1, "auto")
        with TrialBar(self.oracle, is_shown=is_shown, at_once=self._at_once) as self._bar:
            if n_jobs > 1:
                with self._bar.watching():
                    run_workers(self, n_jobs, fit_args, fit_kwargs)
            # Also what was cut off in another process.
            self.search_here(*fit_args, **fit_kwargs)
        self._check_completed()

    def _arguments(self, fit_args: tuple[Any, ...], fit_kwargs: dict[str, Any]) -> FitArguments:
        """What trials are trained on, with weights of rows that the hypermodel has for them."""
        weights = {}
        if isinstance(self.hypermodel, FusionHyperModel):
            weights = {k: v for k, v in self.hypermodel.fit_keywords.items() if k == WEIGHTS}
        return FitArguments(fit_args, {**weights, **fit_kwargs})

    def _describe_hypermodel(self) -> dict[str, Any]:
        """What a hypermodel makes of a point, as far as it is known."""
        if isinstance(self.hypermodel, FusionHyperModel):
            return self.hypermodel.describe()
        return {}

    def _without_other_displays(self, fit_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments with which nothing shows beside the bar, and none that may not be taken."""
        self.oracle.verbose = 0
        fits_as_keras_tuner = (
            type(self).run_trial is OptunaTuner.run_trial
            and type(self.hypermodel).fit is keras_tuner.HyperModel.fit
        )
        if "verbose" in fit_kwargs or fits_as_keras_tuner:
            return {**fit_kwargs, "verbose": 0}
        return fit_kwargs

    def search_here(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """The part of a search that is this process's."""
        # What is there before the first trial need not be looked through after each.
        gc.collect()
        gc.freeze()
        try:
            with sharing_where_needed(self.distribution_strategy):
                if self._at_once == 1:
                    super().search(*fit_args, **fit_kwargs)
                else:
                    self._search_together(self._arguments(fit_args, fit_kwargs))
        finally:
            gc.unfreeze()
            self.oracle.release_trials()

    def _decide_at_once(
        self, parallel_trials: int | str, n_jobs: int, arguments: FitArguments
    ) -> int:
        is_number = isinstance(parallel_trials, int) and not isinstance(parallel_trials, bool)
        if parallel_trials != "auto" and not (is_number and int(parallel_trials) >= 1):
            raise ValueError(
                f'`parallel_trials` must be "auto" or 1 or more. Received: {parallel_trials!r}.'
            )
        if parallel_trials == 1:
            return 1
        reason = self._why_one_by_one() or why_one_by_one(self.hypermodel, arguments)
        if parallel_trials == "auto":
            if reason:
                return 1
            longest = longest_choice(Space(self.oracle.hyperparameters), self.hypermodel.dials)
            return trials_at_once(self.oracle.max_trials, n_jobs, arguments, longest)
        if reason:
            raise ValueError(f"`parallel_trials={parallel_trials}` cannot be: {reason}.")
        return int(parallel_trials)

    def _why_one_by_one(self) -> str | None:
        """What was asked of this tuner that needs one training at a time, or None."""
        asked = {
            "a pruner": self.oracle.pruner,
            "`max_seconds_per_trial`": self.max_seconds_per_trial,
            "`log_dir`": self.log_dir,
            "a distribution": self.distribution_strategy,
            "`optimizer`, `loss` or `metrics`": self.optimizer or self.loss or self.metrics,
            "an objective that is not the task's": not self._judges_as_the_task(),
            'the objective "seconds"': "seconds" in [each.name for each in self.oracle.objectives],
            "methods for epochs or batches": has_hooks(self),
            "a `run_trial` of its own": type(self).run_trial is not OptunaTuner.run_trial,
        }
        found = [name for name, value in asked.items() if value]
        return f"{found[0]} needs one training at a time" if found else None

    def _judges_as_the_task(self) -> bool:
        """Whether epochs are judged here as `fit` judges them."""
        asked = getattr(getattr(self.hypermodel, "task", None), "objective", None)
        own = self.oracle.epoch_objective
        return asked is None or (own.name, own.direction) == tuple(asked)

    def _search_together(self, arguments: FitArguments) -> None:
        """As KerasTuner's loop, with several trials at once."""
        programs = Programs()
        self.oracle.verbose = arguments.named.get("verbose", self.oracle.verbose)
        self.on_search_begin()
        while trials := self.oracle.create_trials(self._at_once, self.hypermodel.dials):
            for trial in trials:
                self.on_trial_begin(trial)
            self._run_together(trials, arguments, programs)
        self.on_search_end()

    def _run_together(
        self, trials: list[StudyTrial], arguments: FitArguments, programs: Programs
    ) -> None:
        started = time.perf_counter()
        self._count_built()
        try:
            with traced_gradients_forgotten():
                together = TrialsTogether(
                    self.hypermodel,
                    trials,
                    arguments,
                    folds=self._folds,
                    num_seeds=self.executions_per_trial,
                    seed=self.oracle.seed,
                    programs=programs,
                    max_model_size=self.max_model_size,
                )
        except Exception as error:
            ids = ", ".join(trial.trial_id for trial in trials)
            told = f"Trials {ids} are trained one by one. {type(error).__name__}: {error}"
            warnings.warn(told, stacklevel=3)
            for trial in trials:
                self._try_run_and_update_trial(trial, *arguments.positional, **arguments.named)
                self.on_trial_end(trial)
            return
        seconds = (time.perf_counter() - started) / len(trials)
        for position, trial in enumerate(trials):
            trial.seconds = seconds
            with self._outcome_kept(trial):
                runs = together.runs(position)
                self._built = together.model(position)
                self._keep_runs(trial, runs)
                self._write_build_config(trial)
                self._tell(trial, [run.result for run in runs], arguments)
            self.on_trial_end(trial)

    def _write_build_config(self, trial: StudyTrial) -> None:
        """What KerasTuner builds a trial's model with when it loads its weights."""
        config = self._built.get_build_config()
        Path(self._get_build_config_fname(trial.trial_id)).write_text(json.dumps(config))

    def _check_completed(self) -> None:
        trials = list(self.oracle.trials.values())
        if any(trial.status in (TrialStatus.COMPLETED, TrialStatus.RUNNING) for trial in trials):
            return
        messages = [trial.message for trial in trials if trial.message]
        reason = messages[0].strip().splitlines()[-1] if messages else "no trial was run"
        raise RuntimeError(f"None of {len(trials)} trials completed. The first one: {reason}")

    def get_best_models(self, num_models: int = 1) -> list[keras.Model]:
        """Builds the models of the best trials, the best first, and loads their weights."""
        with warnings.catch_warnings():
            # A trial's optimizer had a schedule, that of a model built again has none.
            warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
            return super().get_best_models(num_models)

    def run_trial(self, trial: StudyTrial, *fit_args: Any, **fit_kwargs: Any) -> list[Any]:
        """Trains a trial's model on each fold, as often as `executions_per_trial` says.

        Every run starts from another seed.

        Returns:
            What `HyperModel.fit` returned, of each run.
        """
        arguments = self._arguments(fit_args, fit_kwargs)
        folds: list[Fold | None] = [None] if self._folds is None else list(self._folds)
        report = self.oracle.reporter(trial)
        runs: list[TrialRun] = []
        for fold in (fold for fold in folds for _ in range(self.executions_per_trial)):
            pruning = []
            if report is not None and fold is None and not runs:
                pruning = [StopWhenPruned(self.oracle.epoch_objective, report)]
            rows = arguments if fold is None else arguments.of_fold(fold)
            runs.append(self._run(trial, len(runs), rows, pruning))
            trial.is_pruned = any(callback.is_pruned for callback in pruning)
            if report is not None and fold is not None:
                value = runs[-1].sort_value(self.oracle.epoch_objective)
                trial.is_pruned = report(len(runs) - 1, value)
            if trial.is_pruned:
                break
        self._keep_runs(trial, runs)
        return [run.result for run in runs]

    def _run(
        self, trial: StudyTrial, number: int, arguments: FitArguments, pruning: list
    ) -> TrialRun:
        """One training of a trial's model."""
        keras.utils.set_random_seed(derive_seed(self.oracle.seed, int(trial.trial_id), number))
        best, epochs = BestByObjective(self.oracle.epoch_objective), EpochHistory()
        own = [best, epochs, StopNotFinite(), *pruning]
        if has_hooks(self):
            own.append(TunerHooks(self, trial))
        if self.max_seconds_per_trial is not None:
            own.append(StopAfterSeconds(self.max_seconds_per_trial))
        named = dict(arguments.named)
        copies = self._deepcopy_callbacks(named.pop("callbacks", []))
        self._configure_tensorboard_dir(copies, trial, number)
        name = f"trial {int(trial.trial_id)}" + (f", run {number + 1}" if number else "")
        bar = EpochBar(f"{name}, epoch", None, self._bar is not None and self._bar.is_shown)
        own.append(bar)
        with traced_gradients_forgotten(), contextlib.closing(bar):
            result = self._build_and_fit_model(
                trial, *arguments.positional, **named, callbacks=[*copies, *own]
            )
        weights = self._built.get_weights() if best.weights is None else best.weights
        return TrialRun(result, weights, epochs.history, arguments.get("validation_data"))

    def _configure_tensorboard_dir(
        self, callbacks: list[Any], trial: StudyTrial, execution: int = 0
    ) -> None:
        """A folder for each run; KerasTuner's own writes hyperparameters on tensorflow alone."""
        folders = [] if self.log_dir is None else [os.fspath(self.log_dir)]
        for callback in callbacks:
            if isinstance(callback, keras.callbacks.TensorBoard):
                folders.append(str(callback.log_dir))
                callback.log_dir = self._get_tensorboard_dir(
                    callback.log_dir, trial.trial_id, execution
                )
        callbacks += [
            TrialLog(
                self._get_tensorboard_dir(folder, trial.trial_id, execution),
                trial.hyperparameters.values,
                trial.trial_id,
            )
            for folder in dict.fromkeys(folders)
        ]

    def on_trial_end(self, trial: StudyTrial) -> None:
        """As KerasTuner's, and tells of it."""
        super().on_trial_end(trial)
        if self._bar is not None:
            self._bar.update()

    def save(self) -> None:
        """Nothing: the study is saved as it changes."""

    def _run_and_update_trial(self, trial: StudyTrial, *fit_args: Any, **fit_kwargs: Any) -> None:
        """As KerasTuner's, with the spread over runs and the metrics that every trial has."""
        started = time.perf_counter()
        results = self.run_trial(trial, *fit_args, **fit_kwargs)
        trial.seconds = time.perf_counter() - started
        if trial.is_pruned:
            raise keras_tuner.errors.FailedTrialError("Pruned: it fell behind those before it.")
        self._tell(trial, results, FitArguments(fit_args, fit_kwargs))

    def _tell(self, trial: StudyTrial, results: Any, arguments: FitArguments) -> None:
        """Tells the study what came of a trial's runs, in the mean."""
        objective = self.oracle.epoch_objective
        runs = [
            best_epoch(result, objective)
            for result in (results if isinstance(results, list) else [results])
        ]
        own = {"seconds": trial.seconds, "num_parameters": self._count_parameters()}
        names = set.intersection(*(set(metrics) for metrics, _ in runs))
        metrics = {name: float(np.mean([run[name] for run, _ in runs])) for name in names}
        metrics = {**{k: v for k, v in own.items() if v is not None}, **metrics}
        missing = [each.name for each in self.oracle.objectives if each.name not in metrics]
        if missing:
            judged = self._folds or any(arguments.get(name) is not None for name in JUDGES)
            hint = (
                "" if judged else " There are no validation rows: give `validation_data` or `cv`."
            )
            raise keras_tuner.errors.FatalValueError(
                f"The objective {missing[0]!r} is not among what trials report: {sorted(metrics)}."
                f"{hint}"
            )
        if len(runs) > 1:
            first = self.oracle.objectives[0].name
            trial.spread = float(np.std([run.get(first, np.nan) for run, _ in runs], ddof=1))
        trial.num_runs = len(runs)
        step = int(np.mean([epoch for _, epoch in runs]))
        self.oracle.update_trial(trial.trial_id, metrics, step=step)

    def _try_run_and_update_trial(self, trial: StudyTrial, *fit_args: Any, **fit_kwargs: Any):
        with self._outcome_kept(trial):
            self._run_and_update_trial(trial, *fit_args, **fit_kwargs)

    @contextlib.contextmanager
    def _outcome_kept(self, trial: StudyTrial) -> Iterator[None]:
        """Gives a trial its status; a failure is a warning in one line, kept whole in the trial."""
        try:
            yield
        except keras_tuner.errors.FatalError:
            raise
        except Exception as error:
            trial.status, trial.message = TrialStatus.FAILED, traceback.format_exc()
            if not trial.is_pruned:
                told = f"Trial {trial.trial_id} failed. {type(error).__name__}: {error}"
                warnings.warn(told, stacklevel=4)
        else:
            trial.status = TrialStatus.COMPLETED

    def _try_build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        # The last trial's model is garbage from here on.
        self._built = None
        self._count_built()
        self._built = super()._try_build(hp)
        return self._built

    def _count_built(self) -> None:
        """One more program was compiled; after some, what the backend keeps of them is let go."""
        self._num_built += 1
        if self._num_built % MODELS_BETWEEN_COMPILATIONS == 0:
            free_compiled_functions()

    def _count_parameters(self) -> int | None:
        """Of the model that was trained last; None if there is none."""
        is_known = self._built is not None and self._built.built
        return self._built.count_params() if is_known else None

    def __getstate__(self) -> dict[str, Any]:
        # Other processes build models themselves, and are seen from here.
        return {**self.__dict__, "_built": None, "_bar": None}

    def _keep_runs(self, trial: StudyTrial, runs: list[TrialRun]) -> None:
        """Writes what epochs logged and, unless the trial was given up, the median run."""
        self.oracle.folder.write_history(int(trial.trial_id), [run.history for run in runs])
        lengths = [run.num_epochs(self.oracle.epoch_objective) for run in runs if run.history]
        trial.num_epochs = round(float(np.mean(lengths))) if lengths else None
        if not trial.is_pruned:
            self._keep_median(trial, runs)

    def _keep_median(self, trial: StudyTrial, runs: list[TrialRun]) -> None:
        """Writes the weights of the median run, whole or not at all, and what it takes for what."""
        objective = self.oracle.epoch_objective
        order = sorted(range(len(runs)), key=lambda i: runs[i].sort_value(objective))
        median = runs[order[(len(runs) - 1) // 2]]
        model = self._built
        model.set_weights(median.weights)
        path = Path(self._get_checkpoint_fname(trial.trial_id))
        unfinished = path.with_name(f"unfinished_{path.name}")
        model.save_weights(unfinished)
        os.replace(unfinished, path)
        try:
            counts = count_confusion(model, median.validation_data)
        except Exception as error:
            # What is kept beside a result does not decide about it.
            told = f"Trial {trial.trial_id}: its classes were not counted. {error}"
            warnings.warn(told, stacklevel=2)
            return
        if counts is not None:
            self.oracle.folder.write_confusion(int(trial.trial_id), counts.tolist())
