"""A network drawn layer by layer, top to bottom, as SVG that stands alone or inside a page.

A band is a size of the map, a box as wide as its layer has channels; residuals leave their lane and come back to a sum.
Beside each layer: its size, its receptive field, and bars for its parts of the parameters and multiply-adds. Text takes the
colour of the page; a file of its own follows the scheme of the reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import groupby
from typing import NamedTuple, assert_never

from report.colours import COLOURS, GREY
from report.network.layout import BAR, LINE, MARGIN, TOP, Columns, Layout, Place, above, arrange, by, middle, typeset
from search.budget.cost import Cost, LayerCost, compute_cost, compute_layer_cost
from search.networks.architecture import Architecture
from search.networks.geometry import Resolved
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
    describe,
)

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


class _Whole(NamedTuple):
    """What bars are measured by: all of it, in words; the largest layer, in length."""

    total: Cost
    params: int
    macs: int


def network_svg(architecture: Architecture) -> str:
    """The network as a drawing; of the size of its text; a page scrolls or scales it by the class `network-drawing`.

    Raises:
        ArchitectureError: the network cannot exist, see `search.networks.geometry.resolve`.
    """
    layout, total = arrange(architecture), compute_cost(architecture)
    costs = [compute_layer_cost(place.row) for place in layout.places]
    whole = _Whole(total, max(cost.params for cost in costs), max(cost.macs for cost in costs))
    name, width = _name(architecture), round(layout.columns.end)
    spoken = f"{name}, layer by layer: {total.params:,} parameters, {total.macs:,} multiply-adds"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="network-drawing" role="img" aria-label="{escape(spoken)}"',
        f'viewBox="0 0 {width} {layout.height}" width="{width}" height="{layout.height}">',
        f"<title>{escape(_printable(architecture.name) or name)}</title>",
        f"<style>{_STYLE}</style>",
        *_heading(name, architecture, total, layout.columns),
        *_bands(architecture, layout),
        *_wires(layout),
        *_input(architecture, layout),
        *(part for place in layout.places for part in _layer(place, layout, whole)),
        *_total(total, layout),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def percent(value: int, whole: int) -> str:
    """A share of a whole as a person reads it: `31 %`, and `<1 %` where it is something but rounds to nothing."""
    share = round(100 * value / whole)
    return f"{share} %" if share or not value else "<1 %"


# --- parts of the drawing --------------------------------------------------------------------------------------------


def _heading(name: str, architecture: Architecture, total: Cost, columns: Columns) -> Iterator[str]:
    field = total.receptive_field
    facts = [f"{total.params:,} parameters, {total.trainable_params:,} of them trained"]
    facts += [f"{total.macs:,} multiply-adds an image"]
    facts += [f"receptive field {by((field, field))} of {by(architecture.input[:2])}"] if field else []
    yield _text(MARGIN, 26, name, "title")
    yield _text(MARGIN, 46, " · ".join(facts), "quiet")
    yield _text(MARGIN, TOP - 14, "map", "head")
    yield _text(columns.name, TOP - 14, "layer", "head")
    for right, words in ((columns.output, "output"), (columns.field, "receptive field"), (columns.params, "parameters")):
        yield _text(right, TOP - 14, words, "head", right=True)
    yield _text(columns.macs, TOP - 14, "multiply-adds", "head", right=True)


def _bands(architecture: Architecture, layout: Layout) -> Iterator[str]:
    """One for each run of lines with maps of one size, the input's line above the first."""
    sizes = [(-1, architecture.input[:2]), *((place.line, place.row.output[:-1]) for place in layout.places)]
    width = round(layout.columns.end) - 8
    for size, group in groupby(sizes, key=lambda pair: pair[1]):
        lines = [line for line, _ in group]
        top, height = above(lines[0]) + 1, LINE * len(lines) - 2
        yield f'<rect class="band" x="4" y="{top}" width="{width}" height="{height}" rx="4"/>'
        yield _text(MARGIN, middle(lines[0]) + 4, by(size) if size else "vector", "size")


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
    yield _text(layout.columns.name, middle(-1) + 4, "image")
    yield _text(layout.columns.output, middle(-1) + 4, by(architecture.input), right=True)


def _layer(place: Place, layout: Layout, whole: _Whole) -> Iterator[str]:
    row, y, columns = place.row, middle(place.line), layout.columns
    cost, colour, total = compute_layer_cost(row), _colour(row.layer), whole.total
    yield f"<g><title>{escape(_hint(row, cost, total))}</title>"
    yield from _symbol(row, layout.lanes[place.lane], y, layout)
    options = f'<tspan class="quiet" dx="8">{escape(typeset(describe(row.layer)))}</tspan>'
    yield _text(columns.name + 14 * place.depth, y + 4, row.name, more=options)
    yield _text(columns.output, y + 4, by(row.output), right=True)
    if row.receptive_field is not None:
        yield _text(columns.field, y + 4, by((row.receptive_field, row.receptive_field)), right=True)
    if cost.params:
        yield from _bar(columns.params, y, cost.params, whole.params, total.params, colour)
    if cost.macs:
        yield from _bar(columns.macs, y, cost.macs, whole.macs, total.macs, colour)
    yield "</g>"


def _symbol(row: Resolved, x: float, y: float, layout: Layout) -> Iterator[str]:
    """A box as wide as the output; pools narrow, a gate is its two halves, a sum is a node."""
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
            yield _box(x, y, width, 18, colour)
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
    yield _text(right + 12 + length, y + 4, percent(value, whole), "quiet")


def _total(total: Cost, layout: Layout) -> Iterator[str]:
    y, columns = middle(len(layout.places)) + 8, layout.columns
    yield _text(columns.name, y, "total", "size")
    yield _text(columns.params, y, f"{total.params:,}", "size", right=True)
    yield _text(columns.macs, y, f"{total.macs:,}", "size", right=True)


def _box(x: float, y: float, width: float, height: int, colour: str) -> str:
    """A box around a point."""
    left, top = f"{x - width / 2:.1f}", y - height // 2
    return f'<rect x="{left}" y="{top}" width="{width:.1f}" height="{height}" rx="2" fill="{colour}"/>'


# --- text ------------------------------------------------------------------------------------------------------------


def _text(x: float, y: float, words: str, kind: str = "", *, right: bool = False, more: str = "") -> str:
    options = (f' class="{kind}"' if kind else "") + (' text-anchor="end"' if right else "")
    return f'<text x="{x:.1f}" y="{y:.0f}"{options}>{escape(words)}{more}</text>'


def _hint(row: Resolved, cost: LayerCost, total: Cost) -> str:
    words = [row.name, typeset(describe(row.layer)), f"{by(row.input)} to {by(row.output)}"]
    words += [f"{cost.params:,} parameters ({percent(cost.params, total.params)})"] if cost.params else []
    words += [f"{cost.macs:,} multiply-adds ({percent(cost.macs, total.macs)})"] if cost.macs else []
    return "; ".join(word for word in words if word)


def _name(architecture: Architecture) -> str:
    name = " ".join(_printable(architecture.name).split()) or "network"
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."


def _printable(text: str) -> str:
    """What XML may hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()
