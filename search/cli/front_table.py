"""Shows the Pareto front of a study, and what an export of it left behind."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from report import tables
from report.pareto import Front, front_table, front_words
from report.pareto_export import INDEX, WORDS, Taken


def print_front(console: Console, front: Front) -> None:
    """The front as a table, by rising price."""
    title, cells = f"{front['study']}: the front of accuracy against {', '.join(front['prices'])}", front_table(front)
    styles = ["" if row[0] else "bold" if row[1] == "base" else "dim" for row in cells.rows]
    _print(console, cells, title, styles, left="trial")
    _say(console, front_words(front))


def print_taken(console: Console, taken: Taken, folder: Path) -> None:
    """The exported networks as a table, and what is to be known of them."""
    _print(console, taken.table, f"{folder}", [""] * len(taken.table.rows), left="")
    _say(console, f"Told in {INDEX} and {WORDS} there; each network is in a folder of its own.")
    if taken.left:
        _say(console, f"Of an earlier export, on the front no more: {', '.join(taken.left)}.")


def _print(console: Console, cells: tables.Table, title: str, styles: list[str], left: str) -> None:
    table = Table(title=Text(title), title_justify="left")
    for column in cells.columns:
        table.add_column(column, justify="left" if column == left else "right")
    for row, style in zip(cells.rows, styles, strict=True):
        table.add_row(*map(Text, row), style=style)
    console.print(table)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
