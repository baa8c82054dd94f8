"""What is written of one trial at one moment, held and stored in one transaction instead of one for each value.

A proposal of 26 parameters was 26 transactions, each of which waits for the disk and keeps all other workers waiting.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from sqlalchemy import Table, insert, select, update
from sqlalchemy.orm import Session


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
