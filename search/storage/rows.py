"""Optuna's trials read as plain rows: those that its own storage builds from objects, in a tenth of the time.

Optuna makes an object of every row, and a trial of 50 epochs has a hundred rows: it takes 13 CPU-seconds for ten thousand.
Each process that works on a study reads them once; after that Optuna's cache asks for what is new.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Row, String, Table, func, or_, select, type_coerce

LISTED = 500  # trials that a statement names one by one; more are named as a range of their study's
FETCHED = 10_000  # rows at once

_TRIALS: Table = models.TrialModel.__table__
_PARAMETERS: Table = models.TrialParamModel.__table__
_VALUES: Table = models.TrialValueModel.__table__
_EPOCHS: Table = models.TrialIntermediateValueModel.__table__
_USER: Table = models.TrialUserAttributeModel.__table__
_SYSTEM: Table = models.TrialSystemAttributeModel.__table__

_KINDS = ("value_type", "intermediate_value_type")  # taken as their names
_NOT_FINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}  # stored as NULL and the name of a kind


def read_trials(
    connection: Connection, study: int, states: Collection[TrialState] | None, others: Collection[int], after: int
) -> list[FrozenTrial]:
    """Trials of a study by their ids, as `RDBStorage._get_trials` gives them.

    Args:
        study: Optuna's id of it.
        states: only trials in one of these; in any if None.
        others: ids of trials that are read
        after: beside all whose ids are greater.
    """
    with _without_collector():
        rows = _begun(connection, study, states, others, after)
        found = {row.trial_id: _trial(row) for row in rows}
        _complete(connection, study, found)
        return list(found.values())


def read_trial(connection: Connection, trial_id: int) -> FrozenTrial:
    """The trial of this id.

    Raises:
        KeyError: there is none.
    """
    row = connection.execute(select(_TRIALS).where(_TRIALS.c.trial_id == trial_id)).one_or_none()
    if row is None:
        raise KeyError(models.NOT_FOUND_MSG)
    trial = _trial(row)
    _complete(connection, row.study_id, {trial_id: trial})
    return trial


def outline_trials(connection: Connection, study: int) -> list[tuple[FrozenTrial, int]]:
    """All trials of a study with their user attributes alone, and how many epochs each came to."""
    with _without_collector():
        found = {row.trial_id: _trial(row) for row in _begun(connection, study, None, (), -1)}
        for trial, (_, key, told) in _rows(connection, study, found, _USER, "key", "value_json"):
            trial._user_attrs[key] = json.loads(told)
        ours = select(_TRIALS.c.trial_id).where(_TRIALS.c.study_id == study)
        asked = select(_EPOCHS.c.trial_id, func.count()).where(_EPOCHS.c.trial_id.in_(ours)).group_by(_EPOCHS.c.trial_id)
        epochs = {row[0]: row[1] for row in connection.execute(asked)}
        return [(trial, epochs.get(trial_id, 0)) for trial_id, trial in found.items()]


def _begun(
    connection: Connection, study: int, states: Collection[TrialState] | None, others: Collection[int], after: int
) -> Sequence[Row[Any]]:
    """The rows of the trials themselves."""
    asked = select(_TRIALS).where(_TRIALS.c.study_id == study).order_by(_TRIALS.c.trial_id)
    if states is not None:
        asked = asked.where(_TRIALS.c.state.in_(states))
    if after < 0:
        return connection.execute(asked).all()
    if len(others) <= LISTED:
        return connection.execute(asked.where(or_(_TRIALS.c.trial_id > after, _TRIALS.c.trial_id.in_(others)))).all()
    chosen = set(others)
    return [row for row in connection.execute(asked) if row.trial_id > after or row.trial_id in chosen]


def _trial(row: Row[Any]) -> FrozenTrial:
    """A trial of which only its own row is known."""
    begun, ended = (_local(moment) for moment in (row.datetime_start, row.datetime_complete))
    return FrozenTrial(row.number, row.state, None, begun, ended, {}, {}, {}, {}, {}, row.trial_id)


def _complete(connection: Connection, study: int, found: dict[int, FrozenTrial]) -> None:
    """Add what other tables hold of these trials."""
    if not found:
        return
    rows = partial(_rows, connection, study, found)
    parameters = sorted(rows(_PARAMETERS, "param_id", "param_name", "param_value", "distribution_json"), key=_second)
    for trial, (_, _, name, value, told) in parameters:
        distribution = _distribution(told)
        trial.params[name], trial.distributions[name] = distribution.to_external_repr(value), distribution
    for trial, (_, key, told) in rows(_USER, "key", "value_json"):
        trial._user_attrs[key] = json.loads(told)
    for trial, (_, key, told) in rows(_SYSTEM, "key", "value_json"):
        trial._system_attrs[key] = json.loads(told)
    for trial, (_, epoch, value, kind) in rows(_EPOCHS, "step", "intermediate_value", "intermediate_value_type"):
        trial.intermediate_values[epoch] = _number(value, kind)
    for trial, (_, objective, value, kind) in sorted(rows(_VALUES, "objective", "value", "value_type"), key=_second):
        assert objective == len(trial._values or ())
        trial._values = [*(trial._values or ()), _number(value, kind)]


def _rows(
    connection: Connection, study: int, found: Mapping[int, FrozenTrial], table: Table, *columns: str
) -> Iterator[tuple[FrozenTrial, Any]]:
    """Each row of a table that belongs to one of these trials: the trial, and (its id, *columns)."""
    of = table.c.trial_id
    asked = select(of, *(type_coerce(table.c[name], String) if name in _KINDS else table.c[name] for name in columns))
    if len(found) <= LISTED:
        asked = asked.where(of.in_(found))
    else:
        ours = select(_TRIALS.c.trial_id).where(_TRIALS.c.study_id == study)
        asked = asked.where(of.in_(ours), of >= min(found), of <= max(found))
    for part in connection.execute(asked).partitions(FETCHED):
        for row in part:
            if (trial := found.get(row[0])) is not None:
                yield trial, row


def _second(found: tuple[FrozenTrial, Any]) -> int:
    second: int = found[1][1]
    return second


def _number(value: float | None, kind: str) -> float:
    return _NOT_FINITE[kind] if value is None else value


def _local(utc: datetime | None) -> datetime | None:
    return utc.replace(tzinfo=UTC).astimezone().replace(tzinfo=None) if utc else None


@lru_cache(maxsize=4096)
def _distribution(told: str) -> BaseDistribution:
    return json_to_distribution(told)  # all trials of a study have the same few, which nobody changes


@contextmanager
def _without_collector() -> Iterator[None]:
    """Nothing of what is read is garbage, and the collector would look through all of it again and again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
