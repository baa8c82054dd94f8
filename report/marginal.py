"""Where the next thousand parameters pay most: accuracy regressed on the width of each block, over a study's trials.

Ordinary least squares of the best validation accuracy on the widths and the number of blocks. A width is turned into
parameters by what one more channel costs the whole network, in its own block and in the next. Errors are robust to networks
that spread unalike (HC3: Long and Ervin, "Using Heteroscedasticity Consistent Standard Errors in the Linear Regression
Model", American Statistician 2000), intervals are Student's, and several blocks are judged together by Holm. A straight line
is a rough picture: returns diminish, and what was not varied is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import special

import space
from report.figure_style import thinned
from report.findings import Findings
from report.nets import Net
from search.cost import price
from search.statistics import LEVEL, holm
from space import Pyramid

THOUSAND = 1_000
PRESENT = 5  # networks that have a block, at least; deeper ones are taken together with it
SPARE = 10  # networks beyond the number of what is estimated, at least
PRICED = 100  # networks whose channels are priced

Kind = Literal["added", "moved"]
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gain:
    """Of accuracy (a fraction) for a thousand parameters more, spent on the width of some blocks."""

    first: int  # the blocks, from 1
    last: int
    width: float  # mean, of the networks that have them
    cost: float  # parameters of one more channel, mean
    gain: float
    low: float  # 95 % interval
    high: float
    adjusted_p: float

    @property
    def is_clear(self) -> bool:
        """Whether it is more, or less, than nothing, allowing for the number of blocks."""
        return self.adjusted_p < LEVEL

    @property
    def name(self) -> str:
        """For people."""
        return f"block {self.first}" if self.first == self.last else f"blocks {self.first} to {self.last}"


@dataclass(frozen=True)
class Marginal:
    """What a thousand parameters more are worth in each block."""

    kind: Kind  # added to the network, or taken from the widths of its other blocks in proportion
    n: int  # networks
    gains: tuple[Gain, ...]  # by block


def needed(nets: Sequence[Net]) -> int:
    """How many networks, trained in full, it takes."""
    return SPARE + 2 + len(_groups([net for net in nets if net.in_full]))


def marginal(found: Findings, nets: Sequence[Net]) -> Marginal | None:
    """The gain of each block; None where too few networks were trained in full, or their widths hardly differ.

    Of a study whose networks all fill the budget it cannot be told what more parameters in all would bring, only what it
    brings to take them from the other blocks.
    """
    full = [net for net in nets if net.in_full]
    groups = _groups(full)
    if not isinstance(found.run.config.space, Pyramid) or len(full) < SPARE + 2 + len(groups):
        return None
    widths = np.array([[sum(block.width for block in net.blocks[a:b]) for a, b in groups] for net in full], float)
    varied = np.ptp(widths, axis=0) > 0
    groups, widths = [group for group, kept in zip(groups, varied, strict=True) if kept], widths[:, varied]
    if len(groups) < 2:
        return None
    depth = np.array([len(net.blocks) for net in full], float)
    columns = [np.ones(len(full)), *widths.T, *([depth] if np.ptp(depth) else [])]
    fitted = least_squares(np.column_stack(columns), np.array([net.accuracy for net in full]))
    if fitted is None:
        return None
    kind: Kind = "moved" if found.run.config.search.fit == "fill" else "added"
    costs = _costs(found, full, groups)
    steps = np.zeros((len(groups), len(columns)))
    steps[:, 1 : 1 + len(groups)] = channels(widths.mean(axis=0), costs, kind)
    gains, half, p_values = _told(steps, *fitted, len(full) - len(columns))
    means = [np.mean([block.width for net in full for block in net.blocks[a:b]]) for a, b in groups]
    judged = zip(groups, means, costs, gains, half, holm(p_values), strict=True)
    rows = [
        Gain(a + 1, b, float(mean), float(cost), float(gain), float(gain - span), float(gain + span), p)
        for (a, b), mean, cost, gain, span, p in judged
    ]
    return Marginal(kind, len(full), tuple(rows))


def channels(widths: Vector, costs: Vector, kind: Kind) -> Vector:
    """By how many channels each block changes (columns) where a thousand parameters go to one (rows).

    Args:
        widths: mean of each block, counting those that a network has not as 0.
        costs: parameters of one more channel in each.
    """
    steps = np.diag(THOUSAND / costs)
    if kind == "moved":
        spent = widths * costs
        for place in range(len(widths)):
            others = np.arange(len(widths)) != place
            steps[place, others] = -THOUSAND * widths[others] / spent[others].sum()
    return steps


def least_squares(design: Vector, response: Vector) -> tuple[Vector, Vector] | None:
    """(coefficients, HC3 covariance); None where the columns are not independent."""
    scale = np.abs(design).max(axis=0)
    if not scale.all() or np.linalg.matrix_rank(design / scale) < design.shape[1]:
        return None
    inverse = np.linalg.inv((design / scale).T @ (design / scale)) / np.outer(scale, scale)
    coefficients = inverse @ design.T @ response
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    left_out = (response - design @ coefficients) / np.maximum(1 - leverage, 1e-9)
    return coefficients, inverse @ (design.T * left_out**2) @ design @ inverse


def _told(steps: Vector, coefficients: Vector, covariance: Vector, degrees: int) -> tuple[Vector, Vector, list[float]]:
    """(gain, half its interval, p of none) of each step."""
    gains = steps @ coefficients
    errors = np.sqrt(np.einsum("ij,jk,ik->i", steps, covariance, steps))
    with np.errstate(divide="ignore", invalid="ignore"):
        p_values = np.nan_to_num(2 * special.stdtr(degrees, -np.abs(gains) / errors), nan=1.0)
    return gains, errors * float(special.stdtrit(degrees, 1 - LEVEL / 2)), p_values.tolist()


def _groups(full: Sequence[Net]) -> list[tuple[int, int]]:
    """Slices of the blocks: each one for itself, but the last few that hardly any network has."""
    deepest = max((len(net.blocks) for net in full), default=0)
    enough = max(PRESENT, len(full) // 10)
    alone = sum(sum(len(net.blocks) > place for net in full) >= enough for place in range(deepest))
    return [(place, place + 1 if place + 1 < alone else deepest) for place in range(alone)]


def _costs(found: Findings, full: Sequence[Net], groups: Sequence[tuple[int, int]]) -> Vector:
    """Parameters of one more channel in each group, on the mean of some of the networks that have it."""
    costs = []
    for a, b in groups:
        having = thinned([net for net in full if len(net.blocks) > a], PRICED)
        costs.append(np.mean([_wider(found, net, place) for net in having for place in range(a, min(b, len(net.blocks)))]))
    return np.array(costs)


def _wider(found: Findings, net: Net, place: int) -> int:
    """By how much a network grows with one more channel in a block: parameters are linear in it."""
    searched, shape = found.run.config.space, tuple(found.data["input"])
    assert isinstance(searched, Pyramid)
    name = searched.layout.keys["width"][place]

    def params(drawn: Mapping[str, Any]) -> int:
        return price(space.build(searched, drawn, shape, found.data["classes"])).params

    return params({**net.drawn, name: net.blocks[place].width + 1}) - params(net.drawn)
