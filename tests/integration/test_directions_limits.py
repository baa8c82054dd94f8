"""Limits and samplers of a study of several objectives."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import create_engine

from report.analysis.importance import importances
from search.runner.events import Done
from search.storage.claims import Claims
from search.study.config import StudyConfig
from search.study.pareto import select_front
from search.study.records import Record
from search.study.study_file import parse
from search.tuning.candidate import Candidate, DataFacts, judge
from search.tuning.sampler import BudgetedSampler, inner_sampler
from search.tuning.stopping import trials_since_best
from tests.support.directions import RAW
from tests.support.reports import record
from tests.support.runs import Bench, Pretence, pretence, small_run

__all__ = ["pretence"]


# --- limits ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(1, 4), st.booleans()), max_size=12))
def test_patience_counts_from_the_last_candidate_that_joined_the_front(told: list[tuple[int, int, int, bool]]) -> None:
    found = [
        record(number, accuracy / 10, params, macs=macs, outcome="trained" if is_trained else "diverged")
        for number, (accuracy, params, macs, is_trained) in enumerate(told)
    ]
    for prices in (["params"], ["params", "macs"], []):
        count = 0
        for number, one in enumerate(found):
            if one.outcome == "trained":
                before, after = (_points(select_front(found[:end], prices), prices) for end in (number, number + 1))
                count = 0 if before != after and one.best_val_accuracy else count + 1
        assert trials_since_best(found, prices) == count


def _points(front: list[Record], prices: Sequence[str]) -> set[tuple[Any, ...]]:
    return {(one.best_val_accuracy, *(one.cost(name) for name in prices)) for one in front}


def test_a_smaller_network_is_worth_the_wait(tmp_path: Path, pretence: Pretence) -> None:
    """All are as accurate, so that of one objective the first would be the best for good."""
    search_for = {"trials": 12, "sampler": "random", "directions": {"accuracy": "maximize", "params": "minimize"}}
    bench = Bench(small_run(tmp_path / "run", search=search_for, stop={"patience": 2}), pretence)
    assert bench.train_candidates() == Done()
    sizes = [one.params or 0 for one in bench.records]
    assert bench.events[-1].text == "no candidate joined the front in 2 trained trials"
    assert min(sizes) == sizes[-3] and len(sizes) > 3


# --- samplers --------------------------------------------------------------------------------------------------------


FACTS = DataFacts((8, 8, 1), 10, "0" * 16)


def proposed(sampler: str, n: int) -> tuple[StudyConfig, list[FrozenTrial]]:
    """So many proposals, one after another, where every network is as accurate, so that only the small ones are good."""
    wide = {
        "budget": {"params": 100_000},
        "space": {"blocks": {"low": 2, "high": 6}, "width": {"low": 8, "high": 128}, "pools": 1},
    }
    search_for = {"sampler": sampler, "directions": {"accuracy": "maximize", "params": "minimize"}}
    config = parse(RAW | wide | {"search": search_for}, "tiny.toml")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"])
    claims = Claims(create_engine("sqlite://"), 0)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        found = judge(config, FACTS, {name: domain.suggest(trial, name) for name, domain in config.parameters.items()})
        assert isinstance(found, Candidate)
        trial.set_user_attr("params", found.cost.params)
        return 0.5, found.cost.params

    for index in range(n):
        study.sampler = BudgetedSampler(inner_sampler(sampler, index), config, FACTS, claims, seed=index)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            study.optimize(objective, n_trials=1)
    return config, study.trials


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_sampler_of_several_objectives_learns_to_be_small(sampler: str) -> None:
    sizes = {}
    for name in ("random", sampler):
        _, trials = proposed(name, 60)
        assert all(one.state == TrialState.COMPLETE and one.user_attrs["params"] < 100_000 for one in trials)
        sizes[name] = [one.user_attrs["params"] for one in trials[40:]]
    assert sum(sizes[sampler]) < 0.7 * sum(sizes["random"]), sizes


def test_choices_matter_as_they_do_to_accuracy() -> None:
    """Whatever else is searched for: the page says what makes candidates accurate."""
    draws = random.Random(1)
    domains: dict[str, BaseDistribution] = {f"width_{n}": IntDistribution(8, 128, step=8) for n in range(3)}
    drawn = [{name: draws.randrange(8, 129, 8) for name in domains} for _ in range(40)]
    scores = [0.5 + params["width_1"] / 1_000 + draws.gauss(0, 0.01) for params in drawn]
    made = [optuna.create_study(direction="maximize"), optuna.create_study(directions=["maximize", "minimize"])]
    for params, value in zip(drawn, scores, strict=True):
        made[0].add_trial(create_trial(value=value, params=params, distributions=domains))
        made[1].add_trial(create_trial(values=[value, params["width_2"]], params=params, distributions=domains))
    assert importances(made[1]) == importances(made[0])
    assert importances(made[1])[0].name == "width_1"
