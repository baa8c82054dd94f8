"""Writes to one trial at one moment: all in one transaction, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy import event

from search.storage import resilient
from search.storage.database import buffered_writes, open_storage, storage_of
from search.storage.resilient import ResilientStorage
from search.storage.urls import sqlite_url
from tests.storage.test_resilient import refused


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    found: str = (
        sqlite_url(tmp_path / "run") if request.param == "sqlite" else request.getfixturevalue("postgres").new_storage()
    )
    return found


def opened(url: str) -> optuna.Study:
    storage = open_storage(url, patience=5.0)
    study = optuna.create_study(
        storage=storage, study_name="s", load_if_exists=True, sampler=optuna.samplers.RandomSampler()
    )
    if not study.get_trials():
        propose(study.ask())  # the first asks what a parameter was before
    return study


def propose(trial: optuna.Trial) -> None:
    for number in range(5):
        trial.suggest_int(f"width_{number}", 8, 64, step=8)
    trial.set_constraint("params", -5.0)
    trial.set_user_attr("params", 95)
    trial.set_user_attr("macs", 1000)


def everything(study: optuna.Study, trial: optuna.Trial) -> list[Any]:
    """A trial as another process reads it."""
    found = storage_of(study).get_trial(trial._trial_id)
    return [found.params, found.distributions, found.user_attrs, found.constraints]


def commits(study: optuna.Study) -> list[Any]:
    """The transactions that write, as they end."""
    found, storage = list[Any](), storage_of(study)
    event.listen(storage.engine, "commit", lambda connection: None if storage.is_reading else found.append(connection))
    return found


def test_a_proposal_is_one_transaction(url: str) -> None:
    study = opened(url)
    alone, held = study.ask(), study.ask()
    apart = commits(study)
    propose(alone)
    assert len(apart) == 8
    apart.clear()
    with buffered_writes(held):
        propose(held)
        assert everything(study, held) == [{}, {}, {}, {}]
    assert len(apart) == 1
    assert everything(study, held) == [held.params, held.distributions, {"params": 95, "macs": 1000}, {"params": -5.0}]
    assert len(held.params) == 5
    with buffered_writes(held):
        held.set_user_attr("macs", 2000)  # anew
        with buffered_writes(held):
            held.set_user_attr("epochs", 4)
    assert everything(study, held)[2] == {"params": 95, "macs": 2000, "epochs": 4}
    assert len(apart) == 2


def test_writes_to_a_trial_that_another_worker_ended_are_rejected_as_a_whole(url: str) -> None:
    study = opened(url)
    trial = study.ask()
    opened(url).tell(trial.number, state=TrialState.FAIL)
    with pytest.raises(UpdateFinishedTrialError), buffered_writes(trial):
        propose(trial)
    assert everything(study, trial) == [{}, {}, {}, {}]


def test_a_write_is_repeated_where_the_answer_was_lost(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resilient, "FIRST_PAUSE", 0.001)
    study = opened(url)
    trial, real, calls = study.ask(), ResilientStorage._store, []

    def lost(*words: Any) -> None:
        real(*words)
        calls.append(1)
        if len(calls) == 1:
            raise refused()

    monkeypatch.setattr(ResilientStorage, "_store", lost)
    with buffered_writes(trial):
        propose(trial)
    assert len(calls) == 2
    assert everything(study, trial) == [trial.params, trial.distributions, {"params": 95, "macs": 1000}, {"params": -5.0}]


def test_writes_are_committed_where_the_block_ends_with_an_error(url: str) -> None:
    study = opened(url)
    trial = study.ask()
    with pytest.raises(optuna.TrialPruned), buffered_writes(trial):
        trial.set_user_attr("reason", "nothing new")
        raise optuna.TrialPruned
    assert everything(study, trial)[2] == {"reason": "nothing new"}


def test_another_range_of_a_parameter_is_rejected_as_by_optuna(url: str) -> None:
    study = opened(url)
    trial = study.ask()
    with buffered_writes(trial), pytest.raises(ValueError, match="distribution"):
        trial.suggest_categorical("width_1", [8, 16])
    assert everything(study, trial)[0] == {}
