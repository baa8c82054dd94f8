"""A proposal's widths taken as proportions: scaled together, up or down, to the largest network that fits.

A proposal over the budget becomes one that fits, and with `fit = "fill"` every network of a search is about as large as the
budget allows, so that what is compared is how its parameters are spread and not how many there are.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping

from search.spaces.domains import Domain, Value
from space import Space, parameters, widths

LOOK_AHEAD = 16  # scales that are tried past the first that is too large, where a larger one may fit again
LISTED = 1024  # scales that are listed and sorted; more than a space has widths, so that halving always gets there


def largest_that_fits(
    space: Space, values: Mapping[str, Value], fits: Callable[[Mapping[str, Value]], bool], look_ahead: int = 0
) -> dict[str, Value] | None:
    """The values with every sampled width replaced by the largest declared one up to scale * width, at the largest scale.

    The scale goes from all widths at their lowest to all at their highest; widths of blocks past the depth move with the
    others. What is returned is exact for a monotone budget: at the next scale that moves a width, the network does not fit.

    Args:
        values: a value for each parameter of the space; others are handed on as they are.
        fits: True if a network with these values is within the budget; if it is, so should be all narrower ones. Called at
            most some 30 times, about 12 times in a space of a usual size, and `look_ahead` times more.
        look_ahead: scales to try past the first that is too large. For budgets that are not monotone
            (`search.budget.limits.Budget.is_monotone`), under which a larger network may fit again.

    Returns:
        None where even the lowest widths do not fit.
    """
    domains = {name: parameters(space)[name] for name in widths(space)}
    given = {name: float(values[name]) for name in domains}

    def scaled(scale: float) -> dict[str, Value]:
        return {**values, **{name: domain.at_most(scale * given[name]) for name, domain in domains.items()}}

    low = min((domain.at_most(0) / given[name] for name, domain in domains.items()), default=1.0)
    high = max((domain.at_most(math.inf) / given[name] for name, domain in domains.items()), default=1.0)
    if not fits(scaled(low)):
        return None
    while sum(len(_moves(domain, given[name], low, high)) for name, domain in domains.items()) > LISTED:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(scaled(middle)) else (low, middle)
    scales = sorted(
        {
            domain.at(place) / given[name]
            for name, domain in domains.items()
            for place in _moves(domain, given[name], low, high)
        }
    )
    first_too_large = bisect_left(scales, True, key=lambda scale: not fits(scaled(scale)))
    for scale in reversed(scales[first_too_large + 1 : first_too_large + 1 + look_ahead]):
        if fits(scaled(scale)):
            return scaled(scale)
    return scaled([low, *scales][first_too_large])


def _moves(domain: Domain, width: float, low: float, high: float) -> range:
    """The places of the values that scale * width comes to as the scale goes up from `low` to `high`."""
    return range(domain.place(low * width) + 1, domain.place(high * width) + 1)
