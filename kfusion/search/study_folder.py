"""The folder of a study: Optuna's database, what the study is of, and a folder for each trial."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
import optuna
from optuna.study import StudyDirection

from kfusion.data.fingerprints import check_record, read_record, write_record
from kfusion.search.quiet_optuna import quiet_optuna
from kfusion.versions import library_versions

DATABASE_FILE, RECORD_FILE, LOCK_FILE = "study.db", "about.json", ".lock"
SPACE_FILE = "space.json"
HISTORY_FILE, CONFUSION_FILE = "history.json", "confusion.json"
STUDY_NAME = "kfusion"
# What KerasTuner's own oracles leave.
FOREIGN_FILE = "oracle.json"
# Seconds that a process waits for others that write to the study.
PATIENCE = 120


class StudyFolder:
    """What several processes share of one study.

    A process holds the lock of every trial that it runs; the system lets go of it however the
    process ends, so that a running trial which nobody holds was cut off.

    Args:
        path: The study's folder.
        storage: URL of an Optuna storage; None for an SQLite file in the folder. The folder is
            shared in any case, and its file system has to know locks.
    """

    def __init__(self, path: str | os.PathLike, storage: str | None = None):
        self.path = Path(path)
        self.storage = storage
        self._held: dict[int, filelock.BaseFileLock] = {}
        self._lock: filelock.BaseFileLock | None = None

    @property
    def database(self) -> Path:
        """The SQLite file, if there is no other storage."""
        return self.path / DATABASE_FILE

    def check(self) -> None:
        """Looks whether the study can be opened and written.

        Raises:
            OSError: If the folder cannot be written.
            ValueError: If the study's file is corrupt, or the folder one of KerasTuner's own.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            trace = self.path / f".writable.{os.getpid()}"
            trace.touch()
            trace.unlink()
        except OSError as error:
            raise OSError(f"The study's folder {self.path} cannot be written: {error}") from error
        if (self.path / FOREIGN_FILE).exists():
            raise ValueError(
                f"{self.path} holds a search of KerasTuner's own tuners ({FOREIGN_FILE}). Choose "
                "another directory or project_name, or overwrite=True."
            )
        if self.storage is None and self.database.exists():
            _check_database(self.database)

    def open(
        self, directions: list[StudyDirection], names: list[str]
    ) -> tuple[optuna.Study, optuna.storages.BaseStorage]:
        """The study, made if it is not there yet, and this process's way to it.

        Args:
            directions: `StudyDirection` of each objective.
            names: Name of each objective.
        """
        with self.locked(), quiet_optuna(), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = self._make_storage()
            study = optuna.create_study(
                storage=storage,
                study_name=self._find_name(),
                directions=directions,
                load_if_exists=True,
            )
            if study.metric_names is None:
                study.set_metric_names(names)
        return study, storage

    def read(self) -> optuna.Study:
        """The study that is there.

        Raises:
            FileNotFoundError: If there is none.
        """
        if self.storage is None and not self.database.exists():
            raise FileNotFoundError(f"{self.path} holds no study: it lacks {DATABASE_FILE}.")
        with quiet_optuna():
            return optuna.load_study(study_name=self._find_name(), storage=self._make_storage())

    def _make_storage(self) -> optuna.storages.BaseStorage:
        if self.storage is not None:
            return optuna.storages.get_storage(self.storage)
        # SQLite waits for other processes instead of giving up.
        keywords = {"connect_args": {"timeout": PATIENCE}}
        # Optuna takes braces for a template's.
        path = str(self.database).replace("{", "{{").replace("}", "}}")
        return optuna.storages.get_storage(
            optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs=keywords)
        )

    def _find_name(self) -> str:
        """The study's name in its storage: in a shared one, a name that no other folder has."""
        if self.storage is None:
            return STUDY_NAME
        record = self.path / RECORD_FILE
        known = read_record(record) or {}
        if "study_name" not in known:
            known["study_name"] = f"{self.path.name}-{uuid.uuid4().hex[:12]}"
            write_record(record, known)
        return known["study_name"]

    def check_record(self, about: Mapping[str, Any]) -> None:
        """Keeps what the study is of, or raises `OtherWorkError` naming what differs from it.

        Entries that are not in the record yet, such as the data of a study that was not begun, are
        added.
        """
        with self.locked():
            record = self.path / RECORD_FILE
            known = read_record(record) or {}
            if known:
                told = {name: value for name, value in about.items() if name in known}
                check_record(record, {**known, **told}, "search")
            else:
                known = {"versions": library_versions()}
            write_record(record, {**known, **about})

    @contextlib.contextmanager
    def locked(self):
        """Holds the study against other processes; again within, it is held already."""
        self.path.mkdir(parents=True, exist_ok=True)
        if self._lock is None:
            self._lock = filelock.FileLock(self.path / LOCK_FILE, timeout=PATIENCE)
        with self._lock:
            yield

    def trial_folder(self, number: int) -> Path:
        """Where a trial's files are."""
        return self.path / f"trial_{number:04d}"

    def claim(self, number: int) -> bool:
        """Holds a trial for this process; false if another one does."""
        if number in self._held:
            return True
        folder = self.trial_folder(number)
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK_FILE, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            return False
        self._held[number] = lock
        return True

    def holds(self, number: int) -> bool:
        """Whether this process holds a trial."""
        return number in self._held

    def release(self, number: int) -> None:
        """Lets go of a trial."""
        self._held.pop(number).release()

    def read_space(self) -> dict[str, Any] | None:
        """The space as far as it has grown while models were built; None if it has not."""
        return read_record(self.path / SPACE_FILE)

    def write_space(self, config: Mapping[str, Any]) -> None:
        """Keeps a space that has grown, for other processes and for the search to go on."""
        write_record(self.path / SPACE_FILE, config)

    def write_history(self, number: int, history: Any) -> None:
        """Keeps what the epochs of a trial's runs logged."""
        write_record(self.trial_folder(number) / HISTORY_FILE, history)

    def read_history(self, number: int) -> list[dict[str, list[float]]]:
        """What the epochs of each run of a trial logged; nothing if it was cut off."""
        return read_record(self.trial_folder(number) / HISTORY_FILE) or []

    def write_confusion(self, number: int, counts: list[list[int]]) -> None:
        """Keeps how often a trial's model takes each true class (rows) for which (columns)."""
        write_record(self.trial_folder(number) / CONFUSION_FILE, counts)

    def read_confusion(self, number: int) -> list[list[int]] | None:
        """What `write_confusion` kept; None if the trial has no classes or was cut off."""
        return read_record(self.trial_folder(number) / CONFUSION_FILE)

    def __getstate__(self) -> dict[str, Any]:
        # Another process holds nothing yet.
        return {**self.__dict__, "_held": {}, "_lock": None}


def _check_database(path: Path) -> None:
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE)) as connection:
            found = connection.execute("PRAGMA quick_check").fetchone()
        if found != ("ok",):
            raise sqlite3.DatabaseError(found[0])
    except sqlite3.OperationalError as error:
        raise OSError(f"The study's file {path} cannot be read: {error}.") from error
    except sqlite3.DatabaseError as error:
        raise ValueError(
            f"The study's file {path} is corrupt ({error}). It is left as it is: move it away to "
            "begin anew, or choose another directory."
        ) from error
