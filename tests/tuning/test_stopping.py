"""Limits that end a study before its trials and a trial before its epochs, on records and in simulated runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState

from objective import Objective
from search.cli import worker
from search.errors import StudyStopped
from search.files import read_arrays, write_arrays
from search.finals import run as finals
from search.runner.events import Done, LimitHit, Recycle
from search.runner.job import FinalsOrder, make_order
from search.runner.loop import end_by_limit
from search.runner.references import train_reference
from search.runner.reporter import NullPublisher, Reporter
from search.study.records import FAILED, Record, counts, progress, records
from search.study.references import Reference
from search.study.tables import StopConfig
from search.training.result import Outcome, TrialOver
from search.training.trainer import KerasTrainer
from search.tuning.stopping import LimitReached, Limits, trials_since_best
from tests.support.processes import NUMPY, STUDY, Climbed, Ended, candidates, climbed, reopened, start, write_study
from tests.support.runs import SMALL, Bench, Pretence, pretence, small_run

__all__ = ["climbed", "pretence"]

HOUR = 3600.0


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


def record(number: int, accuracy: float | None = 0.5, outcome: str = "trained", seconds: float | None = 1.0) -> Record:
    return Record(number, None, outcome, None, 300, 9, accuracy, 1, accuracy, 2, seconds, (), {}, (), None)


def limits(seconds_left: float | None = None, **stop: Any) -> Limits:
    return Limits(StopConfig.model_validate(stop), seconds_left)


# --- between trials --------------------------------------------------------------------------------------------------


def test_without_a_limit_nothing_is_ever_enough() -> None:
    many = [record(number, 0.999, seconds=1e9) for number in range(99)]
    assert limits().reached(many, many) is None
    limits().check_study(1e9)
    limits().check_trial(1e9)


@pytest.mark.parametrize("best", [0.79, 0.8, 0.81])
def test_a_study_ends_when_its_accuracy_is_reached(best: float) -> None:
    told = limits(accuracy=0.8).reached([record(0, 0.2), record(1, best), record(2, 0.3)], [])
    assert told == (None if best < 0.8 else "80.00% was reached")


@pytest.mark.parametrize("outcome", ["pruned_at_rung", "diverged", "interrupted", "running"])
def test_only_a_trained_candidate_reaches_an_accuracy(outcome: str) -> None:
    assert limits(accuracy=0.8).reached([record(0, 0.2), record(1, 0.9, outcome)], []) is None
    assert limits(accuracy=0.8).reached([], []) is None


def test_a_study_ends_when_its_device_hours_are_spent() -> None:
    """By all that was trained, whatever came of it; a trial that was lost left its seconds to its retry."""
    watch = limits(device_hours=2)
    spent = [record(0, seconds=HOUR), record(1, None, "timed_out", 0.5 * HOUR), record(2, None, "interrupted", None)]
    assert watch.reached([], spent) is None
    assert watch.reached([], [*spent, record(3, seconds=0.5 * HOUR)]) == "the study had its 2 device-hours"


def test_a_run_ends_when_its_hours_are_over(pretence: Pretence) -> None:
    """The run began before its worker."""
    watch = limits(2.0 * HOUR, hours=3)
    for hour, told in ((1.9, None), (2.0, "the run had its 3 hours"), (9.0, "the run had its 3 hours")):
        pretence.seconds = hour * HOUR
        assert watch.reached([], []) == told
    assert limits(None).reached([], []) is None


def test_a_study_ends_when_it_has_waited_too_long_for_a_better_one() -> None:
    watch = limits(patience=2)
    found = [record(0, 0.5), record(1, 0.6), record(2, 0.6), record(3, None, "diverged")]
    assert watch.reached(found, []) is None
    assert watch.reached([*found, record(4, 0.59)], []) == "no better candidate came in 2 trained trials"
    assert watch.reached([*found, record(4, 0.9, "pruned_at_rung")], []) is not None  # behind others at its rung
    assert watch.reached([*found, record(4, 0.61)], []) is None


def expected(number: int, gain: float | None, outcome: str = "trained") -> Record:
    """A record whose sampler expected a gain, or chose at random (None)."""
    proposal = {"reason": "random"} if gain is None else {"reason": "learn", "expected_gain": gain}
    return replace(record(number, outcome=outcome), proposal=proposal)


def test_a_study_ends_when_the_last_trials_were_expected_to_gain_too_little() -> None:
    watch = limits(expected_gain=0.001)
    few = [expected(0, None), expected(1, 0.02), expected(2, 0.0009), expected(3, 0.0002, "pruned_at_rung")]
    assert watch.reached(few, []) is None
    assert watch.reached([*few, expected(4, 0.0, "interrupted")], []) is None  # its retry will count
    told = "each of the last 3 trials was expected to gain less than 0.1 points"
    assert watch.reached([*few, expected(4, 0.0005)], []) == told
    assert watch.reached([*few, expected(4, 0.002)], []) is None
    assert watch.reached([*few, expected(4, None)], []) is None  # sampled at random: nothing is known


OUTCOMES = st.sampled_from(["trained", "trained", "pruned_at_rung", "rejected", "interrupted", "running", *FAILED])
FOUND = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.4]), OUTCOMES), max_size=12)


@given(FOUND, st.randoms(use_true_random=False))
def test_patience_counts_what_came_to_a_verdict_after_the_first_of_the_best(
    drawn: list[tuple[float, str]], chance: Any
) -> None:
    found = [record(number, accuracy, outcome) for number, (accuracy, outcome) in enumerate(drawn)]
    verdicts = [one for one in found if one.outcome in ("trained", "pruned_at_rung")]
    trained = [one for one in verdicts if one.outcome == "trained"]
    top = max((one.best_val_accuracy or 0 for one in trained), default=None)
    first = next((one.number for one in trained if one.best_val_accuracy == top), -1)
    expected = sum(one.number > first for one in verdicts)
    assert trials_since_best(found) == expected
    chance.shuffle(found)
    assert trials_since_best(found) == expected


# --- inside a trial --------------------------------------------------------------------------------------------------


def test_inside_a_trial_what_others_took_counts_with_it() -> None:
    watch = limits(device_hours=2)
    watch.update([record(0, seconds=HOUR), record(1, seconds=0.5 * HOUR)])
    watch.check_study(0.4 * HOUR)
    with pytest.raises(LimitReached, match="the study had its 2 device-hours"):
        watch.check_study(0.5 * HOUR)


def test_inside_a_trial_the_hours_of_the_run_count(pretence: Pretence) -> None:
    watch = limits(HOUR, hours=1)
    watch.check_study(99 * HOUR)
    pretence.seconds = HOUR
    with pytest.raises(LimitReached, match="the run had its 1 hours"):
        watch.check_study(0)


def test_a_trial_is_over_after_its_minutes() -> None:
    watch = limits(trial_minutes=1.5)
    watch.check_trial(89.9)
    with pytest.raises(TrialOver, match=r"took longer than 1\.5 minutes") as caught:
        watch.check_trial(90)
    assert caught.value.outcome == Outcome.TIMED_OUT


def test_optuna_does_not_take_a_limit_for_the_failure_of_a_trial() -> None:
    assert not issubclass(LimitReached, Exception)


# --- in a run: two epochs a trial, of a second each ------------------------------------------------------------------


def run_of(folder: Path, pretence: Pretence, seconds_left: float | None = None, *, trials: int = 9, **stop: Any) -> Bench:
    return Bench(small_run(folder, stop=stop, search={"trials": trials}), pretence, seconds_left)


def outcomes(bench: Bench) -> list[str]:
    return [one.outcome for one in bench.records]


def ended(bench: Bench) -> list[str]:
    """Why the study ended, as whoever watches is told."""
    return [event.text for event in bench.events if isinstance(event, LimitHit)]


def test_a_run_ends_at_its_accuracy_and_resumes_with_a_higher_one(tmp_path: Path, pretence: Pretence) -> None:
    bench = run_of(tmp_path / "run", pretence, accuracy=0.8)
    bench.plays += [0.7, 0.8, 0.9]
    assert bench.train_candidates() == Done()
    assert (outcomes(bench), ended(bench)) == (["trained"] * 2, ["80.00% was reached"])
    assert bench.train_candidates() == Done()
    assert outcomes(bench) == ["trained"] * 2
    more = run_of(tmp_path / "run", pretence, accuracy=0.85)
    assert more.train_candidates() == Done()
    assert (outcomes(more), ended(more)) == (["trained"] * 3, ["85.00% was reached"])


def test_a_run_lasts_as_long_as_its_patience(tmp_path: Path, pretence: Pretence) -> None:
    bench = run_of(tmp_path / "run", pretence, patience=2)
    bench.plays += [0.5, 0.4, 0.6, 0.6, 0.5, 0.9]
    assert bench.train_candidates() == Done()
    assert (outcomes(bench), ended(bench)) == (["trained"] * 5, ["no better candidate came in 2 trained trials"])


def test_a_study_that_has_its_trials_is_not_said_to_have_been_ended(tmp_path: Path, pretence: Pretence) -> None:
    bench = run_of(tmp_path / "run", pretence, trials=2, patience=1)
    bench.plays += [0.5, 0.4]
    assert bench.train_candidates() == Done()
    assert (len(outcomes(bench)), ended(bench)) == (2, [])


@pytest.mark.parametrize("rule", ["device_hours", "hours"])
def test_a_limit_inside_a_trial_leaves_it_to_be_gone_on_with(rule: str, tmp_path: Path, pretence: Pretence) -> None:
    """Three seconds and a half: one trial of two seconds, and the second one's last epoch."""
    left = 3.5 if rule == "hours" else None
    bench = run_of(tmp_path / "run", pretence, left, trials=2, **{rule: 3.5 / HOUR})
    assert bench.train_candidates() == Done()
    assert outcomes(bench) == ["trained", "interrupted"]
    lost, queued = bench.study.trials[1:]
    assert list(lost.intermediate_values) == [1]
    assert [lost.user_attrs["reason"]] == ended(bench)
    assert queued.state == TrialState.WAITING

    more = run_of(tmp_path / "run", pretence, 99, trials=2, **{rule: 9.0})
    assert more.train_candidates() == Done()
    assert outcomes(more) == ["trained", "interrupted", "trained"]
    again = more.study.trials[-1]
    for name in ("index", "key", "seed"):
        assert again.user_attrs[name] == lost.user_attrs[name]
    assert again.params == lost.params


