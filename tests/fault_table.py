"""The table of faults in docs/reliability.md, made from the counts of the tests of faults.

    python -m tests.fault_table                     # run those tests, write benchmarks/faults.json and the page's table
    python -m tests.fault_table --rows 23 24        # run those of some rows alone, and keep the counts of the others
    FAULT_RECORDS=FOLDER python -m pytest -n 2      # in any run of them, each process leaves its counts in the folder;
    python -m tests.fault_table --records FOLDER    # prints the table of these; status 1 if a row lacks or failed

A test of a fault has the numbers of its rows in its name (`test_row_5_...`, `test_rows_9_20_...`). It records how often the
fault really happened, and the results found in the database: each logical trial must have one verdict, or wait in the queue
once where the study has not ended; as many must count as were asked for, each network once; and finished trials must be
unchanged.
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
RECORDS = (
    "FAULT_RECORDS"  # environment variable: folder in which each process leaves its counts; without it nothing is recorded
)
KILL_ROUNDS = "KILL_ROUNDS"  # environment variable: rounds of row 21, fewer in a run of all tests than for the page's table


class Row(NamedTuple):
    fault: str
    expected: str


ROWS = {
    1: Row("killed (SIGKILL) inside an epoch", "resumes in that epoch, counted once"),
    2: Row("killed between claiming a trial and its first heartbeat", "requeued by the next start"),
    3: Row("killed after training, before the result is stored", "stored once at the next start, not trained again"),
    4: Row("Ctrl-C, SIGTERM", "all workers end within 10 s, status 130 or 143, checkpoints kept"),
    5: Row(
        "a worker halted past the grace period",
        "its trial goes to another, its late result is rejected, it continues",
    ),
    6: Row("queued trials and eight workers", "each trained once"),
    7: Row("four workers requeue the same lost trials", "one retry each"),
    8: Row("SQLite locked for seconds", "retried until it is free"),
    9: Row("PostgreSQL crashed, or unreachable", "retried, while the training continues"),
    10: Row("disk full at a checkpoint", "the run stops and says so, the checkpoint before it is kept"),
    11: Row("torn checkpoint", "detected, the one before it is used"),
    12: Row("the loss is NaN or infinite", "that trial ends with its reason, the next one runs"),
    13: Row("out of memory, host or GPU", "that trial ends with its reason, the next one runs"),
    14: Row("a trial that hangs", "stopped at its deadline and recorded, the next one runs"),
    15: Row(
        "a trial that crashes its process", "two attempts, then failed; five in a row stop the run with what they share"
    ),
    16: Row("the same study started again", "joins; another configuration or data set is rejected with the difference"),
    17: Row("N trained trials asked of eight workers", "exactly N"),
    18: Row("broken study file, impossible budget, bad data", "status 2, one line: rule, value, remedy; nothing written"),
    19: Row("hostile data or model file", "rejected in one line, nothing of it run or written"),
    20: Row("a password in the storage URL", "works, and appears in no output, log, file or traceback"),
    21: Row("all processes killed at random moments", "all of the above, at the end"),
    22: Row("a node of a Ray cluster lost", "its trial resumes on another"),
    23: Row(
        "the terminal closed (SIGHUP), or the reader of the output gone",
        "ends as with Ctrl-C, status 129; without a signal the run continues, its output in worker.log",
    ),
    24: Row(
        "the study, its database or its folder deleted, renamed or replaced during a run",
        "the run stops at once with status 1 and names it, nothing is recreated; put back, the same command resumes, unless "
        "another file replaced the database: SQLite may have written its last results into that one",
    ),
    25: Row(
        "a server with a wrong password, a dropped database, a failover to a read-only server",
        "refused at once; the run stops at once; waited for",
    ),
    26: Row(
        "a run folder that may only be read, or whose disk is full",
        "top, show, finals --show, export --to, report --to and dashboard read it",
    ),
    27: Row("a request to the dashboard without its token, or from another host", "status 403; nothing is read or deleted"),
}


class Results(NamedTuple):
    """Results of trials that a database has lost, or holds twice."""

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
    """Count the results that a study has lost, and those that it holds twice or would get twice from its queue.

    Args:
        asked: number of candidates that must count; None if the study did not end by it.
        known: trials that had their verdicts at an earlier time, by number.
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
    """Record the number of faults that happened, by row of the table, and the results lost or doubled.

    Raises:
        AssertionError: a result was lost or doubled; that is recorded, too.
    """
    if folder := os.environ.get(RECORDS):
        with (Path(folder) / f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
            for row, count in tries.items():
                file.write(json.dumps([row, count, *found]) + "\n")
    assert found == Results(0, 0), found


def _index(trial: FrozenTrial) -> Any:
    """Index of the logical trial that this trial is an attempt of."""
    return trial.user_attrs.get("index", f"trial {trial.number}")


def _is_verdict(trial: FrozenTrial) -> bool:
    """True if the trial has a verdict, or waits for one in the queue."""
    if trial.state == TrialState.FAIL:
        return trial.user_attrs.get("outcome") not in ("interrupted", *COUNTED)  # its retry has it
    return trial.state != TrialState.RUNNING


# --- the table of it -------------------------------------------------------------------------------------------------


def gathered(folder: Path) -> dict[int, Counted]:
    """Sum of the counts of all processes of a test run, by row."""
    rows: dict[int, Counted] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row, *counts = json.loads(line)
            rows[row] = Counted(*(sum(pair) for pair in zip(rows.get(row, (0, 0, 0)), counts, strict=True)))
    return dict(sorted(rows.items()))


def rows_with_tests() -> dict[int, list[str]]:
    """Tests with the number of a row in their name, by row."""
    found: dict[int, list[str]] = {row: [] for row in ROWS}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "def test_row" not in text:  # parsing all files takes seconds
            continue
        for node in ast.walk(ast.parse(text)):
            for row in rows_of(node.name) if isinstance(node, ast.FunctionDef) else ():
                found.setdefault(row, []).append(
                    f"{path.relative_to(ROOT / 'tests').with_suffix('').as_posix()}.{node.name}"
                )
    return found


def rows_of(test: str) -> list[int]:
    """Rows in the name of a test."""
    named = re.match(r"test_rows?_((?:\d+_)+)", test)
    return [int(row) for row in named[1].split("_")[:-1]] if named else []


def markdown(rows: Mapping[int, Counted]) -> str:
    """The table as Markdown."""
    head = ("| # | what happens | what becomes of it | tries | lost | doubled |", "|---|---|---|---|---|---|")
    lines = (
        f"| {number} | {row.fault} | {row.expected} | {rows[number].tries} | {rows[number].lost} | {rows[number].doubled} |"
        for number, row in ROWS.items()
        if number in rows
    )
    return "\n".join((*head, *lines))


def between_marks(text: str) -> str:
    """The table in the text of the page."""
    return text.split(BEGIN)[1].split(END)[0].strip("\n")


def faults_of(rows: Mapping[int, Counted]) -> list[str]:
    """Reasons why this is not a complete table of survived faults; empty if it is."""
    told = [f"row {row}: no test has counted it (was one skipped?)" for row in ROWS if row not in rows]
    told += [f"row {row}: there is no such row" for row in rows if row not in ROWS]
    told += [f"row {row}: {one.lost} lost, {one.doubled} doubled" for row, one in rows.items() if one.lost or one.doubled]
    return told + [f"row {row}: nothing happened in it" for row, one in rows.items() if one.tries < 1]


def read(path: Path = JSON) -> dict[str, Any]:
    """Read the table that was written last."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--records", type=Path, help="counts of an earlier run of the tests; nothing is run or written")
    options.add_argument("--rows", type=int, nargs="+", choices=ROWS, help="run the tests of these rows alone")
    asked = options.parse_args()
    if asked.records:
        sys.exit(_told(gathered(asked.records)))
    known = {entry["row"]: Counted(entry["tries"], entry["lost"], entry["doubled"]) for entry in read()["rows"]}
    with tempfile.TemporaryDirectory() as folder:
        tests = rows_with_tests()
        chosen = {test for row, names in tests.items() if row in (asked.rows or ROWS) for test in names}
        words = ["-m", "pytest", "-n", "2", "--dist", "loadfile"]
        words += ["-k", " or ".join(sorted(test.split(".")[1] for test in chosen))]
        words += sorted({f"tests/{test.split('.')[0]}.py" for test in chosen})
        environment = os.environ | {RECORDS: folder, KILL_ROUNDS: "30"}
        if status := subprocess.run([sys.executable, *words], cwd=ROOT, env=environment).returncode:
            sys.exit(status)
        counted = gathered(Path(folder))
    rows = known | {row: counted[row] for row in asked.rows if row in counted} if asked.rows else counted
    if status := _told(rows):
        sys.exit(status)
    table = [{"row": row, **rows[row]._asdict(), "tests": tests[row]} for row in ROWS]
    JSON.write_text(json.dumps({"command": "python -m tests.fault_table", "rows": table}, indent=1) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text.replace(between_marks(text), markdown(rows)), encoding="utf-8")


def _told(rows: Mapping[int, Counted]) -> int:
    """Print the table, or its faults on standard error; returns the exit status."""
    wrong: Iterable[str] = faults_of(rows)
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print(markdown(rows))
    return int(bool(wrong))


if __name__ == "__main__":
    main()
