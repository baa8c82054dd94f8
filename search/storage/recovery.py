"""Trials whose worker is gone: closed with what became of them and queued again, each by one process and in one transaction.

That a worker is gone is known in three ways. Its supervisor saw it end, and says of what. Its lock in the run folder is free
(`search.storage.locks`): the whole run was killed on this machine. Or the trial's heartbeat, which is Optuna's own, is older
than the grace period: its machine is lost, or it was halted; should it come back, what it tells is refused. Optuna's own
callback for stale trials is not used, as it closes a trial in one transaction and queues the retry in another: a crash
between the two would lose it, and a closed trial can no longer be given its reason. A RUNNING trial without a heartbeat,
which no transaction of ours leaves behind, is given one here, and so grows old like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import func
from sqlalchemy.orm import Session

from search.storage import locks as liveness
from search.storage.attributes import (
    ACCURACY,
    ATTEMPT,
    BEST_VAL_ACCURACY,
    CONTENDER,
    FINGERPRINT,
    INDEX,
    OUTCOME,
    PARAMS,
    REASON,
    REFERENCE,
    REFUSED,
    REFUSED_PARAMS,
    REPEAT,
    RETRY_OF,
    WARM_START,
    WORKER,
    objectives,
)
from search.storage.database import backend_of, patiently, reading
from search.storage.queue import add, alone, counted, next_index, write
from search.training.result import Outcome

MOST_ATTEMPTS = 2  # of a trial whose process dies
MOST_LOSSES = 3  # in a row of a trial that comes to no epoch before its machine is lost: then it is the trial

Verdict = tuple[TrialState, list[float] | None]

_INHERITED = (REFERENCE, FINGERPRINT, WARM_START, CONTENDER, REPEAT, REFUSED, REFUSED_PARAMS)
_VERDICTS = {
    Outcome.TRAINED: TrialState.COMPLETE,
    Outcome.PRUNED_AT_RUNG: TrialState.PRUNED,
    Outcome.REJECTED: TrialState.PRUNED,
    Outcome.DIVERGED: TrialState.PRUNED,
    Outcome.TIMED_OUT: TrialState.PRUNED,
}


def take_up(
    study: optuna.Study,
    *,
    worker: str | None = None,
    outcome: Outcome = Outcome.INTERRUPTED,
    reason: str = "the run was stopped",
) -> list[int]:
    """Close the trials that this worker was training and queue them again; returns the numbers closed.

    An interrupted trial is always queued again, a failed one until it has had its attempts, one that timed out never.

    Args:
        worker: None takes up all that run: only for a process that knows no other to be at work on the study.
    """
    of = [one for one in _running(study) if worker is None or one.user_attrs.get(WORKER) == worker]
    return [one.number for one in of if close(study, one, outcome, reason)]


def sweep(study: optuna.Study, folder: Path) -> list[int]:
    """Take up what the dead have left; returns the numbers closed. For any process, and at any time."""
    closed = []
    for trial in _running(study):
        if WORKER in trial.user_attrs and liveness.is_gone(folder, trial.user_attrs[WORKER]):
            closed += [trial.number] if close(study, trial, Outcome.INTERRUPTED, "the run was stopped") else []
    storage = backend_of(study)
    if storage.get_heartbeat_interval() is None:
        return closed
    with reading(study):
        without = patiently(study, lambda: _without_heartbeat(study))
    for trial_id in without:
        storage.record_heartbeat(trial_id)
    stale = set(storage._get_stale_trial_ids(study._study_id))
    for trial in _running(study) if stale else []:
        if trial._trial_id in stale and close(study, trial, Outcome.LOST, "nothing was heard of its worker", if_stale=True):
            closed.append(trial.number)
    return closed


def close(study: optuna.Study, trial: FrozenTrial, outcome: Outcome, reason: str, *, if_stale: bool = False) -> bool:
    """End a trial that runs and queue what goes on with it; False where somebody else has ended it.

    Args:
        outcome: INTERRUPTED, LOST, FAILED or TIMED_OUT. A trial that had come to a verdict gets that instead.
        if_stale: only if its heartbeat is still older than the grace period.
    """
    while True:
        trials = study.get_trials(deepcopy=False)
        now = trials[trial.number]
        verdict = verdict_of(study, now.user_attrs)
        done = patiently(study, partial(_close, study, trials, now, verdict, outcome, reason, if_stale))
        if done is not None:
            return bool(done)


def verdict_of(study: optuna.Study, attributes: Mapping[str, Any]) -> Verdict:
    """(state, values) of a trial with these user attributes: FAIL where it has not come to a verdict."""
    state = _VERDICTS.get(attributes.get(OUTCOME, ""), TrialState.FAIL)
    if state != TrialState.COMPLETE:
        return state, None
    return state, [float(attributes[BEST_VAL_ACCURACY if name == ACCURACY else name]) for name in objectives(study)]


def drop_queued(study: optuna.Study, trial: FrozenTrial) -> None:
    """Take a trial from the queue, if nobody has begun it."""

    def drop() -> None:
        with alone(study) as (storage, session):
            row = models.TrialModel.find_or_raise_by_id(trial._trial_id, session, for_update=True)
            if row.state == TrialState.WAITING:
                row.state, row.datetime_start = TrialState.RUNNING, datetime.now()
                write(storage, session, trial._trial_id, {OUTCOME: Outcome.INTERRUPTED})
                row.state, row.datetime_complete = TrialState.FAIL, datetime.now()

    patiently(study, drop)


def _close(
    study: optuna.Study,
    trials: list[FrozenTrial],
    trial: FrozenTrial,
    verdict: Verdict,
    outcome: Outcome,
    reason: str,
    if_stale: bool,
) -> bool | None:
    """None where the trials have changed meanwhile."""
    with alone(study) as (storage, session):
        row = models.TrialModel.find_or_raise_by_id(trial._trial_id, session, for_update=True)
        if row.state != TrialState.RUNNING or (if_stale and not _is_stale(storage, session, trial._trial_id)):
            return False
        attributes = trial.user_attrs
        if counted(session, study)[0] != len(trials):
            return None
        state, values = verdict
        for place, value in enumerate(values or ()):
            storage._set_trial_value_without_commit(session, row, place, value)
        if state == TrialState.FAIL:  # else its process died between its verdict and telling it
            again = _again(trial, outcome, next_index(trials))
            if again is not None and all(one.user_attrs.get(RETRY_OF) != trial.number for one in trials):
                drawn = trial.params if PARAMS in attributes else {}  # priced, so complete; else drawn again, the same
                add(storage, session, study, (drawn, again))
            ended = Outcome.FAILED if outcome == Outcome.LOST else outcome
            ended = Outcome.INTERRUPTED if again is not None else ended
            write(storage, session, trial._trial_id, {OUTCOME: ended, REASON: reason})
        row.state, row.datetime_complete = state, datetime.now()
        return True


def _again(trial: FrozenTrial, outcome: Outcome, next_free: int) -> dict[str, Any] | None:
    """The attributes of a trial's retry, None where it gets none."""
    attributes, epochs = trial.user_attrs, len(trial.intermediate_values)
    attempt = attributes.get(ATTEMPT, 1) + (outcome == Outcome.FAILED)
    losses = 0
    if outcome == Outcome.LOST:
        losses = 1 if epochs > attributes.get("lost_after", 0) else attributes.get("losses", 0) + 1
    if outcome == Outcome.TIMED_OUT or (attempt > MOST_ATTEMPTS and outcome == Outcome.FAILED) or losses > MOST_LOSSES:
        return None
    kept = {INDEX: attributes.get(INDEX, next_free), ATTEMPT: attempt, RETRY_OF: trial.number}
    kept |= {"losses": losses, "lost_after": epochs} if losses else {}
    return kept | {key: attributes[key] for key in _INHERITED if key in attributes}


