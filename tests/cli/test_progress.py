"""The live line and the lines of a run, with one worker and with several."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console, Group

from search.cli import progress as live
from search.cli import waiting
from search.cli.progress import RunView
from search.runner.events import (
    BaseKnown,
    DatabaseUnavailable,
    DeviceReady,
    EpochDone,
    Event,
    StepDone,
    StudyLoaded,
    TrialEnded,
    TrialStarted,
    Waiting,
)
from search.training.result import Outcome

Sent = tuple[int, Event]  # by the worker of this index


def shown(view: RunView, width: int = 120) -> list[str]:
    """The live lines, as a terminal would have them."""
    console = Console(file=io.StringIO(), width=width)
    console.print(Group(view._lines()))  # as it is live: a bare text would be wrapped
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def printed(view: RunView) -> str:
    return view.console.file.getvalue()  # type: ignore[attr-defined]


def view_of(workers: int) -> RunView:
    return RunView(Console(file=io.StringIO(), width=120), workers)


def found() -> Sent:
    return 0, StudyLoaded(trials=9, done=0)


def trial(worker: int, number: int) -> Sent:
    return worker, TrialStarted(number, params=1000 + number)


def epoch(worker: int, number: int, accuracy: float) -> Sent:
    return worker, EpochDone(number=7, epochs=4, epoch=number, val_accuracy=accuracy)


def end(worker: int, number: int, outcome: Outcome = Outcome.TRAINED, reason: str = "a reason") -> Sent:
    is_trained = outcome == Outcome.TRAINED
    return worker, TrialEnded(number, outcome, None if is_trained else reason, seconds=2.0, compile_seconds=1.0)


def tell(view: RunView, *events: Sent) -> RunView:
    for worker, event in events:
        view.show(event, worker)
    return view


def test_before_anything_is_known_it_says_what_takes_so_long() -> None:
    assert shown(view_of(3)) == ["starting: TensorFlow takes a few seconds to load"]


def test_tensorflows_message_of_a_failure_is_no_markup() -> None:
    reason = "OOM when allocating [[{{node conv/Conv2D}}]] on [/job:localhost/device:GPU:0] [Op:Conv2D]"
    view = tell(view_of(1), found(), trial(0, 0), end(0, 0, Outcome.FAILED, reason))
    assert reason in printed(view).replace("\n", " ")


BAR = "╌" * live.BAR_WIDTH


def test_one_worker_is_one_line() -> None:
    view = tell(view_of(1), found(), trial(0, 7), epoch(0, 1, 0.5))
    assert [line.strip() for line in shown(view)] == [f"0/9 {BAR}  trial 7  1,007 params  epoch 1/4, accuracy 50.00%"]


def test_each_of_several_workers_has_its_line_and_the_run_one_above() -> None:
    view = tell(view_of(3), found(), trial(2, 1), trial(0, 2), epoch(2, 3, 0.25), (1, Waiting()))
    assert [line.strip() for line in shown(view)] == [
        *(f"0/9 {BAR}", "0  trial 2  1,002 params  first epoch (0% of the trial)", "1  waits for others"),
        "2  trial 1  1,001 params  epoch 3/4, accuracy 25.00%",
    ]


def test_without_a_terminal_it_says_on_standard_error_which_trial_of_another_run_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    view = tell(view_of(2), found(), trial(0, 4))
    for names in (("trial 4",), ("trial 4", "trial 2", "base"), ("trial 4", "trial 3")):
        for _ in range(12):
            clock.seconds += 1
            tell(view, (1, Waiting(names, 2.0)))
    rule = "requeued once 2 minutes have passed without a heartbeat (search.grace_minutes)."
    assert capsys.readouterr().err.splitlines() == [
        f"Waiting for {names}, begun by another run or before this folder was copied: {rule}"
        for names in ("trial 2 and 1 more", "trial 3")
    ]
    assert "Waiting" not in printed(view)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_trials_and_the_time_left_are_never_cut(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    view = tell(view_of(1), found(), trial(0, 0), (0, StepDone(0, 5, 10)))
    assert shown(view, width)[0].startswith("0/9 "), "no time is left to tell before the first training was timed"
    tell(view, (0, StepDone(0, 10, 10)), end(0, 0), trial(0, 1), epoch(0, 1, 0.5))
    (line,) = shown(view, width)
    assert line.startswith("1/9 · 0:16 left ") and len(line) <= width


def test_no_time_left_is_shown_while_the_base_trains() -> None:
    view = tell(view_of(1), found(), (0, TrialStarted(0, params=82_090, reference="base")), (0, StepDone(0, 9, 10)))
    assert "left" not in shown(view)[0]
    tell(view, end(0, 0), trial(0, 0), (0, StepDone(0, 1, 10)))
    assert "left" not in shown(view)[0], "nor before the first candidate was timed"


def test_ended_trials_stand_in_columns_of_one_line_each() -> None:
    view = RunView(Console(file=io.StringIO(), width=80))
    view.images, view.base = 359, 0.9
    for number, accuracy in ((0, 0.98), (1, 0.99), (10, 0.97)):
        tell(view, found(), trial(0, number), epoch(0, 1, accuracy), end(0, number))
    lines = printed(view).splitlines()
    assert lines == [
        "trial 0:         1,000 params  best  98.0%    +8.0 vs base         2 s  1/9",
        "trial 1:         1,001 params  best  99.0%    +9.0 vs base         2 s  1/9",
        "trial 10:        1,010 params  best  97.0%    +7.0 vs base         2 s  1/9",
    ]


def test_many_workers_leave_room_on_the_screen() -> None:
    view = tell(view_of(30), found(), trial(0, 1))
    assert len(shown(view)) == live.MOST_ROWS + 2
    assert "and 22 more workers" in shown(view)[-1]


def test_events_of_two_workers_are_not_mixed_up() -> None:
    """Trial 2 has the better epoch, and ends first."""
    view = tell(view_of(2), found(), trial(0, 1), trial(1, 2), epoch(0, 1, 0.5), epoch(1, 1, 0.75), epoch(0, 2, 0.25))
    tell(view, end(1, 2), end(0, 1))
    first, second = printed(view).splitlines()
    assert first.startswith("trial 2:         1,002 params  best 75.00%")
    assert second.startswith("trial 1:         1,001 params  best 50.00%")
    assert (view.trained, view.best) == (2, (0.75, 2))


def test_several_workers_share_what_is_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven trials of two seconds each: four workers take them in less than a third of one's time."""
    left = []
    for workers in (1, 4):
        view = tell(view_of(workers), found(), trial(0, 0), epoch(0, 1, 0.5), end(0, 0), trial(0, 1))
        left.append(view._seconds_left())
    assert left == [2 + 2 * 7, 2 + 2 * 7 / 4]


