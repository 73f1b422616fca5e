"""The folder in which a cross-validation keeps finished folds, to go on from after a kill."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from kfusion.data.fingerprints import check_record, write_record
from kfusion.json_values import history_as_json
from kfusion.whole_folders import whole_folder

RECORD_FILE, PREDICTIONS_FILE, RESULT_FILE = "about.json", "predictions.npy", "result.json"
MODEL_FILE = "model.keras"


@dataclasses.dataclass(frozen=True)
class FoldFolder:
    """Finished folds by number, each there whole or not at all.

    Attributes:
        path: Where they are.
        keep_models: Whether a fold's Keras model is kept with it.
    """

    path: Path
    keep_models: bool = False

    @contextlib.contextmanager
    def opened(self, about: Mapping[str, Any]) -> Iterator[None]:
        """Holds the folder for this process; makes it, or checks that it is the same work's.

        Args:
            about: What the work is, JSON-able.

        Raises:
            OtherWorkError: If the folder holds other work.
            RuntimeError: If another process is at work in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        # The system lets go of the lock however the process ends.
        lock = filelock.FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise RuntimeError(f"Another process is at work in {self.path}.") from None
        with lock:
            record = self.path / RECORD_FILE
            if record.exists():
                check_record(record, about, "cross-validation")
            else:
                write_record(record, about)
            for leftover in self.path.glob(".fold_*"):
                shutil.rmtree(leftover, ignore_errors=True)
            yield

    def has(self, number: int) -> bool:
        """Whether the fold was finished."""
        return self._fold(number).exists()

    def write(
        self,
        number: int,
        predictions: np.ndarray,
        seconds: float,
        model: Any,
        history: Mapping[str, Sequence[float | None]],
    ) -> None:
        """Keeps a finished fold; if another process was first, that one's stays.

        Raises:
            TypeError: If models are kept and this is none of Keras'.
        """
        if self.keep_models and not hasattr(model, "save"):
            raise TypeError(
                "`keep_models` with a directory needs Keras models. `fit` returned "
                f"{type(model).__name__}."
            )
        with (
            contextlib.suppress(FileExistsError),
            whole_folder(self._fold(number)) as unfinished,
        ):
            np.save(unfinished / PREDICTIONS_FILE, predictions)
            about = json.dumps({"seconds": seconds, "history": history_as_json(history)})
            (unfinished / RESULT_FILE).write_text(about, encoding="utf-8")
            if self.keep_models:
                model.save(unfinished / MODEL_FILE)

    def read(self, number: int) -> tuple[np.ndarray, float, Any, dict[str, list[float | None]]]:
        """Returns predictions, seconds, model (None unless models are kept) and history of a fold.

        Raises:
            RuntimeError: If its files are damaged.
        """
        folder = self._fold(number)
        model = None
        if self.keep_models:
            from kfusion.models.trained_models import read_model

            model = read_model(folder / MODEL_FILE)
        try:
            about = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
            predictions = np.load(folder / PREDICTIONS_FILE, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise RuntimeError(f"{folder} is damaged: remove it, and it is run again.") from error
        return predictions, about["seconds"], model, about.get("history", {})

    def _fold(self, number: int) -> Path:
        return self.path / f"fold_{number:03d}"
