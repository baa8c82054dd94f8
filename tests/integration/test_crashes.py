"""Runs whose processes are all killed at chosen points, and started again; trainings are NumPy's."""

from __future__ import annotations

import signal
from typing import Any, NamedTuple

import numpy as np
import pytest
from optuna.trial import FrozenTrial

from search.files import read_arrays
from tests.support.storms import (
    Storm,
    history_of,
    last_of,
    rows_of_checkpoints,
)

CRASHES = [
    {"row": 2, "at": "begun", "do": "crash", "index": 0},
    {"row": 1, "at": "epoch", "do": "crash", "index": 1, "epoch": 3},
    {"row": 1, "at": "epoch", "do": "crash", "index": 1, "epoch": 4},
    {"row": 3, "at": "tell", "do": "crash", "index": 2},
    {"row": 10, "at": "epoch", "do": "full", "index": 3, "epoch": 2},
    {"row": 11, "at": "checkpoint", "do": "torn", "index": 3, "epoch": 3},
]
CRASHED = [*[-signal.SIGKILL] * 4, 1]  # exit statuses, start after start


class Crashed(NamedTuple):
    """A study killed four times and stopped by a full disk, which lost a worker; and the same one undisturbed."""

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


def test_row_1_a_run_that_is_killed_in_an_epoch_continues_in_that_epoch(crashed: Crashed) -> None:
    """The seconds that an epoch took are never the same twice: those before were not trained again."""
    after = history_of(crashed.storm, last_of(crashed.trials, 1))
    for start, epochs in ((1, 2), (2, 3)):
        before = crashed.left_off[start][1]
        assert (len(before), len(after)) == (epochs, 4)
        assert after[:epochs] == before


def test_row_2_a_run_that_is_killed_before_a_trials_first_heartbeat_leaves_it_to_the_next_start(crashed: Crashed) -> None:
    assert [trial.user_attrs["outcome"] for trial in crashed.trials if trial.user_attrs["index"] == 0] == [
        *("interrupted", "trained")
    ]


def test_row_3_a_trained_but_unreported_trial_is_reported_and_not_trained_again(crashed: Crashed) -> None:
    assert [trial.user_attrs["outcome"] for trial in crashed.trials if trial.user_attrs["index"] == 2] == ["trained"]


def test_row_10_a_full_disk_stops_the_run_with_its_reason_and_keeps_the_checkpoint_before(crashed: Crashed) -> None:
    for told in crashed.full:
        assert told.count("\n") == 1
        assert "nothing more can be written ([Errno 27] File too large); make space; the same command resumes" in told
    after = history_of(crashed.storm, last_of(crashed.trials, 3))
    before = crashed.left_off[-1][3]
    assert len(before) == 1
    assert after[:1] == before


def test_row_11_a_torn_checkpoint_is_noticed_and_the_one_before_it_used(crashed: Crashed) -> None:
    assert "candidate-3.npz: skipped, the checkpoint is damaged" in crashed.storm.log
    assert len(history_of(crashed.storm, last_of(crashed.trials, 3))) == 4


def test_rows_1_2_3_10_11_a_study_that_met_them_all_is_the_undisturbed_one(crashed: Crashed) -> None:
    assert crashed.storm.happened == {1: 2, 2: 1, 3: 1, 10: 1, 11: 1}
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
