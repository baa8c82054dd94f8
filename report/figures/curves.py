"""Figures of a study: learning curves, and accuracy against a cost metric.

Each is drawn from plain rows (`report.figures.data`), stays small with thousands of trials, and is self-contained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plotly.graph_objects import Figure

from report.colours import COLOURS, GREY
from report.figures import data as rows
from report.figures.data import Curve, Point
from report.figures.refusals import refusals
from report.figures.style import CLEAR, MANY, TRAINED, accuracy_axis, axis, count_axis, drawn, level
from search.budget.metrics import METRICS
from search.study.pareto import front_indices
from search.study.records import Record
from search.study.run import Run

__all__ = ["accuracy_by_cost", "learning_curves", "refusals"]

FRONT = COLOURS[0]


# --- learning curves -------------------------------------------------------------------------------------------------


def learning_curves(run: Run, candidates: list[Record], references: list[Record], top: int = 5) -> Figure:
    """Validation accuracy by epoch: base dashed, best candidates in colour, references dash-dotted, published dotted."""
    found = rows.curves(run, candidates, references, top)
    epochs = max((len(row.accuracies) for row in found), default=1)
    colours = iter(COLOURS * (1 + len(found) // len(COLOURS)))
    traces = [_curve(row, next(colours) if row.role == "candidate" else GREY) for row in found]
    published = sum(row.role == "published" for row in found)
    return drawn(
        "Learning curves",
        traces + ([_published(published)] if published else []),
        count_axis("epoch", epochs),
        accuracy_axis([value for row in found for value in row.accuracies]),
        hovermode="x unified",
    )


def _curve(row: Curve, colour: str) -> dict[str, Any]:
    dash = {"base": "dash", "reference": "dashdot", "candidate": "solid", "published": "dot"}[row.role]
    together = {"legendgroup": "published", "showlegend": False} if row.role == "published" else {}
    return together | {
        "type": "scatter",
        "mode": "lines+markers" if len(row.accuracies) == 1 else "lines",
        "name": f"{row.name} ({max(row.accuracies, default=0):.2%})",
        "x": list(range(1, len(row.accuracies) + 1)),
        "y": list(row.accuracies),
        "line": {"color": colour, "dash": dash, "width": {"base": 3, "published": 1.5}.get(row.role, 2)},
        "hovertemplate": "%{y:.2%}",
    }


def _published(count: int) -> dict[str, Any]:
    """Single legend entry of all published logs; the hover text names each."""
    line = {"color": GREY, "dash": "dot", "width": 1.5}
    name = f"published, test images ({count})"
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [None],
        "y": [None],
        "line": line,
        "legendgroup": "published",
    }


# --- accuracy against cost -------------------------------------------------------------------------------------------


def accuracy_by_cost(run: Run, candidates: list[Record], references: list[Record], metric: str = "params") -> Figure:
    """Best validation accuracy against a cost metric: the candidates, those pruned at a rung hollow, their Pareto front, the
    base as a level, other references, and the budget where it limits this metric.

    References far from the candidates, such as a base over the budget, are drawn at the edge with their cost as text, so
    that the candidates remain distinguishable.
    """
    found = rows.points(run, candidates, references, metric)
    budget = run.config.budget.limits.get(metric)
    trained = [point for point in found if point.role == "candidate" and point.cost is not None]
    pruned = [point for point in found if point.role == "pruned" and point.cost is not None]
    low, high = _window(found, budget)
    others = [point for point in found if point.role in ("base", "reference")]
    traces = [
        _networks(f"pruned at a rung ({len(pruned)})", pruned, metric, hollow=True),
        _networks(f"trained ({len(trained)})", trained, metric, hollow=False),
        _front(trained, high),
        *(_base(point, metric) for point in others if point.role == "base"),
        *(_marked(point, metric, low, high, index) for index, point in enumerate(others) if point.cost is not None),
    ]
    levels = [level(one.accuracy, one.name) for one in others if one.role == "base"]
    levels += [level(budget, f"budget {budget:,}", upright=True)] if budget else []
    return drawn(
        f"Accuracy against {METRICS[metric].label}",
        [trace for trace in traces if trace["x"]],
        axis(METRICS[metric].axis, tickformat="," if metric == "params" else "~s", range=[low, high]),
        accuracy_axis([point.accuracy for point in found], "best validation accuracy"),
        shapes=levels,
        hovermode="closest",
    )


def _window(found: Sequence[Point], budget: int | None) -> tuple[float, float]:
    """Range of the cost axis: candidates, budget, and references within one more span of these."""
    shown = [point.cost for point in found if point.role in ("candidate", "pruned") and point.cost is not None]
    shown += [budget] if budget else []
    others = [point.cost for point in found if point.role in ("base", "reference") and point.cost is not None]
    low, high = min(shown or others, default=0), max(shown or others, default=1)
    span = max(high - low, high / 20)
    near = [one for one in others if low - span <= one <= high + span]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.05 * max(high - low, high / 20)
    return low - margin, high + margin


def _networks(name: str, found: Sequence[Point], metric: str, *, hollow: bool) -> dict[str, Any]:
    many = len(found) > MANY
    look = {"color": CLEAR, "line": {"color": GREY, "width": 1}} if hollow else {"color": TRAINED}
    return {
        "type": "scattergl" if many else "scatter",
        "mode": "markers",
        "name": name,
        "x": [point.cost for point in found],
        "y": [point.accuracy for point in found],
        "customdata": [int(point.name.split()[-1]) for point in found],
        "marker": look | {"size": 5 if many else 8, "opacity": 0.5 if many else 0.85},
        "hovertemplate": f"trial %{{customdata}}<br>%{{y:.2%}}<br>%{{x:,}} {METRICS[metric].axis}<extra></extra>",
    }


def _front(trained: Sequence[Point], high: float) -> dict[str, Any]:
    """Step line of the best accuracy up to each cost."""
    costs = [(point.cost or 0,) for point in trained]
    best = [trained[place] for place in front_indices(costs, [point.accuracy for point in trained])]
    end = best[-1:]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "Pareto front",
        "x": [*(point.cost for point in best), *(high for _ in end)],
        "y": [point.accuracy for point in [*best, *end]],
        "line": {"color": FRONT, "shape": "hv", "width": 2},
        "hoverinfo": "skip",
    }


def _base(base: Point, metric: str) -> dict[str, Any]:
    """Legend entry of the base."""
    told = "" if base.cost is None else f", {base.cost:,} {METRICS[metric].label}"
    name, line = f"{base.name} ({base.accuracy:.2%}{told})", {"color": GREY, "dash": "dash", "width": 1.5}
    return {"type": "scatter", "mode": "lines", "x": [None], "y": [None], "name": name, "line": line}


def _marked(point: Point, metric: str, low: float, high: float, index: int) -> dict[str, Any]:
    """Marker of a reference with its name; beyond an edge it is drawn there with its cost."""
    assert point.cost is not None
    beyond = "right" if point.cost > high else "left" if point.cost < low else None
    name = "" if point.role == "base" else f"{point.name}, {point.cost:,}" if beyond else point.name  # a base has its level
    near_right = beyond == "right" or (not beyond and point.cost - low > 0.7 * (high - low))
    symbol = f"triangle-{beyond}" if beyond else "diamond" if point.role == "base" else "diamond-open"
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": f"{point.name} ({point.accuracy:.2%})",
        "x": [min(max(point.cost, low), high)],
        "y": [point.accuracy],
        "text": [name],
        "textposition": f"{('bottom', 'top')[index % 2]} {'left' if near_right else 'right'}",  # neighbours not alike
        "textfont": {"color": GREY, "size": 12},
        "marker": {"symbol": symbol, "color": GREY, "size": 11},
        "cliponaxis": False,
        "showlegend": False,
        "hovertemplate": f"{point.name}<br>%{{y:.2%}}<br>{point.cost:,} {METRICS[metric].axis}<extra></extra>",
    }
