"""Figures of a study: learning curves, and accuracy against a cost metric.

Each is drawn from plain rows (`report.figures.data`), stays small with thousands of trials, and is self-contained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from plotly.graph_objects import Figure

from report.colours import COLOURS, GREY
from report.figures import data as rows
from report.figures.data import Curve, Point
from report.figures.refusals import refusals
from report.figures.style import (
    CLEAR,
    MANY,
    MARGIN,
    TRAINED,
    accuracy_axis,
    axis,
    beyond,
    count_axis,
    drawn,
    end_label,
    faint,
    level,
    line_entry,
    percent_format,
)
from search.budget.metrics import METRICS
from search.study.pareto import front_indices
from search.study.records import Record
from search.study.run import Run
from search.training.measures import MEASURES

__all__ = ["Noise", "accuracy_by_cost", "learning_curves", "refusals"]

FRONT, WINNER = COLOURS[0], COLOURS[0]
BUDGET_LINE = {"color": GREY, "width": 2}
LINES = 16  # most other candidates drawn as single lines; of more, the middle 80 %
SETTLED, DIPS = 0.5, 0.03  # share of the epochs after which the axis shows the highlighted curves, but for their lowest dips
LATE = 0.75  # share of the epochs at which it shows each of them
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "triangle-down", "star")  # of published logs


class Noise(NamedTuple):
    """95 % interval of the winner's accuracy, one training; fractions."""

    low: float
    high: float


# --- learning curves -------------------------------------------------------------------------------------------------


def learning_curves(
    run: Run, candidates: list[Record], references: list[Record], top: int = 5, *, images: int | None = None
) -> Figure:
    """Validation accuracy, or the study's other measure, by epoch, on the axis range where the curves differ.

    The winner in colour and the base dashed, both labelled at their ends; the next best in blue, all other candidates in
    grey (single lines, or the middle 80 % of many), references dash-dotted, published logs dotted with one symbol each.

    Args:
        images: number of validation images, which decides the decimals; None if it is unknown.
    """
    curves = rows.curves(run, candidates, references, top)
    others = rows.other_curves(candidates, top)
    shown = [row for row in curves if row.role != "published"] or curves
    epochs = max((len(row.accuracies) for row in curves), default=1)
    low, high = _interesting(shown, curves)
    best = [row for row in curves if row.role == "candidate"]
    published = [row for row in curves if row.role == "published"]
    traces = [*_others(others)]
    percent = percent_format(images)
    traces += [_curve(row, percent) for row in curves if row.role in ("base", "reference")]
    traces += [_published(row, SYMBOLS[index % len(SYMBOLS)]) for index, row in enumerate(published)]
    traces += _next_best(best[1:], percent)
    traces += [_winner(row, percent) for row in best[:1]]
    labels = _end_labels(best[:1], [row for row in curves if row.role == "base"])
    return drawn(
        "Learning curves",
        traces,
        count_axis("epoch", epochs) | ({"range": [1, epochs]} if epochs > 1 else {}),
        accuracy_axis([low, high], f"validation {run.config.metric_label}{_form(run, 'float')}") | {"range": [low, high]},
        hovermode="x unified",
        annotations=labels,
        margin=MARGIN | ({"r": 90} if labels else {}),
    )


def _form(run: Run, form: str) -> str:
    """The form of the networks that accuracies are of, where a study has both: epochs are float, candidates rank by int8."""
    return f" in {form}" if run.config.search.rank_by == "int8" else ""


def _interesting(shown: Sequence[Curve], every: Sequence[Curve]) -> tuple[float, float]:
    """Range of the accuracy axis: the highlighted curves once they have settled; first epochs and dips may lie below it."""
    settled = sorted(value for row in shown for value in row.accuracies[int(SETTLED * len(row.accuracies)) :])
    if not settled:
        return 0.0, 1.0
    high = max(value for row in every for value in row.accuracies)
    late = (row.accuracies[int(LATE * len(row.accuracies))] for row in shown if row.accuracies)
    low = min(settled[int(DIPS * len(settled))], *late)
    margin = max(0.06 * (high - low), 0.002)
    return round(max(low - margin, 0.0), 4), round(min(high + margin, max(1.002, high)), 4)


