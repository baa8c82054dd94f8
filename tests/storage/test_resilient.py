"""A storage that waits: for a database that is away, on what was told meanwhile, and not for what will not pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import IntegrityError, OperationalError

from search.storage import resilient
from search.storage.database import open_storage, storage_of
from search.storage.failures import StorageUnavailable, cause_of, is_disk_full, is_temporary
from search.storage.resilient import ResilientStorage
from search.storage.urls import sqlite_url


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    monkeypatch.setattr(resilient, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(resilient, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(resilient, "REPORT_AFTER", 0.0)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(storage=open_storage(sqlite_url(tmp_path), patience=5.0), study_name="s")


def backend(study: optuna.Study) -> ResilientStorage:
    return storage_of(study)


def refused(told: str = "connection refused") -> StorageInternalError:
    """As Optuna raises it when a server cannot be reached."""
    error = StorageInternalError("an exception is raised during the commit")
    error.__cause__ = OperationalError("SELECT 1", {}, ConnectionError(told))
    return error


def raised(error: Exception) -> Any:
    raise error


def away(monkeypatch: pytest.MonkeyPatch, name: str, times: int, error: Callable[[], Exception] = refused) -> list[str]:
    """A method of Optuna's storage that fails so often, before it does anything; every call to it."""
    real, calls = getattr(RDBStorage, name), list[str]()

    def call(*words: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) <= times:
            raise error()
        return real(*words, **options)

    monkeypatch.setattr(RDBStorage, name, call)
    return calls


def test_a_write_is_retried_until_the_database_answers(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    backend(study).on_wait = waits.append
    trial = study.ask()
    calls = away(monkeypatch, "set_trial_state_values", 3)
    study.tell(trial, 0.5)
    assert len(calls) == 4
    assert [one.value for one in study.get_trials()] == [0.5]
    assert waits == ["connection refused"]  # told once for the call


def test_a_result_whose_answer_was_lost_is_not_stored_twice(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was stored, and then the connection broke: the second try finds it there."""
    trial, real, calls = study.ask(), RDBStorage.set_trial_state_values, []

    def store_and_break(*words: Any, **options: Any) -> bool:
        calls.append(real(*words, **options))
        raise refused()

    with monkeypatch.context() as patch:
        patch.setattr(RDBStorage, "set_trial_state_values", store_and_break)
        study.tell(trial, 0.5)
    assert calls == [True]
    assert [(one.state, one.value) for one in study.get_trials()] == [(TrialState.COMPLETE, 0.5)]


def test_another_result_of_a_trial_that_has_ended_is_rejected(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the first try broke off: somebody else has ended it."""
    trial = study.ask()
    study.tell(trial, 0.5)
    away(monkeypatch, "set_trial_state_values", 1)
    with pytest.raises(UpdateFinishedTrialError):
        study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.7])
    assert [one.value for one in study.get_trials()] == [0.5]


def test_epochs_are_put_aside_and_stored_before_anything_else_is_asked(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = study.ask()
    with monkeypatch.context() as patch:
        calls = away(patch, "set_trial_intermediate_value", 99)
        for epoch in range(3):
            trial.report(0.1 * epoch, epoch)  # returns at once: the next epoch is trained
        assert len(calls) == 3
    assert study.get_trials()[0].intermediate_values == {0: 0.0, 1: 0.1, 2: 0.2}


def test_epochs_of_a_requeued_trial_are_rejected_and_dropped(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = study.ask()
    with monkeypatch.context() as patch:
        away(patch, "set_trial_intermediate_value", 99)
        trial.report(0.5, 1)
    RDBStorage.set_trial_state_values(backend(study).database, trial._trial_id, TrialState.FAIL)
    with pytest.raises(UpdateFinishedTrialError):
        trial.report(0.6, 2)
    study.tell(study.ask(), 0.5)  # the next trial is not troubled by it
    assert study.get_trials()[0].intermediate_values == {}


def test_patience_ends(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    backend(study).patience = 0.05
    away(monkeypatch, "set_trial_user_attr", 10**6)
    with pytest.raises(StorageUnavailable, match=r"the database was unreachable for 0 s \(connection refused\)"):
        study.ask().set_user_attr("a", 1)
    assert not issubclass(StorageUnavailable, Exception)  # nobody takes it for the failure of a trial


def test_an_interactive_command_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(storage=open_storage(sqlite_url(tmp_path)), study_name="s")
    calls = away(monkeypatch, "set_trial_user_attr", 1)
    with pytest.raises(StorageInternalError):
        study.ask().set_user_attr("a", 1)
    assert len(calls) == 1


def test_a_permanent_error_is_not_retried(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = away(monkeypatch, "set_trial_user_attr", 9, lambda: IntegrityError("INSERT", {}, ValueError("twice")))
    with pytest.raises(IntegrityError):
        study.ask().set_user_attr("a", 1)
    assert len(calls) == 1


def test_a_full_disk_is_not_waited_for_either(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    away(monkeypatch, "set_trial_user_attr", 9, lambda: refused("database or disk is full"))
    with pytest.raises(StorageUnavailable, match=r"cannot store more \(database or disk is full\); make space"):
        study.ask().set_user_attr("a", 1)


def test_a_heart_continues_beating_when_a_beat_is_lost(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread must not end, nor wait: the end of the trial waits for it."""
    trial, storage = study.ask(), backend(study)
    with monkeypatch.context() as patch:
        patch.setattr(storage.clock, "heartbeat_time", lambda session: raised(refused()))
        storage.record_heartbeat(trial._trial_id)
    assert beats(storage) == 0
    storage.record_heartbeat(trial._trial_id)
    assert beats(storage) == 1


def beats(storage: ResilientStorage) -> int:
    with storage.engine.connect() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM trial_heartbeats").scalar_one()


@pytest.mark.parametrize(
    ("told", "expected"),
    [("database is locked", True), ("no such table: trials", False), ("database or disk is full", False)],
)
def test_of_what_sqlite_says_only_a_lock_passes(told: str, expected: bool) -> None:
    import sqlite3

    error = OperationalError("SELECT 1", {}, sqlite3.OperationalError(told))
    assert is_temporary(error) == expected
    assert cause_of(error) == told
    assert is_disk_full(error) == ("full" in told)
