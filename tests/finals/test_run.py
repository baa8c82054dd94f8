"""Finals with simulated trainings: finalists, seeds, resuming after a fault, the reading of the test images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

import objective
from search.budget.limits import Breach
from search.errors import UserError
from search.finals import run as finals_run
from search.finals.results import HELD, FinalsResult, check_unread, load_results
from search.networks.architecture import fingerprint, from_json
from search.runner.events import Done, PhaseStarted, Recycle, Waiting
from search.study.records import records
from search.study.run import sibling
from search.training.train import TrialOver
from search.tuning.stopping import Limits
from tests.support.finals import BASE, FinalsBench, Killed, Trainer
from tests.support.tiers import tiered


def seeds_of(trials: list[FrozenTrial]) -> dict[str, list[int]]:
    """The seeds that each contender was trained on, in the order of their numbers."""
    found: dict[str, dict[int, int]] = {}
    for one in trials:
        if one.state == TrialState.COMPLETE:
            found.setdefault(one.user_attrs["contender"], {})[one.user_attrs["repeat"]] = one.user_attrs["seed"]
    return {name: [seeds[repeat] for repeat in sorted(seeds)] for name, seeds in found.items()}


# --- who, and on which seeds -----------------------------------------------------------------------------------------


def test_the_best_few_and_the_base_are_trained_on_the_same_fresh_seeds(finals_bench: FinalsBench) -> None:
    assert finals_bench.hold(2, 3) == Done()
    best = sorted(records(finals_bench.bench.study), key=lambda one: -(one.best_val_accuracy or 0))[:2]
    fresh = seeds_of(finals_bench.trials)
    assert list(fresh) == ["base", *(f"trial-{one.number}" for one in best)]
    assert len({tuple(seeds) for seeds in fresh.values()}) == 1
    assert len(set(fresh["base"])) == 3
    assert not set(fresh["base"]) & {fit.seed for fit in finals_bench.searched}
    networks = {fit.network for fit in finals_bench.trainer.fits}
    assert len(networks) == 3
    assert networks <= {fit.network for fit in finals_bench.searched}


def test_each_is_trained_under_the_recipe_it_had(finals_bench: FinalsBench) -> None:
    finals_bench.hold(3, 1)
    searched = {fit.network: fit.recipe for fit in finals_bench.searched}
    assert {fit.network: fit.recipe for fit in finals_bench.trainer.fits} == searched
    base = next(fit.recipe for fit in finals_bench.trainer.fits if fit.network == fingerprint(from_json(BASE)))
    assert (base.learning_rate, base.schedule.kind, base.epochs) == (0.5, "linear", 2)


def test_a_searched_recipe_and_a_stepped_dropout_are_trained_as_they_were(tmp_path: Path, trainer: Trainer) -> None:
    space = {"blocks": 1, "width": 8, "pools": 0, "order": "conv-dropout-bn-act"}
    space |= {"dropout": {"low": 0.0, "high": 0.9, "step": 0.05}}
    recipe = {"epochs": 2, "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}
    recipe |= {"schedules": [{"kind": "constant"}, {"kind": "cosine"}]}
    finals_bench = FinalsBench(
        tmp_path / "finals_bench", trainer, space=space, recipe=recipe, base=0.5, search={"trials": 8}
    )
    finals_bench.hold(8, 1)
    assert {(fit.network, fit.recipe) for fit in trainer.fits} == {
        (fit.network, fit.recipe) for fit in finals_bench.searched
    }
    kept = [json.loads((finals_bench.run.folder / "trials" / str(one.number) / "training.json").read_text())
            for one in records(finals_bench.bench.study)]  # fmt: skip
    again = [json.loads(path.read_text()) for path in finals_bench.run.folder.glob("finals/*/training.json")]
    assert sorted(map(json.dumps, again)) == sorted(map(json.dumps, kept))


def test_the_search_score_is_shown_and_not_used_again(finals_bench: FinalsBench) -> None:
    finals_bench.hold(2, 2)
    searched = {f"trial-{one.number}": one.best_val_accuracy for one in records(finals_bench.bench.study)}
    searched["base"] = records(finals_bench.bench.studies.references)[0].best_val_accuracy
    for one in finals_bench.found.finalists:
        assert one.search_score == searched[one.name]
        assert searched[one.name] not in one.best_val


def test_with_rungs_everything_is_trained_in_full_on_one_schedule(tmp_path: Path, trainer: Trainer, base: str) -> None:
    changes = {
        "base": base,
        "recipe": {"epochs": 9, "schedule": {"kind": "cosine"}},
        "search": {"trials": 6, "rungs": {"first": 1}},
    }
    finals_bench = FinalsBench(tmp_path / "finals_bench", trainer, **changes)
    assert {fit.recipe.restarts for fit in finals_bench.searched} == {(1, 3)}
    finals_bench.hold(2, 1)
    assert {(fit.recipe.restarts, fit.recipe.epochs) for fit in trainer.fits} == {((), 9)}
    assert [fit.recipe.schedule.kind for fit in trainer.fits] == [
        "linear",
        "cosine",
        "cosine",
    ]  # the base's own, without rungs
    assert {len(trial.intermediate_values) for trial in finals_bench.trials} == {9}


def test_cells_that_a_grid_repeats_are_one_contender(tmp_path: Path, trainer: Trainer) -> None:
    changes: dict[str, Any] = {"space": {"blocks": 1, "width": [8, 16], "pools": 0}, "base": 0.5}
    finals_bench = FinalsBench(tmp_path / "finals_bench", trainer, **changes, search={"sampler": "grid", "repeats": 3})
    assert len(finals_bench.searched) == 6
    finals_bench.hold(5, 1)
    assert len(trainer.fits) == len({fit.network for fit in trainer.fits}) == 2


def test_a_base_that_is_a_plain_accuracy_is_compared_with_and_not_trained(tmp_path: Path, trainer: Trainer) -> None:
    finals_bench = FinalsBench(tmp_path / "finals_bench", trainer, base=0.25)
    finals_bench.hold(2, 2)
    assert len(trainer.fits) == 4
    assert {one.against_base.against for one in finals_bench.found.finalists if one.against_base} == {0.25}


def test_a_base_whose_file_has_changed_is_rejected(tmp_path: Path, trainer: Trainer) -> None:
    path = tmp_path / "other.json"
    path.write_text(BASE)
    finals_bench = FinalsBench(tmp_path / "finals_bench", trainer, base=str(path))
    path.write_text(BASE.replace("16", "24"))
    with pytest.raises(UserError, match=r"other\.json: no longer the network that this run has trained"):
        finals_bench.hold(1, 1)
    assert finals_bench.trainer.fits == []


# --- again, and after a fault ----------------------------------------------------------------------------------------


def told(found: FinalsResult) -> dict[str, Any]:
    """All but the dates."""
    return asdict(found) | {"test_read": len(found.test_read)}


def test_more_trains_only_what_is_missing_and_fewer_nothing(
    finals_bench_of: Callable[..., FinalsBench], trainer: Trainer
) -> None:
    finals_bench = finals_bench_of("course")
    finals_bench.hold(1, 2)
    small = told(finals_bench.found)
    for top, seeds, trained in ((1, 2, 4), (1, 3, 6), (2, 3, 9), (1, 2, 9), (2, 2, 9)):
        finals_bench.hold(top, seeds)
        assert len(trainer.fits) == len(set(trainer.fits)) == trained
        assert (finals_bench.found.seeds, len(finals_bench.found.finalists)) == (seeds, top + 1)
    finals_bench.hold(1, 2)
    assert told(finals_bench.found) == small


@pytest.mark.parametrize("killed_in", tiered((0, 4), quick=(4,)))
def test_killed_in_a_training_they_reach_the_same_numbers(
    killed_in: int, finals_bench_of: Callable[..., FinalsBench], trainer: Trainer
) -> None:
    finals_bench, calm = finals_bench_of("holdout"), finals_bench_of("holdout", "calm")
    calm.hold(2, 2)
    trainer.fits.clear()

    def kill(number: int) -> None:
        if number == killed_in:
            trainer.before_fit = lambda number: None
            raise Killed

    trainer.before_fit = kill
    with pytest.raises(Killed):
        finals_bench.hold(2, 2)
    assert load_results(finals_bench.run) is None
    finals_bench.requeue()
    finals_bench.hold(2, 2)
    assert len(trainer.fits) == 6
    assert told(finals_bench.found) == told(calm.found)
    assert list((finals_bench.run.folder / "finals" / "checkpoints").iterdir()) == []


def test_killed_and_then_asked_for_less_they_train_no_more_than_that(finals_bench: FinalsBench) -> None:
    names = finals_bench.names

    def kill(number: int) -> None:
        if number == 4:  # the second network on its second seed
            raise Killed

    finals_bench.trainer.before_fit = kill
    with pytest.raises(Killed):
        finals_bench.hold(2, 3)
    finals_bench.trainer.before_fit = lambda number: None
    finals_bench.requeue()
    finals_bench.hold(2, 1)
    assert len(finals_bench.trainer.fits) == 4
    assert list((finals_bench.run.folder / "finals" / "checkpoints").iterdir()) == []
    assert (finals_bench.found.seeds, {one.name for one in finals_bench.found.finalists}) == (1, set(names))
    finals_bench.hold(2, 3, again=True)
    assert len(finals_bench.trainer.fits) == len(set(finals_bench.trainer.fits)) == 9


def test_a_worker_is_recycled_and_the_next_continues(tmp_path: Path, trainer: Trainer) -> None:
    finals_bench = FinalsBench(tmp_path / "finals_bench", trainer, search={"trials": 2, "recycle_after": 2}, base=0.5)
    assert [finals_bench.hold(2, 2) for _ in range(2)] == [Recycle(), Done()]
    assert len(trainer.fits) == 4


@pytest.mark.parametrize("stop", [{"hours": 1.0}, {"device_hours": 1.0}])
def test_the_limits_of_the_search_do_not_end_its_finals(stop: dict[str, float], tmp_path: Path, trainer: Trainer) -> None:
    finals_bench = FinalsBench(tmp_path / "finals_bench", trainer, stop=stop, search={"trials": 1}, base=0.5)
    trainer.pretence.seconds_an_epoch = 3600.0
    finals_bench.objective = replace(
        finals_bench.objective, limits=Limits(finals_bench.run.config.stop, 0.0 if "hours" in stop else None)
    )
    assert finals_bench.hold(1, 2) == Done()
    assert len(trainer.fits) == 2


@pytest.mark.parametrize("outcome", tiered(("diverged", "out_of_memory", "failed"), quick=("out_of_memory",)))
def test_a_contender_that_fails_is_named_and_the_others_are_compared(outcome: Any, finals_bench: FinalsBench) -> None:
    def fail(number: int) -> None:
        if number == 3:  # the base on its second seed
            finals_bench.trainer.before_fit = lambda number: None
            raise TrialOver(outcome, "a reason")

    finals_bench.trainer.before_fit = fail
    assert finals_bench.hold(2, 3) == Done()
    found = finals_bench.found
    assert found.failed == {"base": "a reason"}
    assert [one.name for one in found.finalists if one.name == "base"] == []
    assert len(found.finalists) == 2
    assert finals_bench.trainer.read == 6
    assert {len(one.test) for one in found.finalists} == {3}
    finals_bench.hold(2, 3, again=True)
    assert Counter(trial.state for trial in finals_bench.trials)[TrialState.COMPLETE] == 8  # it is not tried again


def test_a_finalist_whose_file_breaks_a_limit_is_not_ranked_as_fitting(
    finals_bench: FinalsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are new ones, and the file depends on them; the base has no budget."""
    reason = "the trained network takes 66,368 bytes of flash in int8, the budget is at most 65,536"
    breaches: list[Breach | None] = [None, Breach("over flash", reason), None, None]
    monkeypatch.setattr(objective, "find_breach", lambda *arguments: breaches.pop(0))
    assert finals_bench.hold(2, 2) == Done()
    found = finals_bench.found
    assert list(found.failed.values()) == [reason] and "base" not in found.failed
    assert {one.name for one in found.finalists} == set(finals_bench.names) - found.failed.keys()
    assert len(found.finalists) == 2
    assert breaches == []


