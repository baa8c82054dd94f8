"""The queue of trials under concurrent workers, on SQLite and, if installed, PostgreSQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import text

from search.runner.trial import has_room
from search.storage import queue as queues
from search.storage.database import open_storage, storage_of
from search.storage.queue import begin, queue
from search.storage.recovery import drop_queued, recover
from tests.fault_table import record, results
from tests.support.queues import GRACE, begun, grow_old, open_study, outcomes, url

__all__ = ["url"]


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


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


def test_trials_queued_by_the_user_have_each_an_index_of_their_own(url: str) -> None:
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
