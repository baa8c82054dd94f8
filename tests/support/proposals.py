"""Shared by the tests of sampler and sampler_limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from search.seeds import derive
from search.spaces.domains import Value
from search.storage.claims import Claims, claims_of
from search.storage.database import open_storage
from search.storage.queue import next_index
from search.storage.resilient import ResilientStorage
from search.storage.urls import sqlite_url
from search.study.config import StudyConfig
from search.study.study_file import parse
from search.tuning.candidate import Candidate, DataFacts, Rejection, judge
from search.tuning.sampler import BudgetedSampler, inner_sampler

FACTS = DataFacts((32, 32, 3), 10, "0" * 16)
SAMPLERS = ("tpe", "random", "nsga2")
FITS = ("reject", "fill")
BUDGET = 2_000
SPACE: dict[str, Any] = {  # half of it fits
    "blocks": {"low": 1, "high": 3},
    "width": {"low": 4, "high": 64, "step": 4},
    "dropout": {"low": 0.0, "high": 0.3, "step": 0.05, "per": "net"},
    "order": "conv-dropout-bn-act",
    "pools": 0,
}


TINY: dict[str, Any] = {"blocks": 2, "width": [8, 16, 24, 32], "pools": 0}  # 16 networks


def configured(space: Mapping[str, Any] = SPACE, params: int = BUDGET, **tables: Any) -> StudyConfig:
    search = tables.pop("search", {})
    plain = {"base": 0.5, "data": {"name": "cifar10"}, "budget": {"params": params}, "space": dict(space), "search": search}
    return parse({"recipe": {"epochs": 2}} | plain | tables, "test")


def opened(folder: Path) -> ResilientStorage:
    """A storage in a folder."""
    storage = open_storage(sqlite_url(folder))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return storage


def open_study(storage: ResilientStorage, name: str = "s") -> optuna.Study:
    return optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> ResilientStorage:
    return opened(tmp_path_factory.mktemp("studies"))


@pytest.fixture
def study(storage: ResilientStorage, request: pytest.FixtureRequest) -> optuna.Study:
    return open_study(storage, request.node.name)


def sampler_of(study: optuna.Study, config: StudyConfig, index: int, claims: Claims | None = None) -> BudgetedSampler:
    """As `search.runner.trial` makes it."""
    seed = derive(config.search.seed, "sampler", index)
    return BudgetedSampler(inner_sampler(config.search.sampler, seed), config, FACTS, claims or claims_of(study), seed=seed)


def index_of_next(study: optuna.Study) -> int:
    """That of the trial which is queued first, else a new one."""
    trials = study.get_trials(deepcopy=False)
    first = next((trial for trial in trials if trial.state == TrialState.WAITING), None)
    return first.user_attrs["index"] if first and "index" in first.user_attrs else next_index(trials)


def propose(study: optuna.Study, config: StudyConfig, count: int = 1) -> list[FrozenTrial]:
    """So many trials, queued ones first, each scored by a number that its network tells."""
    numbers: list[int] = []
    claims = claims_of(study)

    def objective(trial: optuna.Trial) -> float:
        if "index" not in trial.user_attrs:
            trial.set_user_attr("index", index)
        found = judge(config, FACTS, {name: domain.suggest(trial, name) for name, domain in config.parameters.items()})
        trial.set_user_attr("seen", trial.user_attrs)  # what the live trial shows to its objective
        if isinstance(found, Rejection):
            raise optuna.TrialPruned(found.reason)
        return score(found)

    for _ in range(count):
        index = index_of_next(study)
        study.sampler = sampler_of(study, config, index, claims)
        study.optimize(objective, n_trials=1, callbacks=[lambda _, trial: numbers.append(trial.number)])
    trials = study.get_trials(deepcopy=False)
    return [trials[number] for number in numbers]


def score(found: Candidate) -> float:
    """The score to maximise: narrow first blocks, a high learning rate."""
    first = found.architecture.layers[0]
    return 100 * found.recipe.learning_rate - getattr(first, "filters", 0) / 64


def values_of(config: StudyConfig, trial: FrozenTrial) -> dict[str, Value]:
    """The parameters as the study file declares them."""
    found = {name: domain.find(trial.params[name]) for name, domain in config.parameters.items()}
    assert None not in found.values(), trial.params
    return {name: value for name, value in found.items() if value is not None}


def judged(config: StudyConfig, trial: FrozenTrial) -> Candidate:
    found = judge(config, FACTS, values_of(config, trial))
    assert isinstance(found, Candidate), found
    return found


def keys(config: StudyConfig, trials: list[FrozenTrial]) -> list[str]:
    return [judged(config, trial).key for trial in trials]


TIGHT: dict[str, Any] = {"blocks": {"low": 2, "high": 6}, "width": {"low": 8, "high": 512, "step": 8}, "pools": 0}
GRID: dict[str, Any] = {"blocks": {"low": 1, "high": 2}, "width": [8, 64, 16], "pools": 0}
