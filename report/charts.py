"""The figures of the report that no other page has: what the choices do, finals, confusions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from plotly.graph_objects import Figure

from report.colours import COLOURS, GREY
from report.figure_style import GRID, axis, count_axis, drawn, level
from report.importance import Importance
from report.marginal import Marginal
from report.mistakes import Told
from report.nets import Block, Net
from report.positions import Contrast, Group, Spot, pooled, profile, spelt
from search.confirmation import Confirmation, Finalist

BEST, WORST = COLOURS[1], COLOURS[0]
LINES = 12  # networks of a group, up to which each is drawn
MOST = 20  # choices whose importance is drawn
POINTS = 100  # of a difference of accuracies
ROW = 26  # pixels of one line of a chart

_GROUPS: tuple[tuple[Group, str, str, str], ...] = (("worst", WORST, "dash", "diamond"), ("best", BEST, "solid", "circle"))


# --- good and bad candidates -----------------------------------------------------------------------------------------


def along(one: Contrast, value: Callable[[Block], float], what: str) -> Figure:
    """A value of the blocks along the networks: the middle of either group, quartiles as a band, of few networks each."""
    traces: list[dict[str, Any]] = []
    for group, colour, dash, symbol in _GROUPS:
        nets: Sequence[Net] = getattr(one, group)
        spots = profile(nets, value)
        traces += [_band(spots, colour), *(_single(nets, value, colour) if len(nets) <= LINES else [])]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"{group} {len(nets):,}",
                "legendrank": 1 if group == "best" else 2,
                "x": [spot.block for spot in spots],
                "y": [spot.middle for spot in spots],
                "line": {"color": colour, "dash": dash, "width": 2.5},
                "marker": {"symbol": symbol, "size": 8},
                "customdata": [_spot_words(spot) for spot in spots],
                "hovertemplate": f"{group}, block %{{x}}: middle %{{y:.4~g}}%{{customdata}}<extra></extra>",
            }
        )
    return drawn(what, traces, _blocks(one), axis(what, rangemode="tozero"))


def _band(spots: Sequence[Spot], colour: str) -> dict[str, Any]:
    """From quartile to quartile, there and back."""
    known = [(spot.block, *spot.span) for spot in spots if spot.span]
    return _quiet(
        [block for block, _, _ in known] + [block for block, _, _ in reversed(known)],
        [high for _, _, high in known] + [low for _, low, _ in reversed(known)],
    ) | {"fill": "toself", "fillcolor": _faint(colour, 0.16), "line": {"width": 0}, "mode": "lines"}


def _single(nets: Sequence[Net], value: Callable[[Block], float], colour: str) -> list[dict[str, Any]]:
    x: list[int | None] = []
    y: list[float | None] = []
    for net in nets:
        x += [*range(1, len(net.blocks) + 1), None]
        y += [*map(value, net.blocks), None]
    return [_quiet(x, y) | {"mode": "lines", "line": {"color": _faint(colour, 0.3), "width": 1}}]


def _quiet(x: Sequence[Any], y: Sequence[Any]) -> dict[str, Any]:
    """A trace that is in no legend and tells nothing to the pointer."""
    return {"type": "scatter", "x": list(x), "y": list(y), "hoverinfo": "skip", "showlegend": False}


def _spot_words(spot: Spot) -> str:
    span = "" if spot.span is None else f", quartiles {spot.span[0]:g} to {spot.span[1]:g}"
    return f"{span}, {spot.n} networks"


def pools(one: Contrast) -> Figure:
    """How many of either group pool after each block."""
    traces = []
    for group, colour, _, _ in reversed(_GROUPS):
        nets: Sequence[Net] = getattr(one, group)
        spots = pooled(nets)
        look = {"color": colour} if group == "best" else {"color": _faint(colour, 0.15)}
        traces.append(
            {
                "type": "bar",
                "name": f"{group} {len(nets):,}",
                "x": [spot.block for spot in spots],
                "y": [spot.middle for spot in spots],
                "marker": look | {"line": {"color": colour, "width": 1.5}},
                "hovertemplate": f"{group}: %{{y:.0%}} pool after block %{{x}}<extra></extra>",
            }
        )
    share = axis("share that pools after it", tickformat=".0%", rangemode="tozero")
    return drawn("Pools", traces, _blocks(one), share, barmode="group", bargap=0.25)


def _blocks(one: Contrast) -> dict[str, Any]:
    return count_axis("block", one.deepest) | {"range": [0.4, one.deepest + 0.6], "dtick": 1}


# --- what matters ----------------------------------------------------------------------------------------------------


def importance(found: Sequence[Importance]) -> Figure:
    """The most important choices, with what chance gives each of them as a mark."""
    shown = list(found[:MOST])[::-1]
    names = [spelt(one.name) for one in shown]
    bars = {
        "type": "bar",
        "orientation": "h",
        "name": "importance",
        "x": [one.share for one in shown],
        "y": names,
        "marker": {"color": [BEST if one.stands_out else GREY for one in shown], "line": {"width": 0}},
        "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
        "showlegend": False,
    }
    legend = [_legend("stands out from chance", BEST, "square"), _legend("does not", GREY, "square")]
    chance = {
        "type": "scatter",
        "mode": "markers",
        "name": "no shuffle reached this",
        "x": [one.chance for one in shown],
        "y": names,
        "marker": {"symbol": "line-ns", "size": 16, "line": {"color": WORST, "width": 2.5}},
        "hovertemplate": "%{y}: chance gives up to %{x:.1%}<extra></extra>",
    }
    return drawn(
        "Importance",
        [bars, *legend, chance],
        axis("share of all importance", tickformat=".0%", rangemode="tozero"),
        axis("", type="category"),
        height=ROW * len(shown) + 130,
        bargap=0.35,
        hovermode="closest",
    )


def marginal(found: Marginal) -> Figure:
    """The gain of a thousand parameters more in each block, with its interval; blocks from the top down."""
    rows = found.gains[::-1]
    traces: list[dict[str, Any]] = []
    for name, colour, symbol, kept in (
        ("more", BEST, "circle", [one for one in rows if one.is_clear and one.gain > 0]),
        ("less", WORST, "diamond", [one for one in rows if one.is_clear and one.gain <= 0]),
        ("may be nothing", GREY, "circle-open", [one for one in rows if not one.is_clear]),
    ):
        if kept:
            traces.append(
                _with_spans([one.name for one in kept], [(one.gain, one.low, one.high) for one in kept], POINTS)
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
        axis("", type="category", categoryorder="array", categoryarray=[one.name for one in rows]),
        height=ROW * len(rows) + 150,
        hovermode="closest",
    )


# --- finals ----------------------------------------------------------------------------------------------------------


def finals(found: Confirmation) -> Figure:
    """Each finalist's mean on fresh seeds with its interval, each seed, and the score that the search had shown."""
    rows = found.finalists[::-1]
    names = [one.name for one in rows]
    is_test = found.measure == "test_accuracy"
    seeds = [(one.name, score) for one in rows for score in _scores(one, is_test)]
    means = _with_spans(names, [(one.mean, *(one.interval or (one.mean, one.mean))) for one in rows]) | {
        "name": "mean, 95 % interval",
        "marker": {"color": BEST, "size": 11},
        "hovertemplate": "%{y}: mean %{x:.2%} (%{customdata})<extra></extra>",
    }
    means["error_x"]["color"] = BEST
    base = next((one.mean for one in rows if one.name == "base"), None)
    return drawn(
        "Finals",
        [
            means,
            _dots("each seed", seeds, {"symbol": "circle-open", "color": GREY, "size": 7}),
            _dots(
                "in the search",
                [(one.name, one.search_score) for one in rows if one.search_score is not None],
                {"symbol": "x-thin", "size": 9, "line": {"color": WORST, "width": 2}},
            ),
        ],
        axis("test accuracy" if is_test else "best validation accuracy", tickformat=".1%"),
        axis("", type="category", categoryorder="array", categoryarray=names),
        height=34 * len(rows) + 150,
        hovermode="closest",
        shapes=[] if base is None else [level(base, "", upright=True)],
    )


