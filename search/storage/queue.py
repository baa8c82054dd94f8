"""How many workers share one study: who trains which trial is settled in the database, one transaction a step.

Optuna's trials are the only record. There is no second queue and no table of places that could disagree with them: a step
locks the study's row, looks whether the trials are still those it was decided on, and writes all or nothing.

    step        done by                     in one transaction
    queue       a worker, once              WAITING trials, with their logical index
    begin       a worker that has room      a WAITING trial, else a new one, RUNNING: index, worker, first heartbeat
    (training)  the worker that began       parameters, epochs, heartbeats; at last the outcome
    tell        the same                    RUNNING -> COMPLETE, PRUNED, FAIL; refused where somebody has taken it up
    take up     see `search.storage.recovery`       RUNNING -> FAIL with its reason, and the retry WAITING with the same
    index

Room is for trials that count and those RUNNING: together never more than the study asks for, so that it ends with exactly
its number, however many workers there are. A trial that ends without counting makes room; its retry inherits its index.
A process that dies before a step has changed nothing; one that dies after it leaves a RUNNING trial that has its index,
names its worker and has a heartbeat which grows old: nothing else has to be found again. Where the answer to `begin` is lost
with the connection, the trial names the worker that asks again, and is taken by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from search.storage.attributes import ATTEMPT, INDEX, WORKER
from search.storage.database import backend_of, patiently
from search.storage.resilient import Held, store

CHOICE = 100  # queued trials that are looked at for one that is still to be had

Trials = Sequence[FrozenTrial]
Room = Callable[[Trials, int], bool]
Queued = tuple[Mapping[str, Any], Mapping[str, Any]]  # fixed parameters, user attributes


def begin(
    study: optuna.Study,
    worker: str,
    *,
    room: Room = lambda trials, others: True,
    choose: Callable[[FrozenTrial], bool] = lambda trial: True,
    new: Callable[[Trials], Mapping[str, Any] | None] = lambda trials: {},
) -> optuna.Trial | None:
    """Begin a trial for this worker, and for no other: the first one queued, else a new one.

    Args:
        worker: its name, which the trial will carry.
        room: whether one more may run beside these trials, and so many others that began after they were read.
        choose: whether a queued trial is one that this worker may take.
        new: the user attributes of a new trial beside these trials, None where there shall be none.

    Returns:
        None where there is nothing to begin now.
    """
    while True:
        trials = study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state == TrialState.RUNNING and trial.user_attrs.get(WORKER) == worker:
                return optuna.Trial(study, trial._trial_id)
        queued = [one for one in trials if one.state == TrialState.WAITING and choose(one)]
        attributes = None if queued else new(trials)
        if (not queued and attributes is None) or not room(trials, 0):
            return None
        about = {**(attributes or {}), WORKER: worker}
        begun = patiently(study, partial(_begin, study, trials, queued, about, room))
        if begun is not None:
            study.get_trials(deepcopy=False)  # for Optuna's cache to know of it
            return optuna.Trial(study, begun)


def queue(study: optuna.Study, wanted: Callable[[Trials], Sequence[Queued]]) -> None:
    """Queue trials, all of them or none; what is wanted is asked again where another process added some meanwhile."""
    while True:
        trials = study.get_trials(deepcopy=False)
        found = wanted(trials)
        if not found or patiently(study, partial(_queue, study, trials, found)):
            return


def next_index(trials: Trials) -> int:
    """The logical index of a trial that comes after these."""
    return 1 + max((trial.user_attrs.get(INDEX, -1) for trial in trials), default=-1)


@contextmanager
def alone(study: optuna.Study) -> Iterator[tuple[RDBStorage, Session]]:
    """A transaction in which nobody else adds, begins or takes up a trial of the study."""
    storage: RDBStorage = backend_of(study)
    with Session(storage.engine) as session, session.begin():
        models.StudyModel.find_or_raise_by_id(study._study_id, session, for_update=True)
        yield storage, session


def counted(session: Session, study: optuna.Study) -> tuple[int, int]:
    """How many trials the study has, and how many of them have begun."""
    model = models.TrialModel
    states = select(model.state, func.count().label("trials")).where(model.study_id == study._study_id)
    found = {row.state: row.trials for row in session.execute(states.group_by(model.state))}
    total = sum(found.values())
    return total, total - found.get(TrialState.WAITING, 0)


def add(storage: RDBStorage, session: Session, study: optuna.Study, queued: Queued) -> None:
    """Add a trial to the queue."""
    parameters, attributes = queued
    template = create_trial(
        state=TrialState.WAITING, system_attrs={"fixed_params": dict(parameters)}, user_attrs=dict(attributes)
    )
    storage._get_prepared_new_trial(study._study_id, template, session)


def write(storage: RDBStorage, session: Session, trial_id: int, attributes: Mapping[str, Any]) -> None:
    """Set user attributes of a trial that runs."""
    store(storage, session, Held(trial_id, user=dict(attributes)))


def _begin(study: optuna.Study, trials: Trials, queued: Trials, attributes: Mapping[str, Any], room: Room) -> int | None:
    """None where the trials have changed meanwhile, so that they must be read again."""
    with alone(study) as (storage, session):
        total, begun = counted(session, study)
        others = begun - sum(trial.state != TrialState.WAITING for trial in trials)
        if not room(trials, others):
            return None
        first = _first_waiting(session, queued)
        is_indexed = first is not None and INDEX in first.user_attrs
        if (queued and first is None) or (not is_indexed and (others or total != len(trials))):
            return None
        if first is None:
            trial = storage._get_prepared_new_trial(study._study_id, None, session)
        else:
            trial = models.TrialModel.find_or_raise_by_id(first._trial_id, session, for_update=True)
            trial.state, trial.datetime_start = TrialState.RUNNING, datetime.now()
        if not is_indexed:  # a new one, or one that a person queued
            attributes = {INDEX: next_index(trials), ATTEMPT: 1, **attributes}
        trial_id = int(trial.trial_id)
        write(storage, session, trial_id, attributes)
        session.add(models.TrialHeartbeatModel(trial_id=trial_id))
        return trial_id


def _first_waiting(session: Session, queued: Trials) -> FrozenTrial | None:
    """The first of these that nobody has begun or dropped."""
    model = models.TrialModel
    waits = select(model.trial_id).where(model.trial_id.in_([one._trial_id for one in queued[:CHOICE]]))
    found = {row.trial_id for row in session.execute(waits.where(model.state == TrialState.WAITING))} if queued else set()
    return next((one for one in queued if one._trial_id in found), None)


def _queue(study: optuna.Study, trials: Trials, wanted: Sequence[Queued]) -> bool:
    with alone(study) as (storage, session):
        if counted(session, study)[0] == len(trials):
            for one in wanted:
                add(storage, session, study, one)
            return True
        return False
