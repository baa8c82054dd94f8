"""SQLite as several processes share it, on real files, and what may never be seen of a server's URL."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import quote

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from search.errors import UserError
from search.storage import urls
from search.storage.claims import claims_of
from search.storage.database import LOCK_TIMEOUT_SECONDS, open_storage
from search.storage.urls import NETWORK_FILE_SYSTEMS, file_system, masked, sqlite_url
from tests.fault_table import record, results
from tests.support.servers import PASSWORD, Server, free_port
from tests.support.snippet import snippet

ROOT = Path(__file__).parents[2]
PASSWORDS = ["hunter2", "{hunter2}", "hun:ter2", "hun/ter2", "hun@ter2", "%hunter2", "@hunter2@", "hunter2?", "a b#hunter2"]


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    storage = open_storage(sqlite_url(tmp_path / "run"))
    return optuna.create_study(storage=storage, study_name="s", direction="maximize")


# --- SQLite ----------------------------------------------------------------------------------------------------------


def test_the_folder_and_the_file_are_made(study: optuna.Study, tmp_path: Path) -> None:
    assert (tmp_path / "run" / "study.db").is_file()


@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("busy_timeout", LOCK_TIMEOUT_SECONDS * 1000)]
)
@pytest.mark.usefixtures("synced")
def test_every_connection_is_set_up(study: optuna.Study, tmp_path: Path, pragma: str, value: object) -> None:
    engine = open_storage(sqlite_url(tmp_path / "run")).engine  # of a file that was there, too
    connections = [engine.raw_connection() for _ in range(2)]
    found = []
    for connection in connections:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA {pragma}")
        found.append(cursor.fetchone()[0])
        connection.close()
    assert found == [value, value]


def test_a_transaction_takes_the_write_lock_when_it_begins(study: optuna.Study, tmp_path: Path) -> None:
    engine = open_storage(sqlite_url(tmp_path / "run")).engine
    other = sqlite3.connect(tmp_path / "run" / "study.db", timeout=0, isolation_level=None)
    with engine.begin() as ours:
        ours.exec_driver_sql("SELECT 1")  # reads only
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        assert other.execute("SELECT count(*) FROM studies").fetchone() == (1,)  # readers are not kept out
    other.execute("BEGIN IMMEDIATE")
    other.close()


def test_a_transaction_that_only_reads_takes_no_lock_and_waits_for_none(study: optuna.Study, tmp_path: Path) -> None:
    reads = [True]
    storage = open_storage(sqlite_url(tmp_path / "run"), only_reads=lambda: reads[0])
    other = sqlite3.connect(tmp_path / "run" / "study.db", timeout=0, isolation_level=None)
    with storage.engine.begin() as ours:
        assert ours.exec_driver_sql("SELECT count(*) FROM studies").scalar() == 1
        other.execute("BEGIN IMMEDIATE")  # a writer is let in
        other.execute("UPDATE studies SET study_name = 'renamed'")
        assert [one.study_name for one in storage.get_all_studies()] == ["s"]  # and the next reader waits for no writer
        other.execute("COMMIT")
    assert [one.study_name for one in storage.get_all_studies()] == ["renamed"]
    reads[0] = False
    with storage.engine.begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.close()


def test_row_8_a_database_that_is_locked_for_a_while_loses_nothing(study: optuna.Study, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "run" / "study.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()
    release = threading.Timer(1.5, lambda: other.execute("ROLLBACK"))
    release.start()
    trial = study.ask()
    assert time.monotonic() - started > 1
    study.tell(trial, 0.5)
    release.join()
    other.close()
    assert [one.value for one in study.get_trials()] == [0.5]
    record({8: 1}, results(study.get_trials()))


CLAIM = """
import json, sys
import optuna
from search.storage.database import open_storage
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.load_study(storage=open_storage(sys.argv[1]), study_name="s", sampler=optuna.samplers.RandomSampler(seed=0))
print("ready", flush=True)
sys.stdin.readline()
claimed = []
while True:
    trial = study.ask()
    if "job" not in trial.user_attrs:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        break
    claimed.append(trial.user_attrs["job"])
    study.tell(trial, trial.suggest_float("x", 0, 1))
print(json.dumps(claimed))
"""


def test_four_processes_claim_each_of_forty_queued_trials_once(study: optuna.Study, tmp_path: Path) -> None:
    for job in range(40):
        study.enqueue_trial({}, user_attrs={"job": job})
    words = snippet(CLAIM, sqlite_url(tmp_path / "run"))
    workers = [subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:  # all at once
        assert worker.stdin
        worker.stdin.write("go\n")
        worker.stdin.flush()
    claimed = Counter(job for worker in workers for job in json.loads(worker.communicate(timeout=120)[0]))
    assert [worker.returncode for worker in workers] == [0, 0, 0, 0]
    assert claimed == dict.fromkeys(range(40), 1)
    states = Counter(trial.state for trial in study.get_trials(deepcopy=False) if "job" in trial.user_attrs)
    assert states == {TrialState.COMPLETE: 40}


# --- file systems ----------------------------------------------------------------------------------------------------

MOUNTS = """/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local xfs rw 0 0
//nas/a\\040b /mnt/a\\040b cifs rw 0 0
systemd-1 /auto autofs rw 0 0
share /auto 9p rw 0 0
/dev/sdc1 /auto/disk ext4 rw 0 0
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    path = tmp_path / "mounts"
    path.write_text(MOUNTS, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/run/study.db", "ext4"),
        ("/home/anna/study.db", "nfs4"),
        ("/home", "nfs4"),
        ("/homestead/study.db", "ext4"),  # a folder, not a piece of text
        ("/home/local/study.db", "xfs"),
        ("/mnt/a b/study.db", "cifs"),
        ("/home/local/../anna/study.db", "nfs4"),
        ("/auto/study.db", "9p"),  # the later of two mounts at one point hides the earlier
    ],
)
def test_the_innermost_mount_counts(path: str, kind: str, mounts: Path) -> None:
    assert file_system(Path(path), mounts) == kind


