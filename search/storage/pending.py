"""Writes to a trial, collected and stored in one transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from sqlalchemy import Table, insert, select, update
from sqlalchemy.orm import Session

from search.storage.optuna_internals import TrialModel, TrialParamModel, TrialSystemAttributeModel, TrialUserAttributeModel


@dataclass
class PendingWrites:
    """Parameters and attributes of a trial that are not stored yet."""

    study_id: int
    trial_id: int
    parameters: dict[str, tuple[float, BaseDistribution]] = field(default_factory=dict)  # in Optuna's internal form
    user: dict[str, Any] = field(default_factory=dict)
    system: dict[str, Any] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to store."""
        return not (self.parameters or self.user or self.system)


def store_pending(session: Session, pending: PendingWrites) -> None:
    """Store the writes in the session's transaction; idempotent, as a lost answer makes the caller repeat it.

    Raises:
        UpdateFinishedTrialError: the trial has ended.
    """
    trial = TrialModel.find_or_raise_by_id(pending.trial_id, session, for_update=True)
    state: Any = trial.state
    if state.is_finished():
        raise UpdateFinishedTrialError(f"trial {trial.number} has finished and cannot be changed")
    _store_parameters(session, pending)
    store_attributes(session, TrialUserAttributeModel.__table__, pending.trial_id, pending.user)
    store_attributes(session, TrialSystemAttributeModel.__table__, pending.trial_id, pending.system)


def store_attributes(session: Session, table: Table, trial_id: int, attributes: Mapping[str, Any]) -> None:
    """Set attributes of a trial whose row the transaction has locked."""
    if not attributes:
        return
    wanted = {key: json.dumps(value) for key, value in attributes.items()}
    is_own = table.c.trial_id == trial_id
    query = select(table.c.key, table.c.value_json).where(is_own, table.c.key.in_(wanted))
    stored = {row.key: row.value_json for row in session.execute(query)}
    new = [{"trial_id": trial_id, "key": key, "value_json": text} for key, text in wanted.items() if key not in stored]
    if new:
        session.execute(insert(table), new)
    for key, text in stored.items():
        if wanted[key] != text:
            session.execute(update(table).where(is_own, table.c.key == key).values(value_json=wanted[key]))


def _store_parameters(session: Session, pending: PendingWrites) -> None:
    if not pending.parameters:
        return
    table = TrialParamModel.__table__
    query = select(table.c.param_name).where(table.c.trial_id == pending.trial_id)
    stored = {row.param_name for row in session.execute(query)}
    new = [
        {
            "trial_id": pending.trial_id,
            "param_name": name,
            "param_value": value,
            "distribution_json": distribution_to_json(distribution),
        }
        for name, (value, distribution) in pending.parameters.items()
        if name not in stored
    ]
    if new:
        session.execute(insert(table), new)
