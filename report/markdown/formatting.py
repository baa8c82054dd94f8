"""Markdown building blocks: escaping, tables, layer tables, shared phrases."""

from __future__ import annotations

import re
from collections.abc import Iterable

from report.tables import Table
from search.budget.cost import compute_layer_cost
from search.networks.architecture import Architecture
from search.networks.geometry import flatten, resolve
from search.networks.layers import describe
from search.study.config import StudyConfig

BEYOND = " \\*"  # marks a receptive field that exceeds the image


def layer_table(architecture: Architecture) -> str:
    """Layer table of a network; receptive fields beyond the image are marked.

    Raises:
        ArchitectureError: the network cannot exist, see `search.networks.geometry.resolve`.
    """
    rows = layer_rows(architecture)
    lines = ["| layer | options | output | receptive field | params |", "|:--|:--|--:|--:|--:|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    if any(BEYOND in row[3] for row in rows):
        side = max(architecture.input[:2])
        lines += ["", f"\\* the receptive field exceeds the image ({side}x{side}): such a value sees all of it and padding"]
    return "\n".join(lines)


def layer_rows(architecture: Architecture) -> list[tuple[str, str, str, str, str]]:
    """(layer, options, output size, receptive field, parameters) of each layer, as cells of a Markdown table."""
    side, rows = max(architecture.input[:2]), []
    for depth, row in flatten(resolve(architecture)):
        field, params = row.receptive_field, compute_layer_cost(row).params
        rows.append(
            (
                "· " * depth + escaped(row.name),
                escaped(describe(row.layer)),
                "x".join(map(str, row.output)),
                "" if field is None else f"{field}x{field}{BEYOND if field > side else ''}",
                f"{params:,}" if params else "",
            )
        )
    return rows


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
        f"{config.measure} is measured on images held out from training; the test images are not looked at. "
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


def markdown(one: Table, align: str = "--:") -> str:
    """Markdown table of plain cells, which are escaped."""
    return table(map(escaped, one.columns), (map(escaped, row) for row in one.rows), align)
