"""A study as a user runs it: started, resumed, killed and started again, with real trainings of small nets on digits.

What can go wrong between supervisor and worker is tried with a worker that only pretends; trainings are real where the
command line is run.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from search.budget.cost import compute_cost
from search.errors import StudyStopped, UserError
from search.files import read_arrays, read_json, read_weights
from search.networks.architecture import Architecture, fingerprint, from_json
from search.networks.layers import Dense, GlobalAveragePool, SeparableConv, Softmax
from search.runner import supervisor
from search.runner.events import DeviceReady, Done, Event, LimitHit, StudyLoaded, TrialStarted, WorkerLost
from search.runner.job import make_order
from search.runner.references import train_reference
from search.runner.supervisor import supervise
from search.storage.recovery import requeue
from search.study import records as study_records
from search.study.records import records
from search.study.references import Reference
from search.study.run import Run, create, load
from tests.fault_table import record, results
from tests.support.processes import (
    BASE,
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
from tests.support.runs import SMALL, Bench, Pretence, bench, digits, pretence, small_run

__all__ = ["bench", "pretence"]

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
        ended.append(start(study, *words))
        assert (ended[-1].status, ended[-1].err) == (0, ""), ended[-1]
        after.append(candidates(study))
    return Calm(study, *ended, after)


@pytest.mark.slow
def test_a_run_trains_as_many_as_asked_and_ends_in_a_leaderboard(calm: Calm) -> None:
    assert len(trained(calm.after[0])) == 2
    assert "2 trained" in calm.first.out
    assert "against base" in calm.first.out
    there = {path.name for path in reopened(calm.study).folder.iterdir()}
    assert there >= {"study.db", "config.json", "trials", "references", "report.md"}
    assert there >= {"best_model.py", "best_model.json", "best_model.keras"}


@pytest.mark.slow
def test_the_same_command_again_trains_nothing_and_says_what_it_found(calm: Calm) -> None:
    assert calm.after[1] == calm.after[0]
    assert "Found 2 trained candidates" in calm.again.out
    assert "nothing is left to train" in calm.again.out


@pytest.mark.slow
def test_more_trials_are_a_total_and_leave_those_that_are_there(calm: Calm) -> None:
    assert len(trained(calm.after[2])) == 3
    assert calm.after[2][: len(calm.after[0])] == calm.after[0]
    assert "Found 2 trained candidates, 0 rejected, 0 failed; resuming up to 3" in calm.more.out


@pytest.mark.slow
def test_each_candidate_has_an_outcome_that_fits_its_state(calm: Calm) -> None:
    """What the sampler refuses is no trial."""
    assert {trial.user_attrs["outcome"] for trial in calm.after[2]} == {"trained"}
    for trial in calm.after[2]:
        assert (trial.state, trial.value) == (TrialState.COMPLETE, trial.user_attrs["best_val_accuracy"])
        assert trial.user_attrs["params"] < 1200
        assert trial.constraints["params"] == trial.user_attrs["params"] - 1199 <= 0
        assert max(trial.intermediate_values.values()) == trial.value
        assert sorted(trial.intermediate_values) == [1, 2, 3, 4, 5, 6]
        assert (reopened(calm.study).folder / "trials" / str(trial.number)).is_dir()


@pytest.mark.slow
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


@pytest.mark.slow
def test_files_and_records_tell_the_same(calm: Calm) -> None:
    for trial in trained(calm.after[2]):
        history = read_json(reopened(calm.study).folder / "trials" / str(trial.number) / "history.json")
        assert [row["val_accuracy"] for row in history] == [trial.intermediate_values[step] for step in range(1, 7)]
        assert trial.user_attrs["final_val_accuracy"] == history[-1]["val_accuracy"]
        assert trial.user_attrs["best_epoch"] in range(1, 7)
        assert history[trial.user_attrs["best_epoch"] - 1]["val_accuracy"] == trial.value


@pytest.mark.slow
def test_a_finished_trial_cannot_be_changed(calm: Calm) -> None:
    study = load(reopened(calm.study)).candidates
    trial = study.trials[0]
    with pytest.raises(RuntimeError):
        study._storage.set_trial_user_attr(trial._trial_id, "best_val_accuracy", 1.0)
    with pytest.raises(ValueError, match="Cannot tell"):
        study.tell(trial.number, 1.0)
    assert study.trials[0] == trial


@pytest.mark.slow
def test_a_reference_for_other_images_is_refused_in_one_line(calm: Calm) -> None:
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
    """The study of `Calm`, disturbed in five ways before it has its three candidates."""

    study: Path
    interrupted: dict[int, tuple[Ended, float]]  # by signal: how the run ended, and seconds after the signal
    checkpoint: Path  # a copy of the last trial's, from when its worker was killed
    last: Ended
    after_signals: list[FrozenTrial]


@pytest.fixture(scope="module")
def stormy(tmp_path_factory: pytest.TempPathFactory) -> Stormy:
    study = write_study(tmp_path_factory.mktemp("stormy"))
    words = ("--trials", "3")
    interrupted = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        process = begin_and_wait(study, *words, trained=0)
        sent = time.monotonic()
        process.send_signal(number)
        interrupted[int(number)] = end(process), time.monotonic() - sent
    after_signals = candidates(study)

    process = begin_and_wait(study, *words, trained=1)
    process.kill()
    end(process)

    process = begin_and_wait(study, *words, trained=2)
    child = worker_of(process)
    left_off = stop_at_checkpoint(reopened(study), process, child)
    kept = shutil.copy(left_off, study.parent / "kept.npz")
    os.kill(child, signal.SIGKILL)
    return Stormy(study, interrupted, Path(kept), end(process), after_signals)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_row_4_a_signal_ends_a_run_in_time_with_its_status_and_one_line(number: int, status: int, stormy: Stormy) -> None:
    ended, seconds = stormy.interrupted[number]
    assert (ended.status, ended.err.count("\n")) == (status, 1)
    assert "the same command resumes" in ended.err
    assert seconds < 10


@pytest.mark.slow
def test_what_was_there_when_the_signal_came_is_kept(stormy: Stormy) -> None:
    both = load(reopened(stormy.study))
    assert [trial.state for trial in both.references.trials] == [TrialState.COMPLETE]  # trained once in all
    finished = [trial for trial in stormy.after_signals if trial.state.is_finished()]
    assert finished
    assert [both.candidates.trials[trial.number] for trial in finished] == finished


@pytest.mark.slow
def test_a_run_goes_on_by_itself_without_its_worker(stormy: Stormy) -> None:
    assert (stormy.last.status, stormy.last.err) == (0, "")
    assert "was killed by SIGKILL" in stormy.last.out
    (retried,) = [trial for trial in candidates(stormy.study) if trial.user_attrs["attempt"] == 2]
    assert retried.user_attrs["outcome"] == "trained"


@pytest.mark.slow
def test_row_1_a_retry_goes_on_from_where_the_killed_worker_left_off(stormy: Stormy) -> None:
    """The seconds that an epoch took are never the same twice: those epochs were not trained again."""
    (retried,) = [trial for trial in candidates(stormy.study) if trial.user_attrs["attempt"] == 2]
    history = read_json(reopened(stormy.study).folder / "trials" / str(retried.number) / "history.json")
    before = json.loads(read_arrays(stormy.checkpoint)["about"].tobytes())["history"]
    assert 1 <= len(before) < len(history) == 6
    assert history[: len(before)] == before
    assert sorted(retried.intermediate_values) == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_no_checkpoint_outlives_its_trial(calm: Calm, stormy: Stormy) -> None:
    for study in (calm.study, stormy.study):
        folder = reopened(study).folder / "checkpoints"
        assert folder.is_dir()  # there have been some
        assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == []


@pytest.mark.slow
def test_rows_1_4_a_disturbed_study_is_the_undisturbed_one(stormy: Stormy, calm: Calm) -> None:
    disturbed, undisturbed = candidates(stormy.study), calm.after[2]
    before = {trial.number: trial for trial in stormy.after_signals if trial.state.is_finished()}
    record({1: 2, 4: len(stormy.interrupted)}, results(disturbed, asked=3, known=before))
    finals = {index: tries[-1] for index, tries in outcomes(disturbed).items()}
    assert finals == {index: tries[-1] for index, tries in outcomes(undisturbed).items()}
    assert [outcome for tries in outcomes(disturbed).values() for outcome in tries].count("interrupted") == 4
    keys = [trial.user_attrs["key"] for trial in trained(disturbed)]
    assert len(keys) == len(set(keys)) == 3

    def scores(trials: list[FrozenTrial]) -> list[tuple[Any, ...]]:
        names = ("index", "key", "params", "seed", "best_val_accuracy", "final_val_accuracy", "best_epoch", "delta_vs_base")
        return [(*(trial.user_attrs[name] for name in names), trial.params) for trial in trained(trials)]

    assert scores(disturbed) == scores(undisturbed)


@pytest.mark.slow
def test_a_disturbed_study_has_the_same_weights_bit_for_bit(stormy: Stormy, calm: Calm) -> None:
    pairs = zip(trained(candidates(stormy.study)), trained(calm.after[2]), strict=True)
    for ours, theirs in pairs:
        one, other = (
            read_weights(reopened(study).folder / "trials" / str(trial.number) / "weights.npz")
            for study, trial in ((stormy.study, ours), (calm.study, theirs))
        )
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.slow
def test_rows_12_15_diverging_candidates_stop_the_run_with_what_they_share_and_another_seed_is_another_study(
    tmp_path: Path, calm: Calm
) -> None:
    """A learning rate of a billion."""
    text = STUDY.replace("0.02", "1e9").replace('"base.json"', "0.5").replace("trials = 2", "trials = 3\nseed = 1")
    study = write_study(tmp_path / "study", text)
    ended = start(study)
    assert (ended.status, ended.err.count("\n")) == (1, 1), ended
    assert "5 trials in a row failed" in ended.err
    assert " became " in ended.err
    assert "[recipe]" in ended.err
    found = candidates(study)
    assert (ended.err.count("epoch"), len(trained(found))) == (1, 0)
    states = [trial.state for trial in found if trial.user_attrs.get("outcome") == "diverged"]
    assert states == [TrialState.PRUNED] * 5  # the last one, too, was told before the run stopped
    record({12: 5, 15: 1}, results(found))
    assert found[0].params != calm.after[0][0].params
    assert found[0].params.keys() == calm.after[0][0].params.keys()


# --- the objective and the worker, with a training that only pretends ------------------------------------------------


def raising(error: BaseException) -> Callable[..., float]:
    def fit(*words: object) -> float:
        raise error

    return fit


def over(outcome: Any) -> Callable[[], float]:
    from search.training.train import TrialOver

    return raising(TrialOver(outcome, "a reason"))


class Killed(BaseException):
    """As if the process had ended here."""


VALUES = {"blocks": 1, "width_1": 8, "width_2": 8, "width_3": 8, "pool_position_1": 1}


def test_the_same_network_and_recipe_is_not_trained_twice(bench: Bench) -> None:
    for width in (8, 16, 8):  # of the second block, which this net does not have
        bench.study.enqueue_trial(VALUES | {"width_2": width})
        bench.one_trial()
    first, *others = bench.study.trials
    assert [trial.user_attrs["outcome"] for trial in (first, *others)] == ["trained", "rejected", "rejected"]
    assert {trial.user_attrs.get("reason") for trial in others} == {"the same network and recipe as another trial"}
    assert {trial.value for trial in others} == {None}
    assert {trial.state for trial in others} == {TrialState.PRUNED}


def test_a_queued_network_over_the_budget_is_rejected_and_never_built(bench: Bench) -> None:
    bench.study.enqueue_trial(VALUES | {"width_1": 48, "width_2": 48, "width_3": 48, "blocks": 3})
    trial = bench.one_trial()
    assert (trial.state, trial.user_attrs["outcome"]) == (TrialState.PRUNED, "rejected")
    assert trial.constraints["params"] == trial.user_attrs["params"] - 1199 > 0
    assert not (bench.run.folder / "trials").exists()


def test_what_the_sampler_proposes_is_trained_and_its_refusals_are_no_trials(bench: Bench) -> None:
    found = [bench.one_trial() for _ in range(12)]
    assert {trial.user_attrs["outcome"] for trial in found} == {"trained"}
    assert len({trial.user_attrs["key"] for trial in found}) == 12
    assert all(trial.user_attrs["params"] < 1200 for trial in found)
    told = [trial.user_attrs["refused"] for trial in found if "refused" in trial.user_attrs]
    assert sum(one.get("over budget", 0) for one in told) > 12  # of this space about one in five fits
    assert study_records.counts(bench.records)["rejected"] == sum(sum(one.values()) for one in told)
    shown = [event.refused for event in bench.events if isinstance(event, TrialStarted)]
    assert sum(shown) == sum(sum(one.values()) for one in told)


def test_what_was_only_interrupted_is_trained_by_its_retry(bench: Bench) -> None:
    """Which holds the claim of the trial that it stands for."""
    bench.plays.append(raising(Killed()))
    with pytest.raises(Killed):
        bench.one_trial()
    (lost,) = bench.study.trials
    assert lost.state == TrialState.RUNNING
    requeue(bench.study)
    again = bench.one_trial()
    assert again.user_attrs["outcome"] == "trained"
    for name in ("key", "index", "seed"):
        assert again.user_attrs[name] == lost.user_attrs[name]
    assert again.params == lost.params


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        ("diverged", TrialState.PRUNED),
        ("timed_out", TrialState.PRUNED),
        ("out_of_memory", TrialState.FAIL),
        ("failed", TrialState.FAIL),
    ],
)
def test_a_training_that_is_over_ends_its_trial_and_not_the_run(outcome: str, state: TrialState, bench: Bench) -> None:
    bench.plays.append(over(outcome))
    trial = bench.one_trial()
    assert (trial.state, trial.user_attrs["outcome"], trial.user_attrs["reason"]) == (state, outcome, "a reason")
    assert study_records.counts(bench.records)["failed"] == 1
    assert bench.one_trial().user_attrs["outcome"] == "trained"


def test_an_error_that_nobody_foresaw_is_the_reason_of_its_trial(bench: Bench) -> None:
    """A bug in Keras, a full disk: the trial has failed, and the record says of what."""
    bench.plays.append(raising(RuntimeError("the disk is full")))
    failed = bench.one_trial()
    assert failed.state == TrialState.FAIL
    assert failed.user_attrs.get("outcome") == "failed"
    assert "the disk is full" in failed.user_attrs.get("reason", "")


def test_a_note_that_cannot_be_written_does_not_cost_what_was_trained(bench: Bench) -> None:
    """The worker ends of it; the trial has its result."""
    bench.reporter.annotate = raising(OSError("no space for a note"))
    with pytest.raises(OSError, match="no space for a note"):
        bench.one_trial()
    (trial,) = bench.study.trials
    assert (trial.state, trial.value, trial.user_attrs["outcome"]) == (TrialState.COMPLETE, 0.5, "trained")


def test_a_retry_draws_and_trains_what_the_first_try_did(bench: Bench, pretence: Pretence) -> None:
    """Also where it was lost before its parameters were known: they come from the root seed and its logical index."""
    other = Bench(small_run(bench.run.folder.parent / "other"), pretence)
    first, second = bench.one_trial(), bench.one_trial()
    lost = other.study.ask()  # before anything was drawn
    requeue(other.study)
    again = [other.one_trial(), other.one_trial()]
    assert [trial.number for trial in again] == [lost.number + 1, lost.number + 2]
    for ours, theirs in zip((first, second), again, strict=True):
        assert ours.params == theirs.params
        assert ours.user_attrs["seed"] == theirs.user_attrs["seed"]
    assert first.params != second.params


WIDE = Architecture((8, 8, 1), 10, (SeparableConv(99), GlobalAveragePool(), Dense(10), Softmax()), "wide")


def test_a_reference_that_was_interrupted_does_not_take_another_ones_training(bench: Bench) -> None:
    """`run --reference small`, killed; then `run --reference wide`: small is still queued when wide is to be trained."""
    references = bench.studies.references
    known = {"reference": "small", "fingerprint": fingerprint(SMALL)}
    references.enqueue_trial({}, user_attrs=known | {"index": 0, "attempt": 1})
    references.ask()
    requeue(references)
    for network in (WIDE, SMALL):
        train_reference(bench.run, bench.studies, Reference(network.name, network, None, None), bench.objective)
    found = {record.reference: record.params for record in records(references) if record.outcome == "trained"}
    assert found == {"wide": compute_cost(WIDE).params, "small": compute_cost(SMALL).params}
    for network in (SMALL, WIDE):
        kept = read_json(bench.run.folder / "references" / network.name / "training.json")
        assert fingerprint(from_json(json.dumps(kept["architecture"]))) == fingerprint(network)


def test_a_reference_is_trained_once(bench: Bench) -> None:
    opponent = Reference("small", SMALL, None, None)
    for _ in range(2):
        train_reference(bench.run, bench.studies, opponent, bench.objective)
    assert [trial.state for trial in bench.studies.references.trials] == [TrialState.COMPLETE]


def test_another_network_of_the_same_name_is_refused(bench: Bench) -> None:
    train_reference(bench.run, bench.studies, Reference("small", SMALL, None, None), bench.objective)
    with pytest.raises(UserError, match="small: this run knows another network by this name"):
        train_reference(bench.run, bench.studies, Reference("small", WIDE, None, None), bench.objective)


FEW = {"blocks": 1, "width": [8, 16], "pools": 0}  # two networks, of 147 and 275 parameters


def test_a_space_with_fewer_networks_than_trials_stops_the_study_and_says_so(tmp_path: Path, pretence: Pretence) -> None:
    bench = Bench(small_run(tmp_path / "run", space=FEW), pretence)
    told = r"no new network .* smallest network of the space has 147: .* widen the space, or ask for 2 trials$"
    with pytest.raises(StudyStopped, match=told) as caught:
        bench.train_candidates()
    assert len(str(caught.value).splitlines()) == 1
    assert [record.outcome for record in bench.records] == ["trained", "trained", "interrupted"]


def test_the_one_network_of_a_space_is_not_proposed_again_when_it_failed(tmp_path: Path, pretence: Pretence) -> None:
    """Optuna asks no sampler where there is no parameter; a rejection in a row for ever would be no end."""
    bench = Bench(small_run(tmp_path / "run", space=FEW | {"width": 8}, search={"trials": 1}), pretence)
    bench.plays.append(over("diverged"))
    with pytest.raises(StudyStopped, match=r"no new network .* widen the space$"):
        bench.train_candidates()
    assert [record.outcome for record in bench.records] == ["diverged", "interrupted"]


def test_a_grid_is_done_when_each_of_its_cells_that_fits_was_trained(tmp_path: Path, pretence: Pretence) -> None:
    """Of the widths 8, 16 and 80 the last is over the budget; without a number of trials all cells are asked for."""
    space = FEW | {"width": [8, 80, 16]}
    bench = Bench(small_run(tmp_path / "run", space=space, search={"sampler": "grid"}), pretence)
    assert bench.run.config.trials == 3
    assert bench.train_candidates() == Done()
    assert [record.params for record in bench.records if record.outcome == "trained"] == [147, 275]
    assert bench.events[-1] == LimitHit("every cell of the grid was tried")


# --- supervisor and worker, with a worker that only pretends ---------------------------------------------------------

PRETENDER = """#!{python}
import json, os, sys, time
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, os.getcwd())
order = json.loads(sys.stdin.readline())
turns = Path({folder!r}) / "turns"
turn = len(turns.read_text()) if turns.exists() else 0
turns.write_text("x" * (turn + 1))
def say(**event):
    print(json.dumps(event), flush=True)
