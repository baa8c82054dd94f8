"""A run whose study disappears, and runs that can only be read: rows 24 and 26 of the table of faults."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import optuna
import pytest

from search.storage.database import open_storage
from tests.fault_table import Results, record
from tests.support.storms import ROOT, SECONDS, Storm, finish, rows_of_checkpoints

# --- what disappears -------------------------------------------------------------------------------------------------

DISAPPEARANCES = {
    "database": "study.db: the database was deleted or renamed",
    "another database": "study.db: another file has replaced the database",
    "folder": "the run folder was deleted, renamed or replaced",
    "study": "study 'tiny' was deleted from the database",
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case == "database" else [pytest.mark.long]) for case in DISAPPEARANCES]
)
def test_row_24_a_run_whose_study_disappears_stops_and_resumes_when_it_is_back(
    case: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """It trained on and lost all of it, or began a new study without a word."""
    url = request.getfixturevalue("postgres").new_storage() if case == "folder" else None
    storm = Storm(tmp_path / "storm", storage_url=url, recipe={"epochs": 9})
    workers = 2 if case == "folder" else 1
    process = storm.begin("--workers", str(workers), EPOCH_SECONDS="0.3")
    storm.wait_for(lambda trials: sum(len(trial.intermediate_values) >= 2 for trial in trials) >= workers)
    folder, database = storm.run.folder, storm.run.folder / "study.db"
    if case == "study":
        optuna.delete_study(study_name="tiny", storage=open_storage(storm.run.storage_url))
    elif case == "folder":
        folder.rename(tmp_path / "moved")
    else:
        database.rename(folder / "moved.db")
    if case == "another database":
        shutil.copy(folder / "moved.db", database)
    begun = time.monotonic()
    _, err = finish(process, 1)
    assert time.monotonic() - begun < SECONDS / 4
    assert DISAPPEARANCES[case] in err
    if case == "study":
        assert "tiny" not in optuna.get_all_study_names(open_storage(storm.run.storage_url))
        record({24: 1}, Results(0, 0))
        return
    if case == "another database":  # SQLite has applied the journal of the one to the other: no run can resume from that
        record({24: 1}, Results(0, 0))
        return
    if case == "folder":
        assert not folder.exists(), "mv would put the folder that comes back into the new one"
        (tmp_path / "moved").rename(folder)
        epochs = {trial.user_attrs["index"]: len(trial.intermediate_values) for trial in storm.trials}
        kept = {index: len(rows) for index, rows in rows_of_checkpoints(storm).items()}
        assert len(epochs) == workers and all(kept[index] >= epochs[index] - 1 for index in epochs), (epochs, kept)
    else:
        assert not database.exists()
        (folder / "moved.db").replace(database)
    storm.met[24] += 1
    storm.start("--workers", str(workers))
    storm.check(4)


# --- what can only be read -------------------------------------------------------------------------------------------

LOOKS = {  # arguments after the study: exit status, part of the output
    ("top", "--json"): (0, '"trained": 2'),
    ("show", "0"): (0, "rank"),
    ("finals", "--show"): (2, "no finals"),
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Storm:
    """A study of two trials that has ended."""
    storm = Storm(tmp_path_factory.mktemp("ended") / "storm", search={"trials": 2})
    storm.start()
    return storm


@pytest.fixture
def locked(ended: Storm, tmp_path: Path) -> Iterator[Storm]:
    """The same, in a folder that may only be read, beside a folder `out` that anyone may write."""
    entries = sorted((ended.folder, *ended.folder.rglob("*")))
    modes = {path: path.stat().st_mode for path in entries}
    for path in {*ended.folder.parents, *tmp_path.parents, tmp_path}:
        if path.is_relative_to(tempfile.gettempdir()) and path != Path(tempfile.gettempdir()):
            path.chmod(path.stat().st_mode | 0o055)
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o777)
    for path in entries:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = contents_of(ended)
    yield ended
    after = contents_of(ended)
    for path, mode in modes.items():
        path.chmod(mode)
    assert after == before


def contents_of(storm: Storm) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in storm.run.folder.rglob("*") if path.is_file()}


def command_of(storm: Storm, verb: str, *arguments: str) -> list[str]:
    study = str(storm.folder / "tiny.toml")
    return [sys.executable, "-m", "search", verb, study, *arguments, "--out", str(storm.run.folder)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}


# A process of root may write everywhere: it becomes another user first.
OTHER_USER = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
FULL_DISK = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh"]  # no file can grow


@pytest.mark.long
def test_row_26_commands_read_a_run_folder_that_may_only_be_read(locked: Storm, tmp_path: Path) -> None:
    """They failed with "attempt to write a readonly database"."""
    exports = {("export", "--to", str(tmp_path / "out"), "--form", "json"): (0, "best_model.json")}
    for arguments, (status, expected) in (LOOKS | exports).items():
        check_look([*OTHER_USER, *command_of(locked, *arguments)], status, expected)
    record({26: 4}, Results(0, 0))


@pytest.mark.long
def test_row_26_commands_read_a_run_on_a_full_disk(ended: Storm) -> None:
    for arguments, (status, expected) in LOOKS.items():
        check_look([*FULL_DISK, *command_of(ended, *arguments)], status, expected)
    record({26: 3}, Results(0, 0))


@pytest.mark.parametrize("place", ["read-only folder", pytest.param("full disk", marks=pytest.mark.long)])
def test_row_26_the_dashboard_shows_a_run_that_cannot_be_written(place: str, locked: Storm) -> None:
    command = [*(FULL_DISK if place == "full disk" else OTHER_USER), *command_of(locked, "dashboard", "--port", "0")]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment(), **options) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            cookies = urllib.request.HTTPCookieProcessor()
            address = line.split()[0]
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)
            assert opener.open(address, timeout=SECONDS).status == 200
            with opener.open(urljoin(address, "/api/studies"), timeout=SECONDS) as answer:
                names = [study["study_name"] for study in json.load(answer)["study_summaries"]]
        finally:
            process.terminate()
    assert "tiny" in names
    record({26: 1}, Results(0, 0))


def check_look(command: list[str], status: int, expected: str) -> None:
    """Run a command that only reads, and compare its exit status and its output."""
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == status, (command, done.stderr)
    assert expected in done.stdout + done.stderr, (command, done.stdout, done.stderr)
