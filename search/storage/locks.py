"""Which worker processes of a run folder are alive: each holds a lock on a file for as long as it lives.

The system lets go of a lock whatever ends its holder, so that a killed worker is known at once. The lock is its supervisor's
too, who tells better what became of it: it is free when both are gone. This holds among the processes of one running
system, which a worker's name tells; of all others the heartbeats of their trials are the only sign.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import platform
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from search.errors import UserError

LOCK = ".lock"
ORPHAN_SECONDS = 5.0  # that a start waits for the workers of a killed run to notice

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@contextlib.contextmanager
def supervisor(folder: Path) -> Iterator[str]:
    """A name for a supervisor of the run folder, held while it lives.

    Raises:
        UserError: the folder cannot be written.
    """
    name = f"{_system()}/{secrets.token_hex(4)}"
    try:
        _path(folder, name).parent.mkdir(parents=True, exist_ok=True)
        lock = _hold(folder, name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); pass --out with another folder") from None
    with lock:
        yield name
    forget(folder, name)


@contextlib.contextmanager
def worker(folder: Path, supervised_by: str) -> Iterator[tuple[str, IO[bytes]]]:
    """(name, lock to be handed on) of a new worker of this supervisor."""
    name = f"{supervised_by}.{secrets.token_hex(4)}"
    with _hold(folder, name) as lock:
        yield name, lock


def is_gone(folder: Path, name: object) -> bool:
    """Whether the worker of this name, and its supervisor, have surely ended."""
    return str(name).startswith(f"{_system()}/") and _is_free(_path(folder, str(name)))


def forget(folder: Path, name: str) -> None:
    """Remove the lock of a process that has ended; of a worker, when all that it trained was taken up."""
    _path(folder, name).unlink(missing_ok=True)


def forget_the_dead(folder: Path) -> None:
    """Remove the locks that nobody on this system holds; when all that they trained was taken up."""
    for path in _ours(folder):
        if _is_free(path):
            path.unlink(missing_ok=True)


def wait_for_orphans(folder: Path) -> None:
    """Wait until workers whose supervisor was killed have noticed, as they do, and ended."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while time.monotonic() < deadline:
        supervisors = {path.with_suffix("") for path in _ours(folder) if path.suffix and not _is_free(path)}
        if all(path.exists() and not _is_free(path) for path in supervisors):
            return
        time.sleep(0.1)


@contextlib.contextmanager
def occupied(folder: Path, *, alone: bool) -> Iterator[None]:
    """Hold the run folder together with other searches, or alone for finals.

    Raises:
        UserError: finals and something else would be at work in it at once.
    """
    with (folder / LOCK).open("a") as lock:
        try:
            _lock(lock, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            other = "this study is running already" if alone else "finals of this study are running"
            raise UserError(f"{folder}: {other}; wait for that, stop it, or pass --out with a new folder") from None
        yield


def leave(folder: Path, log: str) -> None:
    """Remove a run folder that holds nothing but locks and this file, unless somebody else is at work in it."""
    with contextlib.suppress(OSError), (folder / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        forget_the_dead(folder)
        for one in (folder / "workers" / _system(), folder / "workers"):
            one.rmdir()
        (folder / log).unlink(missing_ok=True)
        (folder / LOCK).unlink()
        folder.rmdir()


def _hold(folder: Path, name: str) -> IO[bytes]:
    lock = _path(folder, name).open("ab")
    _lock(lock, fcntl.LOCK_EX)
    return lock


def _lock(file: IO[Any], how: int) -> None:
    try:
        fcntl.flock(file, how)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK):  # a file system without: heartbeats remain
            raise


def _is_free(path: Path) -> bool:
    """Whether the file is there and nobody holds it."""
    try:
        with path.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
    except OSError:  # held; or not there, or of a file system without locks, which tells nothing
        return False


def _ours(folder: Path) -> list[Path]:
    return list((folder / "workers" / _system()).glob("*"))


def _path(folder: Path, name: str) -> Path:
    system, _, file = name.partition("/")
    is_a_name = all(part and part.replace(".", "").replace("-", "").isalnum() for part in (system, file))
    return folder / "workers" / system / file if is_a_name else folder / "workers" / "none"


def _system() -> str:
    """Names the running system: other containers on it have the same, and its own next start has not."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return platform.node() or "here"
