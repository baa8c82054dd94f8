"""Files and SQLite databases that do not wait for the disk, which takes 6 to 9 ms a commit or file.

Tests kill processes, of which the system keeps what they have written; no test cuts the power.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, event

from search.storage import database

SYNCED = database._use_immediate_transactions


def skip_syncing() -> None:
    """Let this process and its forks wait for the disk no more."""
    os.fsync = lambda descriptor: None
    database._use_immediate_transactions = _use_immediate_transactions


def _use_immediate_transactions(engine: Engine, only_reads: Callable[[], bool]) -> None:
    SYNCED(engine, only_reads)
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite databases that this test opens are as those of users."""
    monkeypatch.setattr(database, "_use_immediate_transactions", SYNCED)
