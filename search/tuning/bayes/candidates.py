"""Candidates of a proposal: random networks that fit the budget, and neighbours of given ones, each with its features."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

import space
from search.budget.cost import Cost, compute_cost
from search.budget.metrics import METRICS
from search.networks.architecture import Architecture
from search.networks.layers import ArchitectureError
from search.spaces.domains import Choices, Domain, Value
from search.study.config import StudyConfig
from search.tuning.bayes.features import Features, network_features, recipe_features
from search.tuning.candidate import DataFacts, canonical_recipe
from search.tuning.scaling import LOOK_AHEAD, largest_that_fits

Values = dict[str, Value]

FILLED = 0.5  # share of the random networks that fill the budget, under fit = "fill"
LEAST_SHARE = 0.25  # of the budget, which other scaled networks fill
ATTEMPTS = 20  # draws for a random network, should many not be possible at all
REMEMBERED = 20_000  # trained networks whose features are kept, 5 KB each
STEP = 0.15  # standard deviation of a neighbour's value, as a fraction of its range


_observed: dict[tuple[object, ...], Point | None] = {}  # by study and values


@dataclass(frozen=True)
class Point:
    """A candidate with its features and, for each metric that the study minimises, its cost."""

    values: Mapping[str, Value]
    features: Features
    costs: tuple[float, ...]


class Candidates:
    """Source of candidates of a study.

    Args:
        fixed: parameters that the user has fixed, which every candidate has.
    """

    def __init__(self, config: StudyConfig, data: DataFacts, generator: random.Random, fixed: Mapping[str, Value]) -> None:
        self._config, self._data, self._generator, self._fixed = config, data, generator, fixed
        self._domains = {name: domain for name, domain in config.parameters.items() if name not in fixed}
        self._searched_recipe = [name for name in config.parameters if name.startswith("recipe.")]
        self._recipes: dict[tuple[Value, ...], Features] = {}
        self._fills = config.search.fit == "fill"
        self.priced = 0  # networks that were built
        self._study = f"{config.digest} {data}"

    def random(self, *, is_alone: bool = False) -> Values | None:
        """A random network that fits; None if none was found in a few attempts.

        With fit = "fill" half of them fill the budget and the others a random share of it; with "reject" a draw is taken as
        it is if it fits, and scaled to a random share otherwise.

        Args:
            is_alone: True where the surrogate does not choose among several; with fit = "fill" it then fills the budget.
        """
        for _ in range(ATTEMPTS):
            values = self._draw()
            if self._fills:
                share = 1.0 if is_alone or self._generator.random() < FILLED else self._generator.uniform(LEAST_SHARE, 1.0)
                scaled = self._scaled(values, share)
            else:
                scaled = values if self._fits(values, 1.0) else self._scaled(values, self._generator.uniform(LEAST_SHARE, 1))
            if scaled is not None:
                return scaled
        return None

    def neighbour(self, values: Mapping[str, Value]) -> Values:
        """A network that differs in one to three parameters, or in all widths together; it may not fit."""
        changed = dict(values)
        for name in self._generator.sample(
            list(self._domains), min(self._generator.choice((1, 1, 2, 3)), len(self._domains))
        ):
            changed[name] = self._moved(self._domains[name], changed[name])
        if self._generator.random() < 0.15 and self._config.space.widths:
            changed = self._widened(changed, self._generator.uniform(0.7, 1.4))
        return changed

    def _widened(self, values: Values, factor: float) -> Values:
        """The values with every sampled width scaled."""
        widths = [name for name in self._config.space.widths if name in self._domains]
        return {**values, **{name: self._domains[name].at_most(factor * float(values[name])) for name in widths}}

    def point(self, values: Mapping[str, Value]) -> Point | None:
        """Features and costs of the network of these values; None if it cannot exist or breaks the budget."""
        try:
            architecture, cost = self._build(values)
        except ArchitectureError:
            return None
        if self._config.budget.breach(architecture, cost) is not None:
            return None
        return self._point(values, cost)

    def observed(self, values: Mapping[str, Value]) -> Point | None:
        """As `point`, for a network that was trained, within the budget or not; each is built once in a process."""
        key = (self._study, *values.items())
        if key not in _observed:
            if len(_observed) >= REMEMBERED:
                _observed.clear()
            try:
                _observed[key] = self._point(values, self._build(values)[1])
            except ArchitectureError:
                _observed[key] = None
        return _observed[key]

    # --- private ---

    def _point(self, values: Mapping[str, Value], cost: Cost) -> Point:
        costs = tuple(float(METRICS[name].compute(cost)) for name in self._config.cost_metrics)
        return Point(values, network_features(cost) | self._recipe_features(values), costs)

    def _draw(self) -> Values:
        return {name: domain.draw(self._generator) for name, domain in self._domains.items()} | dict(self._fixed)

    def _moved(self, domain: Domain, value: Value) -> Value:
        """Another value of a domain: near it in a range or an ascending list of numbers, any other in a list of names."""
        generator = self._generator
        if isinstance(domain, Choices):
            others = [other for other in domain.values if other != value]
            return generator.choice(others) if others else value
        if domain.step is None or domain.log:
            return _nudged(domain.low, domain.high, domain.log, float(value), generator)
        index, last = domain.index(float(value)), domain.size - 1
        if generator.random() < 0.5:
            moved = index + generator.choice((-1, 1))
        else:
            moved = round(index + generator.gauss(0, max(STEP * last, 1)))
        return domain.at(min(max(moved, 0), last))

    def _build(self, values: Mapping[str, Value]) -> tuple[Architecture, Cost]:
        self.priced += 1
        architecture = space.build(self._config.space, values, self._data.input_shape, self._data.classes)
        return architecture, compute_cost(architecture)

    def _fits(self, values: Mapping[str, Value], share: float) -> bool:
        """True if the network exists, meets the budget, and costs at most this share of each limit."""
        try:
            architecture, cost = self._build(values)
        except ArchitectureError:
            return False
        budget = self._config.budget
        if share < 1 and any(METRICS[name].compute(cost) >= share * limit for name, limit in budget.limits.items()):
            return False
        return budget.breach(architecture, cost) is None

    def _scaled(self, values: Values, share: float) -> Values | None:
        fixed = dict(self._fixed)
        look_ahead = 0 if self._config.budget.is_monotone else LOOK_AHEAD
        scaled = largest_that_fits(self._config.space, values, lambda at: self._fits({**at, **fixed}, share), look_ahead)
        return None if scaled is None else scaled | fixed

    def _recipe_features(self, values: Mapping[str, Value]) -> Features:
        key = tuple(values[name] for name in self._searched_recipe)
        if key not in self._recipes:
            recipe = canonical_recipe(self._config.recipe_of(values), self._data)
            self._recipes[key] = recipe_features(recipe)
        return self._recipes[key]


def _nudged(low: float, high: float, log: bool, value: float, generator: random.Random) -> Value:
    """A continuous value moved by a normal step, on a logarithmic scale if the range has one."""
    if not log:
        return min(max(value + generator.gauss(0, STEP * (high - low)), low), high)
    moved = math.exp(math.log(value) + generator.gauss(0, STEP * math.log(high / low)))
    bounded = min(max(moved, low), high)
    return round(bounded) if isinstance(low, int) else bounded
