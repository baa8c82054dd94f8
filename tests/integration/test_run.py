"""`python -m search run` with real trainings of small networks on digits: undisturbed, resumed, interrupted and killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState

from search.budget.cost import compute_cost
from search.files import read_arrays, read_json, read_weights
from search.networks.architecture import from_json
from search.study.run import Run, load
from tests.fault_table import record, results
from tests.support.processes import (
    BASE,
    NUMPY,
    SECONDS,
    STUDY,
    Ended,
    begin,
    candidates,
    end,
    outcomes,
    reopened,
    start,
    trained,
    worker_of,
    write_study,
)

# --- undisturbed -----------------------------------------------------------------------------------------------------


class Calm(NamedTuple):
    """A study run to two candidates, once more as it was, then to three."""

    study: Path
    first: Ended
    again: Ended
    more: Ended
    after: list[list[FrozenTrial]]  # the candidates after each


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    study = write_study(tmp_path_factory.mktemp("calm"))
    ended, after = [], []
    for words in ((), (), ("--trials", "3")):
        # The first has another hash seed than `Stormy`, whose processes are forks; the others are forks, too.
        ended.append(start(study, *words, **({} if ended else {"PYTHONHASHSEED": "1"})))
        assert (ended[-1].status, ended[-1].err) == (0, ""), ended[-1]
        after.append(candidates(study))
    return Calm(study, *ended, after)


def test_a_run_trains_as_many_as_asked_and_ends_in_a_leaderboard(calm: Calm) -> None:
    assert len(trained(calm.after[0])) == 2
    assert "2 trained" in calm.first.out
    assert "against base" in calm.first.out
    there = {path.name for path in reopened(calm.study).folder.iterdir()}
    assert there >= {"study.db", "config.json", "trials", "references", "report.md"}
    assert there >= {"best_model.py", "best_model.json", "best_model.keras"}


def test_the_same_command_again_trains_nothing_and_says_what_it_found(calm: Calm) -> None:
    assert calm.after[1] == calm.after[0]
    assert "Found 2 trained candidates" in calm.again.out
    assert "nothing is left to train" in calm.again.out


def test_more_trials_are_a_total_and_leave_those_that_are_there(calm: Calm) -> None:
    assert len(trained(calm.after[2])) == 3
    assert calm.after[2][: len(calm.after[0])] == calm.after[0]
    assert "Found 2 trained candidates, 0 rejected, 0 failed; resuming up to 3" in calm.more.out


def test_each_candidate_has_an_outcome_that_fits_its_state(calm: Calm) -> None:
    """A rejected proposal of the sampler is no trial."""
    assert {trial.user_attrs["outcome"] for trial in calm.after[2]} == {"trained"}
    for trial in calm.after[2]:
        assert (trial.state, trial.value) == (TrialState.COMPLETE, trial.user_attrs["best_val_accuracy"])
        assert trial.user_attrs["params"] < 1200
        assert trial.constraints["params"] == trial.user_attrs["params"] - 1199 <= 0
        assert max(trial.intermediate_values.values()) == trial.value
        assert sorted(trial.intermediate_values) == [1, 2, 3, 4, 5, 6]
        assert (reopened(calm.study).folder / "trials" / str(trial.number)).is_dir()


def test_the_base_is_no_candidate(calm: Calm) -> None:
    both = load(reopened(calm.study))
    assert [trial.user_attrs["reference"] for trial in both.references.trials] == ["base"]
    assert all("reference" not in trial.user_attrs for trial in both.candidates.trials)
    best = max(trained(both.candidates.trials), key=lambda trial: trial.value or 0)
    assert both.candidates.best_trial.value == best.value
    base = both.references.trials[0]
    assert base.user_attrs["params"] == compute_cost(from_json(BASE)).params > 1200
    for trial in trained(both.candidates.trials):
        assert trial.user_attrs["delta_vs_base"] == trial.value - base.value


def test_files_and_records_tell_the_same(calm: Calm) -> None:
    for trial in trained(calm.after[2]):
        history = read_json(reopened(calm.study).folder / "trials" / str(trial.number) / "history.json")
        assert [row["val_accuracy"] for row in history] == [trial.intermediate_values[step] for step in range(1, 7)]
        assert trial.user_attrs["final_val_accuracy"] == history[-1]["val_accuracy"]
        assert trial.user_attrs["best_epoch"] in range(1, 7)
        assert history[trial.user_attrs["best_epoch"] - 1]["val_accuracy"] == trial.value


def test_a_finished_trial_cannot_be_changed(calm: Calm) -> None:
    study = load(reopened(calm.study)).candidates
    trial = study.trials[0]
    with pytest.raises(RuntimeError):
        study._storage.set_trial_user_attr(trial._trial_id, "best_val_accuracy", 1.0)
    with pytest.raises(ValueError, match="Cannot tell"):
        study.tell(trial.number, 1.0)
    assert study.trials[0] == trial


@pytest.mark.long
def test_a_reference_for_other_images_is_rejected_in_one_line(calm: Calm) -> None:
    ended = start(calm.study, "--trials", "3", "--reference", "eip-b")
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert "eip-b: takes images of 32x32x3" in ended.err
    assert candidates(calm.study) == calm.after[2]


# --- disturbed -------------------------------------------------------------------------------------------------------


TRAINING = """
SELECT number FROM trials JOIN studies USING (study_id) WHERE study_name = 'tiny' AND state = 'RUNNING' AND EXISTS (
  SELECT 1 FROM trial_user_attributes held WHERE held.trial_id = trials.trial_id AND held.key = 'seed')
