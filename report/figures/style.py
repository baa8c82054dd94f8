"""Shared style of all figures: colours, axes, layout.

The page's background may be light or dark: a figure is transparent, its text and grid are a grey readable on both, and no
colour is close to white or black. The palette is safe for colour-blind readers, and dash, fill or shape carry the same
information. plotly's template is left out, as it adds 7 kB of JSON to each figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil, floor, log10
from typing import Any

from plotly.graph_objects import Figure

from report.colours import COLOURS, GREY
from search.text import percent_decimals

TRAINED = COLOURS[1]  # points of trained candidates
GRID = "rgba(128,128,128,0.25)"
CLEAR = "rgba(0,0,0,0)"
MARGIN = {"l": 70, "r": 20, "t": 50, "b": 60}
MANY = 800  # points from which WebGL is used


def drawn(
    title: str, traces: Iterable[Mapping[str, Any]], xaxis: Mapping[str, Any], yaxis: Mapping[str, Any], **layout: Any
) -> Figure:
    """Make a figure in the shared style; `layout` overrides it."""
    shared: dict[str, Any] = {
        "template": "none",
        "title": {"text": title, "font": {"size": 18}, "x": 0.02, "y": 0.98, "yanchor": "top"},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "font": {"color": GREY, "size": 13},
        "xaxis": xaxis,
        "yaxis": yaxis,
        "showlegend": True,
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "traceorder": "normal"},
        "margin": MARGIN,
        "modebar": {"bgcolor": CLEAR, "color": GREY, "activecolor": COLOURS[0]},
        "hoverlabel": {"bgcolor": "#f5f5f5", "font": {"color": "#202020"}},
    }
    return Figure(data=list(traces), layout=shared | layout)


def axis(title: str, **more: Any) -> dict[str, Any]:
    """Options of an axis with a faint grid."""
    return {"title": {"text": title, "standoff": 10}, "gridcolor": GRID, "zeroline": False, "automargin": True} | more


def accuracy_axis(values: Sequence[float], title: str) -> dict[str, Any]:
    """Options of an accuracy axis (fractions shown in percent), with decimals if values are close."""
    spread = max(values) - min(values) if values else 1.0
    return axis(title, tickformat=".0%" if spread > 0.1 else ".1%" if spread > 0.01 else ".2%")


def percent_format(images: int | None) -> str:
    """Format of an accuracy that was measured on so many images; None if their number is unknown."""
    return f".{percent_decimals(images)}%"


def count_axis(title: str, last: int) -> dict[str, Any]:
    """Options of an axis of whole numbers up to `last`."""
    return axis(title, tickformat=",d") | ({"nticks": 10} if last > 10 else {"dtick": 1})


def log_axis(title: str, values: Sequence[float], **more: Any) -> dict[str, Any]:
    """Options of a logarithmic axis with a few ticks; plotly's own are too dense on a short one."""
    low, high = log10(min(values)) - 0.1, log10(max(values)) + 0.1
    powers = [10.0**power for power in range(floor(low), ceil(high) + 1)]
    fine = [factor * power for power in powers for factor in (1, 2, 5) if low <= log10(factor * power) <= high]
    ticks = fine if len(fine) <= 5 else [power for power in powers if low <= log10(power) <= high]
    return axis(title, type="log", range=[low, high], tickvals=ticks, tickformat="~s") | more


def beyond(limit: float, end: float) -> dict[str, Any]:
    """Shaded area of a cost axis beyond a limit."""
    return {
        "type": "rect",
        "layer": "below",
        "xref": "x",
        "yref": "paper",
        "x0": limit,
        "x1": end,
        "y0": 0,
        "y1": 1,
        "fillcolor": faint(GREY, 0.15),
        "line": {"width": 0},
    }


def end_label(text: str, x: float, y: float, colour: str, *, is_above: bool) -> dict[str, Any]:
    """Label beyond the right end of a line, in the margin, a little above or below its level."""
    return {
        "text": text,
        "x": x,
        "y": y,
        "xanchor": "left",
        "xshift": 4,
        "yanchor": "bottom" if is_above else "top",
        "yshift": -6 if is_above else 6,
        "showarrow": False,
        "font": {"color": colour, "size": 13},
    }


def line_entry(name: str, line: Mapping[str, Any]) -> dict[str, Any]:
    """Legend entry of a line that is drawn as a shape; a label in the plot would cover points."""
    return {"type": "scatter", "mode": "lines", "name": name, "x": [None], "y": [None], "line": line, "hoverinfo": "skip"}


def faint(colour: str, opacity: float) -> str:
    """A colour with transparency."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def level(value: float, text: str, *, upright: bool = False, **more: Any) -> dict[str, Any]:
    """Line across the plot at a y value (`upright`: x value), labelled at its beginning."""
    across, along = ("y", "x") if upright else ("x", "y")
    label: dict[str, Any] = {"text": text, "textposition": "start", "textangle": 0, "padding": 4}
    label |= {"font": {"color": GREY, "size": 12}} | {"xanchor": "right" if upright else "left", "yanchor": "bottom"}
    return {
        "type": "line",
        f"{across}ref": "paper",
        f"{across}0": 0,
        f"{across}1": 1,
        f"{along}0": value,
        f"{along}1": value,
        "layer": "below",
        "line": {"color": GREY, "dash": "dash", "width": 1.5},
        "label": label,
    } | more
