"""Figures on finals and confusions, and helpers shared with those on choices."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from plotly.graph_objects import Figure

from report.analysis.mistakes import Predictions
from report.colours import COLOURS, GREY
from report.figures.style import GRID, axis, drawn, faint, level, percent_format
from search.finals.results import FinalistResult, FinalsResult

BEST, WORST = COLOURS[1], COLOURS[0]
POINTS = 100  # of a difference of accuracies


# --- finals ----------------------------------------------------------------------------------------------------------


def finals(results: FinalsResult, images: int | None = None) -> Figure:
    """Draw each finalist's mean on fresh seeds with its interval, single seeds, and its score in the search.

    Args:
        images: number of validation images, which decides the decimals of single trainings; None if it is unknown.
    """
    rows = results.finalists[::-1]
    names = [finalist.name for finalist in rows]
    seeds = [(finalist.name, score) for finalist in rows for score in _scores(finalist, results.is_test)]
    means = with_spans(
        names, [(finalist.mean, *(finalist.interval or (finalist.mean, finalist.mean))) for finalist in rows]
    ) | {
        "name": "mean, 95 % interval",
        "marker": {"color": BEST, "size": 11},
        "hovertemplate": "%{y}: mean %{x:.2%} (%{customdata})<extra></extra>",
    }
    means["error_x"]["color"] = BEST
    base = next((finalist.mean for finalist in rows if finalist.name == "base"), None)
    return drawn(
        "Finals",
        [
            means,
            _dots("each seed", seeds, {"symbol": "circle-open", "color": GREY, "size": 7}, percent_format(images)),
            _dots(
                "in the search",
                [(finalist.name, finalist.search_score) for finalist in rows if finalist.search_score is not None],
                {"symbol": "x-thin", "size": 9, "line": {"color": WORST, "width": 2}},
                percent_format(images),
            ),
        ],
        axis(results.measure_label, tickformat=".1%"),
        axis("", type="category", categoryorder="array", categoryarray=names),
        height=34 * len(rows) + 150,
        hovermode="closest",
        shapes=[] if base is None else [level(base, "", upright=True)],
    )


def _scores(one: FinalistResult, is_test: bool) -> tuple[float, ...]:
    return one.test if is_test else one.best_val


def _dots(name: str, rows: Sequence[tuple[str, float]], marker: dict[str, Any], percent: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [value for _, value in rows],
        "y": [place for place, _ in rows],
        "marker": marker,
        "hovertemplate": f"%{{y}}, {name}: %{{x:{percent}}}<extra></extra>",
    }


# --- confusions ------------------------------------------------------------------------------------------------------


def confusion(predictions: Predictions) -> Figure:
    """Draw a confusion matrix of many classes, rows as shares of their class; names are in the hover text."""
    names = [escape(name) for name in predictions.class_names]
    counts = predictions.confusion
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
                "colorscale": [[0, faint(BEST, 0.0)], [1, BEST]],
                "showscale": False,
                "hovertemplate": "%{y} predicted as %{x}: %{customdata} images, %{z:.0%}<extra></extra>",
            }
        ],
        axis("predicted", type="category", showgrid=False, showticklabels=False),
        axis("is", type="category", showgrid=False, showticklabels=False, autorange="reversed", scaleanchor="x"),
        height=560,
        showlegend=False,
        shapes=[
            {"type": "rect", "xref": "paper", "yref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 1, "line": {"color": GRID}}
        ],
    )


# --- shared -----------------------------------------------------------------------------------------------------------


def with_spans(names: Sequence[str], spans: Sequence[tuple[float, float, float]], unit: float = 1.0) -> dict[str, Any]:
    """Options of dots with intervals (middle, low, high), scaled by `unit`; the interval as text in customdata."""
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


def legend_entry(name: str, colour: str, symbol: str) -> dict[str, Any]:
    """Legend entry for one of two colours in a trace."""
    marker = {"color": colour, "symbol": symbol, "size": 11}
    return {"type": "scatter", "mode": "markers", "name": name, "x": [None], "y": [None], "marker": marker}
