"""Optuna's storage that waits for a database which is away for a while, instead of losing what it was told.

A server is restarted, a network drops, SQLite is held by another: every call is made again until it is answered, for as
long as the storage has patience. All of them can be made twice, as the answer to the first may be what was lost. What an
epoch came to is put aside meanwhile, so that training goes on; it is stored before anything else is asked.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Table, insert, select, update
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from search.storage.rows import outline_trials, read_trial, read_trials

FIRST_PAUSE = 0.1  # seconds between two calls, doubled each time
LONGEST_PAUSE = 3.0
TELL_AFTER = 1.0  # seconds, before whoever watches is told

Answer = TypeVar("Answer")


class StorageAway(BaseException):
    """The database was away for longer than anyone waits, or its disk is full; what is stored is as it was.

    No `Exception`: the trial at work has not failed, and its objective must not take it so.
    """


def is_passing(error: BaseException | None) -> bool:
    """Whether an error says that the database is away or busy, and not that it was asked for something wrong."""
    while error is not None:
        if isinstance(error, DBAPIError):
            if error.connection_invalidated:
                return True
            if isinstance(error, OperationalError | InterfaceError):
                told = f"{error.orig}"
                return type(error.orig).__module__ != "sqlite3" or "locked" in told or "busy" in told
        error = error.__cause__
    return False


def is_full(error: BaseException | None) -> bool:
    """Whether an error says that the database's disk is full, or its file at a limit."""
    return error is not None and any(word in cause_of(error) for word in ("disk is full", "disk full", "disk I/O error"))


