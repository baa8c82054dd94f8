"""What all figures share: colours, axes, layout.

A figure is shown on a background, light or dark, that it cannot know: its own is transparent, text and grid are a grey that
reads on both, and no colour is near to white or black. Colour-blind people can tell the colours apart, and what they tell
is told by dash, fill or shape as well. plotly's template is left out: it is 7 kB of JSON in each figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil, floor, log10
from typing import Any

from plotly.graph_objects import Figure

from report.colours import COLOURS, GREY

TRAINED = COLOURS[1]  # points of trained candidates
GRID = "rgba(128,128,128,0.25)"
CLEAR = "rgba(0,0,0,0)"
MANY = 800  # points, from which on WebGL draws them


def drawn(
    title: str, traces: Iterable[Mapping[str, Any]], xaxis: Mapping[str, Any], yaxis: Mapping[str, Any], **layout: Any
) -> Figure:
    """The traces as a figure that looks like the others; `layout` adds to it or takes precedence."""
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
        "margin": {"l": 70, "r": 20, "t": 50, "b": 60},
        "modebar": {"bgcolor": CLEAR, "color": GREY, "activecolor": COLOURS[0]},
        "hoverlabel": {"bgcolor": "#f5f5f5", "font": {"color": "#202020"}},
    }
    return Figure(data=list(traces), layout=shared | layout)


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with a quiet grid."""
    return {"title": {"text": title}, "gridcolor": GRID, "zeroline": False, "automargin": True} | more


def accuracy_axis(values: Sequence[float], title: str = "validation accuracy") -> dict[str, Any]:
    """An axis of accuracies (fractions), in percent, with a decimal where they are close together."""
    spread = max(values) - min(values) if values else 1.0
    return axis(title, tickformat=".0%" if spread > 0.1 else ".1%")


def count_axis(title: str, last: int) -> dict[str, Any]:
    """An axis that counts to `last`, in whole numbers."""
    return axis(title, tickformat=",d") | ({"nticks": 10} if last > 10 else {"dtick": 1})


def log_axis(title: str, values: Sequence[float], **more: Any) -> dict[str, Any]:
    """A logarithmic axis of positive values that has a few ticks wherever they lie; plotly's own crowd in a short one."""
    low, high = log10(min(values)) - 0.1, log10(max(values)) + 0.1
    powers = [10.0**power for power in range(floor(low), ceil(high) + 1)]
    fine = [factor * power for power in powers for factor in (1, 2, 5) if low <= log10(factor * power) <= high]
    ticks = fine if len(fine) <= 5 else [power for power in powers if low <= log10(power) <= high]
    return axis(title, type="log", range=[low, high], tickvals=ticks, tickformat="~s") | more


def level(value: float, text: str, *, upright: bool = False, **more: Any) -> dict[str, Any]:
    """A line across the whole plot at a value of the y axis or, upright, of the x axis, with its text at its beginning."""
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
