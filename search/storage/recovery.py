"""Recovery: trials of workers that have ended are closed and queued again, each by one process and in one transaction.

The end of a worker is known in three ways. Its supervisor saw it end, and why. Its lock in the run folder is free
(`search.storage.locks`): the whole run was killed on this machine. Or the trial's heartbeat is older than the grace period:
its machine is lost, or the worker was suspended; if that worker resumes, its results are rejected.

Optuna's own callback for stale trials is not used: it closes a trial in one transaction and queues the retry in another, so
that a crash between them loses the trial, and a closed trial can no longer be given its reason. A RUNNING trial without a
heartbeat, which no transaction of this package leaves behind, is given one here, and so grows old like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import select
from sqlalchemy.orm import Session

from search.storage.attributes import (
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
from search.storage.database import storage_of
from search.storage.locks import has_ended
from search.storage.optuna_internals import TrialHeartbeatModel, TrialModel, TrialValueModel, study_id_of, trial_id_of
from search.storage.queue import count_trials, insert_waiting, locked, next_index, write_attributes
from search.storage.resilient import ResilientStorage
from search.training.measures import MEASURES
from search.training.result import Outcome

MOST_ATTEMPTS = 2  # of a trial whose process dies
MOST_LOSSES = 3  # consecutive losses of its machine, before the end of another epoch, after which the trial is at fault

SILENT = "no heartbeat of its worker within the grace period"

Verdict = tuple[TrialState, list[float] | None]

_INHERITED = (REFERENCE, FINGERPRINT, WARM_START, CONTENDER, REPEAT, REFUSED, REFUSED_PARAMS)
_FAILED_BY_CHANCE = (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY)
_VERDICTS = {
    Outcome.TRAINED: TrialState.COMPLETE,
    Outcome.PRUNED_AT_RUNG: TrialState.PRUNED,
    Outcome.REJECTED: TrialState.PRUNED,
    Outcome.DIVERGED: TrialState.PRUNED,
    Outcome.TIMED_OUT: TrialState.PRUNED,
}


def requeue(
    study: optuna.Study,
    *,
    worker: str | None = None,
    outcome: Outcome = Outcome.INTERRUPTED,
    reason: str = "the run was stopped",
) -> list[int]:
    """Close the RUNNING trials of this worker and queue them again; returns their numbers.

    An interrupted trial is always queued again, a failed one until it has had its attempts, one that timed out never.

    Args:
        worker: None for all workers: only for a process that knows that no other works on the study.
    """
    closed = []
    for trial in _running(study):
        is_chosen = worker is None or trial.user_attrs.get(WORKER) == worker
        if is_chosen and close_trial(study, trial, outcome, reason):
            closed.append(trial.number)
    return closed


def recover(study: optuna.Study, folder: Path, *, has_ended: Callable[[Path, object], bool] = has_ended) -> list[int]:
    """Close trials of dead workers and requeue them; returns their numbers. For any process, at any time.

    Args:
        folder: the run folder, which holds the locks of the workers.
        has_ended: True if the worker of this name, with a lock in this folder, has certainly ended.
    """
    storage, closed = storage_of(study), []
    for trial in _running(study):
        is_orphan = WORKER in trial.user_attrs and has_ended(folder, trial.user_attrs[WORKER])
        if is_orphan and close_trial(study, trial, Outcome.INTERRUPTED, "the run was stopped"):
            closed.append(trial.number)
    if storage.grace_seconds is None:
        return closed
    missing, stale = _heartbeats(study, storage)
    for trial_id in sorted(missing):
        storage.record_heartbeat(trial_id)
    for trial in _running(study) if stale else []:
        if trial_id_of(trial) in stale and close_trial(study, trial, Outcome.LOST, SILENT, if_stale=True):
            closed.append(trial.number)
    return closed


def requeue_references(study: optuna.Study) -> None:
    """Queue each reference again that failed in an earlier start of the run, from its checkpoint where there is one.

    Memory, time or a crash may have ended it, which another start need not meet. Divergence would come again.
    """
    while True:
        trials = study.get_trials(deepcopy=False)
        if storage_of(study).retry(partial(_requeue_references, study, trials)):
            return


def close_trial(study: optuna.Study, trial: FrozenTrial, outcome: Outcome, reason: str, *, if_stale: bool = False) -> bool:
    """End a RUNNING trial and queue its retry; False if another process has ended it.

    Args:
        outcome: INTERRUPTED, LOST, FAILED or TIMED_OUT. A trial that already has a verdict keeps that.
        if_stale: only if its heartbeat is still older than the grace period.
    """
    while True:
        trials = study.get_trials(deepcopy=False)
        current = trials[trial.number]
        verdict = verdict_of(study, current.user_attrs)
        is_closed = storage_of(study).retry(partial(_close, study, trials, current, verdict, outcome, reason, if_stale))
        if is_closed is not None:
            return bool(is_closed)


def verdict_of(study: optuna.Study, attributes: Mapping[str, Any]) -> Verdict:
    """(state, values) of a trial with these user attributes; FAIL if it has no outcome."""
    state = _VERDICTS.get(attributes.get(OUTCOME, ""), TrialState.FAIL)
    if state != TrialState.COMPLETE:
        return state, None
    return state, [float(attributes[BEST_VAL_ACCURACY if name in MEASURES else name]) for name in objectives(study)]


def drop_queued(study: optuna.Study, trial: FrozenTrial) -> None:
    """Remove a trial from the queue, if it is still WAITING."""

    def drop() -> None:
        with locked(study) as (storage, session):
            row = TrialModel.find_or_raise_by_id(trial_id_of(trial), session, for_update=True)
            if row.state == TrialState.WAITING:
                write_attributes(session, trial_id_of(trial), {OUTCOME: Outcome.INTERRUPTED})
                row.state = TrialState.FAIL
                row.datetime_start = row.datetime_complete = storage.clock.local_time()

    storage_of(study).retry(drop)


def _close(
    study: optuna.Study,
    trials: list[FrozenTrial],
    trial: FrozenTrial,
    verdict: Verdict,
    outcome: Outcome,
    reason: str,
    if_stale: bool,
) -> bool | None:
    """As `close_trial`, in one transaction; None if the trials have changed and must be read again."""
    with locked(study) as (storage, session):
        row = TrialModel.find_or_raise_by_id(trial_id_of(trial), session, for_update=True)
        if row.state != TrialState.RUNNING or (if_stale and not _is_stale(storage, session, trial_id_of(trial))):
            return False
        if count_trials(session, study)[0] != len(trials):
            return None
        state, values = verdict
        for objective, value in enumerate(values or ()):
            stored, kind = TrialValueModel.value_to_stored_repr(value)
            session.add(TrialValueModel(trial_id=row.trial_id, objective=objective, value=stored, value_type=kind))
        if state == TrialState.FAIL:  # otherwise its process died between its verdict and `tell`
            retry = _retry_attributes(trial, outcome, next_index(trials))
            if retry is not None and all(other.user_attrs.get(RETRY_OF) != trial.number for other in trials):
                # With a cost its parameters are complete; else the sampler proposes the same again.
                parameters = trial.params if PARAMS in trial.user_attrs else {}
                insert_waiting(session, study, (parameters, retry))
            ended = Outcome.FAILED if outcome == Outcome.LOST else outcome
            ended = Outcome.INTERRUPTED if retry is not None else ended
            write_attributes(session, trial_id_of(trial), {OUTCOME: ended, REASON: reason})
        row.state, row.datetime_complete = state, storage.clock.local_time()
        return True


def _requeue_references(study: optuna.Study, trials: list[FrozenTrial]) -> bool:
    """As `requeue_references`, in one transaction; False if the trials have changed and must be read again."""
    last = {trial.user_attrs[REFERENCE]: trial for trial in trials if REFERENCE in trial.user_attrs}
    failed = [trial for trial in last.values() if trial.user_attrs.get(OUTCOME) in _FAILED_BY_CHANCE]
    if failed:
        with locked(study) as (_, session):
            if count_trials(session, study)[0] != len(trials):
                return False
            for trial in failed:
                kept = {key: trial.user_attrs[key] for key in (INDEX, *_INHERITED) if key in trial.user_attrs}
                insert_waiting(session, study, ({}, kept | {ATTEMPT: 1, RETRY_OF: trial.number}))
    return True


def _retry_attributes(trial: FrozenTrial, outcome: Outcome, next_free: int) -> dict[str, Any] | None:
    """User attributes of a trial's retry; None if it gets none."""
    attributes, epochs = trial.user_attrs, len(trial.intermediate_values)
    attempt = attributes.get(ATTEMPT, 1) + (outcome == Outcome.FAILED)
    losses = 0
    if outcome == Outcome.LOST:
        losses = 1 if epochs > attributes.get("lost_after", 0) else attributes.get("losses", 0) + 1
    if outcome == Outcome.TIMED_OUT or (attempt > MOST_ATTEMPTS and outcome == Outcome.FAILED) or losses > MOST_LOSSES:
        return None
    kept = {INDEX: attributes.get(INDEX, next_free), ATTEMPT: attempt, RETRY_OF: trial.number}
    if losses:
        kept |= {"losses": losses, "lost_after": epochs}
    return kept | {key: attributes[key] for key in _INHERITED if key in attributes}


