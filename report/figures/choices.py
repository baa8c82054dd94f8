"""Figures on choices: good against bad candidates, importance, gain per parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from plotly.graph_objects import Figure

from report.analysis.contrast import Contrast, Group, Spot, display_name, pooled, profile
from report.analysis.importance import Importance
from report.analysis.marginal import Marginal
from report.analysis.parts import Net, Part
from report.colours import GREY
from report.figures.finals import BEST, POINTS, WORST, legend_entry, with_spans
from report.figures.style import axis, count_axis, drawn, faint
from search.text import format_count, format_number

FEW, FADED = 5, 0.35  # networks below which a median is faded, and its opacity
LINES = 12  # largest group of which each network is drawn
MOST = 20  # choices drawn
ROW = 26  # pixels of one line of a chart

_GROUPS: tuple[tuple[Group, str, str, str], ...] = (("worst", WORST, "dash", "diamond"), ("best", BEST, "solid", "circle"))


# --- good and bad candidates -----------------------------------------------------------------------------------------


def along(contrast: Contrast, value: Callable[[Part], float], title: str, part: str) -> Figure:
    """Draw a value by part for both groups: medians, quartiles as a band, single networks where they are few.

    Medians of fewer than `FEW` networks are faded; the numbers of networks stand below the axis.
    """
    traces: list[dict[str, Any]] = []
    profiles = {group: profile(getattr(contrast, group), value) for group, *_ in _GROUPS}
    for group, colour, dash, symbol in _GROUPS:
        nets: Sequence[Net] = getattr(contrast, group)
        spots = profiles[group]
        traces += [_band(spots, colour), *(_single(nets, value, colour) if len(nets) <= LINES else [])]
        reliable = [spot for spot in spots if spot.n >= FEW]  # a deeper part is in fewer networks
        few = spots[max(len(reliable) - 1, 0) :]
        look = {"color": colour, "dash": dash, "width": 2.5}
        if len(few) > 1 or not reliable:
            fading = _quiet([spot.place for spot in few], [spot.middle for spot in few])
            traces.append(fading | {"mode": "lines", "line": look | {"color": faint(colour, FADED)}})
        traces.append(
            _quiet([spot.place for spot in reliable], [spot.middle for spot in reliable]) | {"mode": "lines", "line": look}
        )
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"{group} {len(nets):,}",
                "legendrank": 1 if group == "best" else 2,
                "x": [spot.place for spot in spots],
                "y": [spot.middle for spot in spots],
                "marker": {
                    "symbol": symbol,
                    "size": 8,
                    "color": colour,
                    "opacity": [1.0 if spot.n >= FEW else FADED for spot in spots],
                },
                "customdata": [_spot_words(spot) for spot in spots],
                "hovertemplate": f"{group}, {part} %{{x}}: median %{{customdata}}<extra></extra>",
            }
        )
    return drawn(title, traces, _parts(contrast, part) | _counted(contrast, profiles, part), _value_axis(title, profiles))


def _value_axis(title: str, profiles: Mapping[Group, Sequence[Spot]]) -> dict[str, Any]:
    """Axis of the values from zero; one of few whole numbers has no fractions between them."""
    values = [value for spots in profiles.values() for spot in spots for value in (spot.middle, *(spot.span or ()))]
    is_count = all(value == int(value) for value in values) and max(values) <= 10
    return axis(title, rangemode="tozero") | ({"dtick": 1} if is_count and any(values) else {})


def _counted(contrast: Contrast, profiles: Mapping[Group, Sequence[Spot]], part: str) -> dict[str, Any]:
    """Ticks with the number of networks of both groups that have the part."""
    positions = list(range(1, contrast.deepest + 1))
    counts = {group: {spot.place: spot.n for spot in spots} for group, spots in profiles.items()}
    texts = [f"{place}<br>{counts['best'].get(place, 0):,}<br>{counts['worst'].get(place, 0):,}" for place in positions]
    title = {"text": f"{part}<br>below: networks that have it, best over worst"}
    return {"tickvals": positions, "ticktext": texts, "tickangle": 0, "title": title}


def _band(spots: Sequence[Spot], colour: str) -> dict[str, Any]:
    """Outline of the band between the quartiles."""
    spans = [(spot.place, *spot.span) for spot in spots if spot.span]
    return _quiet(
        [place for place, _, _ in spans] + [place for place, _, _ in reversed(spans)],
        [high for _, _, high in spans] + [low for _, low, _ in reversed(spans)],
    ) | {"fill": "toself", "fillcolor": faint(colour, 0.16), "line": {"width": 0}, "mode": "lines"}


def _single(nets: Sequence[Net], value: Callable[[Part], float], colour: str) -> list[dict[str, Any]]:
    x: list[int | None] = []
    y: list[float | None] = []
    for net in nets:
        x += [*range(1, len(net.parts) + 1), None]
        y += [*map(value, net.parts), None]
    return [_quiet(x, y) | {"mode": "lines", "line": {"color": faint(colour, 0.3), "width": 1}}]


def _quiet(x: Sequence[Any], y: Sequence[Any]) -> dict[str, Any]:
    """Trace without legend entry and hover text."""
    return {"type": "scatter", "x": list(x), "y": list(y), "hoverinfo": "skip", "showlegend": False}


def _spot_words(spot: Spot) -> str:
    span = "" if spot.span is None else f", quartiles {format_number(spot.span[0])} to {format_number(spot.span[1])}"
    return f"{format_number(spot.middle)}{span}, {format_count(spot.n, 'network')}"


def pools(contrast: Contrast) -> Figure:
    """Draw the share of both groups that pools after each block."""
    traces = []
    for group, colour, _, _ in reversed(_GROUPS):
        nets: Sequence[Net] = getattr(contrast, group)
        spots = pooled(nets)
        look = {"color": colour} if group == "best" else {"color": faint(colour, 0.15)}
        traces.append(
            {
                "type": "bar",
                "name": f"{group} {len(nets):,}",
                "x": [spot.place for spot in spots],
                "y": [spot.middle for spot in spots],
                "marker": look | {"line": {"color": colour, "width": 1.5}},
                "hovertemplate": f"{group}: %{{y:.0%}} pool after block %{{x}}<extra></extra>",
            }
        )
    share = axis("share that pools after it", tickformat=".0%", rangemode="tozero")
    return drawn("Pools", traces, _parts(contrast, "block"), share, barmode="group", bargap=0.25)


def _parts(one: Contrast, part: str) -> dict[str, Any]:
    return count_axis(part, one.deepest) | {"range": [0.4, one.deepest + 0.6], "dtick": 1}


# --- what matters ----------------------------------------------------------------------------------------------------


def importance(importances: Sequence[Importance]) -> Figure:
    """Draw the most important choices with the largest value from shuffles as a mark, clipped to the edge."""
    shown = list(importances[:MOST])[::-1]
    edge = 1.3 * max(row.share for row in shown)
    names = [display_name(row.name) for row in shown]
    bars = {
        "type": "bar",
        "orientation": "h",
        "name": "importance",
        "x": [row.share for row in shown],
        "y": names,
        "marker": {"color": [BEST if row.stands_out else GREY for row in shown], "line": {"width": 0}},
        "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
        "showlegend": False,
    }
    legend = [legend_entry("stands out from chance", BEST, "square"), legend_entry("does not", GREY, "square")]
    chance = {
        "type": "scatter",
        "mode": "markers",
        "name": "the most that chance gave",
        "x": [min(row.chance, edge) for row in shown],
        "y": names,
        "customdata": [row.chance for row in shown],
        "marker": {"symbol": "line-ns", "size": 16, "line": {"color": WORST, "width": 2.5}},
        "hovertemplate": "%{y}: chance gives up to %{customdata:.1%}<extra></extra>",
    }
    return drawn(
        "Importance",
        [bars, *legend, chance],
        axis("share of all importance", tickformat=".0%", range=[0, 1.02 * edge]),
        axis("", type="category"),
        height=ROW * len(shown) + 130,
        bargap=0.35,
        hovermode="closest",
    )


def marginal(estimates: Marginal, part: str) -> Figure:
    """Draw the gain per thousand parameters of each part with its interval, from the top down."""
    rows = estimates.gains[::-1]
    traces: list[dict[str, Any]] = []
    for name, colour, symbol, group in (
        ("more", BEST, "circle", [row for row in rows if row.is_clear and row.gain > 0]),
        ("less", WORST, "diamond", [row for row in rows if row.is_clear and row.gain <= 0]),
        ("not significant", GREY, "circle-open", [row for row in rows if not row.is_clear]),
    ):
        if group:
            traces.append(
                with_spans([row.named(part) for row in group], [(row.gain, row.low, row.high) for row in group], POINTS)
                | {
                    "name": name,
                    "marker": {"color": colour, "size": 10, "symbol": symbol, "line": {"width": 2, "color": colour}},
                }
                | {"hovertemplate": "%{y}: %{x:+.3f} points (%{customdata})<extra></extra>"}
            )
            traces[-1]["error_x"]["color"] = colour
    return drawn(
        "Gain",
        traces,
        axis("points for 1,000 parameters more", zeroline=True, zerolinecolor=GREY, zerolinewidth=1.5),
        axis("", type="category", categoryorder="array", categoryarray=[row.named(part) for row in rows]),
        height=ROW * len(rows) + 150,
        hovermode="closest",
    )
