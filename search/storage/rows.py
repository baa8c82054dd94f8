"""Optuna's trials, read as plain rows in a third of the time and memory of its own storage.

Optuna creates an object for every row, and a trial of 50 epochs has a hundred rows. For 2,000 stored trials that is 6 CPU
seconds more for `top`, and 280 MiB more for each worker (benchmarks/LOG.md, 2026-11-30).
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
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Row, Select, String, Table, func, or_, select, type_coerce

from search.storage.optuna_internals import (
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
    TrialValueModel,
)

LISTED = 500  # trials that a statement names one by one; more are named as a range of their study's
FETCHED = 10_000  # rows at once

_TRIALS: Table = TrialModel.__table__
_PARAMETERS: Table = TrialParamModel.__table__
_VALUES: Table = TrialValueModel.__table__
_EPOCHS: Table = TrialIntermediateValueModel.__table__
_USER: Table = TrialUserAttributeModel.__table__
_SYSTEM: Table = TrialSystemAttributeModel.__table__

_KINDS = ("value_type", "intermediate_value_type")  # read as the names of the enum's members
_NOT_FINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}  # stored as NULL and the name of a kind


def read_trials(connection: Connection, study_id: int, listed: Collection[int], above: int) -> list[FrozenTrial]:
    """Trials of a study by id.

    Args:
        listed: ids of trials to read
        above: besides all with a higher id; -1 for all trials.
    """
    query = _trials_of(study_id)
    if above < 0:
        return _complete(connection, study_id, connection.execute(query).all())
    if len(listed) <= LISTED:
        query = query.where(or_(_TRIALS.c.trial_id > above, _TRIALS.c.trial_id.in_(listed)))
        return _complete(connection, study_id, connection.execute(query).all())
    chosen = set(listed)
    rows = [row for row in connection.execute(query) if row.trial_id > above or row.trial_id in chosen]
    return _complete(connection, study_id, rows)


def read_running_trials(connection: Connection, study_id: int) -> list[FrozenTrial]:
    """The RUNNING trials of a study."""
    query = _trials_of(study_id).where(_TRIALS.c.state == TrialState.RUNNING)
    return _complete(connection, study_id, connection.execute(query).all())


def read_trial(connection: Connection, trial_id: int) -> FrozenTrial:
    """The trial of this id.

    Raises:
        KeyError: there is none.
    """
    row = connection.execute(select(_TRIALS).where(_TRIALS.c.trial_id == trial_id)).one_or_none()
    if row is None:
        raise KeyError(f"there is no trial of id {trial_id}")
    return _complete(connection, row.study_id, [row])[0]


def read_outlines(connection: Connection, study_id: int) -> list[tuple[FrozenTrial, int]]:
    """All trials of a study, each with its user attributes alone and its number of epochs."""
    with _garbage_collection_paused():
        trials = {row.trial_id: _bare_trial(row) for row in connection.execute(_trials_of(study_id))}
        for trial, (_, key, text) in _rows(connection, study_id, trials, _USER, "key", "value_json"):
            trial.user_attrs[key] = json.loads(text)
        ids = select(_TRIALS.c.trial_id).where(_TRIALS.c.study_id == study_id)
        query = select(_EPOCHS.c.trial_id, func.count()).where(_EPOCHS.c.trial_id.in_(ids)).group_by(_EPOCHS.c.trial_id)
        epochs = {row[0]: row[1] for row in connection.execute(query)}
        return [(trial, epochs.get(trial_id, 0)) for trial_id, trial in trials.items()]


def _trials_of(study_id: int) -> Select[Any]:
    return select(_TRIALS).where(_TRIALS.c.study_id == study_id).order_by(_TRIALS.c.trial_id)


def _bare_trial(row: Row[Any]) -> FrozenTrial:
    """A trial with the contents of its own row."""
    start, end = (_local_time(moment) for moment in (row.datetime_start, row.datetime_complete))
    return FrozenTrial(
        number=row.number,
        state=row.state,
        value=None,
        datetime_start=start,
        datetime_complete=end,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=row.trial_id,
    )


def _complete(connection: Connection, study_id: int, own_rows: Sequence[Row[Any]]) -> list[FrozenTrial]:
    """The trials of these rows, with the contents of all other tables."""
    with _garbage_collection_paused():
        trials = {row.trial_id: _bare_trial(row) for row in own_rows}
        if not trials:
            return []
        rows = partial(_rows, connection, study_id, trials)
        parameters = sorted(rows(_PARAMETERS, "param_id", "param_name", "param_value", "distribution_json"), key=_order)
        for trial, (_, _, name, value, text) in parameters:
            distribution = _distribution(text)
            trial.params[name], trial.distributions[name] = distribution.to_external_repr(value), distribution
        for trial, (_, key, text) in rows(_USER, "key", "value_json"):
            trial.user_attrs[key] = json.loads(text)
        for trial, (_, key, text) in rows(_SYSTEM, "key", "value_json"):
            trial.system_attrs[key] = json.loads(text)
        for trial, (_, epoch, value, kind) in rows(_EPOCHS, "step", "intermediate_value", "intermediate_value_type"):
            trial.intermediate_values[epoch] = _number(value, kind)
        values: dict[int, list[float]] = {}
        for _, (trial_id, _, value, kind) in sorted(rows(_VALUES, "objective", "value", "value_type"), key=_order):
            values.setdefault(trial_id, []).append(_number(value, kind))
        for trial_id, numbers in values.items():
            trials[trial_id].values = numbers
        return list(trials.values())


def _rows(
    connection: Connection, study_id: int, trials: Mapping[int, FrozenTrial], table: Table, *columns: str
) -> Iterator[tuple[FrozenTrial, Any]]:
    """Each row of a table that belongs to one of these trials: the trial, and (its id, *columns)."""
    owner = table.c.trial_id
    query = select(owner, *(type_coerce(table.c[name], String) if name in _KINDS else table.c[name] for name in columns))
    if len(trials) <= LISTED:
        query = query.where(owner.in_(trials))
    else:
        ids = select(_TRIALS.c.trial_id).where(_TRIALS.c.study_id == study_id)
        query = query.where(owner.in_(ids), owner >= min(trials), owner <= max(trials))
    for part in connection.execute(query).partitions(FETCHED):
        for row in part:
            if (trial := trials.get(row[0])) is not None:
                yield trial, row


def _order(entry: tuple[FrozenTrial, Any]) -> int:
    """The first column after the trial's id, by which parameters and values are ordered."""
    order: int = entry[1][1]
    return order


def _number(value: float | None, kind: str) -> float:
    return _NOT_FINITE[kind] if value is None else value


def _local_time(utc: datetime | None) -> datetime | None:
    return utc.replace(tzinfo=UTC).astimezone().replace(tzinfo=None) if utc else None


@lru_cache(maxsize=4096)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)  # all trials of a study share the same few, which are never changed


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Nothing that is read is garbage, and the collector would scan all of it again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
