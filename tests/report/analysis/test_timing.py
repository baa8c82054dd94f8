"""report.analysis.timing, on studies whose trials are written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from report.analysis.timing import TrainingTime, count_epochs, rungs_table, training_times
from search.study import run as studies
from search.study.records import Record
from search.study.run import Run, sibling
from search.study.study_file import parse
from tests.support.synthetic import BEGUN, storages_in_memory

STUDY: dict[str, Any] = {
    "base": 0.5,
    "data": {"name": "digits"},
    "budget": {"params": 8_000},
    "space": {"blocks": 1, "width": [8, 16], "pools": 0},
    "recipe": {"epochs": 9, "schedule": {"kind": "cosine"}},
    "search": {"rungs": {"first": 1, "factor": 3}},
}
STATES = {"trained": TrialState.COMPLETE, "pruned_at_rung": TrialState.PRUNED, "rejected": TrialState.PRUNED}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with storages_in_memory():
        yield Run("tiny", tmp_path, parse(STUDY, "test"), str(tmp_path))


def add(study: optuna.Study, outcome: str, epochs: int, minute: int, **told: float) -> None:
    """A trial that begins at this minute and lasts one."""
    state = STATES.get(outcome, TrialState.FAIL)
    curve = dict.fromkeys(range(1, epochs + 1), 0.5)
    value = 0.5 if state == TrialState.COMPLETE else None
    trial = create_trial(state=state, value=value, intermediate_values=curve, user_attrs={"outcome": outcome} | told)
    trial.datetime_start, trial.datetime_complete = (BEGUN + timedelta(minutes=at) for at in (minute, minute + 1))
    study.add_trial(trial)


def test_time_is_summed_by_purpose_and_outcome(run: Run) -> None:
    candidates = optuna.create_study(storage=studies.open_storage(run.storage_url), study_name="tiny", direction="maximize")
    add(candidates, "rejected", 0, 0)
    add(candidates, "trained", 9, 1, seconds=30.0, compile_seconds=3.0)
    add(candidates, "interrupted", 4, 2)  # goes on as the next, which has its time too
    add(candidates, "trained", 9, 3, seconds=40.0, compile_seconds=4.0)
    add(candidates, "pruned_at_rung", 3, 4, seconds=10.0, compile_seconds=2.0)
    add(candidates, "timed_out", 2, 5, seconds=60.0)
    add(candidates, "failed", 1, 6)  # its process died and told no time
    add(sibling(run, "references"), "trained", 9, -7, seconds=20.0, compile_seconds=1.0)
    add(sibling(run, "finals"), "trained", 9, 60, seconds=25.0, compile_seconds=1.0)
    found = training_times(run, candidates)
    assert found.spent == (
        TrainingTime("base and other references", 1, 9, 20.0, 1.0),
        TrainingTime("candidates trained in full", 2, 18, 70.0, 7.0),
        TrainingTime("candidates pruned at a rung", 1, 3, 10.0, 2.0),
        TrainingTime("candidates that failed", 2, 3, 60.0, 0.0),
        TrainingTime("finals", 1, 9, 25.0, 1.0),
    )
    assert found.seconds == 185.0
    assert found.begun == BEGUN - timedelta(minutes=7) and found.ended == BEGUN + timedelta(minutes=61)


def test_rungs_count_the_trials_that_arrived_and_were_promoted(run: Run) -> None:
    blank = Record(0, None, "trained", None, 1, 1, 0.5, 1, 0.5, 9, 1.0, (), {}, (), None)
    pruned = [replace(blank, outcome="pruned_at_rung", epochs=epochs) for epochs in (1, 1, 3)]
    found = [blank, blank, *pruned, replace(blank, outcome="failed", epochs=5), replace(blank, outcome="running", epochs=2)]
    assert rungs_table(run.config, found).rows == [("1", "5", "2", "3"), ("3", "3", "1", "2")]
    assert count_epochs(run.config, found) == (9 + 9 + 1 + 1 + 3, 45)
    assert rungs_table(parse(STUDY | {"search": {}}, "test"), found).rows == []
