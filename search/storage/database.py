"""The database of a study, opened for many processes: SQLite with a write-ahead log, or PostgreSQL."""

from __future__ import annotations

import random
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
from search.storage.failures import cause_of, is_disk_full, is_temporary, is_unknown_host
from search.storage.optuna_internals import base_storage_of, study_id_of, trial_id_of
from search.storage.resilient import OnWait, ResilientStorage, no_report
from search.storage.sqlite_file import is_writable, read_only_url, unchanged_file
from search.storage.urls import check_file_system, masked, sqlite_path, with_psycopg
from search.system import without_modules

LOCK_TIMEOUT_SECONDS = 60
RACES = 20  # attempts to create tables while other processes create them too

# A connection to a server whose host has vanished ends within half a minute. A worker that was suspended inside a
# transaction loses it, and with it the locks that all others wait for.
SERVER_OPTIONS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
SESSION_OPTIONS = "-c idle_in_transaction_session_timeout=60000"

Answer = TypeVar("Answer")

_compatible = set[str]()  # URLs of databases whose schema was compared with Optuna's in this process, which takes 0.1 s


def open_storage(
    url: str,
    *,
    create: bool = True,
    read_only: bool = False,
    patience: float = 0.0,
    grace_seconds: float | None = None,
    only_reads: Callable[[], bool] = lambda: False,
    on_wait: OnWait = no_report,
    clock: Clock = SYSTEM,
) -> ResilientStorage:
    """Connect, and create file and tables on first use.

    Args:
        create: False for an existing database. A SQLite file is then opened read-only if it cannot be written.
        read_only: write nothing, so that a file that may only be read, or whose disk is full, can be opened.
        patience: seconds that a call, this one too, is repeated while the database is unreachable.
        grace_seconds: age of its last heartbeat at which a trial counts as lost; None where no trial is run.
        only_reads: called when a transaction begins; True if it will write nothing, so that SQLite needs no lock.
        on_wait: called with the reason, once for each call that waits.

    Raises:
        UserError: the URL cannot be read, the file lies on a network file system or is no database, or the server
            cannot be reached.
    """
    try:
        path = sqlite_path(url)
        read_only = read_only or bool(path and not create and path.is_file() and not is_writable(path))
        if "@" in (make_url(url).host or ""):
            raise UserError(f"--storage {masked(url)}: a password with @ / : or % in it is to be percent-encoded, @ as %40")
        if path:
            check_file_system(path)
            if (read_only or not create) and not path.is_file():
                raise UserError(f"{path}: there is no such file; see --storage and --out")
            if not read_only:
                path.parent.mkdir(parents=True, exist_ok=True)
        opened = read_only_url(path) if path and read_only else with_psycopg(url)
        database = _connect(opened, _engine_options(url, path, read_only), patience, on_wait, clock)
        _compatible.add(opened)
        storage = ResilientStorage(database, patience=patience, grace_seconds=grace_seconds, clock=clock)
        storage.on_wait, storage.is_writable = on_wait, not read_only
        if path is None:
            _use_utc(storage.engine)
        elif read_only:
            _use_explicit_transactions(storage.engine)
        else:
            _use_immediate_transactions(storage.engine, lambda: storage.is_reading or only_reads())
            storage.guards.append(unchanged_file(path))
        return storage
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ImportError, KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"--storage {masked(url)}: not a database URL that can be used here ({type(error).__name__}); "
            "pass sqlite:///FILE, postgresql://USER@HOST/DATABASE, or leave it out"
        ) from None
    except (SQLAlchemyError, OSError, optuna.exceptions.OptunaError) as error:
        if is_disk_full(error) and not create and not read_only and make_url(url).get_backend_name() == "sqlite":
            return open_storage(url, create=False, read_only=True)
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


class _Database(RDBStorage):
    """Optuna's storage, which closes its connections if it cannot be opened."""

    def __init__(self, url: str, engine_kwargs: dict[str, Any], *, is_compatible: bool) -> None:
        try:
            with without_modules("mako.ext.pygmentplugin"):  # Alembic's templates load colours for error pages: 0.1 s
                super().__init__(url, engine_kwargs, skip_compatibility_check=is_compatible)
        except BaseException:
            if hasattr(self, "engine"):
                self.engine.dispose()
            raise


def _connect(url: str, engine_options: dict[str, Any], patience: float, on_wait: OnWait, clock: Clock) -> RDBStorage:
    template = url.replace("{", "{{").replace("}", "}}")  # Optuna formats the URL
    deadline, is_reported = clock.monotonic() + patience, False
    while True:
        try:
            return create_concurrently(lambda: _Database(template, engine_options, is_compatible=url in _compatible))
        except Exception as error:
            if not is_temporary(error) or is_unknown_host(error) or clock.monotonic() > deadline:
                raise
            if not is_reported:
                is_reported = True
                on_wait(cause_of(error))
            clock.sleep(1.0)


def _without_password(text: str, url: str) -> str:
    """A driver's message, without the password that it might repeat."""
    password = make_url(url).password
    return text.replace(str(password), "***") if password else text


def _engine_options(url: str, path: Path | None, read_only: bool) -> dict[str, Any]:
    """Arguments of SQLAlchemy's `create_engine`."""
    if path:
        return {"connect_args": {"timeout": LOCK_TIMEOUT_SECONDS}}
    own = make_url(url).query.get("options", ())  # such as -csearch_path=SCHEMA
    options = [own] if isinstance(own, str) else list(own)
    options += [SESSION_OPTIONS, *(["-c default_transaction_read_only=on"] if read_only else [])]
    arguments = SERVER_OPTIONS | {"options": " ".join(options)}
    return {"pool_pre_ping": True, "pool_size": 2, "connect_args": arguments}  # PostgreSQL, the one server that is supported


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
    """Store all attributes that are set inside the block in one transaction at its end.

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


def _use_explicit_transactions(engine: Engine) -> None:
    """Let SQLAlchemy begin the transactions of a SQLite file that is only read."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    engine.dispose()
