"""Trials read as plain rows, against those that Optuna builds; bulk-written rows, against Optuna's own."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.storage import rows
from search.storage.claims import claims_of
from search.storage.database import LOCK_TIMEOUT_SECONDS, open_storage, storage_of
from search.storage.urls import sqlite_url
from search.study.records import outline, records
from tests.support.stored import store

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@pytest.fixture(params=["sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], optuna.Study]:
    """Opens the study, each time as another process would."""
    sqlite = request.param == "sqlite"
    url = sqlite_url(tmp_path / "run") if sqlite else request.getfixturevalue("postgres").new_storage()

    def study() -> optuna.Study:
        return optuna.create_study(storage=open_storage(url), study_name="s", direction="maximize", load_if_exists=True)

    return study


def finished(number: int) -> FrozenTrial:
    """A trial with something of all that can be stored, the rarer the higher the number."""
    state = FINISHED[number % 3]
    trial = create_trial(
        state=state,
        value=[0.5, math.inf, -math.inf][number // 3 % 3] if state == TrialState.COMPLETE else None,
        params={"order": "b", "width": 8 * number, "rate": 0.1},
        distributions={
            "order": CategoricalDistribution(["a", "b", None]),
            "width": IntDistribution(0, 80_000, step=8),
            "rate": FloatDistribution(1e-3, 1.0, log=True),
        },
        user_attrs={"key": f"{number:016x}", "index": number, "refused": {"over budget": number}, "reason": "ä"},
        system_attrs={"constraints:params": -1.0},
        intermediate_values={1: 0.1, 3: math.nan, 2: math.inf} if number % 2 else {},
    )
    trial.datetime_start, trial.datetime_complete = datetime(2025, 7, 1, 12, number), datetime(2025, 12, 1, 12, number)
    return trial


def read(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False)


def by_optuna(study: optuna.Study) -> list[FrozenTrial]:
    """As Optuna's own storage reads them."""
    return storage_of(study).database.get_all_trials(study._study_id)


def same(ours: list[FrozenTrial], theirs: list[FrozenTrial]) -> bool:
    """True if they are the same to the last attribute, the order of the parameters too; nan equals itself."""
    return [repr(_in_order(one)) for one in ours] == [repr(_in_order(one)) for one in theirs]


def _in_order(trial: FrozenTrial) -> list[object]:
    named = ("_user_attrs", "_system_attrs", "intermediate_values")
    return [sorted(value.items()) if name in named else value for name, value in sorted(vars(trial).items())]


@pytest.mark.parametrize("listed", [2, 500])
def test_trials_are_those_that_optuna_reads(
    opened: Callable[[], optuna.Study], listed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "LISTED", listed)
    study = opened()
    optuna.create_study(storage=study._storage, study_name="other").add_trials([finished(0)] * 2)
    assert read(study) == []
    study.add_trials([finished(number) for number in range(6)])
    study.enqueue_trial({"width": 8})
    running = [study.ask() for _ in range(4)]
    study.add_trials([finished(number) for number in range(6, 9)])
    study.enqueue_trial({"width": 16})
    running[0].suggest_int("width", 0, 80, step=8)
    assert same(read(study), by_optuna(study))
    for trial in running[1:]:  # which are older than the youngest finished one
        trial.report(0.5, 1)
        trial.set_user_attr("reason", "told")
        study.tell(trial, 0.25)
    assert same(read(study), by_optuna(study))
    states = (TrialState.RUNNING, TrialState.WAITING)
    few = study.get_trials(deepcopy=False, states=states)
    assert {one.state for one in few} == set(states)
    assert same(storage_of(study).database.get_all_trials(study._study_id, states=states), few)


def test_an_outline_is_the_records_without_their_curves(opened: Callable[[], optuna.Study]) -> None:
    study = opened()
    study.add_trials([finished(number) for number in range(9)])
    study.enqueue_trial({"width": 8})
    study.ask().report(0.25, 1)
    other = optuna.create_study(storage=study._storage, study_name="other")
    other.add_trial(finished(1))
    found = records(study)
    assert outline(study) == [replace(one, curve=()) for one in found]
    assert {one.epochs for one in found} == {0, 1, 3} and any(one.curve for one in found)


def test_trials_are_read_while_another_process_writes(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage(sqlite_url(tmp_path / "run")), study_name="s")
    study.add_trial(finished(2))
    other = sqlite3.connect(tmp_path / "run" / "study.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    assert len(read(study)) == len(outline(study)) == 1
    assert time.monotonic() - began < LOCK_TIMEOUT_SECONDS / 2  # it waited for no lock
    other.close()


def test_a_deleted_study_raises_optunas_error(opened: Callable[[], optuna.Study]) -> None:
    study = opened()
    with pytest.raises(KeyError, match="Record does not exist"):
        storage_of(study).get_all_trials(study._study_id + 7)


def test_stored_trials_are_those_that_optuna_would_have_stored(opened: Callable[[], optuna.Study]) -> None:
    study, trials = opened(), [finished(number) for number in range(9)]
    before = study.ask()
    store(study, trials)
    own = optuna.create_study(storage=study._storage, study_name="own", direction="maximize")
    own.ask()
    own.add_trials(trials)
    found, wanted = by_optuna(study)[1:], by_optuna(own)[1:]
    assert [one._trial_id for one in found] == list(range(before._trial_id + 1, before._trial_id + 10))
    for one in (*found, *wanted):
        one._trial_id = 0
    assert same(found, wanted)
    assert claims_of(study).held() == {f"{number:016x}": number for number in range(9)}
    assert opened().ask().number == 10  # and it goes on