@pytest.mark.parametrize(("outcome", "word"), [(Outcome.DIVERGED, "diverged"), (Outcome.OUT_OF_MEMORY, "out of memory")])
def test_failures_are_shown_with_their_reason(outcome: Outcome, word: str) -> None:
    view = tell(view_of(2), found(), trial(1, 3), end(1, 3, outcome))
    assert printed(view) == f"trial 3: {word}, a reason\n"


def test_the_same_message_of_every_worker_is_shown_once() -> None:
    ready = DeviceReady("training on paper", "some images", classes=10, guess=0.1)
    view = tell(view_of(2), *((worker, ready) for worker in (0, 1, 0)))
    tell(view, *((worker, BaseKnown(0.1)) for worker in (0, 1, 0)))
    assert printed(view).count("Training on paper.") == 1
    assert printed(view).count("hardly learnt") == 1


def test_an_unreachable_database_is_reported_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    view, clock = view_of(2), SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    for later in (0, 1, live.AWAY_SECONDS - 1, live.AWAY_SECONDS + 1, live.AWAY_SECONDS + 2):
        clock.seconds = 1000 + later
        tell(view, (0, DatabaseUnavailable("no route")))
    assert printed(view).count("Database unreachable (no route)") == 2


def test_a_study_ranked_by_int8_says_of_each_accuracy_which_it_is() -> None:
    def int8_end(number: int, best: float, floats: float) -> Sent:
        worker, event = end(0, number)
        assert isinstance(event, TrialEnded)
        return worker, replace(event, best_val_accuracy=best, float_val_accuracy=floats)

    ready = (0, DeviceReady("training on paper", "some images", "int8"))
    view = tell(view_of(1), ready, found(), trial(0, 1), epoch(0, 1, 0.26))
    view.base = 0.10
    assert "epoch 1/4, float accuracy 26.00%" in shown(view)[0]
    tell(view, int8_end(1, best=0.24, floats=0.26))
    assert "best 24.00% in int8, 26.00% in float  +14.00 vs base" in printed(view)
    tell(view, trial(0, 2), epoch(0, 1, 0.25))
    assert "best 24.00% in int8 (+14.00 vs base)" in shown(view, 160)[0]
    tell(view, int8_end(2, best=0.23, floats=0.25))
    assert view.best == (0.24, 1)


def test_a_notebook_shows_the_live_lines_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, data: dict[str, str], raw: bool) -> None:
            shown.append(data["text/plain"])

    def display(*data: object, **options: object) -> Handle | None:
        return Handle() if options.get("display_id") else None

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(live, "NOTEBOOK_SECONDS", 0.0)
    with RunView(Console(file=io.StringIO(), width=120, force_jupyter=True)) as view:
        for _, event in (found(), trial(0, 3), epoch(0, 3, 0.5)):
            view.show(event)
    assert shown[0].startswith("starting") and "trial 3" in shown[-2] and "epoch 3/4, accuracy 50" in shown[-2]
    assert shown[-1] == "" and "\x1b" not in "".join(shown)
