"""Database errors, classified: temporary, permanent, disk full, or the study is gone."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from search.errors import StudyStopped

# PostgreSQL's driver gives no code for a failed connection.
PERMANENT = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",  # database or role
    "permission denied",
    "is not permitted to log in",
)
UNKNOWN_HOST = ("failed to resolve host", "could not translate host name", "Name or service not known")
READ_ONLY_TRANSACTION = "25006"  # SQLSTATE of a write to a server that only accepts reads, as after a failover


class StorageUnavailable(StudyStopped):
    """Stops the run where the database stays unreachable for longer than the storage retries, or its disk is full.

    Stored data is unchanged.
    """


class StudyGone(StudyStopped):
    """Stops the run where the study, its database or its folder was deleted, renamed or replaced."""


def is_temporary(error: BaseException | None) -> bool:
    """True if the database is unreachable, busy or read-only for a while, False if the request itself was wrong."""
    while error is not None:
        if isinstance(error, DBAPIError):
            text = f"{error.orig}"
            if any(reason in text for reason in PERMANENT):
                return False
            if error.connection_invalidated or is_read_only(error):
                return True
            if isinstance(error, OperationalError | InterfaceError):
                return type(error.orig).__module__ != "sqlite3" or "locked" in text or "busy" in text
        error = error.__cause__
    return False


def is_read_only(error: BaseException | None) -> bool:
    """True if a server only accepts reads."""
    while error is not None:
        if isinstance(error, DBAPIError):
            return getattr(error.orig, "sqlstate", None) == READ_ONLY_TRANSACTION
        error = error.__cause__
    return False


def is_unknown_host(error: BaseException) -> bool:
    """True if the name of the server cannot be resolved."""
    return any(text in cause_of(error) for text in UNKNOWN_HOST)


def is_database_missing(error: BaseException) -> bool:
    """True if a server has no database of this name."""
    cause = cause_of(error)
    return "database" in cause and "does not exist" in cause


def is_disk_full(error: BaseException | None) -> bool:
    """True if the disk of the database is full, or its file has reached a limit."""
    return error is not None and any(text in cause_of(error) for text in ("disk is full", "disk full", "disk I/O error"))


def cause_of(error: BaseException) -> str:
    """First line of the database driver's message."""
    while not isinstance(error, DBAPIError) and error.__cause__ is not None:
        error = error.__cause__
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
