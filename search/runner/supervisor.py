"""Starts, watches and recycles the worker processes of a run, without loading TensorFlow itself.

A leak, a crash or a hang so ends one trial and not the study. A trial whose worker is lost is requeued. Several supervisors
may work on one study, on this machine and on others; each watches its own workers.
"""

from __future__ import annotations

import contextlib
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
from typing import IO

from optuna.exceptions import StorageInternalError

from search.errors import StudyStopped, UserError, reason
from search.runner.events import (
    Done,
    Event,
    PhaseStarted,
    Recycle,
    Stopped,
    StudyLoaded,
    TrialEnded,
    UserFault,
    View,
    WorkerLost,
    decode_event,
)
from search.runner.job import Order, encode_order
from search.runner.placement import Share, on_cores
from search.storage import locks
from search.storage.failures import StorageUnavailable
from search.storage.recovery import recover, requeue, requeue_references
from search.study.config import ROOT
from search.study.records import FAILED
from search.study.run import Run, every
from search.training.result import Outcome

MOST_FAILURES = 5  # in a row, before the run stops
STOP_SECONDS = 5.0  # between SIGTERM and SIGKILL
HALTED_SECONDS = 10.0  # between two looks at the workers, which are half a second apart, from which this process was halted
LAST_SECONDS = 2.0  # for which a run that ends retries an unreachable database
LOG = "worker.log"  # in the run folder: what workers and their libraries print
MODULE = "SEARCH_WORKER"  # environment variable: the module that is a worker process, instead of `search worker`
STOPPED = "the run was stopped"


class Interrupted(Exception):
    """Raised where a signal asked the run to stop; trials in progress are requeued."""

    def __init__(self, status: int) -> None:
        super().__init__(f"exit status {status}")
        self.status = status


def supervise(
    run: Run, order: Order, view: View, shares: Sequence[Share] = (Share(),), *, is_stopped: Callable[[], bool] | None = None
) -> None:
    """Run a worker on each share until the order is carried out.

    Args:
        is_stopped: polled twice a second, True to stop; signals stop the run if None.

    Raises:
        UserError: a worker found the user's input at fault, or finals of the run are in progress already.
        StudyStopped: nothing more can be trained, or too many trials in a row failed.
        Interrupted: SIGINT, SIGTERM or SIGHUP came.
    """
    folder_lock = locks.folder_lock(run.folder, alone=order.finals is not None)
    signal_handlers = signals() if is_stopped is None else nullcontext()
    is_new = not run.folder.exists()
    try:
        with locks.supervisor_lock(run.folder) as name, folder_lock, signal_handlers:
            locks.wait_for_orphans(run.folder)
            if _has_begun(run):
                for study in every(run):
                    recover(study, run.folder)
                    if order.finals is None and study.study_name == f"{run.name}.references":
                        requeue_references(study)
            locks.remove_dead_locks(run.folder)
            _Crew(run, order, view, name, is_stopped or (lambda: False)).work(shares)
    except UserError:
        if is_new and not _has_begun(run):  # a request that is at fault leaves no folder behind
            locks.remove_if_unused(run.folder, LOG)
        raise


@dataclass
class _Worker:
    """One worker process, its index, and the time of its last sign of life."""

    index: int
    share: Share
    name: str
    process: subprocess.Popen[bytes]
    resources: contextlib.ExitStack
    last_sign: float = field(default_factory=time.monotonic)
    has_loaded: bool = False  # True once it has opened the study


