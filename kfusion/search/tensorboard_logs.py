"""TensorBoard's files of a trial: its hyperparameters and curves, on every backend."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import keras
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from kfusion.search.epoch_logs import to_numbers


class TrialLog(keras.callbacks.Callback):
    """Writes one run of a trial for TensorBoard's tabs of scalars and HParams.

    Keras' own callback needs TensorFlow, and KerasTuner's writes no hyperparameters on other
    backends; this one needs the package tensorboard alone.

    Args:
        folder: Where the event file goes.
        values: Hyperparameters by name.
        trial_id: Name of the trial: HParams shows runs of one trial as one group.
    """

    def __init__(self, folder: str | os.PathLike, values: Mapping[str, Any], trial_id: str):
        super().__init__()
        self.folder = os.fspath(folder)
        self.values = dict(values)
        self.trial_id = trial_id

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._writer = EventFileWriter(self.folder)
        self._write(hparams_pb(self.values, self.trial_id))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for name, value in to_numbers(logs).items():
            self._write(scalar_pb(name, value), epoch)
        self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        end = SessionEndInfo(status=STATUS_SUCCESS, end_time_secs=time.time())
        ended = Summary()
        ended.value.add(
            tag=metadata.SESSION_END_INFO_TAG,
            metadata=metadata.create_summary_metadata(HParamsPluginData(session_end_info=end)),
            tensor=metadata.NULL_TENSOR,
        )
        self._write(ended)
        self._writer.close()

    def _write(self, summary: Summary, step: int = 0) -> None:
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