def _others(others: Sequence[Curve]) -> list[dict[str, Any]]:
    """All candidates that are not among the best: as lines, or as the range of the middle 80 % with its median."""
    if not others:
        return []
    name = f"other candidates ({len(others):,})"
    shared = {"type": "scatter", "mode": "lines", "legendgroup": "others", "hoverinfo": "skip"}
    if len(others) <= LINES:
        x: list[int | None] = []
        y: list[float | None] = []
        for row in others:
            x += [*range(1, len(row.accuracies) + 1), None]
            y += [*row.accuracies, None]
        return [shared | {"name": name, "x": x, "y": y, "line": {"color": faint(GREY, 0.45), "width": 1}}]
    spots = rows.middle_band(others)
    x = [spot.epoch for spot in spots]
    band = shared | {
        "name": f"middle 80 % of {name}",
        "x": x + x[::-1],
        "y": [spot.high for spot in spots] + [spot.low for spot in reversed(spots)],
        "fill": "toself",
        "fillcolor": faint(GREY, 0.2),
        "line": {"width": 0},
    }
    middle = shared | {
        "name": "their median",
        "x": x,
        "y": [spot.middle for spot in spots],
        "line": {"color": GREY, "width": 1.5},
    }
    return [band, middle]


def _curve(row: Curve, percent: str) -> dict[str, Any]:
    dash, width = {"base": ("dash", 3.0), "reference": ("dashdot", 1.5), "published": ("dot", 1.5)}.get(
        row.role, ("solid", 3.0)
    )
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(row.accuracies) == 1 else "lines",
        "name": f"{row.name} ({max(row.accuracies, default=0):{percent}})",
        "x": list(range(1, len(row.accuracies) + 1)),
        "y": list(row.accuracies),
        "line": {"color": GREY, "dash": dash, "width": width},
        "hovertemplate": f"%{{y:{percent}}}",
    }


def _winner(row: Curve, percent: str) -> dict[str, Any]:
    return _curve(row, percent) | {"line": {"color": WINNER, "dash": "solid", "width": 3}}


def _next_best(curves: Sequence[Curve], percent: str) -> list[dict[str, Any]]:
    """The next best candidates, which share an entry of the legend; the hover text names each."""
    line = {"color": faint(TRAINED, 0.75), "dash": "solid", "width": 1.5}
    shared = {"line": line, "legendgroup": "next", "showlegend": False}
    if not curves:
        return []
    entry = {
        "type": "scatter",
        "mode": "lines",
        "name": f"next best ({len(curves)})",
        "x": [None],
        "y": [None],
        "line": line,
    }
    return [*(_curve(row, percent) | shared for row in curves), entry | {"legendgroup": "next"}]


def _published(row: Curve, symbol: str) -> dict[str, Any]:
    marker = {"symbol": symbol, "size": 7, "color": GREY, "maxdisplayed": 6}
    return _curve(row, percent_format(None)) | {"mode": "lines+markers", "marker": marker}


def _end_labels(winner: Sequence[Curve], base: Sequence[Curve]) -> list[dict[str, Any]]:
    """Names of winner and base at the ends of their lines, one above and one below so that they never collide."""
    ends = [(row, row.accuracies[-1], colour) for row, colour in zip([*winner, *base], (WINNER, GREY), strict=False)]
    if not winner:
        ends = [(row, row.accuracies[-1], GREY) for row in base]
    ends = sorted(ends, key=lambda end: -end[1])
    return [
        end_label(row.name, len(row.accuracies), value, colour, is_above=index == 0)
        for index, (row, value, colour) in enumerate(ends)
    ]


# --- accuracy against cost -------------------------------------------------------------------------------------------


