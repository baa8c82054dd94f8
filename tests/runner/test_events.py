"""Events of a worker: JSON lines that give the same event back, and the reporter that sends them."""

from __future__ import annotations

import io
import json
from typing import Any, get_args

import pytest

from search.runner import events
from search.runner.events import (
    BaseKnown,
    Done,
    EpochDone,
    Event,
    EventWriter,
    StepDone,
    StudyLoaded,
    TrialEnded,
    TrialStarted,
    WorkerLost,
    decode_event,
    encode_event,
)
from search.training.result import Outcome
from tests.support.runs import Bench, bench, pretence  # noqa: F401 the last two are fixtures

EXAMPLES: list[Event] = [
    StudyLoaded(9, 2, (0.5, 1), trained=1, pruned_at_rung=1, rejected=3, failed=4),
    StudyLoaded(9, 0),
    TrialStarted(3, 1000, 5000, 9, 7, 2, contender="trial-1", repeat=0),
    EpochDone(number=3, epochs=4, epoch=1, val_accuracy=0.5, raw_val_loss=0.25),
    TrialEnded(3, Outcome.PRUNED_AT_RUNG, "behind", 1.5, 0.5),
    WorkerLost("crashed", (3, 4)),
    Done(),
]


@pytest.mark.parametrize("event", EXAMPLES)
def test_a_line_gives_the_same_event_back(event: Event) -> None:
    line = encode_event(event)
    assert line.count("\n") == 1 and line.endswith("\n")
    decoded = decode_event(line.encode())
    assert decoded == event
    assert type(decoded) is type(event)


def test_every_event_has_a_name_of_its_own() -> None:
    kinds = get_args(events.Event)
    assert len({kind.__dataclass_fields__["event"].default for kind in kinds}) == len(kinds)


@pytest.mark.parametrize(
    "line", ["{torn", "", "[]", '{"event": "unknown"}', '{"event": "end", "number": 1, "outcome": "?"}']
)
def test_a_line_that_is_no_event_is_a_value_error(line: str) -> None:
    with pytest.raises(ValueError):
        decode_event(line)


def test_outcomes_are_read_back_as_members() -> None:
    ended = decode_event('{"event": "end", "number": 1, "outcome": "trained"}')
    assert isinstance(ended, TrialEnded) and ended.outcome is Outcome.TRAINED


def test_steps_that_follow_each_other_closely_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(events.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    write = EventWriter(stream)
    for later in (0.0, 0.1, 0.2, 0.3, 0.4, 0.6):
        now[0] = 100 + later
        write(StepDone(1, round(10 * later), 9))
    write(BaseKnown(0.5))
    rows: list[dict[str, Any]] = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [row.get("step") for row in rows] == [0, 3, 6, None]


def test_a_trial_is_reported_from_its_start_to_its_end(bench: Bench) -> None:  # noqa: F811 the fixture
    bench.plays.append([0.25, 0.75])
    trial = bench.one_trial()
    started, *middle, ended = bench.events
    assert isinstance(started, TrialStarted) and isinstance(ended, TrialEnded)
    assert (started.number, started.params, started.seed) == (
        trial.number,
        trial.user_attrs["params"],
        trial.user_attrs["seed"],
    )
    assert [type(event) for event in middle] == [StepDone, EpochDone, StepDone, EpochDone]
    assert [event.val_accuracy for event in middle if isinstance(event, EpochDone)] == [0.25, 0.75]
    assert (ended.outcome, ended.reason, ended.seconds) == (Outcome.TRAINED, None, 2.0)


def test_the_note_of_a_trial_is_written_before_its_end_is_reported(bench: Bench) -> None:  # noqa: F811 the fixture
    noted: list[tuple[str, bool]] = []
    bench.reporter.annotate = lambda trial, architecture: noted.append(
        (trial.user_attrs["outcome"], any(isinstance(event, TrialEnded) for event in bench.events))
    )
    bench.one_trial()
    assert noted == [("trained", False)]
