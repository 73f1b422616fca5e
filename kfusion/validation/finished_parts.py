"""The folder in which long work keeps what it has finished, to go on from after a kill."""

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

from kfusion.data.fingerprints import OtherWorkError, check_record, write_record
from kfusion.json_values import history_as_json
from kfusion.whole_folders import UNFINISHED, whole_folder

RECORD_FILE, PREDICTIONS_FILE, RESULT_FILE = "about.json", "predictions.npy", "result.json"
MODEL_FILE = "model.keras"


@dataclasses.dataclass(frozen=True)
class FinishedParts:
    """Finished parts of one work by name, such as folds, each there whole or not at all.

    Attributes:
        path: Where they are.
        keep_models: Whether a part's Keras model is kept with it.
        work: What the work is called in messages.
    """

    path: Path
    keep_models: bool = False
    work: str = "cross-validation"

    @contextlib.contextmanager
    def opened(self, about: Mapping[str, Any]) -> Iterator[None]:
        """Holds the folder for this process; makes it, or checks that it is the same work's.

        Args:
            about: What the work is, JSON-able.

        Raises:
            OtherWorkError: If the folder holds other work, or parts of nobody knows what.
            ValueError: If the record of what it holds is damaged.
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
                check_record(record, about, self.work)
            elif any(self.path.glob(f"*/{RESULT_FILE}")):
                raise OtherWorkError(
                    f"{self.path} holds parts of a {self.work}, but no {RECORD_FILE} says of "
                    "which. Choose another directory, or remove it."
                )
            else:
                write_record(record, about)
            for leftover in self.path.glob(f".*{UNFINISHED}"):
                shutil.rmtree(leftover, ignore_errors=True)
            yield

    def has(self, name: str) -> bool:
        """Whether the part was finished."""
        return self._folder(name).exists()

    def write(
        self,
        name: str,
        predictions: np.ndarray,
        seconds: float,
        model: Any,
        history: Mapping[str, Sequence[float | None]],
    ) -> None:
        """Keeps a finished part; if another process was first, that one's stays.

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
            whole_folder(self._folder(name)) as unfinished,
        ):
            np.save(unfinished / PREDICTIONS_FILE, predictions)
            about = json.dumps({"seconds": seconds, "history": history_as_json(history)})
            (unfinished / RESULT_FILE).write_text(about, encoding="utf-8")
            if self.keep_models:
                model.save(unfinished / MODEL_FILE)

    def read(self, name: str) -> tuple[np.ndarray, float, Any, dict[str, list[float | None]]]:
        """Returns predictions, seconds, model (None unless models are kept) and history of a part.

        Raises:
            RuntimeError: If its files are damaged, or its model cannot be read.
        """
        folder = self._folder(name)
        try:
            about = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
            seconds, history = about["seconds"], about.get("history", {})
            predictions = np.load(folder / PREDICTIONS_FILE, allow_pickle=False)
        except (OSError, ValueError, EOFError, KeyError) as error:
            raise RuntimeError(f"{folder} is damaged: remove it, and it is run again.") from error
        model = _read_model(folder / MODEL_FILE) if self.keep_models else None
        return predictions, seconds, model, history

    def _folder(self, name: str) -> Path:
        return self.path / name


def _read_model(path: Path) -> Any:
    from kfusion.models.trained_models import read_model

    try:
        return read_model(path)
    except (OSError, ValueError) as error:
        raise RuntimeError(
            f"{path} cannot be read: {error} If the file is damaged, remove its folder, and the "
            "model is trained again."
        ) from error


def part_name(name: str) -> str:
    """What something of that name is called as a folder."""
    return name.replace(" ", "_")


def fold_name(number: int) -> str:
    """What a fold is called among finished parts."""
    return f"fold_{number:03d}"
