"""The supervisor, with a worker that prints events and trains nothing."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import optuna
import pytest
from optuna.trial import TrialState

from search.errors import StudyStopped, UserError
from search.runner import supervisor
from search.runner.events import DeviceReady, Event, StudyLoaded, WorkerLost
from search.runner.job import make_order
from search.runner.supervisor import supervise
from search.study.run import Run, create, load
from tests.fault_table import record, results
from tests.support.processes import (
    SECONDS,
)
from tests.support.runs import digits, small_run

PRETENDER = """#!{python}
import json, os, sys, time
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, os.getcwd())
order = json.loads(sys.stdin.readline())
turns = Path({folder!r}) / "turns"
turn = len(turns.read_text()) if turns.exists() else 0
turns.write_text("x" * (turn + 1))
def say(**event):
    print(json.dumps(event), flush=True)
def begin():
    import optuna
    from search.storage.database import open_storage
    study = optuna.load_study(storage=open_storage(order["storage_url"]), study_name="tiny")
    trial = study.ask()
    if "index" not in trial.user_attrs:
        trial.set_user_attr("index", turn)
        trial.set_user_attr("attempt", 1)
    trial.set_user_attr("worker", order["worker"])
    return trial
{body}
"""


class Recorder:
    """A view that keeps what it is shown."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def show(self, event: Event, worker: int = 0) -> None:
        self.events.append(event)


PYTHON = sys.executable
STALL_MINUTES = 0.1  # a worker may take seconds to import Optuna on a machine that has other work


class Stage(NamedTuple):
    run: Run
    view: Recorder
    plays: Callable[[str], None]

    def supervise(self) -> None:
        supervise(self.run, make_order(self.run), self.view)

    @property
    def turns(self) -> int:
        """Number of workers that were started."""
        return len((self.run.folder.parent / "turns").read_text())


def stage_of(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Stage:
    """A run whose worker is a script."""
    run = small_run(folder / "run", search={"stall_minutes": STALL_MINUTES}, **changes)
    create(run, digits())

    def plays(body: str) -> None:
        script = folder / "pretender"
        script.write_text(PRETENDER.format(python=PYTHON, folder=str(folder), body=body), encoding="utf-8")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.5)
    return Stage(run, Recorder(), plays)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield stage_of(tmp_path, monkeypatch)
    optuna.logging.set_verbosity(optuna.logging.INFO)


def test_workers_follow_each_other_until_one_is_done(stage: Stage) -> None:
    stage.plays('say(event="recycle" if turn < 2 else "done")')
    stage.supervise()
    assert stage.turns == 3


