"""Accuracy gained per thousand parameters in each part: a regression over a study's trials.

Ordinary least squares of the best validation accuracy on the widths and on every other choice that changes the number of
parameters, as these are confounded with the widths: a deep network that fills the budget is narrow. A width is turned into
parameters by what one more channel costs the whole network. Errors are robust to networks that spread unalike (HC3: Long and
Ervin, "Using Heteroscedasticity Consistent Standard Errors in the Linear Regression Model", American Statistician 2000),
intervals are Student's, and both intervals and p-values of several parts are adjusted by Holm. The model is linear although
returns diminish, and says nothing of choices that the study did not vary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

import space
from report.analysis.findings import Findings
from report.analysis.parts import Net
from report.tables import thinned
from search.budget.cost import compute_cost
from search.finals.statistics import LEVEL, adjusted_ratio, holm
from search.networks.layers import ArchitectureError
from search.spaces.domains import Choices, Domain, Value

THOUSAND = 1_000
PRESENT = 5  # fewest networks that have a part; deeper parts are merged with it
SPARE = 10  # fewest networks beyond the number of coefficients

Kind = Literal["added", "moved"]
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gain:
    """Gain in accuracy (a fraction) per thousand parameters added to the width of some parts."""

    first: int  # the parts, from 1
    last: int
    width: float  # mean over the networks that have them
    cost: float  # parameters of one more channel, mean
    gain: float
    low: float  # 95 % interval, adjusted for the number of parts as the verdict
    high: float
    adjusted_p: float

    @property
    def is_clear(self) -> bool:
        """True if the gain differs from 0 after adjustment for the number of parts."""
        return self.adjusted_p < LEVEL

    def named(self, part: str) -> str:
        """Display name: `block 3`, `blocks 8 to 10`."""
        return f"{part} {self.first}" if self.first == self.last else f"{part}s {self.first} to {self.last}"


@dataclass(frozen=True)
class Marginal:
    """Gains of all parts, with the sample that they were estimated from."""

    kind: Kind  # whether parameters are added, or taken from the other parts in proportion to their widths
    n: int  # networks
    controls: tuple[str, ...]  # the other choices in the regression
    gains: tuple[Gain, ...]


@dataclass(frozen=True)
class TooFew:
    """Reason why gains cannot be estimated."""

    n: int  # networks that were trained in full
    needed: int  # effective number, smaller where networks hardly differ


def marginal(findings: Findings, nets: Sequence[Net]) -> Marginal | TooFew:
    """Estimate the gain of each part.

    If all networks fill the budget, only the gain of moving parameters from the other parts can be estimated, not that of
    adding them.
    """
    full = [net for net in nets if net.in_full]
    params = pricer(findings)
    groups = [group for group in _groups(full) if len({_width(net, group) for net in full}) > 1]
    controls = control_columns(findings, full, params)
    widths = [[_width(net, group) for net in full] for group in groups]
    design = [[1.0] * len(full), *widths, *controls.values()]
    needed = SPARE + len(design)
    if len(full) < needed or len(groups) < 2:
        return TooFew(len(full), needed)
    fitted = least_squares(np.column_stack(design), np.array([net.accuracy for net in full]))
    if fitted is None:
        return TooFew(len(full), needed)
    kind: Kind = "moved" if findings.run.config.search.fit == "fill" else "added"
    costs = np.array([channel_cost(findings, full, group, params) for group in groups])
    steps = np.zeros((len(groups), len(design)))
    steps[:, 1 : 1 + len(groups)] = channels(np.mean(widths, axis=1), costs, kind)
    gains, half, p_values = _estimate(steps, *fitted, len(full) - len(design))
    means = [np.mean([part.width for net in full for part in net.parts[a:b]]) for a, b in groups]
    degrees, adjusted = len(full) - len(design), holm(p_values)
    ratios = [adjusted_ratio(p, adjusted_p, degrees) for p, adjusted_p in zip(p_values, adjusted, strict=True)]
    spans = half * np.array(ratios)
    rows = [
        Gain(a + 1, b, float(mean), float(cost), float(gain), float(gain - span), float(gain + span), p)
        for (a, b), mean, cost, gain, span, p in zip(groups, means, costs, gains, spans, adjusted, strict=True)
    ]
    return Marginal(kind, len(full), tuple(dict.fromkeys(name.partition(" is ")[0] for name in controls)), tuple(rows))


def channels(widths: Vector, costs: Vector, kind: Kind) -> Vector:
    """Change of channels in each part (columns) when a thousand parameters go to one part (rows).

    Args:
        widths: mean of each part; 0 for parts that a network lacks.
        costs: parameters of one more channel in each part.
    """
    steps = np.diag(THOUSAND / costs)
    if kind == "moved":
        spent = widths * costs
        for index in range(len(widths)):
            others = np.arange(len(widths)) != index
            steps[index, others] = -THOUSAND * widths[others] / spent[others].sum()
    return steps


def least_squares(design: Vector, response: Vector) -> tuple[Vector, Vector] | None:
    """Return (coefficients, HC3 covariance), None if the columns are dependent."""
    scale = np.abs(design).max(axis=0)
    if not scale.all() or np.linalg.matrix_rank(design / scale) < design.shape[1]:
        return None
    inverse = np.linalg.inv((design / scale).T @ (design / scale)) / np.outer(scale, scale)
    coefficients = inverse @ design.T @ response
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    left_out = (response - design @ coefficients) / np.maximum(1 - leverage, 1e-9)
    return coefficients, inverse @ (design.T * left_out**2) @ design @ inverse


def _estimate(steps: Vector, coefficients: Vector, covariance: Vector, degrees: int) -> tuple[Vector, Vector, list[float]]:
    """Return (gain, half-width of its interval, p-value of no gain) of each step."""
    from scipy import special  # Student's t alone, when it is asked for

    gains = steps @ coefficients
    errors = np.sqrt(np.einsum("ij,jk,ik->i", steps, covariance, steps))
    with np.errstate(divide="ignore", invalid="ignore"):
        p_values = np.nan_to_num(2 * special.stdtr(degrees, -np.abs(gains) / errors), nan=1.0)
    return gains, errors * float(special.stdtrit(degrees, 1 - LEVEL / 2)), p_values.tolist()


def _groups(full: Sequence[Net]) -> list[tuple[int, int]]:
    """Slices of parts: one each, the last few together if hardly any network has them."""
    deepest = max((len(net.parts) for net in full), default=0)
    enough = max(PRESENT, len(full) // 10)
    alone = sum(sum(len(net.parts) > place for net in full) >= enough for place in range(deepest))
    return [(place, place + 1 if place + 1 < alone else deepest) for place in range(alone)]


def _width(net: Net, group: tuple[int, int]) -> float:
    return float(sum(part.width for part in net.parts[slice(*group)]))


SAMPLED_NETWORKS = 100  # networks whose channels' cost is computed


TRIED_NETWORKS = 5  # networks on which a choice is tried


STEP = 4  # channels added to measure the cost of one; fewer would be lost to rounding inside a part


Params = Callable[[Mapping[str, Value]], int | None]  # None if these values describe no network


def channel_cost(findings: Findings, full: Sequence[Net], group: tuple[int, int], params: Params) -> float:
    """Mean parameters of one more channel in a group, over a sample of the networks that have it."""
    names = _width_names(findings)
    having = thinned([net for net in full if len(net.parts) > group[0]], SAMPLED_NETWORKS)
    grown = []
    for net in having:
        for place in range(group[0], min(group[1], len(net.parts))):
            wider = params({**net.drawn, names[place]: net.parts[place].width + STEP})
            grown.append(((wider or 0) - (params(net.drawn) or 0)) / STEP)
    return float(np.mean(grown))


def control_columns(findings: Findings, full: Sequence[Net], params: Params) -> dict[str, list[float]]:
    """Columns of the other choices that change the number of parameters; categories as dummies without the first."""
    columns: dict[str, list[float]] = {}
    for name, domain in space.parameters(findings.run.config.space).items():
        if name not in _width_names(findings) and _changes(name, domain, thinned(full, TRIED_NETWORKS), params):
            levels = dict.fromkeys(net.drawn[name] for net in full)
            if all(isinstance(level, int | float) for level in levels):
                columns[name] = [float(net.drawn[name]) if _has(net, name) else 0.0 for net in full]
            else:
                for level in [*levels][1:]:
                    columns[f"{name} is {level}"] = [float(net.drawn[name] == level and _has(net, name)) for net in full]
    return {name: column for name, column in columns.items() if len(set(column)) > 1}


def _changes(name: str, domain: Domain, networks: Sequence[Net], params: Params) -> bool:
    """True if a choice changes the number of parameters at unchanged widths."""
    values = domain.values if isinstance(domain, Choices) else (domain.low, domain.high)
    counts = ({params({**net.drawn, name: value}) for value in values} - {None} for net in networks)
    return any(len(sizes) > 1 for sizes in counts)


def _has(net: Net, name: str) -> bool:
    """True if a network has the part that a choice applies to."""
    numbered = re.fullmatch(r".*_(\d+)", name)
    return numbered is None or int(numbered[1]) <= len(net.parts)


def _width_names(findings: Findings) -> tuple[str, ...]:
    searched = findings.run.config.space
    return searched.layout.keys["width"] if isinstance(searched, space.Pyramid | space.ResidualStages) else ()


def pricer(findings: Findings) -> Params:
    """Return a function from sampled values to the number of parameters."""
    searched, shape, classes = findings.run.config.space, tuple(findings.data["input"]), findings.data["classes"]

    def params(drawn: Mapping[str, Value]) -> int | None:
        try:
            return compute_cost(space.build(searched, drawn, shape, classes)).params
        except ArchitectureError:
            return None

    return params
