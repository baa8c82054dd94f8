"""Results of the simulated studies as text and as a page of figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from search_contenders import Contender

MARKS = (10, 20, 40, 80)


def text(result: dict[str, Any]) -> str:
    """A table of every cell."""
    lines = []
    for space, model in result["models"].items():
        fit, accuracy = model["cross_validation"], model["accuracy"]
        lines.append(
            f"{space}: {model['networks']} networks, mean {accuracy['mean']:.2%}, sd {accuracy['sd']:.2%}, best "
            f"{accuracy['highest']:.2%}, between seeds {model['seed_sd']:.2%}; model R2 {fit['r2']:.2f} (at most "
            f"{model['largest_possible_r2']:.2f}), rank correlation {fit['spearman']:.2f}"
        )
    lines.append("true accuracy (%) of the best score after N trials; difference from random, paired, 95 % interval")
    previous: tuple[Any, ...] = ()
    for cell in result["cells"]:
        place = cell["space"], cell["budget"], cell["setting"]
        if place != previous:
            lines.append(
                f"-- {cell['space']}, {cell['budget']:,} parameters, setting {cell['setting']}, target {cell['target']:.2%}"
            )
        previous = place
        marks = [mark for mark in MARKS if mark <= len(cell["curve"])]
        scores = " / ".join(f"{100 * cell['curve'][mark - 1][0]:.2f}" for mark in marks)
        differences = " ".join(_difference(cell["against_base"].get(str(mark))) for mark in marks)
        reached = cell["trials_to_target"] or "not"
        lines.append(
            f"{cell['contender']:18} n {cell['seeds']:>3}  {scores:29} {differences}  target after {reached}; "
            f"mean {cell['mean']:.1%}, {cell['params']:,.0f} params, {cell['ms']:.0f} ms"
        )
    return "\n".join(lines)


def _difference(difference: dict[str, float] | None) -> str:
    if difference is None:
        return "[]"
    values = [100 * (difference[key] or 0.0) for key in ("difference", "low", "high")]
    return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*values)


def page(result: dict[str, Any], contenders: Sequence[Contender]) -> str:
    """Curves of all contenders: a column for each budget, a row for each space and setting."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    rows = sorted({(cell["space"], cell["setting"]) for cell in result["cells"]})
    budgets = sorted({cell["budget"] for cell in result["cells"]})
    titles = [f"{space}, {setting}, under {budget:,}" for space, setting in rows for budget in budgets]
    figure = make_subplots(len(rows), len(budgets), subplot_titles=titles, horizontal_spacing=0.04, vertical_spacing=0.08)
    shown = set[str]()
    for cell in result["cells"]:
        contender = next(contender for contender in contenders if contender.name == cell["contender"])
        row, column = rows.index((cell["space"], cell["setting"])) + 1, budgets.index(cell["budget"]) + 1
        mean, low, high = zip(*cell["curve"], strict=True)
        numbers = list(range(1, len(mean) + 1))
        shared = {"legendgroup": contender.name, "name": contender.name, "mode": "lines"}
        band = {"x": [*numbers, *reversed(numbers)], "y": [*high, *reversed(low)], "fill": "toself", "hoverinfo": "skip"}
        figure.add_trace(
            go.Scatter(**shared, **band, fillcolor=contender.colour, opacity=0.12, line={"width": 0}, showlegend=False),
            row,
            column,
        )
        line = {"color": contender.colour, "dash": contender.dash}
        is_first = contender.name not in shown
        figure.add_trace(go.Scatter(**shared, x=numbers, y=mean, line=line, showlegend=is_first), row, column)
        shown.add(contender.name)
    figure.update_yaxes(tickformat=".1%")
    figure.update_layout(
        title="True accuracy of the best score over trained trials, mean of seeds with 95 % intervals",
        legend={"orientation": "h", "y": -0.05},
        template="plotly_white",
        height=380 * len(rows),
    )
    return str(figure.to_html(include_plotlyjs="cdn"))
