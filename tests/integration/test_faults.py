"""Faults that two starts or two workers of a study meet: signals, locks, halts, a crashed server, many workers.

The rows are those of the table of faults in docs/reliability.md (`tests.fault_table`). After each storm the invariants are
checked in the database (`Storm.check`): as many trials as were asked for, each network once, nothing lost, doubled or left
running. The tests count how often each fault really happened. Trainings are NumPy's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from search.data.dataset import Dataset, load_dataset
from search.storage.recovery import SILENT
from search.study.run import create, every
from tests.support.servers import PASSWORD, Server
from tests.support.storms import (
    Storm,
    children,
    finish,
    history_of,
    last_of,
    outcomes,
    rows_of_checkpoints,
    write_base,
)

HASTY = {"grace_minutes": 3 / 60}  # a trial counts as lost after three seconds without a heartbeat


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


@pytest.mark.long
def test_row_5_results_of_a_worker_halted_for_too_long_are_rejected_and_it_continues(tmp_path: Path) -> None:
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


@pytest.mark.long
def test_rows_9_20_a_server_that_crashes_and_stays_away_loses_nothing_and_its_password_is_nowhere(
    tmp_path: Path, postgres: Server, real_processes: None
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


@pytest.mark.long
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
