"""What a study must survive: processes, disks and databases that fail under real workers, whose trainings are NumPy's.

The rows are those of the table of faults in docs/reliability.md (`tests.fault_table`). After each storm the invariants are
checked in the database (`Storm.check`): as many trials as were asked for, each network once, nothing lost, doubled or left
running. The tests count how often each fault really happened.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pytest
from optuna.trial import FrozenTrial

from search.data.dataset import Dataset, load_dataset
from search.files import read_arrays
from search.storage.recovery import SILENT
from search.study.run import create, every
from tests.support.servers import PASSWORD, Server
from tests.support.storms import SECONDS, Storm, children, finish, outcomes, write_base

HASTY = {"grace_minutes": 3 / 60}  # a trial counts as lost after three seconds without a heartbeat

# --- the whole run is killed, and the same command started again -----------------------------------------------------

CRASHES = [
    {"row": 2, "at": "begun", "do": "crash", "index": 0, "times": 2},
    {"row": 1, "at": "epoch", "do": "crash", "index": 1, "epoch": 3},
    {"row": 1, "at": "epoch", "do": "crash", "index": 1, "epoch": 4},
    {"row": 3, "at": "tell", "do": "crash", "index": 1},
    {"row": 3, "at": "tell", "do": "crash", "index": 2},
    {"row": 10, "at": "epoch", "do": "full", "index": 3, "epoch": 2},
    {"row": 10, "at": "epoch", "do": "full", "index": 3, "epoch": 3},
    {"row": 11, "at": "checkpoint", "do": "torn", "index": 2, "epoch": 2},
    {"row": 11, "at": "checkpoint", "do": "torn", "index": 3, "epoch": 3},
]
CRASHED = [*[-signal.SIGKILL] * 6, 1, 1]  # exit statuses, start after start


class Crashed(NamedTuple):
    """A study killed six times and stopped twice by a full disk, which lost two workers; and the same one undisturbed."""

    storm: Storm
    calm: Storm
    left_off: list[dict[int, list[dict[str, Any]]]]  # rows of the checkpoints that there were after each start
    full: list[str]  # what the command said of the disk
    trials: list[FrozenTrial]


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Crashed:
    folder = tmp_path_factory.mktemp("crashed")
    search = {"sampler": "tpe"}
    storm, calm = Storm(folder / "storm", *CRASHES, search=search), Storm(folder / "calm", search=search)
    calm.start()
    left_off, told = [], []
    for status in CRASHED:
        told.append(storm.start(status=status)[1])
        left_off.append(rows_of_checkpoints(storm))
    storm.start()
    return Crashed(storm, calm, left_off, told[-CRASHED.count(1) :], storm.trials)


def rows_of_checkpoints(storm: Storm) -> dict[int, list[dict[str, Any]]]:
    """The logs of the checkpoints that are there, by the index of their trials."""
    paths = storm.run.folder.glob("checkpoints/candidate-*.npz")
    return {
        int(path.stem.removeprefix("candidate-")): json.loads(read_arrays(path)["about"].tobytes())["history"]
        for path in paths
    }


def history_of(storm: Storm, trial: FrozenTrial) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((storm.run.folder / "trials" / str(trial.number) / "history.json").read_text())
    return rows


def last_of(trials: list[FrozenTrial], index: int) -> FrozenTrial:
    return [trial for trial in trials if trial.user_attrs["index"] == index][-1]


def test_row_1_a_run_that_is_killed_in_an_epoch_goes_on_in_that_epoch(crashed: Crashed) -> None:
    """The seconds that an epoch took are never the same twice: those before were not trained again."""
    after = history_of(crashed.storm, last_of(crashed.trials, 1))
    for start, epochs in ((2, 2), (3, 3)):
        before = crashed.left_off[start][1]
        assert (len(before), len(after)) == (epochs, 4)
        assert after[:epochs] == before


def test_row_2_a_run_that_is_killed_before_a_trials_first_heartbeat_leaves_it_to_the_next_start(crashed: Crashed) -> None:
    assert [trial.user_attrs["outcome"] for trial in crashed.trials if trial.user_attrs["index"] == 0] == [
        *("interrupted", "interrupted", "trained")
    ]


def test_row_3_what_was_trained_but_not_told_is_told_and_not_trained_again(crashed: Crashed) -> None:
    for index, killed_before in ((1, 2), (2, 1)):
        tries = [trial.user_attrs["outcome"] for trial in crashed.trials if trial.user_attrs["index"] == index]
        assert tries == ["interrupted"] * killed_before + ["trained"]


def test_row_10_a_full_disk_stops_the_run_with_its_reason_and_keeps_the_checkpoint_before(crashed: Crashed) -> None:
    for told in crashed.full:
        assert told.count("\n") == 1
        assert "nothing more can be written ([Errno 27] File too large); make space; the same command resumes" in told
    after = history_of(crashed.storm, last_of(crashed.trials, 3))
    for start, epochs in ((-2, 1), (-1, 2)):
        before = crashed.left_off[start][3]
        assert len(before) == epochs
        assert after[:epochs] == before


def test_row_11_a_torn_checkpoint_is_noticed_and_the_one_before_it_used(crashed: Crashed) -> None:
    for index in (2, 3):
        assert f"candidate-{index}.npz: skipped, the checkpoint is damaged" in crashed.storm.log
        assert len(history_of(crashed.storm, last_of(crashed.trials, index))) == 4


def test_rows_1_2_3_10_11_a_study_that_met_them_all_is_the_undisturbed_one(crashed: Crashed) -> None:
    assert crashed.storm.happened == {1: 2, 2: 2, 3: 2, 10: 2, 11: 2}
    crashed.storm.check(4)
    assert crashed.storm.scores() == crashed.calm.scores()
    for trial in crashed.calm.trials:
        theirs = crashed.calm.run.folder / "trials" / str(trial.number) / "weights.npz"
        number = last_of(crashed.trials, trial.user_attrs["index"]).number
        ours = crashed.storm.run.folder / "trials" / str(number) / "weights.npz"
        np.testing.assert_array_equal(read_arrays(ours)["w0000"], read_arrays(theirs)["w0000"])


def test_nothing_is_left_of_checkpoints_and_locks(crashed: Crashed) -> None:
    for name in ("checkpoints", "workers"):
        assert [path for path in (crashed.storm.run.folder / name).rglob("*") if path.is_file()] == []


# --- trials that fail, among two workers that go on ------------------------------------------------------------------

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


# --- signals, halts, locks -------------------------------------------------------------------------------------------


def test_rows_4_8_16_two_starts_that_meet_a_locked_database_and_signals(tmp_path: Path) -> None:
    """The same study started twice is joined; locked for longer than the grace period, nobody is taken for dead."""
    storm = Storm(tmp_path / "storm", recipe={"epochs": 90}, search=HASTY)
    runs = [storm.begin("--workers", "2", EPOCH_SECONDS="0.3"), storm.begin(EPOCH_SECONDS="0.3")]
    storm.wait_for(lambda trials: sum(len(trial.intermediate_values) >= 2 for trial in trials) == 3)
    with contextlib.closing(sqlite3.connect(storm.run.folder / "study.db", timeout=60, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        storm.met[8] += 1
        time.sleep(4)
        other.execute("ROLLBACK")
    _, err = finish(storm.begin("--epochs", "9"), 2)
    assert "recipe.epochs is 90 here, not 9" in err
    storm.met[16] += 2  # joined, and refused
    assert outcomes(storm.trials) == ["RUNNING"] * 3
    workers = [child for run in runs for child in children(run.pid)]
    for run, number, status in zip(runs, (signal.SIGINT, signal.SIGTERM), (130, 143), strict=True):
        sent = time.monotonic()
        run.send_signal(number)
        storm.met[4] += 1
        _, err = finish(run, status)
        assert time.monotonic() - sent < 10
        assert err == "interrupted; everything is kept, and the same command resumes\n"
    assert len(workers) == 3
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert sorted(outcomes(storm.trials)) == ["WAITING"] * 3 + ["interrupted"] * 3
    before = rows_of_checkpoints(storm)
    assert sorted(before) == [0, 1, 2]
    storm.start()
    storm.check(4)
    for index, rows in before.items():
        assert len(rows) >= 2
        assert history_of(storm, last_of(storm.trials, index))[: len(rows)] == rows


def test_row_5_what_a_worker_tells_that_was_halted_for_too_long_is_refused_and_it_goes_on(tmp_path: Path) -> None:
    halt = {"row": 5, "at": "epoch", "do": "halt", "index": 1, "epoch": 2}
    storm = Storm(tmp_path / "storm", halt, search=HASTY | {"trials": 5})
    process = storm.begin("--workers", "2", EPOCH_SECONDS="0.2")
    storm.wait_for(lambda trials: any(trial.user_attrs.get("retry_of") == 1 for trial in trials))
    (halted,) = [child for child in children(process.pid) if "State:\tT" in Path(f"/proc/{child}/status").read_text()]
    os.kill(halted, signal.SIGCONT)
    out, _ = finish(process)
    assert "Trial 1 is another worker's now" in out
    storm.check(5)
    assert outcomes([trial for trial in storm.trials if trial.user_attrs["index"] == 1]) == ["interrupted", "trained"]
    assert storm.trials[1].user_attrs["reason"] == SILENT


# --- a server --------------------------------------------------------------------------------------------------------


def test_rows_9_20_a_server_that_crashes_and_stays_away_loses_nothing_and_its_password_is_nowhere(
    tmp_path: Path, postgres: Server
) -> None:
    """Away for longer than the grace period, in the middle of two trainings, which go on meanwhile."""
    storm = Storm(
        tmp_path / "storm", storage_url=postgres.new_storage(), recipe={"epochs": 60}, search=HASTY | {"trials": 3}
    )
    process = storm.begin("--workers", "2", EPOCH_SECONDS="0.25")
    storm.wait_for(lambda trials: sum(len(trial.intermediate_values) >= 2 for trial in trials) == 2)
    seen = [process.pid, *children(process.pid)]
    words = "".join(Path(f"/proc/{one}/cmdline").read_text() for one in seen)
    postgres.stop()
    storm.met.update({9: 1, 20: 1})
    try:
        before = rows_of_checkpoints(storm)
        time.sleep(5)
        meanwhile = rows_of_checkpoints(storm)
    finally:
        postgres.start()
    out, err = finish(process)
    assert "Database unreachable" in out
    assert len(before) == 2
    for index, rows in before.items():
        assert len(meanwhile[index]) > len(rows) + 2  # epochs were trained while nobody could be told of them
    storm.check(3)
    assert outcomes(storm.trials) == ["trained"] * 3  # nobody was taken for dead when it was back
    written = [path.read_bytes() for path in storm.run.folder.rglob("*") if path.is_file()]
    for password in (PASSWORD, quote(PASSWORD, safe="")):
        assert password not in words + out + err
        assert not any(password.encode() in content for content in written)
    assert "***" in (storm.run.folder / "config.json").read_text()


# --- many workers ----------------------------------------------------------------------------------------------------


def load_images(storm: Storm) -> Dataset:
    wish = storm.run.config.data
    assert wish.path
    return load_dataset(None, Path(wish.path), protocol="holdout", holdout=wish.holdout, images=None)


@pytest.mark.slow
def test_rows_6_17_eight_workers_train_what_is_queued_once_and_in_all_as_many_as_were_asked_for(tmp_path: Path) -> None:
    """Twelve trials are queued by a person, one of which fails; the base is one worker's."""
    fault = {"at": "epoch", "do": "nan", "index": 3}
    storm = Storm(tmp_path / "storm", fault, base=write_base(tmp_path), search={"trials": 20})
    study = create(storm.run, load_images(storm)).candidates
    rest = {"width_1": 8, "width_2": 8, "width_3": 8, "pool_position_1": 1}
    for blocks in (1, 2):
        for width in range(8, 56, 8):
            study.enqueue_trial(rest | {"blocks": blocks, f"width_{blocks}": width})
    storm.start("--workers", "8")
    storm.met.update({6: 12, 17: 20})
    storm.check(20)
    queued, own = storm.trials[:12], storm.trials[12:]
    assert sorted(outcomes(queued)) == ["diverged"] + ["trained"] * 11
    assert outcomes(own) == ["trained"] * 9
    assert sorted(trial.user_attrs["index"] for trial in storm.trials) == list(range(21))
    assert [trial.state.name for trial in every(storm.run)[1].get_trials()] == ["COMPLETE"]


