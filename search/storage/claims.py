"""Claims: a table in the study's database that gives each network and recipe to one trial before its training begins.

Study attributes of Optuna overwrite each other, and its trials have no key that only one process can write. Here the
database itself rejects the second claim of a key. It is no queue: the next trial is chosen by `search.storage.queue`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import optuna
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from search.storage.database import create_concurrently, storage_of
from search.storage.optuna_internals import study_id_of

Retry = Callable[[Callable[[], Any]], Any]
ReadOnly = Callable[[], AbstractContextManager[None]]

_METADATA = MetaData()
_CLAIMS = Table(
    "architecture_search_claims",
    _METADATA,
    Column("study", Integer, primary_key=True),  # Optuna's id of the study
    Column("key", String(64), primary_key=True),
    Column("trial_index", Integer, nullable=False),  # logical: a retry has the claim of the trial that it repeats
)


def claim_inside(session: Session, study: optuna.Study, key: str, index: int) -> bool:
    """Claim a key for a new trial in the transaction that adds it; False if another trial has the key."""
    is_own = (_CLAIMS.c.study == study_id_of(study), _CLAIMS.c.key == key)
    if session.execute(select(_CLAIMS.c.trial_index).where(*is_own)).scalar() is not None:
        return False
    session.execute(insert(_CLAIMS).values(study=study_id_of(study), key=key, trial_index=index))
    return True


class Claims:
    """Keys of a study that are trained or in training, each with the logical index of its trial."""

    def __init__(
        self, engine: Engine, study_id: int, retry: Retry = lambda call: call(), read_only: ReadOnly = nullcontext
    ) -> None:
        self._engine = engine
        self._study = study_id
        self._retry, self._read_only = retry, read_only
        retry(lambda: create_concurrently(lambda: _METADATA.create_all(engine)))

    def held(self) -> dict[str, int]:
        """Every claimed key with the logical index of its trial."""
        with self._read_only():
            claimed: dict[str, int] = self._retry(self._read)
        return claimed

    def claim(self, key: str, index: int) -> bool:
        """Claim a key for the trial of this index and release its previous one; False if another trial has the key."""
        return bool(self._retry(lambda: self._claim(key, index)))

    def _read(self) -> dict[str, int]:
        with self._engine.connect() as connection:
            rows = connection.execute(select(_CLAIMS.c.key, _CLAIMS.c.trial_index).where(_CLAIMS.c.study == self._study))
            return {row.key: row.trial_index for row in rows}

    def _claim(self, key: str, index: int) -> bool:
        is_ours = _CLAIMS.c.study == self._study
        try:
            with self._engine.begin() as connection:
                holder = connection.execute(select(_CLAIMS.c.trial_index).where(is_ours, _CLAIMS.c.key == key)).scalar()
                if holder is None:
                    connection.execute(delete(_CLAIMS).where(is_ours, _CLAIMS.c.trial_index == index))
                    connection.execute(insert(_CLAIMS).values(study=self._study, key=key, trial_index=index))
                return holder in (None, index)
        except IntegrityError:  # on a server two processes can both read first; the other one was faster
            return False


def claims_of(study: optuna.Study) -> Claims:
    """The claims of a study, in its own database."""
    storage = storage_of(study)
    return Claims(storage.engine, study_id_of(study), storage.retry, storage.read_only)
