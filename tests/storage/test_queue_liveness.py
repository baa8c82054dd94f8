"""Trials of the queue that are alive, and those that are lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy import text

from search.errors import UserError
from search.storage import locks, recovery
from search.storage.database import storage_of
from search.storage.queue import begin, next_index
from search.storage.recovery import close_trial, recover, requeue
from search.storage.urls import sqlite_url
from tests.fault_table import record, results
from tests.support.queues import GRACE, begun, grow_old, open_study, outcomes, url

__all__ = ["url"]


# --- who is alive ----------------------------------------------------------------------------------------------------


def test_a_trial_whose_heart_beats_is_left_alone(url: str, tmp_path: Path) -> None:
    study = open_study(url)
    trial = begun(study)
    grow_old(study, GRACE - 10)
    assert recover(study, tmp_path) == []
    grow_old(study)
    storage_of(study).record_heartbeat(trial._trial_id)
    assert recover(study, tmp_path) == []
    assert outcomes(study) == ["RUNNING"]


def test_a_heart_that_beats_again_before_its_trial_is_closed_keeps_it(url: str, tmp_path: Path) -> None:
    """Between the look at all heartbeats and the transaction that closes one."""
    study = open_study(url)
    trial = begun(study)
    stored = study.get_trials()[trial.number]
    grow_old(study)
    storage_of(study).record_heartbeat(trial._trial_id)
    assert not close_trial(study, stored, "lost", "nothing was heard", if_stale=True)
    assert outcomes(study) == ["RUNNING"]


def test_a_trial_that_never_had_a_heartbeat_grows_old_too(url: str, tmp_path: Path) -> None:
    """As Optuna leaves it where its worker dies between claim and first heartbeat: it would run for ever."""
    study = open_study(url)
    trial = begun(study)
    with storage_of(study).engine.begin() as connection:
        connection.execute(text("DELETE FROM trial_heartbeats"))
    assert recover(study, tmp_path) == []
    grow_old(study)
    assert recover(study, tmp_path) == [trial.number]
    assert outcomes(study) == ["interrupted", "WAITING"]


def test_row_5_results_of_a_requeued_trial_are_rejected(url: str, tmp_path: Path) -> None:
    study, other = open_study(url), open_study(url)
    late = begun(study)
    grow_old(study)
    assert recover(other, tmp_path) == [late.number]
    for tell in (
        lambda: late.report(0.5, 1),
        lambda: late.set_user_attr("outcome", "trained"),
        lambda: study._storage.set_trial_state_values(late._trial_id, TrialState.COMPLETE, [0.5]),
    ):
        with pytest.raises(UpdateFinishedTrialError):
            tell()
    assert outcomes(other) == ["interrupted", "WAITING"]
    again = begun(other, "v")
    assert again.user_attrs["retry_of"] == late.number
    other.tell(again, 0.5)
    record({5: 1}, results(other.get_trials()))


def test_trials_of_dead_workers_of_this_machine_are_requeued_at_once(url: str, tmp_path: Path) -> None:
    """The lock is let go of with its last holder; others of the folder, of other folders and machines are left alone."""
    study = open_study(url)
    with locks.supervisor_lock(tmp_path) as name, locks.worker_lock(tmp_path, name) as (alive, _):
        with locks.worker_lock(tmp_path, name) as (dead, _):
            for worker in (alive, dead, "another-machine/12.34", f"{dead.split('/')[0]}/5.6"):
                begun(study, worker)
            assert recover(study, tmp_path) == []
        assert recover(study, tmp_path / "other") == []
        assert recover(study, tmp_path) == [1]
    assert outcomes(study) == ["RUNNING", "interrupted", "RUNNING", "RUNNING", "WAITING"]


def test_a_copied_run_folder_takes_no_living_workers_trial(url: str, tmp_path: Path) -> None:
    """Its copies of the locks are held by no process, and the study on the server is the same."""
    study, folder, copied = open_study(url), tmp_path / "run", tmp_path / "copied"
    with locks.supervisor_lock(folder) as name:
        with locks.worker_lock(folder, name) as (worker, _):
            begun(study, worker)
            shutil.copytree(folder / "workers", copied / "workers")
            assert not locks.has_ended(copied, worker)
            assert recover(study, copied) == []
            folder.rename(moved := tmp_path / "moved")  # which is no copy
            assert recover(study, moved) == []
        assert recover(study, copied) == []
        assert recover(study, moved) == [0]
        moved.rename(folder)


def test_unheld_locks_are_removed(tmp_path: Path) -> None:
    with locks.supervisor_lock(tmp_path) as name, locks.worker_lock(tmp_path, name):
        with locks.worker_lock(tmp_path, name):
            pass
        assert len(list((tmp_path / "workers").glob("*/*"))) == 3
        locks.remove_dead_locks(tmp_path)
        assert len(list((tmp_path / "workers").glob("*/*"))) == 2
    locks.remove_dead_locks(tmp_path)
    assert list((tmp_path / "workers").glob("*/*")) == []


def test_the_locks_of_another_machine_are_left_alone(tmp_path: Path) -> None:
    """In a shared run folder they may look free from this machine."""
    other = tmp_path / "workers" / "another-machine" / "12.34"
    other.parent.mkdir(parents=True)
    other.touch()
    locks.remove_dead_locks(tmp_path)
    locks.wait_for_orphans(tmp_path)
    assert other.exists()
    assert not locks.has_ended(tmp_path, "another-machine/12.34")


@pytest.mark.parametrize("name", [None, 7, "", "/", "../../study.db", "a/../../b", "/etc/passwd"])
def test_a_name_that_somebody_else_wrote_is_no_path(name: object, tmp_path: Path) -> None:
    assert not locks.has_ended(tmp_path, name)
    assert not locks.has_ended(tmp_path, f"{locks._system()}/{name}")


def test_an_empty_folder_is_removed_unless_a_worker_uses_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def is_left(*files: str) -> bool:
        for file in ("worker.log", *files):
            (folder / file).write_text("x")
        locks.remove_if_unused(folder, "worker.log")
        return not folder.exists()

    with locks.supervisor_lock(folder):
        assert not is_left()  # about to be at work
        with locks.folder_lock(folder, alone=False):
            assert not is_left()
    assert not is_left("config.json")
    (folder / "config.json").unlink()
    with locks.supervisor_lock(folder):
        pass
    assert is_left()
    locks.remove_if_unused(folder, "worker.log")


def test_finals_and_searches_of_a_folder_keep_out_of_each_others_way(tmp_path: Path) -> None:
    for first, second, told in ((False, True, "this study is running already"), (True, False, "finals of this study are")):
        with (
            locks.folder_lock(tmp_path, alone=first),
            pytest.raises(UserError, match=told),
            locks.folder_lock(tmp_path, alone=second),
        ):
            pass
    with locks.folder_lock(tmp_path, alone=False), locks.folder_lock(tmp_path, alone=False):
        pass


@pytest.mark.parametrize("progress", [False, True])
def test_a_trial_that_takes_its_machine_with_it_each_time_is_given_up(progress: bool, tmp_path: Path) -> None:
    """If it reaches another epoch each time, the machines are at fault."""
    study = open_study(sqlite_url(tmp_path))
    for time in range(2 * recovery.MOST_LOSSES):
        trial = begin(study, "w", new=lambda trials: None if trials else {})
        if trial is None:
            break
        for epoch in range(time + 1 if progress else 1):
            trial.report(0.5, epoch)
        grow_old(study)
        recover(study, tmp_path)
    found = outcomes(study)
    if progress:
        assert found == ["interrupted"] * 2 * recovery.MOST_LOSSES + ["WAITING"]
    else:
        assert found == ["interrupted"] * recovery.MOST_LOSSES + ["failed"]


def test_only_the_trials_of_one_worker_are_requeued(url: str) -> None:
    study = open_study(url)
    for name in "ab":
        begun(study, name)
    assert requeue(study, worker="b", outcome="failed", reason="it was killed") == [1]
    assert outcomes(study) == ["RUNNING", "interrupted", "WAITING"]
    assert next_index(study.get_trials()) == 2


def test_a_result_that_was_stored_late_counts_for_nothing(tmp_path: Path) -> None:
    """A worker writes the outcome at the moment in which its trial is closed."""
    from search.study.records import records

    study = open_study(sqlite_url(tmp_path))
    trial = begun(study)
    requeue(study)
    with storage_of(study).engine.begin() as connection:
        change = "UPDATE trial_user_attributes SET value_json = '\"trained\"' WHERE key = 'outcome' AND trial_id = :trial"
        connection.execute(text(change), {"trial": trial._trial_id})
    assert [record.outcome for record in records(open_study(sqlite_url(tmp_path)))] == ["interrupted"]
