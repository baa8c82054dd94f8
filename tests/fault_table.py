"""The table of faults in docs/reliability.md, made from the counts of the tests of faults.

    python -m tests.fault_table                     # run those tests, write benchmarks/faults.json and the page's table
    FAULT_RECORDS=FOLDER python -m pytest -n 2      # in any run of them, each process leaves what it counts in the folder,
    python -m tests.fault_table --records FOLDER    # prints the table; status 1 if a row is not as it should be

A test of a fault has the numbers of its rows in its name (`test_row_5_...`, `test_rows_9_20_...`). It records how often the
fault really happened, and what became of the results, looked up in the database: each logical trial must have come to one
verdict, or wait in the queue once where the study has not ended; as many must count as were asked for, each network once;
and what was finished before must be there as it was.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial, TrialState

from search.study.records import COUNTED

ROOT = Path(__file__).parent.parent
JSON, PAGE = ROOT / "benchmarks" / "faults.json", ROOT / "docs" / "reliability.md"
BEGIN = "<!-- the table of faults: written by python -m tests.fault_table -->"
END = "<!-- the end of the table of faults -->"
RECORDS = "FAULT_RECORDS"  # environment: the folder that processes leave their counts in; they count for nobody without it


class Row(NamedTuple):
    fault: str
    expected: str


ROWS = {
    1: Row("killed (SIGKILL) inside an epoch", "goes on in that epoch, counted once"),
    2: Row("killed between claiming a trial and its first heartbeat", "taken up by the next start"),
    3: Row("killed after training, before the result is told", "told once at the next start, not trained again"),
    4: Row("Ctrl-C, SIGTERM", "all workers end within 10 s, status 130 or 143, checkpoints kept"),
    5: Row("a worker halted past the grace period", "its trial goes to another, its late result is refused, it goes on"),
    6: Row("queued trials and eight workers", "each trained once"),
    7: Row("four workers recover the same dead trials", "one retry each"),
    8: Row("SQLite locked for seconds", "waited for"),
    9: Row("PostgreSQL crashed, or away", "waited for, the training goes on meanwhile"),
    10: Row("disk full at a checkpoint", "the run stops and says so, the checkpoint before it is kept"),
    11: Row("torn checkpoint", "noticed, the one before it is used"),
    12: Row("the loss is NaN or infinite", "that trial ends with its reason, the next one runs"),
    13: Row("out of memory, host or GPU", "that trial ends with its reason, the next one runs"),
    14: Row("a trial that hangs", "stopped at its deadline and recorded, the next one runs"),
    15: Row(
        "a trial that crashes its process", "two attempts, then failed; five in a row stop the run with what they share"
    ),
    16: Row("the same study started again", "joins; another configuration or data set is refused with the difference"),
    17: Row("N trained trials asked of eight workers", "exactly N"),
    18: Row("broken study file, impossible budget, bad data", "status 2, one line: rule, value, remedy; nothing written"),
    19: Row("hostile data or model file", "refused in one line, nothing of it run or written"),
    20: Row("a password in the storage URL", "works, and appears in no output, log, file or traceback"),
    21: Row("all processes killed at random moments", "all of the above, at the end"),
    22: Row("a node of a Ray cluster lost", "its trial goes on on another"),
    23: Row(
        "the terminal closed (SIGHUP), or the reader of the output gone",
        "ends as with Ctrl-C, status 129; without a signal the run continues, its output in worker.log",
    ),
}


class Results(NamedTuple):
    """What became of results in a database."""

    lost: int
    doubled: int


class Counted(NamedTuple):
    """One row of the table."""

    tries: int
    lost: int
    doubled: int


# --- counted in the tests --------------------------------------------------------------------------------------------


def results(
    trials: Sequence[FrozenTrial], asked: int | None = None, known: Mapping[int, FrozenTrial] | None = None
) -> Results:
    """How many results a study has lost, and how many it holds twice or would get twice from what is queued.

    Args:
        asked: how many candidates must count; None where that is not what the study ended by.
        known: trials that had their verdicts at some time before, by number.
    """
    verdicts = Counter({_index(trial): 0 for trial in trials})
    verdicts.update(_index(trial) for trial in trials if _is_verdict(trial))
    ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    counted = [trial for trial in ended if trial.user_attrs.get("outcome") in COUNTED]
    wanted = len(counted) if asked is None else asked
    now = {trial.number: trial for trial in trials}
    gone = sum(now.get(number) != trial for number, trial in (known or {}).items())
    keys = [trial.user_attrs["key"] for trial in counted if "key" in trial.user_attrs]
    return Results(
        lost=sum(count == 0 for count in verdicts.values()) + max(0, wanted - len(counted)) + gone,
        doubled=sum(count - 1 for count in verdicts.values() if count)
        + max(0, len(counted) - wanted)
        + len(keys)
        - len(set(keys)),
    )


def record(tries: Mapping[int, int], found: Results) -> None:
    """Count faults that happened, by the row of the table, and what became of results.

    Raises:
        AssertionError: a result was lost or doubled; that is counted, too.
    """
    if folder := os.environ.get(RECORDS):
        with (Path(folder) / f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
            for row, count in tries.items():
                file.write(json.dumps([row, count, *found]) + "\n")
    assert found == Results(0, 0), found


def _index(trial: FrozenTrial) -> Any:
    """The logical trial that it is a try of."""
    return trial.user_attrs.get("index", f"trial {trial.number}")


def _is_verdict(trial: FrozenTrial) -> bool:
    """Or a promise of one."""
    if trial.state == TrialState.FAIL:
        return trial.user_attrs.get("outcome") not in ("interrupted", *COUNTED)  # its retry has it
    return trial.state != TrialState.RUNNING


# --- the table of it -------------------------------------------------------------------------------------------------


def gathered(folder: Path) -> dict[int, Counted]:
    """What all processes of a test run have counted, by row."""
    rows: dict[int, Counted] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row, *counts = json.loads(line)
            rows[row] = Counted(*(sum(pair) for pair in zip(rows.get(row, (0, 0, 0)), counts, strict=True)))
    return dict(sorted(rows.items()))


def rows_with_tests() -> dict[int, list[str]]:
    """The tests that have a row's number in their name, by row."""
    found: dict[int, list[str]] = {row: [] for row in ROWS}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for row in rows_of(node.name) if isinstance(node, ast.FunctionDef) else ():
                found.setdefault(row, []).append(
                    f"{path.relative_to(ROOT / 'tests').with_suffix('').as_posix()}.{node.name}"
                )
    return found


