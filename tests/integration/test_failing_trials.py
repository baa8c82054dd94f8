"""Trials that fail among two workers that continue: NaN, memory, hangs, crashes; trainings are NumPy's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search.files import read_json
from search.study.run import load
from tests.support.storms import Storm, outcomes, write_base

FAILURES: list[tuple[str, dict[str, Any], list[str], str]] = [
    ("row 12: NaN", {"at": "epoch", "do": "nan", "index": 0}, ["diverged"], "the loss became nan"),
    ("row 13: host memory", {"at": "epoch", "do": "memory", "index": 2}, ["out_of_memory"], "out of memory at batch size"),
    ("row 13: GPU memory", {"at": "epoch", "do": "exhausted", "index": 4}, ["out_of_memory"], "out of memory at batch size"),
    ("row 14: hangs", {"at": "epoch", "do": "hang", "index": 6}, ["timed_out"], "gave no sign of life for"),
    (
        "row 15: crashes once",
        {"at": "epoch", "do": "abort", "index": 8},
        ["interrupted", "trained"],
        "was killed by SIGABRT",
    ),
    (
        "row 15: always crashes",
        {"at": "epoch", "do": "abort", "index": 10, "times": 9},
        ["interrupted", "failed"],
        "was killed by SIGABRT",
    ),
]


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Storm:
    faults = [fault | {"row": int(row.split()[1].rstrip(":"))} for row, fault, _, _ in FAILURES]
    storm = Storm(tmp_path_factory.mktemp("failing") / "storm", *faults, search={"trials": 9, "stall_minutes": 12 / 60})
    storm.start("--workers", "2")
    return storm


@pytest.mark.long
def test_rows_12_13_14_15_failing_trials_leave_a_study_with_as_many_as_it_was_asked_for(failing: Storm) -> None:
    assert failing.happened == {12: 1, 13: 2, 14: 1, 15: 3}
    failing.check(9)


@pytest.mark.long
@pytest.mark.parametrize(("row", "fault", "expected", "reason"), FAILURES, ids=[row for row, *_ in FAILURES])
def test_rows_12_13_14_15_a_trial_that_fails_ends_alone_with_its_reason(
    row: str, fault: dict[str, Any], expected: list[str], reason: str, failing: Storm
) -> None:
    tries = [trial for trial in failing.trials if trial.user_attrs["index"] == fault["index"]]
    assert outcomes(tries) == expected
    assert reason in tries[0].user_attrs["reason"]


@pytest.mark.long
def test_the_same_command_tries_a_base_again_that_could_not_be_trained(tmp_path: Path) -> None:
    """It ended every later start of the run, too. The epochs before the crash are not trained again."""
    crash = {
        "at": "epoch",
        "do": "abort",
        "index": 0,
        "epoch": 3,
        "times": 2,
    }  # index 0 is also the base's, which comes first
    storm = Storm(tmp_path / "storm", crash, base=write_base(tmp_path), search={"trials": 1})
    _, err = storm.start(status=1)
    assert "the base could not be trained: the worker was killed by SIGABRT" in err
    storm.start()
    references = load(storm.run).references.trials
    assert outcomes(references) == ["interrupted", "failed", "trained"]
    assert [len(trial.intermediate_values) for trial in references] == [2, 2, 4]
    history = read_json(storm.run.folder / "references" / "base" / "history.json")
    assert len(history) == 4
