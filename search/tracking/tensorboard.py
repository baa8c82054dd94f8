"""Event files of TensorBoard: a folder for each trial, with its hyperparameters."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import summary_v2
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class TensorBoard:
    """Writes the trials of a study below a folder: `tensorboard --logdir FOLDER` shows them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def begin(self, name: str, parameters: Mapping[str, Any]) -> None:
        self._close()
        self._writer = EventFileWriter(str(self._folder / name))
        self._write(0, summary_v2.hparams_pb(dict(parameters), trial_id=name))

    def epoch(self, step: int, values: Mapping[str, float]) -> None:
        self._write(step, Summary(value=[Summary.Value(tag=key, simple_value=value) for key, value in values.items()]))
        self._writer.flush()  # a run that is killed keeps what was reported

    def end(self, outcome: str, scores: Mapping[str, float]) -> None:
        self._write(0, Summary(value=[Summary.Value(tag=f"hparam/{key}", simple_value=scores[key]) for key in scores]))
        self._close()

    def _write(self, step: int, summary: Any) -> None:
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