class _Crew:
    """The workers of one supervisor."""

    def __init__(self, run: Run, order: Order, view: View, name: str, is_stopped: Callable[[], bool]) -> None:
        self.run, self.order, self.view, self.name, self.is_stopped = run, order, view, name, is_stopped
        self.events: queue.Queue[tuple[_Worker, Event | None]] = queue.Queue()
        self.workers: list[_Worker] = []
        self.failures: list[str] = []  # reasons of the last failures in a row
        self.idle_losses = 0  # workers lost outside of any trial since the last trial that ended well
        self.started = self.last_check = time.monotonic()

    def work(self, shares: Sequence[Share]) -> None:
        """Run a worker on each share until all are done."""
        ending = STOPPED
        try:
            for index, share in enumerate(shares):
                self._start(index, share)
            while self.workers:
                if self.is_stopped():
                    raise Interrupted(128 + signal.SIGTERM)
                self._handle_next()
        except StudyStopped as stopped:
            ending = f"{stopped}"[:300]
            raise
        finally:
            self._end(self.workers, ending)

    def _handle_next(self) -> None:
        """Handle the next event of any worker."""
        try:
            worker, event = self.events.get(timeout=0.5)
        except queue.Empty:
            return self._check_for_hung()
        if worker not in self.workers:  # stopped already
            return
        if event is None:
            return self._replace(worker, Outcome.FAILED, _cause(worker.process.wait()))
        _stop_if_many(self.failures, self.run)  # only now: the view has shown the last failure
        worker.last_sign = time.monotonic()
        match event:
            case Done():
                self._end([worker])
            case Recycle():
                self._end([worker])
                self._start(worker.index, worker.share)
            case UserFault(text):
                raise UserError(text)
            case Stopped(text):
                raise StudyStopped(text)
            case _:
                self._note(worker, event)
                self.view.show(event, worker.index)
        self._check_for_hung()

    def _note(self, worker: _Worker, event: Event) -> None:
        """Note the events that decide how failures are handled."""
        match event:
            case StudyLoaded() | PhaseStarted():
                worker.has_loaded = True
            case TrialEnded(outcome=Outcome.REJECTED):
                pass
            case TrialEnded(outcome=outcome) if outcome in FAILED:
                self.failures.append(event.reason or "")
            case TrialEnded():
                self.failures.clear()
                self.idle_losses = 0

    def _check_for_hung(self) -> None:
        now = time.monotonic()
        halted, self.last_check = now - self.last_check, now
        if halted > HALTED_SECONDS:  # this process was halted, as in a paused container, and its workers perhaps with it
            for worker in self.workers:
                worker.last_sign += halted
        minutes = self.run.config.search.stall_minutes
        for worker in list(self.workers):
            if now - worker.last_sign > 60 * minutes:
                self._replace(worker, Outcome.TIMED_OUT, f"gave no sign of life for {minutes:g} minutes")

    def _replace(self, worker: _Worker, outcome: Outcome, cause: str) -> None:
        """End the trial of a worker that crashed or hung, and start another in its place."""
        closed = self._end([worker], f"the worker {cause}", outcome)
        log = self.run.folder / LOG
        if not closed and not worker.has_loaded:  # another process would end the same way
            raise StudyStopped(f"the worker {cause} before any trial{_quoted_end(log)}; see {log}")
        self.view.show(WorkerLost(cause, tuple(closed)), worker.index)
        if closed:
            self.failures.append(cause)
            _stop_if_many(self.failures, self.run)
        else:
            self.idle_losses += 1
            if self.idle_losses >= MOST_FAILURES:  # no trial is at fault: such as reports that cannot be written
                raise StudyStopped(
                    f"the worker {cause} {self.idle_losses} times outside of any trial{_quoted_end(log)}; see {log}"
                )
        self._start(worker.index, worker.share)

    def _start(self, index: int, share: Share) -> None:
        hours = self.run.config.stop.hours
        seconds_left = None if hours is None else max(0.0, 3600 * hours - (time.monotonic() - self.started))
        is_first = self.order.is_first and index == 0
        own_lock = locks.lock_path(self.run.folder, self.name)
        if not own_lock.exists():
            raise locks.folder_gone(self.run.folder, own_lock.name)
        with contextlib.ExitStack() as resources:
            name, lock = resources.enter_context(locks.worker_lock(self.run.folder, self.name))
            order = replace(self.order, seconds_left=seconds_left, worker=name, is_first=is_first)
            process = _start_process(self.run.folder / LOG, share, lock)
            worker = _Worker(index, share, name, process, resources.pop_all())
        self.workers.append(worker)
        assert process.stdin and process.stdout
        threading.Thread(target=self._read, args=(worker, process.stdout), daemon=True).start()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(encode_order(order))
            process.stdin.flush()

    def _read(self, worker: _Worker, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                try:
                    self.events.put((worker, decode_event(line)))
                except ValueError:
                    if line.endswith(b"\n"):  # else it was cut off by the end of the worker
                        _log(self.run.folder / LOG, f"{worker.name}: not an event: {line[:200]!r}")
        self.events.put((worker, None))

    def _end(self, workers: list[_Worker], reason: str = STOPPED, outcome: Outcome = Outcome.INTERRUPTED) -> list[int]:
        """End these workers and close their trials, requeued where that applies; the numbers of those trials."""
        ended = list(workers)
        _stop_processes([worker.process for worker in ended])
        self.workers = [worker for worker in self.workers if worker not in ended]
        closed, are_closed = list[int](), True
        try:
            if ended and _has_begun(self.run):
                for study in every(self.run, patience=LAST_SECONDS):
                    for worker in ended:
                        closed += requeue(study, worker=worker.name, outcome=outcome, reason=reason)
        except (StorageUnavailable, UserError, StorageInternalError):
            are_closed = False  # the next start closes them, or another supervisor once their heartbeats are too old
        for worker in ended:
            assert worker.process.stdin
            with contextlib.suppress(BrokenPipeError):
                worker.process.stdin.close()
            worker.resources.close()
            if are_closed:
                locks.remove_lock(self.run.folder, worker.name)
        return closed


def _start_process(log: Path, share: Share, lock: IO[bytes]) -> subprocess.Popen[bytes]:
    module = [os.environ[MODULE]] if MODULE in os.environ else ["search", "worker"]
    with log.open("ab") as errors, on_cores(share):
        return subprocess.Popen(
            [sys.executable, "-m", *module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env=os.environ | dict(share.environment),
            pass_fds=[lock.fileno()],  # locked until the worker has ended too
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which decides
        )


def _stop_processes(processes: Sequence[subprocess.Popen[bytes]]) -> None:
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
    """True if the run has studies; before the first trial there are none."""
    return (run.folder / "config.json").is_file()


def _log(log: Path, text: str) -> None:
    with contextlib.suppress(OSError), log.open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def _last_line(log: Path) -> str:
    """The last line that a worker has written, in printable characters; "" if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((reason(ValueError(line)) for line in reversed(lines) if line.strip()), "")


def _quoted_end(log: Path) -> str:
    """The last line of the log as the end of a message; "" if there is none."""
    last_line = _last_line(log)
    return f": {last_line}" if last_line else ""


def _cause(status: int) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        return f"was killed by {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")
    return f"crashed with exit status {status}"


def _stop_if_many(failures: list[str], run: Run) -> None:
    if len(failures) >= MOST_FAILURES:
        cause = failures[0] if len(set(failures)) == 1 else f"the last: {failures[-1]}"
        raise StudyStopped(
            f"{len(failures)} trials in a row failed ({cause}); see the [recipe] of the study and {run.folder / LOG}"
        )


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """Raise `Interrupted` in the main thread at the first SIGINT, SIGTERM or SIGHUP, and ignore those that follow.

    A signal that is ignored stays ignored: a shell and `nohup` protect processes in the background so.
    """

    def interrupt(number: int, _frame: object) -> None:
        for handled in previous:
            signal.signal(handled, signal.SIG_IGN)
        raise Interrupted(128 + number)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    previous = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
    for number in previous:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
