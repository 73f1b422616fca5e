"""Several processes that work on one study."""

from __future__ import annotations

import contextlib
import itertools
import sys
import warnings
from typing import Any

import joblib

# How often workers are started again after one was killed.
MAX_RESTARTS = 20


def run_workers(tuner: Any, num_workers: int, fit_args: tuple, fit_kwargs: dict[str, Any]) -> None:
    """Runs a tuner's search in that many processes at once, until all are done.

    Args:
        tuner: `OptunaTuner`; each process gets a copy of it, which opens the same study.
        num_workers: Int.
        fit_args: For `search`.
        fit_kwargs: For `search`.

    Raises:
        TypeError: If the tuner cannot be sent to other processes.
    """
    jobs = [joblib.delayed(_work)(tuner, fit_args, fit_kwargs) for _ in range(num_workers)]
    for restarts in itertools.count():
        try:
            joblib.Parallel(n_jobs=num_workers)(jobs)
            return
        except Exception as error:
            kind = type(error).__name__
            if kind == "PicklingError":
                raise TypeError(
                    "`n_jobs` above 1 sends the hypermodel to other processes, but it cannot be "
                    f"pickled: {error.__cause__ or error}. Leave out what it holds on to (open "
                    "files, locks, built models), or make that inside the function."
                ) from error
            # Whoever killed it, no trial is begun more than twice.
            if kind != "TerminatedWorkerError" or restarts == MAX_RESTARTS:
                raise
            warnings.warn("A process was killed; its trial is run again.", stacklevel=3)


def _work(tuner: Any, fit_args: tuple, fit_kwargs: dict[str, Any]) -> None:
    # The caller's stdout may be for results; what several processes print there would be mixed.
    with contextlib.redirect_stdout(sys.stderr):
        tuner.search_here(*fit_args, **fit_kwargs)
