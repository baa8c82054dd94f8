"""Lines while a command works or waits without other output."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

PATIENCE_SECONDS = 3.0  # without a line
AWAITED_SECONDS = 5.0  # of waiting for a trial of another run before it is said


class AwaitedTrials:
    """Trials that a run waits for although none of its workers trains them.

    Another run trains them, or they were begun in the folder that the run's own is a copy of, or on another machine.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._since = 0.0
        self._said = set[tuple[str, ...]]()

    def line(self, names: Sequence[str], grace_minutes: float) -> str | None:
        """The line on these trials; None if it was said, or they are not waited for long enough.

        Args:
            grace_minutes: without a heartbeat, after which a trial is requeued.
        """
        if tuple(names) != self._names:
            self._names, self._since = tuple(names), time.monotonic()
        if not names or self._names in self._said or time.monotonic() - self._since <= AWAITED_SECONDS:
            return None  # a worker of this run may just begin one
        self._said.add(self._names)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return (
            f"Waiting for {names[0]}{more}, begun by another run or before this folder was copied: requeued once "
            f"{grace_minutes:g} minutes have passed without a heartbeat (search.grace_minutes)."
        )


class WaitingLine:
    """A line on the terminal with the work in progress, shown once a command takes longer than PATIENCE_SECONDS."""

    def __init__(self) -> None:
        # A copy of the descriptor: the converters' own output, and with it descriptor 2, is silenced while they run.
        self._stream = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8") if sys.stderr.isatty() else None
        self._text = "reading the study"

    def __enter__(self) -> WaitingLine:
        if self._stream is not None:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._stream)
            self._live = Live(
                console=console, transient=True, redirect_stdout=False, redirect_stderr=False, get_renderable=self._line
            )
            self._timer = threading.Timer(PATIENCE_SECONDS, self._live.start)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None:
            self._timer.cancel()
            self._timer.join()
            self._live.stop()
            self._stream.close()

    def show(self, text: str) -> None:
        """Replace the line."""
        self._text = text

    def say(self, text: str) -> None:
        """Print a line on standard error that stays, and show the same."""
        if self._stream is not None and self._live.is_started:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr)
        self.show(text)

    def _line(self) -> Any:
        from rich.spinner import Spinner
        from rich.text import Text

        self._spinner = getattr(self, "_spinner", None) or Spinner("dots")
        self._spinner.update(text=Text(self._text))
        return self._spinner
