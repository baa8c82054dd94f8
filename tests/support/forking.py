"""Processes of the command line as forks of a process that has its packages, so that they start in a tenth of the time.

The imports of a verb take one CPU-second and those of a worker that trains with Keras four, and the tests start some
250 of them. `ForkingPopen` takes the place of `subprocess.Popen` in the tests and in the supervisors that they start.
It asks a fork server for a process:

- the tests' server is started at its first use. The parent of its processes waits for their end and reports their status;
- a supervisor's server is forked from it before it does anything (SQLite must not be carried into a fork), and the
  supervisor adopts the processes, so that workers are children of their supervisor as always. Linux alone can do that.

The module runs as by `python -m`, with arguments, environment, streams and session of its own. A process that needs an
interpreter of its own is started as ever: another program, `-c`, another folder, `preexec_fn`, or environment variables that
an interpreter or a library reads when it starts. `real_processes` is the fixture of tests for which this matters.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import inspect
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).parents[2]
LINUX = sys.platform == "linux"
NAME = "fork-server"  # of the process that a supervisor has beside its workers
PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 15, 36  # of prctl(2)
REAL = subprocess.Popen
WORKER = "tests.support.numpy_worker"
SNIPPET = "tests.support.snippet"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MODULES = ("search", WORKER, SNIPPET)
SUPERVISORS = ("run", "finals")
KERAS_VERBS = ("run", "finals", "export", "submission")  # unless their worker is another
PACKAGES = (
    *("search.cli.commands", "search.cli.run", "search.cli.worker", "search.runner.supervisor", "search.training.recipe"),
    *("report.write", "report.dashboard.publish", "search.tuning.sampler", "search.finals.run", "search.export.exporter"),
)
READ_AT_START = ("PYTHON", "LANG", "LC_", "LD_", "HOME", "KERAS_", "TF_", "XLA_", "CUDA", "OMP_", "MPL", "TMP")


class ForkingPopen(subprocess.Popen):  # type: ignore[type-arg]
    """`subprocess.Popen`, which forks where that is the same."""

    _ended: Any = None  # pipe from which the exit status is read, unless the process is a child of this one

    def _execute_child(self, *given: Any) -> None:
        arguments = inspect.signature(REAL._execute_child).bind(self, *given).arguments  # type: ignore[attr-defined]
        if not _is_forkable(arguments):
            REAL._execute_child(self, *given)  # type: ignore[attr-defined]
            return
        keys = ("p2cread", "c2pwrite", "errwrite")
        streams = [number if arguments[key] == -1 else arguments[key] for number, key in enumerate(keys)]
        environment = os.environ if arguments["env"] is None else arguments["env"]
        order = {
            "words": [os.fspath(word) for word in arguments["args"]][2:],
            "environment": dict(environment),
            "session": bool(arguments["start_new_session"]),
            "ignored": [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_IGN],
            "cores": sorted(os.sched_getaffinity(0)) if LINUX else [],
        }
        server = _state.server or _server(_needs_keras(order))
        ended, self.pid = server.start(order, [*streams, *arguments["pass_fds"]])
        if _state.server:
            ended.close()
        else:
            self._ended = ended
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(arguments[key] for key in pipes))  # type: ignore[attr-defined]

    def _internal_poll(self, *given: Any, **named: Any) -> int | None:
        if self._ended is None:
            return REAL._internal_poll(self, *given, **named)  # type: ignore[attr-defined, no-any-return]
        if self.returncode is None and _is_readable(self._ended, 0.0):
            self._read_status()
        return self.returncode  # type: ignore[no-any-return]

    def _wait(self, timeout: float | None) -> int:
        if self._ended is None:
            return REAL._wait(self, timeout)  # type: ignore[attr-defined, no-any-return]
        if self.returncode is None:
            if not _is_readable(self._ended, timeout):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self._read_status()
        return self.returncode  # type: ignore[no-any-return]

    def _read_status(self) -> None:
        with self._ended:
            status = self._ended.readline()
        self.returncode = os.waitstatus_to_exitcode(int(status)) if status else -signal.SIGKILL


@pytest.fixture
def real_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process of a test has an interpreter of its own."""
    monkeypatch.setattr(subprocess, "Popen", REAL)


