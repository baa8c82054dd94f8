"""Entry point of `python -m search`.

At its top it imports of the standard library only what Python has loaded already, and `signal`: a missing package, an old
Python and a Ctrl-C during the imports, which take about half a second, then end in one line instead of a traceback.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # for type checkers, as in `search/__init__.py`
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

OLDEST_PYTHON = (3, 11)


def main() -> NoReturn:
    """Run the command line; end with status 2 and the right command where it cannot be started."""
    if tuple(sys.version_info) < OLDEST_PYTHON:
        _refuse(f"Python {sys.version_info[0]}.{sys.version_info[1]} is older than 3.11")
    try:
        from search.cli import commands  # here, as it imports the packages of the environment
    except ModuleNotFoundError as error:
        if error.name == "search":
            _refuse("the checkout is not on Python's path")
        if error.name is None or error.name.startswith(("search.", "report")):
            raise
        _refuse(f"{sys.executable} has no package {error.name!r}")
    commands.main()


def _refuse(reason: str) -> NoReturn:
    from pathlib import Path  # here, as its import takes longer than all before the handler of Ctrl-C

    root = Path(__file__).resolve().parent.parent
    folder = "" if Path.cwd() == root else f"cd {root} && "
    environment = "" if (root / ".venv" / "bin" / "python").exists() else "make venv && "
    print(f"search: {reason}; run: {folder}{environment}.venv/bin/python -m search ...", file=sys.stderr)
    sys.exit(2)


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    """End the process during its imports, when there is nothing to clean up."""
    os.write(2, b"interrupted\n")
    os._exit(128 + signal.SIGINT)


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end_at_once)
    main()
