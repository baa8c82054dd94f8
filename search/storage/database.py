"""The database of a study, opened for many processes: SQLite with a write-ahead log, or PostgreSQL."""

from __future__ import annotations

import random
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import Engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from search.errors import UserError
from search.storage.clock import SYSTEM, Clock
from search.storage.failures import cause_of, is_temporary
from search.storage.optuna_internals import base_storage_of, study_id_of, trial_id_of
from search.storage.resilient import ResilientStorage

LOCK_TIMEOUT_SECONDS = 60
RACES = 20  # attempts to create tables while other processes create them too

# A connection to a server whose host has vanished ends within half a minute. A worker that was halted inside a transaction
# loses it, and with it the locks that all others wait for.
SERVER_OPTIONS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "options": "-c idle_in_transaction_session_timeout=60000",
}

Answer = TypeVar("Answer")

# SQLite's locks and shared memory do not hold on these.
NETWORK_FILE_SYSTEMS = frozenset(
    """nfs nfs4 cifs smb smb2 smb3 smbfs 9p afs ceph lustre gpfs beegfs glusterfs davfs ocfs2 gfs2 fuse.sshfs fuse.glusterfs
    fuse.s3fs fuse.gcsfuse fuse.rclone fuse.drive fuse.drivefs fuse.davfs2""".split()  # noqa: SIM905 thirty quoted words
)


def sqlite_url(folder: Path) -> str:
    """URL of the database in a run folder."""
    return f"sqlite:///{folder / 'study.db'}"


def masked(url: str) -> str:
    """The URL with its password hidden."""
    url = re.sub(r"(://[^:/]*):.*@", r"\1:***@", url)  # to the last @: a password may hold one that is not encoded
    return re.sub(r"([?&](?:password|passwd|sslpassword)=)[^&]*", r"\1***", url)


def open_storage(
    url: str,
    *,
    create: bool = True,
    patience: float = 0.0,
    grace_seconds: float | None = None,
    only_reads: Callable[[], bool] = lambda: False,
    clock: Clock = SYSTEM,
) -> ResilientStorage:
    """Connect, and create file and tables on first use (not the file without `create`).

    Args:
        patience: seconds that a call, this one too, is repeated while the database is unreachable.
        grace_seconds: age of its last heartbeat at which a trial counts as lost; None where no trial is run.
        only_reads: called when a transaction begins; True if it will write nothing, so that SQLite needs no lock.

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
        if "@" in (parsed.host or ""):
            raise UserError(f"--storage {masked(url)}: a password with @ / : or % in it is to be percent-encoded, @ as %40")
        if path:
            _check_file_system(path)
            if not create and not path.is_file():
                raise UserError(f"{path}: there is no such file; see --storage and --out")
            path.parent.mkdir(parents=True, exist_ok=True)
        storage = ResilientStorage(
            _connect(_with_psycopg(url), is_sqlite, patience, clock),
            patience=patience,
            grace_seconds=grace_seconds,
            clock=clock,
        )
        if is_sqlite:
            _use_immediate_transactions(storage.engine, lambda: storage.is_reading or only_reads())
        else:
            _use_utc(storage.engine)
        return storage
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ImportError, KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"--storage {masked(url)}: not a database URL that can be used here ({type(error).__name__}); "
            "pass sqlite:///FILE, postgresql://USER@HOST/DATABASE, or leave it out"
        ) from None
    except (SQLAlchemyError, OSError, optuna.exceptions.OptunaError) as error:
        raise UserError(f"--storage {masked(url)}: cannot be opened ({_without_password(cause_of(error), url)})") from None


def create_concurrently(create: Callable[[], Answer]) -> Answer:
    """Return what `create` returns, called again while another process is creating the same tables."""
    for _ in range(RACES):
        try:
            return create()
        except Exception as error:
            text = f"{error} {error.__cause__}"
            if not any(word in text for word in ("already exists", "UNIQUE constraint", "unique constraint", "is locked")):
                raise
            time.sleep(random.uniform(0.05, 0.3))
    return create()


def _with_psycopg(url: str) -> str:
    """The URL as SQLAlchemy reads it: psycopg 3 for PostgreSQL, under either of the names that hosts give it."""
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)


def _connect(url: str, is_sqlite: bool, patience: float, clock: Clock) -> RDBStorage:
    template = url.replace("{", "{{").replace("}", "}}")  # Optuna formats the URL
    deadline = clock.monotonic() + patience
    while True:
        try:
            return create_concurrently(lambda: RDBStorage(template, engine_kwargs=_engine_options(is_sqlite)))
        except Exception as error:
            if not is_temporary(error) or clock.monotonic() > deadline:
                raise
            clock.sleep(1.0)


def _without_password(text: str, url: str) -> str:
    """A driver's message, without the password that it might repeat."""
    password = make_url(url).password
    return text.replace(str(password), "***") if password else text


def _engine_options(is_sqlite: bool) -> dict[str, Any]:
    if is_sqlite:
        return {"connect_args": {"timeout": LOCK_TIMEOUT_SECONDS}}
    return {"pool_pre_ping": True, "pool_size": 2, "connect_args": SERVER_OPTIONS}  # PostgreSQL, the one server offered


def storage_of(study: optuna.Study) -> ResilientStorage:
    """The storage of a study that was opened by `open_storage`."""
    storage = base_storage_of(study)
    if not isinstance(storage, ResilientStorage):
        raise TypeError(f"study {study.study_name!r}: its storage is a {type(storage).__name__}; open it by open_storage")
    return storage


def set_trial_attributes(trial: optuna.Trial, attributes: Mapping[str, Any]) -> None:
    """Set user attributes of a running trial in one transaction."""
    with buffered_writes(trial):
        for key, value in attributes.items():
            trial.set_user_attr(key, value)


def report_epoch(trial: optuna.Trial, epoch: int, value: float) -> None:
    """Store the value of an epoch.

    `optuna.Trial.report` does the same, but it refuses a study of several objectives.
    """
    trial.storage.set_trial_intermediate_value(trial_id_of(trial), epoch, value)


@contextmanager
def buffered_writes(trial: optuna.Trial) -> Iterator[None]:
    """Store what is set of the trial inside the block in one transaction, at its end: all of it or nothing.

    Raises:
        UpdateFinishedTrialError: at the end, if another process has ended the trial.
    """
    storage = base_storage_of(trial.study)
    if not isinstance(storage, ResilientStorage):
        yield
        return
    with storage.buffered_writes(study_id_of(trial.study), trial_id_of(trial)):
        yield


def _use_utc(engine: Engine) -> None:
    """Set every session of a server to UTC, whatever the machine's zone and PGTZ: heartbeats are compared by it."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")
        connection.commit()

    engine.dispose()


def _use_immediate_transactions(engine: Engine, only_reads: Callable[[], bool]) -> None:
    """Take SQLite's write lock when a transaction begins; else two processes read a queued trial and both begin it."""

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
    """Type of the file system that holds the path, None where /proc/mounts is missing."""
    try:
        rows = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return None
    target = path.resolve()
    mounted = [(len(point), kind) for _, point, kind, *_ in rows if target.is_relative_to(point.replace("\\040", " "))]
    return max(reversed(mounted), key=lambda mount: mount[0])[1] if mounted else None  # a later mount hides an earlier one
