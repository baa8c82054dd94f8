"""Runs one trial: begins it in the queue, samples with the seed of its logical index, trains it and reports its result."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from objective import Objective, checkpoint_path
from search.seeds import derive
from search.storage.attributes import ADOPTED, INDEX, OUTCOME
from search.storage.heartbeat import heartbeat
from search.storage.optuna_internals import trial_id_of
from search.storage.queue import HasRoom, Trials, begin
from search.storage.recovery import requeue, verdict_of
from search.study.records import COUNTED
from search.training import checkpoint
from search.training.result import TrialOver
from search.tuning import make_sampler
from search.tuning.pruner import make_pruner
from search.tuning.stopping import LimitReached

Values = float | Sequence[float]  # of one objective, or of several


def has_room(trials: Trials, most: int) -> bool:
    """True if one more candidate may run: those that count and those that run are never more than `most` together."""
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    taken = (
        trial.state == TrialState.RUNNING or (trial.state in ended and trial.user_attrs.get(OUTCOME) in COUNTED)
        for trial in trials
        if ADOPTED not in trial.user_attrs
    )
    return sum(taken) < most


def run_candidate(
    study: optuna.Study, objective: Objective, *, has_room_for_one: HasRoom | None = None, may_propose: bool = True
) -> bool:
    """Run the queued candidate, or let the sampler propose one; False without room for one.

    Args:
        has_room_for_one: as in `search.storage.queue.begin`; by the study's number of trials if None.
        may_propose: False to run queued candidates only.

    Raises:
        Exhausted: the space holds nothing new that fits.
        LimitReached: a limit of the study was reached; the trial is requeued.
    """
    context = objective.context
    config = context.config
    trial = begin(
        study,
        context.worker,
        has_room=has_room_for_one or (lambda trials, others: has_room(trials, config.trials - others)),
        new=lambda trials: {} if may_propose else None,
    )
    if trial is None:
        return False
    seed = derive(config.search.seed, "sampler", trial.user_attrs[INDEX])
    study.sampler = make_sampler(config, context.facts, objective.claims, seed=seed, prior=context.prior)
    study.pruner = make_pruner(config)
    run_trial(study, trial, objective.candidate, objective)
    return True


def run_trial(
    study: optuna.Study, trial: optuna.Trial, evaluate: Callable[[optuna.Trial], Values], objective: Objective
) -> None:
    """Run a trial that was begun, with heartbeats; report its result to Optuna and remove its checkpoint.

    The result is discarded if another process has ended the trial meanwhile, for lack of heartbeats.

    Raises:
        LimitReached: a limit of the study was reached; the trial is requeued.
    """
    value: Values | None = None
    state = TrialState.FAIL
    try:
        with heartbeat(trial):
            try:
                value, state = evaluate(trial), TrialState.COMPLETE
            except optuna.TrialPruned:
                state = TrialState.PRUNED
            except TrialOver:
                pass
            except LimitReached as reached:
                requeue(study, worker=objective.context.worker, reason=f"{reached}")
                raise
            except UpdateFinishedTrialError:
                raise
            except Exception:
                # The trial may have its verdict already, and only something after it failed, such as its note.
                state, value = verdict_of(study, trial.user_attrs)
                _tell(study, trial, value, state)
                raise
        _tell(study, trial, value, state)
    except UpdateFinishedTrialError:
        objective.observer.trial_reassigned(trial)
    else:
        checkpoint.remove(checkpoint_path(objective.context.folder, trial.user_attrs))
    gc.collect()  # a network and its compiled functions refer to each other


def remove_stale_checkpoints(folder: Path, studies: Iterable[optuna.Study]) -> None:
    """Remove the checkpoints of trials that another process than their worker has ended."""
    unfinished = (TrialState.RUNNING, TrialState.WAITING)
    kept = {
        checkpoint_path(folder, trial.user_attrs)
        for study in studies
        for trial in study.get_trials(deepcopy=False, states=unfinished)
        if INDEX in trial.user_attrs
    }
    for path in (folder / "checkpoints").glob("[!.]*.npz"):
        if path not in kept:
            checkpoint.remove(path)


def _tell(study: optuna.Study, trial: optuna.Trial, value: Values | None, state: TrialState) -> None:
    """Report a result as `Study.tell` does, which raises for a trial that another process has ended."""
    try:
        study.tell(trial, value, state)
    except ValueError as error:
        if trial.storage.get_trial(trial_id_of(trial)).state.is_finished():
            raise UpdateFinishedTrialError from error
        raise
