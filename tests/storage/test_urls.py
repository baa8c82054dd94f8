"""URLs of databases: every path leads to its own file, whatever its name and the current folder."""

from __future__ import annotations

import string
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from search.storage.database import open_storage, storage_of
from search.storage.urls import anchored, sqlite_path, sqlite_url
from tests.support.servers import Server

ODD = ["run?1", "a%20b", "a b", "100%", "%3F", "a#b", "a{b}", "a&b=c", "ä", "file:x"]


@pytest.mark.parametrize("name", ODD)
def test_a_database_lies_in_its_own_folder(name: str, tmp_path: Path) -> None:
    """`?`, `%20` and `#` used to put it elsewhere: two run folders could share one database."""
    study = optuna.create_study(storage=open_storage(sqlite_url(tmp_path / name)), study_name="s")
    study.tell(study.ask(), 0.5)
    assert (tmp_path / name / "study.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    again = open_storage(sqlite_url(tmp_path / name), create=False)
    assert optuna.load_study(storage=again, study_name="s").best_value == 0.5
    read_only = open_storage(sqlite_url(tmp_path / name), create=False, read_only=True)
    assert optuna.load_study(storage=read_only, study_name="s").best_value == 0.5


@given(st.text(string.printable.replace("\x00", ""), min_size=1))
def test_a_url_leads_back_to_its_path(name: str) -> None:
    assert make_url(sqlite_url(Path("/srv") / name)).database == str(Path("/srv") / name / "study.db")


def test_a_relative_path_is_that_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers run in the checkout: a relative path meant one file to the command and another to its workers."""
    (folder := tmp_path / "a?b").mkdir()
    monkeypatch.chdir(folder)
    url = anchored("sqlite:///mine.db")
    monkeypatch.chdir("/")
    assert sqlite_path(url) == folder / "mine.db"
    assert anchored(url) == url


@pytest.mark.parametrize(
    "url", ["sqlite:////srv/x.db", "sqlite:///file:x.db?uri=true", "postgresql://anna@host/db", "nonsense", "", "sqlite://"]
)
def test_other_urls_stay_as_they_are(url: str) -> None:
    assert anchored(url) == url


def test_options_of_a_servers_url_are_kept(postgres: Server) -> None:
    """They used to be overwritten, and tables were made in another schema."""
    url = postgres.new_storage()
    user = make_url(url).username
    postgres.execute(f"CREATE SCHEMA other AUTHORIZATION {user}")
    study = optuna.create_study(storage=open_storage(f"{url}?options=-csearch_path%3Dother"), study_name="s")
    with storage_of(study).engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM other.studies").scalar() == 1
        assert connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar() == "1min"
    postgres.execute("DROP SCHEMA other CASCADE")
