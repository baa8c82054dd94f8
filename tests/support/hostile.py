"""A verb of the command line in this process, held to what it promises of any input: it ends soon, with status 0 or 2, on 2
with one line; no other error comes out of it, and nothing is left behind.

What it does to the machine is watched as it happens: where it would write outside its folder, start a process or go to
another machine, it is stopped and the test fails.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from search import __main__ as command_line

SECONDS = 15.0  # of processor time that a case may take
LONGEST = 1_500  # characters of a line on stderr

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PROCESSES = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system")
_PATHS = {"os.mkdir": 1, "os.remove": 1, "os.rmdir": 1, "os.rename": 2, "os.link": 2, "os.symlink": 2, "os.truncate": 1}


class Ended(NamedTuple):
    """End of a verb; the status is None where a worker was about to be started."""

    status: int | None
    out: str
    err: str


class Hang(BaseException):
    """It is still at work; no `except Exception` on the way stops this."""


class WorkerStarts(BaseException):
    """The boundary of a run: from here on another process would train."""


class _Watch:
    """Recorder of what happens while a verb runs; an audit hook, which can never be taken away again."""

    def __init__(self) -> None:
        self.within: Path | None = None
        self.seen: list[str] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.within is None:
            return
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & _WRITES and not isinstance(path, int):
                self._written(event, path)
        elif event in _PATHS:
            if args[-1] in (-1, None) or event == "os.truncate":  # else relative to a folder that is open
                for path in args[: _PATHS[event]]:
                    self._written(event, path)
        elif event in _PROCESSES:
            raise WorkerStarts(event)
        elif event == "socket.connect" and "127.0.0.1" not in str(args[1]):
            self._refuse(f"{event} {args[1]}")

    def _written(self, event: str, path: Any) -> None:
        whole = os.path.realpath(os.fsdecode(path))
        is_own = f"{whole}/".startswith(f"{self.within}/") or whole == os.devnull or "__pycache__" in whole
        if not is_own and not (event == "os.mkdir" and Path(whole).is_dir()):  # which fails, and is how one asks
            self._refuse(f"{event} {whole}")

    def _refuse(self, what: str) -> None:
        self.seen.append(what)
        raise AssertionError(f"outside its folder: {what}")


_watch = _Watch()


def search(*words: object, within: Path, status: tuple[int, ...] = (0, 2)) -> Ended:
    """`python -m search WORDS` in that folder, the only one in which it may write.

    Args:
        status: what it may end with.
    """
    before = _below(within)
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", how) for how in ("strict", "backslashreplace"))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["search", *map(str, words)])
        patch.setattr(sys, "stdin", io.StringIO())
        patch.chdir(within)
        with _watched(within):
            try:
                with _alarm():
                    command_line.main()
            except SystemExit as ended:
                code: int | None = int(ended.code or 0)
            except WorkerStarts:
                code = None
            except Hang:
                raise AssertionError(f"{words}: still at work after {SECONDS:g} s") from None
    found = Ended(code, *(_text(stream) for stream in (out, err)))
    if code is not None:
        assert code in status, found
        assert "Traceback" not in found.out + found.err, found
    if code:
        assert found.err.count("\n") == 1 and found.err.strip() and len(found.err) < LONGEST, found
        assert _below(within) == before, "a refusal leaves nothing behind"
    return found


@contextmanager
def _watched(within: Path) -> Iterator[None]:
    if not hasattr(sys, "_hostile_watch"):
        sys.addaudithook(_watch)
        sys._hostile_watch = True  # type: ignore[attr-defined]
    _watch.within, _watch.seen = within.resolve(), []
    try:
        yield
    finally:
        _watch.within = None
        assert not _watch.seen, _watch.seen


@contextmanager
def _alarm() -> Iterator[None]:
    """Raises `Hang` in time of this process, so that other work on the machine does not matter; what waits, pytest stops."""

    def ring(*_: object) -> None:
        raise Hang

    handler = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    raw: Any = stream.buffer
    return str(raw.getvalue().decode("utf-8"))


def _below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))