def test_no_test_image_is_read_if_every_finalist_fails(finals_bench: FinalsBench) -> None:
    def fail(number: int) -> None:
        if sum(trial.state == TrialState.COMPLETE for trial in finals_bench.trials) > 0:  # the base is first
            raise TrialOver("diverged", "a reason")

    finals_bench.trainer.before_fit = fail
    assert finals_bench.hold(2, 1) == Done()
    assert (finals_bench.found.leader, finals_bench.found.test_read, finals_bench.trainer.read) == (None, (), 0)
    check_unread(finals_bench.run, again=False)


# --- the test images -------------------------------------------------------------------------------------------------


def held(finals_bench: FinalsBench) -> list[tuple[str | None, bool, bool]]:
    """Every reading: when, again, to its end."""
    told = sibling(finals_bench.run, "finals").user_attrs[HELD]
    return [(one["test_read"], one["again"], one["test"] is not None) for one in told]


def day(number: int) -> str:
    return f"2026-01-{number:02}T00:00:00+00:00"


def test_the_test_images_are_read_once_for_all_contenders(finals_bench: FinalsBench) -> None:
    finals_bench.hold(2, 2)
    assert (finals_bench.trainer.read, held(finals_bench)) == (6, [(day(1), False, True)])
    for one in finals_bench.found.finalists:
        assert one.test == pytest.approx([score - 0.1 for score in one.best_val])  # each its own weights
    with pytest.raises(UserError, match=f"were read at {day(1)[:10]}"):
        finals_bench.hold(3, 3)  # another worker may have read them since the command line looked
    assert (finals_bench.trainer.read, len(finals_bench.trainer.fits)) == (6, 6)
    signs = [
        event
        for event in finals_bench.bench.events
        if isinstance(event, PhaseStarted) and event.text == "reading the test images"
    ]
    assert [(one.done, one.goal) for one in signs] == [(done, 6) for done in range(6)]