def accuracy_by_cost(
    run: Run,
    candidates: list[Record],
    references: list[Record],
    metric: str = "params",
    *,
    noise: Noise | None = None,
    networks: Mapping[int, str] | None = None,
    images: int | None = None,
) -> Figure:
    """Best validation accuracy against a cost metric: the candidates, those pruned at a rung hollow, their Pareto front up
    to the budget, the winner as a star, the base as a level, other references, and the budget with all beyond it shaded.

    References far from the candidates, such as a base over the budget, are drawn at the edge with their cost as text, so
    that the candidates remain distinguishable.

    Args:
        noise: 95 % interval of one accuracy, drawn as a bar at the winner.
        networks: network of a candidate in one line, by number, for the hover text of at most `MANY` candidates.
        images: number of validation images, which decides the decimals; None if it is unknown.
    """
    points = rows.points(run, candidates, references, metric)
    budget = run.config.budget.limits.get(metric)
    trained = [point for point in points if point.role == "candidate" and point.cost is not None]
    pruned = [point for point in points if point.role == "pruned" and point.cost is not None]
    low, high = _window(points, budget)
    others = [point for point in points if point.role in ("base", "reference")]
    known = networks if networks and len(trained) + len(pruned) <= MANY else {}
    names = _Hover(metric, known, percent_format(images))
    winner = max(trained, key=lambda point: (point.accuracy, -(point.cost or 0), -_number(point)), default=None)
    traces = [
        _networks(f"pruned at a rung ({len(pruned):,})", pruned, names, hollow=True),
        _networks(f"trained ({len(trained):,})", trained, names, hollow=False),
        _front(trained, min(high, budget or high)),
        *(_winning(point, names, noise, (low, high)) for point in [winner] if point is not None),
        *(_base(point, names) for point in others if point.role == "base"),
        *(_marked(point, names, low, high, index) for index, point in enumerate(others) if point.cost is not None),
    ]
    levels = [level(one.accuracy, one.name) for one in others if one.role == "base"]
    if budget:
        levels += [
            beyond(budget, high),
            level(budget, "", upright=True, line=BUDGET_LINE),
        ]
    if budget and points:
        traces.append(line_entry(f"budget: {run.config.budget.bound(metric)}", BUDGET_LINE))
    values = [point.accuracy for point in points]
    measure = MEASURES[run.config.search.metric]
    return drawn(
        f"{measure.title} against {METRICS[metric].label}",
        [trace for trace in traces if trace["x"]],
        axis(METRICS[metric].axis, tickformat="," if metric == "params" else "~s", range=[low, high]),
        accuracy_axis(values, f"best validation {measure.label}{_form(run, 'int8')}"),
        shapes=levels,
        hovermode="closest",
    )


class _Hover(NamedTuple):
    """Hover text of candidates: trial, accuracy, cost, and the network where it is known."""

    metric: str
    networks: Mapping[int, str]
    percent: str  # format of an accuracy

    def template(self) -> str:
        network = "<br>%{customdata[1]}" if self.networks else ""
        number = "%{customdata[0]}" if self.networks else "%{customdata}"
        return f"trial {number}<br>%{{y:{self.percent}}}<br>%{{x:,}} {METRICS[self.metric].axis}{network}<extra></extra>"

    def data(self, points: Sequence[Point]) -> list[Any]:
        numbers = [_number(point) for point in points]
        return [[number, self.networks.get(number, "")] for number in numbers] if self.networks else list(numbers)


def _number(point: Point) -> int:
    return int(point.name.split()[-1])


def _window(points: Sequence[Point], budget: int | None) -> tuple[float, float]:
    """Range of the cost axis: candidates, budget, and references within one more span of these."""
    shown = [point.cost for point in points if point.role in ("candidate", "pruned") and point.cost is not None]
    shown += [budget] if budget else []
    others = [point.cost for point in points if point.role in ("base", "reference") and point.cost is not None]
    low, high = min(shown or others, default=0), max(shown or others, default=1)
    span = max(high - low, high / 20)
    near = [cost for cost in others if low - span <= cost <= high + span]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.05 * max(high - low, high / 20)
    return low - margin, high + margin


