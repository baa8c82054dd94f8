"""Studies of trials that nobody trained, as many as a test or a benchmark wants.

Every trial is a network of the study's space within its budget and carries what `objective` writes of one; its accuracy is
a known function of the network, with noise, so that what a page says about the choices can be held against it.
"""

from __future__ import annotations

import math
import random
from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.budget.cost import Cost, compute_cost, compute_layer_cost
from search.data.dataset import Dataset
from search.data.sources import CIFAR10_CLASSES
from search.finals.results import FinalistResult, FinalsResult
from search.finals.statistics import rank
from search.networks.architecture import Architecture, fingerprint
from search.networks.geometry import resolve
from search.networks.layers import Dropout, SeparableConv
from search.storage.urls import sqlite_url
from search.study import references
from search.study import run as studies
from search.study.config import ROOT, StudyConfig
from search.study.run import Run, Studies
from search.study.study_file import load
from search.tuning.candidate import Candidate, DataFacts, fits, judge
from search.tuning.scaling import largest_that_fits

Score = Callable[[Architecture], float]

HOLDOUT = ROOT / "studies" / "cifar10_100k_holdout" / "study.toml"
BEGUN = datetime(2025, 1, 1)
SPREAD = 0.004  # of the accuracy of one training


@contextmanager
def storages_in_memory() -> Iterator[None]:
    """No storage is a file in here: thousands of trials are added in a moment."""
    opened: dict[str, optuna.storages.InMemoryStorage] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies, "open_storage", lambda url, **rest: opened.setdefault(url, optuna.storages.InMemoryStorage()))
        yield


def noise_images(classes: tuple[str, ...] = CIFAR10_CLASSES, channels: int = 3) -> Dataset:
    """A data set of noise, 32 pixels square: eleven training and ten validation images a class."""
    pixels, n = np.random.default_rng(0), len(classes)
    parts = []
    for labels in (np.repeat(np.arange(n), 11), np.repeat(np.arange(n), 10)):
        parts += [pixels.integers(0, 256, (len(labels), 32, 32, channels), np.uint8), labels]
    return Dataset("cifar10", *parts, None, None, classes, "holdout", "0" * 16)


def synthetic_run(folder: Path, study: Path = HOLDOUT, **changes: Any) -> Run:
    """A run of a shipped study that has not begun; changes replace keys of its file: `search__rungs={...}`."""
    config = load(study, {key.replace("__", "."): value for key, value in changes.items()})
    return Run("synthetic", folder, config, sqlite_url(folder))


def plausible(network: Architecture) -> float:
    """An accuracy as it might be: parameters pay with less and less return, least in late blocks, and dropout costs."""
    convs = [row for row in resolve(network) if isinstance(row.layer, SeparableConv)]
    gains = (max(1.6 - 0.12 * place, 0.2) * math.sqrt(compute_layer_cost(row).params) for place, row in enumerate(convs))
    rates = [layer.rate for layer in network.layers if isinstance(layer, Dropout)]
    return (
        0.74 + sum(gains) / 8_000 + 0.004 * math.log10(compute_cost(network).macs) - 0.06 * sum(rates) / max(len(rates), 1)
    )


def fill(run: Run, data: Dataset, n: int, *, score: Score = plausible, seed: int = 0, base: float = 0.8287) -> Studies:
    """Create the studies of a run with its base, where that is a network, and `n` candidates, no two the same."""
    created, generator, seen = studies.create(run, data), random.Random(seed), set[str]()
    facts = DataFacts(data.input_shape, data.classes, data.fingerprint)
    if isinstance(run.config.base, str):
        created.references.add_trial(_reference(run.config, base))
    made = _Maker(run.config, generator, base if isinstance(run.config.base, str) else run.config.base)
    trials: list[FrozenTrial] = []
    while len(trials) < n:
        values = {name: domain.draw(generator) for name, domain in run.config.parameters.items()}
        if run.config.search.fit == "fill":
            values = largest_that_fits(run.config.space, values, lambda at: fits(run.config, facts, at)) or values
        found = judge(run.config, facts, values)
        if isinstance(found, Candidate) and found.key not in seen:
            seen.add(found.key)
            trials.append(made.candidate(found, values, len(trials), score(found.architecture)))
    created.candidates.add_trials(trials)
    return created


