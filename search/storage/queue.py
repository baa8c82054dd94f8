"""The queue of trials that all workers of a study share: each step is one transaction of the database.

Optuna's trials are the only record; no second table could disagree with them. A step locks the row of the study, checks that
the trials are still the ones it was decided on, and writes everything or nothing.

    step         by                            effect in one transaction
    ----------   ---------------------------   ------------------------------------------------------------------------
    queue        any worker                    adds WAITING trials, each with its logical index
    begin        a worker, if has_room         WAITING (else a new trial) -> RUNNING, with index, worker, first heartbeat
    train        the worker that began it      stays RUNNING; stores parameters, heartbeats, epochs, at last the outcome
    tell         the worker that began it      RUNNING -> COMPLETE, PRUNED or FAIL; an error if another process ended it
    requeue      supervisor, or any worker     RUNNING -> FAIL "interrupted", and a WAITING retry with the same index
    drop         finals                        WAITING -> FAIL "interrupted", without a retry
    adopt        any worker, before `begin`    adds COMPLETE trials of another run; see `search.storage.adoption`

    state        outcome (user attribute)                                 counts towards the study's N    retried
    ----------   ------------------------------------------------------   -----------------------------   -------
    WAITING      none                                                     no                              -
    RUNNING      none, or the verdict that is about to be told            no, but it takes up room        -
    COMPLETE     trained                                                  yes, unless adopted             no
    PRUNED       pruned_at_rung                                           yes                             no
    PRUNED       rejected, diverged, timed_out                            no                              no
    FAIL         interrupted                                              no                              yes
    FAIL         failed, out_of_memory, timed_out                         no                              no

Room: trials that count and RUNNING trials are together never more than the study asks for, so that it ends with exactly N
trials for any number of workers. A process that dies before a step has changed nothing. One that dies after it leaves a
RUNNING trial with its index, its worker's name and a heartbeat that grows old; see `search.storage.recovery`. If the answer
to `begin` is lost, the trial names the worker that asks again, which then gets that trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from search.storage.attributes import ATTEMPT, INDEX, WORKER
from search.storage.database import storage_of
from search.storage.optuna_internals import (
    TrialHeartbeatModel,
    TrialModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
    study_id_of,
    trial_id_of,
)
from search.storage.pending import store_attributes
from search.storage.resilient import ResilientStorage

CANDIDATES = 100  # queued trials among which `begin` looks for one that is still WAITING

Trials = Sequence[FrozenTrial]
HasRoom = Callable[[Trials, int], bool]
Queued = tuple[Mapping[str, Any], Mapping[str, Any]]  # fixed parameters, user attributes


def begin(
    study: optuna.Study,
    worker: str,
    *,
    has_room: HasRoom = lambda trials, others: True,
    choose: Callable[[FrozenTrial], bool] = lambda trial: True,
    new: Callable[[Trials], Mapping[str, Any] | None] = lambda trials: {},
) -> optuna.Trial | None:
    """Begin a trial for this worker only: the first queued one, else a new one.

    Args:
        worker: its name, stored with the trial.
        has_room: True if one more trial may run beside these, and beside as many others that began after they were read.
        choose: True for a queued trial that this worker may take.
        new: the user attributes of a new trial beside these, or None if there shall be none.

    Returns:
        None if there is nothing to begin now.
    """
    storage = storage_of(study)
    while True:
        trials = study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state == TrialState.RUNNING and trial.user_attrs.get(WORKER) == worker:
                return optuna.Trial(study, trial_id_of(trial))
        queued = [trial for trial in trials if trial.state == TrialState.WAITING and choose(trial)]
        attributes = None if queued else new(trials)
        if (not queued and attributes is None) or not has_room(trials, 0):
            return None
        attributes = {**(attributes or {}), WORKER: worker}
        trial_id = storage.retry(partial(_begin, study, trials, queued, attributes, has_room))
        if trial_id is not None:
            study.get_trials(deepcopy=False)  # Optuna's cache must know the trial
            return optuna.Trial(study, trial_id)


def queue(study: optuna.Study, wanted: Callable[[Trials], Sequence[Queued]]) -> None:
    """Queue trials, all or none; `wanted` is called again if another process added some meanwhile."""
    while True:
        trials = study.get_trials(deepcopy=False)
        queued = wanted(trials)
        if not queued or storage_of(study).retry(partial(_queue, study, trials, queued)):
            return


def next_index(trials: Trials) -> int:
    """The logical index that follows these trials'."""
    return 1 + max((trial.user_attrs.get(INDEX, -1) for trial in trials), default=-1)