def test_a_limit_before_the_first_candidate_is_trained_says_what_to_raise(tmp_path: Path, pretence: Pretence) -> None:
    bench = run_of(tmp_path / "run", pretence, device_hours=1.0)
    for reason in ("the study had its 1 device-hours", "the run had its 2 hours"):
        with pytest.raises(StudyStopped, match=rf"{reason} before a candidate was trained; raise that limit in \[stop\]"):
            end_by_limit(bench.studies, bench.reporter, reason)
    assert ended(bench) == []


def test_device_time_is_that_of_the_references_too(tmp_path: Path, pretence: Pretence) -> None:
    bench = run_of(tmp_path / "run", pretence, device_hours=5 / HOUR)
    train_reference(bench.run, bench.studies, Reference("small", SMALL, None, None), bench.objective)
    assert [one.seconds for one in records(bench.studies.references)] == [2.0]
    assert bench.train_candidates() == Done()
    assert outcomes(bench) == ["trained", "interrupted"]


def test_a_trial_that_takes_too_long_is_over_and_the_next_is_begun(tmp_path: Path, pretence: Pretence) -> None:
    bench = run_of(tmp_path / "run", pretence, trials=2, trial_minutes=3 / 60)

    def slow() -> float:
        pretence.seconds_an_epoch = 1.75
        return 0.9

    def fast() -> float:
        pretence.seconds_an_epoch = 1.0
        return 0.5

    bench.plays += [fast, slow, fast]
    assert bench.train_candidates() == Done()
    assert outcomes(bench) == ["trained", "timed_out", "trained"]
    late = bench.study.trials[1]
    assert (late.state, late.user_attrs["reason"]) == (TrialState.PRUNED, "took longer than 0.05 minutes")
    assert (late.user_attrs["seconds"], list(late.intermediate_values)) == (3.5, [1])
    assert counts(bench.records) | {"rejected": 0} == {"trained": 2, "pruned_at_rung": 0, "rejected": 0, "failed": 1}
    assert progress(bench.records) == 2


