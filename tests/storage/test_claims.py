"""Claims, on real SQLite: a key is one trial's, a trial has one key, and four processes never share one."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event

from search.storage.claims import _CLAIMS, Claims, claims_of
from search.storage.database import open_storage
from search.storage.resilient import ResilientStorage
from search.storage.urls import sqlite_url
from tests.support.snippet import snippet

ROOT = Path(__file__).parents[2]


def open_study(folder: Path, name: str = "s") -> optuna.Study:
    storage = open_storage(sqlite_url(folder))
    return optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return open_study(tmp_path)


@pytest.fixture
def claims(study: optuna.Study) -> Claims:
    return claims_of(study)


# --- one key, one trial ----------------------------------------------------------------------------------------------


def test_nothing_is_held_at_first(claims: Claims) -> None:
    assert claims.held() == {}


def test_a_key_is_claimed_by_one_trial_alone(claims: Claims) -> None:
    assert claims.claim("a", 0)
    assert not claims.claim("a", 1)
    assert claims.held() == {"a": 0}


def test_a_retry_gets_its_own_claim_back(claims: Claims) -> None:
    assert claims.claim("a", 0)
    assert claims.claim("a", 0)
    assert claims.held() == {"a": 0}


def test_a_trial_that_claims_another_key_lets_go_of_the_first(claims: Claims) -> None:
    assert claims.claim("a", 0)
    assert claims.claim("b", 1)
    assert claims.claim("c", 0)
    assert claims.held() == {"b": 1, "c": 0}
    assert claims.claim("a", 2)


def test_a_rejected_claim_changes_nothing(claims: Claims) -> None:
    claims.claim("a", 0)
    claims.claim("b", 1)
    assert not claims.claim("a", 1)
    assert claims.held() == {"a": 0, "b": 1}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Claims:
    return claims_of(open_study(tmp_path_factory.mktemp("shared")))


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3)), max_size=12))
@settings(max_examples=25)
def test_claims_pair_keys_and_trials(shared: Claims, asked: list[tuple[str, int]]) -> None:
    with shared._engine.begin() as connection:
        connection.execute(delete(_CLAIMS))
    expected: dict[str, int] = {}
    for key, index in asked:
        is_free = expected.get(key, index) == index
        assert shared.claim(key, index) == is_free
        if is_free:
            expected = {own: holder for own, holder in expected.items() if holder != index} | {key: index}
    assert shared.held() == expected


# --- which claims meet -----------------------------------------------------------------------------------------------


def test_claims_outlive_the_process(claims: Claims, tmp_path: Path) -> None:
    claims.claim("a", 3)
    again = claims_of(open_study(tmp_path))
    assert again.held() == {"a": 3}
    assert not again.claim("a", 4)


def test_two_studies_of_one_database_do_not_meet(claims: Claims, tmp_path: Path) -> None:
    other = claims_of(open_study(tmp_path, "s.control"))
    assert claims.claim("a", 0)
    assert other.claim("a", 5)
    assert other.claim("b", 0)
    assert (claims.held(), other.held()) == ({"a": 0}, {"a": 5, "b": 0})


def test_the_table_stands_beside_those_of_optuna(study: optuna.Study, claims: Claims, tmp_path: Path) -> None:
    claims.claim("a", 0)
    study.tell(study.ask(), 0.5)
    assert open_study(tmp_path).best_value == 0.5
    optuna.delete_study(study_name="s", storage=open_storage(sqlite_url(tmp_path)))


# --- two at once -----------------------------------------------------------------------------------------------------


def test_a_key_that_was_free_when_looked_up_and_is_not_when_written_is_rejected(tmp_path: Path) -> None:
    """As on a server, where two may read before either writes; our own SQLite lets one transaction in at a time."""
    storage = ResilientStorage(optuna.storages.RDBStorage(sqlite_url(tmp_path)))
    claims = claims_of(optuna.create_study(storage=storage))
    claims.claim("b", 1)
    others: list[str] = []

    @event.listens_for(storage.engine, "before_cursor_execute")
    def meanwhile(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not statement.startswith("SELECT") and not others:
            others.append("a")
            with sqlite3.connect(tmp_path / "study.db") as rival:
                rival.execute(f"INSERT INTO {_CLAIMS.name} VALUES (?, 'a', 0)", [claims._study])

    assert not claims.claim("a", 1)
    assert others == ["a"]
    assert claims.held() == {"a": 0, "b": 1}


CLAIM = """
import json, sys, time
import optuna
from search.storage.claims import claims_of
from search.storage.database import open_storage
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.load_study(storage=open_storage(sys.argv[1]), study_name="s")
print("ready", flush=True)
first, start = json.loads(sys.stdin.readline())
claims = claims_of(study)
claimed = []
for key in range(60):
    time.sleep(max(0, start + key / 50 - time.time()))
    if claims.claim(str(key), first + key):
        claimed.append(key)
print(json.dumps(claimed))
"""


def test_four_processes_never_hold_the_same_key(study: optuna.Study, tmp_path: Path) -> None:
    words = snippet(CLAIM, sqlite_url(tmp_path))
    workers = [subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n"
    start = time.time() + 0.5
    for number, worker in enumerate(workers):  # all at once: to make the table, and to claim each key
        assert worker.stdin
        worker.stdin.write(f"{json.dumps([100 * number, start])}\n")
        worker.stdin.flush()
    claimed = [json.loads(worker.communicate(timeout=120)[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0, 0]
    assert sorted(key for keys in claimed for key in keys) == list(range(60))
    assert sum(bool(keys) for keys in claimed) > 1  # or nothing was at stake
    assert claims_of(study).held() == {str(key): 100 * number + key for number, keys in enumerate(claimed) for key in keys}
