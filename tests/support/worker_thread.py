"""A worker as a thread of the tests' process, for runs that end before they train."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from search.cli.worker import carry_out
from search.runner.events import EventWriter
from search.runner.job import decode_order
from search.runner.reporter import NullPublisher
from tests.support.numpy_worker import NumpyTrainer


class WorkerThread:
    """The part of `subprocess.Popen` that the supervisor uses; replaces `search.runner.supervisor._start_process`."""

    def __init__(self, *_ignored: Any) -> None:
        reader, writer = os.pipe()
        self.stdout = os.fdopen(reader, "rb")
        self.stdin = _Input(self._begin)
        self._events = os.fdopen(writer, "w", encoding="utf-8")
        self._thread = threading.Thread(target=self._events.close)

    def _begin(self, line: str) -> None:
        self._thread = threading.Thread(target=self._carry_out, args=(line,), daemon=True)
        self._thread.start()

    def _carry_out(self, line: str) -> None:
        with self._events:
            carry_out(decode_order(line), EventWriter(self._events), NullPublisher(), NumpyTrainer())

    def terminate(self) -> None:
        """A thread ends by itself."""

    kill = terminate

    def wait(self, timeout: float | None = None) -> int:
        """The exit status of a worker that has carried out its order."""
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise subprocess.TimeoutExpired("worker", timeout or 0.0)
        return 0


class _Input:
    """The standard input of a worker: one line, its order."""

    def __init__(self, begin: Callable[[str], None]) -> None:
        self._begin = begin

    def write(self, line: bytes) -> None:
        self._begin(line.decode())

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """The thread does not wait for the end of its input."""
