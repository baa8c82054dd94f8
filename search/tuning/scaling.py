"""Scales the widths of a proposal together, up or down, to the largest network that fits the budget.

A proposal over the budget becomes one that fits. With `fit = "fill"` every network of a search is about as large as the
budget allows, so that networks are compared by the distribution of their parameters and not by their number.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping

from search.spaces.domains import Domain, Value
from space import Space

LOOK_AHEAD = 16  # scales that are tried past the first that is too large, where a larger one may fit again
LISTED = 1024  # scales that are listed and sorted; more than a space has widths, so that halving always ends


def largest_that_fits(
    space: Space, values: Mapping[str, Value], fits: Callable[[Mapping[str, Value]], bool], look_ahead: int = 0
) -> dict[str, Value] | None:
    """Replace every sampled width by the largest declared one up to scale * width, at the largest scale that fits.

    The scale goes from all widths at their lowest to all at their highest; widths of blocks beyond the depth move with the
    others. The result is exact for a monotone budget: at the next scale that moves a width, the network does not fit.

    Args:
        values: a value for each parameter of the space; others are passed on unchanged.
        fits: True if a network with these values is within the budget; if it is, so should be all narrower ones. Called at
            most about 30 times, about 12 times in a space of usual size, and `look_ahead` times more.
        look_ahead: scales to try past the first that is too large. For budgets that are not monotone
            (`search.budget.limits.Budget.is_monotone`), under which a larger network may fit again.

    Returns:
        None if even the lowest widths do not fit.
    """
    domains = {name: space.parameters[name] for name in space.widths}
    widths = {name: float(values[name]) for name in domains}

    def scaled(scale: float) -> dict[str, Value]:
        return {**values, **{name: domain.at_most(scale * widths[name]) for name, domain in domains.items()}}

    low = min((domain.at_most(0) / widths[name] for name, domain in domains.items()), default=1.0)
    high = max((domain.at_most(math.inf) / widths[name] for name, domain in domains.items()), default=1.0)
    if not fits(scaled(low)):
        return None
    while sum(len(_moves(domain, widths[name], low, high)) for name, domain in domains.items()) > LISTED:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(scaled(middle)) else (low, middle)
    scales = sorted(
        {
            domain.at(index) / widths[name]
            for name, domain in domains.items()
            for index in _moves(domain, widths[name], low, high)
        }
    )
    first_too_large = bisect_left(scales, True, key=lambda scale: not fits(scaled(scale)))
    for scale in reversed(scales[first_too_large + 1 : first_too_large + 1 + look_ahead]):
        if fits(scaled(scale)):
            return scaled(scale)
    return scaled([low, *scales][first_too_large])


def _moves(domain: Domain, width: float, low: float, high: float) -> range:
    """Indices of the values that scale * width reaches as the scale goes up from `low` to `high`."""
    return range(domain.index(low * width) + 1, domain.index(high * width) + 1)
