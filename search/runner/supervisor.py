"""Starts, watches and recycles the worker processes of a run; itself it never loads TensorFlow.

A leak, a crash or a hang so ends one trial and not the study. What a lost worker was training is queued again. Several
supervisors may be at work on one study, here and on other machines: each looks after its own workers.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Protocol

from optuna.exceptions import StorageInternalError

from search.errors import UserError, reason
from search.runner.job import Order, StudyStopped, encode_order
from search.runner.placement import Share, on_cores
from search.storage import locks
from search.storage.failures import StorageUnavailable
from search.storage.recovery import recover, requeue
from search.study.config import ROOT
from search.study.records import FAILED
from search.study.run import Run, every
from search.training.result import Outcome

MOST_FAILURES = 5  # in a row, before the run stops
STOP_SECONDS = 5.0  # that workers are given between SIGTERM and SIGKILL
LAST_SECONDS = 2.0  # that a run which ends waits for a database that is away
LOG = "worker.log"  # in the run folder: what workers and their libraries print
MODULE = "SEARCH_WORKER"  # environment: the module that is a worker process, instead of `search worker`

Event = dict[str, Any]


class View(Protocol):
    """Shows a run to whoever watches."""

    def show(self, event: Event) -> None: ...


class Interrupted(Exception):
    """A signal asked the run to stop; everything is kept."""

    def __init__(self, status: int) -> None:
        super().__init__(f"exit status {status}")
        self.status = status


def supervise(
    run: Run, order: Order, view: View, shares: Sequence[Share] = (Share(),), *, stopped: Callable[[], bool] | None = None
) -> None:
    """Run a worker on each share until the order is carried out.

    Args:
        stopped: asked now and then whether to stop; signals do so if None.

    Raises:
        UserError: a worker found the user's input at fault, or finals of the run are at work already.
        StudyStopped: nothing more can be trained, or too many trials in a row failed.
        Interrupted: SIGINT, SIGTERM or SIGHUP came.
    """
    in_folder = locks.folder_lock(run.folder, alone=order.finals is not None)
    on_signals = signals() if stopped is None else nullcontext()
    is_new = not run.folder.exists()
    try:
        with locks.supervisor_lock(run.folder) as name, in_folder, on_signals:
            locks.wait_for_orphans(run.folder)
            if _has_begun(run):
                for study in every(run):
                    recover(study, run.folder)
            locks.remove_dead_locks(run.folder)
            _Crew(run, order, view, name, stopped or (lambda: False)).work(shares)
    except UserError:
        if is_new and not _has_begun(run):  # what was asked for is at fault: it leaves no folder behind
            locks.remove_if_unused(run.folder, LOG)
        raise


@dataclass
class _Worker:
    """One process, its place among its kind, and when it last gave a sign of life."""

    place: int
    share: Share
    name: str
    process: subprocess.Popen[bytes]
    resources: contextlib.ExitStack
    last_sign: float = field(default_factory=time.monotonic)
    began: bool = False  # came as far as trials


class _Crew:
    """The workers of one supervisor."""

    def __init__(self, run: Run, order: Order, view: View, name: str, stopped: Callable[[], bool]) -> None:
        self.run, self.order, self.view, self.name, self.stopped = run, order, view, name, stopped
        self.events: queue.Queue[tuple[_Worker, Event | None]] = queue.Queue()
        self.workers: list[_Worker] = []
        self.failures: list[str] = []
        self.started = time.monotonic()

    def work(self, shares: Sequence[Share]) -> None:
        reason = "the run was stopped"
        try:
            for place, share in enumerate(shares):
                self._start(place, share)
            while self.workers:
                if self.stopped():
                    raise Interrupted(128 + signal.SIGTERM)
                self._follow()
        except StudyStopped as stopped:
            reason = f"{stopped}"[:300]
            raise
        finally:
            self._end(self.workers, reason)

    def _follow(self) -> None:
        """Take in what a worker says next."""
        try:
            worker, event = self.events.get(timeout=0.5)
        except queue.Empty:
            return self._look_for_hung()
        if worker not in self.workers:  # stopped already
            return
        if event is None:
            return self._lost(worker, Outcome.FAILED, _cause(worker.process.wait()))
        _stop_if_many(self.failures, self.run)  # with the next sign of life: the last failure has then been told
        worker.last_sign = time.monotonic()
        match event["event"]:
            case "done":
                self._end([worker])
            case "recycle":
                self._end([worker])
                self._start(worker.place, worker.share)
            case "user_error":
                raise UserError(event["text"])
            case "stopped":
                raise StudyStopped(event["text"])
            case kind:
                if kind == "end" and event["outcome"] != Outcome.REJECTED:
                    self.failures[:] = [*self.failures, event["reason"]] if event["outcome"] in FAILED else []
                worker.began = worker.began or kind in ("found", "phase")
                self.view.show(event | {"worker": worker.place})
        self._look_for_hung()

    def _look_for_hung(self) -> None:
        minutes = self.run.config.search.stall_minutes
        for worker in list(self.workers):
            if time.monotonic() - worker.last_sign > 60 * minutes:
                self._lost(worker, Outcome.TIMED_OUT, f"gave no sign of life for {minutes:g} minutes")

    def _lost(self, worker: _Worker, outcome: Outcome, reason: str) -> None:
        """A worker died or hung: end its trial, and start another in its place."""
        closed = self._end([worker], f"the worker {reason}", outcome)
        log = self.run.folder / LOG
        if not closed and not worker.began:  # another process would only die the same way
            said = _last_line(log)
            raise StudyStopped(f"the worker {reason} before any trial{f': {said}' if said else ''}; see {log}")
        self.failures.append(reason)
        _stop_if_many(self.failures, self.run)
        self.view.show({"event": "lost", "reason": reason, "numbers": closed, "worker": worker.place})
        self._start(worker.place, worker.share)

    def _start(self, place: int, share: Share) -> None:
        hours = self.run.config.stop.hours
        left = None if hours is None else max(0.0, 3600 * hours - (time.monotonic() - self.started))
        with contextlib.ExitStack() as resources:
            name, lock = resources.enter_context(locks.worker_lock(self.run.folder, self.name))
            order = replace(self.order, seconds_left=left, worker=name, is_first=self.order.is_first and place == 0)
            process = _process(self.run.folder / LOG, share, lock)
            worker = _Worker(place, share, name, process, resources.pop_all())
        self.workers.append(worker)
        assert process.stdin and process.stdout
        threading.Thread(target=self._read, args=(worker, process.stdout), daemon=True).start()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(encode_order(order))
            process.stdin.flush()

    def _read(self, worker: _Worker, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                with contextlib.suppress(ValueError):  # a line torn by the worker's death
                    self.events.put((worker, json.loads(line)))
        self.events.put((worker, None))

    def _end(
        self, workers: list[_Worker], reason: str = "the run was stopped", outcome: Outcome = Outcome.INTERRUPTED
    ) -> list[int]:
        """End these workers, and take up what they were training; the numbers of those trials."""
        ended = list(workers)
        _stop([worker.process for worker in ended])
        self.workers = [worker for worker in self.workers if worker not in ended]
        closed, is_known = list[int](), True
        try:
            if ended and _has_begun(self.run):
                for study in every(self.run, patience=LAST_SECONDS):
                    for worker in ended:
                        closed += requeue(study, worker=worker.name, outcome=outcome, reason=reason)
        except (StorageUnavailable, UserError, StorageInternalError):
            is_known = False  # the next start takes them up, or others when nothing was heard of them for long enough
        for worker in ended:
            assert worker.process.stdin
            with contextlib.suppress(BrokenPipeError):
                worker.process.stdin.close()
            worker.resources.close()
            if is_known:
                locks.remove_lock(self.run.folder, worker.name)
        return closed


def _process(log: Path, share: Share, lock: IO[bytes]) -> subprocess.Popen[bytes]:
    words = ["-m", os.environ[MODULE]] if MODULE in os.environ else ["-m", "search", "worker"]
    with log.open("ab") as errors, on_cores(share):
        return subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env=os.environ | dict(share.environment),
            pass_fds=[lock.fileno()],  # held until the worker is gone too
            start_new_session=True,  # Ctrl-C goes to the supervisor alone, which decides
        )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _has_begun(run: Run) -> bool:
    """Whether there is anything to take up: nothing is, before the first trial."""
    return (run.folder / "config.json").is_file()


def _last_line(log: Path) -> str:
    """The last line that a worker has written, in printable characters; "" if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((reason(ValueError(line)) for line in reversed(lines) if line.strip()), "")


def _cause(status: int) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        return f"was killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
    return f"crashed with exit status {status}"


def _stop_if_many(failures: list[str], run: Run) -> None:
    if len(failures) >= MOST_FAILURES:
        shared = failures[0] if len(set(failures)) == 1 else f"the last: {failures[-1]}"
        raise StudyStopped(
            f"{len(failures)} trials in a row failed ({shared}); see the [recipe] of the study and {run.folder / LOG}"
        )


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """Raise `Interrupted` in the main thread at the first SIGINT, SIGTERM or SIGHUP.

    A signal that is ignored stays ignored: a shell and `nohup` protect processes in the background so.
    """

    def interrupt(number: int, _frame: object) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise Interrupted(128 + number)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
