"""Recovery: lost trials closed and queued again."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from search.data.dataset import Dataset
from search.storage.queue import next_index
from search.storage.recovery import requeue
from search.study.records import counts, records
from search.study.run import Run, create
from space import parameters
from tests import fault_table
from tests.support.small_studies import TRAINED, begin_trial, digits, queued_trials, run, study

__all__ = ["digits", "run", "study"]


@pytest.mark.parametrize("attempt", [1, 2, 7])
def test_an_interrupted_trial_is_always_queued_again_as_the_same_attempt(
    attempt: int, run: Run, study: optuna.Study
) -> None:
    lost = begin_trial(study, run.config, index=5, attempt=attempt, params=300)
    assert requeue(study) == [lost.number]
    (again,) = queued_trials(study)
    assert again.user_attrs == {"index": 5, "attempt": attempt, "retry_of": lost.number}
    old = study.trials[lost.number]
    assert (old.state, old.value) == (TrialState.FAIL, None)
    assert (old.user_attrs["outcome"], old.user_attrs["reason"]) == ("interrupted", "the run was stopped")


def test_a_failed_trial_gets_two_attempts(run: Run, study: optuna.Study) -> None:
    outcomes = []
    for expected in (2, None):
        lost = begin_trial(study)
        if lost.number == 0:
            lost.set_user_attr("index", 0)
            lost.set_user_attr("attempt", 1)
        assert requeue(study, outcome="failed", reason="the worker was killed by SIGKILL") == [lost.number]
        assert [trial.user_attrs["attempt"] for trial in queued_trials(study)] == ([expected] if expected else [])
        outcomes.append(study.trials[lost.number].user_attrs["outcome"])
        assert study.trials[lost.number].user_attrs["reason"] == "the worker was killed by SIGKILL"
    assert outcomes == ["interrupted", "failed"]
    assert counts(records(study)) == {"trained": 0, "pruned_at_rung": 0, "rejected": 0, "failed": 1}


def test_an_interruption_between_does_not_use_up_an_attempt(study: optuna.Study) -> None:
    begin_trial(study, index=0, attempt=1)
    for outcome, attempt in (("failed", 2), ("interrupted", 2), ("interrupted", 2)):
        requeue(study, outcome=outcome)
        assert [trial.user_attrs["attempt"] for trial in queued_trials(study)] == [attempt]
        begin_trial(study)
    requeue(study, outcome="failed")
    assert queued_trials(study) == []


def test_a_trial_that_timed_out_is_not_tried_again(run: Run, study: optuna.Study) -> None:
    lost = begin_trial(study, run.config, index=0, attempt=1, params=300)
    assert requeue(study, outcome="timed_out", reason="no sign of life") == [lost.number]
    assert queued_trials(study) == []
    assert records(study)[0].outcome == "timed_out"
    assert counts(records(study))["failed"] == 1


def test_parameters_that_are_all_there_are_tried_again_as_they_are(run: Run, study: optuna.Study) -> None:
    lost = begin_trial(study, run.config, index=0, attempt=1, params=300)
    drawn = study.trials[lost.number].params
    requeue(study)
    study.sampler = optuna.samplers.RandomSampler(seed=99)
    again = begin_trial(study, run.config)
    assert again.params == drawn
    assert len(drawn) == 6


def test_parameters_that_are_half_there_are_drawn_anew_from_the_same_seed(run: Run, study: optuna.Study) -> None:
    study.sampler = optuna.samplers.RandomSampler(seed=3)
    lost = begin_trial(study, index=0, attempt=1)
    for name, domain in list(parameters(run.config.space).items())[:2]:
        domain.suggest(lost, name)
    requeue(study)
    study.sampler = optuna.samplers.RandomSampler(seed=3)
    again = begin_trial(study, run.config)
    assert len(again.params) == 6
    assert again.params.items() >= study.trials[lost.number].params.items()


def test_a_trial_killed_before_it_knew_its_index_is_queued_with_the_next(study: optuna.Study) -> None:
    study.tell(begin_trial(study, index=0, outcome="trained"), 0.5)
    lost = begin_trial(study)
    assert requeue(study) == [lost.number]
    assert [trial.user_attrs for trial in queued_trials(study)] == [{"index": 1, "attempt": 1, "retry_of": 1}]
    assert next_index(study.trials) == 2


@pytest.mark.parametrize("step", ["search.storage.queue.insert_trial", "search.storage.recovery.write_attributes"])
def test_a_crash_while_a_trial_is_requeued_changes_nothing(
    step: str, study: optuna.Study, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead before the retry is queued; and when it is, but the lost one is not closed."""
    lost = begin_trial(study, run.config, index=0, attempt=1, params=300)
    before = study.get_trials()
    with monkeypatch.context() as patch:
        patch.setattr(step, _die)
        with pytest.raises(KeyboardInterrupt):
            requeue(study)
    assert study.get_trials() == before
    assert requeue(study) == [lost.number]
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    assert requeue(study) == []


