"""Trials that fail among two workers that continue: NaN, memory, hangs, crashes; trainings are NumPy's."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.storms import Storm, outcomes

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
    storm = Storm(tmp_path_factory.mktemp("failing") / "storm", *faults, search={"trials": 9, "stall_minutes": 20 / 60})
    storm.start("--workers", "2")
    return storm


def test_rows_12_13_14_15_failing_trials_leave_a_study_with_as_many_as_it_was_asked_for(failing: Storm) -> None:
    assert failing.happened == {12: 1, 13: 2, 14: 1, 15: 3}
    failing.check(9)


@pytest.mark.parametrize(("row", "fault", "expected", "reason"), FAILURES, ids=[row for row, *_ in FAILURES])
def test_rows_12_13_14_15_a_trial_that_fails_ends_alone_with_its_reason(
    row: str, fault: dict[str, Any], expected: list[str], reason: str, failing: Storm
) -> None:
    tries = [trial for trial in failing.trials if trial.user_attrs["index"] == fault["index"]]
    assert outcomes(tries) == expected
    assert reason in tries[0].user_attrs["reason"]
