"""Shared by the tests of queue and queue_liveness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy import text

from search.storage.database import open_storage, storage_of
from search.storage.queue import begin
from search.storage.urls import sqlite_url

GRACE = 120.0


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    return sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("postgres").new_storage()


def open_study(url: str) -> optuna.Study:
    storage = open_storage(url, grace_seconds=GRACE)
    return optuna.create_study(storage=storage, study_name="s", direction="maximize", load_if_exists=True)


def begun(study: optuna.Study, worker: str = "w", **how: Any) -> optuna.Trial:
    trial = begin(study, worker, **how)
    assert trial is not None
    return trial


def grow_old(study: optuna.Study, seconds: float = GRACE + 5) -> None:
    """As if so long had passed since every heartbeat."""
    engine = storage_of(study).engine
    then = f"datetime('now', '-{seconds} seconds')" if engine.name == "sqlite" else f"now() - interval '{seconds} seconds'"
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE trial_heartbeats SET heartbeat = {then}"))


def outcomes(study: optuna.Study) -> list[str]:
    return [trial.user_attrs.get("outcome", trial.state.name) for trial in study.get_trials()]