def _scores(one: Finalist, is_test: bool) -> tuple[float, ...]:
    return one.test if is_test else one.best_val


def _dots(name: str, rows: Sequence[tuple[str, float]], marker: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [value for _, value in rows],
        "y": [place for place, _ in rows],
        "marker": marker,
        "hovertemplate": f"%{{y}}, {name}: %{{x:.2%}}<extra></extra>",
    }


# --- confusions ------------------------------------------------------------------------------------------------------


def confusion(told: Told) -> Figure:
    """The confusion matrix of many classes, rows in shares of their class; the pointer tells which is which."""
    names = [escape(name) for name in told.class_names]
    counts = told.confusion
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    return drawn(
        "Confusion",
        [
            {
                "type": "heatmap",
                "x": names,
                "y": names,
                "z": [[round(value, 3) for value in row] for row in shares.tolist()],
                "customdata": counts.tolist(),
                "colorscale": [[0, _faint(BEST, 0.0)], [1, BEST]],
                "showscale": False,
                "hovertemplate": "%{y} said to be %{x}: %{customdata} images, %{z:.0%}<extra></extra>",
            }
        ],
        axis("said to be", type="category", showgrid=False, showticklabels=False),
        axis("is", type="category", showgrid=False, showticklabels=False, autorange="reversed", scaleanchor="x"),
        height=560,
        showlegend=False,
        shapes=[
            {"type": "rect", "xref": "paper", "yref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 1, "line": {"color": GRID}}
        ],
    )


# --- shared ----------------------------------------------------------------------------------------------------------


def _with_spans(names: Sequence[str], spans: Sequence[tuple[float, float, float]], unit: float = 1.0) -> dict[str, Any]:
    """Dots with an interval each, (middle, low, high), multiplied by the unit; the interval in words as customdata."""
    form = "{:+.3f} to {:+.3f}" if unit == POINTS else "{:.2%} to {:.2%}"
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [unit * middle for middle, _, _ in spans],
        "y": list(names),
        "customdata": [form.format(unit * low, unit * high) for _, low, high in spans],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [unit * (high - middle) for middle, _, high in spans],
            "arrayminus": [unit * (middle - low) for middle, low, _ in spans],
            "thickness": 2,
            "width": 5,
        },
    }


def _legend(name: str, colour: str, symbol: str) -> dict[str, Any]:
    """A line of the legend for what one trace shows in two colours."""
    marker = {"color": colour, "symbol": symbol, "size": 11}
    return {"type": "scatter", "mode": "markers", "name": name, "x": [None], "y": [None], "marker": marker}


def _faint(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
