"""The process and its machine: output of C++ libraries kept off the screen, lighter imports, and the number of cores."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def quiet() -> Iterator[Callable[[], str]]:
    """Capture what is written to file descriptors 1 and 2 inside the block; the given function returns the end of it.

    Not for several threads at once: the descriptors are those of the process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(descriptor, os.dup(descriptor)) for descriptor in (1, 2)]
    with tempfile.TemporaryFile() as captured:
        for descriptor, _ in kept:
            os.dup2(captured.fileno(), descriptor)

        def output(most: int = 2_000) -> str:
            sys.stdout.flush()
            sys.stderr.flush()
            captured.seek(0)
            return captured.read().decode(errors="replace")[-most:].strip()

        try:
            yield output
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, copy in kept:
                os.dup2(copy, descriptor)
                os.close(copy)


@contextmanager
def without_modules(*names: str) -> Iterator[None]:
    """Let the first import of these modules fail inside the block, where a library loads them without needing them."""
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def has_avx512() -> bool:
    """True if the processor has the vector instructions AVX-512; False where the system does not list them."""
    try:
        return "avx512bw" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
