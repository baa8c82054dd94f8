"""What parameters are spent on: the price of a channel, and the choices beside the widths that change how many there are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

import space
from report.analysis.findings import Findings
from report.analysis.parts import Net
from report.figures.style import thinned
from search.budget.cost import price
from search.networks.layers import ArchitectureError
from search.spaces.domains import Choices, Domain, Value

PRICED = 100  # networks whose channels are priced
TRIED = 5  # networks on which a choice is tried
STEP = 4  # channels that are added to find what one costs: no less, as widths inside a part are rounded

Params = Callable[[Mapping[str, Value]], int | None]  # of the network that these values stand for, None where there is none


def channel_cost(found: Findings, full: Sequence[Net], group: tuple[int, int], params: Params) -> float:
    """Parameters of one more channel in a group, on the mean of some of the networks that have it."""
    names = _width_names(found)
    having = thinned([net for net in full if len(net.parts) > group[0]], PRICED)
    grown = []
    for net in having:
        for place in range(group[0], min(group[1], len(net.parts))):
            wider = params({**net.drawn, names[place]: net.parts[place].width + STEP})
            grown.append(((wider or 0) - (params(net.drawn) or 0)) / STEP)
    return float(np.mean(grown))


def held_equal(found: Findings, full: Sequence[Net], params: Params) -> dict[str, list[float]]:
    """A column for each other choice that changes the number of parameters; of names, one for each but the first."""
    columns: dict[str, list[float]] = {}
    for name, domain in space.parameters(found.run.config.space).items():
        if name not in _width_names(found) and _changes(name, domain, thinned(full, TRIED), params):
            levels = dict.fromkeys(net.drawn[name] for net in full)
            if all(isinstance(level, int | float) for level in levels):
                columns[name] = [float(net.drawn[name]) if _has(net, name) else 0.0 for net in full]
            else:
                for level in [*levels][1:]:
                    columns[f"{name} is {level}"] = [float(net.drawn[name] == level and _has(net, name)) for net in full]
    return {name: column for name, column in columns.items() if len(set(column)) > 1}


def _changes(name: str, domain: Domain, some: Sequence[Net], params: Params) -> bool:
    """Whether a choice changes the number of parameters of a network that is as wide as it was."""
    values = domain.values if isinstance(domain, Choices) else (domain.low, domain.high)
    priced = ({params({**net.drawn, name: value}) for value in values} - {None} for net in some)
    return any(len(sizes) > 1 for sizes in priced)


def _has(net: Net, name: str) -> bool:
    """Whether a network has the part that a choice is for."""
    numbered = re.fullmatch(r".*_(\d+)", name)
    return numbered is None or int(numbered[1]) <= len(net.parts)


def _width_names(found: Findings) -> tuple[str, ...]:
    searched = found.run.config.space
    return () if isinstance(searched, space.Fixed) else searched.layout.keys["width"]


def pricer(found: Findings) -> Params:
    """Prices networks of the study by their parameters."""
    searched, shape, classes = found.run.config.space, tuple(found.data["input"]), found.data["classes"]

    def params(drawn: Mapping[str, Value]) -> int | None:
        try:
            return price(space.build(searched, drawn, shape, classes)).params
        except ArchitectureError:
            return None

    return params
