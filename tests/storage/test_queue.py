"""The queue of trials under concurrent workers, on SQLite and, if installed, PostgreSQL."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy import text

from search.errors import UserError
from search.runner.trial import has_room
from search.storage import locks, recovery
from search.storage import queue as queues
from search.storage.database import open_storage, storage_of
from search.storage.queue import begin, next_index, queue
from search.storage.recovery import close_trial, drop_queued, recover, requeue
from search.storage.urls import sqlite_url
from tests.fault_table import record, results

GRACE = 120.0


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    return sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("postgres").new_storage()


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


def open_study(url: str) -> optuna.Study:
    storage = open_storage(url, grace_seconds=GRACE)
    return optuna.create_study(storage=storage, study_name="s", direction="maximize", load_if_exists=True)


def at_once(study: optuna.Study, works: Sequence[Callable[[optuna.Study], Any]]) -> list[Any]:
    """Results of functions begun at the same moment, each with its own connections and cache."""
    ready = Barrier(len(works))

    def run(work: Callable[[optuna.Study], Any]) -> Any:
        own = optuna.load_study(storage=open_storage(url_of(study), grace_seconds=GRACE), study_name="s")
        ready.wait()
        return work(own)

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def url_of(study: optuna.Study) -> str:
    return storage_of(study).engine.url.render_as_string(hide_password=False)


def begun(study: optuna.Study, worker: str = "w", **how: Any) -> optuna.Trial:
    trial = begin(study, worker, **how)
    assert trial is not None
    return trial


def grow_old(study: optuna.Study, seconds: float = GRACE + 5) -> None:
    """As if so long had passed since every heartbeat."""
    engine = storage_of(study).engine
    then = f"datetime('now', '-{seconds} seconds')" if engine.name == "sqlite" else f"now() - interval '{seconds} seconds'"
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE trial_heartbeats SET heartbeat = {then}"))


def outcomes(study: optuna.Study) -> list[str]:
    return [trial.user_attrs.get("outcome", trial.state.name) for trial in study.get_trials()]


# --- one at a time ---------------------------------------------------------------------------------------------------


def test_a_trial_begun_carries_all_that_is_needed_to_find_it_again(url: str) -> None:
    """From its first moment: its index, its worker, a heartbeat."""
    study = open_study(url)
    trial = begun(study, "anna", new=lambda trials: {"reference": "base"})
    (stored,) = study.get_trials()
    assert (stored.state, stored.number) == (TrialState.RUNNING, trial.number)
    assert stored.user_attrs == {"index": 0, "attempt": 1, "worker": "anna", "reference": "base"}
    with storage_of(study).engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM trial_heartbeats")).scalar() == 1


@pytest.mark.parametrize("step", ["search.storage.queue.store_attributes", "search.storage.queue.insert_trial"])
def test_a_crash_while_a_trial_is_begun_leaves_nothing(step: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study = open_study(url)
    with monkeypatch.context() as patch:
        patch.setattr(step, lambda *words, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            begin(study, "w")
    assert study.get_trials() == []


def test_a_trial_begun_when_the_answer_was_lost_is_not_begun_again(url: str) -> None:
    study, connection_lost = open_study(url), open_study(url)
    first = begun(connection_lost, "anna")
    assert begun(study, "anna").number == first.number
    assert begun(study, "bert").number == first.number + 1


def test_nothing_is_begun_without_room_or_without_anything_new(url: str) -> None:
    study = open_study(url)
    study.enqueue_trial({}, user_attrs={"index": 4})
    assert begin(study, "w", has_room=lambda trials, others: False) is None
    assert begin(study, "w", choose=lambda trial: False, new=lambda trials: None) is None
    assert begun(study, "w", new=lambda trials: None).user_attrs["index"] == 4
    assert begin(study, "v", new=lambda trials: None) is None


def test_a_trial_is_queued_with_all_its_attributes_or_not_at_all(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study = open_study(url)
    three = [({"x": number}, {"index": number}) for number in range(3)]
    real, calls = queues.insert_waiting, []

    def die_at_the_last(*words: Any) -> None:
        calls.append(words)
        real(*words) if len(calls) < 3 else 1 / 0

    with monkeypatch.context() as patch:
        patch.setattr(queues, "insert_waiting", die_at_the_last)
        with pytest.raises(ZeroDivisionError):
            queue(study, lambda trials: three)
    assert study.get_trials() == []
    queue(study, lambda trials: three if not trials else [])
    queue(study, lambda trials: three if not trials else [])
    assert [trial.system_attrs["fixed_params"] for trial in study.get_trials()] == [{"x": 0}, {"x": 1}, {"x": 2}]


def test_a_trial_that_was_begun_is_not_dropped(url: str) -> None:
    study = open_study(url)
    for _ in range(2):
        study.enqueue_trial({})
    first, second = study.get_trials()
    begun(study)
    for trial in (first, second):
        drop_queued(study, trial)
    assert outcomes(study) == ["RUNNING", "interrupted"]


# --- many at once ----------------------------------------------------------------------------------------------------


def test_each_index_is_one_trials(url: str) -> None:
    def work(name: str, study: optuna.Study) -> list[int]:
        found = []
        for _ in range(4):
            trial = begun(study, name)
            found.append(trial.user_attrs["index"])
            study.tell(trial, 0.5)
        return found

    taken = at_once(open_study(url), [partial(work, str(name)) for name in range(4)])
    assert sorted(index for one in taken for index in one) == list(range(16))


def test_row_6_a_queued_trial_is_begun_once(url: str) -> None:
    """24 of them, by eight."""

    def work(name: str, study: optuna.Study) -> list[int]:
        found = []
        while trial := begin(study, name, new=lambda trials: None):
            found.append(trial.number)
            study.tell(trial, 0.5)
        return found

    study = open_study(url)
    queue(study, lambda trials: [({}, {"index": index}) for index in range(24)])
    taken = at_once(study, [partial(work, str(name)) for name in range(8)])
    assert sorted(number for one in taken for number in one) == list(range(24))
    record({6: 24}, results(study.get_trials()))


def test_trials_that_a_person_queued_have_each_an_index_of_their_own(url: str) -> None:
    """They get it when they are begun, and four begin at once."""
    study = open_study(url)
    for _ in range(8):
        study.enqueue_trial({})
    at_once(study, [lambda study, name=name: [begun(study, f"{name} {time}") for time in range(2)] for name in range(4)])  # type: ignore[misc]
    assert sorted(trial.user_attrs["index"] for trial in study.get_trials()) == list(range(8))


def test_row_17_eight_workers_that_are_asked_for_ten_train_ten(url: str) -> None:
    """Every third fails, and leaves its room to another."""

    def work(name: str, study: optuna.Study) -> int:
        trained, waits = 0, 0
        while waits < 200:
            trial = begin(study, name, has_room=lambda trials, others: has_room(trials, 10 - others))
            if trial is None:
                if sum(one.user_attrs.get("outcome") == "trained" for one in study.get_trials(deepcopy=False)) == 10:
                    return trained
                waits += 1
                continue
            if trial.number % 3 == 0:
                trial.set_user_attr("outcome", "diverged")
                study.tell(trial, state=TrialState.PRUNED)
            else:
                trial.set_user_attr("outcome", "trained")
                study.tell(trial, 0.5)
                trained += 1
        raise AssertionError("no end")

    study = open_study(url)
    assert sum(at_once(study, [partial(work, str(name)) for name in range(8)])) == 10
    assert Counter(outcomes(study))["trained"] == 10
    record({17: 10}, results(study.get_trials(), asked=10))


def test_row_7_four_workers_that_recover_the_same_dead_trials_queue_one_retry_each(url: str, tmp_path: Path) -> None:
    """And four that train what is queued then train each once."""

    def train(name: str, study: optuna.Study) -> None:
        while trial := begin(study, name, new=lambda trials: None):
            study.tell(trial, 0.5)

    study = open_study(url)
    for name in "abc":
        begun(study, name)
    grow_old(study)
    closed = at_once(study, [partial(recover, folder=tmp_path)] * 4)
    assert sorted(number for one in closed for number in one) == [0, 1, 2]
    assert outcomes(study) == ["interrupted"] * 3 + ["WAITING"] * 3
    assert sorted(trial.user_attrs["index"] for trial in study.get_trials()[3:]) == [0, 1, 2]
    at_once(study, [partial(train, str(name)) for name in range(4)])
    record({7: 3}, results(study.get_trials()))


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


def test_row_5_what_a_worker_tells_of_a_trial_that_was_taken_up_is_refused(url: str, tmp_path: Path) -> None:
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


def test_the_trials_of_the_dead_of_this_machine_are_taken_up_at_once(url: str, tmp_path: Path) -> None:
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


def test_locks_that_nobody_holds_are_forgotten(tmp_path: Path) -> None:
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


def test_a_folder_that_holds_nothing_is_left_only_when_nobody_is_at_work_in_it(tmp_path: Path) -> None:
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


def test_only_the_trials_of_one_worker_are_taken_up(url: str) -> None:
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
