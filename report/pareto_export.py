"""Export of the Pareto front of a study: each of its networks in a folder of its own, and an index.

DIR/front.json      what `top --json --pareto --device` prints, with the folder of each network, its files and their facts
DIR/front.md        the same as a table, and a card of each network on the device
DIR/trial-7/...     one export, as of a single network
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report.device import card_lines, device_board
from report.markdown.formatting import escaped, markdown, protocol_words
from report.pareto import Front, front_board, front_words
from report.tables import Table, measure_of
from search.errors import UserError
from search.export.exporter import Exported
from search.files import read_json, write_json, write_text
from search.study import trained as winner
from search.study.records import records
from search.study.run import Opened, Run, best, load
from search.study.trained import Trained
from search.text import format_percent
from search.training.measures import ACCURACY

INDEX, WORDS = "front.json", "front.md"
FOLDER = "front"  # in the run folder, if no other is asked for

Write = Callable[[Trained, Path], Exported]  # exports one network into a folder


@dataclass(frozen=True)
class ExportedFront:
    """The result of exporting a front."""

    index: Mapping[str, Any]  # the content of front.json
    table: Table
    outdated: tuple[str, ...]  # folders of an earlier export whose networks are no longer on the front

    @property
    def failures(self) -> list[tuple[str, str]]:
        """(trial or its format, reason) of everything that could not be exported."""
        trials = [(f"trial {number}", reason) for number, reason in self.index["failed"].items()]
        formats = [
            (f"trial {row['number']}, {name}", reason)
            for row in self.index["trials"]
            for name, reason in row.get("failed", {}).items()
        ]
        return [*trials, *formats]


def export_front(run: Run, metrics: Sequence[str], folder: Path, write: Write, device: str | None = None) -> ExportedFront:
    """Export every network of the front; one that fails is named in the index, and the others are exported.

    Args:
        device: microcontroller of the cards, a chip or a profile; None for that of the budget, if it names one.

    Raises:
        UserError: nothing has been trained, the files of a network are not in the run folder, or none could be exported.
    """
    studies = load(run)
    study = Opened(run, records(studies.candidates), records(studies.references))
    best(run, study.candidates)  # raises if nothing has been trained
    front = front_board(study, metrics, studies)
    numbers = [row["number"] for row in front["trials"]]
    if gone := [str(number) for number in numbers if not winner.is_here(run, number)]:
        raise UserError(
            f"{run.folder}: has no weights of trial {', '.join(gone)}, trained on another machine: export there, or share a "
            "run folder with --out"
        )
    exported, failed = dict[int, Exported](), dict[str, str]()
    for number in numbers:
        try:
            result = write(winner.candidate(run, number, studies), folder / f"trial-{number}")
        except Exception as error:
            failed[str(number)] = _reason(error)
            continue
        if result.paths:
            exported[number] = result
        else:
            failed[str(number)] = "; ".join(f"{name}: {reason}" for name, reason in result.failed.items())
    if not exported:
        number, reason = next(iter(failed.items()))
        raise UserError(f"trial {number}: {reason}")
    earlier = _folders(folder / INDEX)
    floats = {record.number: record.float_val_accuracy for record in study.candidates}
    rows = [
        row | _ranking(floats[row["number"]]) | _files(exported[row["number"]], row["number"])
        for row in front["trials"]
        if row["number"] in exported
    ]
    index = {**front, "protocol": run.config.protocol, "trials": rows, "failed": failed}
    if device := device or run.config.budget.device:
        index["device"] = _device(device_board(study, device, studies, None, [row["number"] for row in rows]), rows)
    write_json(folder / INDEX, index)
    table = _table(index)
    write_text(folder / WORDS, _words(run, front, index, table))
    current = {f"trial-{number}" for number in numbers}
    outdated = (name for name in earlier if name not in current and (folder / name).is_dir())
    return ExportedFront(index, table, tuple(outdated))


def _device(board: dict[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The board with the int8 accuracies that the export measured."""
    for card, row in zip(board["cards"], rows, strict=True):
        if card["int8_val_accuracy"] is None:
            card["int8_val_accuracy"] = row["forms"].get("int8", {}).get(f"val_{board.get('metric', ACCURACY)}")
    return board


def _reason(error: Exception) -> str:
    text = f"{error}" if isinstance(error, RuntimeError | UserError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def _ranking(float_accuracy: float | None) -> dict[str, Any]:
    """The kind of a row's `best_val_accuracy`, and the float accuracy where that is the int8 one."""
    if float_accuracy is None:
        return {"ranked_by": "float"}
    return {"ranked_by": "int8", "float_val_accuracy": float_accuracy}


def _files(exported: Exported, number: int) -> dict[str, Any]:
    sizes = {path.name: path.stat().st_size for paths in exported.paths.values() for path in paths}
    forms = {name: exported.facts[name] for name in exported.paths if name in exported.facts}
    failed = {"failed": dict(exported.failed)} if exported.failed else {}
    return {"folder": f"trial-{number}", "files": sizes, "forms": forms} | failed


def _table(index: Mapping[str, Any]) -> Table:
    """The networks by rising cost; columns that are empty in all rows are left out."""
    metrics = list(dict.fromkeys([*index["prices"], "params"]))
    rows = [
        (
            row["folder"],
            *(f"{row[metric]:,}" for metric in metrics),
            *_accuracies(row, index["val_images"], index.get("metric", ACCURACY)),
            _formatted(row["forms"].get("int8", {}).get("bytes"), ","),
        )
        for row in index["trials"]
    ]
    label = measure_of(index).label
    columns = ("", *metrics, label, f"{label} in int8", "bytes of int8 file")
    used = [column for column in range(len(columns)) if column == 0 or any(row[column] for row in rows)]
    return Table(tuple(columns[column] for column in used), [tuple(row[column] for column in used) for row in rows])


def _accuracies(row: Mapping[str, Any], images: int | None, metric: str) -> tuple[str, str]:
    """(float, int8) accuracy, or other measure, of a row."""
    measured = row["forms"].get("int8", {}).get(f"val_{metric}")
    if row["ranked_by"] == "int8":
        return format_percent(row["float_val_accuracy"], images), format_percent(row["best_val_accuracy"], images)
    return format_percent(row["best_val_accuracy"], images), format_percent(measured, images)


def _formatted(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _words(run: Run, front: Front, index: Mapping[str, Any], table: Table) -> str:
    parts = [
        f"# {escaped(run.name)}: {run.config.metric_label} against {', '.join(front['prices'])}",
        escaped(front_words(front)),
        markdown(table),
        f"Protocol {run.config.protocol}: {protocol_words(run.config)}",
        *(f"Not exported: trial {number} ({escaped(reason)})." for number, reason in index["failed"].items()),
    ]
    if board := index.get("device"):
        cards = "\n\n".join("\n".join(card_lines(board, card)) for card in board["cards"])
        parts += [f"## On {escaped(board['device'])}", f"```text\n{cards}\n```"]
    return "\n\n".join(parts) + "\n"


def _folders(path: Path) -> list[str]:
    """The folders in an earlier index."""
    try:
        return [str(row["folder"]) for row in read_json(path)["trials"]]
    except (UserError, LookupError, TypeError):
        return []