@dataclass
class _State:
    """State of this process."""

    environment: dict[str, str] = field(default_factory=dict)  # as far as it is read when a process starts
    server: _Server | None = None  # of a supervisor that is a fork itself
    is_fork: bool = False


_state = _State()


def fork_processes() -> None:
    """Let `subprocess` fork from now on, in this process."""
    _state.environment = _read_at_start(os.environ)
    subprocess.Popen = ForkingPopen  # type: ignore[misc]


def _is_forkable(arguments: Mapping[str, Any]) -> bool:
    words = arguments["args"]
    if isinstance(words, (str, bytes, os.PathLike)) or len(words) < 3:
        return False
    program, option, module = (os.fspath(word) for word in list(words)[:3])
    environment = os.environ if arguments["env"] is None else arguments["env"]
    return (
        (program, option) == (sys.executable, "-m")
        and module in MODULES
        and Path(arguments["cwd"] or Path.cwd()) == ROOT
        and arguments["executable"] is None
        and arguments["preexec_fn"] is None
        and (_state.server is not None or not (_state.is_fork or arguments["pass_fds"]))
        and (arguments["umask"], arguments["process_group"]) == (-1, -1)
        and _read_at_start(environment) == _state.environment
    )


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_START)}


def _without_read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(READ_AT_START)}


def _needs_keras(order: Mapping[str, Any]) -> bool:
    module, *words = order["words"]
    if module == SNIPPET:
        return "search.training" in words[0]
    return words[:1] != [] and words[0] in KERAS_VERBS and "SEARCH_WORKER" not in order["environment"]


def _is_readable(stream: Any, timeout: float | None) -> bool:
    return bool(select.select([stream], [], [], timeout)[0])


# --- the client ------------------------------------------------------------------------------------------------------


class _Server:
    """A fork server, on its socket; it ends with this process."""

    def __init__(self, orders: socket.socket, process: Any = None) -> None:
        self._orders = orders
        self._process = process

    @classmethod
    def of_tests(cls, *, with_keras: bool) -> _Server:
        """A new process with the packages, which keeps its own environment, whatever a test has set."""
        ours, other = socket.socketpair()
        with other:
            process = REAL(
                [sys.executable, "-m", "tests.support.forking", str(other.fileno()), *(["keras"] if with_keras else [])],
                cwd=ROOT,
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env=_without_read_at_start(os.environ) | _state.environment,
            )
        server = cls(ours, process)
        atexit.register(server._end)
        return server

    @classmethod
    def of_supervisor(cls) -> _Server:
        """A fork of this process, whose processes this one adopts."""
        ours, other = socket.socketpair()
        if os.fork() == 0:
            ours.close()
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            _prctl(PR_SET_NAME, NAME.encode())
            nothing = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(nothing, number)
            _serve(other, is_adopted=True)
            os._exit(0)
        other.close()
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        return cls(ours)

    def _end(self) -> None:
        self._orders.close()
        self._process.wait()

    def start(self, order: Mapping[str, Any], files: Sequence[int]) -> tuple[Any, int]:
        """(pipe from which its exit status can be read, process id) of a new process with these files, its streams first."""
        reader, writer = os.pipe()
        with tempfile.TemporaryFile() as text:
            text.write(json.dumps(order).encode())
            text.flush()
            socket.send_fds(self._orders, [b"+"], [text.fileno(), writer, *files])
        os.close(writer)
        ended = os.fdopen(reader, "rb", buffering=0)
        return ended, int(ended.readline())