def begin():
    import optuna
    from search.storage.database import open_storage
    study = optuna.load_study(storage=open_storage(order["storage_url"]), study_name="tiny")
    trial = study.ask()
    if "index" not in trial.user_attrs:
        trial.set_user_attr("index", turn)
        trial.set_user_attr("attempt", 1)
    trial.set_user_attr("worker", order["worker"])
    return trial
{body}
"""


class Recorder:
    """A view that keeps what it is shown."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def show(self, event: Event, worker: int = 0) -> None:
        self.events.append(event)


PYTHON = sys.executable
STALL_MINUTES = 0.1  # a worker may take seconds to import Optuna on a machine that has other work


class Stage(NamedTuple):
    run: Run
    view: Recorder
    plays: Callable[[str], None]

    def supervise(self) -> None:
        supervise(self.run, make_order(self.run), self.view)

    @property
    def turns(self) -> int:
        """How many workers were started."""
        return len((self.run.folder.parent / "turns").read_text())


def stage_of(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Stage:
    """A run whose worker is a script."""
    run = small_run(folder / "run", search={"stall_minutes": STALL_MINUTES}, **changes)
    create(run, digits())

    def plays(body: str) -> None:
        script = folder / "pretender"
        script.write_text(PRETENDER.format(python=PYTHON, folder=str(folder), body=body), encoding="utf-8")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.5)
    return Stage(run, Recorder(), plays)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield stage_of(tmp_path, monkeypatch)
    optuna.logging.set_verbosity(optuna.logging.INFO)


