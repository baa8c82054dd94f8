"""Finals held: who is trained again and how, what is taken up after a fault, the test images, the control.

Trainings pretend, but for those at the end, where the command line trains small nets on digits and is killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event

from search.data.dataset import load_dataset
from search.errors import UserError
from search.files import read_weights
from search.finals import run as finals
from search.finals.control import control_config
from search.finals.results import HELD, FinalsResult, check_unread, load_results
from search.networks.architecture import Architecture, fingerprint, from_json
from search.runner import trial
from search.runner.events import Done, PhaseStarted, Recycle
from search.runner.job import FinalsOrder
from search.runner.references import train_reference
from search.seeds import derive
from search.storage.database import open_storage
from search.storage.recovery import requeue
from search.storage.resilient import ResilientStorage
from search.study import references
from search.study import run as studies
from search.study.records import records
from search.study.run import Run, find, load, sibling
from search.study.study_file import parse
from search.training.recipe import Recipe
from search.training.train import TrialOver
from search.tuning.stopping import Limits
from tests.support.runs import ROOT, Bench, Pretence, copied, finished, pretence, search, small_run, study_file

__all__ = ["copied", "finished", "pretence"]

SECONDS = 180  # that a step may take on a machine that has other work
BASE = """{"name": "other", "input": [8, 8, 1], "classes": 10, "layers": [
  {"kind": "conv", "filters": 16}, {"kind": "global_average_pool"}, {"kind": "dense", "units": 10}, {"kind": "softmax"}]}"""
BASE_RECIPE = "[recipe]\nepochs = 90\nlearning_rate = 0.5\nschedule = { kind = 'linear' }\n"


class Killed(BaseException):
    """As if the process had ended here."""


class Fit(NamedTuple):
    network: str
    recipe: Recipe
    seed: int


class Trainer:
    """Trains nothing: the accuracy is made up from network, recipe and seed, and is the only weight that it leaves."""

    def __init__(self, pretence: Pretence) -> None:
        self.pretence = pretence
        self.fits: list[Fit] = []
        self.read = 0
        self.before_fit: Callable[[int], object] = lambda number: None
        self.before_read: Callable[[int], object] = lambda number: None

    def fit(self, architecture: Architecture, data: Any, recipe: Recipe, **hooks: Any) -> Any:
        one = Fit(fingerprint(architecture), recipe, hooks["seed"])
        hooks["checkpoint"].parent.mkdir(parents=True, exist_ok=True)
        hooks["checkpoint"].touch()
        self.before_fit(len(self.fits))
        self.fits.append(one)
        digest = hashlib.sha256(f"{one.network} {recipe.model_dump_json()} {one.seed}".encode()).digest()
        score = 0.4 + 0.5 * digest[0] / 256
        self.pretence.plays.insert(0, score)
        return replace(self.pretence.fit(architecture, data, recipe, **hooks), best_weights=(np.array([score], np.float32),))

    def accuracy(self, architecture: Architecture, weights: Any, pixels: Any, images: Any, labels: Any) -> float:
        self.before_read(self.read)
        self.read += 1
        return float(weights[0][0]) - 0.1


@pytest.fixture
def trainer(pretence: Pretence, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    from search.training import train

    found, today = Trainer(pretence), datetime(2026, 1, 1, tzinfo=UTC)
    days = iter(range(1000))
    monkeypatch.setattr(train, "fit", found.fit)
    monkeypatch.setattr(train, "accuracy", found.accuracy)
    monkeypatch.setattr(finals, "datetime", SimpleNamespace(now=lambda zone: today + timedelta(next(days))))
    monkeypatch.setattr(trial, "gc", SimpleNamespace(collect=lambda: 0))  # a second each, with TensorFlow in memory
    monkeypatch.setattr(studies, "open_storage", cache(lambda url, **rest: hasty(open_storage(url))))
    return found


def hasty(storage: ResilientStorage) -> ResilientStorage:
    """The storage, that does not wait for the disk."""
    event.listen(storage.engine, "connect", lambda connection, record: connection.execute("PRAGMA synchronous=OFF"))
    storage.engine.dispose()
    return storage


class Hall:
    """A study that has its candidates, and its finals."""

    def __init__(self, folder: Path, trainer: Trainer, **changes: Any) -> None:
        self.trainer = trainer
        self.bench = Bench(small_run(folder, **{"search": {"trials": 3}} | changes), trainer.pretence)
        self.run, self.objective = self.bench.run, self.bench.objective
        if self.run.config.protocol == "course":
            data = load_dataset("digits", None, protocol="course", holdout=0.1, images=100)
            self.objective = replace(self.objective, context=replace(self.objective.context, data=data))
        if isinstance(self.run.config.base, str):
            train_reference(self.run, self.bench.studies, references.find(self.run.config.base), self.objective)
        while self.bench.train_candidates() == Recycle():
            pass
        self.searched = list(trainer.fits)
        trainer.fits.clear()

    def hold(self, top: int, seeds: int, *, control: bool = False, again: bool = False) -> Done | Recycle:
        """What one worker does."""
        return finals.run_finals(
            self.run, self.bench.studies, FinalsOrder(top, seeds, control, again), self.objective, self.bench.reporter
        )

    def requeue(self) -> None:
        """What the supervisor does after a worker was killed."""
        requeue(sibling(self.run, "finals"))

    @property
    def found(self) -> FinalsResult:
        found = load_results(self.run)
        assert found is not None
        return found

    @property
    def trials(self) -> list[FrozenTrial]:
        return sibling(self.run, "finals").get_trials()

    @property
    def names(self) -> list[str]:
        return [
            one.name for one in finals.select_finalists(self.run, self.bench.studies, None, 2, self.objective.context.facts)
        ]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("base")
    (folder / "other.json").write_text(BASE)
    (folder / "other.toml").write_text(BASE_RECIPE)
    return str(folder / "other.json")


@pytest.fixture(scope="module")
def searched() -> dict[str, tuple[Path, list[Fit]]]:
    """A study that has its candidates, by protocol, once it was needed."""
    return {}


@pytest.fixture
def hall_of(tmp_path: Path, trainer: Trainer, base: str, searched: Any, tmp_path_factory: Any) -> Callable[..., Hall]:
    """A hall under a protocol, the candidates trained beforehand."""

    def make(protocol: str, name: str = "hall") -> Hall:
        changes = {"protocol": protocol, "base": base}
        if protocol not in searched:
            folder = tmp_path_factory.mktemp("searched") / "run"
            searched[protocol] = folder, Hall(folder, trainer, **changes).searched
        folder, fits = searched[protocol]
        shutil.copytree(folder, tmp_path / name)
        hall = Hall(tmp_path / name, trainer, **changes)
        assert hall.searched == []
        hall.searched = fits
        return hall

    return make


@pytest.fixture
def hall(hall_of: Callable[..., Hall]) -> Hall:
    return hall_of("holdout")


def seeds_of(trials: list[FrozenTrial]) -> dict[str, list[int]]:
    """The seeds that each contender was trained on, in the order of their numbers."""
    found: dict[str, dict[int, int]] = {}
    for one in trials:
        if one.state == TrialState.COMPLETE:
            found.setdefault(one.user_attrs["contender"], {})[one.user_attrs["repeat"]] = one.user_attrs["seed"]
    return {name: [seeds[repeat] for repeat in sorted(seeds)] for name, seeds in found.items()}


# --- who, and on which seeds -----------------------------------------------------------------------------------------


def test_the_best_few_and_the_base_are_trained_on_the_same_fresh_seeds(hall: Hall) -> None:
    assert hall.hold(2, 3) == Done()
    best = sorted(records(hall.bench.study), key=lambda one: -(one.best_val_accuracy or 0))[:2]
    fresh = seeds_of(hall.trials)
    assert list(fresh) == ["base", *(f"trial-{one.number}" for one in best)]
    assert len({tuple(seeds) for seeds in fresh.values()}) == 1
    assert len(set(fresh["base"])) == 3
    assert not set(fresh["base"]) & {fit.seed for fit in hall.searched}
    networks = {fit.network for fit in hall.trainer.fits}
    assert len(networks) == 3
    assert networks <= {fit.network for fit in hall.searched}


def test_each_is_trained_under_the_recipe_it_had(hall: Hall) -> None:
    hall.hold(3, 1)
    searched = {fit.network: fit.recipe for fit in hall.searched}
    assert {fit.network: fit.recipe for fit in hall.trainer.fits} == searched
    base = next(fit.recipe for fit in hall.trainer.fits if fit.network == fingerprint(from_json(BASE)))
    assert (base.learning_rate, base.schedule.kind, base.epochs) == (0.5, "linear", 2)


def test_a_searched_recipe_and_a_stepped_dropout_are_trained_as_they_were(tmp_path: Path, trainer: Trainer) -> None:
    space = {"blocks": 1, "width": 8, "pools": 0, "order": "conv-dropout-bn-act"}
    space |= {"dropout": {"low": 0.0, "high": 0.9, "step": 0.05}}
    recipe = {"epochs": 2, "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}
    recipe |= {"schedules": [{"kind": "constant"}, {"kind": "cosine"}]}
    hall = Hall(tmp_path / "hall", trainer, space=space, recipe=recipe, base=0.5, search={"trials": 8})
    hall.hold(8, 1)
    assert {(fit.network, fit.recipe) for fit in trainer.fits} == {(fit.network, fit.recipe) for fit in hall.searched}
    kept = [json.loads((hall.run.folder / "trials" / str(one.number) / "training.json").read_text())
            for one in records(hall.bench.study)]  # fmt: skip
    again = [json.loads(path.read_text()) for path in hall.run.folder.glob("finals/*/training.json")]
    assert sorted(map(json.dumps, again)) == sorted(map(json.dumps, kept))


def test_the_search_score_is_shown_and_not_used_again(hall: Hall) -> None:
    hall.hold(2, 2)
    searched = {f"trial-{one.number}": one.best_val_accuracy for one in records(hall.bench.study)}
    searched["base"] = records(hall.bench.studies.references)[0].best_val_accuracy
    for one in hall.found.finalists:
        assert one.search_score == searched[one.name]
        assert searched[one.name] not in one.best_val


def test_with_rungs_everything_is_trained_in_full_on_one_schedule(tmp_path: Path, trainer: Trainer, base: str) -> None:
    changes = {
        "base": base,
        "recipe": {"epochs": 9, "schedule": {"kind": "cosine"}},
        "search": {"trials": 6, "rungs": {"first": 1}},
    }
    hall = Hall(tmp_path / "hall", trainer, **changes)
    assert {fit.recipe.restarts for fit in hall.searched} == {(1, 3)}
    hall.hold(2, 1)
    assert {(fit.recipe.restarts, fit.recipe.epochs) for fit in trainer.fits} == {((), 9)}
    assert [fit.recipe.schedule.kind for fit in trainer.fits] == [
        "linear",
        "cosine",
        "cosine",
    ]  # the base's own, without rungs
    assert {len(trial.intermediate_values) for trial in hall.trials} == {9}


def test_cells_that_a_grid_repeats_are_one_contender(tmp_path: Path, trainer: Trainer) -> None:
    changes: dict[str, Any] = {"space": {"blocks": 1, "width": [8, 16], "pools": 0}, "base": 0.5}
    hall = Hall(tmp_path / "hall", trainer, **changes, search={"sampler": "grid", "repeats": 3})
    assert len(hall.searched) == 6
    hall.hold(5, 1)
    assert len(trainer.fits) == len({fit.network for fit in trainer.fits}) == 2


def test_a_base_that_is_a_plain_accuracy_is_compared_with_and_not_trained(tmp_path: Path, trainer: Trainer) -> None:
    hall = Hall(tmp_path / "hall", trainer, base=0.25)
    hall.hold(2, 2)
    assert len(trainer.fits) == 4
    assert {one.against_base.against for one in hall.found.finalists if one.against_base} == {0.25}


def test_a_base_whose_file_has_changed_is_refused(tmp_path: Path, trainer: Trainer) -> None:
    path = tmp_path / "other.json"
    path.write_text(BASE)
    hall = Hall(tmp_path / "hall", trainer, base=str(path))
    path.write_text(BASE.replace("16", "24"))
    with pytest.raises(UserError, match=r"other\.json: no longer the network that this run has trained"):
        hall.hold(1, 1)
    assert hall.trainer.fits == []


# --- again, and after a fault ----------------------------------------------------------------------------------------


def told(found: FinalsResult) -> dict[str, Any]:
    """All but the dates."""
    return asdict(found) | {"test_read": len(found.test_read)}


def test_more_trains_only_what_is_missing_and_fewer_nothing(hall_of: Callable[..., Hall], trainer: Trainer) -> None:
    hall = hall_of("course")
    hall.hold(1, 2)
    small = told(hall.found)
    for top, seeds, trained in ((1, 2, 4), (1, 3, 6), (2, 3, 9), (1, 2, 9), (2, 2, 9)):
        hall.hold(top, seeds)
        assert len(trainer.fits) == len(set(trainer.fits)) == trained
        assert (hall.found.seeds, len(hall.found.finalists)) == (seeds, top + 1)
    hall.hold(1, 2)
    assert told(hall.found) == small


@pytest.mark.parametrize("killed_in", [0, 4])
def test_killed_in_a_training_they_go_on_to_the_same_numbers(
    killed_in: int, hall_of: Callable[..., Hall], trainer: Trainer
) -> None:
    hall, calm = hall_of("holdout"), hall_of("holdout", "calm")
    calm.hold(2, 2)
    trainer.fits.clear()

    def kill(number: int) -> None:
        if number == killed_in:
            trainer.before_fit = lambda number: None
            raise Killed

    trainer.before_fit = kill
    with pytest.raises(Killed):
        hall.hold(2, 2)
    assert load_results(hall.run) is None
    hall.requeue()
    hall.hold(2, 2)
    assert len(trainer.fits) == 6
    assert told(hall.found) == told(calm.found)
    assert list((hall.run.folder / "finals" / "checkpoints").iterdir()) == []


def test_killed_and_then_asked_for_less_they_train_no_more_than_that(hall: Hall) -> None:
    names = hall.names

    def kill(number: int) -> None:
        if number == 4:  # the second network on its second seed
            raise Killed

    hall.trainer.before_fit = kill
    with pytest.raises(Killed):
        hall.hold(2, 3)
    hall.trainer.before_fit = lambda number: None
    hall.requeue()
    hall.hold(2, 1)
    assert len(hall.trainer.fits) == 4
    assert list((hall.run.folder / "finals" / "checkpoints").iterdir()) == []
    assert (hall.found.seeds, {one.name for one in hall.found.finalists}) == (1, set(names))
    hall.hold(2, 3, again=True)
    assert len(hall.trainer.fits) == len(set(hall.trainer.fits)) == 9


def test_a_worker_is_recycled_and_the_next_goes_on(tmp_path: Path, trainer: Trainer) -> None:
    hall = Hall(tmp_path / "hall", trainer, search={"trials": 2, "recycle_after": 2}, base=0.5)
    assert [hall.hold(2, 2) for _ in range(2)] == [Recycle(), Done()]
    assert len(trainer.fits) == 4


@pytest.mark.parametrize("stop", [{"hours": 1.0}, {"device_hours": 1.0}])
def test_the_limits_of_the_search_do_not_end_its_finals(stop: dict[str, float], tmp_path: Path, trainer: Trainer) -> None:
    hall = Hall(tmp_path / "hall", trainer, stop=stop, search={"trials": 1}, base=0.5)
    trainer.pretence.seconds_an_epoch = 3600.0
    hall.objective = replace(hall.objective, limits=Limits(hall.run.config.stop, 0.0 if "hours" in stop else None))
    assert hall.hold(1, 2) == Done()
    assert len(trainer.fits) == 2


@pytest.mark.parametrize("outcome", ["diverged", "out_of_memory", "failed"])
def test_a_contender_that_fails_is_named_and_the_others_are_compared(outcome: Any, hall: Hall) -> None:
    def fail(number: int) -> None:
        if number == 3:  # the base on its second seed
            hall.trainer.before_fit = lambda number: None
            raise TrialOver(outcome, "a reason")

    hall.trainer.before_fit = fail
    assert hall.hold(2, 3) == Done()
    found = hall.found
    assert found.failed == {"base": "a reason"}
    assert [one.name for one in found.finalists if one.name == "base"] == []
    assert len(found.finalists) == 2
    assert hall.trainer.read == 6
    assert {len(one.test) for one in found.finalists} == {3}
    hall.hold(2, 3, again=True)
    assert Counter(trial.state for trial in hall.trials)[TrialState.COMPLETE] == 8  # it is not tried again


def test_where_every_contender_fails_no_test_image_is_read(hall: Hall) -> None:
    def fail(number: int) -> None:
        if sum(trial.state == TrialState.COMPLETE for trial in hall.trials) > 0:  # the base is first
            raise TrialOver("diverged", "a reason")

    hall.trainer.before_fit = fail
    assert hall.hold(2, 1) == Done()
    assert (hall.found.leader, hall.found.test_read, hall.trainer.read) == (None, (), 0)
    check_unread(hall.run, again=False)


# --- the test images -------------------------------------------------------------------------------------------------


def held(hall: Hall) -> list[tuple[str | None, bool, bool]]:
    """Every reading: when, again, to its end."""
    told = sibling(hall.run, "finals").user_attrs[HELD]
    return [(one["test_read"], one["again"], one["test"] is not None) for one in told]


def day(number: int) -> str:
    return f"2026-01-{number:02}T00:00:00+00:00"


def test_the_test_images_are_read_once_for_all_contenders(hall: Hall) -> None:
    hall.hold(2, 2)
    assert (hall.trainer.read, held(hall)) == (6, [(day(1), False, True)])
    for one in hall.found.finalists:
        assert one.test == pytest.approx([score - 0.1 for score in one.best_val])  # each its own weights
    with pytest.raises(UserError, match=f"were read at {day(1)[:10]}"):
        hall.hold(3, 3)  # another worker may have read them since the command line looked
    assert (hall.trainer.read, len(hall.trainer.fits)) == (6, 6)
    signs = [
        event for event in hall.bench.events if isinstance(event, PhaseStarted) and event.text == "reading the test images"
    ]
    assert [(one.done, one.goal) for one in signs] == [(done, 6) for done in range(6)]


def test_again_reads_all_of_them_again_and_is_written_down(hall: Hall) -> None:
    hall.hold(1, 2)
    hall.hold(2, 3, again=True)
    assert hall.trainer.read == 4 + 9
    assert held(hall) == [(day(1), False, True), (day(2), True, True)]
    assert hall.found.test_read == (day(1), day(2))
    assert {len(one.test) for one in hall.found.finalists} == {3}


@pytest.mark.parametrize("killed_at", [0, 3])
def test_a_reading_cut_short_is_completed_and_is_no_second_one(killed_at: int, hall: Hall) -> None:
    def kill(number: int) -> None:
        if number == killed_at:
            hall.trainer.before_read = lambda number: None
            raise Killed

    hall.trainer.before_read = kill
    with pytest.raises(Killed):
        hall.hold(2, 2)
    assert held(hall) == [(day(1), False, False)]  # it was written down first
    assert load_results(hall.run) is None
    hall.hold(2, 2)
    assert held(hall) == [(day(1), False, True)]
    assert hall.trainer.read == killed_at + 6
    with pytest.raises(UserError):
        hall.hold(2, 2)


def test_a_second_reading_cut_short_leaves_the_first_and_is_completed_on_request(hall: Hall) -> None:
    hall.hold(1, 2)
    first = hall.found

    def kill(number: int) -> None:
        raise Killed

    hall.trainer.before_read = kill
    with pytest.raises(Killed):
        hall.hold(2, 3, again=True)
    assert hall.found == first
    hall.trainer.before_read = lambda number: None
    with pytest.raises(UserError, match="--again"):
        hall.hold(2, 3)
    hall.hold(2, 3, again=True)
    assert held(hall) == [(day(1), False, True), (day(2), True, True)]


def test_nothing_is_read_where_a_training_has_lost_its_weights(hall: Hall) -> None:
    hall.trainer.before_fit = lambda number: (
        (hall.run.folder / "finals" / "base-0" / "weights.npz").unlink() if number == 3 else None
    )
    with pytest.raises(UserError, match=r"base-0/weights\.npz"):
        hall.hold(1, 2)
    assert (hall.trainer.read, sibling(hall.run, "finals").user_attrs) == (0, {})


def test_under_course_there_are_none_to_read_and_calls_can_be_repeated(
    hall_of: Callable[..., Hall], trainer: Trainer
) -> None:
    hall = hall_of("course")
    for _ in range(2):
        assert hall.hold(2, 2) == Done()
        check_unread(hall.run, again=False)
    assert (trainer.read, len(trainer.fits)) == (0, 6)
    assert (hall.found.measure, hall.found.test_read) == ("best_val_accuracy", ())
    assert {one.test for one in hall.found.finalists} == {()}
    assert all(one.best_val and one.final_val for one in hall.found.finalists)


# --- the control -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rungs", [None, {"first": 1}])
def test_the_control_costs_as_much_as_the_search_and_its_best_contends(rungs: Any, tmp_path: Path, trainer: Trainer) -> None:
    changes = {"recipe": {"epochs": 9, "schedule": {"kind": "cosine"}}, "search": {"trials": 6, "rungs": rungs}}
    hall = Hall(tmp_path / "hall", trainer, **changes, base=0.5)
    before = records(hall.bench.study)
    assert hall.hold(1, 1, control=True) == Done()
    control = records(sibling(hall.run, "control"))
    spent, cost = (sum(one.epochs for one in found) for found in (control, before))
    assert (cost < 54) == (rungs is not None)
    assert cost - 9 < spent <= cost
    assert {one.epochs for one in control} == {9}
    assert {fit.recipe.restarts for fit in trainer.fits} == {()}
    best = max(control, key=lambda one: one.best_val_accuracy or 0)
    assert {one.name: one.search_score for one in hall.found.finalists}[f"control-{best.number}"] == best.best_val_accuracy
    assert records(hall.bench.study) == before
    assert not {fit.seed for fit in trainer.fits} & {fit.seed for fit in hall.searched}


def test_the_control_is_trained_once_and_left_out_where_nobody_asks(hall: Hall) -> None:
    hall.hold(1, 1, control=True)
    trained = len(hall.trainer.fits)
    assert trained == 3 + 3  # epochs are equal here, so trials are
    hall.hold(1, 1, control=True, again=True)
    hall.hold(1, 1, again=True)
    assert len(hall.trainer.fits) == trained
    assert [one.name for one in hall.found.finalists if "control" in one.name] == []


def test_the_control_is_recycled_too_and_shows_how_far_it_is(tmp_path: Path, trainer: Trainer) -> None:
    hall = Hall(tmp_path / "hall", trainer, search={"trials": 5, "recycle_after": 2}, base=0.5)
    ends = [hall.hold(1, 1, control=True) for _ in range(4)]
    assert (ends, len(trainer.fits)) == ([Recycle(), Recycle(), Recycle(), Done()], 5 + 2)
    phases = [
        (one.done, one.goal) for one in hall.bench.events if isinstance(one, PhaseStarted) and one.text.startswith("control")
    ]
    assert phases == [(done, 5) for done in range(5)]


def test_a_candidate_of_the_control_may_take_no_longer_than_one_of_the_search(tmp_path: Path, trainer: Trainer) -> None:
    hall = Hall(tmp_path / "hall", trainer, stop={"trial_minutes": 5.0}, search={"trials": 2}, base=0.5)
    trainer.pretence.seconds_an_epoch = 200.0
    hall.hold(1, 1, control=True)
    outcomes = Counter(one.outcome for one in records(sibling(hall.run, "control")))
    assert outcomes.keys() == {"timed_out"}
    assert [one.name for one in hall.found.finalists] == [f"trial-{hall.found.finalists[0].number}"]  # a contender may


def test_a_space_that_the_control_has_used_up_ends_it(tmp_path: Path, trainer: Trainer) -> None:
    changes: dict[str, Any] = {"space": {"blocks": 1, "width": [8, 16], "pools": 0}, "base": 0.5}
    hall = Hall(tmp_path / "hall", trainer, **changes, search={"sampler": "grid", "repeats": 3})
    hall.hold(1, 1, control=True)
    trained = [one for one in records(sibling(hall.run, "control")) if one.outcome == "trained"]
    assert len(trained) == 2
    assert len(hall.found.finalists) == 2


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


# --- for real, from the command line ---------------------------------------------------------------------------------

STATES = """
SELECT state, EXISTS (SELECT 1 FROM trial_user_attributes held WHERE held.trial_id = trials.trial_id AND held.key = 'seed')
FROM trials JOIN studies USING (study_id) WHERE study_name = 'tiny.finals'
"""


class Ended(NamedTuple):
    status: int
    out: str
    err: str


def begin(run: Run, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "search", "finals", str(study_file(run)), "--top", "1", "--seeds", "1", *words]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def end(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=SECONDS)
    return Ended(process.returncode, out, err)


def wait_for_training(run: Run, process: subprocess.Popen[str], trained: int) -> None:
    """Returns while finals train, after that many trainings."""
    deadline = time.monotonic() + SECONDS
    while True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        with (
            contextlib.suppress(sqlite3.OperationalError),
            sqlite3.connect(f"file:{run.folder}/study.db?mode=ro", uri=True) as db,
        ):
            states = Counter(map(tuple, db.execute(STATES)))
            if sum(states["COMPLETE", flag] for flag in (0, 1)) >= trained and states["RUNNING", 1]:
                return
        time.sleep(0.02)


class Real(NamedTuple):
    """Finals of a small run, undisturbed, and of the same run interrupted and killed."""

    calm: Run
    before: tuple[str, str]  # what top and report had to say
    ended: Ended
    stormy: Run
    interrupted: Ended
    last: Ended
    tries: list[FrozenTrial]


@pytest.fixture(scope="module")
def real(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    runs = []
    for name in ("calm", "stormy"):
        folder = tmp_path_factory.mktemp("finals") / name
        shutil.copytree(finished.folder.parent, folder)
        runs.append(find(str(folder / "tiny.toml"), None, None))
    calm, stormy = runs
    before = (search("top", str(study_file(calm)), "--json"), leaderboard_of(calm))
    ended = end(begin(calm, "--json"))

    process = begin(stormy)
    wait_for_training(stormy, process, trained=0)
    process.send_signal(signal.SIGINT)
    interrupted = end(process)
    process = begin(stormy)
    wait_for_training(stormy, process, trained=1)
    (child,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    end(process)
    last = end(begin(stormy, "--json"))
    yield Real(calm, before, ended, stormy, interrupted, last, sibling(stormy, "finals").get_trials())


def leaderboard_of(run: Run) -> str:
    return (run.folder / "report.md").read_text().split("## Leaderboard")[1].split("\n## ")[0]


@pytest.mark.slow
def test_json_is_one_document_and_progress_goes_to_standard_error(real: Real) -> None:
    assert real.ended.status == 0, real.ended
    told = json.loads(real.ended.out)
    assert (told["study"], told["protocol"], told["measure"], told["seeds"]) == ("tiny", "holdout", "test_accuracy", 1)
    assert {one["name"] for one in told["finalists"]} == {"base", told["leader"]}
    assert "base, seed 1: 82,090 params" in real.ended.err
    assert "Reading the test images." in real.ended.err


@pytest.mark.slow
def test_test_accuracies_are_those_of_a_plain_keras_model_with_the_weights_that_were_kept(real: Real) -> None:
    import keras
    from keras import layers

    data = load_dataset("digits", None, protocol="holdout", holdout=0.1, images=None)
    same: dict[str, Any] = {"padding": "same", "activation": "relu"}
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            *(layers.Conv2D(32, 3, **same), layers.Conv2D(32, 3, **same), layers.MaxPooling2D()),
            *(layers.Conv2D(64, 3, **same), layers.Conv2D(64, 3, **same), layers.MaxPooling2D()),
            *(layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dense(10, activation="softmax")),
        ]
    )
    base = next(one for one in json.loads(real.ended.out)["finalists"] if one["name"] == "base")
    folder = real.calm.folder / "finals" / "base-0"
    model.set_weights(read_weights(folder / "weights.npz"))
    for name, images, labels in (("test", data.x_test, data.y_test), ("best_val", data.x_val, data.y_val)):
        assert images is not None
        predicted = np.argmax(model.predict(images.astype("float32") / 255, verbose=0), axis=-1)
        assert base[name] == pytest.approx([np.mean(predicted == labels)])
    history = json.loads((folder / "history.json").read_text())
    assert base["best_val"] == [max(row["val_accuracy"] for row in history)]
    assert base["final_val"] == [history[-1]["val_accuracy"]]
    assert base["test"] != base["best_val"]


@pytest.mark.slow
def test_interrupted_and_killed_the_same_command_goes_on_to_the_same_numbers(real: Real) -> None:
    assert (real.interrupted.status, real.interrupted.out.count("Traceback")) == (130, 0)
    assert real.interrupted.err.count("\n") == 1
    assert "the same command resumes" in real.interrupted.err
    assert real.last.status == 0, real.last
    outcomes = Counter(trial.user_attrs["outcome"] for trial in real.tries)
    assert outcomes == {"interrupted": 2, "trained": 2}
    ours, theirs = json.loads(real.last.out), json.loads(real.ended.out)
    assert len(ours.pop("test_read")) == len(theirs.pop("test_read")) == 1
    assert ours == theirs


@pytest.mark.slow
def test_finals_change_nothing_in_the_search(real: Real) -> None:
    path = str(study_file(real.calm))
    assert search("top", path, "--json") == real.before[0]
    search("report", path)
    assert leaderboard_of(real.calm) == real.before[1]


@pytest.mark.slow
def test_the_dashboards_note_tells_what_the_finals_came_to(real: Real) -> None:
    from optuna_dashboard import get_note

    told = json.loads(real.ended.out)["verdict"]
    assert f"## Confirmed on fresh seeds\n\n{told[0].upper()}{told[1:]}" in get_note(load(real.calm).candidates)


@pytest.mark.slow
def test_a_second_reading_is_refused_in_one_line(real: Real) -> None:
    ended = end(begin(real.calm, "--json"))
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    (read,) = json.loads(real.ended.out)["test_read"]
    assert read in ended.err and "--again" in ended.err


@pytest.mark.slow
def test_show_trains_nothing_and_starts_without_tensorflow(real: Real) -> None:
    code = "import sys; from search.cli.commands import app; app(sys.argv[1:], standalone_mode=False)"
    code += "\nassert not {'tensorflow', 'keras'} & set(sys.modules)"
    words = ["finals", str(study_file(real.calm)), "--show", "--json"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(real.ended.out)


@pytest.mark.slow
def test_without_finals_or_a_trained_candidate_there_is_one_line(copied: Run) -> None:
    ended = end(begin(copied, "--show"))
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert f"python -m search finals {study_file(copied)}" in ended.err
    with contextlib.closing(sqlite3.connect(copied.folder / "study.db")) as db:
        db.execute("UPDATE trial_user_attributes SET value_json = '\"rejected\"' WHERE key = 'outcome'")
        db.commit()
    ended = end(begin(copied))
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "no candidate has been trained yet" in ended.err
