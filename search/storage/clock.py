"""Clock of the storage; a simulation passes its own."""

from __future__ import annotations

import time
from datetime import datetime

from sqlalchemy import func
from sqlalchemy.orm import Session


class Clock:
    """The system's time and the database's. Every time that this package reads or waits for comes from here."""

    def monotonic(self) -> float:
        """Seconds that only increase, to measure waits."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def local_time(self) -> datetime:
        """Start or end of a trial: local time without a time zone, as Optuna's models expect it."""
        return datetime.now()

    def heartbeat_time(self, session: Session) -> datetime:
        """Time of a heartbeat: UTC without a time zone, by the clock of the database that all workers share."""
        now: datetime = session.execute(func.now()).scalar_one()
        return now.replace(tzinfo=None)


SYSTEM = Clock()
