"""What an import read, how the network stands to the rules of a task, and the architecture file that comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.budget.cost import table
from search.cli.network_table import print_network
from search.errors import UserError
from search.files import write_text
from search.keras_import.advice import Finding
from search.keras_import.convert import Imported
from search.networks.architecture import to_json as architecture_text
from search.study.config import safe_name


def print_import(console: Console, imported: Imported, findings: Sequence[Finding]) -> None:
    """The network layer by layer where it could be read, then every rule with its edits, then what was left out."""
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
        console.print(Text(f"Left out: {', '.join(layers)} ({why})."))


def write_architecture(imported: Imported, model: Path, to: Path | None, *, nearest: bool, replace: bool) -> Path:
    """Write the architecture file, by default NAME.json in the current folder.

    Args:
        nearest: write the network with the edits made, where it holds what no architecture file can.
        replace: write over a file that is there and holds something else.

    Raises:
        UserError: not all of the model is known, or the file is there or cannot be written.
    """
    mended = all(problem.mended for problem in imported.problems)
    if imported.architecture is None or (imported.problems and not (nearest and mended)):
        hint = ", or take the nearest network with --nearest" if imported.architecture and mended else ""
        raise UserError(f"{model}: nothing was written, as not all of it is known here; mend what is listed above{hint}")
    path = to or Path(f"{safe_name(model.stem)}.json")
    if to is None and path.resolve() == model.resolve():
        path = Path(f"{safe_name(model.stem)}-architecture.json")
    if path.suffix.lower() != ".json":
        raise UserError(f"{path}: --to writes an architecture file; call it {path.stem}.json")
    text = architecture_text(imported.architecture)
    try:
        there = path.read_text(encoding="utf-8", errors="replace") if path.exists() else text
        if there != text and not replace:
            raise UserError(f"{path}: is there already and holds something else; pass another --to, or --replace")
        write_text(path, text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); pass another --to") from None
    return path


def to_json(imported: Imported, findings: Sequence[Finding]) -> dict[str, Any]:
    """The same as plain values; `network` is null where not all of it is known."""
    known = imported.architecture if not imported.problems else None
    return {
        "network": table(known) if known else None,
        "rules": [{"rule": one.rule, "holds": one.holds, "found": one.words, "edits": list(one.edits)} for one in findings],
        "read_as": list(imported.read_as),
        "left_out": {why: list(layers) for why, layers in imported.left_out.items()},
    }