# --- at random -------------------------------------------------------------------------------------------------------

ROUNDS = 30


@pytest.mark.slow
def test_row_21_a_run_whose_processes_are_all_killed_thirty_times_at_random_moments(tmp_path: Path) -> None:
    """Two workers under one supervisor; what must always hold is looked up after each round, all of it at the end."""
    chance, killed = random.Random(0), 0
    storm = Storm(tmp_path / "storm", base=write_base(tmp_path), recipe={"epochs": 5}, search={"trials": 60})
    known: dict[int, FrozenTrial] = {}
    for _ in range(ROUNDS):
        before, deadline = states_of(storm), time.monotonic() + SECONDS
        process = storm.begin("--workers", "2", EPOCH_SECONDS="0.1")
        while process.poll() is None and states_of(storm) == before:  # or it would be killed before it did anything
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(chance.uniform(0, 1.5))
        if process.poll() is None:
            killed += 1
            for one in (process.pid, *children(process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
        process.communicate(timeout=SECONDS)
        finished = {trial.number: trial for trial in storm.trials if trial.state.is_finished()}
        assert {number: finished[number] for number in known} == known  # never lost, never changed
        known = finished
        running = [trial.user_attrs["index"] for trial in storm.trials if not trial.state.is_finished()]
        assert len(running) == len(set(running)) <= 2
    assert killed > ROUNDS / 2
    storm.start("--workers", "2")
    storm.met[21] += killed
    storm.check(60, known)


def states_of(storm: Storm) -> list[str]:
    """What the trials are at, none before there are any."""
    return [trial.state.name for trial in storm.trials] if (storm.run.folder / "config.json").exists() else []
