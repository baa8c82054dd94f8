"""The table of a network in the terminal: parted where the size of its maps changes, with bars for shares of parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from search.budget.cost import Cost, compute_layer_cost, compute_resolved_cost
from search.networks.architecture import Architecture
from search.networks.geometry import Resolved, resolve
from search.networks.layers import BatchNorm, Conv, Layer, Residual, SeparableConv, SpatialSeparableConv, describe

_EIGHTHS = "▏▎▍▌▋▊▉█"


class _Signs(NamedTuple):
    """How branches and bars are drawn."""

    branch: str
    shortcut: str
    sum: str
    eighths: str


_DRAWN = _Signs("│ ", "┊ ", "╰ ", _EIGHTHS)
_ASCII = _Signs("| ", ": ", "+ ", "#")  # where the terminal has no more


def print_network(console: Console, architecture: Architecture, int8: Mapping[str, Any] | None = None) -> None:
    """A network layer by layer; a receptive field that exceeds the image is marked.

    Args:
        int8: what its int8 form takes, as `search.budget.cost.table` tells it; None leaves that out.

    Raises:
        ArchitectureError: the network cannot exist, see `search.networks.geometry.resolve`.
    """
    resolved = resolve(architecture)
    total, side = compute_resolved_cost(resolved), max(architecture.input[:2])
    rows = list(_rows(resolved, _ASCII if console.options.ascii_only else _DRAWN))
    full = _table(console, rows, total, side, brief=False)
    table = full if _measured(console, full).maximum <= console.width else _table(console, rows, total, side, brief=True)
    console.print(_headline(architecture, total), highlight=False)
    usual, least = console.width, _measured(console, table).minimum
    console.width = max(usual, least)  # a narrower terminal breaks the lines itself, and nothing is lost
    console.print(table)
    console.width = usual
    if int8:
        console.print(_int8_words(int8), highlight=False)
    if any(row.receptive_field is not None and row.receptive_field > side for _, row in rows):
        console.print(f"* the receptive field exceeds the image ({side}x{side}): these layers see all of it and padding")


def _int8_words(int8: Mapping[str, Any]) -> str:
    """What it takes on a microcontroller, and what of it does so needlessly."""
    told = (
        f"in int8: {int8['flash_bytes']:,} bytes of flash, {int8['peak_activation_bytes']:,} of activations at once, "
        f"{int8['arena_bytes']:,} of arena (TensorFlow Lite Micro)"
    )
    if int8["unfolded"]:
        told += (
            f"\n{len(int8['unfolded'])} batch norms do not fold into a convolution and stay as an operator each, as they do "
            "not stand right behind one (conv-bn-act folds, conv-act-bn does not)"
        )
    if int8["without_kernel"]:
        told += f"\n{', '.join(int8['without_kernel'])}: no int8 kernel in TensorFlow Lite Micro, as relu and silu have"
    return told


def _measured(console: Console, table: Table) -> Measurement:
    """What the table needs, however narrow the terminal is."""
    return Measurement.get(console, console.options.update(max_width=10_000), table)


def _table(console: Console, rows: Sequence[tuple[str, Resolved]], total: Cost, side: int, *, brief: bool) -> Table:
    """`brief` leaves out what other columns tell, and rounds multiply-adds to three digits."""
    signs, letters = (_ASCII if console.options.ascii_only else _DRAWN), 4 if brief else 8
    largest = max(compute_layer_cost(row).params for _, row in rows)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("layer", no_wrap=True, min_width=max(len(lead + row.name) for lead, row in rows))
    table.add_column("", overflow="fold", min_width=9)
    for column in ("output", "field" if brief else "receptive field", "params"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("share", no_wrap=True, min_width=letters + 1 + len(_percent(largest, total.params)))
    table.add_column("macs" if brief else "multiply-adds", justify="right", no_wrap=True)
    before = None
    for lead, row in rows:
        field, cost, begins = row.receptive_field, compute_layer_cost(row), row.output[:-1] != before
        if begins and before is not None:
            table.add_section()
        before = row.output[:-1]
        beyond = field is not None and field > side
        bar = _bar(cost.params / largest, letters, signs.eighths) + " " if cost.params else ""
        table.add_row(
            Text(lead, style="dim") + Text(row.name, style="" if cost.params or isinstance(row.layer, Residual) else "dim"),
            Text(_brief(row.layer) if brief else describe(row.layer)),
            Text("x".join(map(str, row.output)), style="bold" if begins else "dim"),
            Text("" if field is None else f"{field}x{field}{'*' if beyond else ''}", style="yellow" if beyond else ""),
            f"{cost.params:,}" if cost.params else "",
            Text.assemble((bar, "cyan"), (_percent(cost.params, total.params), "dim")),
            (_short(cost.macs) if brief else f"{cost.macs:,}") if cost.macs else "",
        )
    return table


def _brief(layer: Layer) -> str:
    match layer:
        case SeparableConv() | SpatialSeparableConv() | Conv():
            return describe(layer).split(", ", 1)[1]  # the output tells the filters
        case BatchNorm(momentum=0.99, epsilon=1e-3) | Residual():
            return ""
        case _:
            return describe(layer)


def _rows(resolved: tuple[Resolved, ...], signs: _Signs, lead: str = "") -> Iterator[tuple[str, Resolved]]:
    """(what stands before its name, layer) for every layer, those inside residuals before the sum that closes them."""
    for row in resolved:
        yield from _rows(row.branch, signs, lead + signs.branch)
        yield from _rows(row.shortcut, signs, lead + signs.shortcut)
        yield (lead + signs.sum if isinstance(row.layer, Residual) else lead), row


def _bar(share: float, width: int, eighths: str) -> str:
    """A bar of at most `width` letters; something is never shown as nothing."""
    steps = math.ceil(share * width * len(eighths))
    whole, rest = divmod(steps, len(eighths))
    return eighths[-1] * whole + (eighths[rest - 1] if rest else "")


def _percent(value: int, whole: int) -> str:
    return "" if not value else f"{round(100 * value / whole)}%" if round(100 * value / whole) else "<1%"


def _short(macs: int) -> str:
    """Three digits: `1.34M`."""
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if macs >= 0.9995 * unit:
            return f"{macs / unit:.3g}{letter}" if macs < 999.5 * unit else f"{macs / unit:,.0f}{letter}"
    return str(macs)


def _headline(architecture: Architecture, total: Cost) -> str:
    name = "".join(letter if letter.isprintable() else " " for letter in architecture.name).strip()
    field = total.receptive_field
    return (
        f"{name or 'network'}: {total.params:,} parameters ({total.trainable_params:,} trained), "
        f"{total.macs:,} multiply-adds, receptive field {'none' if field is None else f'{field}x{field}'}"
    )
