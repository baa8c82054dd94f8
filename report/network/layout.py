"""Layout of a network drawing: lines from top to bottom, lanes from left to right, columns of text beside them.

Lengths are in units of the SVG, which are pixels at full size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from search.budget.summary import LayerRow, layer_rows
from search.networks.architecture import Architecture
from search.networks.geometry import Shape
from search.networks.layers import Activation, BatchNorm, Dropout, Gate, Layer, Residual
from search.text import format_shape

MARGIN, TOP, LINE = 10, 92, 22  # around the drawing; above its first line; height of a line
BAR = 64  # length of the longest bar

_NARROWEST, _SKIP = 8, 22  # box of the fewest channels; a lane without boxes
_LETTER, _SHORT_LETTER, _FIGURE = 6.7, 5.7, 8.0  # width of a letter at 12 pixels, without air, of a bold digit


class View(Enum):
    """Amount of detail of a drawing."""

    FULL = "full"  # a line for each layer
    FOLDED = "folded"  # normalisation, activation and dropout on the line of the layer before them
    COMPACT = "compact"  # folded, without output shapes, receptive fields and multiply-adds: for a phone

    @property
    def gutter(self) -> int:
        """Width left of the lanes, with the sizes of the maps."""
        return 50 if self is View.COMPACT else 68

    @property
    def widest(self) -> int:
        """Width of the box of the most channels."""
        return 64 if self is View.COMPACT else 130


class Place(NamedTuple):
    """Position of a layer: its line, counted from above, and its lane.

    In a folded drawing the row has the costs of the folded layers as well, and the receptive field of the last.
    """

    row: LayerRow
    line: int
    lane: int
    folded: tuple[LayerRow, ...] = ()

    @property
    def options(self) -> str:
        """Settings of the layer, and the layers folded into its line."""
        return " · ".join(filter(None, [self.row.options, ", ".join(map(_brief, self.folded))]))


class Skip(NamedTuple):
    """Shortcut of a residual: from `lane` above line `first` into the lane `aside`, and back into the sum on line `last`."""

    lane: int
    aside: int
    first: int
    last: int


class Columns(NamedTuple):
    """Left end of the layer names and right ends of the numbers."""

    name: float
    output: float
    field: float
    params: float
    macs: float
    end: float


class Layout(NamedTuple):
    """Positions of everything in a drawing."""

    places: tuple[Place, ...]
    skips: tuple[Skip, ...]
    lanes: tuple[float, ...]  # middle of each
    columns: Columns
    channel: float  # width per channel of a box
    height: int
    view: View

    def width(self, shape: Shape) -> float:
        """Width of a box; a vector is at most as wide as the widest map."""
        return _width(shape, self.channel, self.view.widest)


def arrange(architecture: Architecture, view: View = View.FULL) -> Layout:
    """Lay out all layers.

    Raises:
        ArchitectureError: the network cannot exist, see `search.networks.geometry.resolve`.
    """
    lanes_of_lines: list[int] = []
    skips: list[Skip] = []
    _assign_lanes(architecture.layers, 0, lanes_of_lines, skips)
    lines = enumerate(zip(layer_rows(architecture), lanes_of_lines, strict=True))
    places = [Place(row, line, lane) for line, (row, lane) in lines]
    if view is not View.FULL:
        places, skips = _fold(places, skips)
    most = max([architecture.input[2], *(place.row.output[2] for place in places if len(place.row.output) == 3)])
    channel = (view.widest - _NARROWEST) / most
    lanes, end = _lanes(places, skips, channel, view)
    height = TOP + LINE * (len(places) + 2) + 2 * MARGIN
    columns = _compact_columns(places, end) if view is View.COMPACT else _columns(places, end)
    return Layout(tuple(places), tuple(skips), lanes, columns, channel, height, view)


def _fold(places: Sequence[Place], skips: Sequence[Skip]) -> tuple[list[Place], list[Skip]]:
    """Put normalisation, activation and dropout on the line of the layer before them in the same sequence."""
    folded: list[Place] = []
    lines: list[int] = []  # of each layer
    for place in places:
        layer, head = place.row.layer, folded[-1] if folded else None
        is_follower = isinstance(layer, BatchNorm | Activation | Dropout)
        if head is not None and is_follower and head.row.path == place.row.path:
            merged = head.row._replace(
                receptive_field=place.row.receptive_field,
                exceeds_image=place.row.exceeds_image,
                params=head.row.params + place.row.params,
                macs=head.row.macs + place.row.macs,
            )
            folded[-1] = head._replace(row=merged, folded=(*head.folded, place.row))
        else:
            folded.append(place._replace(line=len(folded)))
        lines.append(len(folded) - 1)
    return folded, [skip._replace(first=lines[skip.first], last=lines[skip.last]) for skip in skips]


def _brief(row: LayerRow) -> str:
    """A folded layer in a word or two."""
    if isinstance(row.layer, BatchNorm):
        return "norm"
    return f"dropout {row.layer.rate:g}" if isinstance(row.layer, Dropout) else row.options


def above(line: int) -> int:
    """Upper edge of a line; the input is line -1."""
    return TOP + LINE * (line + 1)


def middle(line: int) -> int:
    """Middle of a line."""
    return above(line) + LINE // 2


def typeset_shape(shape: Iterable[int]) -> str:
    """A shape with multiplication signs."""
    return typeset(format_shape(shape))


def typeset(text: str) -> str:
    """The text with each x between two digits as a multiplication sign."""
    return "".join(
        "\N{MULTIPLICATION SIGN}" if letter == "x" and before.isdigit() and after.isdigit() else letter
        for before, letter, after in zip(f" {text}", text, f"{text[1:]} ", strict=False)
    )


def _assign_lanes(layers: Sequence[Layer], lane: int, lanes_of_lines: list[int], skips: list[Skip]) -> None:
    """Append the lane of each layer, in the order of `layer_rows`; a shortcut is beside all lanes of its branch."""
    for layer in layers:
        if isinstance(layer, Residual):
            first, aside = len(lanes_of_lines), lane + _breadth(layer.branch)
            _assign_lanes(layer.branch, lane, lanes_of_lines, skips)
            _assign_lanes(layer.shortcut, aside, lanes_of_lines, skips)
            skips.append(Skip(lane, aside, first, len(lanes_of_lines)))
        lanes_of_lines.append(lane)


def _breadth(layers: Sequence[Layer]) -> int:
    """Number of lanes that the layers use."""
    residuals = [layer for layer in layers if isinstance(layer, Residual)]
    return max((_breadth(layer.branch) + _breadth(layer.shortcut) for layer in residuals), default=1)


def _width(shape: Shape, channel: float, widest: int) -> float:
    return _NARROWEST + min(shape[-1] * channel, widest - _NARROWEST)


def _lanes(places: Sequence[Place], skips: Sequence[Skip], channel: float, view: View) -> tuple[tuple[float, ...], float]:
    """(middle of each lane, right end of the last); a lane is as wide as its widest box."""
    widths = [view.widest, *[_SKIP] * max((skip.aside for skip in skips), default=0)]
    for place in places:
        if not isinstance(place.row.layer, Residual):
            shape = place.row.input if isinstance(place.row.layer, Gate) else place.row.output
            widths[place.lane] = max(widths[place.lane], int(_width(shape, channel, view.widest)) + 12)
    left, middles = float(view.gutter), []
    for width in widths:
        middles.append(left + width / 2)
        left += width
    return tuple(middles), left


def _columns(places: Sequence[Place], left: float) -> Columns:
    rows = [place.row for place in places]
    name_end = max(2 * len(place.row.path) + len(place.row.name) + 3 + len(place.options) for place in places)
    output_letters = max(len(row.output_text) for row in rows)
    field_letters = max(len(f"{row.receptive_field}") for row in rows)
    params_digits, macs_digits = len(f"{sum(row.params for row in rows):,}"), len(f"{sum(row.macs for row in rows):,}")
    name = left + 14
    output = name + max(name_end, 24) * _LETTER + max(output_letters, 6) * _LETTER
    field = output + max(92, 12 + (2 * field_letters + 1) * _LETTER)
    params = field + max(82, 14 + params_digits * _FIGURE)
    macs = params + BAR + 40 + max(84, 14 + macs_digits * _FIGURE)
    return Columns(name, output, field, params, macs, macs + BAR + 40 + MARGIN)


def _compact_columns(places: Sequence[Place], left: float) -> Columns:
    """Columns of names and parameters alone."""
    letters = max(2 * len(place.row.path) + len(short_name(place)) for place in places)
    digits = len(f"{sum(place.row.params for place in places):,}")
    name = left + 10
    params = name + letters * _SHORT_LETTER + 10 + max(digits * _FIGURE, 62)
    return Columns(name, params, params, params, params, params + MARGIN)


def short_name(place: Place) -> str:
    """Name of a line in a compact drawing: `sep. conv 64, 3x3`."""
    kind = place.row.layer.kind.replace("_", " ").replace("separable", "sep.").replace("global average", "global")
    return f"{kind} {place.row.options.replace(' filters', '').replace(' units', '')}".strip()
