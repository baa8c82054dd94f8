"""Proposals of the Bayesian sampler in studies whose objective is a function of the network; nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import create_engine

from search.budget.metrics import METRICS
from search.networks.layers import SeparableConv
from search.runner.events import Done
from search.seeds import derive, generator
from search.storage.attributes import INDEX, OUTCOME, PROPOSAL
from search.storage.claims import Claims
from search.storage.optuna_internals import study_id_of
from search.study.config import StudyConfig
from search.study.run import verdict
from search.study.study_file import parse
from search.training.result import Outcome
from search.tuning import make_sampler
from search.tuning.bayes import Prior
from search.tuning.bayes.observations import observe
from search.tuning.bayes.sampler import STARTUP
from search.tuning.candidate import Candidate, DataFacts, judge
from tests.support.runs import Bench, Pretence, pretence, small_run

__all__ = ["pretence"]

FACTS = DataFacts((16, 16, 3), 10, "0" * 16)
SPACE: dict[str, Any] = {
    "blocks": {"low": 2, "high": 5},
    "width": {"low": 8, "high": 64, "step": 8},
    "pools": {"low": 1, "high": 2},
    "kernel": [3, 5],
    "order": ["conv-bn-act", "conv-act-bn"],
}
BUDGET = 8_000
Objective = Callable[[Candidate], float]


def configured(fit: str = "fill", space: dict[str, Any] = SPACE, **tables: Any) -> StudyConfig:
    search = {"sampler": "bayes", "fit": fit} | tables.pop("search", {})
    raw = {"base": 0.5, "data": {"name": "cifar10"}, "budget": {"params": BUDGET}, "space": space, "search": search}
    return parse(raw | tables, "test")


def accuracy(candidate: Candidate) -> float:
    """Highest for wide last layers, 5x5 windows, activations before batch norm, and a depth of three blocks."""
    layers = candidate.architecture.layers
    blocks = [layer for layer in layers if isinstance(layer, SeparableConv)][:-1]
    order = 0.03 * (layers[1].kind == "activation")
    return 0.3 + 0.001 * blocks[-1].filters + 0.01 * blocks[0].kernel + order - 0.01 * abs(len(blocks) - 3)


class Search:
    """A study in memory that is driven as the worker drives one."""

    def __init__(
        self, config: StudyConfig, seed: int = 0, objective: Objective = accuracy, prior: Prior | None = None
    ) -> None:
        directions = ["maximize", *["minimize"] * len(config.cost_metrics)]
        self.study = optuna.create_study(directions=directions, storage=optuna.storages.InMemoryStorage())
        self.config, self.seed, self.objective, self.prior = config, seed, objective, prior
        self.claims = Claims(create_engine("sqlite://"), study_id_of(self.study))

    def ask(self) -> tuple[optuna.Trial, Candidate]:
        index = len(self.study.get_trials(deepcopy=False))
        seed = derive(self.seed, "sampler", index)
        self.study.sampler = make_sampler(self.config, FACTS, self.claims, seed=seed, prior=self.prior)
        trial = self.study.ask()
        trial.set_user_attr(INDEX, index)
        values = {name: domain.suggest(trial, name) for name, domain in self.config.parameters.items()}
        candidate = judge(self.config, FACTS, values)
        assert isinstance(candidate, Candidate), candidate
        return trial, candidate

    def run(self, trials: int) -> list[FrozenTrial]:
        for _ in range(trials):
            trial, candidate = self.ask()
            costs = [float(METRICS[name].compute(candidate.cost)) for name in self.config.cost_metrics]
            self.study.tell(trial, [self.objective(candidate), *costs])
        return self.study.get_trials(deepcopy=False)


@pytest.fixture(scope="module", params=["fill", "reject"])
def search(request: pytest.FixtureRequest) -> Search:
    search = Search(configured(request.param))
    search.run(STARTUP + 8)
    return search


def test_later_proposals_beat_the_first_trials(search: Search) -> None:
    scores = [trial.values[0] for trial in search.study.trials]
    first, last = scores[:STARTUP], scores[-4:]
    assert sum(last) / len(last) > sum(first) / len(first) + 0.01
    assert max(scores[STARTUP:]) >= max(first)


def test_every_proposal_is_a_new_network_that_fits(search: Search) -> None:
    held = search.claims.held()
    assert sorted(held.values()) == list(range(STARTUP + 8))
    for trial in search.study.trials:
        candidate = judge(search.config, FACTS, search.config.declared(trial.params))
        assert isinstance(candidate, Candidate)
        assert candidate.key in held


def test_a_trial_stores_why_its_network_was_chosen(search: Search) -> None:
    reasons = [trial.user_attrs[PROPOSAL] for trial in search.study.trials]
    assert reasons[0] == {"reason": "random", "note": f"one of the first {STARTUP} trials"}
    informed = [reason for reason in reasons if reason["reason"] in ("learn", "win")]
    assert informed
    for reason in informed:
        assert reason["low"] <= reason["mean"] <= reason["high"]
        assert reason["expected_gain"] >= 0
        assert (reason["mean"] > reason["best"]) == (reason["reason"] == "win")


def test_the_same_seed_proposes_the_same_from_a_study_that_is_opened_again(search: Search) -> None:
    """All of its state is in the study: another process, with a copy of the trials and claims, goes on alike."""
    copy = Search(search.config)
    for trial in search.study.trials[:-2]:
        copy.study.add_trial(trial)
    for key, index in search.claims.held().items():
        if index < len(search.study.trials) - 2:
            copy.claims.claim(key, index)
    again = copy.run(2)
    assert [trial.params for trial in again] == [trial.params for trial in search.study.trials]
    assert again[-1].user_attrs == search.study.trials[-1].user_attrs


def test_trials_in_progress_of_other_workers_are_not_proposed_again(search: Search) -> None:
    config, keys = search.config, set()
    other = Search(config)
    other.run(STARTUP + 1)
    for _ in range(3):
        _, candidate = other.ask()  # none of them is told
        keys.add(candidate.key)
    assert len(keys) == 3


def test_fixed_parameters_stay(search: Search) -> None:
    other = Search(search.config)
    other.run(STARTUP + 1)
    other.study.enqueue_trial({"kernel": 5, "blocks": 3})
    trial, _ = other.ask()
    assert (trial.params["kernel"], trial.params["blocks"]) == (5, 3)


def test_accuracies_of_pure_noise_leave_it_random() -> None:
    """Noise seems explained now and then by chance, so not every proposal is."""

    def noise(candidate: Candidate) -> float:
        return 0.5 + 0.02 * float(generator(0, candidate.key).standard_normal())

    search = Search(configured(search={"sampler": "random"}), objective=noise)
    search.run(24)
    search.config = configured()
    later = [trial.user_attrs[PROPOSAL] for trial in search.run(3)[24:]]
    assert {"reason": "random", "note": "the surrogate explains nothing yet"} in later


def test_a_recipe_is_learnt_beside_the_network() -> None:
    recipe = {"learning_rate": {"low": 0.0001, "high": 0.1, "log": True}, "epochs": 3}

    def objective(candidate: Candidate) -> float:
        return 0.5 - 0.05 * abs(math.log10(candidate.recipe.learning_rate) + 2)

    trials = Search(configured(recipe=recipe), objective=objective).run(STARTUP + 7)
    later = [trial.params["recipe.learning_rate"] for trial in trials[-4:]]
    assert all(0.002 < rate < 0.05 for rate in later)


@pytest.mark.long
def test_several_objectives_spread_over_the_front() -> None:
    config = configured("reject", search={"directions": {"accuracy": "maximize", "params": "minimize"}})

    def objective(candidate: Candidate) -> float:
        return 0.3 + 0.02 * (candidate.cost.params / 1000) ** 0.5

    trials = Search(config, objective=objective).run(STARTUP + 10)
    params = [trial.values[1] for trial in trials[STARTUP:]]
    assert min(params) < BUDGET / 4
    assert max(params) > BUDGET / 2


def test_networks_that_could_not_be_trained_count_as_the_worst() -> None:
    search = Search(configured())
    search.run(STARTUP + 1)
    trial, _ = search.ask()
    trial.set_user_attr(OUTCOME, Outcome.DIVERGED)
    search.study.tell(trial, state=TrialState.PRUNED)
    observations = observe(search.config, search.study.trials, own=-1)
    assert observations.ended[-1].accuracy == min(one.accuracy for one in observations.ended)
    assert not observations.ended[-1].is_final


# --- in a worker -----------------------------------------------------------------------------------------------------


def test_a_worker_searches_by_it_with_rungs(tmp_path: Path, pretence: Pretence) -> None:
    """Trials that are pruned count among the first ones, and are learnt from."""
    recipe = {"epochs": 4, "schedule": {"kind": "cosine"}}
    changes = {"recipe": recipe, "search": {"sampler": "bayes", "rungs": {"first": 1, "factor": 2}, "trials": STARTUP + 3}}
    bench = Bench(small_run(tmp_path / "run", **changes), pretence)
    bench.plays += [[0.3 + 0.02 * index] * 4 if index % 2 else [0.2] * 4 for index in range(STARTUP + 3)]
    assert bench.train_candidates() == Done()
    assert {record.outcome for record in bench.records} == {"trained", "pruned_at_rung"}
    assert all(record.proposal for record in bench.records)
    assert verdict(bench.run, 0).splitlines()[1] == f"sampled at random: one of the first {STARTUP} trials"
