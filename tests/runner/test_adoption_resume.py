"""Adopted trials under kills and resumes, and in samplers and rungs."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from report.analysis.timing import training_times
from search.api.study_toml import study_text
from search.errors import UserError
from search.runner import adoption
from search.runner.adoption import ADOPTION, adopt_trials, sources_to_adopt
from search.runner.events import Done, Event, StudyLoaded, TrialsAdopted
from search.runner.job import make_order
from search.runner.preparation import _queue_warm_starts, prepare
from search.runner.reporter import Reporter
from search.storage.adoption import adopt
from search.storage.attributes import INDEX
from search.storage.claims import claims_of
from search.study import trained
from search.study.records import counts, progress, ranked
from search.study.run import Run, create, load
from search.training.result import Outcome
from search.tuning.bayes.observations import observe
from search.tuning.stopping import trials_since_best
from tests.support import commands
from tests.support.adopted import RECIPE, TRIALS, WIDE, adopted, assessed, old, wide_run
from tests.support.runs import Bench, Pretence, digits, pretence, small_run
from tests.support.tiers import tiered

__all__ = ["old", "pretence"]


# --- kills, resumes, other workers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["adopt", "copyfile"])
@pytest.mark.parametrize("after", tiered((0, 4), quick=(4,)))
def test_a_killed_adoption_resumes(
    tmp_path: Path, old: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch, step: str, after: int
) -> None:
    """Killed before one of its steps, or after it and before it is known."""
    bench = Bench(wide_run(tmp_path / "run", old), pretence)
    module = adoption if step == "adopt" else shutil
    right, calls = getattr(module, step), list[int]()

    def killed(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > after:
            right(*arguments)
            raise KeyboardInterrupt
        return right(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, step, killed)
        adopted(bench)
    assert ADOPTION not in bench.study.user_attrs
    adopted(bench)
    assert [record.adopted and record.adopted["trial"] for record in bench.records] == list(range(TRIALS))
    for number in range(TRIALS):
        assert trained.candidate(bench.run, number).facts["adopted"]["trial"] == number
    assert not list(bench.run.folder.rglob(".*part*"))


def test_a_complete_adoption_does_not_need_the_other_run(tmp_path: Path, old: Path, pretence: Pretence) -> None:
    copy = shutil.copytree(old, tmp_path / "old")
    bench = Bench(wide_run(tmp_path / "run", copy), pretence)
    adopted(bench)
    shutil.rmtree(copy)
    assert sources_to_adopt(bench.run) == []
    assert trained.candidate(bench.run).facts["trial"] == 2


def test_nothing_is_adopted_once_a_trial_has_begun(tmp_path: Path, old: Path, pretence: Pretence) -> None:
    """As a slower worker would, while the other run trains on."""
    bench = Bench(wide_run(tmp_path / "run", old), pretence)
    first, *rest = assessed(bench.run).adoptable
    assert adopt(bench.study, first.template)
    bench.one_trial()
    assert not any(adopt(bench.study, entry.template) for entry in rest)
    assert adopt(bench.study, first.template), "it is adopted already"
    assert sources_to_adopt(bench.run) == []
    assert len(bench.records) == 2


def test_a_run_that_cannot_be_written_is_adopted(tmp_path: Path, old: Path, pretence: Pretence) -> None:
    folder = shutil.copytree(old, tmp_path / "old")
    paths = [folder, *folder.rglob("*")]
    files = [path for path in paths if path.is_file() and path.suffix != ".db-shm"]  # root writes SQLite's shared memory
    before = {path: path.read_bytes() for path in files}
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        bench = Bench(wide_run(tmp_path / "run", folder), pretence)
        assert len(adopted(bench)[0].adoptable) == TRIALS
        assert {path: path.read_bytes() for path in files} == before
        assert os.access(bench.run.folder / "trials" / "0" / "weights.npz", os.W_OK)
    finally:
        for path in paths:
            path.chmod(0o755)


def test_a_run_in_progress_is_adopted(tmp_path: Path, old: Path, pretence: Pretence) -> None:
    folder = shutil.copytree(old, tmp_path / "old")
    other = load(small_run(folder, recipe=RECIPE)).candidates
    other.ask()
    bench = Bench(wide_run(tmp_path / "run", folder), pretence)
    assert len(adopted(bench)[0].adoptable) == TRIALS
    assert other.get_trials(deepcopy=False)[-1].state == TrialState.RUNNING


class Untrained:
    """A trainer that is never asked to train."""

    def prepare(self) -> str:
        return "no device"

    def policy(self, precision: str) -> str:
        return "float32"

    def fit(self, *arguments: Any, **options: Any) -> Any:
        raise AssertionError("a worker that only adopts was asked to train")


def prepared(run: Run) -> list[Event]:
    """Prepare a worker of this run, adoption included; its events."""
    events: list[Event] = []
    prepare(make_order(run), Reporter(events.append), Untrained())
    return events


def test_a_worker_adopts_before_it_begins(tmp_path: Path, old: Path) -> None:
    run = wide_run(tmp_path / "run", old, data={"name": "digits", "images": 100})
    events = prepared(run)
    assert TrialsAdopted("old: 5 of 5 trained trials adopted") in events
    assert events[-1] == StudyLoaded(2, 0, (0.9, 2), adopted=TRIALS)
    assert not any(isinstance(event, TrialsAdopted) for event in prepared(run)), "it is complete"


def test_a_run_at_fault_leaves_no_folder(tmp_path: Path) -> None:
    run = wide_run(tmp_path / "run", tmp_path / "nowhere", data={"name": "digits", "images": 100})
    with pytest.raises(UserError, match="holds no run"):
        prepared(run)
    assert not run.folder.exists()


def test_several_workers_adopt_each_trial_once(tmp_path: Path, old: Path) -> None:
    run = wide_run(tmp_path / "run", old)
    sources = sources_to_adopt(run)
    benches = [create(run, digits()) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda studies: adopt_trials(run, studies, sources, digits()), benches))
    assert [len(assessments[0].adoptable) for assessments in results] == [TRIALS] * 3
    study = load(run).candidates
    assert [trial.number for trial in study.get_trials(deepcopy=False)] == list(range(TRIALS))
    assert sorted(claims_of(study).held().values()) == list(range(TRIALS))


def test_plan_gives_the_number_before_anything_is_trained(tmp_path: Path, old: Path) -> None:
    path = tmp_path / "wide.toml"
    table = {"base": 0.5, "data": {"name": "digits", "images": 100}} | WIDE
    path.write_text(study_text("wide", table | {"search": {"adopt": str(old)}}))
    planned = commands.search("plan", path, "--json")
    assert planned.status == 0, planned.err
    adoption_plan = json.loads(planned.out)["adoption"]
    assert adoption_plan == [{"run": "old", "trained": TRIALS, "adopted": TRIALS, "left_out": {}}]
    path.write_text(study_text("wide", table | {"protocol": "course", "search": {"adopt": str(old)}}))
    commands.assert_refused(commands.search("plan", path), "search.adopt", 'set protocol = "holdout"')
    assert not (tmp_path / "wide-run").exists()


# --- samplers, rungs, limits -----------------------------------------------------------------------------------------


def test_adopted_trials_are_not_trained_again(tmp_path: Path, old: Path, pretence: Pretence) -> None:
    """A grid of the old networks ends with the first trial that no other run has trained."""
    space = {"blocks": 1, "width": [8, 16], "pools": 1}
    search = {"trials": 1, "sampler": "grid"}
    first = Bench(small_run(tmp_path / "first", search=search, space=space), pretence)
    assert first.train_candidates() == Done()
    grid = {"adopt": str(tmp_path / "first"), "sampler": "grid"}
    bench = Bench(small_run(tmp_path / "run", search=grid, space=space), pretence)
    adopted(bench)
    assert bench.train_candidates() == Done()
    trained_params = [record.params for record in bench.records if record.outcome == Outcome.TRAINED]
    assert len(trained_params) == len(set(trained_params)) == 2
    assert counts(bench.records) == {"trained": 1, "pruned_at_rung": 0, "rejected": 0, "failed": 0, "adopted": 1}


def test_samplers_learn_from_adopted_trials(tmp_path: Path, old: Path, pretence: Pretence) -> None:
    bench = Bench(wide_run(tmp_path / "run", old, search={"sampler": "nsga2"}), pretence)
    adopted(bench)
    observations = observe(bench.run.config, bench.study.get_trials(deepcopy=False), TRIALS)
    assert list(observations.accuracies) == [0.5, 0.7, 0.9, 0.6, 0.8]
    assert len(optuna.samplers.NSGAIISampler().get_population(bench.study, 0)) == TRIALS


def test_rungs_compare_with_adopted_trials(tmp_path: Path, pretence: Pretence) -> None:
    recipe = {"epochs": 4, "schedule": {"kind": "cosine"}}
    search = {"trials": 3, "sampler": "random", "rungs": {"first": 1, "factor": 2}}
    pretence.plays += [[0.1, 0.3, 0.3, 0.4], [0.2, 0.5, 0.6, 0.7], [0.3, 0.6, 0.7, 0.8]]
    first = Bench(small_run(tmp_path / "first", search=search, recipe=recipe), pretence)
    assert first.train_candidates() == Done()
    bench = Bench(
        small_run(tmp_path / "run", search=search | {"adopt": str(tmp_path / "first"), "trials": 1}, recipe=recipe), pretence
    )
    adopted(bench)
    without = assessed(small_run(tmp_path / "all", search={"adopt": str(tmp_path / "first")}, recipe=recipe))
    assert [entry.detail for entry in without.left_out] == ["its rungs are after the epochs [1, 2]"] * len(without.left_out)
    assert without.counts.keys() == {"outside the recipe"}
    pretence.plays += [[0.15, 0.9, 0.9, 0.9]]
    assert bench.one_trial().user_attrs["outcome"] == Outcome.PRUNED_AT_RUNG


def test_limits_count_own_trials(tmp_path: Path, old: Path, pretence: Pretence) -> None:
    bench = Bench(wide_run(tmp_path / "run", old, stop={"patience": 2, "device_hours": 1}, search={"trials": 9}), pretence)
    adopted(bench)
    assert trials_since_best(bench.records) == 0
    pretence.plays += [0.4, 0.3]
    assert bench.train_candidates() == Done()
    assert trials_since_best(bench.records) == 2
    assert progress(bench.records) == 2
    training_time = training_times(bench.run, bench.study)
    assert [(kind.trainings, kind.epochs) for kind in training_time.spent] == [(2, 4)]


def test_warm_starts_follow_adopted_trials(tmp_path: Path, old: Path, pretence: Pretence) -> None:
    bench = Bench(wide_run(tmp_path / "run", old), pretence)
    adopted(bench)
    known = {name: domain.first for name, domain in bench.run.config.parameters.items()}
    for _ in range(2):
        _queue_warm_starts(bench.study, [("known", known)])
    waiting = bench.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    assert [(trial.number, trial.user_attrs[INDEX]) for trial in waiting] == [(TRIALS, TRIALS)]


def test_repeats_of_a_grid_are_adopted_by_their_seed(tmp_path: Path, pretence: Pretence) -> None:
    space = {"blocks": 1, "width": [8, 16], "pools": 1}
    search = {"sampler": "grid", "repeats": 2, "seed": 7}
    first = Bench(small_run(tmp_path / "first", search=search, space=space), pretence)
    assert first.train_candidates() == Done()
    adopt_it = {"adopt": str(tmp_path / "first")}
    same = assessed(small_run(tmp_path / "same", search=search | adopt_it | {"repeats": 3}, space=space))
    assert [entry.template.params["repeat"] for entry in same.adoptable] == [0, 0, 1, 1]
    other = assessed(small_run(tmp_path / "other", search=search | adopt_it | {"seed": 8}, space=space))
    assert other.counts == {"of another seed": 4}


def test_a_study_of_several_objectives_adopts(tmp_path: Path, old: Path, pretence: Pretence) -> None:
    directions = {"accuracy": "maximize", "macs": "minimize"}
    bench = Bench(wide_run(tmp_path / "run", old, search={"directions": directions}), pretence)
    adopted(bench)
    for record, trial in zip(bench.records, bench.study.get_trials(deepcopy=False), strict=True):
        assert trial.values == [record.best_val_accuracy, record.macs]
    assert ranked(bench.records)[0].number == 2
