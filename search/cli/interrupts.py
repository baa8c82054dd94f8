"""Ctrl-C during a command: a KeyboardInterrupt, and the end of the process if the exception is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

GRACE_SECONDS = 3.0  # between the first Ctrl-C and the end of the process, if it does not end by itself
STATUS = 128 + signal.SIGINT


@dataclass
class Interrupts:
    """Record of the signals of a command."""

    came: bool = False


@contextmanager
def catching_interrupts() -> Iterator[Interrupts]:
    """Raise KeyboardInterrupt at the first SIGINT; exit at the next, or `GRACE_SECONDS` after the first.

    Libraries lose the exception where they call Python from C or catch every exception. A SIGINT that is ignored stays so: a
    shell that starts a command in the background protects it from the Ctrl-C that is meant for another.
    """
    interrupts = Interrupts()
    timer = threading.Timer(GRACE_SECONDS, _exit)
    timer.daemon = True

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if interrupts.came:
            _exit()
        interrupts.came = True
        timer.start()
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    is_ours = threading.current_thread() is threading.main_thread() and before is not signal.SIG_IGN
    if is_ours:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupts
    finally:
        timer.cancel()
        if is_ours:
            signal.signal(signal.SIGINT, before)


def _exit() -> NoReturn:
    """End the process without its clean-up, which may hang."""
    os.write(2, b"interrupted\n")
    os._exit(STATUS)
