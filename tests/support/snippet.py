"""Python code in a process of its own, a fork where that is the same: `python -m tests.support.snippet CODE ARGUMENT...`."""

from __future__ import annotations

import sys

from tests.support.forking import SNIPPET


def snippet(code: str, *arguments: object) -> list[str]:
    """Command that runs the code; its `sys.argv` is that of `python -c`."""
    return [sys.executable, "-m", SNIPPET, code, *map(str, arguments)]


if __name__ == "__main__":
    _, program, *words = sys.argv
    sys.argv = ["-c", *words]
    exec(compile(program, "<snippet>", "exec"), {"__name__": "__main__"})