def _running(study: optuna.Study) -> list[FrozenTrial]:
    """RUNNING trials alone, as a supervisor never needs the others."""
    return storage_of(study).get_running_trials(study_id_of(study))


def _heartbeats(study: optuna.Study, storage: ResilientStorage) -> tuple[set[int], set[int]]:
    """Ids of RUNNING trials (without a heartbeat, with one older than the grace period)."""

    def read() -> tuple[set[int], set[int]]:
        with storage.read_only(), Session(storage.engine) as session:
            query = (
                select(TrialModel.trial_id, TrialHeartbeatModel.heartbeat)
                .outerjoin(TrialHeartbeatModel, TrialHeartbeatModel.trial_id == TrialModel.trial_id)
                .where(TrialModel.study_id == study_id_of(study), TrialModel.state == TrialState.RUNNING)
            )
            rows = session.execute(query).all()
            oldest = storage.clock.heartbeat_time(session) - timedelta(seconds=storage.grace_seconds or 0)
            missing = {row.trial_id for row in rows if row.heartbeat is None}
            stale = {row.trial_id for row in rows if row.heartbeat is not None and row.heartbeat < oldest}
            return missing, stale

    return storage.retry(read)


def _is_stale(storage: ResilientStorage, session: Session, trial_id: int) -> bool:
    """True if the heartbeat is still older than the grace period; its row is locked, so that it cannot change meanwhile."""
    beat = TrialHeartbeatModel.where_trial_id(trial_id, session, for_update=True)
    assert storage.grace_seconds is not None
    if beat is None:
        return False
    last: Any = beat.heartbeat
    return bool(storage.clock.heartbeat_time(session) - last > timedelta(seconds=storage.grace_seconds))