def cause_of(error: BaseException) -> str:
    """The first line of what a database said."""
    while not isinstance(error, DBAPIError) and error.__cause__ is not None:
        error = error.__cause__
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class PatientStorage(optuna.storages.RDBStorage):
    """Optuna's relational storage, with patience."""

    patience = 0.0  # seconds that a call waits for the database
    on_wait: Callable[[str], None] = staticmethod(lambda reason: None)  # told why, once for each call that waits

    def __init__(self, *words: Any, **options: Any) -> None:
        self._aside: list[tuple[int, int, float]] = []  # trial, step, value that are not stored yet
        self._at_work = threading.local()
        self._held: Held | None = None  # what is told of the trial at work until it is stored together
        super().__init__(*words, **options)

    def patiently(self, call: Callable[[], Answer]) -> Answer:
        """What the call returns, made again while the database is away.

        Raises:
            StorageAway: it was so for longer than there is patience.
        """
        with self._once() as is_first:
            return self._patiently(call) if is_first else call()

    def _patiently(self, call: Callable[[], Answer]) -> Answer:
        started, pause, told = time.monotonic(), FIRST_PAUSE, False
        while True:
            try:
                self._store_aside()
                return call()
            except Exception as error:
                waited, reason = time.monotonic() - started, cause_of(error)
                if self.patience and is_full(error):
                    raise StorageAway(f"the database cannot store more ({reason}); make space") from None
                if not self._can_wait(error):
                    raise
                if waited > self.patience:
                    raise StorageAway(f"the database was away for {waited:.0f} s ({reason})") from None
                if not told and waited > TELL_AFTER:
                    told = True
                    self.on_wait(reason)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    @contextmanager
    def _once(self) -> Iterator[bool]:
        """Whether this is the outermost call of the thread: Optuna's methods call each other, and only one has to wait."""
        is_first = not getattr(self._at_work, "inside", False)
        self._at_work.inside = True
        try:
            yield is_first
        finally:
            self._at_work.inside = not is_first

    def _can_wait(self, error: Exception) -> bool:
        return self.patience > 0 and is_passing(error)

    # --- what is told of a trial ---

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._aside.append((trial_id, step, intermediate_value))
        with self._once():
            try:
                self._store_aside()
            except Exception as error:
                if not self._can_wait(error):
                    raise
                self.on_wait(cause_of(error))

    def _store_aside(self) -> None:
        while self._aside:
            try:
                super().set_trial_intermediate_value(*self._aside[0])
            except Exception as error:
                if not self._can_wait(error):  # it has ended: nothing of it is to be stored any more
                    trial_id = self._aside[0][0]
                    self._aside = [one for one in self._aside if one[0] != trial_id]
                raise
            self._aside.pop(0)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        calls = 0

        def tell() -> bool:
            nonlocal calls
            calls += 1
            try:
                return super(PatientStorage, self).set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                stored = super(PatientStorage, self).get_trial(trial_id)
                if calls > 1 and (stored.state, stored.values) == (state, None if values is None else list(values)):
                    return True  # it was stored the first time, and only the answer was lost
                raise

        return self.patiently(tell)

    def record_heartbeat(self, trial_id: int) -> None:
        try:
            super().record_heartbeat(trial_id)
        except Exception as error:  # the thread that beats must outlive an outage, and beats again soon
            if not is_passing(error):
                raise

    # --- what is told at one moment ---

    @contextmanager
    def together(self, trial_id: int) -> Iterator[None]:
        """Store parameters and attributes that are set of the trial inside the block in one transaction, at its end.

        A block inside another is a part of it.

        Raises:
            UpdateFinishedTrialError: at its end, where the trial has ended; nothing of it is stored then.
        """
        if self._held is not None:
            assert self._held.trial == trial_id
            yield
            return
        self._held = Held(trial_id)
        try:
            yield
        finally:
            held, self._held = self._held, None
            if held:
                self.patiently(lambda: self._store(held))

    def _store(self, held: Held) -> None:
        with _create_scoped_session(self.scoped_session) as session:
            store(self, session, held)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        if self._held is not None and self._held.trial == trial_id:
            self._held.user[key] = value
        else:
            self.patiently(lambda: super(PatientStorage, self).set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if self._held is not None and self._held.trial == trial_id:
            self._held.system[key] = value
        else:
            self.patiently(lambda: super(PatientStorage, self).set_trial_system_attr(trial_id, key, value))

    def _set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution, previous: Any
    ) -> None:
        if previous is not None and self._held is not None and self._held.trial == trial_id:
            check_distribution_compatibility(previous, distribution)
            self._held.parameters[param_name] = param_value_internal, distribution
        else:  # Optuna looks in the study for what this parameter was before
            words = (trial_id, param_name, param_value_internal, distribution, previous)
            self.patiently(lambda: super(PatientStorage, self)._set_trial_param(*words))

    # --- what is read, by transactions that keep nobody from writing ---

    @property
    def only_reads(self) -> bool:
        """Whether the thread is at something that only reads."""
        return getattr(self._at_work, "reads", False)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The transactions of this thread write nothing inside the block."""
        before, self._at_work.reads = self.only_reads, True
        try:
            yield
        finally:
            self._at_work.reads = before

    def _get_trials(
        self, study_id: int, states: Any, included_trial_ids: set[int], trial_id_greater_than: int
    ) -> list[FrozenTrial]:
        return self._read(
            study_id,
            lambda connection: read_trials(connection, study_id, states, included_trial_ids, trial_id_greater_than),
        )

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._read(None, lambda connection: read_trial(connection, trial_id))

    def outline(self, study_id: int) -> list[tuple[FrozenTrial, int]]:
        """As `search.storage.rows.outline_trials`."""
        return self._read(study_id, lambda connection: outline_trials(connection, study_id))

    def _read(self, study_id: int | None, call: Callable[[Connection], Answer]) -> Answer:
        """What the call reads in one transaction, of a study that must be there."""

        def read() -> Answer:
            with _create_scoped_session(self.scoped_session) as session:
                if study_id is not None:
                    models.StudyModel.find_or_raise_by_id(study_id, session)
                return call(session.connection())

        with self.reading():
            return self.patiently(read)

    # --- everything else that Optuna asks ---

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        return self.patiently(lambda: super(PatientStorage, self)._create_new_trial(study_id, template_trial))


def _patient(name: str, *, reads: bool) -> Callable[..., Any]:
    def call(self: PatientStorage, *words: Any, **options: Any) -> Any:
        with self.reading() if reads else nullcontext():
            return self.patiently(lambda: getattr(super(PatientStorage, self), name)(*words, **options))

    call.__name__ = name
    return call


for _name in ("create_new_study", "delete_study", "set_study_user_attr", "set_study_system_attr"):
    setattr(PatientStorage, _name, _patient(_name, reads=False))
for _name in (
    *("get_all_studies", "get_study_directions", "get_study_id_from_name", "get_study_name_from_id"),
    *("get_study_user_attrs", "get_study_system_attrs", "get_trial_id_from_study_id_trial_number"),
    *("get_trial_user_attrs", "get_trial_system_attrs", "_get_best_trial_id", "_get_stale_trial_ids"),
):
    setattr(PatientStorage, _name, _patient(_name, reads=True))


@dataclass
class Held:
    """Values of a trial that are not stored yet."""

    trial: int  # Optuna's id
    parameters: dict[str, tuple[float, BaseDistribution]] = field(default_factory=dict)  # in Optuna's internal form
    user: dict[str, Any] = field(default_factory=dict)
    system: dict[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.parameters or self.user or self.system)


def store(storage: RDBStorage, session: Session, held: Held) -> None:
    """Store them; may be done twice, as the answer to the first time may be what was lost.

    Raises:
        UpdateFinishedTrialError: the trial has ended.
    """
    state: Any = models.TrialModel.find_or_raise_by_id(held.trial, session, for_update=True).state
    storage.check_trial_is_updatable(held.trial, state)
    _store_parameters(session, held)
    store_attributes(session, models.TrialUserAttributeModel.__table__, held.trial, held.user)
    store_attributes(session, models.TrialSystemAttributeModel.__table__, held.trial, held.system)


def store_attributes(session: Session, table: Table, trial: int, attributes: Mapping[str, Any]) -> None:
    """Set attributes of a trial, whose row the transaction has locked."""
    if not attributes:
        return
    wanted = {key: json.dumps(value) for key, value in attributes.items()}
    own = table.c.trial_id == trial
    asked = select(table.c.key, table.c.value_json).where(own, table.c.key.in_(wanted))
    stored = {row.key: row.value_json for row in session.execute(asked)}
    new = [{"trial_id": trial, "key": key, "value_json": told} for key, told in wanted.items() if key not in stored]
    if new:
        session.execute(insert(table), new)
    for key, told in stored.items():
        if wanted[key] != told:
            session.execute(update(table).where(own, table.c.key == key).values(value_json=wanted[key]))


def _store_parameters(session: Session, held: Held) -> None:
    if not held.parameters:
        return
    table = models.TrialParamModel.__table__
    asked = select(table.c.param_name).where(table.c.trial_id == held.trial)
    stored = {row.param_name for row in session.execute(asked)}
    new = [
        {"trial_id": held.trial, "param_name": name, "param_value": value, "distribution_json": distribution_to_json(one)}
        for name, (value, one) in held.parameters.items()
        if name not in stored
    ]
    if new:
        session.execute(insert(table), new)
