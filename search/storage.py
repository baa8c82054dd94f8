"""The Optuna storage, set up for several processes: SQLite with write-ahead log and immediate transactions, or a server."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy import Engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from search.errors import UserError

LOCK_TIMEOUT_SECONDS = 60

# SQLite's locks and shared memory do not hold on these.
NETWORK_FILE_SYSTEMS = frozenset(
    """nfs nfs4 cifs smb smb2 smb3 smbfs 9p afs ceph lustre gpfs beegfs glusterfs davfs ocfs2 gfs2 fuse.sshfs fuse.glusterfs
    fuse.s3fs fuse.gcsfuse fuse.rclone fuse.drive fuse.drivefs fuse.davfs2""".split()  # noqa: SIM905 thirty quoted words
)


def sqlite_url(folder: Path) -> str:
    """The storage of a run folder."""
    return f"sqlite:///{folder / 'study.db'}"


def masked(url: str) -> str:
    """The URL with its password hidden, for people."""
    url = re.sub(r"(://[^:/]*):.*@", r"\1:***@", url)  # to the last @: a password may hold one that is not encoded
    return re.sub(r"([?&](?:password|passwd|sslpassword)=)[^&]*", r"\1***", url)


def open_storage(
    url: str, *, create: bool = True, only_reads: Callable[[], bool] = lambda: False
) -> optuna.storages.RDBStorage:
    """Connect, and create file and tables on first use (not the file without `create`).

    Args:
        only_reads: asked when a transaction begins; where it will write nothing, SQLite needs no lock and no writer waits.

    Raises:
        UserError: the URL cannot be read, the file lies on a network file system or is no database, or the server
            cannot be reached.
    """
    try:
        parsed = make_url(url)
        is_sqlite = parsed.get_backend_name() == "sqlite"
        path = Path(parsed.database) if is_sqlite and parsed.database else None
        if is_sqlite and (path is None or parsed.database == ":memory:"):
            raise UserError(f"--storage {masked(url)}: a database in memory is gone with its process; pass sqlite:///FILE")
        if path:
            _check_file_system(path)
            if not create and not path.is_file():
                raise UserError(f"{path}: there is no such file; see --storage and --out")
            path.parent.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.RDBStorage(url, engine_kwargs=_engine_options(is_sqlite))
        if is_sqlite:
            _listen(storage.engine, only_reads)
        return storage
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ImportError, KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"--storage {masked(url)}: not a database URL that can be used here ({type(error).__name__}); "
            "pass sqlite:///FILE or leave it out"
        ) from None
    except (SQLAlchemyError, OSError, optuna.exceptions.OptunaError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise UserError(f"--storage {masked(url)}: cannot be opened ({reason})") from None


def _engine_options(is_sqlite: bool) -> dict[str, Any]:
    if is_sqlite:
        return {"connect_args": {"timeout": LOCK_TIMEOUT_SECONDS}}
    return {"pool_pre_ping": True}


def engine_of(study: optuna.Study) -> Engine:
    """The database of a study."""
    storage: Any = getattr(study._storage, "_backend", study._storage)  # Optuna wraps a database in a cache
    engine: Engine = storage.engine
    return engine


def _listen(engine: Engine, only_reads: Callable[[], bool]) -> None:
    """Take the write lock when a transaction begins, or two processes both read a queued trial and both claim it."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # with WAL, less can lose the last commits in a power cut

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN" if only_reads() else "BEGIN IMMEDIATE")

    engine.dispose()  # connections made before the listeners


def _check_file_system(path: Path) -> None:
    kind = file_system(path)
    if kind in NETWORK_FILE_SYSTEMS:
        raise UserError(
            f"{path}: lies on a network file system ({kind}), where SQLite loses data; pass --out with a folder on a "
            "local disk, or --storage with a database server"
        )


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """The type of the file system that holds the path, None where the system does not tell."""
    try:
        rows = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return None
    target = path.resolve()
    held = [(len(point), kind) for _, point, kind, *_ in rows if target.is_relative_to(point.replace("\\040", " "))]
    return max(reversed(held), key=lambda one: one[0])[1] if held else None  # a later mount hides an earlier one