@contextmanager
def locked(study: optuna.Study) -> Iterator[tuple[ResilientStorage, Session]]:
    """A transaction during which no other process adds, begins or closes a trial of the study."""
    storage = storage_of(study)
    with Session(storage.engine) as session, session.begin():
        storage.check_study(session, study_id_of(study))
        yield storage, session


def count_trials(session: Session, study: optuna.Study) -> tuple[int, int]:
    """(number of trials of the study, number of them that are not WAITING)."""
    states = select(TrialModel.state, func.count().label("trials")).where(TrialModel.study_id == study_id_of(study))
    counts = {row.state: row.trials for row in session.execute(states.group_by(TrialModel.state))}
    total = sum(counts.values())
    return total, total - counts.get(TrialState.WAITING, 0)


def insert_trial(session: Session, study: optuna.Study, *, state: TrialState) -> Any:
    """Add a row of a trial, inside `locked`; its number is the count of the study's trials."""
    total, _ = count_trials(session, study)
    trial = TrialModel(study_id=study_id_of(study), number=total, state=state)
    session.add(trial)
    session.flush()  # gives it its id
    return trial


def insert_waiting(session: Session, study: optuna.Study, queued: Queued) -> None:
    """Add a trial to the queue, inside `locked`."""
    parameters, attributes = queued
    trial = insert_trial(session, study, state=TrialState.WAITING)
    store_attributes(session, TrialUserAttributeModel.__table__, trial.trial_id, attributes)
    store_attributes(session, TrialSystemAttributeModel.__table__, trial.trial_id, {"fixed_params": dict(parameters)})


def write_attributes(session: Session, trial_id: int, attributes: Mapping[str, Any]) -> None:
    """Set user attributes of a trial that this transaction has found RUNNING, or created."""
    store_attributes(session, TrialUserAttributeModel.__table__, trial_id, attributes)


def _begin(
    study: optuna.Study, trials: Trials, queued: Trials, attributes: Mapping[str, Any], has_room: HasRoom
) -> int | None:
    """The id of the trial, or None if the trials have changed and must be read again."""
    with locked(study) as (storage, session):
        total, begun = count_trials(session, study)
        others = begun - sum(trial.state != TrialState.WAITING for trial in trials)
        if not has_room(trials, others):
            return None
        first = _first_waiting(session, queued)
        is_indexed = first is not None and INDEX in first.user_attrs
        if (queued and first is None) or (not is_indexed and (others or total != len(trials))):
            return None
        if first is None:
            trial = insert_trial(session, study, state=TrialState.RUNNING)
        else:
            trial = TrialModel.find_or_raise_by_id(trial_id_of(first), session, for_update=True)
            trial.state = TrialState.RUNNING
        trial.datetime_start = storage.clock.local_time()
        if not is_indexed:  # a new trial, or one that the user queued
            attributes = {INDEX: next_index(trials), ATTEMPT: 1, **attributes}
        trial_id = int(trial.trial_id)
        write_attributes(session, trial_id, attributes)
        session.add(TrialHeartbeatModel(trial_id=trial_id, heartbeat=storage.clock.heartbeat_time(session)))
        return trial_id


def _first_waiting(session: Session, queued: Trials) -> FrozenTrial | None:
    """The first of these trials that is still WAITING."""
    if not queued:
        return None
    ids = [trial_id_of(trial) for trial in queued[:CANDIDATES]]
    query = select(TrialModel.trial_id).where(TrialModel.trial_id.in_(ids), TrialModel.state == TrialState.WAITING)
    waiting = {row.trial_id for row in session.execute(query)}
    return next((trial for trial in queued if trial_id_of(trial) in waiting), None)


def _queue(study: optuna.Study, trials: Trials, queued: Sequence[Queued]) -> bool:
    with locked(study) as (_, session):
        if count_trials(session, study)[0] != len(trials):
            return False
        for entry in queued:
            insert_waiting(session, study, entry)
        return True
