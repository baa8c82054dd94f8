"""Markdown building blocks: escaping, tables, layer tables, shared phrases."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from report.tables import Table
from search.budget.summary import LayerRow, layer_rows
from search.finals.results import FinalsResult
from search.networks.architecture import Architecture
from search.study.config import ROOT, StudyConfig, flat
from search.study.run import Run
from search.text import format_time
from search.training.measures import ACCURACY

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


def protocol_words(config: StudyConfig, finals: FinalsResult | None = None) -> str:
    """Sentences on the images that accuracies are measured on, the resulting bias, and the reading of the test images.

    Args:
        finals: their results; None if there are none.
    """
    if config.protocol == "course":
        return (
            f"{config.measure} is measured on the test images"
            + (
                ", as in the published logs, so that numbers can be laid beside theirs"
                if config.data.name == "cifar10" and config.search.metric == ACCURACY
                else ""
            )
            + ". It flatters: the best of many trainings and epochs is picked on those very images."
        )
    read = "only finals read the test images, and there are none yet"
    if finals is not None:
        times = " and ".join(map(format_time, finals.test_read))
        read = f"the finals read the test images at {times}" if times else "no finals have read the test images"
    return (
        f"{config.measure} is measured on images held out from training; {read}. "
        "The best of many trainings and epochs is picked on the held-out images, so the best figure flatters a little."
    )


def without_paths(text: str, run: Run) -> str:
    """The text with absolute paths of this machine replaced by the names of their files: pages are shared.

    Paths are those of the study file, the run folder and the configuration; below the checkout they become relative to it.
    """
    settings = list[str]()
    for key, value in flat(run.config.dump()):
        if key != "data.group":
            listed = value if isinstance(value, list) else [value]
            settings += [entry for entry in listed if isinstance(entry, str)]
    known = settings + shlex.split(run.called)
    paths = {path for path in (*known, str(run.folder)) if Path(path).is_absolute() and Path(path).name}
    text = text.replace(f"{ROOT}{os.sep}", "")  # commands are typed there
    for path in sorted(paths, key=len, reverse=True):
        is_other_run = path in settings and Path(path).name == "run"  # most run folders are called so
        text = text.replace(path, "/".join(Path(path).parts[-2:]) if is_other_run else Path(path).name)
    return text


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