def _networks(name: str, points: Sequence[Point], names: _Hover, *, hollow: bool) -> dict[str, Any]:
    many = len(points) > MANY
    look = {"color": CLEAR, "line": {"color": GREY, "width": 1}} if hollow else {"color": TRAINED}
    return {
        "type": "scattergl" if many else "scatter",
        "mode": "markers",
        "name": name,
        "x": [point.cost for point in points],
        "y": [point.accuracy for point in points],
        "customdata": names.data(points),
        "marker": look | {"size": 5 if many else 8, "opacity": 0.5 if many else 0.85},
        "hovertemplate": names.template(),
    }


def _winning(point: Point, names: _Hover, noise: Noise | None, window: tuple[float, float]) -> dict[str, Any]:
    """The winner as a labelled star, with the interval of its accuracy as a bar."""
    low, high = window
    is_left = (point.cost or 0) - low > 0.7 * (high - low)
    bar: dict[str, Any] = {}
    if noise is not None:
        above, below = round(noise.high - point.accuracy, 5), round(point.accuracy - noise.low, 5)
        ends = {"type": "data", "symmetric": False, "array": [max(above, 0)], "arrayminus": [max(below, 0)]}
        bar = {"error_y": ends | {"color": WINNER, "thickness": 2, "width": 6}}
    return bar | {
        "type": "scatter",
        "mode": "markers+text",
        "name": f"winner: {point.name} ({point.accuracy:{names.percent}})",
        "x": [point.cost],
        "y": [point.accuracy],
        "customdata": names.data([point]),
        "text": [point.name],
        "textposition": f"top {'left' if is_left else 'right'}",
        "textfont": {"color": WINNER, "size": 13},
        "cliponaxis": False,
        "marker": {"symbol": "star", "size": 16, "color": WINNER},
        "hovertemplate": names.template(),
    }


def _front(trained: Sequence[Point], end: float) -> dict[str, Any]:
    """Step line of the best accuracy up to each cost, which ends at the budget."""
    costs = [(point.cost or 0,) for point in trained]
    best = [trained[index] for index in front_indices(costs, [point.accuracy for point in trained])]
    last = best[-1:]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "Pareto front",
        "x": [*(point.cost for point in best), *(max(end, point.cost or 0) for point in last)],
        "y": [point.accuracy for point in [*best, *last]],
        "line": {"color": FRONT, "shape": "hv", "width": 2},
        "hoverinfo": "skip",
    }


def _base(base: Point, names: _Hover) -> dict[str, Any]:
    """Legend entry of the base."""
    cost = "" if base.cost is None else f", {base.cost:,} {METRICS[names.metric].label}"
    name, line = f"{base.name} ({base.accuracy:{names.percent}}{cost})", {"color": GREY, "dash": "dash", "width": 1.5}
    return {"type": "scatter", "mode": "lines", "x": [None], "y": [None], "name": name, "line": line}


def _marked(point: Point, names: _Hover, low: float, high: float, index: int) -> dict[str, Any]:
    """Marker of a reference with its name; beyond an edge it is drawn there with its cost."""
    assert point.cost is not None
    side = "right" if point.cost > high else "left" if point.cost < low else None
    name = "" if point.role == "base" else f"{point.name}, {point.cost:,}" if side else point.name  # a base has its level
    near_right = side == "right" or (not side and point.cost - low > 0.7 * (high - low))
    symbol = f"triangle-{side}" if side else "diamond" if point.role == "base" else "diamond-open"
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": f"{point.name} ({point.accuracy:{names.percent}})",
        "x": [min(max(point.cost, low), high)],
        "y": [point.accuracy],
        "text": [name],
        "textposition": f"{('bottom', 'top')[index % 2]} {'left' if near_right else 'right'}",  # neighbours not alike
        "textfont": {"color": GREY, "size": 12},
        "marker": {"symbol": symbol, "color": GREY, "size": 11},
        "cliponaxis": False,
        "showlegend": False,
        "hovertemplate": (
            f"{point.name}<br>%{{y:{names.percent}}}<br>{point.cost:,} {METRICS[names.metric].axis}<extra></extra>"
        ),
    }