def _running(study: optuna.Study) -> list[FrozenTrial]:
    """Asked of the database itself: Optuna's cache would read the whole study for it, which a supervisor has no use for."""
    trials: list[FrozenTrial] = backend_of(study).get_all_trials(
        study._study_id, deepcopy=False, states=(TrialState.RUNNING,)
    )
    return trials


def _without_heartbeat(study: optuna.Study) -> list[int]:
    with Session(backend_of(study).engine) as session:
        trials, beats = models.TrialModel, models.TrialHeartbeatModel
        found = session.query(trials.trial_id).outerjoin(beats, beats.trial_id == trials.trial_id)
        found = found.filter(trials.study_id == study._study_id, trials.state == TrialState.RUNNING)
        return [row.trial_id for row in found.filter(beats.trial_id.is_(None))]


def _is_stale(storage: RDBStorage, session: Session, trial_id: int) -> bool:
    """Optuna's own rule, by the clock of the database, on the one row, which cannot change meanwhile."""
    beat = models.TrialHeartbeatModel.where_trial_id(trial_id, session, for_update=True)
    now = session.execute(func.now()).scalar()
    assert now is not None and storage.grace_period is not None
    return beat is not None and now.replace(tzinfo=None) - beat.heartbeat > timedelta(seconds=storage.grace_period)
