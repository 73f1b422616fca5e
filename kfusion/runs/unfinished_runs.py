"""What a run has finished before it was killed, so that the same command goes on from there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from kfusion.data.fingerprints import OtherWorkError, fingerprint
from kfusion.data.fusion_data import FusionData
from kfusion.data.streamed_images import StreamedImages
from kfusion.json_values import describe
from kfusion.runs.run_records import TRIALS_FOLDER, UNFINISHED_FOLDER
from kfusion.validation.finished_parts import FinishedParts, part_name
from kfusion.versions import library_versions

_STUDY_BEGUN = "study_begun"


class UnfinishedRun:
    """The folder within a run's folder that holds its trained candidates until the run is whole.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path):
        self.path, self.trials = folder / UNFINISHED_FOLDER, folder / TRIALS_FOLDER
        self.parts = FinishedParts(self.path, keep_models=True, work="unfinished run")

    @contextlib.contextmanager
    def opened(self, about: Mapping[str, Any], *, overwrite: bool) -> Iterator[None]:
        """Holds the folder for this process; what the same work has finished stays.

        Args:
            about: What the work is, as from `describe_run`.
            overwrite: Whether to remove what other work has left.

        Raises:
            OtherWorkError: If the folder holds other work, or a damaged record of what it holds,
                which is not to be overwritten.
            RuntimeError: If another process is at work in it.
        """
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self.parts.opened(about))
            except ValueError as error:
                if not overwrite:
                    raise OtherWorkError(f"{error} `overwrite=True` removes it too.") from None
                shutil.rmtree(self.path)
                held.enter_context(self.parts.opened(about))
            yield

    def finished(self, names: Sequence[str]) -> list[str]:
        """Those of the candidates that were trained."""
        return [name for name in names if self.parts.has(part_name(name))]

    def begin_study(self, search: Mapping[str, Any], *, overwrite: bool) -> bool:
        """Notes that a search has begun; returns whether it goes on from trials that there are.

        Args:
            search: What all its trials have in common, such as its space.
            overwrite: Whether to remove trials that are older than this run, or another search's.
        """
        begun = self.path / _STUDY_BEGUN
        told = json.dumps(describe(search), sort_keys=True)
        goes_on = begun.exists() and (not overwrite or begun.read_text(encoding="utf-8") == told)
        if goes_on:
            return True
        if overwrite and self.trials.exists():
            shutil.rmtree(self.trials)
        begun.write_text(told, encoding="utf-8")
        return False

    def remove(self) -> None:
        """Removes the folder: the run is whole."""
        shutil.rmtree(self.path, ignore_errors=True)


def describe_run(
    train: FusionData, validation: FusionData, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What must be the same for trained candidates to belong to one run, JSON-able.

    Args:
        train: Training rows.
        validation: Validation rows.
        settings: All else that the candidates depend on.
    """
    versions = library_versions()
    return {
        "data": {"training": _digest(train), "validation": _digest(validation)},
        "settings": describe(settings),
        "backend": keras.backend.backend(),
        "versions": {name: versions.get(name) for name in ("kfusion", "keras")},
    }


def _digest(data: FusionData) -> str:
    arrays = {
        name: _files_of(array) if isinstance(array, StreamedImages) else array
        for name, array in data.arrays.items()
    }
    groups = {} if data.groups is None else {"groups": data.groups}
    kinds = pd.Series(data.column_kinds, dtype=object)
    frames = {
        "table": data.frame,
        "kinds": kinds,
        "classes": pd.Series(data.class_names, dtype=object),
    }
    return fingerprint({**arrays, **groups, **frames, "y": data.y, "rows": data.rows})


def _files_of(images: StreamedImages) -> pd.DataFrame:
    """Files that stay files are known by name, size and time: to decode them may take hours."""
    rows = []
    for name in images.names():
        with contextlib.suppress(OSError):
            state = os.stat(name)
            rows.append((name, state.st_size, state.st_mtime_ns))
            continue
        rows.append((name, -1, -1))
    frame = pd.DataFrame(rows, columns=["file", "size", "time"])
    return frame.assign(shape=str(images.image_shape))
