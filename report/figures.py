"""The learning curves of a study: first as plain rows, then drawn with plotly.

The dashboard shows a figure on its own background, light or dark, which the figure cannot know: backgrounds are left
transparent, text and grid are a grey that reads on both, and no colour is near to white or black.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from plotly.graph_objects import Figure

from search.study import Record, Run, base_accuracy, ranked

# Okabe and Ito, "Color Universal Design", 2008, without its black and its yellow; the best candidate takes the first.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#888888"
DECIMALS = 4  # of an accuracy: a hundredth of a percent


@dataclass(frozen=True)
class Curve:
    """Validation accuracies (fractions) of epochs 1, 2, ... under one name."""

    name: str
    role: Literal["base", "reference", "candidate"]
    accuracies: tuple[float, ...]


def curves(run: Run, candidates: list[Record], references: list[Record], top: int = 5) -> list[Curve]:
    """What is drawn: the base first, then the best candidates by rank, then the other references.

    A base that is a plain accuracy has no curve: its level is drawn over the epochs of the recipe.
    """
    networks = {record.reference or "": _rounded(record.curve) for record in reversed(ranked(references))}
    base, level = run.config.base_name, base_accuracy(run.config, references)
    found = []
    if base in networks:
        found.append(Curve(base if base == "base" else f"base {base}", "base", networks.pop(base)))
    elif level is not None:
        found.append(Curve("accuracy to beat", "base", _rounded([level] * max(run.config.recipe.epochs, 2))))
    best = ranked(candidates)[:top]
    found += [Curve(f"trial {record.number}", "candidate", _rounded(record.curve)) for record in best]
    return found + [Curve(name, "reference", accuracies) for name, accuracies in networks.items()]


def learning_curves(run: Run, candidates: list[Record], references: list[Record], top: int = 5) -> Figure:
    """Validation accuracy by epoch: the base dashed, the best candidates in colour, other references dotted."""
    return _draw(curves(run, candidates, references, top))


def _draw(rows: Sequence[Curve]) -> Figure:
    epochs = max((len(row.accuracies) for row in rows), default=1)
    colours = iter(COLOURS * (1 + len(rows) // len(COLOURS)))
    traces = [_trace(row, next(colours) if row.role == "candidate" else GREY) for row in rows]
    return Figure(
        data=traces,
        layout={
            "template": "none",  # the default one is 7 kB of JSON, in a database row of every study
            "title": {"text": "Learning curves", "font": {"size": 18}, "x": 0.02},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": GREY, "size": 13},
            "xaxis": _axis("epoch") | {"tick0": 0 if epochs > 10 else 1, "dtick": max(1, -(-epochs // 10))},
            "yaxis": _axis("validation accuracy") | {"tickformat": ".0%" if _spread(rows) > 0.1 else ".1%"},
            "legend": {"orientation": "h", "y": -0.2, "yanchor": "top"},
            "margin": {"l": 70, "r": 20, "t": 60, "b": 60},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": COLOURS[0]},
            "hovermode": "x unified",
            "hoverlabel": {"bgcolor": "#f5f5f5", "font": {"color": "#202020"}},
        },
    )


def _trace(row: Curve, colour: str) -> dict[str, Any]:
    dash = {"base": "dash", "reference": "dot", "candidate": "solid"}[row.role]
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(row.accuracies) == 1 else "lines",
        "name": f"{row.name} ({max(row.accuracies, default=0):.2%})",
        "x": list(range(1, len(row.accuracies) + 1)),
        "y": list(row.accuracies),
        "line": {"color": colour, "dash": dash, "width": 3 if row.role == "base" else 2},
        "hovertemplate": "%{y:.2%}",
    }


def _axis(title: str) -> dict[str, Any]:
    grid = "rgba(128,128,128,0.25)"
    return {"title": {"text": title}, "gridcolor": grid, "zeroline": False, "automargin": True}


def _rounded(accuracies: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(accuracy, DECIMALS) for accuracy in accuracies)


def _spread(rows: Sequence[Curve]) -> float:
    values = [value for row in rows for value in row.accuracies]
    return max(values) - min(values) if values else 1.0
