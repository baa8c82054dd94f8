"""Where the next thousand parameters pay most: accuracy regressed on the width of each part, over a study's trials.

Ordinary least squares of the best validation accuracy on the widths and on every other choice that changes the number of
parameters, or the widths would stand for it: a deep network that fills the budget is a narrow one. A width is turned into
parameters by what one more channel costs the whole network. Errors are robust to networks that spread unalike (HC3: Long and
Ervin, "Using Heteroscedasticity Consistent Standard Errors in the Linear Regression Model", American Statistician 2000),
intervals are Student's, and several parts are judged together by Holm. A straight line is a rough picture: returns
diminish, and what was not varied is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from report.analysis.findings import Findings
from report.analysis.parts import Net
from report.analysis.spending import channel_cost, held_equal, pricer
from search.finals.statistics import LEVEL, holm

THOUSAND = 1_000
PRESENT = 5  # networks that have a part, at least; deeper ones are taken together with it
SPARE = 10  # networks beyond the number of what is estimated, at least

Kind = Literal["added", "moved"]
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gain:
    """Of accuracy (a fraction) for a thousand parameters more, spent on the width of some parts."""

    first: int  # the parts, from 1
    last: int
    width: float  # mean, of the networks that have them
    cost: float  # parameters of one more channel, mean
    gain: float
    low: float  # 95 % interval
    high: float
    adjusted_p: float

    @property
    def is_clear(self) -> bool:
        """Whether it is more, or less, than nothing, allowing for the number of parts."""
        return self.adjusted_p < LEVEL

    def named(self, part: str) -> str:
        """For people: `block 3`, `blocks 8 to 10`."""
        return f"{part} {self.first}" if self.first == self.last else f"{part}s {self.first} to {self.last}"


@dataclass(frozen=True)
class Marginal:
    """What a thousand parameters more are worth in each part."""

    kind: Kind  # added to the network, or taken from the widths of its other parts in proportion
    n: int  # networks
    held: tuple[str, ...]  # the other choices that were held equal
    gains: tuple[Gain, ...]


@dataclass(frozen=True)
class Few:
    """Why nothing can be told."""

    n: int  # networks that were trained in full
    needed: int  # of them; no more than there are where they do not differ enough


def marginal(found: Findings, nets: Sequence[Net]) -> Marginal | Few:
    """The gain of each part.

    Of a study whose networks all fill the budget it cannot be told what more parameters in all would bring, only what it
    brings to take them from the other parts.
    """
    full = [net for net in nets if net.in_full]
    params = pricer(found)
    groups = [group for group in _groups(full) if len({_width(net, group) for net in full}) > 1]
    held = held_equal(found, full, params)
    widths = [[_width(net, group) for net in full] for group in groups]
    design = [[1.0] * len(full), *widths, *held.values()]
    needed = SPARE + len(design)
    if len(full) < needed or len(groups) < 2:
        return Few(len(full), needed)
    fitted = least_squares(np.column_stack(design), np.array([net.accuracy for net in full]))
    if fitted is None:
        return Few(len(full), needed)
    kind: Kind = "moved" if found.run.config.search.fit == "fill" else "added"
    costs = np.array([channel_cost(found, full, group, params) for group in groups])
    steps = np.zeros((len(groups), len(design)))
    steps[:, 1 : 1 + len(groups)] = channels(np.mean(widths, axis=1), costs, kind)
    gains, half, p_values = _told(steps, *fitted, len(full) - len(design))
    means = [np.mean([part.width for net in full for part in net.parts[a:b]]) for a, b in groups]
    judged = zip(groups, means, costs, gains, half, holm(p_values), strict=True)
    rows = [
        Gain(a + 1, b, float(mean), float(cost), float(gain), float(gain - span), float(gain + span), p)
        for (a, b), mean, cost, gain, span, p in judged
    ]
    return Marginal(kind, len(full), tuple(dict.fromkeys(name.partition(" is ")[0] for name in held)), tuple(rows))


def channels(widths: Vector, costs: Vector, kind: Kind) -> Vector:
    """By how many channels each part changes (columns) where a thousand parameters go to one (rows).

    Args:
        widths: mean of each part, counting those that a network has not as 0.
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
    from scipy import special  # Student's t alone, when it is asked for

    gains = steps @ coefficients
    errors = np.sqrt(np.einsum("ij,jk,ik->i", steps, covariance, steps))
    with np.errstate(divide="ignore", invalid="ignore"):
        p_values = np.nan_to_num(2 * special.stdtr(degrees, -np.abs(gains) / errors), nan=1.0)
    return gains, errors * float(special.stdtrit(degrees, 1 - LEVEL / 2)), p_values.tolist()


def _groups(full: Sequence[Net]) -> list[tuple[int, int]]:
    """Slices of the parts: each one for itself, but the last few that hardly any network has."""
    deepest = max((len(net.parts) for net in full), default=0)
    enough = max(PRESENT, len(full) // 10)
    alone = sum(sum(len(net.parts) > place for net in full) >= enough for place in range(deepest))
    return [(place, place + 1 if place + 1 < alone else deepest) for place in range(alone)]


def _width(net: Net, group: tuple[int, int]) -> float:
    return float(sum(part.width for part in net.parts[slice(*group)]))