@cache
def _server(with_keras: bool) -> _Server:
    return _Server.of_tests(with_keras=with_keras)


def _prctl(option: int, value: Any) -> None:
    if ctypes.CDLL(None).prctl(option, value, 0, 0, 0):
        raise OSError("prctl")


# --- the server ------------------------------------------------------------------------------------------------------


def _serve(orders: socket.socket, *, is_adopted: bool) -> None:
    """Fork a process for each order until the other end is closed."""
    while True:
        _, files, _, _ = socket.recv_fds(orders, 1, 16)
        if not files:
            return
        text, ended, *given = files
        with os.fdopen(text, "rb") as file:
            file.seek(0)
            order = json.loads(file.read())
        middle = os.fork()
        if middle == 0:
            orders.close()
            _fork_and_report(order, ended, given, is_adopted=is_adopted)
        for descriptor in given:
            os.close(descriptor)
        if is_adopted:  # by the supervisor, before it hears of it
            os.waitpid(middle, 0)
            os.write(ended, b"\n")
        os.close(ended)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _fork_and_report(order: Mapping[str, Any], ended: int, given: Sequence[int], *, is_adopted: bool) -> NoReturn:
    """Fork the process and report its id; wait for its end and report its status, unless its parent shall be another."""
    process = os.fork()
    if process == 0:
        os.close(ended)
        _become(order, given)
    for descriptor in given:
        os.close(descriptor)
    with contextlib.suppress(OSError):
        os.write(ended, f"{process} ".encode())
        if not is_adopted:
            os.write(ended, b"\n")
            os.write(ended, f"{os.waitpid(process, 0)[1]}\n".encode())
    os._exit(0)


def _become(order: Mapping[str, Any], given: Sequence[int]) -> NoReturn:
    """Turn this fork into the ordered process and run it to its end."""
    status = 1
    try:
        for number, stream in enumerate([os.dup(stream) for stream in given[:3]]):
            os.dup2(stream, number)
        for file in [int(path.name) for path in Path("/dev/fd").iterdir()]:
            if file > 2 and file not in given[3:]:
                with contextlib.suppress(OSError):
                    os.close(file)
        if order["session"]:
            os.setsid()
        if LINUX:
            os.sched_setaffinity(0, order["cores"])
            _prctl(PR_SET_NAME, b"python")
        _open_streams()
        _set_signals(order["ignored"])
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(ROOT)
        fork_processes()
        _state.is_fork, _state.server = True, None
        if LINUX and order["words"][1:2] and order["words"][1] in SUPERVISORS:
            _state.server = _Server.of_supervisor()
        module, *words = order["words"]
        sys.argv = [module, *words]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ended:
        status = _status(ended.code)
    except BaseException:
        traceback.print_exc()
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except BaseException:
        status = 120  # as Python ends
    os._exit(status)


def _open_streams() -> None:
    """Open the standard streams as Python does when it starts."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        old = getattr(sys, f"__{name}__")
        stream = open(number, mode, encoding=old.encoding, errors=old.errors, closefd=False)  # noqa: SIM115
        if mode == "w":
            stream.reconfigure(line_buffering=name == "stderr" or stream.isatty())  # type: ignore[attr-defined]
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _set_signals(ignored: Sequence[int]) -> None:
    """Set the handlers with which Python starts; a signal that the parent ignores stays ignored."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in ignored else handler)


def _status(code: Any) -> int:
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    print(code, file=sys.stderr)
    return 1


def _load(*, with_keras: bool) -> None:
    """Import the packages and leave them out of every later garbage collection; wait for no disk."""
    for package in PACKAGES:
        importlib.import_module(package)
    importlib.import_module("tests.support.syncing").skip_syncing()
    if with_keras:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        importlib.import_module("search.training.device").configure_keras()
        importlib.import_module("search.training.engine.tensorflow")
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    _load(with_keras="keras" in sys.argv[2:])
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        _serve(connection, is_adopted=False)