def test_a_system_without_the_list_does_not_tell(tmp_path: Path) -> None:
    assert file_system(tmp_path, tmp_path / "none") is None


@pytest.mark.parametrize("kind", sorted(NETWORK_FILE_SYSTEMS))
def test_a_network_file_system_is_rejected(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tmp_path / "mounts"
    listed.write_text(f"root / ext4 rw 0 0\nremote {tmp_path}/far {kind} rw 0 0\n", encoding="utf-8")
    monkeypatch.setattr(urls, "file_system", partial(file_system, mounts=listed))
    with pytest.raises(UserError, match=rf"network file system \({kind}\).*--out.*--storage") as caught:
        open_storage(sqlite_url(tmp_path / "far" / "run"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "far").exists()
    open_storage(sqlite_url(tmp_path / "near"))


# --- URLs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_is_masked(password: str, encoded: bool) -> None:
    written = quote(password, safe="") if encoded else password
    shown = masked(f"postgresql+psycopg://anna:{written}@db.example.org:5432/studies")
    assert shown == "postgresql+psycopg://anna:***@db.example.org:5432/studies"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://anna@server:hunter2@db.example.org/studies",  # as some hosts name their users
        "postgresql://:hunter2@db.example.org/studies",
        "postgresql://db.example.org/studies?user=anna&password=hunter2",
        "postgresql:///studies?host=db&password=hunter2&port=5",
    ],
)
def test_a_password_in_an_odd_place_is_masked(url: str) -> None:
    assert "hunter2" not in masked(url)


@given(st.text(st.sampled_from("abz{}@/:%?#&=+ "), min_size=1, max_size=12))
def test_nothing_of_a_password_is_shown(middle: str) -> None:
    assert "secret" not in masked(f"postgresql://anna:secret{middle}secret@host/db")


@pytest.mark.parametrize(
    "url", ["sqlite:////srv/run/study.db", "sqlite:///C:/run/study.db", "postgresql://host/db", "postgresql://anna@host/db"]
)
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert masked(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "sqlite",
        "://",
        "nosql://anna:hunter2@host/db",
        "sqlite+none:///x.db",
        "postgresql://anna:hunter2@host:port/db",
        "postgresql://anna:{hunter2}@localhost:1/db",
        "postgresql://anna:hunter2%@localhost:1/db",
        "mysql://anna:hunter2@localhost:1/db",
        "sqlite:////proc/none/x/study.db",
        "sqlite:////dev/null/study.db",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_a_url_that_cannot_be_used_is_rejected_in_one_line(url: str) -> None:
    with pytest.raises(UserError, match="--storage") as caught:
        open_storage(url)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_no_database_is_rejected_and_kept(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"no database " * 100)
    with pytest.raises(UserError, match="cannot be opened"):
        open_storage(sqlite_url(tmp_path))
    assert (tmp_path / "study.db").read_bytes() == b"no database " * 100


# --- a server --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_password_of_any_kind_opens_a_server(scheme: str, postgres: Server) -> None:
    url = postgres.new_storage().replace("postgresql", scheme)
    study = optuna.create_study(storage=open_storage(url), study_name="s")
    study.tell(study.ask(), 0.5)
    assert optuna.load_study(storage=open_storage(url), study_name="s").best_value == 0.5


def test_times_of_a_server_are_utc_whatever_the_session(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats are compared by them, of machines in several zones."""
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    with open_storage(postgres.new_storage()).engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW timezone").scalar() == "UTC"


def test_an_error_of_a_server_is_one_line_without_the_password(postgres: Server) -> None:
    for url, told in (
        (postgres.url("nobody"), "password authentication failed"),
        (postgres.url().replace("/postgres", "/none"), "does not exist"),
        (postgres.url().replace(str(postgres.port), str(free_port())), "refused"),
    ):
        with pytest.raises(UserError, match=told) as caught:
            open_storage(url)
        assert "\n" not in str(caught.value)
        assert "***" in str(caught.value)
        for password in (PASSWORD, quote(PASSWORD, safe="")):
            assert password not in str(caught.value)


def test_a_password_that_splits_its_url_is_rejected_before_part_of_it_is_taken_for_a_host() -> None:
    with pytest.raises(UserError, match="percent-encoded, @ as %40") as caught:
        open_storage("postgresql://anna:one@two@db.example.org/studies")
    assert "two" not in str(caught.value)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_tables_that_many_make_at_once_are_made(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """As when a job of several machines starts on an empty database."""
    url = sqlite_url(tmp_path) if kind == "sqlite" else request.getfixturevalue("postgres").new_storage()
    ready = threading.Barrier(4)

    def start(number: int) -> int:
        ready.wait()
        storage = open_storage(url)
        study = optuna.create_study(storage=storage, study_name="s", load_if_exists=True)
        assert claims_of(study).claim(f"{number}", number)
        study.tell(study.ask(), number)
        return len(study.trials)

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(start, range(4))) == 4
    assert claims_of(optuna.load_study(storage=open_storage(url), study_name="s")).held() == {
        str(number): number for number in range(4)
    }
