"""Trials of one worker with simulated trainings: outcomes, retries, references, the end of a space."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from search.budget.cost import compute_cost
from search.errors import StudyStopped, UserError
from search.files import read_json
from search.networks.architecture import Architecture, fingerprint, from_json
from search.networks.layers import Dense, GlobalAveragePool, SeparableConv, Softmax
from search.runner.events import Done, LimitHit, TrialStarted
from search.runner.references import train_reference
from search.storage.recovery import requeue
from search.study import records as study_records
from search.study.records import records
from search.study.references import Reference
from tests.support.runs import SMALL, Bench, Pretence, bench, pretence, small_run

__all__ = ["bench", "pretence"]


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


def test_proposals_are_trained_and_rejected_proposals_are_no_trials(bench: Bench) -> None:
    found = [bench.one_trial() for _ in range(12)]
    assert {trial.user_attrs["outcome"] for trial in found} == {"trained"}
    assert len({trial.user_attrs["key"] for trial in found}) == 12
    assert all(trial.user_attrs["params"] < 1200 for trial in found)
    told = [trial.user_attrs["refused"] for trial in found if "refused" in trial.user_attrs]
    assert sum(one.get("over budget", 0) for one in told) > 12  # of this space about one in five fits
    assert study_records.counts(bench.records)["rejected"] == sum(sum(one.values()) for one in told)
    shown = [event.refused for event in bench.events if isinstance(event, TrialStarted)]
    assert sum(shown) == sum(sum(one.values()) for one in told)


def test_an_interrupted_trial_is_trained_by_its_retry(bench: Bench) -> None:
    """The retry holds the claim of the trial that it stands for."""
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


def test_an_unexpected_error_is_the_reason_of_its_trial(bench: Bench) -> None:
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


def test_another_network_of_the_same_name_is_rejected(bench: Bench) -> None:
    train_reference(bench.run, bench.studies, Reference("small", SMALL, None, None), bench.objective)
    with pytest.raises(UserError, match="small: this run knows another network by this name"):
        train_reference(bench.run, bench.studies, Reference("small", WIDE, None, None), bench.objective)


FEW = {"blocks": 1, "width": [8, 16], "pools": 0}  # two networks, of 147 and 275 parameters


def test_a_space_with_fewer_networks_than_trials_stops_the_study_and_says_so(tmp_path: Path, pretence: Pretence) -> None:
    bench = Bench(small_run(tmp_path / "run", space=FEW), pretence)
    told = r"no new network .*; all networks of the space are within the budget: widen the space, or ask for 2 trials$"
    with pytest.raises(StudyStopped, match=told) as caught:
        bench.train_candidates()
    assert len(str(caught.value).splitlines()) == 1
    assert [record.outcome for record in bench.records] == ["trained", "trained", "interrupted"]


def test_the_budget_is_raised_only_where_it_leaves_networks_out(tmp_path: Path, pretence: Pretence) -> None:
    """Of the widths 8 and 80 the second is over the budget."""
    bench = Bench(small_run(tmp_path / "run", space=FEW | {"width": [8, 80]}), pretence)
    told = r"smallest network of the space has 147: raise the budget, widen the space, or ask for 1 trial$"
    with pytest.raises(StudyStopped, match=told):
        bench.train_candidates()


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
