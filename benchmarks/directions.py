"""Search with several objectives against single-objective search, by the front of accuracy against parameters.

    python benchmarks/directions.py [--seeds 8] [--trials 40]

Studies of the space of `cifar10_100k_holdout` on a made-up accuracy that grows with parameters and falls with dropout
(`tests/support/synthetic.py`), so a trial takes a moment: random search, TPE by accuracy alone, TPE and NSGA-II of accuracy
and parameters. A study is worth the best accuracy that it has found under a budget, on average over all budgets up to
100,000 parameters (0 under one that nothing fits): the area under its front. Contenders share their seeds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import optuna
from sqlalchemy import create_engine

from search.finals.statistics import compare
from search.seeds import derive
from search.storage.claims import Claims
from search.study.config import STUDIES
from search.study.pareto import front_indices
from search.study.study_file import load
from search.tuning.candidate import Candidate, DataFacts, judge
from search.tuning.sampler import BudgetedSampler, inner_sampler
from tests.support.synthetic import plausible

CONTENDERS = {
    "random": ("random", False),
    "tpe": ("tpe", False),
    "tpe of two": ("tpe", True),
    "nsga2 of two": ("nsga2", True),
}
FACTS = DataFacts((32, 32, 3), 10, "0" * 16)
MOST = 100_000
DIRECTIONS = {"accuracy": "maximize", "params": "minimize"}


def found_by(sampler: str, several: bool, seed: int, trials: int) -> list[tuple[int, float]]:
    """(parameters, accuracy) of every network that a study of so many trials tried."""
    asked: dict[str, Any] = {"search.sampler": sampler, "search.fit": "reject", "search.rungs": None, "search.seed": seed}
    asked |= {"search.directions": DIRECTIONS if several else None}
    config = load(STUDIES / "cifar10_100k_holdout" / "study.toml", asked)
    study = optuna.create_study(directions=["maximize", "minimize"] if several else ["maximize"])
    claims, tried = Claims(create_engine("sqlite://"), 0), list[tuple[int, float]]()

    def objective(trial: optuna.Trial) -> float | tuple[float, float]:
        trial.set_user_attr("index", trial.number)
        found = judge(config, FACTS, {key: domain.suggest(trial, key) for key, domain in config.parameters.items()})
        assert isinstance(found, Candidate)
        tried.append((found.cost.params, plausible(found.architecture)))
        return (tried[-1][1], float(tried[-1][0])) if several else tried[-1][1]

    for index in range(trials):
        draws = derive(seed, "sampler", index)
        study.sampler = BudgetedSampler(inner_sampler(sampler, draws), config, FACTS, claims, seed=draws)
        study.optimize(objective, n_trials=1)
    return tried


def area(tried: Sequence[tuple[int, float]]) -> float:
    """The best accuracy under a budget, on average over all budgets up to MOST."""
    best = [tried[place] for place in front_indices([(params,) for params, _ in tried], [accuracy for _, accuracy in tried])]
    ends = [*(params for params, _ in best[1:]), MOST]
    return sum(accuracy * (end - params) for (params, accuracy), end in zip(best, ends, strict=True)) / MOST


def main() -> None:
    """Every contender on every seed; means, and differences with their 95 % intervals."""
    words = argparse.ArgumentParser()
    words.add_argument("--seeds", type=int, default=8)
    words.add_argument("--trials", type=int, default=40)
    asked = words.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    areas, tops = dict[str, list[float]](), dict[str, list[float]]()
    for name, (sampler, several) in CONTENDERS.items():
        tried = [found_by(sampler, several, seed, asked.trials) for seed in range(asked.seeds)]
        areas[name] = [area(one) for one in tried]
        tops[name] = [max(accuracy for _, accuracy in one) for one in tried]
        told = f"{statistics.mean(areas[name]):.4f} (sd {statistics.stdev(areas[name]):.4f})"
        print(f"{name:<14} area {told}, most accurate {statistics.mean(tops[name]):.4f}", flush=True)
    for what, scores in (("area", areas), ("most accurate", tops)):
        for against in ("random", "tpe"):
            for one in compare(scores, against):
                print(f"{what}: {one.name} less {against} {one.difference:+.4f} ({one.low:+.4f} to {one.high:+.4f})")


if __name__ == "__main__":
    main()
