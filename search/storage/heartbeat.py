"""Heartbeats of a trial that is being trained."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import optuna

from search.storage.database import storage_of
from search.storage.optuna_internals import trial_id_of

BEATS_IN_GRACE = 8  # heartbeats within the age at which a trial counts as lost


@contextmanager
def heartbeat(trial: optuna.Trial) -> Iterator[None]:
    """Record heartbeats from a thread while the block runs; none where the storage was opened without a grace period."""
    storage, trial_id, stop = storage_of(trial.study), trial_id_of(trial), threading.Event()
    if storage.grace_seconds is None:
        yield
        return
    interval = storage.grace_seconds / BEATS_IN_GRACE

    def beat() -> None:
        storage.record_heartbeat(trial_id)
        while not stop.wait(interval):
            storage.record_heartbeat(trial_id)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
