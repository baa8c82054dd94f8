"""The Optuna storage, set up for several processes: SQLite with write-ahead log and immediate transactions, or a server."""

from __future__ import annotations

import random
import re
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import optuna
from sqlalchemy import Engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from search.errors import UserError
from search.storage.resilient import PatientStorage, cause_of, is_passing

LOCK_TIMEOUT_SECONDS = 60
BEATS_IN_GRACE = 8  # of a trial at work
RACES = 20  # times that tables are asked for again while others make them too

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
    """The storage of a run folder."""
    return f"sqlite:///{folder / 'study.db'}"


def masked(url: str) -> str:
    """The URL with its password hidden, for people."""
    url = re.sub(r"(://[^:/]*):.*@", r"\1:***@", url)  # to the last @: a password may hold one that is not encoded
    return re.sub(r"([?&](?:password|passwd|sslpassword)=)[^&]*", r"\1***", url)


def open_storage(
    url: str,
    *,
    create: bool = True,
    patience: float = 0.0,
    grace_seconds: float | None = None,
    only_reads: Callable[[], bool] = lambda: False,
) -> PatientStorage:
    """Connect, and create file and tables on first use (not the file without `create`).

    Args:
        patience: seconds that a call waits for a database that is away, this one too.
        grace_seconds: after the last heartbeat of a trial, until it counts as lost; None where no trial is run.
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
        if "@" in (parsed.host or ""):
            raise UserError(f"--storage {masked(url)}: a password with @ / : or % in it is to be percent-encoded, @ as %40")
        if path:
            _check_file_system(path)
            if not create and not path.is_file():
                raise UserError(f"{path}: there is no such file; see --storage and --out")
            path.parent.mkdir(parents=True, exist_ok=True)
        storage = _connected(_of_psycopg(url), is_sqlite, patience, grace_seconds)
        if is_sqlite:
            _take_turns(storage.engine, lambda: storage.only_reads or only_reads())
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


def made_at_once(make: Callable[[], Answer]) -> Answer:
    """What `make` returns, called again where another process was making the same tables at that moment."""
    for _ in range(RACES):
        try:
            return make()
        except Exception as error:
            told = f"{error} {error.__cause__}"
            if not any(word in told for word in ("already exists", "UNIQUE constraint", "unique constraint", "is locked")):
                raise
            time.sleep(random.uniform(0.05, 0.3))
    return make()


def _of_psycopg(url: str) -> str:
    """The URL as SQLAlchemy takes it: psycopg 3 for PostgreSQL, under either of the names that hosts give it."""
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)


def _connected(url: str, is_sqlite: bool, patience: float, grace_seconds: float | None) -> PatientStorage:
    options: dict[str, Any] = {"engine_kwargs": _engine_options(is_sqlite)}
    if grace_seconds is not None:
        beat = grace_seconds / BEATS_IN_GRACE
        options |= {"heartbeat_interval": beat, "grace_period": grace_seconds}
    literal = url.replace("{", "{{").replace("}", "}}")  # Optuna takes it for a template
    deadline = time.monotonic() + patience
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats are, since 2.9 of 2021
        while True:
            try:
                storage = made_at_once(lambda: PatientStorage(literal, **options))
                break
            except Exception as error:
                if not is_passing(error) or time.monotonic() > deadline:
                    raise
                time.sleep(1.0)
    storage.patience = patience
    return storage


def _without_password(text: str, url: str) -> str:
    """What a driver said, should it ever repeat the password."""
    password = make_url(url).password
    return text.replace(str(password), "***") if password else text


def _engine_options(is_sqlite: bool) -> dict[str, Any]:
    if is_sqlite:
        return {"connect_args": {"timeout": LOCK_TIMEOUT_SECONDS}}
    return {"pool_pre_ping": True, "pool_size": 2, "connect_args": SERVER_OPTIONS}  # PostgreSQL, the one server offered


def backend_of(study: optuna.Study) -> Any:
    """The storage behind Optuna's cache."""
    return getattr(study._storage, "_backend", study._storage)


def engine_of(study: optuna.Study) -> Engine:
    """The database of a study."""
    engine: Engine = backend_of(study).engine
    return engine


def patiently(study: optuna.Study, call: Callable[[], Answer]) -> Answer:
    """What the call returns, made again while the database is away."""
    storage = backend_of(study)
    return storage.patiently(call) if isinstance(storage, PatientStorage) else call()


@contextmanager
def together(trial: optuna.Trial) -> Iterator[None]:
    """Store what is set of the trial inside the block in one transaction, at its end: all of it or nothing.

    Raises:
        UpdateFinishedTrialError: at its end, where somebody else has ended the trial.
    """
    storage = backend_of(trial.study)
    with storage.together(trial._trial_id) if isinstance(storage, PatientStorage) else nullcontext():
        yield


@contextmanager
def reading(study: optuna.Study) -> Iterator[None]:
    """The transactions of this thread write nothing inside the block, and keep nobody from writing."""
    storage = backend_of(study)
    with storage.reading() if isinstance(storage, PatientStorage) else nullcontext():
        yield


def _use_utc(engine: Engine) -> None:
    """Let a server tell the time in one zone, whatever the machine's and PGTZ: heartbeats are compared by it."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")
        connection.commit()

    engine.dispose()


def _take_turns(engine: Engine, only_reads: Callable[[], bool]) -> None:
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