def test_each_worker_receives_the_remaining_hours_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock of the run, however many workers it takes; without a limit, nothing."""
    told = 'say(event="device", text=str(order["seconds_left"]), data=""); say(event="recycle" if turn < 2 else "done")'
    for hours in (None, 1.0):
        stage = stage_of(tmp_path / str(hours), monkeypatch, stop={"hours": hours})
        stage.plays(told)
        stage.supervise()
        texts = [event.text for event in stage.view.events if isinstance(event, DeviceReady)]
        if hours is None:
            assert texts == ["None"] * 3
        else:
            left = [float(text) for text in texts]
            assert 3600 >= left[0] > left[1] > left[2] > 3600 - SECONDS


def test_a_line_that_is_no_event_is_logged_and_passed_over(stage: Stage) -> None:
    stage.plays('print("{no event", flush=True); say(event="found", trials=3, done=0); say(event="done")')
    stage.supervise()
    assert stage.view.events == [StudyLoaded(trials=3, done=0)]
    assert "not an event: b'{no event\\n'" in (stage.run.folder / "worker.log").read_text()


def test_a_line_that_was_cut_off_by_the_end_of_its_worker_is_not_logged(stage: Stage) -> None:
    crash = 'turn or (print("{torn", end="", flush=True), os._exit(3))'
    stage.plays(f'say(event="found", trials=3, done=0); {crash}; say(event="done")')
    stage.supervise()
    assert "not an event" not in (stage.run.folder / "worker.log").read_text()


def test_a_worker_that_crashes_before_any_trial_is_reported_with_the_last_line_of_its_log(stage: Stage) -> None:
    stage.plays('sys.stderr.write("Traceback\\nImportError: no \\033[1mmodule\\n"); sys.stderr.flush(); os._exit(3)')
    expected = r"crashed with exit status 3 before any trial: ImportError: no \?\[1mmodule; see .*worker\.log"
    with pytest.raises(StudyStopped, match=expected):
        stage.supervise()


@pytest.mark.parametrize(("event", "error"), [("user_error", UserError), ("stopped", StudyStopped)])
def test_a_worker_can_end_the_run(event: str, error: type[Exception], stage: Stage) -> None:
    stage.plays(f'say(event="{event}", text="the reason")')
    with pytest.raises(error, match=r"^the reason$"):
        stage.supervise()


def test_a_worker_that_dies_before_any_trial_is_not_started_again(stage: Stage) -> None:
    stage.plays("os._exit(3)")
    with pytest.raises(StudyStopped, match=r"crashed with exit status 3 before any trial; see .*worker\.log"):
        stage.supervise()
    assert stage.turns == 1


def test_row_15_a_trial_that_kills_its_worker_is_tried_twice_and_the_run_continues(stage: Stage) -> None:
    stage.plays('say(event="done") if turn == 2 else (begin(), os.kill(os.getpid(), 9))')
    stage.supervise()
    found = load(stage.run).candidates.trials
    assert [(trial.user_attrs["attempt"], trial.user_attrs["outcome"]) for trial in found] == [
        (1, "interrupted"),
        (2, "failed"),
    ]
    assert "was killed by SIGKILL" in found[-1].user_attrs["reason"]
    assert [event.numbers for event in stage.view.events if isinstance(event, WorkerLost)] == [(0,), (1,)]
    record({15: 2}, results(found))


@pytest.mark.long
def test_workers_that_keep_dying_stop_the_run_with_what_they_share(stage: Stage) -> None:
    stage.plays("begin(); os.abort()")
    with pytest.raises(StudyStopped, match=r"5 trials in a row failed \(was killed by SIGABRT\)"):
        stage.supervise()
    assert stage.turns == 5
    assert all(trial.state == TrialState.FAIL for trial in load(stage.run).candidates.trials[:5])


def test_a_worker_is_not_hung_because_its_supervisor_was_halted_too(stage: Stage) -> None:
    crew = supervisor._Crew(stage.run, make_order(stage.run), stage.view, "one", lambda: False)
    quiet = SimpleNamespace(last_sign=time.monotonic() - 3_600)
    crew.workers = [quiet]  # type: ignore[list-item]
    crew.last_check -= 3_600
    crew._check_for_hung()  # would end the worker's process, which is not there
    assert time.monotonic() - quiet.last_sign < 60


def test_workers_that_keep_dying_between_trials_stop_the_run_with_the_last_line_of_the_log(stage: Stage) -> None:
    stage.plays('say(event="found", trials=2, done=2); print("KeyError: no such column", file=sys.stderr); sys.exit(1)')
    told = r"crashed with exit status 1 5 times outside of any trial: KeyError: no such column; see .*worker\.log"
    with pytest.raises(StudyStopped, match=told):
        stage.supervise()
    assert stage.turns == 5


@pytest.mark.parametrize("between", ["", 'say(event="end", number=9, outcome="rejected", reason="r")'])
def test_five_failed_ends_in_a_row_stop_the_run_whatever_was_rejected_between(between: str, stage: Stage) -> None:
    stage.plays(
        "for number in range(9):\n"
        '    say(event="end", number=number, outcome="diverged", reason="nan")\n'
        f"    {between or 'pass'}\n"
        "time.sleep(60)"
    )
    with pytest.raises(StudyStopped, match=r"5 trials in a row failed \(nan\)"):
        stage.supervise()


def test_a_trained_one_between_starts_the_count_again(stage: Stage) -> None:
    stage.plays(
        "for number in range(12):\n"
        '    say(event="end", number=number, outcome="trained" if number % 4 == 3 else "diverged", reason="nan")\n'
        'say(event="done")'
    )
    stage.supervise()


def test_row_14_a_worker_without_a_sign_of_life_is_stopped_and_its_trial_timed_out(stage: Stage) -> None:
    stage.plays(
        "import signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if turn: say(event='done')\n"
        "else:\n    begin(); time.sleep(600)"
    )
    started = time.monotonic()
    stage.supervise()
    assert time.monotonic() - started < 30
    (trial,) = load(stage.run).candidates.trials
    record({14: 1}, results([trial]))
    assert (trial.state, trial.user_attrs["outcome"]) == (TrialState.FAIL, "timed_out")
    assert f"no sign of life for {STALL_MINUTES} minutes" in trial.user_attrs["reason"]


def test_no_worker_outlives_its_run(stage: Stage) -> None:
    stage.plays(
        f'Path({str(stage.run.folder)!r}, "pid").write_text(str(os.getpid()))\n'
        'say(event="stopped", text="t"); time.sleep(60)'
    )
    with pytest.raises(StudyStopped):
        stage.supervise()
    pid = int((stage.run.folder / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_signals_are_handled_as_before_once_the_run_is_over(stage: Stage) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stage.plays('say(event="done")')
    stage.supervise()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
