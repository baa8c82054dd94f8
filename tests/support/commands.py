"""The command line in this process, for what a process of its own would only make slow."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from search import __main__ as command_line
from search.runner import supervisor
from tests.support.worker_thread import WorkerThread


class Ended(NamedTuple):
    """End of a command: its exit status, its standard output and its standard error."""

    status: int
    out: str
    err: str


def search(*words: str | Path) -> Ended:
    """`python -m search WORDS` by its own entry; what it raises, a process would end of with a traceback.

    The worker of a run is a thread.
    """
    out, err, status = io.StringIO(), io.StringIO(), 0
    argv = patch.object(sys, "argv", ["search", *map(str, words)])
    worker = patch.object(supervisor, "_start_process", WorkerThread)
    with argv, worker, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            command_line.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
    return Ended(status, out.getvalue(), err.getvalue())


def assert_refused(ended: Ended, *hints: str) -> None:
    """Status 2 and one line on standard error that holds all of these."""
    assert (ended.status, ended.err.count("\n")) == (2, 1), ended
    assert ended.err.strip()
    assert "Traceback" not in ended.err + ended.out
    assert [hint for hint in hints if hint not in ended.err] == [], ended.err
