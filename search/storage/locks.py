"""File locks that show which worker processes of a run folder are alive.

A worker holds a lock on a file of its own for as long as it lives. The system releases it however the process ends, so that
a killed worker is known at once. Its supervisor holds the lock too, as it reports the cause: the lock is free when both have
ended. This works among the processes of one running system, which a worker's name contains; the end of any other worker is
known by the heartbeats of its trials alone.

Each lock file contains its own identity (device and inode), so that a copy of the run folder holds no valid locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from search.errors import UserError
from search.storage.failures import StudyGone

LOCK = ".lock"
CONFIG = "config.json"  # of a run folder
ORPHAN_SECONDS = 5.0  # wait of a start for the workers of a killed run, which end by themselves

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@contextlib.contextmanager
def supervisor_lock(folder: Path) -> Iterator[str]:
    """Name a supervisor of the run folder and hold its lock while it lives.

    Raises:
        UserError: the folder cannot be written.
    """
    name = f"{_system()}/{secrets.token_hex(4)}"
    try:
        lock_path(folder, name).parent.mkdir(parents=True, exist_ok=True)
        lock = _create(folder, name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); pass --out with another folder") from None
    with lock:
        yield name
    remove_lock(folder, name)


@contextlib.contextmanager
def worker_lock(folder: Path, supervisor: str) -> Iterator[tuple[str, IO[bytes]]]:
    """(name, lock to be inherited) of a new worker of this supervisor."""
    name = f"{supervisor}.{secrets.token_hex(4)}"
    with _create(folder, name) as lock:
        yield name, lock


def has_ended(folder: Path, name: object) -> bool:
    """True if the worker of this name, and its supervisor, have certainly ended; False if unknown."""
    path = lock_path(folder, str(name))
    return str(name).startswith(f"{_system()}/") and _is_original(path) and _is_free(path)


def remove_lock(folder: Path, name: str) -> None:
    """Remove the lock of a process that has ended; a worker's only after its trials were requeued."""
    lock_path(folder, name).unlink(missing_ok=True)


def remove_dead_locks(folder: Path) -> None:
    """Remove the free locks of this system, after the trials of their workers were requeued."""
    for path in _local_locks(folder):
        if _is_free(path):
            path.unlink(missing_ok=True)


def wait_for_orphans(folder: Path) -> None:
    """Wait until the workers of a killed supervisor have ended, as they do by themselves."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while time.monotonic() < deadline:
        supervisors = {path.with_suffix("") for path in _local_locks(folder) if path.suffix and not _is_free(path)}
        if all(path.exists() and not _is_free(path) for path in supervisors):
            return
        time.sleep(0.1)


@contextlib.contextmanager
def folder_lock(folder: Path, *, alone: bool) -> Iterator[None]:
    """Hold the run folder together with other searches, or alone for finals.

    Raises:
        UserError: finals and another command would run in it at once.
    """
    with (folder / LOCK).open("a") as lock:
        try:
            _lock(lock, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            other = "this study is running already" if alone else "finals of this study are running"
            raise UserError(f"{folder}: {other}; wait for that, stop it, or pass --out with a new folder") from None
        yield


def remove_if_unused(folder: Path, log: str) -> None:
    """Remove a run folder that holds nothing but locks and this file, unless another process uses it."""
    with contextlib.suppress(OSError), (folder / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_dead_locks(folder)
        for emptied in (folder / "workers" / _system(), folder / "workers"):
            emptied.rmdir()
        (folder / log).unlink(missing_ok=True)
        (folder / LOCK).unlink()
        folder.rmdir()


def lock_path(folder: Path, name: str) -> Path:
    """File of the lock of this name; "none", which never exists, for a name that no process of this package has."""
    system, _, file = name.partition("/")
    is_valid = all(part and part.replace(".", "").replace("-", "").isalnum() for part in (system, file))
    return folder / "workers" / system / file if is_valid else folder / "workers" / "none"


def check_folder(folder: Path, worker: str) -> None:
    """Check that the run folder is still the one in which this worker was started.

    Raises:
        StudyGone: it was deleted, renamed or replaced.
    """
    lock = lock_path(folder, worker)
    expected = [folder / CONFIG, *([lock] if lock.parent.parent == folder / "workers" else [])]
    try:
        missing = [path for path in expected if not path.exists()]
    except OSError:  # a network file system that is away for a while
        return
    if missing:
        raise folder_gone(folder, missing[0].name)


def folder_gone(folder: Path, missing: str) -> StudyGone:
    """The error that stops a run whose folder is not the one in which it was started.

    Args:
        missing: name of a file that was in it.
    """
    return StudyGone(f"{folder}: the run folder was deleted, renamed or replaced ({missing} is missing)")


def _create(folder: Path, name: str) -> IO[bytes]:
    lock = lock_path(folder, name).open("ab")
    _lock(lock, fcntl.LOCK_EX)
    lock.write(_identity(os.fstat(lock.fileno())))
    lock.flush()
    return lock


def _identity(status: os.stat_result) -> bytes:
    return f"{status.st_dev} {status.st_ino}\n".encode()


def _is_original(path: Path) -> bool:
    """True if the lock was created where it is, False for a copy."""
    try:
        with path.open("rb") as lock:
            return lock.read() == _identity(os.fstat(lock.fileno()))
    except OSError:
        return False


def _lock(file: IO[Any], operation: int) -> None:
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        if error.errno not in (
            errno.ENOTSUP,
            errno.ENOSYS,
            errno.ENOLCK,
        ):  # a file system without locks
            raise


def _is_free(path: Path) -> bool:
    """True if the file exists and no process holds its lock."""
    try:
        with path.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
    except OSError:  # locked, missing, or on a file system without locks, where nothing is known
        return False


def _local_locks(folder: Path) -> list[Path]:
    return list((folder / "workers" / _system()).glob("*"))


def _system() -> str:
    """Name of the running system: the same in all its containers, another one after a reboot."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return platform.node() or "here"
