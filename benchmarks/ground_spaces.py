"""Spaces, recipes and budgets of the table of trainings, and random networks of them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache
from typing import Any

from search.spaces.domains import Choices, Domain, Value
from search.study import study_file
from search.study.config import StudyConfig
from search.tuning.candidate import Candidate, DataFacts, fits, judge
from search.tuning.sampler import LOOK_AHEAD
from search.tuning.scaling import largest_that_fits

EPOCHS, LONG_EPOCHS = 4, 12
FACTOR = 3  # of rungs
IMAGES, VALIDATION, SIDE = 1_500, 2_000, 16
FACTS = DataFacts((SIDE, SIDE, 3), 10, "table", train_images=IMAGES, is_balanced=True)
BUDGETS = (6_000, 15_000, 40_000, 100_000)
MACS = 400_000  # limit of every budget, so that no network takes a minute

SPACES: dict[str, dict[str, Any]] = {
    "pyramid": {
        "kind": "pyramid",
        "blocks": {"low": 3, "high": 7},
        "width": {"low": 8, "high": 256, "step": 8},
        "kernel": {"choices": [3, 5], "per": "net"},
        "stride": {"each": [2, 1, 1, 1, 1, 1, 1]},  # 8x8 from the first block on: a quarter of the time
        "dropout": {"low": 0.0, "high": 0.3, "step": 0.05},
        "order": ["conv-bn-act", "conv-act-bn", "conv-dropout-bn-act", "conv-act-dropout-bn"],
        "activation": ["relu", "silu"],
        "pools": {"low": 0, "high": 2},
        "pool_kind": ["max", "average"],
        "head": ["conv", "dense"],
    },
    "residual": {
        "kind": "residual",
        "stages": [2, 3],
        "blocks": {"low": 1, "high": 2},
        "width": {"low": 8, "high": 128, "step": 4},
        "kernel": [3, 5],
        "second_kernel": {"choices": [3, 5], "per": "net"},
        "block": ["gated", "inverted", "plain"],
        "expansion": {"low": 0.5, "high": 2.0, "step": 0.5},
        "activation": ["silu", "gelu", "relu"],
        "norm": ["after", "before"],
        "downsample": ["stride", "max", "average"],
        "stem_stride": 2,
        "stem_multiplier": [1, 3],
        "head": ["conv", "dense"],
    },
}
RECIPES: dict[str, dict[str, Any]] = {
    "pyramid": {
        "optimizer": "adam",
        "learning_rate": {"low": 1e-3, "high": 3e-2, "log": True},
        "batch_size": [64, 128],
        "augment": {"flip": True, "crop": 2},
        "augment_strength": {"low": 0.0, "high": 1.0, "step": 0.5},
        "schedule": {"kind": "one-cycle"},
    },
    "residual": {
        "optimizer": ["adamw", "sgd"],
        "learning_rates": {
            "adamw": {"low": 1e-3, "high": 3e-2, "log": True},
            "sgd": {"low": 5e-2, "high": 1.0, "log": True},
        },
        "weight_decay": {"low": 1e-5, "high": 5e-2, "log": True},
        "batch_size": [64, 128],
        "label_smoothing": {"low": 0.0, "high": 0.1, "step": 0.05},
        "augment": {"flip": True, "crop": 2},
        "augment_strength": {"low": 0.0, "high": 1.0, "step": 0.5},
        "schedule": {"kind": "linear"},
        "warmup": {"low": 0.1, "high": 0.3, "step": 0.1},
        "clip_norm": 1.0,
    },
}

Values = dict[str, Value]


@cache
def study(space: str, budget: int, sampler: str = "random", fit: str = "reject", rungs: bool = False) -> StudyConfig:
    """The configuration of a study of this space under this number of parameters.

    Args:
        rungs: train for LONG_EPOCHS, with a rung after EPOCHS.
    """
    search: dict[str, Any] = {"sampler": sampler, "fit": fit}
    raw = {
        "base": 0.1,
        "data": {"name": "cifar10", "normalize": True},
        "budget": {"params": budget, "macs": MACS},
        "space": SPACES[space],
        "recipe": RECIPES[space] | {"epochs": LONG_EPOCHS if rungs else EPOCHS},
        "search": search | ({"rungs": {"first": EPOCHS, "factor": FACTOR}} if rungs else {}),
    }
    return study_file.parse(raw, "benchmarks/ground_spaces.py")


def candidate(space: str, values: Mapping[str, Value]) -> Candidate:
    """The network and recipe of stored values, whatever their budget.

    Raises:
        ValueError: the values give no network.
    """
    judged = judge(study(space, 10**9), FACTS, values)
    if not isinstance(judged, Candidate):
        raise ValueError(judged.reason)
    return judged


def draw(space: str, budget: int, way: str, generator: random.Random) -> Values:
    """A random network under the budget.

    Args:
        way: "filled" scales the widths to the budget, "narrower" draws each width anew below those, "uniform" rejects draws
            over the budget.
    """
    config = study(space, budget)
    while True:
        values = {name: domain.draw(generator) for name, domain in config.parameters.items()}
        if way != "uniform":
            values = filled(config, values)
        if way == "narrower":
            for name in config.space.widths:
                domain = config.parameters[name]
                values[name] = domain.at(generator.randint(0, domain.index(float(values[name]))))
        if fits(config, FACTS, values):
            return values


def filled(config: StudyConfig, values: Values) -> Values:
    """The values with widths scaled to the largest network within the budget; unchanged where none fits."""

    def fit(scaled: Mapping[str, Value]) -> bool:
        return fits(config, FACTS, scaled)

    return largest_that_fits(config.space, values, fit, 0 if config.budget.is_monotone else LOOK_AHEAD) or values


def mutate(space: str, budget: int, parent: Values, generator: random.Random) -> Values:
    """A neighbour of a network under the budget: one to three parameters changed, a number mostly by a step or two."""
    config = study(space, budget)
    key = candidate(space, parent).key
    while True:
        values = dict(parent)
        for name in generator.sample(sorted(values), generator.randint(1, 3)):
            values[name] = _moved(config.parameters[name], values[name], generator)
        values = filled(config, values) if generator.random() < 0.5 else values
        if fits(config, FACTS, values) and candidate(space, values).key != key:
            return values


def _moved(domain: Domain, value: Value, generator: random.Random) -> Value:
    """Another value of the domain, near this one in three of four cases where the domain is a range."""
    if isinstance(domain, Choices) or generator.random() < 0.25:
        return domain.draw(generator)
    if domain.step is None:
        number = float(value) * 2 ** generator.uniform(-1, 1)
        return min(max(number, domain.low), domain.high)
    index = domain.index(float(value)) + generator.choice((-2, -1, 1, 2))
    return domain.at(min(max(index, 0), domain.size - 1))
