"""Starts, watches and recycles the worker process of a run; itself it never loads TensorFlow.

A leak, a crash or a hang so ends one trial and not the study. What a lost worker was training is queued again.
"""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Protocol

from search.config import ROOT
from search.errors import UserError
from search.order import Order, StudyStopped, encode_order
from search.study import FAILED, Run, every, take_up

MOST_FAILURES = 5  # in a row, before the run stops
STOP_SECONDS = 5.0  # that a worker is given between SIGTERM and SIGKILL
LOCK_SECONDS = 5.0  # that a start waits for the worker of a killed run to notice

Event = dict[str, Any]


class View(Protocol):
    """Shows a run to whoever watches."""

    def show(self, event: Event) -> None: ...


class Interrupted(Exception):
    """A signal asked the run to stop; everything is kept."""

    def __init__(self, status: int) -> None:
        super().__init__(f"exit status {status}")
        self.status = status


def supervise(run: Run, order: Order, view: View) -> None:
    """Run workers until the order is carried out.

    Raises:
        UserError: a worker found the user's input at fault, or the run is at work already.
        StudyStopped: nothing more can be trained, or too many trials in a row failed.
        Interrupted: SIGINT or SIGTERM came.
    """
    with _locked(run.folder) as lock, _signals():
        _take_up(run)
        try:
            _supervise(run, order, view, lock)
        except Interrupted:
            _take_up(run)
            raise


def _supervise(run: Run, order: Order, view: View, lock: IO[str]) -> None:
    failures: list[str] = []
    hours, started = run.config.stop.hours, time.monotonic()
    while True:
        left = None if hours is None else max(0.0, 3600 * hours - (time.monotonic() - started))
        end, reason = _watch(run, replace(order, seconds_left=left), view, failures, lock)
        match end:
            case "done":
                return
            case "recycle":
                continue
            case "user_error":
                raise UserError(reason)
            case "stopped":
                raise StudyStopped(reason)
            case "failed" | "timed_out":
                closed = _take_up(run, end, reason)
                view.show({"event": "lost", "reason": reason, "numbers": closed})
                if not closed:  # no trial was at work: another process would only die the same way
                    raise StudyStopped(f"the worker {reason} before any trial; see {run.folder / 'worker.log'}")
                failures.append(reason)
        _stop_if_many(failures, run)


def _watch(run: Run, order: Order, view: View, failures: list[str], lock: IO[str]) -> tuple[str, str]:
    """Start one worker and follow it to its end: (how it ended, why)."""
    stall_seconds = run.config.search.stall_minutes * 60
    with _worker(run, order, lock) as (process, events):
        last_sign = time.monotonic()
        while True:
            try:
                event = events.get(timeout=0.5)
            except queue.Empty:
                if time.monotonic() - last_sign > stall_seconds:
                    return "timed_out", f"gave no sign of life for {run.config.search.stall_minutes:g} minutes"
                continue
            if event is None:
                return "failed", _cause(process.wait())
            _stop_if_many(failures, run)  # with the next sign of life: the last failure has then been told
            last_sign = time.monotonic()
            if event["event"] in ("done", "recycle", "user_error", "stopped"):
                return event["event"], event.get("text", "")
            if event["event"] == "end" and event["outcome"] != "rejected":
                failures[:] = [*failures, event["reason"]] if event["outcome"] in FAILED else []
            view.show(event)


@contextlib.contextmanager
def _worker(run: Run, order: Order, lock: IO[str]) -> Iterator[tuple[subprocess.Popen[bytes], queue.Queue[Event | None]]]:
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "search", "worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            pass_fds=[lock.fileno()],  # the folder is held until the worker is gone too
            start_new_session=True,  # Ctrl-C goes to the supervisor alone, which decides
        )
    assert process.stdin and process.stdout
    events: queue.Queue[Event | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process.stdout, events), daemon=True)
    reader.start()
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(encode_order(order))
            process.stdin.flush()
        yield process, events
    finally:
        _stop(process)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        reader.join()
        process.stdout.close()


def _read(stream: IO[bytes], events: queue.Queue[Event | None]) -> None:
    for line in stream:
        with contextlib.suppress(ValueError):  # a line torn by the worker's death
            events.put(json.loads(line))
    events.put(None)


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _cause(status: int) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        return f"was killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
    return f"crashed with exit status {status}"


def _take_up(run: Run, outcome: str = "interrupted", reason: str = "the run was stopped") -> list[int]:
    """Queue again what a worker that is gone was training; nothing is there before the first trial."""
    if not (run.folder / "config.json").is_file():
        return []
    return [
        number
        for study in every(run)
        for number in take_up(study, outcome=outcome, reason=f"the worker {reason}" if outcome != "interrupted" else reason)
    ]


def _stop_if_many(failures: list[str], run: Run) -> None:
    if len(failures) >= MOST_FAILURES:
        shared = failures[0] if len(set(failures)) == 1 else f"the last: {failures[-1]}"
        raise StudyStopped(
            f"{len(failures)} trials in a row failed ({shared}); "
            f"see the [recipe] of the study and {run.folder / 'worker.log'}"
        )


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGINT and SIGTERM as an exception in the main thread, the first of them only."""

    def interrupt(number: int, _frame: object) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise Interrupted(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[IO[str]]:
    """Hold the run folder for this process; the system lets go of it whatever ends the process."""
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); pass --out with another folder") from None
    with lock:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"{folder}: this study is running already; wait for it, stop it, or pass --out with a new folder"
                    ) from None
                time.sleep(0.2)
        yield lock
