"""A server that cannot be used: refused at once, waited for, or gone."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import optuna
import pytest
from sqlalchemy.engine import make_url

from search.errors import UserError
from search.runner.adoption import adopt_trials, sources_to_adopt
from search.storage.database import open_storage, storage_of
from search.storage.failures import StudyGone
from search.storage.queue import begin
from search.tuning.sources import open_sources
from tests.fault_table import Results, record, results
from tests.support.runs import Bench, Pretence, digits, pretence, small_run
from tests.support.servers import PASSWORD, Server, free_port

__all__ = ["pretence"]

PATIENCE = 60.0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("anna", "nobody"), "password authentication failed"),
        ((quote(PASSWORD, safe=""), "wrong"), "password authentication failed"),
        (("/postgres", "/none"), "does not exist"),
        (("127.0.0.1", "no-such-host.invalid"), "resolve|Name or service|translate"),
    ],
    ids=["user", "password", "database", "host"],
)
def test_row_25_a_wrong_url_is_rejected_at_once_even_by_a_worker(
    change: tuple[str, str], expected: str, postgres: Server
) -> None:
    """It was waited for, for three minutes and without a word."""
    before, after = change
    url = postgres.url()
    head, _, rest = url.partition("//")
    started = time.monotonic()
    with pytest.raises(UserError, match=expected):
        open_storage(f"{head}//{rest.replace(before, after, 1)}", patience=PATIENCE)
    assert time.monotonic() - started < PATIENCE / 4
    record({25: 1}, Results(0, 0))


def test_waiting_for_a_server_is_reported(postgres: Server) -> None:
    waits: list[str] = []
    url = postgres.url().replace(str(postgres.port), str(free_port()))
    with pytest.raises(UserError, match="refused"):
        open_storage(url, patience=1.5, on_wait=waits.append)
    assert len(waits) == 1
    assert "refused" in waits[0]


def test_storages_that_cannot_be_opened_leave_no_connection_behind(postgres: Server) -> None:
    """Until the server refused all: this user may connect and create no table."""
    user = f"user_{secrets.token_hex(4)}"
    postgres.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'")
    for _ in range(10):
        with pytest.raises(UserError, match="permission denied"):
            open_storage(postgres.url(user))
    count = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{user}'"
    deadline = time.monotonic() + 10
    while postgres.execute(count) and time.monotonic() < deadline:  # a server notices a closed connection a little later
        time.sleep(0.1)
    assert postgres.execute(count) == 0


@pytest.mark.long
def test_row_25_a_failover_to_a_read_only_server_is_waited_for(postgres: Server) -> None:
    """It ended in a traceback."""
    url = postgres.new_storage()
    user, waits = make_url(url).username, list[str]()
    study = optuna.create_study(storage=open_storage(url, patience=PATIENCE, grace_seconds=60), study_name="s")
    storage_of(study).on_wait = waits.append
    trial = begin(study, "w")
    assert trial is not None
    disconnect = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{user}'"

    def promote() -> None:
        postgres.execute(f"ALTER ROLE {user} RESET default_transaction_read_only")

    postgres.execute(f"ALTER ROLE {user} SET default_transaction_read_only = on")
    postgres.execute(disconnect)
    timer = threading.Timer(3.0, promote)
    timer.start()
    trial.report(0.25, 1)  # queued: training goes on meanwhile
    study.tell(trial, 0.5)
    timer.join()
    (stored,) = study.get_trials()
    assert (stored.value, stored.intermediate_values) == (0.5, {1: 0.25})
    assert any("read-only" in reason for reason in waits)
    record({25: 1}, results([stored]))


def test_row_25_a_database_that_was_dropped_ends_a_run_at_once(postgres: Server, tmp_path: Path) -> None:
    """It was waited for, and then said that the same command goes on."""
    name = f"dropped_{secrets.token_hex(4)}"
    postgres.execute(f"CREATE DATABASE {name}")
    url = postgres.url().replace("/postgres", f"/{name}")
    study = optuna.create_study(storage=open_storage(url, patience=PATIENCE, grace_seconds=60), study_name="s")
    trial = begin(study, "w")
    assert trial is not None
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")
    started = time.monotonic()
    with pytest.raises(StudyGone, match="the database was dropped"):
        study.tell(trial, 0.5)
    assert time.monotonic() - started < PATIENCE / 4
    record({25: 1}, Results(0, 0))


def test_a_run_on_a_server_is_adopted_by_another_there(postgres: Server, tmp_path: Path, pretence: Pretence) -> None:
    url, changes = postgres.url(), {"search": {"trials": 2, "sampler": "random"}}
    first = Bench(replace(small_run(tmp_path / "first", **changes), name="first", storage_url=url), pretence)
    first.train_candidates()
    wider = small_run(tmp_path / "second", search={"adopt": str(tmp_path / "first")}, budget={"params": 9_000})
    with pytest.raises(UserError, match="password is not kept"):
        open_sources(wider.config, wider.folder, wider.storage_url)
    second = Bench(replace(wider, name="second", storage_url=url), pretence)
    adopt_trials(second.run, second.studies, sources_to_adopt(second.run), digits())
    assert [record.origin for record in second.records] == ["trial 0 of first", "trial 1 of first"]
    assert second.one_trial().number == 2
