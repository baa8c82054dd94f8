"""SVG drawing of a network, layer by layer from top to bottom, for a file of its own or inside a page.

A band marks the size of a map, the width of a box the number of channels; the shortcut of a residual leaves its lane and
returns at the sum. Beside each layer: output shape, receptive field, and bars for its shares of the parameters and
multiply-adds. Text takes the colour of the page; a file of its own follows the colour scheme of the viewer.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import groupby
from typing import NamedTuple, assert_never

from report.colours import COLOURS, GREY
from report.network.layout import (
    BAR,
    LINE,
    MARGIN,
    TOP,
    Columns,
    Layout,
    Place,
    View,
    above,
    arrange,
    middle,
    short_name,
    typeset,
    typeset_shape,
)
from search.budget.cost import Cost, compute_cost
from search.budget.summary import LayerRow
from search.networks.architecture import Architecture
from search.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Gate,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.text import format_share

LONGEST_NAME = 60

_STYLE = """
.network-drawing { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; font-variant-numeric: tabular-nums; }
.network-drawing text { fill: currentColor; }
.network-drawing .title { font-size: 15px; font-weight: 600; }
.network-drawing .head, .network-drawing .quiet { opacity: .72; }
.network-drawing .head { font-size: 11px; }
.network-drawing .size { font-weight: 600; }
.network-drawing .band { fill: currentColor; opacity: .06; }
.network-drawing .wire { fill: none; stroke: currentColor; stroke-width: 1.5; opacity: .6; }
.network-drawing .arrow { fill: currentColor; opacity: .8; }
.network-drawing .node { fill: #888; }
.network-drawing .sign { fill: none; stroke: #fff; stroke-width: 2; }
svg.network-drawing:root { color: #1f2328; background: #fff; }
@media (prefers-color-scheme: dark) { svg.network-drawing:root { color: #e6edf3; background: #0d1117; } }
"""


class _Scale(NamedTuple):
    """Scale of the bars: the total, of which shares are written, and the largest layer, which has the longest bar."""

    total: Cost
    largest_params: int
    largest_macs: int


def network_svg(architecture: Architecture, view: View = View.FULL) -> str:
    """Draw the network at the size of its text; a page can scroll or scale it by the class `network-drawing`.

    Raises:
        ArchitectureError: the network cannot exist, see `search.networks.geometry.resolve`.
    """
    layout, total = arrange(architecture, view), compute_cost(architecture)
    rows = [place.row for place in layout.places]
    scale = _Scale(total, max(row.params for row in rows), max(row.macs for row in rows))
    name, width = _name(architecture), round(layout.columns.end)
    label = f"{name}, layer by layer: {total.params:,} parameters, {total.macs:,} multiply-adds"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="network-drawing {view.value}" role="img"',
        f'aria-label="{escape(label)}"',
        f'viewBox="0 0 {width} {layout.height}" width="{width}" height="{layout.height}">',
        f"<title>{escape(_printable(architecture.name) or name)}</title>",
        f"<style>{_STYLE}</style>",
        *_heading(name, architecture, total, layout),
        *_bands(architecture, layout),
        *_wires(layout),
        *_input(architecture, layout),
        *(part for place in layout.places for part in _layer(place, layout, scale)),
        *_total(total, layout),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


# --- parts of the drawing --------------------------------------------------------------------------------------------


def _heading(name: str, architecture: Architecture, total: Cost, layout: Layout) -> Iterator[str]:
    field, columns, is_compact = total.receptive_field, layout.columns, layout.view is View.COMPACT
    facts = [
        f"{total.params:,} parameters"
        if is_compact
        else f"{total.params:,} parameters, {total.trainable_params:,} of them trained"
    ]
    facts += [f"{total.macs:,} multiply-adds" + ("" if is_compact else " per image")]
    if field and not is_compact:
        facts += [f"receptive field {typeset_shape((field, field))} of {typeset_shape(architecture.input[:2])}"]
    yield _text(MARGIN, 26, name, "title")
    yield _text(MARGIN, 46, " · ".join(facts), "quiet")
    yield _text(MARGIN, TOP - 14, "map", "head")
    yield _text(columns.name, TOP - 14, "layer", "head")
    numbers = {"parameters": columns.params}
    if not is_compact:
        numbers |= {"output": columns.output, "receptive field": columns.field, "multiply-adds": columns.macs}
    for column, right in numbers.items():
        yield _text(right, TOP - 14, column, "head", right=True)


def _bands(architecture: Architecture, layout: Layout) -> Iterator[str]:
    """One band per run of lines with maps of one size, beginning with the line of the input."""
    sizes = [(-1, architecture.input[:2]), *((place.line, place.row.output[:-1]) for place in layout.places)]
    width = round(layout.columns.end) - 8
    for size, group in groupby(sizes, key=lambda pair: pair[1]):
        lines = [line for line, _ in group]
        top, height = above(lines[0]) + 1, LINE * len(lines) - 2
        yield f'<rect class="band" x="4" y="{top}" width="{width}" height="{height}" rx="4"/>'
        yield _text(MARGIN, middle(lines[0]) + 4, typeset_shape(size) if size else "vector", "size")


def _wires(layout: Layout) -> Iterator[str]:
    yield f'<path class="wire" d="M{layout.lanes[0]:.1f} {middle(-1)}V{middle(len(layout.places) - 1)}"/>'
    for lane, aside, first, last in layout.skips:
        start, end, turn, y = layout.lanes[lane], layout.lanes[aside], 6, middle(last)
        yield (
            f'<path class="wire" d="M{start:.1f} {above(first)}H{end - turn:.1f}q{turn} 0 {turn} {turn}'
            f'V{y - turn}q0 {turn} {-turn} {turn}H{start:.1f}"/>'
        )
        yield f'<path class="arrow" d="M{start + 8:.1f} {y}l7 -4v8z"/>'


def _input(architecture: Architecture, layout: Layout) -> Iterator[str]:
    yield _box(layout.lanes[0], middle(-1), layout.width(architecture.input), 16, GREY)
    shape = typeset_shape(architecture.input)
    if layout.view is View.COMPACT:  # has no column of outputs
        yield _text(layout.columns.name, middle(-1) + 4, f"image {shape}")
        return
    yield _text(layout.columns.name, middle(-1) + 4, "image")
    yield _text(layout.columns.output, middle(-1) + 4, shape, right=True)


def _layer(place: Place, layout: Layout, scale: _Scale) -> Iterator[str]:
    row, y, columns = place.row, middle(place.line), layout.columns
    colour, total = _colour(row.layer), scale.total
    yield f"<g><title>{escape(_hint(place, total))}</title>"
    yield from _symbol(row, layout.lanes[place.lane], y - 1.5 * len(place.folded), layout, 3 * len(place.folded))
    yield from _followers(place, layout, y)
    left = columns.name + 14 * len(row.path)
    if layout.view is View.COMPACT:
        yield _text(left, y + 4, typeset(short_name(place)))
        yield _text(columns.params, y + 4, f"{row.params:,}" if row.params else "", right=True)
    else:
        yield _text(left, y + 4, row.name, more=f'<tspan class="quiet" dx="8">{escape(typeset(place.options))}</tspan>')
        yield from _numbers(row, y, columns, scale, colour)
    yield "</g>"


def _numbers(row: LayerRow, y: float, columns: Columns, scale: _Scale, colour: str) -> Iterator[str]:
    yield _text(columns.output, y + 4, typeset(row.output_text), right=True)
    if row.receptive_field is not None:
        yield _text(columns.field, y + 4, typeset(row.field_text()), right=True)
    if row.params:
        yield from _bar(columns.params, y, row.params, scale.largest_params, scale.total.params, colour)
    if row.macs:
        yield from _bar(columns.macs, y, row.macs, scale.largest_macs, scale.total.macs, colour)


def _followers(place: Place, layout: Layout, y: float) -> Iterator[str]:
    """Thin strips below the box of a layer: the layers folded into its line."""
    x, width = layout.lanes[place.lane], layout.width(place.row.output)
    for index, row in enumerate(place.folded):
        top = y + 10 - 3 * (len(place.folded) - index)
        yield f'<rect x="{x - width / 2:.1f}" y="{top}" width="{width:.1f}" height="2" fill="{_colour(row.layer)}"/>'


def _symbol(row: LayerRow, x: float, y: float, layout: Layout, less: int = 0) -> Iterator[str]:
    """Symbol of a layer: a box as wide as its output, a trapezoid for a pool, two halves for a gate, a node for a sum.

    Args:
        less: pixels by which a box is lower, for the strips below it.
    """
    colour, width = _colour(row.layer), layout.width(row.output)
    match row.layer:
        case Residual():
            yield f'<circle class="node" cx="{x:.1f}" cy="{y}" r="8"/>'
            yield f'<path class="sign" d="M{x - 4:.1f} {y}h8M{x:.1f} {y - 4}v8"/>'
        case Gate():
            half = layout.width(row.input) / 2
            yield _box(x - half / 2, y, half, 14, colour)
            yield _box(x + half / 2, y, half, 14, GREY)
            yield f'<circle class="node" cx="{x:.1f}" cy="{y}" r="7"/>'
            yield f'<path class="sign" d="M{x - 3:.1f} {y - 3}l6 6m-6 0l6 -6"/>'
        case MaxPool() | AveragePool() | GlobalAveragePool() | Flatten():
            slope = width * 0.22
            points = f"M{x - width / 2:.1f} {y - 8}h{width:.1f}l{-slope:.1f} 16h{2 * slope - width:.1f}z"
            yield f'<path d="{points}" fill="{colour}"/>'
        case SeparableConv() | SpatialSeparableConv() | Conv() | Dense() | Softmax():
            yield _box(x, y, width, 18 - less, colour)
        case BatchNorm() | Activation() | Dropout():
            yield _box(x, y, width, 8, colour)
        case _:
            assert_never(row.layer)


def _colour(layer: Layer) -> str:
    vermillion, blue, green, purple, orange, sky = COLOURS
    match layer:
        case SeparableConv():
            return blue
        case SpatialSeparableConv():
            return sky
        case Conv() | Dense():
            return vermillion
        case Activation() | Gate() | Softmax():
            return green
        case Dropout():
            return purple
        case MaxPool() | AveragePool() | GlobalAveragePool() | Flatten():
            return orange
        case BatchNorm() | Residual():
            return GREY
        case _:
            assert_never(layer)


def _bar(right: float, y: float, value: int, largest: int, whole: int, colour: str) -> Iterator[str]:
    length = max(BAR * value / largest, 1)
    yield _text(right, y + 4, f"{value:,}", right=True)
    yield _box(right + 8 + length / 2, y, length, 12, colour)
    yield _text(right + 12 + length, y + 4, format_share(value, whole), "quiet")


def _total(total: Cost, layout: Layout) -> Iterator[str]:
    y, columns = middle(len(layout.places)) + 8, layout.columns
    yield _text(columns.name, y, "total", "size")
    yield _text(columns.params, y, f"{total.params:,}", "size", right=True)
    if layout.view is not View.COMPACT:
        yield _text(columns.macs, y, f"{total.macs:,}", "size", right=True)


def _box(x: float, y: float, width: float, height: int, colour: str) -> str:
    """A box centred on a point."""
    left, top = f"{x - width / 2:.1f}", f"{y - height / 2:g}"
    return f'<rect x="{left}" y="{top}" width="{width:.1f}" height="{height}" rx="2" fill="{colour}"/>'


# --- text ------------------------------------------------------------------------------------------------------------


def _text(x: float, y: float, words: str, kind: str = "", *, right: bool = False, more: str = "") -> str:
    options = (f' class="{kind}"' if kind else "") + (' text-anchor="end"' if right else "")
    return f'<text x="{x:.1f}" y="{y:.0f}"{options}>{escape(words)}{more}</text>'


def _hint(place: Place, total: Cost) -> str:
    """Text shown while the pointer is on a layer."""
    row = place.row
    parts = [row.name, typeset(place.options), f"{typeset_shape(row.input)} to {typeset(row.output_text)}"]
    if row.params:
        parts.append(f"{row.params:,} parameters ({format_share(row.params, total.params)})")
    if row.macs:
        parts.append(f"{row.macs:,} multiply-adds ({format_share(row.macs, total.macs)})")
    return "; ".join(part for part in parts if part)


def _name(architecture: Architecture) -> str:
    name = " ".join(_printable(architecture.name).split()) or "network"
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."


def _printable(text: str) -> str:
    """The text without characters that XML forbids."""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()