def test_again_reads_all_of_them_again_and_is_written_down(finals_bench: FinalsBench) -> None:
    finals_bench.hold(1, 2)
    finals_bench.hold(2, 3, again=True)
    assert finals_bench.trainer.read == 4 + 9
    assert held(finals_bench) == [(day(1), False, True), (day(2), True, True)]
    assert finals_bench.found.test_read == (day(1), day(2))
    assert {len(one.test) for one in finals_bench.found.finalists} == {3}


@pytest.mark.parametrize("killed_at", [0, 3])
def test_a_reading_cut_short_is_completed_and_is_no_second_one(killed_at: int, finals_bench: FinalsBench) -> None:
    def kill(number: int) -> None:
        if number == killed_at:
            finals_bench.trainer.before_read = lambda number: None
            raise Killed

    finals_bench.trainer.before_read = kill
    with pytest.raises(Killed):
        finals_bench.hold(2, 2)
    assert held(finals_bench) == [(day(1), False, False)]  # it was written down first
    assert load_results(finals_bench.run) is None
    finals_bench.hold(2, 2)
    assert held(finals_bench) == [(day(1), False, True)]
    assert finals_bench.trainer.read == killed_at + 6
    with pytest.raises(UserError):
        finals_bench.hold(2, 2)


def test_a_second_reading_cut_short_leaves_the_first_and_is_completed_on_request(finals_bench: FinalsBench) -> None:
    finals_bench.hold(1, 2)
    first = finals_bench.found

    def kill(number: int) -> None:
        raise Killed

    finals_bench.trainer.before_read = kill
    with pytest.raises(Killed):
        finals_bench.hold(2, 3, again=True)
    assert finals_bench.found == first
    finals_bench.trainer.before_read = lambda number: None
    with pytest.raises(UserError, match="--again"):
        finals_bench.hold(2, 3)
    finals_bench.hold(2, 3, again=True)
    assert held(finals_bench) == [(day(1), False, True), (day(2), True, True)]