def finals_of(scores: Mapping[str, Sequence[float]], base: str | float | None = "base") -> FinalsResult:
    """Finals with these scores on the same seeds, by name; `trial-3` is trial 3. The search had shown each 0.02 more."""
    found = rank(scores, base)
    against_base, against_leader = ({one.name: one for one in group} for group in (found.against_base, found.against_leader))
    finalists = tuple(
        FinalistResult(
            name=one.name,
            number=int(one.name.split("-")[1]) if "-" in one.name else None,
            params=90_000,
            search_score=max(scores[one.name]) + 0.02,
            best_val=tuple(scores[one.name]),
            final_val=tuple(scores[one.name]),
            test=(),
            mean=one.mean,
            spread=one.spread,
            interval=None if one.low is None or one.high is None else (one.low, one.high),
            winners_curse=0.02,
            against_base=against_base.get(one.name),
            against_leader=against_leader.get(one.name),
        )
        for one in found.summaries
    )
    seeds = len(next(iter(scores.values())))
    return FinalsResult("best_val_accuracy", seeds, finalists, found.leader, (), {})


class _Maker:
    """Makes one finished trial after another, with halving at the rungs."""

    def __init__(self, config: StudyConfig, generator: random.Random, base: float) -> None:
        self.config, self.generator, self.base = config, generator, base
        self.at_rung: dict[int, list[float]] = {rung: [] for rung in config.rungs}

    def candidate(self, found: Candidate, values: dict[str, Any], index: int, score: float) -> FrozenTrial:
        curve = self._curve(score, self.config.recipe.epochs)
        for rung, seen in self.at_rung.items():
            insort(seen, curve[rung - 1])
            factor = self.config.search.rungs.factor
            if len(seen) >= factor and seen.index(curve[rung - 1]) < len(seen) * (1 - 1 / factor):
                curve = curve[:rung]
                break
        told = _scores(curve, found.cost) | {"index": index, "attempt": 1, "key": found.key}
        told |= {"seed": self.generator.getrandbits(31), "delta_vs_base": max(curve) - self.base}
        told |= {
            "refused": {"over budget": index % 3, "same network": 1},
            "refused_params": [self.generator.randint(100_000, 400_000)],
        }
        if len(curve) < self.config.recipe.epochs:
            told |= {"outcome": "pruned_at_rung", "reason": f"{curve[-1]:.2%} after {len(curve)} epochs, behind others"}
        return _finished(told, curve, values, {name: one.distribution() for name, one in self.config.parameters.items()})

    def _curve(self, score: float, epochs: int) -> list[float]:
        end = min(max(self.generator.gauss(score, SPREAD), 0.0), 1.0)
        pace = epochs / 6
        return [end * (1 - 0.6 * math.exp(-epoch / pace)) + self.generator.gauss(0, 0.002) for epoch in range(1, epochs + 1)]


def _reference(config: StudyConfig, best: float) -> FrozenTrial:
    known = references.named(str(config.base))
    curve = [best * (1 - 0.5 * math.exp(-epoch / 8)) for epoch in range(1, config.recipe.epochs)] + [best]
    told = _scores(curve, compute_cost(known.architecture)) | {"index": 0, "attempt": 1, "reference": known.name, "seed": 1}
    return _finished(told | {"fingerprint": fingerprint(known.architecture)}, curve, {}, {})


def _scores(curve: list[float], cost: Cost) -> dict[str, Any]:
    best = max(curve)
    told = {"params": cost.params, "macs": cost.macs, "receptive_field": cost.receptive_field, "best_val_accuracy": best}
    told |= {"best_epoch": curve.index(best) + 1, "final_val_accuracy": curve[-1], "epochs": len(curve)}
    return told | {"seconds": 4 + 2.5 * len(curve), "compile_seconds": 4.0, "outcome": "trained"}


def _finished(told: dict[str, Any], curve: list[float], values: dict[str, Any], domains: dict[str, Any]) -> FrozenTrial:
    begun = BEGUN + timedelta(minutes=4 * told["index"])
    is_trained = told["outcome"] == "trained"
    trial = create_trial(
        state=TrialState.COMPLETE if is_trained else TrialState.PRUNED,
        value=told["best_val_accuracy"] if is_trained else None,
        params=values,
        distributions=domains,
        user_attrs=told,
        intermediate_values=dict(enumerate(curve, 1)),
    )
    trial.datetime_start, trial.datetime_complete = begun, begun + timedelta(seconds=told["seconds"])
    return trial
