"""Finals of a small study in this process, with simulated trainings."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from optuna.trial import FrozenTrial

from search.data.dataset import load_dataset
from search.finals import run as finals
from search.finals.results import FinalsResult, load_results
from search.networks.architecture import Architecture, fingerprint
from search.runner import trial
from search.runner.events import Done, Recycle
from search.runner.job import FinalsOrder
from search.runner.references import train_reference
from search.storage.database import open_storage
from search.storage.recovery import requeue
from search.study import references
from search.study import run as studies
from search.study.run import sibling
from search.training.recipe import Recipe
from tests.support.runs import Bench, Pretence, small_run

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

    def confusion_of(self, architecture: Architecture, weights: Any, pixels: Any, images: Any, labels: Any) -> Any:
        self.before_read(self.read)
        self.read += 1
        accuracy = float(weights[0][0]) - 0.1
        return np.array([[accuracy, 1 - accuracy], [0, 0]])


@pytest.fixture
def trainer(pretence: Pretence, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    from search.training import train

    found, today = Trainer(pretence), datetime(2026, 1, 1, tzinfo=UTC)
    days = iter(range(1000))
    monkeypatch.setattr(train, "fit", found.fit)
    monkeypatch.setattr(train, "confusion_of", found.confusion_of)
    monkeypatch.setattr(finals, "datetime", SimpleNamespace(now=lambda zone: today + timedelta(next(days))))
    monkeypatch.setattr(trial, "gc", SimpleNamespace(collect=lambda: 0))  # a second each, with TensorFlow in memory
    monkeypatch.setattr(studies, "open_storage", cache(lambda url, **rest: open_storage(url)))
    return found


class FinalsBench:
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
        """Run the finals as one worker does."""
        return finals.run_finals(
            self.run, self.bench.studies, FinalsOrder(top, seeds, control, again), self.objective, self.bench.reporter
        )

    def requeue(self) -> None:
        """Requeue as the supervisor does after a worker was killed."""
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
def finals_bench_of(
    tmp_path: Path, trainer: Trainer, base: str, searched: Any, tmp_path_factory: Any
) -> Callable[..., FinalsBench]:
    """A finals_bench under a protocol, the candidates trained beforehand."""

    def make(protocol: str, name: str = "finals_bench") -> FinalsBench:
        changes = {"protocol": protocol, "base": base}
        if protocol not in searched:
            folder = tmp_path_factory.mktemp("searched") / "run"
            searched[protocol] = folder, FinalsBench(folder, trainer, **changes).searched
        folder, fits = searched[protocol]
        shutil.copytree(folder, tmp_path / name)
        finals_bench = FinalsBench(tmp_path / name, trainer, **changes)
        assert finals_bench.searched == []
        finals_bench.searched = fits
        return finals_bench

    return make


@pytest.fixture
def finals_bench(finals_bench_of: Callable[..., FinalsBench]) -> FinalsBench:
    return finals_bench_of("holdout")
