"""Terminal table of a network, in sections of equal map size, with bars for shares of parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from search.budget.cost import Cost, compute_cost
from search.budget.metrics import METRICS
from search.budget.summary import LayerRow, layer_rows
from search.networks.architecture import Architecture
from search.networks.layers import BatchNorm, Conv, Residual, SeparableConv, SpatialSeparableConv
from search.text import format_field, format_share

_EIGHTHS = "▏▎▍▌▋▊▉█"


class _Signs(NamedTuple):
    """Characters for branches and bars."""

    branch: str
    shortcut: str
    sum: str
    eighths: str


_DRAWN = _Signs("│ ", "┊ ", "╰ ", _EIGHTHS)
_ASCII = _Signs("| ", ": ", "+ ", "#")  # where the terminal has no more


def print_network(console: Console, architecture: Architecture, int8: Mapping[str, Any] | None = None) -> None:
    """Print a network layer by layer; receptive fields larger than the image are marked.

    Args:
        int8: costs of its int8 form, see `search.budget.summary.summarize`; None leaves them out.

    Raises:
        ArchitectureError: the network cannot exist, see `search.networks.geometry.resolve`.
    """
    rows, total = layer_rows(architecture), compute_cost(architecture)
    full = _table(console, rows, total, brief=False)
    table = full if _measured(console, full).maximum <= console.width else _table(console, rows, total, brief=True)
    console.print(_headline(architecture, total), highlight=False)
    usual, least = console.width, _measured(console, table).minimum
    console.width = max(usual, least)  # a narrower terminal breaks the lines itself, and nothing is lost
    console.print(table)
    console.width = usual
    if int8:
        console.print(_int8_words(int8), highlight=False)
    if any(row.exceeds_image for row in rows):
        side = max(architecture.input[:2])
        console.print(f"* the receptive field exceeds the image ({side}x{side}): these layers see all of it and padding")


def _int8_words(int8: Mapping[str, Any]) -> str:
    """Costs on a microcontroller, and the causes of avoidable ones."""
    costs = ", ".join(f"{int8[name]:,} {metric.label}" for name, metric in METRICS.items() if metric.is_int8)
    text = f"in int8: {costs} (TensorFlow Lite Micro)"
    if int8["unfolded"]:
        text += (
            f"\n{len(int8['unfolded'])} batch norms do not fold into a convolution and stay as an operator each, as they do "
            "not stand right behind one (conv-bn-act folds, conv-act-bn does not)"
        )
    if int8["without_kernel"]:
        text += f"\n{', '.join(int8['without_kernel'])}: no int8 kernel in TensorFlow Lite Micro, as relu and silu have"
    return text


def _measured(console: Console, table: Table) -> Measurement:
    """Width of the table, independent of that of the terminal."""
    return Measurement.get(console, console.options.update(max_width=10_000), table)


def _table(console: Console, rows: Sequence[LayerRow], total: Cost, *, brief: bool) -> Table:
    """`brief` omits options that other columns show, and rounds multiply-adds to three digits."""
    signs, letters = (_ASCII if console.options.ascii_only else _DRAWN), 4 if brief else 8
    largest = max(row.params for row in rows)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("layer", no_wrap=True, min_width=max(len(_lead(row, signs) + row.name) for row in rows))
    table.add_column("", overflow="fold", min_width=9)
    for column in ("output", "field" if brief else "receptive field", "params"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("share", no_wrap=True, min_width=letters + 1 + len(_percent(largest, total.params)))
    table.add_column("macs" if brief else "multiply-adds", justify="right", no_wrap=True)
    for index, row in enumerate(rows):
        if row.is_resized and index:
            table.add_section()
        bar = _bar(row.params / largest, letters, signs.eighths) + " " if row.params else ""
        is_prominent = row.params or isinstance(row.layer, Residual)
        table.add_row(
            Text(_lead(row, signs), style="dim") + Text(row.name, style="" if is_prominent else "dim"),
            Text(_brief(row) if brief else row.options),
            Text(row.output_text, style="bold" if row.is_resized else "dim"),
            Text(row.field_text("*"), style="yellow" if row.exceeds_image else ""),
            f"{row.params:,}" if row.params else "",
            Text.assemble((bar, "cyan"), (_percent(row.params, total.params), "dim")),
            (_short(row.macs) if brief else f"{row.macs:,}") if row.macs else "",
        )
    return table


def _brief(row: LayerRow) -> str:
    match row.layer:
        case SeparableConv() | SpatialSeparableConv() | Conv():
            return row.options.split(", ", 1)[1]  # the filters are in the output's shape
        case BatchNorm(momentum=0.99, epsilon=1e-3) | Residual():
            return ""
        case _:
            return row.options


def _lead(row: LayerRow, signs: _Signs) -> str:
    """Lines of the residuals around a layer, before its name."""
    lead = "".join(signs.branch if side == "branch" else signs.shortcut for side in row.path)
    return lead + signs.sum if isinstance(row.layer, Residual) else lead


def _bar(share: float, width: int, eighths: str) -> str:
    """A bar of at most `width` letters, and at least one eighth of a letter for a positive share."""
    steps = math.ceil(share * width * len(eighths))
    whole, rest = divmod(steps, len(eighths))
    return eighths[-1] * whole + (eighths[rest - 1] if rest else "")


def _percent(value: int, whole: int) -> str:
    return format_share(value, whole).replace(" ", "") if value else ""


def _short(macs: int) -> str:
    """A count in three digits: `1.34M`."""
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if macs >= 0.9995 * unit:
            return f"{macs / unit:.3g}{letter}" if macs < 999.5 * unit else f"{macs / unit:,.0f}{letter}"
    return str(macs)


def _headline(architecture: Architecture, total: Cost) -> str:
    name = "".join(letter if letter.isprintable() else " " for letter in architecture.name).strip()
    return (
        f"{name or 'network'}: {total.params:,} parameters ({total.trainable_params:,} trained), "
        f"{total.macs:,} multiply-adds, receptive field {format_field(total.receptive_field) or 'none'}"
    )
