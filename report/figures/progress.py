"""Figure of the search: every candidate by trial, the best so far, and the gain that the sampler expected of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plotly.graph_objects import Figure

from report.colours import COLOURS, GREY
from report.figures import data as rows
from report.figures.data import Point
from report.figures.style import CLEAR, MANY, TRAINED, accuracy_axis, count_axis, drawn, level, log_axis, percent_format
from search.study.records import Record
from search.study.run import Run

BEST = COLOURS[0]
EXPECTED = COLOURS[1]
PANEL = 0.22  # share of the height for the expected gain, below the accuracies
GAP = 0.1  # between the two
LEAST_GAIN = 1e-5  # of accuracy, at which the axis of the expected gain ends
LOWEST = 0.1  # share of the trained candidates that may lie below the axis


def progress(run: Run, candidates: list[Record], references: list[Record], *, images: int | None = None) -> Figure:
    """Best validation accuracy of each candidate in the order of the trials, the best so far as steps, the base as a level.

    The axis shows all but the lowest tenth of the trained candidates; those below it are triangles on its lower edge.
    Where the sampler predicts accuracies, a panel below shows the gain that it expected of each trial beside its limit.

    Args:
        images: number of validation images, which decides the decimals; None if it is unknown.
    """
    percent = percent_format(images)
    points = rows.points(run, candidates, references, "params")
    trained = [point for point in points if point.role == "candidate"]
    pruned = [point for point in points if point.role == "pruned"]
    base = [point for point in points if point.role == "base"]
    low, high = _range(trained or pruned, base)
    last = max((_number(point) for point in [*trained, *pruned]), default=1)
    traces = [
        _dots(f"pruned at a rung ({len(pruned):,})", pruned, low, percent, is_hollow=True),
        _dots(f"trained ({len(trained):,})", trained, low, percent, is_hollow=False),
        _best_so_far(trained, last, percent),
    ]
    expected = _expected_gain(candidates)
    form = " in int8" if run.config.search.rank_by == "int8" else ""
    accuracies = accuracy_axis([low, high], f"best validation {run.config.metric_label}{form}") | {"range": [low, high]}
    shapes = [level(point.accuracy, point.name) for point in base if low <= point.accuracy <= high]
    trials = count_axis("trial", last) | {"range": [-0.5, last + 0.5]}
    panel: dict[str, Any] = {}
    if expected["x"]:
        traces.append(expected)
        accuracies |= {"domain": [PANEL + GAP, 1]}
        trials |= {"anchor": "y2"}
        panel = {"yaxis2": _gain_axis(expected["y"])}
        if run.config.stop.expected_gain is not None:
            shapes.append(level(100 * run.config.stop.expected_gain, "stop.expected_gain") | {"yref": "y2"})
    return drawn(
        "Progress of the search",
        [trace for trace in traces if trace["x"]],
        trials,
        accuracies,
        shapes=shapes,
        hovermode="closest",
        **panel,
    )


def _expected_gain(candidates: Sequence[Record]) -> dict[str, Any]:
    """Gain in points of accuracy that the sampler expected of each trial when it proposed it."""
    informed = [record for record in candidates if "expected_gain" in record.proposal]
    gains = [(record.number, record.proposal["expected_gain"]) for record in informed]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "expected gain of the trial",
        "x": [number for number, _ in gains],
        "y": [round(100 * max(gain, LEAST_GAIN), 4) for _, gain in gains],
        "yaxis": "y2",
        "line": {"color": EXPECTED, "width": 1.5},
        "marker": {"size": 4},
        "hovertemplate": "trial %{x}: %{y:.2g} points expected<extra></extra>",
    }


def _gain_axis(points: Sequence[float]) -> dict[str, Any]:
    """Logarithmic axis of the panel for the expected gain."""
    return log_axis("gain, points", points, domain=[0, PANEL])


def _range(points: Sequence[Point], base: Sequence[Point]) -> tuple[float, float]:
    values = sorted(point.accuracy for point in points)
    if not values:
        return 0.0, 1.0
    low, high = values[int(LOWEST * len(values))], values[-1]
    span = max(high - low, 0.002)
    near = [point.accuracy for point in base if low - 2 * span <= point.accuracy <= high + 2 * span]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.08 * max(high - low, 0.002)
    return round(max(low - margin, 0.0), 4), round(min(high + margin, max(1.002, high)), 4)


def _number(point: Point) -> int:
    return int(point.name.split()[-1])


def _dots(name: str, points: Sequence[Point], low: float, percent: str, *, is_hollow: bool) -> dict[str, Any]:
    many = len(points) > MANY
    marker: dict[str, Any] = {"size": 5 if many else 8, "opacity": 0.5 if many else 0.85}
    marker |= {"color": CLEAR, "line": {"color": GREY, "width": 1}} if is_hollow else {"color": TRAINED}
    if any(point.accuracy < low for point in points):
        marker["symbol"] = ["triangle-down" if point.accuracy < low else "circle" for point in points]
    unclipped = {} if many else {"cliponaxis": False}
    return unclipped | {
        "type": "scattergl" if many else "scatter",
        "mode": "markers",
        "name": name,
        "x": [_number(point) for point in points],
        "y": [max(point.accuracy, low) for point in points],
        "customdata": [point.accuracy for point in points],
        "marker": marker,
        "hovertemplate": f"trial %{{x}}<br>%{{customdata:{percent}}}<extra></extra>",
    }


def _best_so_far(trained: Sequence[Point], last: int, percent: str) -> dict[str, Any]:
    """Step line of the best accuracy up to each trial, with a corner at each improvement."""
    corners: list[Point] = []
    for point in sorted(trained, key=_number):
        if not corners or point.accuracy > corners[-1].accuracy:
            corners.append(point)
    ends = corners[-1:]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far",
        "x": [*map(_number, corners), *(last for _ in ends)],
        "y": [point.accuracy for point in [*corners, *ends]],
        "line": {"color": BEST, "shape": "hv", "width": 2.5},
        "hovertemplate": f"best up to trial %{{x}}: %{{y:{percent}}}<extra></extra>",
    }
