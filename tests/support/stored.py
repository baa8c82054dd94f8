"""Thousands of finished trials stored in seconds: the rows that Optuna writes one by one, in one transaction.

`Study.add_trial` takes 60 ms for a trial of 50 epochs, as it looks for each row before it writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from search.storage.claims import _CLAIMS, claims_of
from search.storage.queue import locked

CHUNK = 500  # trials of which the rows are held at once

Rows = dict[Any, list[dict[str, Any]]]  # by table


def store(study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
    """Add finished trials to a study, and the claims to what they trained."""
    claims_of(study)
    with locked(study) as (_, session):
        first = 1 + (session.execute(select(func.max(models.TrialModel.trial_id))).scalar() or 0)
        before = session.execute(select(func.count()).where(models.TrialModel.study_id == study._study_id)).scalar_one()
        for start in range(0, len(trials), CHUNK):
            chunk = trials[start : start + CHUNK]
            rows: Rows = {}
            for place, trial in enumerate(chunk, start):
                for table, row in _rows(study._study_id, first + place, before + place, trial):
                    rows.setdefault(table, []).append(row)
            for table, found in rows.items():
                session.execute(insert(table), found)
        if session.get_bind().dialect.name == "postgresql":  # whose next id is none of those above
            _count_on(session, first + len(trials))


def _rows(study: int, trial_id: int, number: int, trial: FrozenTrial) -> Iterator[tuple[Any, dict[str, Any]]]:
    own = {"trial_id": trial_id}
    times = {"datetime_start": _utc(trial.datetime_start), "datetime_complete": _utc(trial.datetime_complete)}
    yield models.TrialModel.__table__, own | {"number": number, "study_id": study, "state": trial.state} | times
    for objective, value in enumerate(trial.values or ()):
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        yield models.TrialValueModel.__table__, own | {"objective": objective, "value": stored, "value_type": kind}
    for name, given in trial.params.items():
        one = trial.distributions[name]
        row = {
            "param_name": name,
            "param_value": one.to_internal_repr(given),
            "distribution_json": distribution_to_json(one),
        }
        yield models.TrialParamModel.__table__, own | row
    for table, attributes in (
        (models.TrialUserAttributeModel, trial.user_attrs),
        (models.TrialSystemAttributeModel, trial.system_attrs),
    ):
        for key, value in attributes.items():
            yield table.__table__, own | {"key": key, "value_json": json.dumps(value)}
    for step, value in trial.intermediate_values.items():
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        row = {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}
        yield models.TrialIntermediateValueModel.__table__, own | row
    if {"key", "index"} <= trial.user_attrs.keys():
        yield _CLAIMS, {"study": study, "key": trial.user_attrs["key"], "trial_index": trial.user_attrs["index"]}


def _utc(local: datetime | None) -> datetime | None:
    return local.astimezone(UTC).replace(tzinfo=None) if local else None


def _count_on(session: Session, next_id: int) -> None:
    session.execute(select(func.setval(func.pg_get_serial_sequence("trials", "trial_id"), next_id, False)))
