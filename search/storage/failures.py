"""Database errors, classified: temporary, disk full, or gone for good."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from search.errors import StudyStopped


class StorageUnavailable(StudyStopped):
    """Stops the run where the database stays unreachable for longer than the storage retries, or its disk is full.

    Stored data is unchanged.
    """


def is_temporary(error: BaseException | None) -> bool:
    """True if the database is unreachable or busy, False if the request itself was wrong."""
    while error is not None:
        if isinstance(error, DBAPIError):
            if error.connection_invalidated:
                return True
            if isinstance(error, OperationalError | InterfaceError):
                text = f"{error.orig}"
                return type(error.orig).__module__ != "sqlite3" or "locked" in text or "busy" in text
        error = error.__cause__
    return False


def is_disk_full(error: BaseException | None) -> bool:
    """True if the disk of the database is full, or its file has reached a limit."""
    return error is not None and any(text in cause_of(error) for text in ("disk is full", "disk full", "disk I/O error"))


def cause_of(error: BaseException) -> str:
    """First line of the database driver's message."""
    while not isinstance(error, DBAPIError) and error.__cause__ is not None:
        error = error.__cause__
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