def rows_of(test: str) -> list[int]:
    """The rows that a test has in its name."""
    named = re.match(r"test_rows?_((?:\d+_)+)", test)
    return [int(row) for row in named[1].split("_")[:-1]] if named else []


def markdown(rows: Mapping[int, Counted]) -> str:
    """The table as Markdown."""
    head = ("| # | what happens | what becomes of it | tries | lost | doubled |", "|---|---|---|---|---|---|")
    lines = (
        f"| {number} | {row.fault} | {row.expected} | {rows[number].tries} | {rows[number].lost} | {rows[number].doubled} |"
        for number, row in ROWS.items()
    )
    return "\n".join((*head, *lines))


def between_marks(text: str) -> str:
    """The table in the text of the page."""
    return text.split(BEGIN)[1].split(END)[0].strip("\n")


def faults_of(rows: Mapping[int, Counted]) -> list[str]:
    """What keeps this from being a table of faults that were survived."""
    told = [f"row {row}: no test has counted it (was one skipped?)" for row in ROWS if row not in rows]
    told += [f"row {row}: there is no such row" for row in rows if row not in ROWS]
    told += [f"row {row}: {one.lost} lost, {one.doubled} doubled" for row, one in rows.items() if one.lost or one.doubled]
    return told + [f"row {row}: nothing happened in it" for row, one in rows.items() if one.tries < 1]


def read(path: Path = JSON) -> dict[str, Any]:
    """The table as it was written last."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--records", type=Path, help="what an earlier run of the tests left; nothing is run or written")
    asked = options.parse_args()
    if asked.records:
        sys.exit(_told(gathered(asked.records)))
    with tempfile.TemporaryDirectory() as folder:
        tests = rows_with_tests()
        files = sorted({f"tests/{test.split('.')[0]}.py" for names in tests.values() for test in names})
        words = ["-m", "pytest", "-n", "2", "--dist", "loadfile", "-k", "test_row_ or test_rows_", *files]
        if status := subprocess.run([sys.executable, *words], cwd=ROOT, env=os.environ | {RECORDS: folder}).returncode:
            sys.exit(status)
        rows = gathered(Path(folder))
    if status := _told(rows):
        sys.exit(status)
    table = [{"row": row, **rows[row]._asdict(), "tests": tests[row]} for row in ROWS]
    JSON.write_text(json.dumps({"command": "python -m tests.fault_table", "rows": table}, indent=1) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text.replace(between_marks(text), markdown(rows)), encoding="utf-8")


def _told(rows: Mapping[int, Counted]) -> int:
    """Print the table, or what is wrong with it on standard error; the exit status."""
    wrong: Iterable[str] = faults_of(rows)
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print(markdown(rows))
    return int(bool(wrong))


if __name__ == "__main__":
    main()