"""
COUNT = "SELECT count(*) FROM trials JOIN studies USING (study_id) WHERE study_name = 'tiny' AND state = '{}'"


def begin_and_wait(study: Path, *words: str, trained: int) -> subprocess.Popen[str]:
    """Start the study; returns while it trains a candidate, after that many are trained."""
    known = len(candidates(study)) if (study.parent / "tiny-run" / "config.json").exists() else 0
    process = begin(study, *words)
    deadline = time.monotonic() + SECONDS
    while True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        with contextlib.suppress(sqlite3.OperationalError):  # not there yet
            connection = sqlite3.connect(f"file:{study.parent / 'tiny-run' / 'study.db'}?mode=ro", uri=True)
            try:
                (done,) = connection.execute(COUNT.format("COMPLETE")).fetchone()
                at_work = [number for (number,) in connection.execute(TRAINING) if number >= known]
            finally:
                connection.close()
            if done >= trained and at_work:
                return process
        time.sleep(0.02)


def stop_at_checkpoint(run: Run, process: subprocess.Popen[str], child: int) -> Path:
    """Halt the worker in the middle of a training; the checkpoint that it has left so far."""
    deadline = time.monotonic() + SECONDS
    while True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        if found := list(run.folder.glob("checkpoints/candidate-*.npz")):
            os.kill(child, signal.SIGSTOP)
            time.sleep(0.05)  # it is halted by then, and what was there may have just gone
            if found[0].exists():
                return found[0]
            os.kill(child, signal.SIGCONT)
        time.sleep(0.001)


class Stormy(NamedTuple):
    """The study of `Calm`, interrupted and left without its worker before it has its three candidates."""

    study: Path
    interrupted: Ended
    seconds: float  # from the signal to the end
    checkpoint: Path  # a copy of the last trial's, from when its worker was killed
    last: Ended
    after_signal: list[FrozenTrial]


@pytest.fixture(scope="module")
def stormy(tmp_path_factory: pytest.TempPathFactory) -> Stormy:
    study = write_study(tmp_path_factory.mktemp("stormy"))
    words = ("--trials", "3")
    process = begin_and_wait(study, *words, trained=0)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    interrupted, seconds = end(process), time.monotonic() - sent
    after_signal = candidates(study)

    process = begin_and_wait(study, *words, trained=1)
    child = worker_of(process)
    left_off = stop_at_checkpoint(reopened(study), process, child)
    kept = shutil.copy(left_off, study.parent / "kept.npz")
    os.kill(child, signal.SIGKILL)
    return Stormy(study, interrupted, seconds, Path(kept), end(process), after_signal)


@pytest.mark.long
def test_row_4_a_signal_ends_a_run_in_time_with_its_status_and_one_line(stormy: Stormy) -> None:
    """SIGTERM in `test_rows_4_8_16_...`, without TensorFlow."""
    assert (stormy.interrupted.status, stormy.interrupted.err.count("\n")) == (130, 1)
    assert "the same command resumes" in stormy.interrupted.err
    assert stormy.seconds < 10


@pytest.mark.long
def test_finished_trials_are_kept_when_a_signal_comes(stormy: Stormy) -> None:
    both = load(reopened(stormy.study))
    assert [trial.state for trial in both.references.trials] == [TrialState.COMPLETE]  # trained once in all
    finished = [trial for trial in stormy.after_signal if trial.state.is_finished()]
    assert finished
    assert [both.candidates.trials[trial.number] for trial in finished] == finished


@pytest.mark.long
def test_a_run_continues_without_its_worker(stormy: Stormy) -> None:
    assert (stormy.last.status, stormy.last.err) == (0, "")
    assert "was killed by SIGKILL" in stormy.last.out
    (retried,) = [trial for trial in candidates(stormy.study) if trial.user_attrs["attempt"] == 2]
    assert retried.user_attrs["outcome"] == "trained"


@pytest.mark.long
def test_row_1_a_retry_resumes_where_the_killed_worker_ended(stormy: Stormy) -> None:
    """The seconds that an epoch took are never the same twice: those epochs were not trained again."""
    (retried,) = [trial for trial in candidates(stormy.study) if trial.user_attrs["attempt"] == 2]
    history = read_json(reopened(stormy.study).folder / "trials" / str(retried.number) / "history.json")
    before = json.loads(read_arrays(stormy.checkpoint)["about"].tobytes())["history"]
    assert 1 <= len(before) < len(history) == 6
    assert history[: len(before)] == before
    assert sorted(retried.intermediate_values) == [1, 2, 3, 4, 5, 6]


@pytest.mark.long
def test_no_checkpoint_outlives_its_trial(calm: Calm, stormy: Stormy) -> None:
    for study in (calm.study, stormy.study):
        folder = reopened(study).folder / "checkpoints"
        assert folder.is_dir()  # there have been some
        assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == []


@pytest.mark.long
def test_rows_1_4_a_disturbed_study_is_the_undisturbed_one(stormy: Stormy, calm: Calm) -> None:
    disturbed, undisturbed = candidates(stormy.study), calm.after[2]
    before = {trial.number: trial for trial in stormy.after_signal if trial.state.is_finished()}
    record({1: 1, 4: 1}, results(disturbed, asked=3, known=before))
    finals = {index: tries[-1] for index, tries in outcomes(disturbed).items()}
    assert finals == {index: tries[-1] for index, tries in outcomes(undisturbed).items()}
    assert [outcome for tries in outcomes(disturbed).values() for outcome in tries].count("interrupted") == 2
    keys = [trial.user_attrs["key"] for trial in trained(disturbed)]
    assert len(keys) == len(set(keys)) == 3

    def scores(trials: list[FrozenTrial]) -> list[tuple[Any, ...]]:
        names = ("index", "key", "params", "seed", "best_val_accuracy", "final_val_accuracy", "best_epoch", "delta_vs_base")
        return [(*(trial.user_attrs[name] for name in names), trial.params) for trial in trained(trials)]

    assert scores(disturbed) == scores(undisturbed)


@pytest.mark.long
def test_a_disturbed_study_has_the_same_weights_bit_for_bit(stormy: Stormy, calm: Calm) -> None:
    pairs = zip(trained(candidates(stormy.study)), trained(calm.after[2]), strict=True)
    for ours, theirs in pairs:
        one, other = (
            read_weights(reopened(study).folder / "trials" / str(trial.number) / "weights.npz")
            for study, trial in ((stormy.study, ours), (calm.study, theirs))
        )
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)


def test_rows_12_15_diverging_candidates_stop_the_run_with_what_they_share_and_another_seed_is_another_study(
    tmp_path: Path, calm: Calm
) -> None:
    """The real training's own reasons are those of `tests/training/test_train.py`."""
    text = STUDY.replace('"base.json"', "0.5").replace("trials = 2", "trials = 3\nseed = 1")
    study, faults = write_study(tmp_path / "study", text), [{"at": "epoch", "do": "nan", "times": 100}]
    ended = start(study, **NUMPY, FAULTS=json.dumps(faults), FAULTS_FOLDER=str(tmp_path))
    assert (ended.status, ended.err.count("\n")) == (1, 1), ended
    assert "5 trials in a row failed" in ended.err
    assert " became " in ended.err
    assert "[recipe]" in ended.err
    found = candidates(study)
    assert (ended.err.count("epoch"), len(trained(found))) == (1, 0)
    states = [trial.state for trial in found if trial.user_attrs.get("outcome") == "diverged"]
    assert len(states) >= 5  # the fifth, too, was stored before the run stopped; the worker may have begun others by then
    assert set(states) == {TrialState.PRUNED}
    record({12: len(states), 15: 1}, results(found))
    assert found[0].params != calm.after[0][0].params
    assert found[0].params.keys() == calm.after[0][0].params.keys()
