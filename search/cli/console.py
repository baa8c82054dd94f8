"""Output of commands: consoles, JSON, and the network that a command names."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

from search.errors import UserError
from search.study import study_file


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=1))


def console_of(*, stderr: bool = False, log: Path | None = None) -> Any:
    """A rich console on standard output or standard error.

    Args:
        log: written to once the stream is lost, see `Screen`.
    """
    from rich.console import Console

    screen = None if log is None else Screen(sys.stderr if stderr else sys.stdout, log)
    return Console(width=None if sys.stdout.isatty() else 120, stderr=stderr, file=cast(IO[str], screen))


class Screen:
    """A text stream that continues in a log file once its terminal or its reader is gone.

    A run must not end because nothing reads its output any more, as in `run | head` or after a terminal was closed.
    """

    def __init__(self, stream: TextIO, log: Path) -> None:
        self._stream, self._log = stream, log
        self._unflushed: list[str] = []
        self.is_lost = False
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        self._unflushed.append(text)
        if not self.is_lost:
            try:
                self._stream.write(text)
            except OSError:
                self._lose()
        return len(text)

    def flush(self) -> None:
        if not self.is_lost:
            try:
                self._stream.flush()
            except OSError:
                self._lose()
        if self.is_lost:
            self._write_log()
        self._unflushed.clear()

    def isatty(self) -> bool:
        return not self.is_lost and self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def _lose(self) -> None:
        """Give up the stream; its buffer goes to the null device, because Python flushes it once more at its end."""
        self.is_lost = True
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def _write_log(self) -> None:
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", "".join(self._unflushed))  # without colours and cursor movements
        with (
            contextlib.suppress(OSError),  # the folder may be gone as well
            self._log.open("a", encoding="utf-8", errors="backslashreplace") as log,
        ):
            log.write(text)


def short(path: Path) -> str:
    """The path, relative to the current folder if it lies inside."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if TYPE_CHECKING:
    from search.networks.architecture import Architecture


def network_of(network: str, number: int | None, out: Path | None, storage: str | None) -> Architecture:
    """The architecture of a reference, an architecture file, or a trial of a study (its best if `number` is None).

    Raises:
        UserError: there is none of this name or number.
    """
    from search.study import references

    if not is_study(network):
        if number is not None:
            raise UserError(f"{network} {number}: a trial number goes with a study, and this is a network")
        return references.find(network).architecture
    from search.study import run as study

    try:
        study_file.find(network)
    except UserError as error:
        raise UserError(f"{error}; references: {', '.join(references.names())}") from None
    return study.network_of(study.find(network, out, storage), number)


def is_study(network: str) -> bool:
    """True if the argument names a study, and neither a reference nor an architecture file."""
    from search.study import references

    references.refuse_model(network)
    return not network.endswith(".json") and network not in references.names()
