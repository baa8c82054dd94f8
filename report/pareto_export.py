"""The Pareto front of a study to take away: each of its networks in a folder of its own, and an index of them.

DIR/front.json      what `top --json --pareto` prints, with the folder of each network, its files and what was measured
DIR/front.md        the same as a table
DIR/trial-7/...     one export, as of a single network
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from report.markdown.formatting import escaped, markdown, protocol_words
from report.pareto import Front, front_board, front_words
from report.tables import Table
from search.errors import UserError
from search.export.exporter import Exported
from search.files import read_json, write_json, write_text
from search.study import trained as winner
from search.study.records import records
from search.study.run import Opened, Run, best, load
from search.study.trained import Trained

INDEX, WORDS = "front.json", "front.md"
FOLDER = "front"  # in the run folder, where no other is asked for

Write = Callable[[Trained, Path, Callable[[str], None]], Exported]


@dataclass(frozen=True)
class Taken:
    """What the export of a front left."""

    index: Mapping[str, Any]  # as front.json has it
    table: Table
    left: tuple[str, ...]  # folders of an earlier export whose networks are on the front no more

    @property
    def failed(self) -> Mapping[str, str]:
        """The trials that could not be exported, and why."""
        failed: Mapping[str, str] = self.index["failed"]
        return failed


def take_front(run: Run, prices: Sequence[str], folder: Path, write: Write, tell: Callable[[str], None]) -> Taken:
    """Export every network of the front; where one fails, the others are there all the same, and the index says so.

    Args:
        write: exports one trained network into a folder, and tells what it is doing, a line for each form.
        tell: is told the same, with the trial.

    Raises:
        UserError: nothing has been trained, the files of a network are not in the run folder, or none could be exported.
    """
    studies = load(run)
    study = Opened(run, records(studies.candidates), records(studies.references))
    best(run, study.candidates)  # refuses where there is none
    front = front_board(study, prices, studies)
    numbers = [row["number"] for row in front["trials"]]
    if gone := [str(number) for number in numbers if not winner.is_here(run, number)]:
        raise UserError(
            f"{run.folder}: has no weights of trial {', '.join(gone)}, trained on another machine: export there, or share a "
            "run folder with --out"
        )
    done, failed = dict[int, Exported](), dict[str, str]()
    for number in numbers:
        try:
            trained = winner.candidate(run, number, studies)
            done[number] = write(trained, folder / f"trial-{number}", partial(_of_trial, number, tell))
        except Exception as error:
            told = f"{error}" if isinstance(error, RuntimeError | UserError) else f"{type(error).__name__}: {error}"
            failed[str(number)] = " ".join(told.split())
    if not done:
        number, reason = next(iter(failed.items()))
        raise UserError(f"trial {number}: {reason}")
    before = _folders(folder / INDEX)
    rows = [row | _files(done[row["number"]], row["number"]) for row in front["trials"] if row["number"] in done]
    index = {**front, "protocol": run.config.protocol, "trials": rows, "failed": failed}
    write_json(folder / INDEX, index)
    table = _table(index)
    write_text(folder / WORDS, _words(run, front, failed, table))
    now = {f"trial-{number}" for number in numbers}
    return Taken(index, table, tuple(name for name in before if name not in now and (folder / name).is_dir()))


def _of_trial(number: int, tell: Callable[[str], None], line: str) -> None:
    tell(f"trial {number}: {line}")


def _files(done: Exported, number: int) -> dict[str, Any]:
    sizes = {path.name: path.stat().st_size for paths in done.paths.values() for path in paths}
    forms = {form: done.forms[form] for form in done.paths if form in done.forms}
    return {"folder": f"trial-{number}", "files": sizes, "forms": forms}


def _table(index: Mapping[str, Any]) -> Table:
    """The networks by rising price, with the size and the accuracy of the integers where they were made and measured."""
    prices = list(dict.fromkeys([*index["prices"], "params"]))
    rows = [
        (
            row["folder"],
            *(f"{row[price]:,}" for price in prices),
            f"{row['best_val_accuracy']:.2%}",
            _told(row, "val_accuracy", ".2%"),
            _told(row, "bytes", ","),
        )
        for row in index["trials"]
    ]
    columns = ("", *prices, "accuracy", "accuracy in int8", "bytes of int8 file")
    used = [place for place in range(len(columns)) if place == 0 or any(row[place] for row in rows)]
    return Table(tuple(columns[place] for place in used), [tuple(row[place] for place in used) for row in rows])


def _told(row: Mapping[str, Any], key: str, form: str) -> str:
    value = row["forms"].get("int8", {}).get(key)
    return "" if value is None else f"{value:{form}}"


def _words(run: Run, front: Front, failed: Mapping[str, str], table: Table) -> str:
    parts = [
        f"# {escaped(run.name)}: accuracy against {', '.join(front['prices'])}",
        escaped(front_words(front)),
        markdown(table),
        f"Protocol {run.config.protocol}: {protocol_words(run.config)}",
        *(f"Not exported: trial {number} ({escaped(reason)})." for number, reason in failed.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _folders(path: Path) -> list[str]:
    """The folders that an earlier index tells of."""
    try:
        return [str(row["folder"]) for row in read_json(path)["trials"]]
    except (UserError, LookupError, TypeError):
        return []
