"""The control of the finals: a random search of the same cost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from search.finals.control import control_config
from search.runner.events import Done, PhaseStarted, Recycle
from search.seeds import derive
from search.study.records import records
from search.study.run import sibling
from search.study.study_file import parse
from tests.support.finals import FinalsBench, Trainer


@pytest.mark.parametrize("rungs", [None, {"first": 1}])
def test_the_control_costs_as_much_as_the_search_and_its_best_contends(rungs: Any, tmp_path: Path, trainer: Trainer) -> None:
    changes = {"recipe": {"epochs": 9, "schedule": {"kind": "cosine"}}, "search": {"trials": 6, "rungs": rungs}}
    finals_bench = FinalsBench(tmp_path / "finals_bench", trainer, **changes, base=0.5)
    before = records(finals_bench.bench.study)
    assert finals_bench.hold(1, 1, control=True) == Done()
    control = records(sibling(finals_bench.run, "control"))
    spent, cost = (sum(one.epochs for one in found) for found in (control, before))
    assert (cost < 54) == (rungs is not None)
    assert cost - 9 < spent <= cost
    assert {one.epochs for one in control} == {9}
    assert {fit.recipe.restarts for fit in trainer.fits} == {()}
    best = max(control, key=lambda one: one.best_val_accuracy or 0)
    assert {one.name: one.search_score for one in finals_bench.found.finalists}[
        f"control-{best.number}"
    ] == best.best_val_accuracy
    assert records(finals_bench.bench.study) == before
    assert not {fit.seed for fit in trainer.fits} & {fit.seed for fit in finals_bench.searched}


def test_the_control_is_trained_once_and_only_on_request(finals_bench: FinalsBench) -> None:
    finals_bench.hold(1, 1, control=True)
    trained = len(finals_bench.trainer.fits)
    assert trained == 3 + 3  # epochs are equal here, so trials are
    finals_bench.hold(1, 1, control=True, again=True)
    finals_bench.hold(1, 1, again=True)
    assert len(finals_bench.trainer.fits) == trained
    assert [one.name for one in finals_bench.found.finalists if "control" in one.name] == []


def test_the_control_is_recycled_too_and_shows_how_far_it_is(tmp_path: Path, trainer: Trainer) -> None:
    finals_bench = FinalsBench(tmp_path / "finals_bench", trainer, search={"trials": 5, "recycle_after": 2}, base=0.5)
    ends = [finals_bench.hold(1, 1, control=True) for _ in range(4)]
    assert (ends, len(trainer.fits)) == ([Recycle(), Recycle(), Recycle(), Done()], 5 + 2)
    phases = [
        (one.done, one.goal)
        for one in finals_bench.bench.events
        if isinstance(one, PhaseStarted) and one.text.startswith("control")
    ]
    assert phases == [(done, 5) for done in range(5)]


def test_a_candidate_of_the_control_may_take_no_longer_than_one_of_the_search(tmp_path: Path, trainer: Trainer) -> None:
    finals_bench = FinalsBench(
        tmp_path / "finals_bench", trainer, stop={"trial_minutes": 5.0}, search={"trials": 2}, base=0.5
    )
    trainer.pretence.seconds_an_epoch = 200.0
    finals_bench.hold(1, 1, control=True)
    outcomes = Counter(one.outcome for one in records(sibling(finals_bench.run, "control")))
    assert outcomes.keys() == {"timed_out"}
    assert [one.name for one in finals_bench.found.finalists] == [
        f"trial-{finals_bench.found.finalists[0].number}"
    ]  # a contender may


def test_a_space_that_the_control_has_used_up_ends_it(tmp_path: Path, trainer: Trainer) -> None:
    changes: dict[str, Any] = {"space": {"blocks": 1, "width": [8, 16], "pools": 0}, "base": 0.5}
    finals_bench = FinalsBench(tmp_path / "finals_bench", trainer, **changes, search={"sampler": "grid", "repeats": 3})
    finals_bench.hold(1, 1, control=True)
    trained = [one for one in records(sibling(finals_bench.run, "control")) if one.outcome == "trained"]
    assert len(trained) == 2
    assert len(finals_bench.found.finalists) == 2


def test_the_control_is_the_same_study_but_for_how_it_searches() -> None:
    raw = {"base": 0.5, "data": {"name": "digits"}, "budget": {"params": 1200}, "space": {"blocks": 1, "pools": 0}}
    raw |= {"recipe": {"epochs": 9, "schedule": {"kind": "cosine"}}}
    config = parse(raw | {"search": {"rungs": {"first": 1}, "fit": "fill", "seed": 5, "warm_start": ["eip-a"]}}, "test")
    control = control_config(config)
    assert (control.space, control.budget, control.recipe, control.data) == (
        *(config.space, config.budget, config.recipe, config.data),
    )
    assert (control.search.sampler, control.search.rungs, control.search.warm_start) == ("random", None, ())
    assert (control.search.fit, control.search.seed) == ("fill", derive(5, "control"))
