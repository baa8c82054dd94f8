"""Terminal output and JSON of an import: the network, the rules of a task that it meets, remarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.budget.summary import summarize
from search.cli.network_table import print_network
from search.keras_import.advice import Finding
from search.keras_import.convert import Imported


def print_import(console: Console, imported: Imported, findings: Sequence[Finding]) -> None:
    """Print the network if it was read whole, then each rule with its edits, then layers read as others or left out."""
    if imported.architecture and not imported.problems:
        print_network(console, imported.architecture)
        console.print()
    grid = Table.grid(padding=(0, 2, 0, 0))
    for column in range(3):
        grid.add_column(no_wrap=column < 2, overflow="fold")
    for finding in findings:
        sign = Text("ok", style="green") if finding.holds else Text("no", style="bold red")
        grid.add_row(sign, finding.rule, Text(finding.words))
        for edit in finding.edits:
            grid.add_row("", "", Text(f"- {edit}"))
    console.print(grid)
    if imported.problems and len(findings) > 1:
        console.print("The other rules are judged as if what is listed under the first were mended so.")
    elif imported.problems:
        console.print("The other rules can be judged once this is mended.")
    for words in imported.read_as:
        console.print(Text(f"Read {words}."))
    for why, layers in imported.left_out.items():
        option, is_option, reason = why.partition(": ")
        if is_option:
            console.print(Text(f"Imported without {option} ({reason}): {', '.join(layers)}."))
        else:
            console.print(Text(f"Left out: {', '.join(layers)} ({why})."))


def to_json(imported: Imported, findings: Sequence[Finding]) -> dict[str, Any]:
    """The import as plain values; `network` is None if a layer is not known."""
    known = imported.architecture if not imported.problems else None
    return {
        "network": summarize(known) if known else None,
        "rules": [{"rule": one.rule, "holds": one.holds, "found": one.words, "edits": list(one.edits)} for one in findings],
        "read_as": list(imported.read_as),
        "left_out": {why: list(layers) for why, layers in imported.left_out.items()},
    }