def test_nothing_is_read_where_a_training_has_lost_its_weights(finals_bench: FinalsBench) -> None:
    finals_bench.trainer.before_fit = lambda number: (
        (finals_bench.run.folder / "finals" / "base-0" / "weights.npz").unlink() if number == 3 else None
    )
    with pytest.raises(UserError, match=r"base-0/weights\.npz"):
        finals_bench.hold(1, 2)
    assert (finals_bench.trainer.read, sibling(finals_bench.run, "finals").user_attrs) == (0, {})


def test_under_course_there_are_none_to_read_and_calls_can_be_repeated(
    finals_bench_of: Callable[..., FinalsBench], trainer: Trainer
) -> None:
    finals_bench = finals_bench_of("course")
    for _ in range(2):
        assert finals_bench.hold(2, 2) == Done()
        check_unread(finals_bench.run, again=False)
    assert (trainer.read, len(trainer.fits)) == (0, 6)
    assert (finals_bench.found.measure, finals_bench.found.test_read) == ("best_val_accuracy", ())
    assert {one.test for one in finals_bench.found.finalists} == {()}
    assert all(one.best_val and one.final_val for one in finals_bench.found.finalists)


def test_it_tells_which_trainings_of_others_it_waits_for(finals_bench: FinalsBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(number: int) -> None:
        if number == 1:
            raise Killed

    finals_bench.trainer.before_fit = killed
    with pytest.raises(Killed):
        finals_bench.hold(1, 2)
    (running,) = (trial for trial in finals_bench.trials if trial.state == TrialState.RUNNING)
    finals_bench.trainer.before_fit = lambda number: None
    told = []

    def wait(reporter: Any, event: Waiting) -> None:
        told.append((event.names, event.grace_minutes))
        finals_bench.requeue()

    context = replace(finals_bench.objective.context, worker="another")
    finals_bench.objective = replace(finals_bench.objective, context=context)
    monkeypatch.setattr(finals_run, "wait", wait)
    assert finals_bench.hold(1, 2) == Done()
    name = f"{running.user_attrs['contender']}, seed {running.user_attrs['repeat'] + 1}"
    assert told == [((name,), finals_bench.run.config.search.grace_minutes)]