def test_no_reference_is_too_slow(tmp_path: Path, pretence: Pretence) -> None:
    """The reference of all comparisons is trained to its end."""
    bench = run_of(tmp_path / "run", pretence, trial_minutes=0.001)
    train_reference(bench.run, bench.studies, Reference("small", SMALL, None, None), bench.objective)
    assert [one.outcome for one in records(bench.studies.references)] == ["trained"]


def test_limits_of_a_search_do_not_end_its_finals(
    tmp_path: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a trial of the random search beside them may be too slow, as in the search."""
    limits_of_control: list[Limits] = []

    def search_at_random(run: Any, studies: Any, control: Any, objective: Objective, reporter: Any, *, most: int) -> int:
        limits_of_control.append(objective.limits)
        return most

    monkeypatch.setattr(finals, "search_at_random", search_at_random)
    monkeypatch.setattr(KerasTrainer, "prepare", lambda trainer: "no device")
    run = small_run(tmp_path / "run", stop={"hours": 1, "device_hours": 1, "accuracy": 0.1, "trial_minutes": 1})
    order = replace(make_order(run, finals=FinalsOrder(control=True)), seconds_left=0.0)
    assert worker.work(order, Reporter(lambda event: None), NullPublisher(), KerasTrainer()) == Recycle()
    (watch,) = limits_of_control
    watch.check_study(9 * HOUR)
    watch.check_trial(59)
    with pytest.raises(TrialOver, match="took longer than 1 minutes"):
        watch.check_trial(60)


# --- as a user runs it -----------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_study_that_is_asked_for_an_accuracy_that_it_has_ends_at_once(climbed: Climbed) -> None:
    """The limits of a run may be others than those of the one before."""
    text = climbed.study.read_text(encoding="utf-8")
    climbed.study.write_text(text.replace("patience = 4", "accuracy = 0.2"), encoding="utf-8")
    ended = start(climbed.study, **NUMPY)
    assert (ended.status, ended.err) == (0, "")
    assert "The study ends here: 20.00% was reached." in ended.out
    assert candidates(climbed.study) == climbed.after


EPOCH = {"EPOCH_SECONDS": "0.1"}
ENDLESS = STUDY.replace('"base.json"', "0.5").replace("epochs = 6", "epochs = 100_000").replace("trials = 2", "trials = 1")


class Limited(NamedTuple):
    """A study of endless trainings, run until its device hours were spent, then with more until its first timed out."""

    first: Ended
    second: Ended
    left_off: list[dict[str, Any]]  # rows of the checkpoint between the two
    between: list[FrozenTrial]
    after: list[FrozenTrial]


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Limited:
    """Trained in NumPy, some ten epochs before each limit."""
    seconds, trial_seconds = 2, 4

    def asked(device_seconds: float) -> str:
        return f"{ENDLESS}\n[stop]\ndevice_hours = {device_seconds / HOUR}\ntrial_minutes = {trial_seconds / 60}\n"

    folder = tmp_path_factory.mktemp("limited")
    study = write_study(folder, asked(seconds))
    first, between = start(study, **NUMPY, **EPOCH), candidates(study)
    path = reopened(study).folder / "checkpoints" / "candidate-0.npz"
    arrays = read_arrays(path)
    about = json.loads(arrays["about"].tobytes())
    about["history"][0]["val_accuracy"] = 0.123  # which no training gives, so that whoever tells it has read it here
    write_arrays(path, arrays | {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)})
    write_study(folder, asked(trial_seconds + 3))
    return Limited(first, start(study, **NUMPY, **EPOCH), about["history"], between, candidates(study))


@pytest.mark.long
def test_device_hours_end_a_study_inside_its_first_trial_which_waits(limited: Limited) -> None:
    assert (limited.first.status, limited.first.err.count("\n")) == (1, 1)
    assert "device-hours before a candidate was trained; raise that limit in [stop]" in limited.first.err
    lost, queued = limited.between
    assert (lost.state, lost.user_attrs["outcome"]) == (TrialState.FAIL, "interrupted")
    assert "the study had its" in lost.user_attrs["reason"]
    assert queued.state == TrialState.WAITING
    assert len(limited.left_off) >= 1


@pytest.mark.long
def test_the_same_command_with_more_of_them_resumes_from_the_checkpoint(limited: Limited) -> None:
    again = limited.after[1]
    seen = [again.intermediate_values[epoch] for epoch in range(1, len(limited.left_off) + 1)]
    assert seen == [row["val_accuracy"] for row in limited.left_off]
    assert seen[0] == 0.123
    assert len(again.intermediate_values) > len(limited.left_off)


@pytest.mark.long
def test_a_timed_out_trial_is_reported_and_not_retried(limited: Limited) -> None:
    again = limited.after[1]
    assert (again.state, again.user_attrs["outcome"]) == (TrialState.PRUNED, "timed_out")
    assert "took longer than" in again.user_attrs["reason"]
    assert "trial 1: timed out, took longer than" in limited.second.out
    assert [trial.user_attrs["index"] for trial in limited.after[:2]] == [0, 0]
    assert 0 not in [trial.user_attrs["index"] for trial in limited.after[2:]]
    assert limited.second.status == 1  # device hours again, and still nothing was trained
    assert "device-hours before a candidate was trained" in limited.second.err
