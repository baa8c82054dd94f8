"""URLs of databases: SQLite files and PostgreSQL servers."""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from search.errors import UserError

FILE = "study.db"  # in a run folder

# SQLite's locks and shared memory do not work on these.
NETWORK_FILE_SYSTEMS = frozenset(
    """nfs nfs4 cifs smb smb2 smb3 smbfs 9p afs ceph lustre gpfs beegfs glusterfs davfs ocfs2 gfs2 fuse.sshfs fuse.glusterfs
    fuse.s3fs fuse.gcsfuse fuse.rclone fuse.drive fuse.drivefs fuse.davfs2""".split()  # noqa: SIM905 thirty quoted words
)


def sqlite_url(folder: Path) -> str:
    """URL of the database in a run folder; ? % and # of its path are encoded."""
    return URL.create("sqlite", database=str(folder / FILE)).render_as_string(hide_password=False)


def sqlite_path(url: str) -> Path | None:
    """File of a SQLite database; None for a server.

    Raises:
        UserError: the database would be in memory.
        sqlalchemy.exc.ArgumentError: the URL cannot be read.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    if not parsed.database or parsed.database == ":memory:":
        raise UserError(f"--storage {masked(url)}: a database in memory is gone with its process; pass sqlite:///FILE")
    return Path(parsed.database)


def anchored(url: str) -> str:
    """The URL with a relative SQLite path made absolute from the current folder, as worker processes run in another one.

    A URL that cannot be read is returned as it is; `open_storage` rejects it.
    """
    try:
        parsed = make_url(url)
        is_relative = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    except (ArgumentError, ValueError):
        return url
    if not is_relative or Path(str(parsed.database)).is_absolute() or str(parsed.database).startswith("file:"):
        return url
    return parsed.set(database=str(Path.cwd() / str(parsed.database))).render_as_string(hide_password=False)


def masked(url: str) -> str:
    """The URL with its password hidden."""
    url = re.sub(r"(://[^:/]*):.*@", r"\1:***@", url)  # to the last @: a password may contain one that is not encoded
    return re.sub(r"([?&](?:password|passwd|sslpassword)=)[^&]*", r"\1***", url)


def with_psycopg(url: str) -> str:
    """The URL as SQLAlchemy reads it: psycopg 3 for PostgreSQL, under either of the names that hosts give it."""
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)


def check_file_system(path: Path) -> None:
    """Reject a SQLite file on a network file system.

    Raises:
        UserError: it lies on one.
    """
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
