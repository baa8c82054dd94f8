"""Differences between the best and the worst quarter of trained networks, part by part and for other choices.

The comparison is descriptive: it does not test whether a difference is due to chance.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor
from statistics import median_low
from typing import Literal

from report.analysis.parts import Net, Part
from report.tables import Table
from search.spaces.domains import Value
from search.text import format_number

FEWEST = 8  # fewest networks, of which two are the best quarter
QUARTILES = 8  # fewest networks for quartiles
NAMES = 4  # values of a choice that are shown, the most frequent first; more different numbers are summarized

Group = Literal["best", "worst"]
_OF_A_PART = re.compile(r"(.*)_(\d+)")  # the name of a parameter that belongs to one block, pool or stage


@dataclass(frozen=True)
class Contrast:
    """The best and the worst quarter of the networks, of equal size."""

    best: tuple[Net, ...]
    worst: tuple[Net, ...]

    @property
    def deepest(self) -> int:
        """Number of parts of the deepest network."""
        return max(len(net.parts) for net in (*self.best, *self.worst))


@dataclass(frozen=True)
class Spot:
    """Median of a value at one part; quartiles where enough networks are that deep; number of networks.

    All three are values that occurred: between two numbers of blocks there is none.
    """

    place: int  # from 1
    middle: float
    span: tuple[float, float] | None
    n: int


def split_quarters(nets: Sequence[Net]) -> Contrast | None:
    """Split networks, sorted best first, into their best and worst quarter; None if there are too few."""
    if len(nets) < FEWEST:
        return None
    quarter = len(nets) // 4
    return Contrast(tuple(nets[:quarter]), tuple(nets[-quarter:]))


def profile(group: Sequence[Net], value: Callable[[Part], float]) -> list[Spot]:
    """Summarize a value by part, over the networks that have the part."""
    spots = []
    for index in range(max(len(net.parts) for net in group)):
        values = [value(net.parts[index]) for net in group if len(net.parts) > index]
        span = None
        if len(values) >= QUARTILES:
            ordered, last = sorted(values), len(values) - 1
            span = ordered[floor(last / 4)], ordered[ceil(3 * last / 4)]
        spots.append(Spot(index + 1, median_low(values), span, len(values)))
    return spots


def pooled(group: Sequence[Net]) -> list[Spot]:
    """Share of all networks that pool after each part."""
    deepest = max(len(net.parts) for net in group)
    counts = Counter(index for net in group for index, part in enumerate(net.parts) if part.is_pooled)
    return [Spot(index + 1, counts[index] / len(group), None, counts[index]) for index in range(deepest)]


def varies(nets: Sequence[Net], value: Callable[[Part], float]) -> bool:
    """True if a value differs between parts or networks."""
    return len({value(part) for net in nets for part in net.parts}) > 1


def choices_table(contrast: Contrast, part: str) -> Table:
    """Table of the other choices: numbers by median and range, categories and a few whole numbers by share.

    A median is a value that occurred, the lower of two: nothing is averaged, on a linear or a logarithmic scale.

    Args:
        part: "block" leaves out choices made for each block, as there are many; "stage" keeps them.
    """
    names = dict.fromkeys(name for net in (*contrast.best, *contrast.worst) for name in net.drawn)
    rows = []
    for name in names:
        match = _OF_A_PART.fullmatch(name)
        if name != "repeat" and (not match or (part == "stage" and match[1] not in ("width", "blocks"))):
            least = int(match[2]) if match else 0
            summaries = [
                _summary([net.drawn[name] for net in group if name in net.drawn and len(net.parts) >= least])
                for group in (contrast.best, contrast.worst)
            ]
            rows.append((display_name(name), *summaries))
    return Table(("", f"best {len(contrast.best):,}", f"worst {len(contrast.worst):,}"), rows)


def display_name(name: str) -> str:
    """Display name of a parameter: `recipe.learning_rate` becomes learning rate, `width_3` width 3."""
    return name.removeprefix("recipe.").translate(str.maketrans("_.", "  "))


def _summary(values: Sequence[Value]) -> str:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    is_whole = all(isinstance(value, int) for value in numbers)
    if numbers and len(numbers) == len(values) and not (is_whole and 1 < len(set(numbers)) <= NAMES):
        low, middle, high = (format_number(value) for value in (min(numbers), median_low(numbers), max(numbers)))
        return middle if low == high else f"{middle} ({low} to {high})"
    most = sorted(Counter(map(str, values)).most_common(), key=lambda pair: (-pair[1], pair[0]))[:NAMES]
    return ", ".join(f"{name} ({count / len(values):.0%})" for name, count in most)
