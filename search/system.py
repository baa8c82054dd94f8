"""Keeps what C++ libraries print on standard output and standard error off the screen, for the case that it is needed."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[Callable[[], str]]:
    """Nothing written to file descriptors 1 and 2 inside the block is seen; the function given tells it, the end of it last.

    Not for several threads at once: the descriptors are those of the process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(descriptor, os.dup(descriptor)) for descriptor in (1, 2)]
    with tempfile.TemporaryFile() as said:
        for descriptor, _ in kept:
            os.dup2(said.fileno(), descriptor)

        def told(most: int = 2_000) -> str:
            sys.stdout.flush()
            sys.stderr.flush()
            said.seek(0)
            return said.read().decode(errors="replace")[-most:].strip()

        try:
            yield told
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, copy in kept:
                os.dup2(copy, descriptor)
                os.close(copy)


def cores() -> int:
    """How many of the machine's cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
