"""Records of trials: indices, counts and ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search.errors import UserError
from search.storage.queue import begin, next_index
from search.study.records import (
    FAILED,
    Record,
    base_accuracy,
    counts,
    progress,
    proposal_words,
    ranked,
    records,
    refusals,
)
from search.study.run import Run, best
from search.study.study_file import parse
from tests.support.small_studies import STUDY, TRAINED, begin_trial, digits, run, study

__all__ = ["digits", "run", "study"]


def record(number: int, **facts: Any) -> Record:
    known: Mapping[str, Any] = dict.fromkeys(Record.__dataclass_fields__) | {"outcome": "trained", "epochs": 2, "curve": ()}
    return Record(**known | {"number": number, "refused": {}, "refused_params": ()} | facts)


def test_the_first_index_is_0(study: optuna.Study) -> None:
    assert next_index(study.trials) == 0


def test_the_next_index_follows_the_highest_and_not_the_number(study: optuna.Study) -> None:
    study.tell(begin_trial(study, index=0), 0.5)
    study.tell(begin_trial(study, index=7), state=TrialState.PRUNED)
    study.tell(begin_trial(study), state=TrialState.FAIL)
    assert next_index(study.trials) == 8


def test_a_trial_begun_has_the_index_of_what_is_queued_first_and_then_a_new_one(study: optuna.Study) -> None:
    for index in (3, 1):
        study.enqueue_trial({}, user_attrs={"index": index, "attempt": 1})
    begun = []
    for _ in range(3):
        trial = begin(study, "worker")
        assert trial is not None
        begun.append(trial.user_attrs["index"])
        study.tell(trial, state=TrialState.FAIL)
    assert begun == [3, 1, 4]


def test_a_record_holds_what_its_trial_carries(study: optuna.Study) -> None:
    told = {"refused": {"over budget": 3}, "refused_params": [5000, 7000], "warm_start": "eip-b"}
    trial = begin_trial(study, index=0, seconds=3.5, macs=9, **TRAINED, **told)
    for step, value in ((2, 0.4), (1, 0.5)):
        trial.report(value, step)
    assert records(study)[0].outcome == "running"
    study.tell(trial, 0.5)
    known = Record(0, None, "trained", None, 300, 9, 0.5, 1, 0.4, epochs=2, seconds=3.5, curve=(0.5, 0.4),
                   refused={"over budget": 3}, refused_params=(5000, 7000), warm_start="eip-b",
                   costs={"params": 300, "macs": 9})  # fmt: skip
    assert records(study) == [known]


def test_the_reason_of_a_proposal_is_one_line() -> None:
    predicted = {"reason": "learn", "mean": 0.812, "low": 0.799, "high": 0.825, "best": 0.82, "expected_gain": 0.0014}
    told = "sampled to learn: 81.20% predicted (79.90% to 82.50%), may beat the best, and shows more of the space"
    assert proposal_words(predicted) == f"{told}; expected gain 0.14 points"
    assert str(proposal_words(predicted | {"reason": "win"})).startswith("sampled to win: 81.20% predicted")
    assert proposal_words({"reason": "random", "note": "one of the first 8 trials"}) == (
        "sampled at random: one of the first 8 trials"
    )
    assert proposal_words({}) is None  # of another sampler, or of an earlier version


def test_a_queued_trial_has_no_record(study: optuna.Study) -> None:
    study.enqueue_trial({}, user_attrs={"index": 0})
    assert records(study) == []


def test_a_trial_that_ended_without_a_word_has_failed(study: optuna.Study) -> None:
    study.tell(begin_trial(study), state=TrialState.FAIL)
    assert [one.outcome for one in records(study)] == ["failed"]


def test_each_outcome_is_counted_where_it_belongs() -> None:
    outcomes = ["trained", "trained", "pruned_at_rung", "rejected", "running", "interrupted", *FAILED]
    found = [record(number, outcome=outcome) for number, outcome in enumerate(outcomes)]
    assert counts(found) == {"trained": 2, "pruned_at_rung": 1, "rejected": 1, "failed": len(FAILED)}
    assert list(counts([])) == ["trained", "pruned_at_rung", "rejected", "failed"]


def test_rejected_proposals_are_counted_once_though_their_trial_was_interrupted() -> None:
    """The sampler's refusals are no trials of their own, and a retry has those of the trial that it stands for."""
    told = {"over budget": 2, "same network": 1}
    found = [record(0, outcome="interrupted", refused=told), record(1, refused=told), record(2, refused={"over budget": 4})]
    found.append(record(3, outcome="rejected"))
    assert refusals(found) == {"over budget": 6, "same network": 1}
    assert counts(found) == {"trained": 2, "pruned_at_rung": 0, "rejected": 8, "failed": 0}


def test_a_trial_pruned_at_a_rung_counts_towards_the_number_of_trials() -> None:
    outcomes = ["trained", "pruned_at_rung", "pruned_at_rung", "rejected", "running", "interrupted", *FAILED]
    found = [record(number, outcome=outcome) for number, outcome in enumerate(outcomes)]
    assert progress(found) == 3


def test_the_best_come_first_then_the_smaller_then_the_earlier() -> None:
    found = [
        record(0, best_val_accuracy=0.5, params=100),
        record(1, best_val_accuracy=0.9, params=300),
        record(2, best_val_accuracy=0.9, params=200),
        record(3, best_val_accuracy=0.9, params=200),
        record(4, best_val_accuracy=None, params=1, outcome="rejected"),
        record(5, best_val_accuracy=0.99, params=1, outcome="diverged"),
        record(7, best_val_accuracy=0.99, params=1, outcome="pruned_at_rung"),
        record(6, best_val_accuracy=0.99, params=1, outcome="running"),
    ]
    assert [one.number for one in ranked(found)] == [2, 3, 1, 0]
    assert [one.number for one in ranked(found[::-1])] == [2, 3, 1, 0]


def test_without_a_trained_one_there_is_no_best(run: Run) -> None:
    with pytest.raises(UserError, match=r"no candidate has been trained yet \(0 trained, .*1 rejected") as caught:
        best(run, [record(0, outcome="rejected")])
    assert "python -m search run" in str(caught.value)


def test_the_base_is_a_plain_accuracy_or_a_reference_that_was_trained() -> None:
    plain = parse(STUDY, "test")
    named = parse(STUDY | {"base": "studies/own/my net.json"}, "test")
    trained = [record(0, reference="other", best_val_accuracy=0.9), record(1, reference="my_net", best_val_accuracy=0.8)]
    assert (plain.base_name, base_accuracy(plain, [])) == (None, 0.5)
    assert (named.base_name, base_accuracy(named, trained)) == ("my_net", 0.8)
    assert base_accuracy(named, trained[:1]) is None
