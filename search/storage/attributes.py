"""Attributes that the system keeps with a study, many rewritten in one transaction.

Optuna writes them one by one and reads all of them to write one. Here a reader sees the whole of a text or none of it, the
cost does not grow with what else is kept, such as a note for each of thousands of trials, and what is gone leaves no row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import optuna
from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, Text, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from search.storage.database import engine_of, patiently

# Optuna's own table, of which its storage makes the rows known as `study_system_attrs`.
_KEPT = Table(
    "study_system_attributes",
    MetaData(),
    Column("study_system_attribute_id", Integer, primary_key=True),
    Column("study_id", Integer),
    Column("key", String(512)),
    Column("value_json", Text),
)

# User attributes of a trial. A retry inherits those of its identity: index, reference, contender, repeat, warm start.
INDEX = "index"  # logical index, from which seeds and the sampler's draws are derived
ATTEMPT = "attempt"  # from 1
RETRY_OF = "retry_of"  # number of the trial that it replaces
WORKER = "worker"  # name of the process that trains it
KEY = "key"  # hash of everything that its training depends on
REFERENCE = "reference"  # name of the reference network
FINGERPRINT = "fingerprint"  # of the reference network
CONTENDER = "contender"  # name of the finalist
REPEAT = "repeat"  # seed of a finalist
WARM_START = "warm_start"  # name of the known network that was queued
OUTCOME = "outcome"  # a `search.training.result.Outcome`
REASON = "reason"  # of an outcome other than "trained"
PARAMS = "params"
RECEPTIVE_FIELD = "receptive_field"  # [height, width] in pixels
SEED = "seed"  # of the training
EPOCHS = "epochs"  # trained
SECONDS = "seconds"  # of the whole training
COMPILE_SECONDS = "compile_seconds"
BEST_VAL_ACCURACY = "best_val_accuracy"  # by which trials are ranked
BEST_EPOCH = "best_epoch"
FINAL_VAL_ACCURACY = "final_val_accuracy"  # of the last epoch
FLOAT_VAL_ACCURACY = "float_val_accuracy"  # of the best epoch, where the ranked accuracy is that after int8 conversion
FLIP_VAL_ACCURACY = "flip_val_accuracy"  # of the best epoch's weights, averaged over each image and its mirror image
DELTA_VS_BASE = "delta_vs_base"
REFUSED = "refused"  # number of proposals that the sampler rejected before this one, by the rule that they broke
REFUSED_PARAMS = "refused_params"  # parameters of the first of them

ACCURACY = "accuracy"  # name of the objective that every study has

Attributes = Mapping[str, Any]


def rewrite(study: optuna.Study, prefixes: Iterable[str], change: Callable[[Attributes], Attributes]) -> None:
    """Put in place of all attributes whose names begin with one of the prefixes what `change` makes of them.

    What stays the same is not written. On a server where another process writes the same names at once, it is done anew.
    """
    engine, chosen = engine_of(study), tuple(prefixes)

    def once() -> None:
        with engine.begin() as connection:
            _rewrite(connection, study._study_id, chosen, change)

    try:
        patiently(study, once)
    except IntegrityError:  # another process was faster with the first row of a name
        patiently(study, once)


def _rewrite(
    connection: Connection, study: int, prefixes: tuple[str, ...], change: Callable[[Attributes], Attributes]
) -> None:
    names = or_(*(_KEPT.c.key.startswith(prefix, autoescape=True) for prefix in prefixes))
    rows = connection.execute(select(_KEPT).where(_KEPT.c.study_id == study, names).with_for_update()).all()
    written = {row.key: row for row in rows if row.key.startswith(prefixes)}  # LIKE may not tell capitals apart
    wanted = {
        key: json.dumps(value)
        for key, value in change({key: json.loads(row.value_json) for key, row in written.items()}).items()
    }
    for key, row in written.items():
        own = _KEPT.c.study_system_attribute_id == row.study_system_attribute_id
        if key not in wanted:
            connection.execute(delete(_KEPT).where(own))
        elif wanted[key] != row.value_json:
            connection.execute(update(_KEPT).where(own).values(value_json=wanted[key]))
    new = [{"study_id": study, "key": key, "value_json": text} for key, text in wanted.items() if key not in written]
    if new:
        connection.execute(insert(_KEPT), new)


def objectives(study: optuna.Study) -> tuple[str, ...]:
    """What the values of a study's trials are, by name: accuracy, and the prices that are traded for it."""
    return tuple(study.metric_names or (ACCURACY,))
