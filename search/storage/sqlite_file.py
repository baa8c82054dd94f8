"""SQLite files: opened without writing, and watched while a run uses them."""

from __future__ import annotations

import atexit
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from sqlalchemy.engine import URL

from search.storage.failures import StudyGone


def is_writable(path: Path) -> bool:
    """True if the file and its folder can be written by permission; the disk may still be full."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def read_only_url(path: Path) -> str:
    """URL under which the file can be read without writing beside it.

    SQLite needs its shared memory file to read a write-ahead log. Where it cannot create one, a file without such a log is
    read as immutable; one with a log, left by a killed run, is read from a temporary copy.
    """
    for options in ({"mode": "ro"}, *([] if _has_log(path) else [{"mode": "ro", "immutable": "1"}])):
        if _can_read(path, options):
            return _url(path, options)
    folder = Path(tempfile.mkdtemp(prefix="study-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):
            shutil.copyfile(f"{path}{suffix}", f"{folder / path.name}{suffix}")
    return _url(folder / path.name, {"mode": "rw"})


def unchanged_file(path: Path) -> Callable[[], None]:
    """A check that the path still leads to the same file; raises StudyGone if not."""
    before = path.stat()

    def check() -> None:
        try:
            now = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise StudyGone(f"{path}: the database was deleted or renamed") from None
        except OSError:  # unreadable for a while; SQLite will say so
            return
        if (now.st_dev, now.st_ino) != (before.st_dev, before.st_ino):
            raise StudyGone(f"{path}: another file has replaced the database")

    return check


def _url(path: Path, options: dict[str, str]) -> str:
    url = URL.create("sqlite", database=f"file:{quote(str(path))}", query=options | {"uri": "true"})
    return url.render_as_string(hide_password=False)


def _can_read(path: Path, options: dict[str, str]) -> bool:
    query = "&".join(f"{key}={value}" for key, value in options.items())
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?{query}", uri=True)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return True
    except sqlite3.OperationalError:
        return False
    except sqlite3.DatabaseError:  # not a database, which the caller reports
        return True


def _has_log(path: Path) -> bool:
    try:
        return Path(f"{path}-wal").stat().st_size > 0
    except OSError:
        return False
