"""The table of faults: lost and doubled results are counted, and docs/reliability.md has the counts of the present tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from tests.fault_table import (
    PAGE,
    RECORDS,
    ROWS,
    Counted,
    Results,
    between_marks,
    faults_of,
    gathered,
    markdown,
    read,
    record,
    results,
    rows_of,
    rows_with_tests,
)


def trial(number: int, state: TrialState = TrialState.COMPLETE, **attributes: Any) -> FrozenTrial:
    """Trial 3 is the network `k3`, its logical index 3."""
    told = {"index": number, "key": f"k{number}", "outcome": "trained"} | attributes
    made = create_trial(state=TrialState.COMPLETE, value=0.5, user_attrs=told)
    made.number, made.state, made.datetime_start, made.datetime_complete = number, state, None, None
    return made


def interrupted(number: int, **attributes: Any) -> FrozenTrial:
    return trial(number, TrialState.FAIL, **{"outcome": "interrupted"} | attributes)


FINE: dict[str, list[FrozenTrial]] = {
    "trained": [trial(0), trial(1)],
    "interrupted, then trained": [interrupted(0), trial(1), trial(2, index=0, key="k0")],
    "failed": [trial(0), trial(1), trial(2, TrialState.FAIL, outcome="failed")],
    "diverged": [trial(0), trial(1), trial(2, TrialState.PRUNED, outcome="diverged")],
    "queued": [trial(0), trial(1), interrupted(2), trial(3, TrialState.WAITING, index=2)],
    "a result that came too late": [trial(0), trial(1, TrialState.FAIL), trial(2, index=1, key="k1")],
}
WRONG: dict[str, tuple[list[FrozenTrial], Results]] = {
    "one too few": ([trial(0)], Results(1, 0)),
    "never trained again": ([trial(0), trial(1), interrupted(2)], Results(1, 0)),
    "left at work": ([trial(0), trial(1), trial(2, TrialState.RUNNING)], Results(1, 0)),
    "one too many": ([trial(0), trial(1), trial(2)], Results(0, 1)),
    "a network twice": ([trial(0), trial(1, key="k0")], Results(0, 1)),
    "two verdicts": ([trial(0), trial(1), trial(2, TrialState.FAIL, index=1, outcome="failed")], Results(0, 1)),
    "trained and queued": ([trial(0), trial(1), trial(2, TrialState.WAITING, index=1)], Results(0, 1)),
}


@pytest.mark.parametrize("what", FINE)
def test_nothing_is_lost_or_doubled(what: str) -> None:
    assert results(FINE[what], asked=2) == Results(0, 0)


@pytest.mark.parametrize("what", WRONG)
def test_lost_and_doubled_results_are_counted(what: str) -> None:
    trials, expected = WRONG[what]
    assert results(trials, asked=2) == expected


def test_finished_trials_must_be_unchanged() -> None:
    known = {0: trial(0), 1: trial(1, outcome="failed")}
    assert results([trial(0), trial(1)], known=known) == Results(1, 0)
    assert results([trial(0)], known=known) == Results(1, 0)
    assert results([trial(0), trial(1)], known={0: trial(0)}) == Results(0, 0)


def test_counts_of_several_processes_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RECORDS, str(tmp_path))
    record({1: 2, 4: 1}, Results(0, 0))
    with pytest.raises(AssertionError):
        record({4: 3}, Results(1, 0))
    (tmp_path / "other.jsonl").write_text("[1, 5, 0, 2]\n")
    assert gathered(tmp_path) == {1: Counted(7, 0, 2), 4: Counted(4, 1, 0)}


def test_a_table_that_is_not_whole_or_not_clean_is_none() -> None:
    rows = dict.fromkeys(ROWS, Counted(1, 0, 0))
    assert faults_of(rows) == []
    assert faults_of({row: one for row, one in rows.items() if row != 7}) == [
        "row 7: no test has counted it (was one skipped?)"
    ]
    for bad in (Counted(1, 1, 0), Counted(1, 0, 1), Counted(0, 0, 0)):
        assert len(faults_of(rows | {3: bad})) == 1
    assert faults_of(rows | {99: Counted(1, 0, 0)}) == ["row 99: there is no such row"]


def test_a_name_has_rows() -> None:
    assert rows_of("test_row_5_a_worker") == [5]
    assert rows_of("test_rows_4_8_16_two_starts") == [4, 8, 16]
    assert rows_of("test_rows_are_read") == rows_of("test_a_row_5_") == []


def test_every_row_has_a_test_and_no_test_a_row_that_is_none() -> None:
    assert list(ROWS) == list(range(1, len(ROWS) + 1))
    found = rows_with_tests()
    assert found.keys() == ROWS.keys()
    assert [row for row, tests in found.items() if not tests] == []


def test_the_pages_table_was_written_by_a_run_of_the_tests_that_there_are() -> None:
    """If this fails: python -m tests.fault_table"""
    written = read()["rows"]
    rows = {entry["row"]: Counted(entry["tries"], entry["lost"], entry["doubled"]) for entry in written}
    assert faults_of(rows) == []
    assert between_marks(PAGE.read_text(encoding="utf-8")) == markdown(rows)
    assert {entry["row"]: entry["tests"] for entry in written} == rows_with_tests(), "tests have changed since"
