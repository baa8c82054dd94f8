"""A proposal judged before it costs anything: the candidate that it makes, or the rule that it breaks.

The sampler asks this of every proposal, the objective of every trial: what is trained has passed here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import space
from search.budget.cost import Cost, compute_cost
from search.networks.architecture import Architecture, fingerprint
from search.networks.layers import ArchitectureError
from search.spaces.domains import Value
from search.study.config import StudyConfig
from search.training.recipe import Recipe

Rule = str  # "cannot exist", "same network", or a rule of the budget: "over budget", "over flash", ...


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What a candidate depends on of the data."""

    input_shape: tuple[int, int, int]  # (height, width, channels)
    classes: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network that fits, with the recipe it is to be trained under."""

    architecture: Architecture
    recipe: Recipe
    cost: Cost
    key: str  # what is trained: canonical network, recipe with its epochs, data, and the seed where that is searched
    repeat: int | None  # the seed, where a grid repeats its cells


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a proposal is not trained."""

    rule: Rule
    reason: str
    architecture: Architecture | None = None  # None: it cannot exist
    cost: Cost | None = None


def judge(config: StudyConfig, data: DataFacts, values: Mapping[str, Value]) -> Candidate | Refusal:
    """The candidate with these parameters, or why there is none; about 0.1 ms.

    Args:
        values: a value for each of `config.parameters`.
    """
    try:
        architecture, cost = _costed(config, data, values)
    except ArchitectureError as error:
        return Refusal("cannot exist", f"cannot exist: {error}")
    if breach := config.budget.breach(architecture, cost):
        return Refusal(breach.rule, breach.reason, architecture, cost)
    recipe = config.recipe_of(values)
    repeat = int(values["repeat"]) if "repeat" in values else None
    return Candidate(architecture, recipe, cost, _key(architecture, recipe, data, repeat), repeat)


def fits(config: StudyConfig, data: DataFacts, values: Mapping[str, Value]) -> bool:
    """Whether the network can exist and is within the budget."""
    try:
        return config.budget.breach(*_costed(config, data, values)) is None
    except ArchitectureError:
        return False


def _costed(config: StudyConfig, data: DataFacts, values: Mapping[str, Value]) -> tuple[Architecture, Cost]:
    architecture = space.build(config.space, values, data.input_shape, data.classes)
    return architecture, compute_cost(architecture)


def _key(architecture: Architecture, recipe: Recipe, data: DataFacts, repeat: int | None) -> str:
    parts = [fingerprint(architecture), recipe.model_dump(mode="json"), data.fingerprint, repeat]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
