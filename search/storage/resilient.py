"""A storage that delegates to Optuna's and repeats calls while the database is unreachable.

A server restarts, a network fails, SQLite is locked by another process: a call is repeated until it is answered, for as long
as `patience` says. Every call may be repeated, as it may have been the answer that was lost. The value of an epoch is queued
in memory meanwhile, so that training continues; it is stored before anything else is asked.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Engine, select
from sqlalchemy.orm import Session

from search.storage.clock import SYSTEM, Clock
from search.storage.failures import (
    StorageUnavailable,
    StudyGone,
    cause_of,
    is_database_missing,
    is_disk_full,
    is_read_only,
    is_temporary,
)
from search.storage.optuna_internals import StudyModel, StudySystemAttributeModel, TrialHeartbeatModel
from search.storage.pending import PendingWrites, store_pending
from search.storage.rows import read_outlines, read_running_trials, read_trial, read_trials
from search.storage.trial_cache import TrialCache

FIRST_PAUSE = 0.1  # seconds between two calls, doubled each time
LONGEST_PAUSE = 3.0
REPORT_AFTER = 1.0  # seconds of waiting before `on_wait` is called
IDENTITY = "search:identity"  # system attribute of a study

Answer = TypeVar("Answer")
OnWait = Callable[[str], None]


def no_report(reason: str) -> None:
    """Report no waiting."""


@dataclass(frozen=True)
class Watched:
    """A study whose identity is checked while a run continues."""

    name: str
    identity: str | None  # a random token among its system attributes, which no other study of this name or id has


class ResilientStorage(BaseStorage):
    """Wrapper of Optuna's RDBStorage that retries and caches what cannot change.

    Args:
        database: reads and writes the rows.
        patience: seconds that a call is repeated while the database is unreachable; 0 raises at once.
        grace_seconds: age of its last heartbeat at which a trial counts as lost; None where no trial is run.
    """

    def __init__(
        self, database: RDBStorage, *, patience: float = 0.0, grace_seconds: float | None = None, clock: Clock = SYSTEM
    ) -> None:
        self.database = database
        self.patience, self.grace_seconds, self.clock = patience, grace_seconds, clock
        self.on_wait: OnWait = no_report  # called with the reason, once for each call that waits
        self.is_writable = True
        self.guards: list[Callable[[], None]] = []  # called before each call; raise StudyGone
        self.watched: dict[int, Watched] = {}  # by study id
        self._trials = TrialCache()
        self._directions: dict[int, list[StudyDirection]] = {}  # by study id; they never change
        self._unstored: list[tuple[int, int, float]] = []  # (trial id, epoch, value) of epochs that are not stored yet
        self._pending: PendingWrites | None = None
        self._distributions: dict[int, dict[str, BaseDistribution]] = {}  # by study id and parameter name
        self._thread = threading.local()

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine of the database."""
        return self.database.engine

    def retry(self, call: Callable[[], Answer]) -> Answer:
        """Return the result of `call`, which is repeated while the database is unreachable.

        Raises:
            StorageUnavailable: it was so for longer than `patience`, or its disk is full.
            StudyGone: a guard found that the database or the folder has changed, or the server has no such database.
        """
        started, pause, is_reported = self.clock.monotonic(), FIRST_PAUSE, False
        while True:
            for guard in self.guards:
                guard()
            try:
                self._store_epochs()
                return call()
            except Exception as error:
                waited, reason = self.clock.monotonic() - started, cause_of(error)
                if self.patience and is_disk_full(error):
                    raise StorageUnavailable(f"the database cannot store more ({reason}); make space") from None
                if self.patience and is_database_missing(error):
                    raise StudyGone(f"the database was dropped ({reason})") from None
                if not self._can_wait(error):
                    raise
                if is_read_only(error):
                    self.engine.dispose()  # the next connection may reach a server that accepts writes
                if waited > self.patience:
                    raise StorageUnavailable(f"the database was unreachable for {waited:.0f} s ({reason})") from None
                if not is_reported and waited > REPORT_AFTER:
                    is_reported = True
                    self.on_wait(reason)
                self.clock.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    @property
    def is_reading(self) -> bool:
        """True while this thread only reads; SQLite then takes no write lock."""
        return getattr(self._thread, "is_reading", False)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Mark the transactions of this thread inside the block as reading, so that they block no writer."""
        before = self.is_reading
        self._thread.is_reading = True
        try:
            yield
        finally:
            self._thread.is_reading = before

    @contextmanager
    def buffered_writes(self, study_id: int, trial_id: int) -> Iterator[None]:
        """Collect the parameters and attributes set inside the block; store them in one transaction at its end.

        A block inside another belongs to it.

        Raises:
            UpdateFinishedTrialError: at the end, if the trial has ended; nothing is stored then.
        """
        if self._pending is not None:
            assert self._pending.trial_id == trial_id
            yield
            return
        self._pending = PendingWrites(study_id, trial_id)
        try:
            yield
        finally:
            pending, self._pending = self._pending, None
            if not pending.is_empty:
                self._change(lambda: self._store(pending))

    def record_heartbeat(self, trial_id: int) -> None:
        """Record that the worker of a trial is alive; not repeated, as the next heartbeat follows soon."""
        try:
            with Session(self.engine) as session, session.begin():
                beat = TrialHeartbeatModel.where_trial_id(trial_id, session, for_update=True)
                if beat is None:
                    session.add(TrialHeartbeatModel(trial_id=trial_id, heartbeat=self.clock.heartbeat_time(session)))
                else:
                    beat.heartbeat = self.clock.heartbeat_time(session)
        except Exception as error:
            if not is_temporary(error):
                raise

    def check_study(self, session: Session, study_id: int) -> None:
        """Lock the row of a study, and check that a watched one is still the same.

        Raises:
            StudyGone: a watched study was deleted, renamed or replaced.
            KeyError: there is no such study, and it is not watched.
        """
        watched = self.watched.get(study_id)
        try:
            study = StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
        except KeyError:
            self._raise_if_watched(study_id)
            raise
        if watched and Watched(str(study.study_name), self._identity(session, study_id)) != watched:
            raise StudyGone(f"study {watched.name!r}: another study has replaced it in the database")

    # --- trials: written ---

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        return self.retry(lambda: self.database.create_new_trial(study_id, template_trial))

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        if pending := self._pending_of(trial_id):
            known = self._known_distributions(pending.study_id, param_name)
            check_distribution_compatibility(known.setdefault(param_name, distribution), distribution)
            pending.parameters[param_name] = param_value_internal, distribution
        else:
            self._change(lambda: self.database.set_trial_param(trial_id, param_name, param_value_internal, distribution))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        if pending := self._pending_of(trial_id):
            pending.user[key] = value
        else:
            self._change(lambda: self.database.set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if pending := self._pending_of(trial_id):
            pending.system[key] = value
        else:
            self._change(lambda: self.database.set_trial_system_attr(trial_id, key, value))

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        for guard in self.guards:
            guard()
        self._unstored.append((trial_id, step, intermediate_value))
        try:
            self._store_epochs()
        except KeyError:
            self._raise_if_watched()
            raise
        except Exception as error:
            if not self._can_wait(error):
                raise
            self.on_wait(cause_of(error))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        calls = 0

        def tell() -> bool:
            nonlocal calls
            calls += 1
            try:
                return self.database.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                stored = self.database.get_trial(trial_id)
                if calls > 1 and (stored.state, stored.values) == (state, None if values is None else list(values)):
                    return True  # the first call was stored, and only its answer was lost
                raise

        return self._change(tell)

    # --- trials: read ---

    def get_trial(self, trial_id: int) -> FrozenTrial:
        try:
            return self._read(lambda connection: read_trial(connection, trial_id))
        except KeyError:
            self._raise_if_watched()
            raise

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        def read(connection: Connection) -> list[FrozenTrial]:
            return self._trials.updated(study_id, partial(read_trials, connection, study_id))

        trials = self._read(read, study_id)
        chosen = [trial for trial in trials if states is None or trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    def get_running_trials(self, study_id: int) -> list[FrozenTrial]:
        """The RUNNING trials, without reading all trials of the study as `get_all_trials` does."""
        return self._read(lambda connection: read_running_trials(connection, study_id), study_id)

    def get_outlines(self, study_id: int) -> list[tuple[FrozenTrial, int]]:
        """As `search.storage.rows.read_outlines`."""
        return self._read(lambda connection: read_outlines(connection, study_id), study_id)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return self._ask(lambda: self.database.get_trial_id_from_study_id_trial_number(study_id, trial_number))

    # --- studies ---

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self.retry(lambda: self.database.create_new_study(directions, study_name))

    def delete_study(self, study_id: int) -> None:
        self.retry(lambda: self.database.delete_study(study_id))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self.retry(lambda: self.database.set_study_user_attr(study_id, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self.retry(lambda: self.database.set_study_system_attr(study_id, key, value))

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._ask(lambda: self.database.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._ask(lambda: self.database.get_study_name_from_id(study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        if study_id not in self._directions:
            self._directions[study_id] = self._ask(lambda: self.database.get_study_directions(study_id))
        return self._directions[study_id]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._ask(lambda: self.database.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._ask(lambda: self.database.get_study_system_attrs(study_id))

    def get_all_studies(self) -> list[Any]:
        return self._ask(self.database.get_all_studies)

    def remove_session(self) -> None:
        self.database.remove_session()

    # --- helpers ---

    def _ask(self, call: Callable[[], Answer]) -> Answer:
        """Retry a call to Optuna's storage that only reads."""
        with self.read_only():
            return self.retry(call)

    def _read(self, read: Callable[[Connection], Answer], study_id: int | None = None) -> Answer:
        """Retry a function that reads rows in one transaction, after looking for the study, if one is named."""

        def once() -> Answer:
            with Session(self.engine) as session:
                if study_id is not None:
                    StudyModel.find_or_raise_by_id(study_id, session)
                return read(session.connection())

        try:
            return self._ask(once)
        except KeyError:
            if study_id is not None:
                self._raise_if_watched(study_id)
            raise

    def _change(self, call: Callable[[], Answer]) -> Answer:
        """Retry a change of a trial, which vanishes only with its study."""
        try:
            return self.retry(call)
        except KeyError:
            self._raise_if_watched()
            raise

    def _raise_if_watched(self, study_id: int | None = None) -> None:
        """Raise StudyGone if this study, or the study of a trial that is missing, is watched."""
        names = [watched.name for key, watched in self.watched.items() if study_id in (None, key)]
        if names:
            raise StudyGone(f"study {names[0]!r} was deleted from the database") from None

    def _identity(self, session: Session, study_id: int) -> str | None:
        table = StudySystemAttributeModel
        query = select(table.value_json).where(table.study_id == study_id, table.key == IDENTITY)
        text = session.execute(query).scalar()
        return None if text is None else json.loads(text)

    def _can_wait(self, error: Exception) -> bool:
        return self.patience > 0 and is_temporary(error)

    def _pending_of(self, trial_id: int) -> PendingWrites | None:
        """The open buffer, if it is this trial's."""
        return self._pending if self._pending is not None and self._pending.trial_id == trial_id else None

    def _known_distributions(self, study_id: int, name: str) -> dict[str, BaseDistribution]:
        """Distributions of the study's parameters; those of its stored trials are read where this name is not known."""
        known = self._distributions.setdefault(study_id, {})
        if name not in known:
            for trial in self.get_all_trials(study_id, deepcopy=False):
                for stored, distribution in trial.distributions.items():
                    known.setdefault(stored, distribution)
        return known

    def _store(self, pending: PendingWrites) -> None:
        with Session(self.engine) as session, session.begin():
            store_pending(session, pending)

    def _store_epochs(self) -> None:
        """Store the values of past epochs, oldest first."""
        while self._unstored:
            try:
                self.database.set_trial_intermediate_value(*self._unstored[0])
            except Exception as error:
                if not self._can_wait(error):  # the trial has ended: none of its epochs can be stored any more
                    ended = self._unstored[0][0]
                    self._unstored = [entry for entry in self._unstored if entry[0] != ended]
                raise
            self._unstored.pop(0)
