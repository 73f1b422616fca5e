"""Several processes that work on one study."""

from __future__ import annotations

from typing import Any

import cloudpickle
import joblib


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
    try:
        sent = cloudpickle.dumps(tuner)
    except Exception as error:
        raise TypeError(
            "`n_jobs` above 1 sends the hypermodel to other processes, but it cannot be pickled: "
            f"{type(error).__name__}: {error}. Leave out what it holds on to (open files, locks, "
            "built models), or make that inside the function."
        ) from error
    jobs = [joblib.delayed(_work)(sent, i, fit_args, fit_kwargs) for i in range(num_workers)]
    joblib.Parallel(n_jobs=num_workers)(jobs)


def _work(sent: bytes, number: int, fit_args: tuple, fit_kwargs: dict[str, Any]) -> None:
    tuner = cloudpickle.loads(sent)
    tuner.search_here(*fit_args, **fit_kwargs)