def test_workers_follow_each_other_until_one_is_done(stage: Stage) -> None:
    stage.plays('say(event="recycle" if turn < 2 else "done")')
    stage.supervise()
    assert stage.turns == 3


def test_each_worker_is_told_what_is_left_of_the_hours_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock of the run, however many workers it takes; without a limit, nothing."""
    told = 'say(event="device", text=str(order["seconds_left"]), data=""); say(event="recycle" if turn < 2 else "done")'
    for hours in (None, 1.0):
        stage = stage_of(tmp_path / str(hours), monkeypatch, stop={"hours": hours})
        stage.plays(told)
        stage.supervise()
        texts = [event.text for event in stage.view.events if isinstance(event, DeviceReady)]
        if hours is None:
            assert texts == ["None"] * 3
        else:
            left = [float(text) for text in texts]
            assert 3600 >= left[0] > left[1] > left[2] > 3600 - SECONDS


def test_a_torn_line_is_passed_over(stage: Stage) -> None:
    stage.plays('print("{torn", flush=True); say(event="found", trials=3, done=0); say(event="done")')
    stage.supervise()
    assert stage.view.events == [StudyLoaded(trials=3, done=0)]


@pytest.mark.parametrize(("event", "error"), [("user_error", UserError), ("stopped", StudyStopped)])
def test_a_worker_can_end_the_run(event: str, error: type[Exception], stage: Stage) -> None:
    stage.plays(f'say(event="{event}", text="the reason")')
    with pytest.raises(error, match=r"^the reason$"):
        stage.supervise()


def test_a_worker_that_dies_before_any_trial_is_not_started_again(stage: Stage) -> None:
    stage.plays("os._exit(3)")
    with pytest.raises(StudyStopped, match=r"crashed with exit status 3 before any trial; see .*worker\.log"):
        stage.supervise()
    assert stage.turns == 1


def test_row_15_a_trial_that_kills_its_worker_is_tried_twice_and_the_run_goes_on(stage: Stage) -> None:
    stage.plays('say(event="done") if turn == 2 else (begin(), os.kill(os.getpid(), 9))')
    stage.supervise()
    found = load(stage.run).candidates.trials
    assert [(trial.user_attrs["attempt"], trial.user_attrs["outcome"]) for trial in found] == [
        (1, "interrupted"),
        (2, "failed"),
    ]
    assert "was killed by SIGKILL" in found[-1].user_attrs["reason"]
    assert [event.numbers for event in stage.view.events if isinstance(event, WorkerLost)] == [(0,), (1,)]
    record({15: 2}, results(found))


def test_workers_that_keep_dying_stop_the_run_with_what_they_share(stage: Stage) -> None:
    stage.plays("begin(); os.abort()")
    with pytest.raises(StudyStopped, match=r"5 trials in a row failed \(was killed by SIGABRT\)"):
        stage.supervise()
    assert stage.turns == 5
    assert all(trial.state == TrialState.FAIL for trial in load(stage.run).candidates.trials[:5])


@pytest.mark.parametrize("between", ["", 'say(event="end", number=9, outcome="rejected", reason="r")'])
def test_five_failed_ends_in_a_row_stop_the_run_whatever_was_rejected_between(between: str, stage: Stage) -> None:
    stage.plays(
        "for number in range(9):\n"
        '    say(event="end", number=number, outcome="diverged", reason="nan")\n'
        f"    {between or 'pass'}\n"
        "time.sleep(60)"
    )
    with pytest.raises(StudyStopped, match=r"5 trials in a row failed \(nan\)"):
        stage.supervise()


def test_a_trained_one_between_starts_the_count_again(stage: Stage) -> None:
    stage.plays(
        "for number in range(12):\n"
        '    say(event="end", number=number, outcome="trained" if number % 4 == 3 else "diverged", reason="nan")\n'
        'say(event="done")'
    )
    stage.supervise()


def test_row_14_a_worker_without_a_sign_of_life_is_stopped_and_its_trial_timed_out(stage: Stage) -> None:
    stage.plays(
        "import signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if turn: say(event='done')\n"
        "else:\n    begin(); time.sleep(600)"
    )
    started = time.monotonic()
    stage.supervise()
    assert time.monotonic() - started < 30
    (trial,) = load(stage.run).candidates.trials
    record({14: 1}, results([trial]))
    assert (trial.state, trial.user_attrs["outcome"]) == (TrialState.FAIL, "timed_out")
    assert f"no sign of life for {STALL_MINUTES} minutes" in trial.user_attrs["reason"]


def test_no_worker_outlives_its_run(stage: Stage) -> None:
    stage.plays(
        f'Path({str(stage.run.folder)!r}, "pid").write_text(str(os.getpid()))\n'
        'say(event="stopped", text="t"); time.sleep(60)'
    )
    with pytest.raises(StudyStopped):
        stage.supervise()
    pid = int((stage.run.folder / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_signals_are_handled_as_before_once_the_run_is_over(stage: Stage) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stage.plays('say(event="done")')
    stage.supervise()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
