"""Folders that are expensive to make: made by the first test process that asks, copied for each."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder as `make` leaves it, of this process alone: what a test changes in it, no other process sees.

    Args:
        make: fills the folder that it is given, which is there and empty.
    """
    own = factory.getbasetemp()
    if (own / name).exists():  # a fixture that two modules import is set up in each of them
        return own / name
    if "PYTEST_XDIST_WORKER" not in os.environ:
        (own / name).mkdir()
        make(own / name)
        return own / name
    first = own.parent / name
    with (own.parent / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not first.exists():
            draft = own.parent / f"{name}.draft"
            draft.mkdir()
            make(draft)
            draft.rename(first)  # whole or not at all: a maker that failed fails in every process
    return Path(shutil.copytree(first, own / name))
