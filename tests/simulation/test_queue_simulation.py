"""The queue of trials under simulated faults: its invariants hold, and bugs that are put back are noticed."""

from __future__ import annotations

import inspect
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial

from search.storage import adoption, queue, recovery
from search.storage.database import storage_of
from tests.simulation.scheduler import Fault
from tests.simulation.simulator import Result, Simulator, simulator

SEEDS = 5  # two CPU-seconds; the benchmark runs thousands
SEEDS_FOR_BUGS = 300  # at most, until a bug is noticed; those below are within 10


@pytest.fixture(scope="module")
def runs() -> Iterator[Simulator]:
    with simulator() as runs:
        yield runs


@pytest.mark.parametrize("seeds", [range(SEEDS), pytest.param(range(SEEDS, 3 * SEEDS), marks=pytest.mark.long)], ids=str)
def test_invariants_hold_under_faults(seeds: range, runs: Simulator) -> None:
    faults = Counter[Fault]()
    for seed in seeds:
        result = runs.run(seed)
        assert not result.violations, replay(result)
        faults += result.faults
    assert faults.keys() == set(Fault), "each kind of fault came"


def test_a_seed_replays(runs: Simulator) -> None:
    first = runs.run(3)
    with simulator() as others:
        assert others.run(3) == first


@pytest.mark.long
def test_room_that_is_not_checked_in_the_transaction_is_noticed(runs: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The room was seen when the trials were read, and other workers have begun trials since."""
    without_room = {"if not has_room(trials, others):": "if False:"}
    without_comparison = {"(not is_indexed and (others or total != len(trials)))": "False"}
    put_back(monkeypatch, queue, queue._begin, without_room | without_comparison)
    assert is_noticed(runs, "trials count, ")


@pytest.mark.long
def test_indices_of_trials_begun_meanwhile_are_noticed(runs: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers begin two queued trials without an index, and only their total was compared: a former bug of `begin`."""
    put_back(monkeypatch, queue, queue._begin, {"(others or total != len(trials))": "total != len(trials)"})
    assert is_noticed(runs, "belongs to 2 trials")


@pytest.mark.long
def test_a_trial_closed_without_comparing_its_state_is_noticed(runs: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial was RUNNING when it was read, and has ended since."""
    put_back(monkeypatch, recovery, recovery._close, {"row.state != TrialState.RUNNING or ": ""})
    assert is_noticed(runs, "finished trial")


@pytest.mark.long
def test_a_retry_in_a_second_transaction_is_noticed(runs: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Optuna's callback for stale trials queues it: a crash between the two loses the trial."""
    insert_waiting, close_trial = recovery.insert_waiting, recovery.close_trial
    retries = threading.local()

    def close_in_two(study: optuna.Study, trial: FrozenTrial, *arguments: Any, **options: Any) -> bool:
        retries.queued = list[Any]()
        is_closed = close_trial(study, trial, *arguments, **options)

        def insert() -> None:
            with queue.locked(study) as (_, session):
                insert_waiting(session, study, retries.queued[-1])

        if is_closed and retries.queued:
            storage_of(study).retry(insert)
        return is_closed

    monkeypatch.setattr(recovery, "insert_waiting", lambda session, study, retry: retries.queued.append(retry))
    monkeypatch.setattr(recovery, "close_trial", close_in_two)
    assert is_noticed(runs, "has 0 retries")


@pytest.mark.long
def test_adoption_without_a_claim_is_noticed(runs: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    put_back(
        monkeypatch, adoption, adoption._adopt, {"not claim_inside(session, study, template.user_attrs[KEY], index)": "0"}
    )
    assert is_noticed(runs, "without a claim of its network")


def put_back(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, function: Callable[..., Any], changes: dict[str, str]
) -> None:
    """Replace a function by itself with parts of its source changed."""
    source = inspect.getsource(function)
    for right, wrong in changes.items():
        assert source.count(right) == 1
        source = source.replace(right, wrong)
    names = dict(vars(module))
    exec(compile(f"from __future__ import annotations\n{source}", module.__name__, "exec"), names)
    monkeypatch.setattr(module, function.__name__, names[function.__name__])


def is_noticed(runs: Simulator, violation: str) -> bool:
    """True if one of the seeds reports this violation."""
    results = (runs.run(seed) for seed in range(SEEDS_FOR_BUGS))
    return any(violation in text for result in results for text in result.violations)


def replay(result: Result) -> str:
    return f"{result}\nreplay: python benchmarks/queue_simulation.py --seed {result.seed}"
