"""Markdown building blocks: escaping, tables, layer tables, shared phrases."""

from __future__ import annotations

import re
from collections.abc import Iterable

from report.tables import Table
from search.budget.summary import LayerRow, layer_rows
from search.networks.architecture import Architecture
from search.study.config import StudyConfig

BEYOND = " \\*"  # marks a receptive field that exceeds the image


def layer_table(architecture: Architecture) -> str:
    """Layer table of a network; receptive fields beyond the image are marked.

    Raises:
        ArchitectureError: the network cannot exist, see `search.networks.geometry.resolve`.
    """
    rows = layer_rows(architecture)
    lines = ["| layer | options | output | receptive field | params |", "|:--|:--|--:|--:|--:|"]
    lines += [f"| {' | '.join(layer_cells(row))} |" for row in rows]
    if any(row.exceeds_image for row in rows):
        side = max(architecture.input[:2])
        lines += ["", f"\\* the receptive field exceeds the image ({side}x{side}): such a value sees all of it and padding"]
    return "\n".join(lines)


def layer_cells(row: LayerRow) -> tuple[str, str, str, str, str]:
    """Cells of a Markdown table: layer, options, output shape, receptive field, parameters."""
    return (
        "· " * len(row.path) + escaped(row.name),
        escaped(row.options),
        row.output_text,
        row.field_text(BEYOND),
        f"{row.params:,}" if row.params else "",
    )


def protocol_words(config: StudyConfig) -> str:
    """Sentence on the images that accuracies are measured on, and the resulting bias."""
    if config.protocol == "course":
        return (
            f"{config.measure} is measured on the test images"
            + (
                ", as in the published logs, so that numbers can be laid beside theirs"
                if config.data.name == "cifar10"
                else ""
            )
            + ". It flatters: the best of many trainings and epochs is picked on those very images."
        )
    return (
        f"{config.measure} is measured on images held out from training; only finals read the test images. "
        "The best of many trainings and epochs is picked on the held-out images, so the best figure flatters a little."
    )


def against_base(delta: float) -> str:
    """Difference of accuracies as text, such as `0.56 points above the base`."""
    if not delta:
        return "level with the base"
    return f"{100 * abs(delta):.2f} points {'above' if delta > 0 else 'below'} the base"


def escaped(text: object) -> str:
    """Escape text for one line of Markdown, also inside a table."""
    return re.sub(r"[\\`*{}\[\]<>|#$~&]|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(str(text).split()))


def table(columns: Iterable[str], rows: Iterable[Iterable[str]], align: str = "--:") -> str:
    """Markdown table of cells; all columns but the first are aligned right."""
    lines = [tuple(columns), *(tuple(row) for row in rows)]
    lines.insert(1, (":--", *[align] * (len(lines[0]) - 1)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown(cells: Table, align: str = "--:") -> str:
    """Markdown table of plain cells, which are escaped."""
    return table(map(escaped, cells.columns), (map(escaped, row) for row in cells.rows), align)
