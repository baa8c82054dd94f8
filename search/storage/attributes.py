"""System attributes of a study, many of them replaced in one transaction; names of trial attributes.

Optuna writes them one by one and reads all of them to write one. Here a reader sees a whole text or none of it, the cost
does not grow with the number of other attributes, such as a note for each trial, and removed attributes leave no row.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import optuna
from sqlalchemy import Connection, Table, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from search.storage.database import storage_of
from search.storage.optuna_internals import StudySystemAttributeModel, study_id_of
from search.storage.resilient import IDENTITY, Watched

# User attributes of a trial. A retry inherits those of its identity: index, reference, contender, repeat, warm start.
INDEX = "index"  # logical index, from which seeds and the sampler's draws are derived
ATTEMPT = "attempt"  # from 1
RETRY_OF = "retry_of"  # number of the trial that it replaces
WORKER = "worker"  # name of the process that trains it
KEY = "key"  # hash of everything that its training depends on
REFERENCE = "reference"  # name of the reference network
FINGERPRINT = "fingerprint"  # of the reference network
CONTENDER = "contender"  # name of the finalist
BASE = "base"  # name of the base among the finalists
REPEAT = "repeat"  # seed of a finalist
WARM_START = "warm_start"  # name of the known network that was queued
ADOPTED = "adopted"  # run and number of the trial whose training another run has done; see `search.tuning.adoption`
OUTCOME = "outcome"  # a `search.training.result.Outcome`
REASON = "reason"  # of an outcome other than "trained"
PARAMS = "params"
RECEPTIVE_FIELD = "receptive_field"  # in pixels, the larger of height and width
SEED = "seed"  # of the training
EPOCHS = "epochs"  # trained
SECONDS = "seconds"  # of the whole training
COMPILE_SECONDS = "compile_seconds"
BEST_VAL_ACCURACY = "best_val_accuracy"  # by which trials are ranked; this and the next: values of the study's measure
BEST_EPOCH = "best_epoch"
FINAL_VAL_ACCURACY = "final_val_accuracy"  # of the last epoch
MEASURED = "measures"  # value of every measure at the best epoch, by name, in a study that ranks by another than accuracy
EFFECTIVE_IMAGES = "effective_images"  # see `effective_images` in `search.training.measures` and `.folds`; else absent
FOLD_VALUES = "fold_values"  # value of the study's measure of each fold, at the best epoch of their mean
NETWORK_VALUE = "network_value"  # of the network that is kept, the first fold's in its own best epoch, on that fold
FLOAT_VAL_ACCURACY = "float_val_accuracy"  # of the best epoch, where the ranked accuracy is that after int8 conversion
FLIP_VAL_ACCURACY = "flip_val_accuracy"  # of the best epoch's weights, averaged over each image and its mirror image
NETWORK = "network_sha256"  # of the trained network, by which files of another trial are recognised
DELTA_VS_BASE = "delta_vs_base"
PROPOSAL = "proposal"  # reason of the sampler's choice, with the predicted accuracy; see `search.tuning.bayes`
REFUSED = "refused"  # number of proposals that the sampler rejected before this one, by the rule that they broke
REFUSED_PARAMS = "refused_params"  # parameters of the first of them

ACCURACY = "accuracy"  # name of the objective that every study has

Attributes = Mapping[str, Any]

_TABLE: Table = StudySystemAttributeModel.__table__


def objectives(study: optuna.Study) -> tuple[str, ...]:
    """Names of the values of a study's trials: accuracy, then the costs that are minimised."""
    return tuple(study.metric_names or (ACCURACY,))


def rewrite(study: optuna.Study, prefixes: Iterable[str], change: Callable[[Attributes], Attributes]) -> None:
    """Replace all system attributes whose names begin with one of the prefixes by what `change` returns for them.

    Unchanged ones are not written. Repeated if another process of a server writes the same names at the same time.
    """
    storage, chosen = storage_of(study), tuple(prefixes)

    def replace_once() -> None:
        with storage.engine.begin() as connection:
            _rewrite(connection, study_id_of(study), chosen, change)

    try:
        storage.retry(replace_once)
    except IntegrityError:  # another process inserted the first row of a name
        storage.retry(replace_once)


def watch(study: optuna.Study) -> None:
    """Make every later step of this process fail if the study is deleted, renamed or replaced; see `StudyGone`."""
    rewrite(study, (IDENTITY,), lambda before: before or {IDENTITY: secrets.token_hex(8)})
    storage = storage_of(study)
    identity = storage.get_study_system_attrs(study_id_of(study))[IDENTITY]
    storage.watched[study_id_of(study)] = Watched(study.study_name, identity)


def _rewrite(
    connection: Connection, study_id: int, prefixes: tuple[str, ...], change: Callable[[Attributes], Attributes]
) -> None:
    names = or_(*(_TABLE.c.key.startswith(prefix, autoescape=True) for prefix in prefixes))
    rows = connection.execute(select(_TABLE).where(_TABLE.c.study_id == study_id, names).with_for_update()).all()
    stored = {row.key: row for row in rows if row.key.startswith(prefixes)}  # LIKE may ignore case
    changed = change({key: json.loads(row.value_json) for key, row in stored.items()})
    wanted = {key: json.dumps(value) for key, value in changed.items()}
    for key, row in stored.items():
        is_row = _TABLE.c.study_system_attribute_id == row.study_system_attribute_id
        if key not in wanted:
            connection.execute(delete(_TABLE).where(is_row))
        elif wanted[key] != row.value_json:
            connection.execute(update(_TABLE).where(is_row).values(value_json=wanted[key]))
    new = [{"study_id": study_id, "key": key, "value_json": text} for key, text in wanted.items() if key not in stored]
    if new:
        connection.execute(insert(_TABLE), new)
