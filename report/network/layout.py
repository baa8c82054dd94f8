"""Where the layers of a network are drawn: lines from top to bottom, lanes from left to right, columns of text beside them.

Lengths are units of the drawing, which are pixels at full size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from search.budget.cost import compute_layer_cost
from search.networks.architecture import Architecture
from search.networks.geometry import Resolved, Shape, resolve
from search.networks.layers import Gate, Residual, describe

MARGIN, TOP, LINE = 10, 92, 22  # around the drawing; above its first line; a line
BAR = 64  # of the largest layer

_GUTTER = 68  # left of the lanes
_WIDEST, _NARROWEST, _SKIP = 130, 8, 22  # boxes of most and of fewest channels; a lane without boxes
_LETTER, _FIGURE = 6.7, 8.0  # an average letter in text of 12 pixels, a digit in bold, with some air


class Place(NamedTuple):
    """A layer where it is drawn: the n-th line from above, in a lane."""

    row: Resolved
    line: int
    depth: int
    lane: int


class Skip(NamedTuple):
    """The second way of a residual: it leaves `lane` above a line and is added to it at another."""

    lane: int
    aside: int
    first: int
    last: int


class Columns(NamedTuple):
    """Left end of the names, right ends of the figures."""

    name: float
    output: float
    field: float
    params: float
    macs: float
    end: float


class Layout(NamedTuple):
    """All that the drawing of a network needs to know of places."""

    places: tuple[Place, ...]
    skips: tuple[Skip, ...]
    lanes: tuple[float, ...]  # the middle of each
    columns: Columns
    channel: float  # width of one, in a box
    height: int

    def width(self, shape: Shape) -> float:
        """Of a box; a vector is drawn no wider than the widest map."""
        return _width(shape, self.channel)


def arrange(architecture: Architecture) -> Layout:
    """The places of all layers.

    Raises:
        ArchitectureError: the network cannot exist, see `search.networks.geometry.resolve`.
    """
    places: list[Place] = []
    skips: list[Skip] = []
    _walk(resolve(architecture), 0, 0, places, skips)
    most = max([architecture.input[2], *(place.row.output[2] for place in places if len(place.row.output) == 3)])
    channel = (_WIDEST - _NARROWEST) / most
    lanes, end = _lanes(places, skips, channel)
    height = TOP + LINE * (len(places) + 2) + 2 * MARGIN
    return Layout(tuple(places), tuple(skips), lanes, _columns(places, end), channel, height)


def above(line: int) -> int:
    """The upper edge of a line; the input's is number -1."""
    return TOP + LINE * (line + 1)


def middle(line: int) -> int:
    """The middle of a line."""
    return above(line) + LINE // 2


def by(shape: Shape) -> str:
    """A size in words: `32x32x3`, typeset."""
    return typeset("x".join(map(str, shape)))


def typeset(text: str) -> str:
    """The x between two figures as a multiplication sign."""
    return "".join(
        "\N{MULTIPLICATION SIGN}" if letter == "x" and before.isdigit() and after.isdigit() else letter
        for before, letter, after in zip(f" {text}", text, f"{text[1:]} ", strict=False)
    )


def _walk(rows: tuple[Resolved, ...], lane: int, depth: int, places: list[Place], skips: list[Skip]) -> None:
    """Lines in the order of `search.networks.geometry.flatten`; a shortcut has the lane beside all lanes of its branch."""
    for row in rows:
        if isinstance(row.layer, Residual):
            first, aside = len(places), lane + _breadth(row.branch)
            _walk(row.branch, lane, depth + 1, places, skips)
            _walk(row.shortcut, aside, depth + 1, places, skips)
            skips.append(Skip(lane, aside, first, len(places)))
        places.append(Place(row, len(places), depth, lane))


def _breadth(rows: tuple[Resolved, ...]) -> int:
    """How many lanes the rows take."""
    return max((_breadth(row.branch) + _breadth(row.shortcut) for row in rows if isinstance(row.layer, Residual)), default=1)


def _width(shape: Shape, channel: float) -> float:
    return _NARROWEST + min(shape[-1] * channel, _WIDEST - _NARROWEST)


def _lanes(places: Sequence[Place], skips: Sequence[Skip], channel: float) -> tuple[tuple[float, ...], float]:
    """The middle of each lane, which is as wide as its widest box; and where they end."""
    widths = [_WIDEST, *[_SKIP] * max((skip.aside for skip in skips), default=0)]
    for place in places:
        if not isinstance(place.row.layer, Residual):
            shape = place.row.input if isinstance(place.row.layer, Gate) else place.row.output
            widths[place.lane] = max(widths[place.lane], int(_width(shape, channel)) + 12)
    left, middles = float(_GUTTER), []
    for width in widths:
        middles.append(left + width / 2)
        left += width
    return tuple(middles), left


def _columns(places: Sequence[Place], left: float) -> Columns:
    name = left + 14
    words = max(2 * place.depth + len(place.row.name) + 3 + len(describe(place.row.layer)) for place in places)
    sizes = max(len(by(place.row.output)) for place in places)
    output = name + max(words, 24) * _LETTER + max(sizes, 6) * _LETTER
    fields = max(len(f"{place.row.receptive_field}") for place in places)
    costs = [compute_layer_cost(place.row) for place in places]
    params, macs = (len(f"{sum(figures):,}") for figures in ([cost.params for cost in costs], [cost.macs for cost in costs]))
    field = output + max(92, 12 + (2 * fields + 1) * _LETTER)
    params_end = field + max(82, 14 + params * _FIGURE)
    macs_end = params_end + BAR + 40 + max(84, 14 + macs * _FIGURE)
    return Columns(name, output, field, params_end, macs_end, macs_end + BAR + 40 + MARGIN)
