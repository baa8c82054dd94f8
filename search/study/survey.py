"""What a space holds under a budget, found by drawing from it and pricing, with no model built."""

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
from space import Fixed, Space, build, depths, parameters, widths

DRAWS = 2_000  # for the smallest network
SURVEY = 10_000  # for the share that fits: an interval of +-1 point at worst
MOST_LAYERS = 1_000_000  # that are priced, in half a minute: those of the draws above, where a network has up to a hundred
NORMAL_95 = 1.959964  # the two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class Survey:
    """What random draws of a space cost; sizes are the extremes found, so bounds from inside."""

    draws: int
    share_that_fits: float
    interval: tuple[float, float]  # 95 %
    broken: dict[str, int]  # draws by the first rule that they break
    smallest_params: int
    largest_params_that_fit: int
    largest_params: int
    sizes: tuple[int, ...]  # parameters of each draw that can exist
    proposals_per_second: float


def survey(
    space: Space, budget: Budget, input_shape: tuple[int, int, int], classes: int, draws: int = SURVEY, seed: int = 0
) -> Survey:
    """Draw uniformly from the space and price, fewer where the networks are so deep that it would take for ever.

    Raises:
        UserError: no network of the space fits the budget, or its input.
    """
    least = check(space, budget, input_shape, classes)
    generator = random.Random(seed)
    sizes, fitting, broken = [], [], Counter[str]()
    layers = drawn = 0
    started = time.perf_counter()
    while drawn < draws and layers <= MOST_LAYERS:
        drawn += 1
        values = {name: domain.draw(generator) for name, domain in parameters(space).items()}
        try:
            architecture = build(space, values, input_shape, classes)
            layers += sum(1 for _ in walk(architecture.layers))
            cost = compute_cost(architecture)
        except ArchitectureError:
            broken["cannot exist"] += 1
            continue
        sizes.append(cost.params)
        if breach := budget.breach(architecture, cost):
            broken[breach.rule] += 1
        else:
            fitting.append(cost.params)
    seconds = time.perf_counter() - started
    return Survey(
        drawn,
        len(fitting) / drawn,
        wilson(len(fitting), drawn),
        dict(broken.most_common()),
        min([least, *sizes]),
        max([least, *fitting]),
        max([least, *sizes]),
        tuple(sizes),
        drawn / seconds,
    )


def wilson(hits: int, draws: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson, "Probable inference", JASA 1927)."""
    share, square = hits / draws, NORMAL_95**2
    middle = (share + square / (2 * draws)) / (1 + square / draws)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / draws + square / (4 * draws**2)) / (1 + square / draws)
    return max(0.0, middle - half), min(1.0, middle + half)


def smallest(space: Space, input_shape: tuple[int, int, int], classes: int) -> int | None:
    """The fewest parameters found in the space; None where no draw can exist on this input.

    Widths are at their lowest, the rest is drawn; every other draw also takes the lowest depth.
    """
    return min((cost.params for _, cost in _narrow(space, input_shape, classes)), default=None)


def _narrow(space: Space, input_shape: tuple[int, int, int], classes: int) -> Iterator[tuple[Architecture, Cost]]:
    """Networks of the lowest widths, every other one of the lowest depth too, with their prices."""
    generator, layers = random.Random(0), 0
    for number in range(DRAWS):
        if layers > MOST_LAYERS:
            break
        values = {name: domain.draw(generator) for name, domain in parameters(space).items()}
        floors = {*widths(space), *depths(space)} if number % 2 else {*widths(space)}
        values |= {name: _lowest(domain) for name, domain in parameters(space).items() if name in floors}
        try:
            architecture = build(space, values, input_shape, classes)
            layers += sum(1 for _ in walk(architecture.layers))
            yield architecture, compute_cost(architecture)
        except ArchitectureError:
            continue


def check(space: Space, budget: Budget, input_shape: tuple[int, int, int], classes: int) -> int:
    """The fewest parameters found; refuses a study that could train nothing.

    Raises:
        UserError: no network of the space fits the budget, or its input.
    """
    found = smallest(space, input_shape, classes)
    if found is None:
        shape = format_shape(input_shape)
        if isinstance(space, Fixed):
            raise UserError(f"space: none of its networks takes images of {shape} in {classes} classes; name others")
        raise UserError(f"space: none of its networks fits images of {shape}; take fewer pools or strides, or padding same")
    if found >= budget.params:
        raise UserError(
            f"budget.params: {budget.params:,} is out of reach, the smallest network found in the space has {found:,}; "
            f"ask for at least {found + 1:,}, or lower the widths or blocks of the space"
        )
    if budget.is_plain:
        return found
    least: dict[str, int] = {}
    for architecture, cost in _narrow(space, input_shape, classes):
        if budget.breach(architecture, cost) is None:
            return found
        for name in budget.limits:
            value = METRICS[name].compute(cost)
            least[name] = min(value, least.get(name, value))
    for name, limit in budget.limits.items():
        if least[name] >= limit:
            raise UserError(
                f"budget: under {limit:,} {METRICS[name].full_label} is out of reach, the least found in the space is "
                f"{least[name]:,}; "
                f"ask for more, or lower the widths, blocks or resolution of the space"
            )
    raise UserError(
        f"budget: no network of the space was found under {budget.words} together, among {DRAWS:,} of the lowest widths; "
        "raise one of them, or widen the space"
    )


def _lowest(domain: Domain) -> Value:
    return min(domain.values) if isinstance(domain, Choices) else domain.low
