"""Figure of the proposals rejected before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plotly.graph_objects import Figure

from report.colours import COLOURS, GREY
from report.figures import data as rows
from report.figures.data import REJECTED, Refusals, Size
from report.figures.style import TRAINED, count_axis, drawn, level, line_entry, log_axis
from report.tables import thinned
from search.study.records import Record
from search.study.run import Run

RULES = {"over budget": COLOURS[0], "same network": COLOURS[3], "cannot exist": COLOURS[2], REJECTED: COLOURS[5]}
LIMIT, SHAPES = COLOURS[4], ("", "/", "x", ".", "-")  # for proposals over another limit of the budget
SIZES = 600  # most points of rejected proposals and of candidates


def refusals(run: Run, candidates: list[Record]) -> Figure | None:
    """Draw rejected proposals over the trials, by rule and by size; None if there are none."""
    groups, sizes, trained = rows.refusals(candidates), rows.refused_sizes(candidates), rows.sizes(candidates)
    seen = {rule for group in groups for rule in group.by_rule}
    if not seen:
        return None
    limits = sorted(seen - RULES.keys())  # of the budget, beside parameters
    looks: dict[str, dict[str, Any]] = {rule: {"color": RULES[rule]} for rule in RULES if rule in seen}
    for place, rule in enumerate(limits):
        looks[rule] = {"color": LIMIT, "pattern": {"shape": SHAPES[place % len(SHAPES)]}}
    budget, last = run.config.budget.params, groups[-1].last
    bars = [_bars(rule, groups, look) for rule, look in looks.items()]
    trials = count_axis("trial number", last) | {"range": [-0.5, last + 0.5]}
    width = groups[0].last - groups[0].first + 1
    unit = "proposals per trial" if width == 1 else f"proposals per {width} trials"
    proposals = count_axis(unit, max(sum(group.by_rule.values()) for group in groups))
    if not sizes:
        return drawn("Rejected before training", bars, trials, proposals, barmode="stack", bargap=0.15)
    below = [
        _sizes("rejected", sizes, "x-thin", RULES["over budget"]),
        _sizes("trained", trained, "circle", TRAINED),
        line_entry(f"budget: {run.config.budget.bound('params')}", {"color": GREY, "dash": "dash", "width": 1.5}),
    ]
    return drawn(
        "Rejected before training",
        [*bars, *below],
        trials | {"anchor": "y2"},
        proposals | {"domain": [0.6, 1]},
        yaxis2=log_axis("parameters", [budget, *(size.params for size in [*sizes, *trained])], domain=[0, 0.5]),
        shapes=[level(budget, "", yref="y2")],
        barmode="stack",
        bargap=0.15,
    )


def _bars(rule: str, groups: Sequence[Refusals], look: Mapping[str, Any]) -> dict[str, Any]:
    width = groups[0].last - groups[0].first + 1
    total = sum(group.by_rule.get(rule, 0) for group in groups)
    spans = [f"trial {one.first}" if width == 1 else f"trials {one.first} to {one.last}" for one in groups]
    return {
        "type": "bar",
        "name": f"{rule} ({total:,})",
        "x": [(group.first + group.last) / 2 for group in groups],
        "y": [group.by_rule.get(rule, 0) for group in groups],
        "width": 0.85 * width,
        "marker": {**look, "line": {"width": 0}},
        "customdata": spans,
        "hovertemplate": f"%{{customdata}}: %{{y:,}} {rule}<extra></extra>",
    }


def _sizes(name: str, found: Sequence[Size], symbol: str, colour: str) -> dict[str, Any]:
    shown = thinned(found, SIZES)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"{name}, by size",
        "x": [size.trial for size in shown],
        "y": [size.params for size in shown],
        "yaxis": "y2",
        "marker": {
            "symbol": symbol,
            "size": 6 if len(shown) < SIZES else 4,
            "color": colour,
            "line": {"color": colour, "width": 1},
        },
        "hovertemplate": f"trial %{{x}}: %{{y:,}} parameters, {name}<extra></extra>",
    }