def _die(*words: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_row_3_a_trained_but_unreported_trial_is_reported_and_not_trained_again(run: Run, study: optuna.Study) -> None:
    """A kill between a trial's last attribute and its result."""
    lost = begin_trial(study, run.config, index=0, attempt=1, key="k", **TRAINED)
    requeue(study)
    assert queued_trials(study) == []
    assert (study.trials[lost.number].state, study.trials[lost.number].value) == (TrialState.COMPLETE, 0.5)
    assert counts(records(study))["trained"] == 1
    fault_table.record({3: 1}, fault_table.results(study.trials, asked=1))


@pytest.mark.parametrize("outcome", ["pruned_at_rung", "rejected", "diverged", "timed_out"])
def test_row_3_an_unreported_outcome_is_reported(outcome: str, run: Run, study: optuna.Study) -> None:
    lost = begin_trial(study, run.config, index=0, attempt=1, params=300, outcome=outcome, reason="a reason")
    requeue(study)
    assert queued_trials(study) == []
    told = study.trials[lost.number]
    assert (told.state, told.user_attrs["outcome"], told.user_attrs["reason"]) == (TrialState.PRUNED, outcome, "a reason")
    fault_table.record({3: 1}, fault_table.results(study.trials))


def test_finished_trials_are_left_as_they_are(study: optuna.Study) -> None:
    study.tell(begin_trial(study, index=0, outcome="trained"), 0.5)
    study.tell(begin_trial(study, index=1, outcome="rejected"), state=TrialState.PRUNED)
    study.tell(begin_trial(study, index=2, outcome="failed"), state=TrialState.FAIL)
    before = study.get_trials()
    assert requeue(study) == []
    assert study.get_trials() == before


def test_several_lost_trials_are_each_queued_once_with_their_own_index(study: optuna.Study) -> None:
    lost = [begin_trial(study, index=index, attempt=1).number for index in (4, 2, 3)]
    assert requeue(study) == lost
    assert requeue(study) == []
    assert [trial.user_attrs["index"] for trial in queued_trials(study)] == [4, 2, 3]


def test_a_lost_reference_keeps_its_name(run: Run, digits: Dataset) -> None:
    study = create(run, digits).references
    begin_trial(study, index=0, attempt=1, reference="eip-b")
    requeue(study)
    assert queued_trials(study)[0].user_attrs["reference"] == "eip-b"


def test_a_lost_candidate_keeps_what_was_known_of_it_before_it_was_trained(run: Run, study: optuna.Study) -> None:
    known = {"warm_start": "eip-b", "refused": {"over budget": 3}, "refused_params": [5000]}
    begin_trial(study, run.config, index=0, attempt=1, params=300, seed=7, key="k", **known)
    requeue(study)
    (again,) = queued_trials(study)
    assert again.user_attrs == known | {"index": 0, "attempt": 1, "retry_of": 0}
