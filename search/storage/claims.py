"""Who trains what: one small table beside Optuna's own, in which a network is claimed before its training begins.

Study attributes of Optuna overwrite each other, and its trials hold no key that two processes could not both write. Here the
database itself refuses the second claim to a key. It is no queue: which trial comes next is Optuna's affair alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import optuna
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, delete, insert, select
from sqlalchemy.exc import IntegrityError

from search.storage.database import engine_of, made_at_once, patiently, reading

Patiently = Callable[[Callable[[], Any]], Any]
Reading = Callable[[], AbstractContextManager[None]]

_METADATA = MetaData()
_CLAIMS = Table(
    "architecture_search_claims",
    _METADATA,
    Column("study", Integer, primary_key=True),  # Optuna's id of the study
    Column("key", String(64), primary_key=True),
    Column("trial_index", Integer, nullable=False),  # logical: a retry holds the claim of the trial that it stands for
)


class Claims:
    """The keys of a study that are trained or in flight, each with the logical index of its trial."""

    def __init__(
        self, engine: Engine, study_id: int, patiently: Patiently = lambda call: call(), reading: Reading = nullcontext
    ) -> None:
        self._engine = engine
        self._study = study_id
        self._patiently, self._reading = patiently, reading
        patiently(lambda: made_at_once(lambda: _METADATA.create_all(engine)))

    def held(self) -> dict[str, int]:
        """Every claimed key and the index that holds it."""
        with self._reading():
            found: dict[str, int] = self._patiently(self._held)
        return found

    def claim(self, key: str, index: int) -> bool:
        """Claim a key for the trial of this index, which then lets go of any other; False where another trial holds it."""
        return bool(self._patiently(lambda: self._claim(key, index)))

    def _held(self) -> dict[str, int]:
        with self._engine.connect() as connection:
            rows = connection.execute(select(_CLAIMS.c.key, _CLAIMS.c.trial_index).where(_CLAIMS.c.study == self._study))
            return {row.key: row.trial_index for row in rows}

    def _claim(self, key: str, index: int) -> bool:
        ours = _CLAIMS.c.study == self._study
        try:
            with self._engine.begin() as connection:
                holder = connection.execute(select(_CLAIMS.c.trial_index).where(ours, _CLAIMS.c.key == key)).scalar()
                if holder is None:
                    connection.execute(delete(_CLAIMS).where(ours, _CLAIMS.c.trial_index == index))
                    connection.execute(insert(_CLAIMS).values(study=self._study, key=key, trial_index=index))
                return holder in (None, index)
        except IntegrityError:  # another process was faster, on a server where both may read first
            return False


def claims_of(study: optuna.Study) -> Claims:
    """The claims of a study, in its own database."""
    return Claims(engine_of(study), study._study_id, partial(patiently, study), partial(reading, study))
