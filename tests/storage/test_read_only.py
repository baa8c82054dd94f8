"""A study that may only be read, or whose disk is full, can be looked at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from search.storage.database import open_storage, storage_of
from search.storage.sqlite_file import read_only_url
from search.storage.urls import sqlite_url
from tests.fault_table import Results, record

ROOT = Path(__file__).parents[2]
READ = """
import json, sys, optuna
from search.storage.database import open_storage, storage_of
study = optuna.load_study(storage=open_storage(sys.argv[1], create=False), study_name="s")
print(json.dumps([study.best_value, len(study.trials), storage_of(study).is_writable]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A run folder with a study of one trial; its write-ahead log is folded in when the connections are closed."""
    folder = tmp_path / "run"
    study = optuna.create_study(storage=open_storage(sqlite_url(folder)), study_name="s", direction="maximize")
    study.tell(study.ask(), 0.5)
    storage_of(study).engine.dispose()
    for parent in (folder, *folder.parents):
        if parent.is_relative_to("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    yield folder
    folder.chmod(0o755)


def read_as_other(folder: Path) -> list[object]:
    """A study as read by a process that may not write: (best value, trials, is writable)."""
    words = [sys.executable, "-c", READ, sqlite_url(folder)]
    if os.getuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere, and there is no setpriv to become another user")
        words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *words]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0, done.stderr
    found: list[object] = json.loads(done.stdout)
    return found


def test_row_26_a_folder_that_may_only_be_read_is_read(folder: Path) -> None:
    """It used to fail with "attempt to write a readonly database"."""
    (folder / "study.db").chmod(0o444)
    folder.chmod(0o555)
    assert read_as_other(folder) == [0.5, 1, False]
    assert sorted(path.name for path in folder.iterdir()) == ["study.db"]
    record({26: 1}, Results(0, 0))


def test_a_log_that_a_killed_run_left_is_read_too(folder: Path) -> None:
    """It holds the last trials, and only a writer could fold it in."""
    study = optuna.load_study(storage=open_storage(sqlite_url(folder)), study_name="s")
    study.tell(study.ask(), 0.75)
    killed = folder.with_name("killed")
    killed.mkdir()
    for suffix in ("", "-wal"):  # without the shared memory, as after a restart of the machine
        shutil.copy(f"{folder / 'study.db'}{suffix}", f"{killed / 'study.db'}{suffix}")
        Path(f"{killed / 'study.db'}{suffix}").chmod(0o444)
    killed.chmod(0o555)
    assert read_as_other(killed) == [0.75, 2, False]
    killed.chmod(0o755)


def test_a_study_at_work_is_read_beside_it(folder: Path) -> None:
    study = optuna.load_study(storage=open_storage(sqlite_url(folder)), study_name="s")
    study.tell(study.ask(), 0.75)
    assert read_as_other(folder) == [0.75, 2, False]
    study.tell(study.ask(), 1.0)
    assert study.best_value == 1.0


def test_a_database_opened_for_reading_is_not_written(folder: Path) -> None:
    before = (folder / "study.db").read_bytes()
    study = optuna.load_study(storage=open_storage(sqlite_url(folder), create=False, read_only=True), study_name="s")
    assert study.best_value == 0.5
    with pytest.raises(optuna.exceptions.StorageInternalError, match="commit"):
        study.set_user_attr("a", 1)
    assert (folder / "study.db").read_bytes() == before


def test_a_file_that_is_no_database_is_left_to_the_caller(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"no database " * 100)
    assert "mode=ro" in read_only_url(tmp_path / "study.db")
