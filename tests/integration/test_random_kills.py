"""A run whose processes are all killed at random moments, again and again; trainings are NumPy's."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial

from tests.fault_table import KILL_ROUNDS
from tests.support.storms import (
    SECONDS,
    Storm,
    children,
    write_base,
)

ROUNDS = int(os.environ.get(KILL_ROUNDS, "6"))  # about 5 CPU-seconds each


@pytest.mark.long
def test_row_21_a_run_whose_processes_are_all_killed_again_and_again_at_random_moments(tmp_path: Path) -> None:
    """Two workers under one supervisor; what must always hold is looked up after each round, all of it at the end."""
    chance, killed = random.Random(0), 0
    storm = Storm(tmp_path / "storm", base=write_base(tmp_path), recipe={"epochs": 5}, search={"trials": 2 * ROUNDS})
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
    storm.check(2 * ROUNDS, known)


def states_of(storm: Storm) -> list[str]:
    """States of the trials; empty before the study exists."""
    return [trial.state.name for trial in storm.trials] if (storm.run.folder / "config.json").exists() else []
