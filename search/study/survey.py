"""Survey of a search space under a budget, from the costs of random draws, with no model built."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from search.budget.cost import Cost, compute_cost
from search.budget.limits import Budget
from search.budget.metrics import METRICS
from search.errors import UserError
from search.networks.architecture import Architecture
from search.networks.layers import ArchitectureError, walk
from search.spaces.domains import Choices, Domain, Value
from search.text import format_shape
from space import Fixed, Space

DRAWS = 2_000  # to find the smallest network
SURVEY = 10_000  # to estimate the share that fits: a 95 % interval of +-1 point at worst
MOST_LAYERS = 1_000_000  # over all draws, which takes half a minute: enough for all draws of networks of 100 layers
CANNOT_EXIST = "cannot exist"  # rule of draws that are no network for this input
NORMAL_95 = 1.959964  # the two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class Survey:
    """Statistics of random draws; the extremes are those found, so a space may contain smaller and larger networks."""

    draws: int
    share_that_fits: float
    interval: tuple[float, float]  # 95 % confidence interval of the share
    broken: dict[str, int]  # number of draws by the first rule that they break
    smallest_params: int
    largest_params_that_fit: int
    largest_params: int
    sizes: tuple[int, ...]  # parameters of each draw that is a possible network
    proposals_per_second: float

    @property
    def is_limited_by_budget(self) -> bool:
        """True if a draw is a possible network that breaks the budget."""
        return any(rule != CANNOT_EXIST for rule in self.broken)


def survey_space(
    space: Space, budget: Budget, input_shape: tuple[int, int, int], classes: int, draws: int = SURVEY, seed: int = 0
) -> Survey:
    """Draw uniformly from the space and compute costs; draws stop early once MOST_LAYERS are reached.

    Raises:
        UserError: no network of the space fits the budget, or its input.
    """
    check(space, budget, input_shape, classes)
    least = smallest(space, input_shape, classes)
    assert least is not None  # else the check has failed
    generator = random.Random(seed)
    sizes, fitting, broken = [], [], Counter[str]()
    layers = sampled = 0
    started = time.perf_counter()
    while sampled < draws and layers <= MOST_LAYERS:
        sampled += 1
        values = {name: domain.draw(generator) for name, domain in space.parameters.items()}
        try:
            architecture = space.build(values, input_shape, classes)
            layers += sum(1 for _ in walk(architecture.layers))
            cost = compute_cost(architecture)
        except ArchitectureError:
            broken[CANNOT_EXIST] += 1
            continue
        sizes.append(cost.params)
        if breach := budget.breach(architecture, cost):
            broken[breach.rule] += 1
        else:
            fitting.append(cost.params)
    seconds = time.perf_counter() - started
    return Survey(
        draws=sampled,
        share_that_fits=len(fitting) / sampled,
        interval=wilson(len(fitting), sampled),
        broken=dict(broken.most_common()),
        smallest_params=min([least, *sizes]),
        largest_params_that_fit=max([least, *fitting]),
        largest_params=max([least, *sizes]),
        sizes=tuple(sizes),
        proposals_per_second=sampled / seconds,
    )


def wilson(hits: int, draws: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson, "Probable inference", JASA 1927)."""
    share, square = hits / draws, NORMAL_95**2
    middle = (share + square / (2 * draws)) / (1 + square / draws)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / draws + square / (4 * draws**2)) / (1 + square / draws)
    return max(0.0, middle - half), min(1.0, middle + half)


def smallest(space: Space, input_shape: tuple[int, int, int], classes: int) -> int | None:
    """Fewest parameters found in the space; None if no draw is possible for this input.

    Widths are at their lowest and the rest is drawn; every other draw also takes the lowest depth.
    """
    return min((cost.params for _, cost in _narrow(space, input_shape, classes)), default=None)


def _narrow(space: Space, input_shape: tuple[int, int, int], classes: int) -> Iterator[tuple[Architecture, Cost]]:
    """Yield networks of the lowest widths, every other one also of the lowest depth, with their costs."""
    generator, layers = random.Random(0), 0
    for number in range(DRAWS):
        if layers > MOST_LAYERS:
            break
        values = {name: domain.draw(generator) for name, domain in space.parameters.items()}
        floors = {*space.widths, *space.depths} if number % 2 else {*space.widths}
        values |= {name: _lowest(domain) for name, domain in space.parameters.items() if name in floors}
        try:
            architecture = space.build(values, input_shape, classes)
            layers += sum(1 for _ in walk(architecture.layers))
            yield architecture, compute_cost(architecture)
        except ArchitectureError:
            continue


def check(space: Space, budget: Budget, input_shape: tuple[int, int, int], classes: int) -> None:
    """Check that a study can train something: the first network found that fits ends the check.

    Raises:
        UserError: no network of the space fits the budget, or its input.
    """
    least: dict[str, int] = {}
    for architecture, cost in _narrow(space, input_shape, classes):
        if cost.params < budget.params and (budget.is_plain or budget.breach(architecture, cost) is None):
            return
        for name in ("params", *budget.limits):
            value = METRICS[name].compute(cost)
            least[name] = min(value, least.get(name, value))
    if not least:
        shape = format_shape(input_shape)
        if isinstance(space, Fixed):
            raise UserError(f"space: none of its networks takes images of {shape} in {classes} classes; name others")
        raise UserError(f"space: none of its networks fits images of {shape}; take fewer pools or strides, or padding same")
    if least["params"] >= budget.params:
        raise UserError(
            f"budget.params: {budget.params:,} is out of reach, the smallest network found in the space has "
            f"{least['params']:,}; ask for at least {least['params'] + 1:,}, or lower the widths or blocks of the space"
        )
    for name, limit in budget.limits.items():
        if least[name] >= limit:
            raise UserError(
                f"budget: {budget.bound(name)} {METRICS[name].full_label} is out of reach, the least found in the space is "
                f"{least[name]:,}; ask for more, or lower the widths, blocks or resolution of the space"
            )
    raise UserError(
        f"budget: no network of the space was found under {budget.words} together, among {DRAWS:,} of the lowest widths; "
        "raise one of them, or widen the space"
    )


def _lowest(domain: Domain) -> Value:
    return min(domain.values) if isinstance(domain, Choices) else domain.low
